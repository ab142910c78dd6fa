"""The pictures of the gallery: each block of an example shows the picture in its last line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sphinx_gallery.scrapers import figure_rst

from actgrid.rendering import Picture

__all__ = ["scrape_picture"]


def scrape_picture(
    block: tuple[str, str, int],
    variables: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> str:
    """Save the picture that the last line of a block gives, and return its reStructuredText.

    Parameters
    ----------
    block
        Kind, code and line number of the block.
    variables
        ``example_globals`` has the values of the example; ``"___"`` is the value of the last line.
    settings
        The settings of the gallery, ``src_dir`` among them.

    Returns
    -------
    str
        The figure in reStructuredText; empty if the last line gives no picture.
    """
    picture = variables["example_globals"].get("___")
    if not isinstance(picture, Picture):
        return ""
    path = next(variables["image_path_iterator"])
    picture.save(path)
    figure: str = figure_rst([path], settings["src_dir"], fig_titles=repr(picture).strip("<>"))
    return figure
