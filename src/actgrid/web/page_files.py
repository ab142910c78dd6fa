"""The static files of the page."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["read_page_files"]


def read_page_files() -> dict[str, bytes]:
    """Return the contents of the page's static files by file name."""
    folder = files("actgrid.web").joinpath("page")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
