"""Tests of the command `actgrid render`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import actgrid
from actgrid.cli.loading import parse_layers

# The printed line about preprocessing, for a model without known preprocessing.
ASSUMED = "preprocessing: unit (assumed: pixels divided by 255); change it with --preprocess"

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


def read_stats(folder: Path) -> Any:
    return json.loads((folder / "stats.json").read_text())


def test_render_writes_a_picture_for_each_layer_and_the_statistics(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    result = run("render", model_file, photo, "-o", tmp_path)
    assert result.code == 0
    assert result.err == ""
    dead = result.out.split()[5]
    assert result.out == (
        f"{photo}: 3 layers, 15 channels, {dead} dead: {tmp_path / 'cat'}\n{ASSUMED}\n"
    )
    folder = tmp_path / "cat"
    assert sorted(file.name for file in folder.iterdir()) == [
        "00_conv.png",
        "01_relu.png",
        "02_pool.png",
        "stats.json",
    ]
    model = actgrid.load_model(model_file)
    grids = actgrid.render_model(model, photo)
    stats = read_stats(folder)
    assert stats["image"] == str(photo)
    assert stats["model"] == "small"
    for layer in stats["layers"]:
        grid = grids[layer["path"]]
        with Image.open(folder / layer["file"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), grid.levels)
        np.testing.assert_allclose(layer["mean"], grid.stats.mean)
        assert layer["dead"] == np.flatnonzero(grid.stats.dead).tolist()
    assert stats["layers"][0]["shape"] == [10, 8, 5]
    assert stats["layers"][0]["dtype"] == "float32"


def test_render_options_reach_the_picture(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    options = ["--normalize", "percentile(5, 95)", "--scope", "layer", "--columns", 2]
    options += ["--padding", 3, "--zoom", 2, "--background", 7, "--order", "4,0-1"]
    options += ["--cmap", "gray", "--backend", "numpy", "--threads", 1]
    options += ["--compression", "small", "--preprocess", "none", "--fit", "stretch"]
    result = run("render", model_file, photo, "--layers", "conv", "-o", tmp_path, *options)
    assert result.code == 0, result
    batch = actgrid.load_images(
        photo, preprocess="none", model=actgrid.load_model(model_file), fit="stretch"
    )
    expected = actgrid.render_model(
        actgrid.load_model(model_file),
        batch,
        "conv",
        normalize="percentile(5, 95)",
        scope="layer",
        columns=2,
        padding=3,
        zoom=2,
        background=7,
        order=[4, 0, 1],
        backend="numpy",
    )
    with Image.open(tmp_path / "cat" / "00_conv.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), expected["conv"].levels)


def test_layers_option_takes_globs_classes_indices_and_repeats(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    def list_drawn_layers(*layers: object) -> list[str]:
        options = [part for layer in layers for part in ("--layers", layer)]
        result = run("render", model_file, photo, "-o", tmp_path, "--json", "--overwrite", *options)
        (image,) = (event for event in result.events if event["event"] == "image")
        return list(image["dead"])

    assert list_drawn_layers("*o*") == ["conv", "pool"]
    assert list_drawn_layers("Conv2D", "MaxPooling2D") == ["conv", "pool"]
    assert list_drawn_layers(1, -1) == ["relu", "head"]
    assert parse_layers(keras.Sequential([keras.layers.ReLU(name="Conv2D")]), ["Conv2D"]) == [
        "Conv2D"
    ]


def test_images_of_folders_and_globs_in_batches(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    inputs = tmp_path / "in"
    for place, turns in (("a", 0), ("b", 1), ("c", 2), ("c/d", 3)):
        (inputs / place).mkdir(parents=True)
        with Image.open(photo) as picture:
            picture.rotate(90 * turns, expand=True).save(inputs / place / "cat.png")
    result = run("render", model_file, inputs, "-o", tmp_path / "out", "--batch-size", 3)
    assert result.code == 0
    # Outputs of a folder keep its subfolders; the files of a glob have no common folder.
    folders = {"a/cat": "cat", "b/cat": "cat-2", "c/cat": "cat-3", "c/d/cat": "cat-4"}
    # The results do not depend on the batch size.
    run("render", model_file, inputs / "**" / "*.png", "-o", tmp_path / "one", "--batch-size", 1)
    for folder, numbered in folders.items():
        batched, single = (
            read_stats(tmp_path / "out" / folder),
            read_stats(tmp_path / "one" / numbered),
        )
        for a, b in zip(batched["layers"], single["layers"], strict=True):
            np.testing.assert_allclose(a["mean"], b["mean"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("file_format", ["webp", "jpg", "tiff", "PNG"])
def test_other_formats(
    run: Run, model_file: Path, photo: Path, tmp_path: Path, file_format: str
) -> None:
    options = ["--layers", "conv", "--format", file_format]
    assert run("render", model_file, photo, "-o", tmp_path, *options).code == 0
    path = tmp_path / "cat" / f"00_conv.{file_format.lower()}"
    with Image.open(path) as picture:
        assert picture.width > 10


def test_images_of_several_sizes_through_a_model_of_any_size(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3, name="conv")])
    model.save(tmp_path / "any.keras")
    with Image.open(photo) as picture:
        picture.resize((40, 30)).save(tmp_path / "other.png")
    arguments = ["render", tmp_path / "any.keras", photo, tmp_path / "other.png"]
    assert run(*arguments, "-o", tmp_path / "out", "--batch-size", 4).code == 0
    shapes = [
        read_stats(tmp_path / "out" / name)["layers"][0]["shape"] for name in ("cat", "other")
    ]
    assert shapes == [[298, 449, 2], [28, 38, 2]]
    assert run(*arguments, "-o", tmp_path / "sized", "--size", "20x24").code == 0
    assert read_stats(tmp_path / "sized" / "cat")["layers"][0]["shape"] == [18, 22, 2]


def test_model_from_module_in_current_folder(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import keras\n"
        "def build():\n"
        "    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])\n"
    )
    # A new process of the installed command, which imports TensorFlow itself.
    command = [str(Path(sys.executable).with_name("actgrid")), "render", "mine:build", str(photo)]
    done = subprocess.run([*command, "-o", "out"], capture_output=True, text=True, cwd=tmp_path)
    # Neither TensorFlow's messages nor a progress bar are printed to a pipe.
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "cat" / "stats.json").exists()


def test_channels_are_sorted_by_their_contribution_to_a_class(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nbird\nfish\n")
    options = ["--order", "relevance", "--target", "bird", "--labels", labels]
    result = run("render", model_file, photo, "-o", tmp_path, *options)
    assert result.code == 0, result
    model = actgrid.load_model(model_file)
    expected = actgrid.measure_channel_relevance(model, photo, target=2)
    grids = actgrid.render_model(model, photo, order="relevance", target=2)
    for layer in read_stats(tmp_path / "cat")["layers"]:
        (relevance,) = expected[layer["path"]]
        np.testing.assert_allclose(layer["relevance"], relevance, rtol=1e-4, atol=1e-6)
        with Image.open(tmp_path / "cat" / layer["file"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), grids[layer["path"]].levels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", 2], "target is only used with order='relevance': got order='index'"),
        (["--order", "relevance", "--target", "cat"], "the names of the model's classes are not"),
        (["--order", "relevance", "--target", 4], "there is no class 4: the model has 4, 0 to 3"),
        (["--order", "relevance", "--target", "size=1"], "size"),
    ],
)
def test_invalid_targets_end_the_command(
    run: Run, model_file: Path, photo: Path, tmp_path: Path, options: list[Any], message: str
) -> None:
    result = run("render", model_file, photo, "-o", tmp_path, *options)
    assert result.code != 0
    assert message in result.err
