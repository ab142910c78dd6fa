"""Fixtures that make further builds of actgrid: copies of the package."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import actgrid

PACKAGE = Path(actgrid.__file__).parent


@pytest.fixture
def copy_build(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies the package and appends code to a module."""

    def copy_build(name: str, module: str | None = None, code: str = "") -> Path:
        folder = tmp_path / name
        unneeded = shutil.ignore_patterns("__pycache__", "demo", "web", "*.pyi")
        shutil.copytree(PACKAGE, folder / "actgrid", ignore=unneeded)
        if module is not None:
            with (folder / "actgrid" / module).open("a") as file:
                file.write(code)
        return folder

    return copy_build
