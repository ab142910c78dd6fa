"""Builds of actgrid beside the one under test: copies of the package."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import actgrid

PACKAGE = Path(actgrid.__file__).parent


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """Return what copies the package into a folder and appends code to one of its modules."""

    def copied(name: str, module: str | None = None, code: str = "") -> Path:
        folder = tmp_path / name
        unneeded = shutil.ignore_patterns("__pycache__", "demo", "web", "*.pyi")
        shutil.copytree(PACKAGE, folder / "actgrid", ignore=unneeded)
        if module is not None:
            with (folder / "actgrid" / module).open("a") as file:
                file.write(code)
        return folder

    return copied
