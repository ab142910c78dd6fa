"""Draw a network as a row of boxes whose sizes show the shapes of layer outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.errors import OptionError
from actgrid.option_groups import takes_options
from actgrid.options import DiagramOptions
from actgrid.rendering.colormaps import palette
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import shorten_text

__all__ = ["Box", "Diagram", "draw_diagram"]

Colour = tuple[int, int, int]
Point = tuple[float, float]

_COLOURS = 20  # colours of the colormap tab20, assigned to layer types in order of appearance
_FACE_BRIGHTNESS = (0.80, 0.62)  # brightness of the top and the side of a box
_TEXT_COLOUR, _OUTLINE_COLOUR, _BACKGROUND_COLOUR = (40, 40, 40), (70, 70, 70), (255, 255, 255)
_SUPERSAMPLING = 2  # factor of the size in which edges are drawn before they are reduced
_MIN_SIDE = 6  # pixels
_GAP = 10
_MARGIN = 16
_FONT_SIZE = 12
_MAX_LABEL_WIDTH = 260


@dataclass(frozen=True, eq=False)
class Box:
    """Record of a layer's output as a box in a diagram.

    Parameters
    ----------
    name : str
        Text under the box.
    type : str
        Layer type. Boxes of the same type have the same colour, which the legend explains.
    shape : tuple of int
        Shape of the output, 1 to 4 lengths, without the batch axis and with the channels last.
    face : numpy.ndarray, optional
        Picture on the front of the box, (h, w, 3) uint8. None: the colour of the type.

    Examples
    --------
    >>> from actgrid.rendering import Box
    >>> Box("conv", "Conv2D", (32, 32, 16)).shape
    (32, 32, 16)
    """

    name: str
    type: str
    shape: tuple[int, ...]
    face: npt.NDArray[np.uint8] | None = None


class _PlacedBox(NamedTuple):
    """Record of a box of a diagram with its position and size in pixels."""

    box: Box
    left: float
    width: float
    height: float
    depth: float


@dataclass(frozen=True, eq=False, repr=False)
class Diagram(Picture):
    """Picture of the layers of a network as boxes, in the order in which they run.

    `actgrid.diagram` returns a diagram of a model.

    Parameters
    ----------
    boxes : tuple of Box
        One box for each layer output.
    side : int
        Length of the longest side in pixels.
    width : int
        Width in pixels after which a new row starts.
    names : bool
        Whether to write names and shapes under the boxes.
    legend : bool
        Whether to draw a legend of the colours.

    Examples
    --------
    >>> from actgrid.rendering import Box, draw_diagram
    >>> boxes = [Box("image", "Input", (64, 64, 3)), Box("conv", "Conv2D", (32, 32, 16))]
    >>> diagram = draw_diagram(boxes)
    >>> diagram
    <Diagram of 2 boxes>
    >>> diagram.save("network.png")
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
        """Colour of each layer type: name of the type -> (red, green, blue), 0 to 255."""
        colours = palette("tab20")
        types = dict.fromkeys(box.type for box in self.boxes)
        # First the ten saturated colours, then the ten pale ones; then the colours repeat.
        order = [*range(0, _COLOURS, 2), *range(1, _COLOURS, 2)]
        chosen = [
            colours[(order[index % _COLOURS] * 256 + 128) // _COLOURS]
            for index, _ in enumerate(types)
        ]
        return {name: _convert_colour(colour) for name, colour in zip(types, chosen, strict=True)}

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the diagram as RGB pixels.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        colours = self.colours
        parts = [self._draw_row(row, colours) for row in self._iterate_rows()]
        if self.legend:
            parts.append(self._draw_legend(colours))
        width = max(part.width for part in parts)
        height = sum(part.height for part in parts)
        page = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), _BACKGROUND_COLOUR)
        top = _MARGIN
        for part in parts:
            page.paste(part, (_MARGIN, top))
            top += part.height
        return np.asarray(page)

    def _iterate_rows(self) -> Iterator[list[_PlacedBox]]:
        """Yield the rows of the diagram: the boxes of each row with their positions."""
        row: list[_PlacedBox] = []
        left = 0.0
        for box, (width, height, depth) in zip(self.boxes, self._iterate_sizes(), strict=True):
            box_width = max(width + depth, _get_line_height() if self.names else 0)
            if row and left + box_width > self.width:
                yield row
                row, left = [], 0.0
            row.append(_PlacedBox(box, left, width, height, depth))
            left += box_width + _GAP
        yield row

    def _iterate_sizes(self) -> Iterator[tuple[float, float, float]]:
        """Yield the size (width, height, depth) of each box of the diagram in pixels.

        Sizes are proportional to the square roots of the lengths, because lengths may differ by a
        factor of a thousand and small boxes must stay visible.
        """
        shapes = [box.shape for box in self.boxes]
        max_side = max((max(shape[-3:-1]) for shape in shapes if len(shape) > 2), default=1)
        max_slices = max((_count_slices(shape) for shape in shapes if len(shape) > 2), default=1)
        max_steps = max((shape[0] for shape in shapes if len(shape) == 2), default=1)
        max_units = max((shape[-1] for shape in shapes if len(shape) < 3), default=1)

        def length(count: int, max_count: int, max_length: float) -> float:
            return max(_MIN_SIDE, max_length * math.sqrt(count / max(max_count, 1)))

        for shape in shapes:
            if len(shape) > 2:
                height, width = (length(side, max_side, self.side) for side in shape[-3:-1])
                yield width, height, length(_count_slices(shape), max_slices, self.side / 4)
            else:
                width = length(shape[0], max_steps, self.side) if len(shape) == 2 else 2 * _MIN_SIDE
                yield width, length(shape[-1], max_units, self.side), _MIN_SIDE

    def _draw_row(self, row: Sequence[_PlacedBox], colours: Mapping[str, Colour]) -> Image.Image:
        """Draw one row of boxes, vertically centred, and their labels.

        Parameters
        ----------
        row
            The boxes with their positions.
        colours
            Layer type -> colour of its boxes.

        Returns
        -------
        PIL.Image.Image
            Picture of the row.
        """
        top_height = max(placed.height / 2 + placed.depth for placed in row)
        bottom_height = max(placed.height / 2 for placed in row)
        last_box = row[-1]
        labels = [_draw_label(placed.box) for placed in row] if self.names else []
        label_height = max((label.height for label in labels), default=0)
        width = (
            math.ceil(
                max(
                    last_box.left + last_box.width + last_box.depth,
                    last_box.left + _get_line_height(),
                )
            )
            + 1
        )
        height = math.ceil(top_height + bottom_height) + 1

        boxes = Image.new(
            "RGB", (width * _SUPERSAMPLING, height * _SUPERSAMPLING), _BACKGROUND_COLOUR
        )
        draw = ImageDraw.Draw(boxes)
        for placed in row:
            self._draw_box(draw, placed, top_height - placed.height / 2, colours[placed.box.type])
        picture = Image.new(
            "RGB",
            (width, height + (_GAP // 2 + label_height if label_height else 0) + _GAP),
            _BACKGROUND_COLOUR,
        )
        picture.paste(boxes.reduce(_SUPERSAMPLING))
        for placed in row:
            if placed.box.face is not None:
                self._paste_face(picture, placed, placed.box.face, top_height - placed.height / 2)
        for placed, label in zip(row, labels, strict=False):
            position = (round(placed.left + placed.width / 2 - label.width / 2), height + _GAP // 2)
            picture.paste(_TEXT_COLOUR, (max(0, position[0]), position[1]), label)
        return picture

    @staticmethod
    def _draw_box(
        draw: ImageDraw.ImageDraw, placed: _PlacedBox, top: float, colour: Colour
    ) -> None:
        left = placed.left
        right = placed.left + placed.width
        bottom = top + placed.height
        depth = placed.depth
        top_colour, side_colour = (
            _convert_colour(np.multiply(colour, brightness)) for brightness in _FACE_BRIGHTNESS
        )
        faces: list[tuple[Colour, list[Point]]] = [
            (colour, [(left, top), (right, top), (right, bottom), (left, bottom)]),
            (
                top_colour,
                [
                    (left, top),
                    (left + depth, top - depth),
                    (right + depth, top - depth),
                    (right, top),
                ],
            ),
            (
                side_colour,
                [
                    (right, top),
                    (right + depth, top - depth),
                    (right + depth, bottom - depth),
                    (right, bottom),
                ],
            ),
        ]
        for fill, corners in faces:
            scaled = [(x * _SUPERSAMPLING, y * _SUPERSAMPLING) for x, y in corners]
            draw.polygon(scaled, fill=fill, outline=_OUTLINE_COLOUR)

    @staticmethod
    def _paste_face(
        picture: Image.Image, placed: _PlacedBox, face: npt.NDArray[np.uint8], top: float
    ) -> None:
        """Paste a picture on the front of a box in a diagram, inside its outline.

        Parameters
        ----------
        picture
            Picture of the row of boxes, which is changed.
        placed
            The box with its position and size.
        face
            RGB picture to resize to the front of the box.
        top
            Position of the upper edge of the front in pixels.
        """
        left, face_top = math.ceil(placed.left) + 1, math.ceil(top) + 1
        width = math.floor(placed.left + placed.width) - left
        height = math.floor(top + placed.height) - face_top
        image = Image.fromarray(face)
        # Enlarged faces keep their pixels; reduced faces show averages.
        is_reduced = face.shape[1] > width or face.shape[0] > height
        resampling = Image.Resampling.BOX if is_reduced else Image.Resampling.NEAREST
        picture.paste(image.resize((max(1, width), max(1, height)), resampling), (left, face_top))

    def _draw_legend(self, colours: Mapping[str, Colour]) -> Image.Image:
        font, line = _load_font(), _get_line_height()
        widths = [line + math.ceil(font.getlength(name)) + 2 * _GAP for name in colours]
        positions: list[tuple[int, int]] = []
        left = top = 0
        for width in widths:
            if left and left + width > self.width:
                left, top = 0, top + line + _GAP // 2
            positions.append((left, top))
            left += width
        right = max(x + width for (x, _), width in zip(positions, widths, strict=True))
        picture = Image.new("RGB", (right, top + line), _BACKGROUND_COLOUR)
        draw = ImageDraw.Draw(picture)
        for (x, y), (name, colour) in zip(positions, colours.items(), strict=True):
            draw.rectangle((x, y + 1, x + line - 3, y + line - 2), colour, _OUTLINE_COLOUR)
            draw.text((x + line + 3, y), name, fill=_TEXT_COLOUR, font=font)
        return picture


@takes_options(DiagramOptions)
def draw_diagram(boxes: Iterable[Box], **options: Unpack[DiagramOptions]) -> Diagram:
    """Draw boxes as a diagram; see `actgrid.diagram` for models.

    Parameters
    ----------
    boxes : iterable of Box
        The boxes, in order.
    **options
        See `actgrid.options.DiagramOptions`.

    Returns
    -------
    Diagram
        The diagram.

    Raises
    ------
    OptionError
        If there are no boxes, or an option is invalid. Also a ValueError.

    Examples
    --------
    >>> from actgrid.rendering import Box, draw_diagram
    >>> boxes = [Box("image", "Input", (64, 64, 3)), Box("conv", "Conv2D", (32, 32, 16))]
    >>> len(draw_diagram(boxes))
    2
    """
    box_tuple = tuple(boxes)
    if not box_tuple:
        raise OptionError("boxes is empty: there is no box to draw")
    return Diagram(
        box_tuple, options["side"], options["width"], options["names"], options["legend"]
    )


def _count_slices(shape: Sequence[int]) -> int:
    """Return the number of channels of all slices of a layer output.

    The depth of the box in a diagram shows this number.
    """
    return shape[-1] * math.prod(shape[:-3])


def _convert_colour(colour: Iterable[float]) -> Colour:
    red, green, blue = (int(value) for value in colour)
    return red, green, blue


@lru_cache(maxsize=1)
def _load_font() -> Any:
    return ImageFont.load_default(_FONT_SIZE)


def _get_line_height() -> int:
    return sum(_load_font().getmetrics())


def _draw_label(box: Box) -> Image.Image:
    """Draw the name and the output shape of a box as vertical text.

    Returns
    -------
    PIL.Image.Image
        Mask of mode L.
    """
    font = _load_font()
    shape = " " + " x ".join(map(str, box.shape))
    text = shorten_text(box.name, font, _MAX_LABEL_WIDTH - math.ceil(font.getlength(shape))) + shape
    mask = Image.new("L", (math.ceil(font.getlength(text)), _get_line_height()))
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    return mask.transpose(Image.Transpose.ROTATE_90)
