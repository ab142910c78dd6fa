from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from actgrid.errors import (
    ActgridError,
    DtypeError,
    ImageError,
    MissingFileError,
    OptionError,
    ShapeError,
)
from actgrid.models.images import load_images
from actgrid.runs.sources import Item, find_items

Array = npt.NDArray[Any]


def touch(folder: Path, *names: str) -> list[Path]:
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def list_keys(inputs: Any) -> list[str]:
    return [item.key for item in find_items(inputs).start()]


def list_labels(inputs: Any) -> list[str | None]:
    return [item.label for item in find_items(inputs).start()]


# --- files


def test_keys_and_labels_of_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    touch(folder, "dog/b/002.jpg", "dog/001.jpg", "cat/001.png", "zoo.gif", "notes.md")
    items = find_items(folder)
    assert items.total == 4
    assert items.are_files
    assert list(items.start()) == [
        Item(0, str(folder / "cat/001.png"), "cat/001", folder / "cat/001.png", "cat"),
        Item(1, str(folder / "dog/001.jpg"), "dog/001", folder / "dog/001.jpg", "dog"),
        Item(2, str(folder / "dog/b/002.jpg"), "dog/b/002", folder / "dog/b/002.jpg", "dog"),
        Item(3, str(folder / "zoo.gif"), "zoo", folder / "zoo.gif", None),
    ]


def test_current_folder_and_folder_with_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/b/1.png")
    monkeypatch.chdir(tmp_path)
    for source, key, name in [
        (".", "a/b/1", "a/b/1.png"),
        ("a/", "b/1", "a/b/1.png"),
        ("./a/../a", "b/1", "a/../a/b/1.png"),
    ]:
        (item,) = find_items(source).start()
        assert (item.key, item.name) == (key, name)


def test_keys_of_files_and_globs(tmp_path: Path) -> None:
    touch(tmp_path, "a/cat.jpg", "b/Cat.png", "b/dog.v2.png")
    mixed = [str(tmp_path / "a/cat.jpg"), tmp_path / "b", str(tmp_path / "*" / "*.png")]
    assert list_keys(mixed) == ["cat", "Cat-2", "dog_v2", "Cat-3", "dog_v2-2"]
    assert list_labels(mixed) == [None] * 5


def test_repeated_file_is_included_twice(tmp_path: Path) -> None:
    (file,) = touch(tmp_path, "cat.jpg")
    first, second = find_items([file, str(file)]).start()
    assert first.name == second.name
    assert (first.key, second.key) == ("cat", "cat-2")


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=6),
            min_size=1,
            max_size=3,
        ),
        max_size=6,
    )
)
def test_keys_are_unique_safe_and_without_dots(paths: list[list[str]]) -> None:
    items_found = make_unlisted_keys(["/".join(f"x{part}" for part in parts) for parts in paths])
    assert len({key.casefold() for key in items_found}) == len(paths)
    for key in items_found:
        assert "." not in key
        assert not set('<>:"\\|?*') & set(key)
        assert all(part for part in key.split("/"))


def make_unlisted_keys(paths: list[str]) -> list[str]:
    from actgrid.figures.files import make_unique_names
    from actgrid.runs.sources import _make_key

    return make_unique_names(_make_key(Path(path).parts) for path in paths)


def test_start_from_index_repeatedly(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.png" for number in range(5)))
    items = find_items(tmp_path)
    every = list(items.start())
    assert [item.index for item in every] == [0, 1, 2, 3, 4]
    for index in range(6):
        assert list(items.start(index)) == every[index:]


def test_only_links_to_files_and_to_the_input_are_followed(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "photos/a/1.png")
    (tmp_path / "photos/a/loop").symlink_to(tmp_path / "photos", target_is_directory=True)
    (tmp_path / "photos/2.png").symlink_to(tmp_path / "photos/a/1.png")
    (tmp_path / "photos/3.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "link").symlink_to(tmp_path / "photos", target_is_directory=True)
    assert list_keys(tmp_path / "photos") == list_keys(tmp_path / "link") == ["2", "3", "a/1"]


def test_broken_link_is_reported(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (item,) = find_items(tmp_path).start()
    with pytest.raises(
        MissingFileError, match=r"gone\.png is a link to nowhere\.png, which is not"
    ):
        item.image()


def test_hidden_files_are_included_only_if_named(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "._1.png", ".cache/2.png", "sub/.3.png")
    assert list_keys(tmp_path) == ["1"]
    assert list_keys(f"{tmp_path}/**/*.png") == ["1"]
    assert list_keys(tmp_path / "._1.png") == ["1"]


@pytest.mark.parametrize("inputs", ["", [""], ["a.png", ""]])
def test_empty_path_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: Any
) -> None:
    touch(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFileError, match="the path of an image is empty"):
        find_items(inputs)


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such names")
def test_non_utf8_names_are_escaped_and_opened(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"\xe9t\xe9")  # noqa: PTH118
    Path(os.fsdecode(folder)).mkdir()
    file = Path(os.fsdecode(os.path.join(folder, b"caf\xe9.png")))  # noqa: PTH118
    Image.new("L", (3, 2)).save(file, "PNG")
    (item,) = find_items(tmp_path).start()
    assert item.name == f"{tmp_path}/\\udce9t\\udce9/caf\\udce9.png"
    assert item.label == "\\udce9t\\udce9"
    assert item.key == "t/caf"
    json.dumps([item.name, item.key, item.label], ensure_ascii=False).encode()
    assert load_images([item.image()], model=None).shape == (1, 2, 3, 3)


def test_digest_depends_on_names_keys_and_labels(tmp_path: Path) -> None:
    first, second = touch(tmp_path, "a/1.png", "a/2.png")
    (tmp_path / "list.txt").write_text("a/1.png\nb/2.png")
    (tmp_path / "other.txt").write_text("a/1.png\tcat\nb/2.png")
    sources: list[Any] = [
        [first, second],
        [second, first],
        [first],
        tmp_path,
        tmp_path / "list.txt",
        tmp_path / "other.txt",
    ]
    digests = [find_items(source).digest() for source in sources]
    assert len(set(digests)) == len(digests)
    assert digests == [find_items(source).digest() for source in sources]


@pytest.mark.parametrize("name", ["no.jpg", "no.txt", "no*.png", "empty"])
def test_missing_files_are_reported_immediately(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (present,) = touch(tmp_path, "there.png")
    with pytest.raises(MissingFileError, match=name.replace("*", r"\*")):
        find_items([present, tmp_path / name])


def test_iterator_of_paths(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    items = find_items(tmp_path.glob("*.png"))
    assert items.are_files
    assert sorted(item.key for item in items.start()) == ["1", "2"]
    assert list_keys({str(tmp_path / "1.png")}) == ["1"]


def test_output_inside_image_folder_is_excluded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "photos" / "a" / "out"
    touch(folder, "a/1.png", "a/out/1/00_relu.png", "a/out2/2.png", "out/3.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(out)
    for source in (folder, Path("photos"), f"{folder}/**/*.png", "photos/**/*.*"):
        for output in (out, Path("photos/../photos/a/out"), Path("link")):
            items_found = [item.name for item in find_items(source, output).start()]
            assert [Path(name).name for name in items_found] == ["1.png", "2.png", "3.png"], source
    # They are included if they are given, or if the output is elsewhere.
    for source in (out, f"{out}/*/*.png", out / "1" / "00_relu.png"):
        assert len(list(find_items(source, tmp_path).start())) == 1
    assert len(list(find_items(f"{out}/*/*.png", out).start())) == 1
    assert len(list(find_items([out / "1" / "00_relu.png"], out).start())) == 1
    assert find_items(folder, tmp_path / "elsewhere").total == 4
    with pytest.raises(MissingFileError, match="holds no images"):
        find_items(folder / "a" / "out", out / "1")


def test_image_folder_as_output_is_rejected(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a/1.png")
    with pytest.raises(OptionError, match=r"is the folder of the images.*for example inside it"):
        find_items(tmp_path / "photos", tmp_path / "photos" / "a" / "..")


def test_reserved_folder_names_are_not_used_as_keys(tmp_path: Path) -> None:
    files = touch(tmp_path, "Top.png", "manifest.png", "top/1.png", "top.gif")
    assert list_keys(tmp_path) == ["Top-2", "manifest-2", "top/1", "top-3"]
    assert list_keys(files[:1]) == ["Top-2"]


# --- text lists


def test_text_list_with_relative_paths_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    content = "a/1.png\tcat\r\n\r\n  /present/2.png \t big dog\n~/3.png\n~unknown.png\t\nb/é 1.png"
    file = tmp_path / "LIST.TXT"
    file.write_bytes(b"\xef\xbb\xbf" + content.encode())
    items = find_items(file)
    assert items.total == 5
    assert items.are_files
    assert [(item.name, item.key, item.label) for item in items.start()] == [
        (str(tmp_path / "a/1.png"), "1", "cat"),
        ("/present/2.png", "2", "big dog"),
        ("/home/me/3.png", "3", None),
        (str(tmp_path / "~unknown.png"), "unknown", None),
        (str(tmp_path / "b/é 1.png"), "é_1", None),
    ]


def test_files_of_text_list_are_not_checked(tmp_path: Path) -> None:
    touch(tmp_path, "folder/1.png")
    file = tmp_path / "list.txt"
    file.write_text(f"nowhere.png\nfolder\nfolder/*.png\na\0.png\n{'x' * 300}.png\nfolder/1.png")
    *wrong, right = find_items([str(file)]).start()
    for item in wrong[:-1]:
        with pytest.raises(MissingFileError, match="there is no image"):
            item.image()
    with pytest.raises(ImageError, match="cannot be read: File name too long"):
        wrong[-1].image()
    assert right.image() == tmp_path / "folder/1.png"


@pytest.mark.parametrize("content", [b"", b"\n \r\n\t\n", b"\xef\xbb\xbf"])
def test_empty_text_list_is_rejected(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(content)
    with pytest.raises(MissingFileError, match=r"the list .*list\.txt contains no images"):
        find_items(file)


def test_text_list_with_non_utf8_names(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"caf\xe9.png\tcaf\xe9")
    (item,) = find_items(file).start()
    assert item.name == f"{tmp_path}/caf\\udce9.png"
    assert item.label == "caf\\udce9"
    assert os.fsencode(item.source).endswith(b"/caf\xe9.png")


# --- arrays


def test_batch_arrays_and_single_image_arrays() -> None:
    batch = np.arange(5 * 4 * 3 * 3, dtype=np.uint8).reshape(5, 4, 3, 3)
    items = find_items(batch)
    assert items.total == 5
    assert not items.are_files
    assert items.digest() is None
    for start in (0, 3):
        items_found = list(items.start(start))
        assert [item.index for item in items_found] == list(range(start, 5))
        assert [item.key for item in items_found] == [f"{index:06}" for index in range(start, 5)]
        for item in items_found:
            assert item.name == item.key
            assert item.label is None
            np.testing.assert_array_equal(item.image(), batch[item.index])
    for array in (batch[0], batch[0, ..., 0]):
        (item,) = find_items(array).start()
        np.testing.assert_array_equal(item.image(), array)


def test_pillow_images_as_inputs(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 3))
    for inputs in (picture, [picture], iter([(picture, "cat")])):
        (item,) = find_items(inputs).start()
        assert item.image() is picture


LABELS: list[tuple[Any, str | None]] = [
    ("dog", "dog"),
    (b"dog", "dog"),
    (3, "3"),
    (None, None),
    (np.int64(7), "7"),
    (np.array([4]), "4"),
    (np.array(b"dog", object), "dog"),
    (np.array([0, 0, 1, 0], np.float32), "2"),
    (np.array([0.2, 0.8]), None),
    (np.array([1, 1, 0]), None),
    (np.zeros((4, 4)), None),
    ("\udce9", "\\udce9"),
]


@pytest.mark.parametrize(("label", "expected"), LABELS)
def test_labels_of_pairs(label: Any, expected: str | None) -> None:
    image = np.zeros((4, 3, 3))
    for pair in ((image, label), [image, label], (image, label, 0.5)):
        assert list_labels([pair]) == [expected]


class CountingSequence:
    """A sequence without __iter__, like datasets of PyTorch, that counts accesses."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Array, int]:
        self.read.append(index)
        return np.full((2, 2, 3), index, np.uint8), index % 3


def test_sequence_is_read_lazily() -> None:
    counted = CountingSequence()
    items = find_items(counted)
    assert items.total == 10
    items_found = list(items.start(7))
    assert counted.read == [7, 8, 9]
    assert [(item.index, item.key, item.label) for item in items_found] == [
        (7, "000007", "1"),
        (8, "000008", "2"),
        (9, "000009", "0"),
    ]
    assert items_found[0].image()[0, 0, 0] == 7


def test_iterator_is_read_lazily() -> None:
    read = []

    def images() -> Iterator[Array]:
        for index in range(100):
            read.append(index)
            yield np.full((2, 2), index, np.uint8)

    items = find_items(images())
    assert items.total is None
    items_found = items.start(5)
    assert next(items_found).image()[0, 0] == 5
    assert next(items_found).index == 6
    assert max(read) == 6


BAD: list[tuple[Any, type[ActgridError], str]] = [
    ({"image": 1}, DtypeError, "image 1 is a int, not an array of pixels"),
    ("cat.jpg", DtypeError, "image 1 is a str, not an array of pixels"),
    (None, DtypeError, "image 1 is a NoneType"),
    ((), DtypeError, "image 1 is a tuple"),
    (np.array([{}, None]), DtypeError, "image 1 is a ndarray of dtype object"),
    (np.array("cat"), DtypeError, "image 1 is a ndarray of dtype <U3"),
    (np.zeros((8, 4, 4, 3)), ShapeError, r"image 1 is a ndarray of shape \(8, 4, 4, 3\)"),
    (np.zeros(4), ShapeError, r"image 1 is a ndarray of shape \(4,\)"),
]


@pytest.mark.parametrize(("bad", "kind", "message"), BAD)
def test_invalid_element_fails_alone(bad: Any, kind: type[ActgridError], message: str) -> None:
    image = np.zeros((4, 3, 3))
    for inputs in ([image, bad, image], iter([image, bad, image])):
        first, wrong, last = find_items(inputs).start()
        with pytest.raises(kind, match=message):
            wrong.image()
        assert first.image().shape == last.image().shape == (4, 3, 3)


def test_errors_of_iterators_propagate() -> None:
    def images() -> Iterator[Array]:
        yield np.zeros((2, 2))
        raise RuntimeError("the camera is gone")

    items = find_items(images()).start()
    next(items)
    with pytest.raises(RuntimeError, match="the camera is gone"):
        next(items)


@pytest.mark.parametrize("nothing", [[], (), iter([]), np.zeros((0, 4, 4, 3)), np.zeros(0)])
def test_empty_inputs_are_rejected(nothing: Any) -> None:
    with pytest.raises(OptionError, match="no images were given"):
        find_items(nothing)


@pytest.mark.parametrize("nonsense", [7, None, b"a.png", object()])
def test_unsupported_inputs_are_rejected(nonsense: Any) -> None:
    with pytest.raises(OptionError, match=f"not {type(nonsense).__name__}"):
        find_items(nonsense)


# --- datasets


@pytest.fixture
def images() -> Array:
    return np.random.default_rng(1).integers(0, 256, (10, 5, 4, 3), np.uint8)


@pytest.mark.parametrize("batch", [None, 1, 4, 20])
@pytest.mark.parametrize("shapes", ["known", "unknown"])
@pytest.mark.parametrize("paired", [True, False])
def test_images_of_batched_and_unbatched_datasets(
    images: Array, batch: int | None, shapes: str, paired: bool
) -> None:
    tf = importlib.import_module("tensorflow")
    classes = np.arange(10) % 3
    dataset = tf.data.Dataset.from_tensor_slices((images, classes) if paired else images)
    if batch:
        dataset = dataset.batch(batch)
    if shapes == "unknown":
        spec = dataset.element_spec
        types = tf.nest.map_structure(lambda tensor: tensor.dtype, spec)
        elements = list(dataset.as_numpy_iterator())
        dataset = tf.data.Dataset.from_generator(lambda: iter(elements), types)
    items = find_items(dataset)
    assert items.total == (10 if shapes == "known" and not batch else None)
    assert not items.are_files
    assert items.digest() is None
    for start in (0, 6):
        items_found = list(items.start(start))
        assert [item.index for item in items_found] == list(range(start, 10))
        for item in items_found:
            np.testing.assert_array_equal(item.image(), images[item.index])
            assert item.label == (str(item.index % 3) if paired else None)


def test_labels_of_dataset_from_class_vectors(images: Array) -> None:
    tf = importlib.import_module("tensorflow")
    one_hot = np.eye(5, dtype=np.float32)[[3, 1, 0]]
    dataset = tf.data.Dataset.from_tensor_slices((images[:3], one_hot, np.ones(3))).batch(2)
    assert list_labels(dataset) == ["3", "1", "0"]
    dataset = tf.data.Dataset.from_tensor_slices((images[:2], ["cat", "dög"]))
    assert list_labels(dataset) == ["cat", "dög"]


def test_dataset_without_images_is_rejected(images: Array) -> None:
    tf = importlib.import_module("tensorflow")
    slices = tf.data.Dataset.from_tensor_slices
    for dataset in (
        slices({"text": ["a", "b"]}),
        slices(["a.png", "b.png"]),
        slices(np.arange(3)),
        slices(images).batch(2).batch(2),
        slices(((images, images), np.arange(10))),
    ):
        with pytest.raises(OptionError, match=r"the elements of the dataset are .*: convert them"):
            find_items(dataset)
    with pytest.raises(OptionError, match="infinite: limit it with dataset"):
        find_items(slices(images).batch(2).repeat())
    with pytest.raises(OptionError, match="no images were given"):
        find_items(slices(images).take(0))
    with pytest.raises(OptionError, match="cannot be split"):
        find_items(slices((images[None], [1])))


def test_finding_files_loads_no_tensorflow(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    code = (
        "import sys, numpy; from actgrid.runs.sources import find_items\n"
        f"list(find_items({str(tmp_path)!r}).start()); list(find_items(numpy.ones((2, 3))).start())"
        "\nassert not {'tensorflow', 'keras', 'fsspec'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
