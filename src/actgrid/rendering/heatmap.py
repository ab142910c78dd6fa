"""Heatmaps: how much each part of an image matters, drawn over it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageOps

from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.option_types import integer_option, number_option, thread_count
from actgrid.rendering.backends import load_backend
from actgrid.rendering.colormaps import palette
from actgrid.rendering.draw import SIGNED, render
from actgrid.rendering.grid import Grid
from actgrid.rendering.layout import level_option
from actgrid.rendering.normalize import Mapping, parse_normalize
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import Sheet, lay_out_sheet
from actgrid.rendering.stats import ChannelStats
from actgrid.rendering.tiles import as_array

__all__ = ["Heatmap", "check_overlay"]

# The width of contours beside the shorter side of an image.
_LINE_SHARE = 1 / 200

# How maps without a sign are drawn, those with one being `SIGNED`.
_UNSIGNED = {"normalize": "minmax", "cmap": "viridis"}

Colour = str | tuple[int, int, int]


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Heatmap(Picture):
    """Maps of how much each part of some images matters, and ways to draw them.

    `actgrid.explain` returns one; any array draws as well. Saved, or shown by a notebook, it is
    its `overlay`, or the bare maps where there are no images.

    Parameters
    ----------
    values
        (N, H, W) or (H, W) real numbers: a map for each image, of any size. NaN draws as level 0.
    images
        What the maps are of: uint8 pixels (N, height, width, 3) or (N, height, width, 1), those of
        one image without N, a Pillow image, or a list of images of one size. One image may stand
        for all N.
    boxes
        (N, 4) int, or (4,) for all: the part of each image that its map covers, as top, left,
        bottom and right in pixels. It may reach beyond the image, as where a photo was padded for
        the model. None: the whole image.
    target
        (N,) int: the index of the class that each map explains, -1 for a function beside classes;
        None if no map explains a class.
    labels
        The names of those N classes, or of functions beside them.
    score
        (N,): what the target scored.
    signed
        Whether values below zero speak against the target; None: whether there are any.
    method, layer
        Names of the method and of the layer it looked at.
    is_logit
        Whether `score` is a logit: the value before a softmax or sigmoid.
    details
        Further results of the method by name, such as LIME's weights. Arrays, lists and tuples of
        length N have an entry for each map.

    Attributes
    ----------
    values
        (N, H, W) float32.
    images
        (N, height, width, 3) uint8, or None.
    boxes
        (N, 4) int64, or None.
    target, labels, score, signed, method, layer, is_logit, details
        As given: `target` int64, `labels` a tuple, `score` float32, `details` a dict.

    Raises
    ------
    ShapeError, OptionError
        If an array has not the shape it must have, or an option cannot be used. Both are
        ValueErrors.
    DtypeError
        If `values` are not real numbers or `images` not uint8. Also a TypeError.

    Examples
    --------
    >>> photo = Image.open("cat.jpg")
    >>> heatmap = actgrid.Heatmap(np.random.rand(14, 14), images=photo)
    >>> heatmap.values.shape
    (1, 14, 14)
    >>> heatmap.save("cat-heatmap.png")
    >>> heatmap.overlay(alpha=0.7, cmap="inferno").save("cat-inferno.png")
    """

    values: npt.NDArray[np.float32]
    images: npt.NDArray[np.uint8] | None
    boxes: npt.NDArray[np.int64] | None
    target: npt.NDArray[np.int64] | None
    labels: tuple[str, ...] | None
    score: npt.NDArray[np.float32] | None
    signed: bool
    method: str | None
    layer: str | None
    is_logit: bool
    details: dict[str, Any]

    def __init__(
        self,
        values: object,
        *,
        images: object = None,
        boxes: object = None,
        target: object = None,
        labels: Iterable[str] | None = None,
        score: object = None,
        signed: bool | None = None,
        method: str | None = None,
        layer: str | None = None,
        is_logit: bool = False,
        details: dict[str, Any] | None = None,
    ) -> None:
        maps = _maps(values)
        count = len(maps)
        given = {
            "values": maps,
            "images": None if images is None else _photos(images, count),
            "boxes": None if boxes is None else _boxes(boxes, count),
            "target": _entries("target", target, count, "iu", np.int64),
            "labels": _labels(labels, count),
            "score": _entries("score", score, count, "fiub", np.float32),
            "signed": bool((maps < 0).any()) if signed is None else bool(signed),
            "method": method,
            "layer": layer,
            "is_logit": bool(is_logit),
            "details": dict(details or {}),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int | slice) -> Heatmap:
        """Return one of the maps, or several, as a heatmap of its own."""
        if isinstance(index, slice):
            rows = index
        else:
            place = range(len(self))[operator.index(index)]
            rows = slice(place, place + 1)
        if not self.values[rows].size:
            raise OptionError(f"{index} takes none of {len(self)} maps")

        def taken(entries: Any) -> Any:
            several = isinstance(entries, (list, tuple)) or np.ndim(entries) > 0
            return entries[rows] if several and len(entries) == len(self) else entries

        return Heatmap(
            self.values[rows],
            images=None if self.images is None else self.images[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
            target=None if self.target is None else self.target[rows],
            labels=None if self.labels is None else self.labels[rows],
            score=None if self.score is None else self.score[rows],
            signed=self.signed,
            method=self.method,
            layer=self.layer,
            is_logit=self.is_logit,
            details={name: taken(entries) for name, entries in self.details.items()},
        )

    def __iter__(self) -> Iterator[Heatmap]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        count, height, width = self.values.shape
        known = [self.method, self.layer, *(self.labels or ())[:3]]
        if self.labels and count > 3:
            known.append("...")
        maps = "1 map" if count == 1 else f"{count} maps"
        return f"<Heatmap {', '.join([f'{maps} of {width} x {height}', *filter(None, known)])}>"

    def over(self, images: object, boxes: object = None) -> Heatmap:
        """Return the same maps over other images.

        Parameters
        ----------
        images, boxes
            As for the class.

        Raises
        ------
        ShapeError, DtypeError
            As for the class.

        Examples
        --------
        >>> heatmap.over(Image.open("cat.jpg")).save("cat-heatmap.png")
        """
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return Heatmap(**given | {"images": images, "boxes": boxes})

    def resized(
        self, height: int, width: int, *, threads: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the maps in another size, (N, height, width) float32, resized bilinearly.

        Pixels are squares, and the outermost values reach to the edges, as in
        ``tf.image.resize``.

        Parameters
        ----------
        threads
            At most this many; None: one for each processor. The result does not depend on it.

        Raises
        ------
        OptionError
            If a side is not a positive integer. Also a ValueError.
        """
        sides = (integer_option("height", height, 1), integer_option("width", width, 1))
        found = np.empty((len(self), *sides), np.float32)
        load_backend().resize(self.values, found, thread_count(threads))
        return found

    def overlay(
        self,
        alpha: float = 0.5,
        cmap: str | None = None,
        *,
        clip: float = 99,
        columns: int | None = None,
        threads: int | None = None,
    ) -> Sheet:
        """Draw each map in colour over its image.

        Parameters
        ----------
        alpha
            How much of the colours is seen: 0 leaves the image, 1 hides it.
        cmap
            Name of a colormap; None: ``"viridis"``, or ``"RdBu_r"`` for signed maps.
        clip
            The percentile of each map that is drawn as its largest value, so that a few outliers
            do not darken all the rest; 100 draws the exact range. The colormap goes from the
            smallest value to that; for signed maps zero is in its middle, and the percentile is
            that of absolute values.
        columns
            Pictures in a row; None: as many as bring the sheet nearest to square.
        threads
            At most this many; None: one for each processor. The picture does not depend on it.

        Returns
        -------
        Sheet
            Its ``pictures`` are as large as the images.

        Raises
        ------
        OptionError
            If there are no images, or an option cannot be used. Also a ValueError.

        Examples
        --------
        >>> heatmap.overlay(alpha=0.7).save("overlay.png")
        """
        alpha = number_option("alpha", alpha, 0, 1)
        overlaid = self._overlaid(alpha, self.cmap if cmap is None else cmap, clip, threads)
        return lay_out_sheet(overlaid, columns=columns)

    def levels(self, *, clip: float = 99, threads: int | None = None) -> npt.NDArray[np.uint8]:
        """Return each map as `overlay` draws it before colour, in the size of its image.

        Parameters
        ----------
        clip, threads
            As in `overlay`.

        Returns
        -------
        numpy.ndarray
            (N, height, width) uint8.

        Raises
        ------
        OptionError
            If there are no images, or an option cannot be used. Also a ValueError.

        Examples
        --------
        >>> heatmap.levels().shape
        (1, 224, 224)
        """
        return self._overlaid(1.0, "gray", clip, threads)[..., 0]

    def contours(
        self,
        levels: Iterable[float] | float = (0.25, 0.5, 0.75),
        color: Colour = "#ffd000",
        negative_color: Colour = "#00a0ff",
        *,
        width: int | None = None,
        clip: float = 99,
        columns: int | None = None,
        threads: int | None = None,
    ) -> Sheet:
        """Draw lines over each image where its map crosses some shares of its range.

        Parameters
        ----------
        levels
            Shares, or one, between 0 and 1, of the range that `clip` leaves, as in `overlay`. For
            signed maps they are shares of the largest absolute value, on either side of zero.
        color, negative_color
            Of lines, and of those below zero in signed maps: a name, ``"#rrggbb"`` or (r, g, b).
        width
            Of lines, in pixels; None: a 200th of an image's shorter side.
        clip, columns, threads
            As in `overlay`.

        Returns
        -------
        Sheet
            Its ``pictures`` are as large as the images.

        Raises
        ------
        OptionError
            If there are no images, or an option cannot be used. Also a ValueError.

        Examples
        --------
        >>> heatmap.contours([0.5], color="red").save("contours.png")
        """
        photos, boxes = self._images(), self._boxes()
        given = levels if isinstance(levels, Iterable) else [levels]
        shares = [number_option("levels", share, 0, 1) for share in given]
        sides = photos.shape[1:3]
        if width is None:
            width = max(1, round(min(sides) * _LINE_SHARE))
        width = integer_option("width", width, 1)
        lines = [(1, _colour("color", color))]
        if self.signed:
            lines.append((-1, _colour("negative_color", negative_color)))
        stats = self._measured(clip)
        drawn = photos.copy()
        draw, threads = load_backend(), thread_count(threads)
        for one, low, high, box, picture in zip(
            self.values, stats.min, stats.max, boxes, drawn, strict=True
        ):
            values = np.empty(box.sides, np.float32)
            draw.resize(one[None], values[None], threads)
            inside, outside = box.slices(sides)
            for sign, colour in lines:
                bands = np.zeros(box.sides, np.int16)
                for share in shares:
                    bands += sign * values >= low + share * (high - low)
                picture[outside][_stroked(_edges(bands), width)[inside]] = colour
        return lay_out_sheet(drawn, columns=columns)

    def to_grid(self, **render_options: Any) -> Grid:
        """Draw the bare maps by `actgrid.render`, a tile for each.

        Parameters
        ----------
        render_options
            Those of `actgrid.render`. Unless given, `normalize` is ``"minmax"`` and `cmap`
            ``"viridis"``; for signed maps ``"symmetric"`` and ``"RdBu_r"``, on its middle.

        Examples
        --------
        >>> heatmap.to_grid(zoom=8, cmap="gray").save("maps.png")
        """
        options = self._drawing | render_options
        return render(self.values, kind="image", data_format="channels_first", **options)

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Return the overlay, or the bare maps if there are no images: (height, width, 3) uint8."""
        return (self.to_grid() if self.images is None else self.overlay()).to_rgb()

    @property
    def cmap(self) -> str:
        """Name of the colormap that suits the maps: a diverging one if they are signed."""
        return str(self._drawing["cmap"])

    def _overlaid(
        self, alpha: float, cmap: str, clip: float, threads: int | None
    ) -> npt.NDArray[np.uint8]:
        photos, boxes = self._images(), self._boxes()
        colours = palette(cmap)
        draw, threads = load_backend(), thread_count(threads)
        overlaid = np.empty(photos.shape, np.uint8)
        for values, mapping, photo, box, out in zip(
            self.values, self._mappings(clip), photos, boxes, overlaid, strict=True
        ):
            if box == (0, 0, *photo.shape[:2]):
                draw.overlay(values, mapping, colours, photo, alpha, out, threads)
                continue
            # What the map does not cover is darkened: the model did not see it.
            out[:] = photo * np.float32(1 - alpha) + np.float32(0.5)
            inside, outside = box.slices(photo.shape[:2])
            under = np.zeros((*box.sides, 3), np.uint8)
            under[inside] = photo[outside]
            part = np.empty_like(under)
            draw.overlay(values, mapping, colours, under, alpha, part, threads)
            out[outside] = part[inside]
        return overlaid

    @property
    def _drawing(self) -> dict[str, Any]:
        return SIGNED if self.signed else _UNSIGNED

    def _images(self) -> npt.NDArray[np.uint8]:
        if self.images is None:
            raise OptionError(
                "there are no images to draw over: give them as Heatmap(values, images=...), "
                "or draw the bare maps by to_grid()"
            )
        return self.images

    def _boxes(self) -> list[_Box]:
        if self.boxes is None:
            return [_Box(0, 0, *self._images().shape[1:3])] * len(self)
        return [_Box(*map(int, box)) for box in self.boxes]

    def _measured(self, clip: float) -> ChannelStats:
        """Return the statistics of each map, (N, 1), with the ends of what is drawn as extremes.

        Of signed maps they are those of absolute values.
        """
        draw, clip = load_backend(), number_option("clip", clip, 0, 100)
        tiles = (np.abs(self.values) if self.signed else self.values)[:, None]
        stats = draw.measure(tiles, 1)
        _, high = draw.percentiles(tiles, (0, clip), False, 1)
        low = np.zeros_like(high) if self.signed else stats.min
        # Where next to all values are the smallest, the few others are what there is to see.
        return replace(stats, min=low, max=np.where(high > low, high, stats.max))

    @np.errstate(divide="ignore", over="ignore", invalid="ignore")
    def _mappings(self, clip: float) -> Iterator[Mapping]:
        """Yield how the values of each map become levels."""
        stats = self._measured(clip)
        normalization = parse_normalize(self._drawing["normalize"])
        terms = normalization.terms(stats, stats.min, stats.max, np.float32)
        return (Mapping(*one) for one in zip(*terms, strict=True))


class _Box(NamedTuple):
    """The part of an image that a map covers, which may reach beyond the image."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def slices(self, sides: tuple[int, int]) -> tuple[Any, Any]:
        """Return the pixels in both box and image: in the box, and in an image of these sides."""
        ends = ((self.top, self.bottom, sides[0]), (self.left, self.right, sides[1]))
        starts = [(max(low, 0), min(high, side), low) for low, high, side in ends]
        inside = tuple(slice(first - low, last - low) for first, last, low in starts)
        return inside, tuple(slice(first, last) for first, last, _ in starts)


def check_overlay(alpha: float, cmap: str | None, clip: float) -> None:
    """Raise what `Heatmap.overlay` would raise for these options whatever the map."""
    one = Heatmap(np.zeros((1, 1)), images=np.zeros((1, 1, 3), np.uint8))
    one.overlay(alpha, cmap, clip=clip)


def _maps(values: object) -> npt.NDArray[np.float32]:
    array = as_array(values)
    maps = array[None] if array.ndim == 2 else array
    if maps.ndim != 3 or maps.size == 0:
        raise ShapeError(
            f"values must be (N, height, width) or (height, width) and not empty, not {array.shape}"
        )
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(maps, np.float32)


def _photos(images: object, count: int) -> npt.NDArray[np.uint8]:
    """Return RGB pixels for so many maps."""
    photos = _pixels(images)
    if len(photos) not in (1, count):
        raise ShapeError(f"{len(photos)} images were given for {count} maps")
    return np.broadcast_to(photos, (count, *photos.shape[1:]))


def _pixels(images: Any) -> npt.NDArray[np.uint8]:
    """Return images as (N, height, width, 3)."""
    if isinstance(images, (list, tuple)):
        parts = [_pixels(image) for image in images]
        if len({part.shape[1:] for part in parts}) != 1:
            raise ShapeError("images must be of one size, and at least one")
        return np.concatenate(parts)
    if isinstance(images, Image.Image):
        images = ImageOps.exif_transpose(images).convert("RGB")
    array = np.asarray(images)
    pixels = array[..., None] if array.ndim == 2 else array
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or pixels.size == 0:
        raise ShapeError(
            "images must be (N, height, width, 3) or (N, height, width, 1), or one image without "
            f"N, not {array.shape}"
        )
    if pixels.dtype != np.uint8:
        raise DtypeError(
            f"images must be uint8 pixels, 0 to 255, not {pixels.dtype}; of floats from 0 to 1 "
            "(images * 255).astype('uint8') makes them"
        )
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))


def _boxes(boxes: Any, count: int) -> npt.NDArray[np.int64]:
    array = np.asarray(boxes)
    if array.dtype.kind not in "iu":
        raise DtypeError(f"boxes must be whole pixels, not of {array.dtype}")
    if array.shape not in ((4,), (count, 4)):
        raise ShapeError(f"boxes must be (4,) or ({count}, 4), not {array.shape}")
    array = np.broadcast_to(array.astype(np.int64), (count, 4))
    if (array[:, :2] >= array[:, 2:]).any():
        raise OptionError(f"boxes must be top, left, bottom and right of pixels, not {boxes!r}")
    return array


def _entries(name: str, given: object, count: int, kinds: str, dtype: type[Any]) -> Any:
    """Return one number for each map, or None if there are none."""
    if given is None:
        return None
    numbers = np.atleast_1d(np.asarray(given))
    if numbers.dtype.kind not in kinds:
        wanted = "class indices" if "f" not in kinds else "numbers"
        raise DtypeError(f"{name} must be {wanted}, not of {numbers.dtype}")
    if numbers.shape != (count,):
        raise ShapeError(f"{name} must be ({count},), one for each map, not {numbers.shape}")
    return numbers.astype(dtype)


def _labels(labels: Any, count: int) -> tuple[str, ...] | None:
    if labels is None:
        return None
    names = (labels,) if isinstance(labels, str) else tuple(labels)
    if len(names) != count or not all(isinstance(name, str) for name in names):
        raise OptionError(f"labels must be {count} names, one for each map, not {labels!r}")
    return names


def _colour(name: str, value: Any) -> tuple[int, ...]:
    try:
        if isinstance(value, str):
            return ImageColor.getrgb(value)[:3]
        red, green, blue = (level_option(name, component) for component in value)
        return red, green, blue
    except (TypeError, ValueError):
        raise OptionError(
            f"{name} must be the name of a colour, '#rrggbb' or (r, g, b), not {value!r}"
        ) from None


def _edges(bands: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which pixels are of another band than the one below or to the right."""
    edges = np.zeros(bands.shape, np.bool_)
    edges[:-1] |= bands[:-1] != bands[1:]
    edges[:, :-1] |= bands[:, :-1] != bands[:, 1:]
    return edges


def _stroked(edges: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.bool_]:
    """Return the pixels of lines of this width along edges: a disc around each pixel there."""
    offsets = np.arange(width)
    from_middle = (offsets - (width - 1) / 2) ** 2
    disc = np.argwhere(from_middle[:, None] + from_middle <= (width / 2) ** 2) - (width - 1) // 2
    y, x = np.nonzero(edges)
    stroked = np.zeros_like(edges)
    height, across = edges.shape
    for down, right in disc:
        stroked[np.clip(y + down, 0, height - 1), np.clip(x + right, 0, across - 1)] = True
    return stroked
