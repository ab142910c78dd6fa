"""Tests of the command `actgrid render-weights`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import actgrid

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


def test_render_weights_draws_kernels_and_prints_table(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    result = run("render-weights", model_file, "-o", tmp_path)
    assert result.code == 0, result
    assert [file.name for file in tmp_path.iterdir()] == ["00_conv_kernel.png"]
    grid = actgrid.render_weights(str(model_file))["conv/kernel"]
    with Image.open(tmp_path / "00_conv_kernel.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), grid.levels)
    assert re.search(r"^weight +type +shape +min +max +ms$", result.out, re.M)
    assert re.search(r"^conv/kernel +Conv2D +3 x 3 x 3 x 5 +-0\.\d+ +0\.\d+ +\d", result.out, re.M)
    assert result.out.splitlines()[-1] == f"1 weight: {tmp_path.resolve()}"


def test_render_weights_of_named_layers_with_options(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    options: list[object] = ["--layers", "conv", "--layers", "head", "--format", "webp", "--json"]
    options += ["--scope", "layer", "--cmap", "gray", "--zoom", 2, "--order", "1-0"]
    run("render-weights", model_file, "-o", tmp_path, *options).assert_one_clear_line(
        "order", "1-0"
    )
    result = run("render-weights", model_file, "-o", tmp_path, *options[:-1], "1,0")
    printed = json.loads(result.out)["weights"]
    assert [item["path"] for item in printed] == [
        "conv/kernel",
        "conv/bias",
        "head/kernel",
        "head/bias",
    ]
    assert [item["file"] for item in printed][:2] == ["00_conv_kernel.webp", "01_conv_bias.webp"]
    with Image.open(tmp_path / "00_conv_kernel.webp") as picture:
        assert picture.size == (2 * 11, 2 * 7)


def test_render_weights_prints_errors_in_one_line(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    command = ["render-weights", model_file, "-o", tmp_path]
    run(*command, "--layers", "flat").assert_one_clear_line("flat", "no weights")
    run(*command, "--layers", "cnov").assert_one_clear_line("did you mean conv")
    run("render-weights", "none.keras", "-o", tmp_path, "--zoom", 0).assert_one_clear_line("zoom")
    run("render-weights", "none.keras", "-o", tmp_path).assert_one_clear_line("none.keras")
