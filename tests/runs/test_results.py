from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

from actgrid.errors import OutputError
from actgrid.runs.results import write_results
from actgrid.runs.run_spec import ImageLoader
from actgrid.runs.runs import Run
from actgrid.runs.stores import open_store

Array = npt.NDArray[Any]


def make_network(side: int | None = 12) -> Any:
    keras.utils.set_random_seed(1)
    parts = [layers.Conv2D(5, 3, activation="relu", name="conv"), layers.MaxPooling2D(name="pool")]
    return keras.Sequential([keras.Input((side, side, 3)), *parts], name="small")


def make_images(count: int = 6, side: int = 12) -> Array:
    return np.random.default_rng(2).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def measure(output: Path, inputs: Any, model: Any = None, **options: Any) -> Run:
    run = Run(
        model or make_network(), inputs, output=output, top=2, batch_size=2, shard_size=4, **options
    )
    list(run)
    return run


def list_names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def read_sheet(output: Path, name: str = "00_conv.png") -> Array:
    with Image.open(output / "top" / name) as picture:
        return np.asarray(picture.convert("RGB"))


def find_missing_images(output: Path) -> tuple[set[str], set[str]]:
    """Return the missing images and the shown images of the report."""
    text = (output / "report.html").read_text()
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    missing: set[str] = set()
    shown: set[str] = set()
    for picture in json.loads(data)["pictures"].values():
        for rank, name in enumerate(picture["names"]):
            (missing if rank in picture["missing"] else shown).add(name)
    return missing, shown


FILES = ["manifest.jsonl", "run.json", "stats.npz"]
FOUND = ["report.html", "summary.json", "top/00_conv.png", "top/01_pool.png"]


def test_results_are_written(tmp_path: Path) -> None:
    run = measure(tmp_path, make_images())
    assert list_names(tmp_path) == FILES
    run.finish()
    assert list_names(tmp_path) == sorted(FILES + FOUND)
    statistics = run.summary().statistics
    assert statistics is not None
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    assert summary == json.loads(json.dumps(statistics.summary()))
    assert "6 images, 2 layers" in (tmp_path / "report.html").read_text()
    before = {name: (tmp_path / name).read_bytes() for name in list_names(tmp_path)}
    run.finish()
    assert {name: (tmp_path / name).read_bytes() for name in list_names(tmp_path)} == before


def test_fewer_channels_make_smaller_sheets(tmp_path: Path) -> None:
    run = measure(tmp_path, make_images())
    heights = []
    for channels in (1, 2, "all"):
        run.finish(channels)
        heights.append(read_sheet(tmp_path).shape[0])
    assert heights[0] < heights[1] < heights[2]


def test_sheets_do_not_depend_on_kind_of_inputs(tmp_path: Path) -> None:
    pixels = make_images()
    (tmp_path / "in").mkdir()
    for index, array in enumerate(pixels):
        Image.fromarray(array).save(tmp_path / "in" / f"{index:06}.png")
    dataset = tf.data.Dataset.from_tensor_slices(pixels)
    inputs = {"files": tmp_path / "in", "array": pixels, "list": [*pixels], "dataset": dataset}
    for name, source in inputs.items():
        measure(tmp_path / name, source).finish()
    expected = read_sheet(tmp_path / "array")
    for name in ("list", "dataset", "files"):
        pixels_found = read_sheet(tmp_path / name)
        np.testing.assert_array_equal(pixels_found, expected)


def test_dataset_is_iterated_once_for_sheets(tmp_path: Path) -> None:
    passes: list[int] = []

    def elements() -> Iterator[Array]:
        passes.append(0)
        for array in make_images(20):
            passes[-1] += 1
            yield array

    spec = tf.TensorSpec((12, 12, 3), tf.uint8)
    run = measure(tmp_path, tf.data.Dataset.from_generator(elements, output_signature=spec))
    assert passes == [20]
    run.finish()
    assert len(passes) == 2
    assert 1 <= passes[1] <= 20


def test_top_images_of_a_stream_are_missing(tmp_path: Path) -> None:
    run = measure(tmp_path / "stream", iter(make_images()))
    run.finish()
    measure(tmp_path / "again", make_images()).finish()
    assert list_names(tmp_path / "stream") == list_names(tmp_path / "again")
    missing, shown = find_missing_images(tmp_path / "stream")
    assert not shown
    assert (shown, missing) == find_missing_images(tmp_path / "again")
    # Statistics do not need the files again.
    stream, again = (tmp_path / name / "stats.npz" for name in ("stream", "again"))
    assert stream.read_bytes() == again.read_bytes()


def test_deleted_or_changed_images_are_missing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    files = [tmp_path / "in" / f"{index}.png" for index in range(4)]
    for file, array in zip(files, make_images(), strict=False):
        Image.fromarray(array).save(file)
    run = measure(tmp_path / "out", tmp_path / "in")
    run.finish("all")
    before = find_missing_images(tmp_path / "out")
    assert before == (set(), set(map(str, files)))
    files[0].unlink()
    files[1].write_bytes(b"no image any more")
    run.finish("all")
    assert find_missing_images(tmp_path / "out") == (
        set(map(str, files[:2])),
        set(map(str, files[2:])),
    )


def test_images_keep_their_size_for_model_of_any_size(tmp_path: Path) -> None:
    mixed = [make_images(1, side)[0] for side in (12, 17, 9, 12)]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(mixed), output_signature=tf.TensorSpec((None, None, 3), tf.uint8)
    )
    sheets = []
    for name, inputs in (("list", mixed), ("dataset", dataset)):
        measure(tmp_path / name, inputs, make_network(None)).finish()
        assert find_missing_images(tmp_path / name)[0] == set()
        assert list_names(tmp_path / name) == sorted(FILES + FOUND)
        sheets.append(read_sheet(tmp_path / name))
    np.testing.assert_array_equal(sheets[0], sheets[1])
    # The size of images of a stream is unknown.
    measure(tmp_path / "stream", iter(mixed), make_network(None)).finish()
    assert find_missing_images(tmp_path / "stream")[1] == set()


def test_sheets_of_activations_and_inputs_without_space(tmp_path: Path) -> None:
    sequence = keras.Sequential([keras.Input((9, 3)), layers.Conv1D(4, 3, name="conv")])
    volume = keras.Sequential([keras.Input((6, 6, 6, 2)), layers.Conv3D(3, 3, name="conv")])
    many = keras.Sequential([keras.Input((6, 6, 12)), layers.Conv2D(3, 3, name="conv")])
    for number, model in enumerate((sequence, volume, many)):
        shape = model.input_shape[1:]
        inputs = [np.random.default_rng(index).normal(size=shape) for index in range(5)]
        output = tmp_path / f"{number}"
        run = measure(output, inputs, model, preprocess="prepared")
        assert run.summary().failed == 0
        run.finish()
        assert list_names(output) == sorted([*FILES, *FOUND[:3]])


def test_summary_without_images(tmp_path: Path) -> None:
    run = measure(tmp_path, [np.zeros((2, 2, 7))] * 3)
    assert run.summary().failed == 3
    run.finish()
    assert list_names(tmp_path) == sorted([*FILES, "summary.json"])
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    assert (summary["images"], summary["layers"]) == (0, [])


def test_without_statistics_nothing_is_written(tmp_path: Path) -> None:
    run = Run(make_network(), make_images(1), output=tmp_path, drawing={})
    list(run)
    before = list_names(tmp_path)
    run.finish()
    assert list_names(tmp_path) == before


def test_tiles_use_drawing_options(tmp_path: Path) -> None:
    for cmap in ("gray", "magma"):
        run = Run(
            make_network(),
            make_images(),
            output=tmp_path / cmap,
            drawing={"cmap": cmap, "zoom": 2},
            top=1,
        )
        list(run)
        run.finish()
    gray, magma = (read_sheet(tmp_path / cmap) for cmap in ("gray", "magma"))
    assert gray.shape == magma.shape
    assert (gray != magma).any()


def test_write_error_raises_output_error(tmp_path: Path) -> None:
    run = measure(tmp_path, make_images())
    (tmp_path / "top").touch()
    with pytest.raises(OutputError, match=r"cannot make the folder .*top"):
        run.finish()
    statistics = run.summary().statistics
    assert statistics is not None
    store = open_store(f"memory://{tmp_path.name}")
    write_results(store, statistics, run.extractor, None, run.items, ImageLoader())
    assert store.list_names("top/") == FOUND[2:]
