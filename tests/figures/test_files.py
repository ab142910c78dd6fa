"""File names, and the files of the layers of one image."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from actgrid.errors import OptionError, OutputError
from actgrid.figures.files import (
    group_layers,
    make_folder_names,
    make_safe_name,
    make_unique_names,
    save_layers,
)
from actgrid.models import LayerInfo
from actgrid.models.drawing import draw_layer

Array = npt.NDArray[Any]

FORBIDDEN = set('<>:"/\\|?*')
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"
}


def assert_safe(name: str) -> None:
    assert name
    assert name not in {".", ".."}
    assert not FORBIDDEN & set(name)
    assert not any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in name)
    assert len(name) <= 101
    assert name.split(".")[0].lower() not in DEVICES
    assert name[-1] not in ". "


# --- names


@given(st.text(max_size=150))
@example("")
@example("..")
@example("con")
@example("NUL.tar.gz")
@example("a" * 99 + ".b")
@example("block/conv:1[key]")
def test_make_safe_name_returns_safe_names(name: str) -> None:
    assert_safe(make_safe_name(name))


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,60}[A-Za-z0-9]", fullmatch=True))
def test_make_safe_name_keeps_safe_names(name: str) -> None:
    if name.split(".")[0].lower() not in DEVICES:
        assert make_safe_name(name) == name


@given(st.text(max_size=150))
def test_make_safe_name_does_not_lengthen_names(name: str) -> None:
    assert len(make_safe_name(name)) <= max(len(name), 1) + 1


@pytest.mark.parametrize("device", sorted(DEVICES))
def test_make_safe_name_avoids_device_names(device: str) -> None:
    for name in (device, device.upper(), f"{device}.png", f"{device}.tar.gz", f"/{device}/"):
        assert_safe(make_safe_name(name))


@pytest.mark.parametrize("letter", ["字", "é", "\U00020000"])
def test_safe_names_of_wide_letters_fit_the_file_system(tmp_path: Path, letter: str) -> None:
    # Linux limits names to 255 bytes.
    file = tmp_path / f"000_{make_safe_name(letter * 120)}.png"
    file.touch()
    assert file.exists()


def test_make_safe_name_examples() -> None:
    assert make_safe_name("backbone/block1_conv") == "backbone_block1_conv"
    assert make_safe_name("shared:1") == "shared_1"
    assert make_safe_name("Straße 7.jpeg") == "Straße_7.jpeg"


PATHS = st.lists(
    st.sampled_from(["a", "A", "a-2", "A-2", "a-3", "a/b", "con", "Con", "", "..", "x" * 120]),
    max_size=12,
)


@given(st.one_of(PATHS, st.lists(st.text(max_size=8), max_size=8)))
def test_folder_names_are_safe_and_unique_ignoring_case(stems: list[str]) -> None:
    names = make_folder_names([Path(f"{number}", stem) for number, stem in enumerate(stems)])
    assert len(names) == len(stems)
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert name
        assert not FORBIDDEN & set(name)
        assert len(name) <= 110


def test_folder_names_are_the_stems_of_images() -> None:
    images = [Path("x/cat.jpg"), Path("dog.png"), Path("y/Cat.png"), Path("cat"), Path("cat-2.gif")]
    assert make_folder_names(images) == ["cat", "dog", "Cat-2", "cat-3", "cat-2-2"]


def test_folder_names_are_unique_under_full_case_folding() -> None:
    # The file system of macOS folds case fully.
    names = make_folder_names([Path("a/straße.jpg"), Path("b/STRASSE.jpg"), Path("c/strasse.jpg")])
    assert len({name.casefold() for name in names}) == 3


def make_unique_names_by_loop(names: list[str]) -> list[str]:
    """Return unique names by trying all numbers from 1 for each name."""
    make_unique_names: list[str] = []
    for base in names:
        candidates = (base if n == 1 else f"{base}-{n}" for n in itertools.count(1))
        used = {name.casefold() for name in make_unique_names}
        make_unique_names.append(next(name for name in candidates if name.casefold() not in used))
    return make_unique_names


@given(st.lists(st.sampled_from(["a", "A", "a-2", "A-2", "a-3", "a-2-2", "ß", "SS", ""])))
def test_unique_names_use_the_first_free_number(names: list[str]) -> None:
    assert make_unique_names(names) == make_unique_names_by_loop(names)


def test_unique_names_of_many_equal_names() -> None:
    # Trying all numbers from 1 for each name would take hours.
    assert make_unique_names(["x"] * 300_000)[-1] == "x-300000"


# --- files


def make_infos(activations: Mapping[str, Array]) -> dict[str, LayerInfo]:
    return {
        path: LayerInfo(
            path, "Conv2D", (None, *array.shape[1:]), array.dtype.name, "channels_last", 7, None
        )
        for path, array in activations.items()
    }


@pytest.fixture
def activations() -> dict[str, Array]:
    random = np.random.default_rng(3)
    return {
        "stem": random.normal(size=(2, 6, 5, 4)).astype(np.float32),
        "block/conv:1": random.normal(size=(2, 4, 3, 9)).astype(np.float16),
        "tokens": random.normal(size=(2, 7, 3)),
        "dense": random.normal(size=(2, 11)).astype(np.float32),
    }


def test_files_have_the_levels_of_the_grids(tmp_path: Path, activations: dict[str, Array]) -> None:
    options: dict[str, Any] = {"normalize": "minmax", "cmap": "magma", "zoom": 2}
    infos = make_infos(activations)
    layers = save_layers(tmp_path / "new" / "cat", infos, activations, sample=1, **options)
    assert [layer.file for layer in layers] == [
        "00_stem.png",
        "01_block_conv_1.png",
        "02_tokens.png",
        "03_dense.png",
    ]
    folder = tmp_path / "new" / "cat"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(layer.file for layer in layers), "stats.json"]
    )
    for layer, (path, array) in zip(layers, activations.items(), strict=True):
        grid = draw_layer(infos[path], array, sample=1, **options)
        with Image.open(tmp_path / "new" / "cat" / layer.file) as image:
            assert image.format == "PNG"
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), grid.levels)
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), grid.to_rgb())
        assert layer.info is infos[path]
        assert layer.shape == array.shape[1:]
        assert layer.dtype == array.dtype.name
        assert layer.channels == array.shape[-1]
        assert layer.milliseconds > 0
        assert layer.stats.to_dict() == grid.stats.to_dict()


def test_stats_file_has_the_statistics_of_the_grids(
    tmp_path: Path, activations: dict[str, Array]
) -> None:
    infos = make_infos(activations)
    layers = save_layers(tmp_path, infos, activations, about={"image": "cat.jpg", "seen": [1, 2]})
    saved = json.loads((tmp_path / "stats.json").read_text("utf-8"))
    assert set(saved) == {"image", "seen", "layers"}
    assert saved["image"] == "cat.jpg"
    assert saved["seen"] == [1, 2]
    assert [layer["path"] for layer in saved["layers"]] == list(activations)
    for layer, (path, array), record in zip(
        saved["layers"], activations.items(), layers, strict=True
    ):
        stats = draw_layer(infos[path], array).stats
        for name in ("mean", "std", "min", "max", "zero_fraction", "nonfinite"):
            expected = getattr(stats, name)
            # The shortest text of a float32 does not equal its value in float64.
            parsed = np.array(layer[name], expected.dtype if array.itemsize == 8 else np.float32)
            np.testing.assert_array_equal(parsed, expected.astype(parsed.dtype), name)
        assert layer["dead"] == []
        assert layer["type"] == "Conv2D"
        assert layer["shape"] == list(array.shape[1:])
        assert layer["dtype"] == array.dtype.name
        assert layer["channels"] == array.shape[-1]
        assert layer["file"] == record.file
        assert layer.items() >= record.describe().items()


def test_stats_file_has_null_for_nan_and_lists_dead_channels(tmp_path: Path) -> None:
    array = np.random.default_rng(4).normal(size=(1, 3, 3, 6)).astype(np.float32)
    array[..., 1] = np.nan
    array[..., 2] = 0
    array[..., 4] = 2.5
    array[0, 0, 0, 5] = np.inf
    activations = {"conv": array}
    (record,) = save_layers(tmp_path, make_infos(activations), activations)
    text = (tmp_path / "stats.json").read_text("utf-8")

    def fail(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    (layer,) = json.loads(text, parse_constant=fail)["layers"]
    for name in ("mean", "std", "min", "max", "zero_fraction"):
        assert layer[name][1] is None, name
        assert None not in layer[name][2:], name
    assert layer["nonfinite"] == [0, 9, 0, 0, 0, 1]
    assert layer["dead"] == [2, 4]
    assert record.dead_count == 2
    assert layer["zero_fraction"][2] == 1
    assert layer["mean"][4] == 2.5
    assert np.float32(layer["max"][5]) == array[np.isfinite(array[..., 5]), 5].max()


def test_channel_count_of_channels_first_layer(tmp_path: Path) -> None:
    array = np.random.default_rng(5).normal(size=(1, 3, 8, 9)).astype(np.float32)
    info = LayerInfo("conv", "Conv2D", (None, 3, 8, 9), "float32", "channels_first", 0, 0)
    (record,) = save_layers(tmp_path, {"conv": info}, {"conv": array})
    assert record.channels == 3
    assert record.describe()["channels"] == 3
    assert record.stats.mean.shape == (3,)


def test_file_numbers_have_equal_length(tmp_path: Path) -> None:
    activations = {f"layer{n}": np.ones((1, 2, 2, 1), np.float32) for n in range(101)}
    layers = save_layers(tmp_path, make_infos(activations), activations)
    assert layers[0].file == "000_layer0.png"
    assert layers[-1].file == "100_layer100.png"


def test_layers_with_equal_safe_names_have_different_files(tmp_path: Path) -> None:
    array = np.ones((1, 2, 2, 1), np.float32)
    activations = {"a/b": array, "a:b": array, "a_b": array}
    layers = save_layers(tmp_path, make_infos(activations), activations)
    assert len({layer.file for layer in layers}) == 3


@pytest.mark.parametrize(("suffix", "name"), [(".webp", "WEBP"), (".jpg", "JPEG"), (".png", "PNG")])
def test_other_formats_and_compressions(
    tmp_path: Path, activations: dict[str, Array], suffix: str, name: str
) -> None:
    layers = save_layers(
        tmp_path,
        make_infos(activations),
        activations,
        format=suffix.lstrip("."),
        compression="small",
    )
    for layer in layers:
        assert Path(layer.file).suffix == suffix
        with Image.open(tmp_path / layer.file) as image:
            image.load()
            assert image.format == name


def test_existing_files_are_replaced(tmp_path: Path, activations: dict[str, Array]) -> None:
    infos = make_infos(activations)
    (tmp_path / "stats.json").write_text("old")
    for sample in (0, 1):
        save_layers(tmp_path, infos, activations, sample=sample)
    with Image.open(tmp_path / "00_stem.png") as image:
        expected = draw_layer(infos["stem"], activations["stem"], sample=1)
        np.testing.assert_array_equal(np.asarray(image), expected.levels)
    assert len(list(tmp_path.iterdir())) == 5


def test_error_names_the_folder_that_cannot_be_created(
    tmp_path: Path, activations: dict[str, Array]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder") as caught:
        save_layers(tmp_path / "file", make_infos(activations), activations)
    assert isinstance(caught.value, OSError)
    assert str(tmp_path / "file") in str(caught.value)


def test_unknown_format_is_rejected(tmp_path: Path, activations: dict[str, Array]) -> None:
    with pytest.raises(OptionError, match="nope"):
        save_layers(tmp_path, make_infos(activations), activations, format="nope")


def test_layers_are_grouped_in_order_by_size() -> None:
    activations = {
        name: np.zeros((2, values), np.float32)
        for name, values in {"a": 100, "b": 100, "c": 800, "d": 1, "e": 1, "f": 98}.items()
    }
    # The 1,100 values are divided into eight groups of about 137 values for two threads.
    groups = group_layers(activations, threads=2)
    assert [list(group) for group in groups] == [["a", "b"], ["c"], ["d", "e", "f"]]
    assert groups[1]["c"] is activations["c"]
    assert [list(group) for group in group_layers(activations, threads=10_000)] == [
        [name] for name in activations
    ]
    assert group_layers({}, threads=1) == []
