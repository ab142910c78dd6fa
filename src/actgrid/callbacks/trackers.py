"""Helpers of the sinks that use a package for tracking experiments."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from actgrid.errors import MissingDependencyError, OutputError

__all__ = ["import_tracker", "open_png", "translate_errors"]


def import_tracker(package: str) -> Any:
    """Import a package for tracking experiments.

    Raises
    ------
    MissingDependencyError
        If the package is not installed. Also an ImportError.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"sinks={package!r} needs the package {package} ({error}); to get it, "
            f"pip install 'actgrid[{package}]'"
        ) from error


@contextmanager
def translate_errors(name: str) -> Iterator[None]:
    """Convert any exception in the ``with`` block to an OutputError.

    Trackers raise exceptions of many kinds, such as those of the HTTP library.
    """
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise OutputError(f"cannot log to {name}: {reason}") from error


def open_png(png: bytes) -> Image.Image:
    """Return the content of a PNG file as a Pillow image."""
    return Image.open(io.BytesIO(png))
