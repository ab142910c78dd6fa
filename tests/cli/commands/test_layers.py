"""Tests of the command `actgrid layers`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

import actgrid
from actgrid.cli import report

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


def test_layers_lists_the_models_layers(run: Run, model_file: Path) -> None:
    result = run("layers", model_file)
    assert result.code == 0
    lines = [line.split("  ") for line in result.out.splitlines()]
    assert lines[0][0] == "index"
    assert re.search(r"^ +0 +conv +Conv2D +\? x 10 x 8 x 5 +5 +float32 +140$", result.out, re.M)
    assert len(lines) == 6


def test_layers_prints_json(run: Run, model_file: Path) -> None:
    layers = json.loads(run("layers", model_file, "--json").out)
    assert [layer["path"] for layer in layers] == ["conv", "relu", "pool", "flat", "head"]
    assert layers[0] == {
        "path": "conv",
        "type": "Conv2D",
        "shape": [None, 10, 8, 5],
        "dtype": "float32",
        "data_format": "channels_last",
        "parameters": 140,
        "index": 0,
        "channels": 5,
        "axes": ["batch", "height", "width", "channel"],
        "grids": [None, None, None, None],
        "lacks_grid": False,
    }


def test_brackets_in_layer_paths_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    class Named(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return {"/b": x, "bold": x + 1}

    inputs = keras.Input((4, 4, 3))
    report.print_infos(actgrid.list_layers(keras.Model(inputs, Named(name="named")(inputs))))
    printed = capsys.readouterr().out
    assert "named[/b]" in printed
    assert "named[bold]" in printed
