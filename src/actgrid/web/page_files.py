"""The files of the page."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["page_files"]


def page_files() -> dict[str, bytes]:
    """Return the files of the page, by name."""
    folder = files("actgrid.web").joinpath("page")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
