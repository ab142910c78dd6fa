"""Tests of the commands `compare-models`, `ablate` and `patch-activations`."""

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
from tests.models.exports import export_tflite

import actgrid

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two model files, `a.keras` and `b.keras`, and of six images in `photos`."""
    folder = tmp_path_factory.mktemp("files")
    for seed, name in enumerate("ab"):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [
                keras.Input((16, 16, 3)),
                layers.Rescaling(1 / 255, name="scaled"),
                layers.Conv2D(4, 3, activation="relu", name=f"conv_{name}"),
                layers.GlobalAveragePooling2D(name="mean"),
                layers.Dense(3, activation="softmax", name="out"),
            ]
        )
        model.save(folder / f"{name}.keras")
    (folder / "photos").mkdir()
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / f"{index}.png")
    return folder


# --- compare-models


def test_models_are_compared(run: Run, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = "compare-models", files / "a.keras", files / "b.keras", files / "photos"
    result = run(*arguments, "-o", out)
    assert result.code == 0, result
    expected = actgrid.compare_models(files / "a.keras", files / "b.keras", files / "photos")
    assert actgrid.ModelComparison.load(out).to_frame().equals(expected.to_frame())
    assert "photos/0.png: compared" in result.out
    worst = expected.to_frame().iloc[0]
    pattern = rf"^{worst.layer} +{worst.channel} +{worst.difference:.4g} "
    assert re.search(pattern, result.out, re.M), result.out
    assert re.search(
        r"^layer +cka +relative difference +correlation +died +revived", result.out, re.M
    )
    assert result.out.endswith(f"6 images, 0 failed: {out}\n")
    assert (out / "report.html").exists()
    again = run(*arguments, "-o", out)
    again.assert_one_clear_line("contains a finished run of 6 images", "--overwrite")
    events = run(*arguments, "-o", out, "--overwrite", "--json").events
    assert events[0]["event"] == "start"
    assert events[-1]["images"] == 6


def test_layers_of_other_paths(run: Run, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = "compare-models", files / "a.keras", files / "b.keras", files / "photos"
    result = run(*arguments, "-o", out, "--layers", "conv_a=conv_b", "--layers", "mean")
    assert result.code == 0, result
    assert actgrid.ModelComparison.load(out).layer_paths == {"conv_a": "conv_b", "mean": "mean"}
    wrong = run(*arguments, "-o", tmp_path / "x", "--layers", "conv_a=conv_c")
    wrong.assert_one_clear_line("the second model has no layer 'conv_c'", "did you mean conv_b")
    wrong = run("compare-models", files / "a.keras", files / "c.keras", "demo", "-o", out)
    wrong.assert_one_clear_line("c.keras")
    wrong = run(*arguments, "-o", out, "--sort-by", "cka")
    wrong.assert_one_clear_line("--sort-by must be one of difference, relative_difference")


def test_model_and_its_export(run: Run, files: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    model = keras.models.load_model(files / "a.keras")
    export_tflite(model, tmp_path / "a.tflite", "float16")
    paths = files / "a.keras", tmp_path / "a.tflite", files / "photos"
    result = run("compare-models", *paths, "-o", tmp_path / "out", "--layers", "conv_a")
    assert result.code == 0, result
    comparison = actgrid.ModelComparison.load(tmp_path / "out")
    assert comparison.names == ("a.keras", "a.tflite")
    expected = actgrid.compare_models(*paths, "conv_a")
    assert comparison.to_frame().equals(expected.to_frame())


# --- ablate


def test_ablation_is_drawn_and_listed(run: Run, files: Path, tmp_path: Path) -> None:
    file, photo = tmp_path / "new" / "ablation.png", files / "photos" / "0.png"
    arguments = "ablate", files / "a.keras", photo, "--target", 1, "-o", file
    result = run(*arguments)
    assert result.code == 0, result
    expected = actgrid.ablate_channels(str(files / "a.keras"), photo, "conv_a", 1)["conv_a"]
    with Image.open(file) as picture:
        np.testing.assert_array_equal(np.asarray(picture), expected.to_rgb())
    assert re.search(rf"^conv_a +{expected.ranking[0]} ", result.out, re.M), result.out
    assert "4 channels: " in result.out
    printed = json.loads(run(*arguments, "--json").out)
    assert printed["channels"] == expected.to_records()
    options = "--layers", "conv_a", "--layers", "mean", "--channels", "0,2", "--value", "-1"
    printed = json.loads(run(*arguments, *options, "--json").out)
    expected_drops = [
        record
        for ablation in actgrid.ablate_channels(
            str(files / "a.keras"), photo, ["conv_a", "mean"], 1, channels=[0, 2], value=-1
        ).values()
        for record in ablation.to_records()
    ]
    assert printed["channels"] == expected_drops


def test_reference_and_errors_of_ablation(run: Run, files: Path, tmp_path: Path) -> None:
    photo, other = files / "photos" / "0.png", files / "photos" / "1.png"
    arguments = "ablate", files / "a.keras", photo, "-o", tmp_path / "ablation.png"
    printed = json.loads(
        run(*arguments, "--value", "reference", "--reference", other, "--json").out
    )
    expected = actgrid.ablate_channels(
        str(files / "a.keras"), photo, "conv_a", value="reference", reference=other
    )["conv_a"]
    assert printed["channels"] == expected.to_records()
    run(*arguments, "--value", "reference").assert_one_clear_line("needs reference")
    run(*arguments, "--value", "x").assert_one_clear_line("--value must be mean, reference or")
    run(*arguments, "--channels", "9").assert_one_clear_line("has no channel 9; expected 0 to 3")
    run(*arguments, "--layers", "none").assert_one_clear_line("no layer is called 'none'")


# --- patch-activations


def test_activation_patching_is_drawn_and_listed(run: Run, files: Path, tmp_path: Path) -> None:
    file, x, source = (
        tmp_path / "patching.png",
        files / "photos" / "0.png",
        files / "photos" / "1.png",
    )
    arguments = "patch-activations", files / "a.keras", x, source, "-o", file, "--target", 2
    result = run(*arguments)
    assert result.code == 0, result
    expected = actgrid.patch_activations(str(files / "a.keras"), x, source, target=2)
    with Image.open(file) as picture:
        np.testing.assert_array_equal(np.asarray(picture), expected.to_rgb())
    assert re.search(r"^conv_a +1$", result.out, re.M), result.out
    options = "--unit", "channel", "--layers", "conv_a"
    printed = json.loads(run(*arguments, *options, "--json").out)
    expected = actgrid.patch_activations(
        str(files / "a.keras"), x, source, "conv_a", 2, unit="channel"
    )
    assert printed["effects"] == expected.to_records()
    equal_inputs = run("patch-activations", files / "a.keras", x, x, "--json", "-o", file)
    assert json.loads(equal_inputs.out)["effects"][0]["effect"] is None
    assert "NaN" not in equal_inputs.out
    run(*arguments, "--unit", "x").assert_one_clear_line("--unit must be one of layer, channel")


# --- edits of the model that a command loads


def test_commands_change_the_model(run: Run, files: Path, tmp_path: Path) -> None:
    photo, model = files / "photos" / "0.png", files / "a.keras"
    edits = "--edits", "conv_a:0,2-3=x0.5", "--edits", "conv_a:1=-2", "--edits", "mean=mean"
    wrong = run("ablate", model, photo, *edits)
    wrong.assert_one_clear_line("layer mean has no positions to average over")
    arguments = "ablate", model, photo, "--target", 0, "--layers", "conv_a", "--json"
    printed = json.loads(run(*arguments, *edits[:4], "-o", tmp_path / "a.png").out)
    patched = actgrid.patch(
        actgrid.load_model(model),
        {"conv_a": {(0, 2, 3): actgrid.interventions.scale(0.5), 1: -2}},
    )
    expected = actgrid.ablate_channels(patched, photo, "conv_a", 0)["conv_a"]
    assert printed["channels"] == expected.to_records()
    for text in ("conv_a:0", "conv_a:0=", "=0", "conv_a:0=half", "conv_a:0=x", "conv_a"):
        result = run(*arguments, "--edits", text)
        result.assert_one_clear_line("--edits must be LAYER:CHANNELS=VALUE", repr(text))
    mixed = run(*arguments, "--edits", "conv_a=0", "--edits", "conv_a:1=0")
    mixed.assert_one_clear_line("--edits changes all channels of conv_a")
    run(*arguments, "--edits", "conv_a:7=0").assert_one_clear_line("has no channel 7")
    run(*arguments, "--edits", "cnv:7=0").assert_one_clear_line("no layer is called 'cnv'")


def test_the_second_of_two_models_is_changed(run: Run, files: Path, tmp_path: Path) -> None:
    model = files / "a.keras"
    options = "--edits", "conv_a:1=0", "-o", tmp_path / "out"
    result = run("compare-models", model, model, files / "photos", *options)
    assert result.code == 0, result
    layer = actgrid.ModelComparison.load(tmp_path / "out").layers["conv_a"]
    assert layer.died.tolist() == [False, True, False, False]
    assert layer.difference[[0, 2, 3]].tolist() == [0, 0, 0]
