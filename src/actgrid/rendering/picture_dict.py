"""Dicts of pictures, which notebooks show."""

from __future__ import annotations

import base64
import html
from typing import TypeVar

from actgrid.rendering.picture import Picture

__all__ = ["PictureDict"]

P = TypeVar("P", bound=Picture)

# Limits of what a notebook shows and stores: pictures, and bytes of their PNG files.
_MAX_PICTURES = 50
_MAX_BYTES = 4 << 20


class PictureDict(dict[str, P]):
    """Dict of pictures by name, which notebooks show with their names.

    At most 50 pictures and 4 MiB of PNG files are shown, because a notebook stores what it shows.

    Examples
    --------
    >>> from actgrid.rendering import PictureDict
    >>> grids = PictureDict(ones=actgrid.render(np.ones((4, 4, 3))))
    >>> grids["ones"]
    <Grid 9 x 9, 3 tiles, viridis>
    """

    def _repr_html_(self) -> str:
        figures: list[str] = []
        size = 0
        for name, picture in self.items():
            png = picture.to_png()
            size += len(png)
            if figures and (len(figures) == _MAX_PICTURES or size > _MAX_BYTES):
                break
            caption = html.escape(name)
            figures.append(
                f'<figure style="margin: 0 0 1em">{_make_image_element(picture, name, png)}'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        omitted = list(self)[len(figures) :]
        if omitted:
            figures.append(
                f"<p>{len(omitted)} more pictures are not shown, such as "
                f"<code>[{html.escape(repr(omitted[0]))}]</code>.</p>"
            )
        return "\n".join(figures)


def _make_image_element(picture: Picture, name: str, png: bytes) -> str:
    """Return the HTML element of a picture and its PNG file, with an alternative text."""
    text = html.escape(f"{name}: {repr(picture).strip('<>')}")
    data = base64.b64encode(png).decode()
    style = "max-width: 100%; image-rendering: pixelated"
    return f'<img alt="{text}" style="{style}" src="data:image/png;base64,{data}">'
