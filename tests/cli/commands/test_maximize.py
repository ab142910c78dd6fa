"""Tests of the command `actgrid maximize`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

import actgrid

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


def test_maximize_draws_channels_and_prints_activations(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    options = ["--layer", "conv", "--channels", "3,0-1", "--steps", 4, "--jitter", 0.2]
    result = run("maximize", model_file, *options, "-o", tmp_path / "new" / "conv.png")
    assert result.code == 0, result
    assert result.err == ""
    with Image.open(tmp_path / "new" / "conv.png") as picture:
        found = actgrid.maximize(str(model_file), "conv", [3, 0, 1], steps=4, jitter=0.2)
        np.testing.assert_array_equal(np.asarray(picture), found.to_rgb())
    assert re.search(r"^channel +initial +activation$", result.out, re.M)
    assert re.search(rf"^ +3 +-?\d\.\d+ +{found.activations[0]:.3f}$", result.out, re.M)
    assert result.out.splitlines()[-1].startswith("conv, 3 channels: ")


def test_maximize_prints_json(run: Run, model_file: Path, tmp_path: Path) -> None:
    options = ["--layer", -1, "--steps", 9, "--parametrization", "pixel", "--json", "--rotate", 0]
    result = run("maximize", model_file, *options, "-o", tmp_path / "head.webp")
    printed = json.loads(result.out)
    assert printed["layer"] == "head"
    assert [item["channel"] for item in printed["channels"]] == [0, 1, 2, 3]
    assert all(item["activation"] > item["initial_activation"] for item in printed["channels"])


def test_maximize_prints_errors_in_one_line(run: Run, model_file: Path, tmp_path: Path) -> None:
    def run_wrongly(*options: object, model: object = "none.keras") -> Result:
        return run("maximize", model, "--layer", "conv", "-o", tmp_path / "a.png", *options)

    run_wrongly("--steps", 0).assert_one_clear_line("--steps must be at least 1")
    run_wrongly("--parametrization", "x").assert_one_clear_line("fourier, maco, pixel")
    run_wrongly("--size", "axb").assert_one_clear_line("--size must be HxW")
    run_wrongly("--channels", "4-1").assert_one_clear_line("--channels", "4-1")
    run_wrongly("-o", tmp_path / "a.nope").assert_one_clear_line(".nope")
    run_wrongly().assert_one_clear_line("no model file none.keras")
    run_wrongly("--channels", 9, model=model_file).assert_one_clear_line("channels 0 to 4, not 9")
    run_wrongly("--channels", "cat", model=model_file).assert_one_clear_line("names", "not known")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\n")
    labelled = ["--layer", -1, "--channels", "cat", "--labels", tmp_path / "names.txt"]
    result = run(
        "maximize", model_file, "-o", tmp_path / "b.png", "--steps", 1, *labelled, "--json"
    )
    assert [channel["channel"] for channel in json.loads(result.out)["channels"]] == [2]
    run_wrongly("--layer", "cnov", model=model_file).assert_one_clear_line("did you mean conv")


def test_maximize_takes_other_inputs_and_images_of_many_channels(run: Run, tmp_path: Path) -> None:
    image, gate = keras.Input((9, 8, 6), name="image"), keras.Input((1,), name="gate")
    units = keras.layers.Dense(2, name="units")(keras.layers.Flatten()(image))
    model = keras.Model([gate, image], keras.layers.Multiply(name="gated")([units, gate]))
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "others.npz", gate=[2.0])
    command = ["maximize", tmp_path / "model.keras", "--layer", "gated", "--steps", 3]
    options = ["--inputs", tmp_path / "others.npz", "--image-input", "image"]
    for name, more in (("gray", []), ("colour", ["--rgb-channels", "5,0,1"])):
        file = tmp_path / f"{name}.png"
        result = run(*command, *options, *more, "-o", file)
        assert result.code == 0, result
        rgb = (5, 0, 1) if more else None
        given = {"gate": np.array([2.0])}
        found = actgrid.maximize(model, "gated", steps=3, inputs=given, rgb_channels=rgb)
        with Image.open(file) as picture:
            np.testing.assert_array_equal(np.asarray(picture), found.to_rgb())
    wrong = [*command, "-o", tmp_path / "no.png"]
    run(*wrong).assert_one_clear_line("also takes gate", "inputs=")
    run(*wrong, "--inputs", tmp_path / "no.npz").assert_one_clear_line("there is no file", "no.npz")
    run(*wrong, "--inputs", tmp_path / "model.keras").assert_one_clear_line(
        "a .npz file, as numpy.savez writes it"
    )
    run(*wrong, *options, "--rgb-channels", "1,2").assert_one_clear_line("three channels")
