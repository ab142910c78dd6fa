"""Tests that the C++ library builds without warnings and passes its own tests."""

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

# Compiling takes more than ten seconds.
pytestmark = pytest.mark.slow


def find_program(name: str) -> str:
    """Return the path of a program, preferring the folder of the Python interpreter."""
    folder = Path(sys.executable).parent
    path = shutil.which(name, path=f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert path, f"{name} is not installed"
    return path


def run_program(name: str, *arguments: str | Path) -> str:
    """Run a program, check that it succeeds and return its output."""
    environment = {
        **os.environ,
        "PATH": f"{Path(find_program('ninja')).parent}:{os.environ['PATH']}",
    }
    command = [find_program(name), *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library and its test program, and return the build folder."""
    folder = tmp_path_factory.mktemp("build")
    options = ["-DACTGRID_BINDINGS=OFF", "-DACTGRID_TESTS=ON", "-DACTGRID_WERROR=ON"]
    run_program("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *options)
    run_program("cmake", "--build", folder)
    return folder


def test_core_passes_ctest(build: Path) -> None:
    output = run_program("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error")
    assert "100% tests passed" in output


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_simd_variants_pass_valgrind(build: Path) -> None:
    program = build / "cpp" / "test_core"
    variants = set(run_program(str(program)).split())
    checked_variants = run_program("valgrind", "-q", "--error-exitcode=9", program).split()
    assert variants - set(checked_variants) <= {"avx512"}  # valgrind does not support AVX-512


@pytest.mark.skipif(platform.machine() != "x86_64", reason="this platform has one variant only")
@pytest.mark.parametrize("variant", ["avx2", "avx512"])
def test_simd_variants_have_no_shared_symbols(build: Path, variant: str) -> None:
    # The linker keeps one arbitrary definition of an inline function. A definition compiled for
    # AVX-512 would crash on other processors.
    kernels = build / f"cpp/CMakeFiles/actgrid_{variant}.dir/src/kernels/variant.cpp.o"
    weak_symbols = re.findall(r" [WVu] (.*)", run_program("nm", "-C", kernels))
    assert weak_symbols
    assert all(f"actgrid::{variant}::" in name for name in weak_symbols)
