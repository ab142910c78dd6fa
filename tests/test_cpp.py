"""The C++ library builds without a warning, and passes its own test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tool(name: str) -> str:
    """A program of this environment, or else of the system."""
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is not installed"
    return found


@pytest.mark.slow
def test_core_passes_its_own_tests(tmp_path: Path) -> None:
    options = ["-DACTGRID_BINDINGS=OFF", "-DACTGRID_TESTS=ON", "-DACTGRID_WERROR=ON"]
    commands = [
        [tool("cmake"), "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja", *options],
        [tool("cmake"), "--build", str(tmp_path)],
        [tool("ctest"), "--test-dir", str(tmp_path), "--output-on-failure", "--no-tests=error"],
    ]
    environment = {**os.environ, "PATH": f"{Path(tool('ninja')).parent}:{os.environ['PATH']}"}
    for command in commands:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "100% tests passed" in done.stdout
