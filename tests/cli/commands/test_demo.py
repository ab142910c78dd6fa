"""Tests of the command `actgrid demo`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


def read_stats(folder: Path) -> Any:
    return json.loads((folder / "stats.json").read_text())


def test_demo_draws_every_spatial_layer(run: Run, tmp_path: Path) -> None:
    result = run("demo", "-o", tmp_path / "demo")
    assert result.code == 0
    assert result.err == ""
    pictures = sorted((tmp_path / "demo").glob("*.png"))
    assert len(pictures) == 142
    assert pictures[3].name == "003_stem_relu.png"
    with Image.open(pictures[3]) as picture:
        assert picture.mode == "P"
        assert picture.size == (6 * 113 - 1, 6 * 113 - 1)
    assert re.search(r"^layer +type +shape +channels +dead +ms$", result.out, re.M)
    assert re.search(r"^stem_relu +ReLU +112 x 112 x 32 +32 +5 +\d+\.\d\d$", result.out, re.M)
    assert re.search(r"0\.36\d +Egyptian cat", result.out)
    heatmap = tmp_path / "demo" / "gradcam.png"
    assert f"\ncat.jpg: gradcam: Egyptian cat 8.897: {heatmap}\n" in result.out
    # The heatmap marks the face of the cat, and not the fur at the edge.
    with Image.open(heatmap) as picture:
        assert picture.size == (451, 300)  # of the photo
        red, _, blue = np.asarray(picture)[100:150, 60:180].mean((0, 1))
        assert red > blue + 40
        red, _, blue = np.asarray(picture)[150:, 200:].mean((0, 1))
        assert red < blue + 40
    assert result.out.splitlines()[-1].endswith(str((tmp_path / "demo").resolve()))
    assert sum(layer["channels"] for layer in read_stats(tmp_path / "demo")["layers"]) == 62243


def test_demo_prints_json(run: Run, tmp_path: Path) -> None:
    report = json.loads(run("demo", "--json", "-o", tmp_path).out)
    assert report["top"][0]["name"] == "Egyptian cat"
    assert 0.36 <= report["top"][0]["probability"] <= 0.37
    assert len(report["layers"]) == 141
    assert report["explained"]["name"] == "Egyptian cat"
    assert Path(report["explained"]["file"]) == tmp_path / "gradcam.png"
