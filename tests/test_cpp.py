"""The C++ library builds without a warning, and passes its own test."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Compiling takes that long.
pytestmark = pytest.mark.slow


def tool(name: str) -> str:
    """A program of this environment, or else of the system."""
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is not installed"
    return found


def run(name: str, *arguments: str | Path) -> str:
    """Return what a program prints that must succeed."""
    environment = {**os.environ, "PATH": f"{Path(tool('ninja')).parent}:{os.environ['PATH']}"}
    command = [tool(name), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library and its test."""
    folder = tmp_path_factory.mktemp("build")
    options = ["-DACTGRID_BINDINGS=OFF", "-DACTGRID_TESTS=ON", "-DACTGRID_WERROR=ON"]
    run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *options)
    run("cmake", "--build", folder)
    return folder


def test_core_passes_its_own_tests(build: Path) -> None:
    printed = run("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error")
    assert "100% tests passed" in printed


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_every_variant_keeps_to_its_memory(build: Path) -> None:
    program = build / "cpp" / "test_core"
    variants = set(run(str(program)).split())
    checked = run("valgrind", "-q", "--error-exitcode=9", program).split()
    assert variants - set(checked) <= {"avx512"}  # valgrind does not know it


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is but one variant")
@pytest.mark.parametrize("variant", ["avx2", "avx512"])
def test_a_variant_shares_no_code_with_what_runs_everywhere(build: Path, variant: str) -> None:
    # Of functions that several objects define the linker keeps any one.
    kernels = build / f"cpp/CMakeFiles/actgrid_{variant}.dir/src/kernels/variant.cpp.o"
    shared = re.findall(r" [WVu] (.*)", run("nm", "-C", kernels))
    assert shared
    assert all(f"actgrid::{variant}::" in name for name in shared)
