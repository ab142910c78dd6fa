"""Skip tests of methods whose optional packages are not installed."""

from __future__ import annotations

import pytest

from actgrid.attribution.methods import get_methods
from actgrid.attribution.packages import has_packages

__all__ = ["skip_without_packages"]


def skip_without_packages(method: str) -> None:
    """Skip the test if a package that a method needs is not installed."""
    if not has_packages(get_methods()[method]):
        pytest.skip(f"{method} needs packages that are not installed")
