"""A network as a row of boxes, each as large as a layer's output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.errors import OptionError
from actgrid.option_groups import takes_options
from actgrid.options import DiagramOptions
from actgrid.rendering.colormaps import palette
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import shortened

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Box", "Diagram", "draw_diagram"]

Colour = tuple[int, int, int]
Point = tuple[float, float]

_COLOURS = 20  # of the colormap tab20, for the types in the order in which they come
_BESIDE = (0.80, 0.62)  # how bright the top and the side of a box are
_INK, _OUTLINE, _PAPER = (40, 40, 40), (70, 70, 70), (255, 255, 255)
_SMOOTH = 2  # edges are drawn so many times larger
_LEAST = 6  # pixels of a side
_GAP = 10
_MARGIN = 16
_TEXT = 12
_LONGEST_LABEL = 260


@dataclass(frozen=True, eq=False)
class Box:
    """A layer's output in a diagram.

    Attributes
    ----------
    name
        What is written under it.
    type
        What it has its colour for, as the legend tells.
    shape
        Of the output, without the batch and with the channels last: 1 to 4 lengths.
    face
        (h, w, 3) uint8, what is seen on its front; None: the colour.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    face: npt.NDArray[np.uint8] | None = None


class _Placed(NamedTuple):
    """A box in pixels: its front's left edge, width and height, and how far back it goes."""

    box: Box
    left: float
    width: float
    height: float
    depth: float


@dataclass(frozen=True, eq=False, repr=False)
class Diagram(Picture):
    """The layers of a network as boxes, in the order in which they run. Made by `actgrid.diagram`.

    Attributes
    ----------
    boxes
        A `Box` for each layer's output.
    side
        Pixels of the longest side.
    width
        Pixels after which a new row begins.
    names
        Whether names and shapes are written under the boxes.
    legend
        Whether the colours are explained.

    Examples
    --------
    >>> boxes = [Box("image", "Input", (64, 64, 3)), Box("conv", "Conv2D", (32, 32, 16))]
    >>> draw_diagram(boxes).save("network.png")
    """

    boxes: tuple[Box, ...]
    side: int
    width: int
    names: bool
    legend: bool

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return f"<Diagram of {len(self)} boxes>"

    @property
    def colours(self) -> dict[str, Colour]:
        """The colour of each type of layer."""
        colours = palette("tab20")
        types = dict.fromkeys(box.type for box in self.boxes)
        # The strong half of its colours first, then the pale one; after all, from the beginning.
        order = [*range(0, _COLOURS, 2), *range(1, _COLOURS, 2)]
        chosen = [
            colours[(order[index % _COLOURS] * 256 + 128) // _COLOURS]
            for index, _ in enumerate(types)
        ]
        return {name: _rgb(colour) for name, colour in zip(types, chosen, strict=True)}

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Return the picture, (height, width, 3) uint8."""
        colours = self.colours
        parts = [self._draw_row(row, colours) for row in self._rows()]
        if self.legend:
            parts.append(self._draw_legend(colours))
        width = max(part.width for part in parts)
        height = sum(part.height for part in parts)
        page = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), _PAPER)
        top = _MARGIN
        for part in parts:
            page.paste(part, (_MARGIN, top))
            top += part.height
        return np.asarray(page)

    def _rows(self) -> Iterator[list[_Placed]]:
        """Yield the boxes row by row, each where it stands in its row."""
        row: list[_Placed] = []
        left = 0.0
        for box, (width, height, depth) in zip(self.boxes, self._sizes(), strict=True):
            needed = max(width + depth, _line_height() if self.names else 0)
            if row and left + needed > self.width:
                yield row
                row, left = [], 0.0
            row.append(_Placed(box, left, width, height, depth))
            left += needed + _GAP
        yield row

    def _sizes(self) -> Iterator[tuple[float, float, float]]:
        """Yield (width, height, depth) of each box in pixels.

        Lengths are as the square roots of what they stand for: there may be a thousand times as
        many here as there, and both are to be seen.
        """
        shapes = [box.shape for box in self.boxes]
        sides = max((max(shape[-3:-1]) for shape in shapes if len(shape) > 2), default=1)
        deepest = max((_depth(shape) for shape in shapes if len(shape) > 2), default=1)
        steps = max((shape[0] for shape in shapes if len(shape) == 2), default=1)
        units = max((shape[-1] for shape in shapes if len(shape) < 3), default=1)

        def length(count: int, most: int, longest: float) -> float:
            return max(_LEAST, longest * math.sqrt(count / max(most, 1)))

        for shape in shapes:
            if len(shape) > 2:
                height, width = (length(one, sides, self.side) for one in shape[-3:-1])
                yield width, height, length(_depth(shape), deepest, self.side / 4)
            else:
                wide = length(shape[0], steps, self.side) if len(shape) == 2 else 2 * _LEAST
                yield wide, length(shape[-1], units, self.side), _LEAST

    def _draw_row(self, row: Sequence[_Placed], colours: Mapping[str, Colour]) -> Image.Image:
        """Return a picture of boxes whose middles are on one line, and of their names."""
        above = max(one.height / 2 + one.depth for one in row)
        below = max(one.height / 2 for one in row)
        last = row[-1]
        labels = [_label(one.box) for one in row] if self.names else []
        text = max((label.height for label in labels), default=0)
        width = math.ceil(max(last.left + last.width + last.depth, last.left + _line_height())) + 1
        height = math.ceil(above + below) + 1

        boxes = Image.new("RGB", (width * _SMOOTH, height * _SMOOTH), _PAPER)
        draw = ImageDraw.Draw(boxes)
        for one in row:
            self._draw_box(draw, one, above - one.height / 2, colours[one.box.type])
        picture = Image.new(
            "RGB", (width, height + (_GAP // 2 + text if text else 0) + _GAP), _PAPER
        )
        picture.paste(boxes.reduce(_SMOOTH))
        for one in row:
            if one.box.face is not None:
                self._paste_face(picture, one, one.box.face, above - one.height / 2)
        for one, label in zip(row, labels, strict=False):
            place = (round(one.left + one.width / 2 - label.width / 2), height + _GAP // 2)
            picture.paste(_INK, (max(0, place[0]), place[1]), label)
        return picture

    @staticmethod
    def _draw_box(draw: ImageDraw.ImageDraw, one: _Placed, top: float, colour: Colour) -> None:
        left, right, bottom, back = one.left, one.left + one.width, top + one.height, one.depth
        over, side = (_rgb(np.multiply(colour, share)) for share in _BESIDE)
        faces: list[tuple[Colour, list[Point]]] = [
            (colour, [(left, top), (right, top), (right, bottom), (left, bottom)]),
            (
                over,
                [(left, top), (left + back, top - back), (right + back, top - back), (right, top)],
            ),
            (
                side,
                [
                    (right, top),
                    (right + back, top - back),
                    (right + back, bottom - back),
                    (right, bottom),
                ],
            ),
        ]
        for fill, corners in faces:
            scaled = [(x * _SMOOTH, y * _SMOOTH) for x, y in corners]
            draw.polygon(scaled, fill=fill, outline=_OUTLINE)

    @staticmethod
    def _paste_face(
        picture: Image.Image, one: _Placed, face: npt.NDArray[np.uint8], top: float
    ) -> None:
        """Put what a layer shows on its front, within the outline."""
        left, upper = math.ceil(one.left) + 1, math.ceil(top) + 1
        width = math.floor(one.left + one.width) - left
        height = math.floor(top + one.height) - upper
        image = Image.fromarray(face)
        # Few values are seen as what they are, many as what they are together.
        smaller = face.shape[1] > width or face.shape[0] > height
        resampling = Image.Resampling.BOX if smaller else Image.Resampling.NEAREST
        picture.paste(image.resize((max(1, width), max(1, height)), resampling), (left, upper))

    def _draw_legend(self, colours: Mapping[str, Colour]) -> Image.Image:
        font, line = _font(), _line_height()
        widths = [line + math.ceil(font.getlength(name)) + 2 * _GAP for name in colours]
        places: list[tuple[int, int]] = []
        left = top = 0
        for width in widths:
            if left and left + width > self.width:
                left, top = 0, top + line + _GAP // 2
            places.append((left, top))
            left += width
        right = max(x + width for (x, _), width in zip(places, widths, strict=True))
        picture = Image.new("RGB", (right, top + line), _PAPER)
        draw = ImageDraw.Draw(picture)
        for (x, y), (name, colour) in zip(places, colours.items(), strict=True):
            draw.rectangle((x, y + 1, x + line - 3, y + line - 2), colour, _OUTLINE)
            draw.text((x + line + 3, y), name, fill=_INK, font=font)
        return picture


@takes_options(DiagramOptions)
def draw_diagram(boxes: Iterable[Box], **options: Unpack[DiagramOptions]) -> Diagram:
    """Return boxes as a diagram; see `actgrid.diagram`.

    Raises
    ------
    OptionError
        If there are no boxes, or an option cannot be used. Also a ValueError.
    """
    drawn = tuple(boxes)
    if not drawn:
        raise OptionError("there is no box to draw")
    return Diagram(drawn, options["side"], options["width"], options["names"], options["legend"])


def _depth(shape: Sequence[int]) -> int:
    """Return how deep the box of an image or a volume is: in channels, of all slices."""
    return shape[-1] * math.prod(shape[:-3])


def _rgb(colour: Iterable[float]) -> Colour:
    red, green, blue = (int(value) for value in colour)
    return red, green, blue


@lru_cache(maxsize=1)
def _font() -> Any:
    return ImageFont.load_default(_TEXT)


def _line_height() -> int:
    return sum(_font().getmetrics())


def _label(box: Box) -> Image.Image:
    """Return the mask of a box's name and shape, as a line of text that is read from below."""
    font = _font()
    shape = " " + " x ".join(map(str, box.shape))
    text = shortened(box.name, font, _LONGEST_LABEL - math.ceil(font.getlength(shape))) + shape
    mask = Image.new("L", (math.ceil(font.getlength(text)), _line_height()))
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    return mask.transpose(Image.Transpose.ROTATE_90)
