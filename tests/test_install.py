"""Tests that the package installs and draws without a compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_without_a_compiler_the_install_is_pure_python(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    environment = {**os.environ, "CXX": str(tmp_path / "no-compiler")}
    installed = subprocess.run(
        [*command, "--target", str(tmp_path / "site"), str(ROOT)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    (wheel,) = (tmp_path / "site").glob("actgrid-*.dist-info/WHEEL")
    assert "Root-Is-Purelib: true" in wheel.read_text()
    assert not list((tmp_path / "site" / "actgrid").glob("_core*.so"))
    # Without `site`, no editable installation of the package takes precedence.
    paths = [str(tmp_path / "site"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    code = (
        f"import sys; sys.path[:0] = {paths!r}; import numpy as np, actgrid; "
        "grid = actgrid.render(np.arange(32.0).reshape(4, 4, 2), normalize='minmax'); "
        "assert grid.levels[0, 0] == 0 and grid.levels.max() == 255; "
        "from actgrid.cli import main; main(['info', '--json'])"
    )
    ran = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    facts = json.loads(ran.stdout)
    assert "C++20 compiler" in facts["backends"]["native"]
    assert facts["auto"] == "numba"
    assert facts["backends"]["numpy"] == "available"
