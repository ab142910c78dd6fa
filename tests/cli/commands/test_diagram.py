"""Tests of the command `actgrid diagram`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


def test_diagram_draws_boxes_and_prints_counts(run: Run, model_file: Path, tmp_path: Path) -> None:
    result = run("diagram", model_file, "-o", tmp_path / "new" / "d.png")
    assert result.code == 0
    assert "1 Input" in result.out
    assert str(tmp_path / "new" / "d.png") in result.out
    with Image.open(tmp_path / "new" / "d.png") as picture:
        assert picture.mode == "RGB"
    options = ["--layers", "0", "--no-names", "--no-legend", "--side", 40, "--json"]
    result = run("diagram", model_file, "-o", tmp_path / "e.webp", *options)
    (printed,) = result.events
    assert printed["file"] == str(tmp_path / "e.webp")
    assert [box["type"] for box in printed["boxes"]] == ["Input", "Conv2D"]


def test_diagram_of_an_image(run: Run, photo: Path, model_file: Path, tmp_path: Path) -> None:
    assert run("diagram", model_file, photo, "-o", tmp_path / "d.png").code == 0
    assert run("diagram", model_file, "-o", tmp_path / "e.png").code == 0
    assert (tmp_path / "d.png").read_bytes() != (tmp_path / "e.png").read_bytes()


def test_diagram_prints_errors_in_one_line(run: Run, model_file: Path, tmp_path: Path) -> None:
    command = ["diagram", "none.keras", "-o", tmp_path / "d.png"]
    run(*command, "--side", 1).assert_one_clear_line("side")
    run(*command, "--cmap", "virdis").assert_one_clear_line("viridis")
    run(*command[:2], "-o", tmp_path / "d.pgn").assert_one_clear_line(".png")
    run("diagram", "none.keras", "none.jpg").assert_one_clear_line("none.jpg")
    run(*command).assert_one_clear_line("none.keras")
    command[1] = model_file
    run(*command, "--layers", "cnv").assert_one_clear_line("cnv")
    assert not list(tmp_path.glob("d.*"))
