"""Tests of the commands `actgrid concepts` and `actgrid tcav`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a network whose class 0 increases with red and decreases with green."""
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(3, 1, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, activation="softmax", name="scores"),
        ]
    )
    model.get_layer("conv").set_weights([np.eye(3)[None, None], np.zeros(3)])
    model.get_layer("scores").set_weights([np.array([[2, -2], [-2, 2], [0, 0]]), np.zeros(2)])
    path = tmp_path_factory.mktemp("model") / "colours.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of images: `red`, `random` and `class`, with noise and in `red` more red."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, count in (("red", 6), ("random", 16), ("class", 4)):
        (folder / name).mkdir()
        for index in range(count):
            pixels = rng.integers(0, 128, (16, 16, 3), np.uint8)
            pixels[..., 0] += 127 * (name == "red")
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def test_concepts_are_drawn_and_listed(
    run: Run, colour_model: Path, folders: Path, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "concepts.png"
    options = ["--layer", "conv", "--target", 0, "--concepts", 2, "--samples", 8, "-o", file]
    result = run("concepts", colour_model, folders / "class", *options)
    assert result.code == 0, result
    expected = actgrid.find_concepts(
        str(colour_model), folders / "class", "conv", 0, concepts=2, samples=8
    )
    with Image.open(file) as picture:
        np.testing.assert_array_equal(np.asarray(picture), expected.to_rgb())
    assert re.search(r"^concept +importance +total_index$", result.out, re.M)
    assert "conv, 2 concepts: " in result.out
    printed = json.loads(run("concepts", colour_model, folders / "class", *options, "--json").out)
    assert printed["concepts"] == expected.to_records()
    assert printed["layer"] == "conv"


def test_tcav_is_drawn_and_listed(
    run: Run, colour_model: Path, folders: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tcav.png"
    options = [
        *("--concept", f"red={folders / 'red'}", "--random", folders / "random"),
        *("--target", 0, "--layers", "conv", "--repeats", 12, "-o", file),
    ]
    result = run("tcav", colour_model, folders / "class", *options)
    assert result.code == 0, result
    expected = actgrid.measure_concept_sensitivity(
        str(colour_model),
        folders / "class",
        {"red": folders / "red"},
        folders / "random",
        "conv",
        0,
        repeats=12,
    )
    assert expected.mean_scores.tolist() == [[1]]
    with Image.open(file) as picture:
        np.testing.assert_array_equal(np.asarray(picture), expected.to_rgb())
    assert re.search(r"^concept +layer +score", result.out, re.M)
    printed = json.loads(run("tcav", colour_model, folders / "class", *options, "--json").out)
    assert printed["concepts"] == expected.to_records()


def test_errors_are_one_line(run: Run, colour_model: Path, folders: Path, tmp_path: Path) -> None:
    images = folders / "class"
    output = ["-o", tmp_path / "a.png"]
    result = run("concepts", colour_model, images, "--layer", "cnov", *output)
    result.assert_one_clear_line("did you mean conv")
    result = run("concepts", colour_model, images, "--concepts", 0, *output)
    result.assert_one_clear_line("--concepts must be at least 1")
    random = ["--random", folders / "random"]
    result = run("tcav", colour_model, images, "--concept", "red", *random, *output)
    result.assert_one_clear_line("--concept must be NAME=FOLDER, not 'red'")
    result = run("tcav", colour_model, images, "--concept", "red=nowhere", *random, *output)
    result.assert_one_clear_line("there is no image nowhere")
    assert run("tcav", colour_model, images, *random, *output).code == 2
