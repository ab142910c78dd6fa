"""Heatmaps: how much each part of an image matters, drawn over it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError
from actgrid.option_checks import integer_option, number_option, thread_count
from actgrid.option_groups import UNSET, takes_options
from actgrid.options import (
    SIGNED,
    ContourOptions,
    HeatmapOptions,
    LevelOptions,
    RenderOptions,
)
from actgrid.rendering.backends import load_backend
from actgrid.rendering.colormaps import palette
from actgrid.rendering.contours import Region, band_edges, stroke
from actgrid.rendering.draw import render
from actgrid.rendering.grid import Grid
from actgrid.rendering.heatmap_inputs import (
    as_boxes,
    as_colour,
    as_entries,
    as_labels,
    as_maps,
    as_photos,
)
from actgrid.rendering.normalize import Mapping, parse_normalize
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import Sheet, lay_out_sheet
from actgrid.rendering.stats import ChannelStats

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Heatmap"]

# The width of contours beside the shorter side of an image.
_LINE_SHARE = 1 / 200

# How maps without a sign are drawn, those with one being `SIGNED`.
_UNSIGNED: RenderOptions = {"normalize": "minmax", "cmap": "viridis"}

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
        maps = as_maps(values)
        count = len(maps)
        given = {
            "values": maps,
            "images": None if images is None else as_photos(images, count),
            "boxes": None if boxes is None else as_boxes(boxes, count),
            "target": as_entries("target", target, count, "iu", np.int64),
            "labels": as_labels(labels, count),
            "score": as_entries("score", score, count, "fiub", np.float32),
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

    @takes_options(HeatmapOptions)
    def overlay(self, **options: Unpack[HeatmapOptions]) -> Sheet:
        """Draw each map in colour over its image.

        Parameters
        ----------
        **options
            See `actgrid.options.HeatmapOptions`.

        Returns
        -------
        Sheet
            Its ``pictures`` are as large as the images.

        Raises
        ------
        OptionError
            If there are no images, or an option cannot be used. Also a ValueError.

        Notes
        -----
        The colormap goes from the smallest value of a map to the percentile `clip`, so that a few
        outliers do not darken all the rest; ``clip=100`` draws the exact range. For signed maps
        zero is in the middle of the colormap, and the percentile is that of absolute values.

        Examples
        --------
        >>> heatmap.overlay(alpha=0.7).save("overlay.png")
        """
        overlaid = self._overlaid(
            options["alpha"], options["cmap"] or self.cmap, options["clip"], options["threads"]
        )
        return lay_out_sheet(overlaid, columns=options["columns"])

    @takes_options(LevelOptions)
    def levels(self, **options: Unpack[LevelOptions]) -> npt.NDArray[np.uint8]:
        """Return each map as `overlay` draws it before colour, in the size of its image.

        Parameters
        ----------
        **options
            See `actgrid.options.LevelOptions`.

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
        return self._overlaid(1.0, "gray", options["clip"], options["threads"])[..., 0]

    @takes_options(ContourOptions)
    def contours(
        self,
        levels: Iterable[float] | float = (0.25, 0.5, 0.75),
        color: Colour = "#ffd000",
        negative_color: Colour = "#00a0ff",
        *,
        width: int | None = None,
        **options: Unpack[ContourOptions],
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
        **options
            See `actgrid.options.ContourOptions`.

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
        photos, boxes = self._images(), self._regions()
        given = levels if isinstance(levels, Iterable) else [levels]
        shares = [number_option("levels", share, 0, 1) for share in given]
        sides = photos.shape[1:3]
        if width is None:
            width = max(1, round(min(sides) * _LINE_SHARE))
        width = integer_option("width", width, 1)
        lines = [(1, as_colour("color", color))]
        if self.signed:
            lines.append((-1, as_colour("negative_color", negative_color)))
        stats = self._measured(options["clip"])
        drawn = photos.copy()
        draw, threads = load_backend(), thread_count(options["threads"])
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
                picture[outside][stroke(band_edges(bands), width)[inside]] = colour
        return lay_out_sheet(drawn, columns=options["columns"])

    @takes_options(RenderOptions, normalize=UNSET, cmap=UNSET, background=UNSET)
    def to_grid(self, **options: Unpack[RenderOptions]) -> Grid:
        """Draw the bare maps by `actgrid.render`, a tile for each.

        Parameters
        ----------
        **options
            See `actgrid.options.RenderOptions`. By default `normalize` is ``"minmax"`` and `cmap`
            ``"viridis"``; for signed maps ``"symmetric"`` and ``"RdBu_r"``, on its middle.

        Examples
        --------
        >>> heatmap.to_grid(zoom=8, cmap="gray").save("maps.png")
        """
        given: RenderOptions = {**self._drawing, **options}
        return render(self.values, kind="image", data_format="channels_first", **given)

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Return the overlay, or the bare maps if there are no images: (height, width, 3) uint8."""
        return (self.to_grid() if self.images is None else self.overlay()).to_rgb()

    @property
    def cmap(self) -> str:
        """Name of the colormap that suits the maps: a diverging one if they are signed."""
        return self._drawing["cmap"]

    def _overlaid(
        self, alpha: float, cmap: str, clip: float, threads: int | None
    ) -> npt.NDArray[np.uint8]:
        photos, boxes = self._images(), self._regions()
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
    def _drawing(self) -> RenderOptions:
        return SIGNED if self.signed else _UNSIGNED

    def _images(self) -> npt.NDArray[np.uint8]:
        if self.images is None:
            raise OptionError(
                "there are no images to draw over: give them as Heatmap(values, images=...), "
                "or draw the bare maps by to_grid()"
            )
        return self.images

    def _regions(self) -> list[Region]:
        if self.boxes is None:
            return [Region(0, 0, *self._images().shape[1:3])] * len(self)
        return [Region(*map(int, box)) for box in self.boxes]

    def _measured(self, clip: float) -> ChannelStats:
        """Return the statistics of each map, (N, 1), with the ends of what is drawn as extremes.

        Of signed maps they are those of absolute values.
        """
        draw = load_backend()
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
