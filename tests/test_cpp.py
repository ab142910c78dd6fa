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

# The compilation takes more than ten seconds.
pytestmark = pytest.mark.slow


def tool(name: str) -> str:
    """Return the path of a program in this environment, otherwise on the system."""
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is not installed"
    return found


def run(name: str, *arguments: str | Path) -> str:
    """Run a program that must succeed, and return its output."""
    environment = {**os.environ, "PATH": f"{Path(tool('ninja')).parent}:{os.environ['PATH']}"}
    command = [tool(name), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build folder with the library and its test program."""
    folder = tmp_path_factory.mktemp("build")
    options = ["-DACTGRID_BINDINGS=OFF", "-DACTGRID_TESTS=ON", "-DACTGRID_WERROR=ON"]
    run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *options)
    run("cmake", "--build", folder)
    return folder


def test_core_passes_its_own_tests(build: Path) -> None:
    printed = run("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error")
    assert "100% tests passed" in printed


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_no_simd_variant_accesses_memory_outside_of_arrays(build: Path) -> None:
    program = build / "cpp" / "test_core"
    variants = set(run(str(program)).split())
    checked = run("valgrind", "-q", "--error-exitcode=9", program).split()
    assert variants - set(checked) <= {"avx512"}  # valgrind does not support AVX-512


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is but one variant")
@pytest.mark.parametrize("variant", ["avx2", "avx512"])
def test_simd_variants_share_no_code_with_portable_code(build: Path, variant: str) -> None:
    # The linker keeps any one of several definitions of an inline function: a copy compiled
    # for AVX-512 would crash on other processors.
    kernels = build / f"cpp/CMakeFiles/actgrid_{variant}.dir/src/kernels/variant.cpp.o"
    shared = re.findall(r" [WVu] (.*)", run("nm", "-C", kernels))
    assert shared
    assert all(f"actgrid::{variant}::" in name for name in shared)
