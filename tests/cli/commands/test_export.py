"""Tests of the command `actgrid export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_export_writes_site(run: Run, model_file: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    result = run("export", model_file, photo, "-o", out, "--layers", "conv", "--scope", "layer")
    assert result.code == 0
    assert result.out.splitlines()[0].startswith(f"{out}: ")
    assert (out / "index.html").exists()
    assert [path.parent.name for path in out.glob("api/images/*/layers/*/*/layer.png")] == [
        "standard"
    ]


def test_export_of_unknown_layer_prints_one_line(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    result = run("export", model_file, photo, "-o", tmp_path / "site", "--layers", "cnv")
    result.assert_one_clear_line("no layer is called 'cnv'", "did you mean conv")
