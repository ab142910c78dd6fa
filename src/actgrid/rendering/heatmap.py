"""Attribution maps of images, drawn as overlays, contours or grids."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, SupportsIndex, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError
from actgrid.option_checks import check_integer, check_number, resolve_thread_count
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
from actgrid.rendering.contours import Region, find_band_edges, stroke
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

__all__ = ["Heatmap"]

# Width of contours as a fraction of the shorter side of an image.
_LINE_WIDTH_FRACTION = 1 / 200

# Render options of unsigned maps; those of signed maps are `SIGNED`.
_UNSIGNED_OPTIONS: RenderOptions = {"normalize": "minmax", "cmap": "viridis"}

Colour = str | tuple[int, int, int]


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Heatmap(Picture):
    """Maps of how much each part of an image contributes to a score.

    `actgrid.explain` returns a heatmap; a heatmap can also be made from any array. As a picture it
    is its `overlay`, or the bare maps if there are no images.

    Parameters
    ----------
    values : array_like
        (N, H, W) or (H, W) real numbers: one map for each image, of any size. NaN is drawn as level
        0.
    images : array_like, PIL.Image.Image or list of these, optional
        Images of the maps: uint8 pixels (N, height, width, 3) or (N, height, width, 1), one image
        without N, a Pillow image, or a list of images of one size. A single image is used for all N
        maps.
    boxes : array_like, optional
        (N, 4) int, or (4,) for all maps: the region of the image that a map covers, as top, left,
        bottom and right in pixels. The region may extend beyond the image, as for a photo that was
        padded for the model. None: the whole image.
    target : array_like, optional
        (N,) int: index of the class that each map explains; -1 for a function of the output. None
        if no map explains a class.
    labels : iterable of str, optional
        Names of the N classes or functions.
    score : array_like, optional
        (N,): score of the target of each map.
    signed : bool, optional
        Whether negative values count against the target. None: True if there are negative values.
    method : str, optional
        Name of the attribution method.
    layer : str, optional
        Path of the layer that the method used.
    is_logit : bool, default False
        Whether `score` is a logit: the value before a softmax or sigmoid.
    details : dict, optional
        Further results of the method by name, such as LIME's weights. Arrays, lists and tuples of
        length N have one entry per map.

    Attributes
    ----------
    values
        (N, H, W) float32.
    images
        (N, height, width, 3) uint8, or None.
    boxes
        (N, 4) int64, or None.
    target, labels, score, signed, method, layer, is_logit, details
        The arguments: `target` as int64, `labels` as a tuple, `score` as float32, `details` as a
        dict.

    Raises
    ------
    ShapeError, OptionError
        If an array has the wrong shape, or an option is invalid. Both are ValueErrors.
    DtypeError
        If `values` are not real numbers, or `images` are not uint8. Also a TypeError.

    Examples
    --------
    >>> photo = np.zeros((224, 224, 3), np.uint8)
    >>> heatmap = actgrid.Heatmap(np.random.rand(14, 14), images=photo)
    >>> heatmap.values.shape
    (1, 14, 14)
    >>> heatmap.overlay(alpha=0.7, cmap="inferno").pictures.shape
    (1, 224, 224, 3)
    >>> heatmap.save("heatmap.png")
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
        attributes = {
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
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: SupportsIndex | slice) -> Heatmap:
        """Return a heatmap with one or several of the maps of this heatmap."""
        if isinstance(index, slice):
            rows = index
        else:
            position = range(len(self))[operator.index(index)]
            rows = slice(position, position + 1)
        if not self.values[rows].size:
            raise OptionError(f"{index} selects none of {len(self)} maps")

        def select_entries(entries: Any) -> Any:
            is_sequence = isinstance(entries, (list, tuple)) or np.ndim(entries) > 0
            return entries[rows] if is_sequence and len(entries) == len(self) else entries

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
            details={name: select_entries(entries) for name, entries in self.details.items()},
        )

    def __iter__(self) -> Iterator[Heatmap]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        count, height, width = self.values.shape
        names = [self.method, self.layer, *(self.labels or ())[:3]]
        if self.labels and count > 3:
            names.append("...")
        maps = "1 map" if count == 1 else f"{count} maps"
        return f"<Heatmap {', '.join([f'{maps} of {width} x {height}', *filter(None, names)])}>"

    def replace_images(self, images: object, boxes: object = None) -> Heatmap:
        """Return a heatmap with the same maps and other images.

        Parameters
        ----------
        images : array_like, PIL.Image.Image or list of these
            The images, as in the constructor.
        boxes : array_like, optional
            The regions of the images that the maps cover, as in the constructor.

        Returns
        -------
        Heatmap
            The maps with these images.

        Raises
        ------
        ShapeError, DtypeError
            As in the constructor.

        Examples
        --------
        >>> heatmap = actgrid.Heatmap(np.random.rand(14, 14))
        >>> photo = np.zeros((30, 40, 3), np.uint8)
        >>> heatmap.replace_images(photo).overlay().pictures.shape
        (1, 30, 40, 3)
        """
        arguments = {field.name: getattr(self, field.name) for field in fields(self)}
        return Heatmap(**arguments | {"images": images, "boxes": boxes})

    def resize(
        self, height: int, width: int, *, threads: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the maps of the heatmap, resized bilinearly.

        As in ``tf.image.resize``, pixels are squares, and the outermost values extend to the edges.

        Parameters
        ----------
        height, width : int
            New size of the maps in pixels.
        threads : int, optional
            Maximum number of threads. The result does not depend on this number. None: one thread
            per processor.

        Returns
        -------
        numpy.ndarray
            (N, height, width) float32.

        Raises
        ------
        OptionError
            If a side is not a positive integer. Also a ValueError.
        """
        sides = (check_integer("height", height, 1), check_integer("width", width, 1))
        resized = np.empty((len(self), *sides), np.float32)
        load_backend().resize(self.values, resized, resolve_thread_count(threads))
        return resized

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
            A sheet whose ``pictures`` have the size of the images.

        Raises
        ------
        OptionError
            If there are no images, or an option is invalid. Also a ValueError.

        Notes
        -----
        The colormap extends from the smallest value of a map to the percentile `clip`, so that a
        few outliers do not darken the rest; ``clip=100`` uses the exact range. For signed maps zero
        is in the
        middle of the colormap, and the percentile is that of absolute values.

        Examples
        --------
        >>> photo = np.zeros((30, 40, 3), np.uint8)
        >>> heatmap = actgrid.Heatmap(np.random.rand(14, 14), images=photo)
        >>> heatmap.overlay(alpha=0.7).save("overlay.png")
        """
        overlaid = self._draw_overlays(
            options["alpha"], options["cmap"] or self.cmap, options["clip"], options["threads"]
        )
        return lay_out_sheet(overlaid, columns=options["columns"])

    @takes_options(LevelOptions)
    def levels(self, **options: Unpack[LevelOptions]) -> npt.NDArray[np.uint8]:
        """Return the levels of each map before colour, in the size of its image.

        Parameters
        ----------
        **options
            See `actgrid.options.LevelOptions`.

        Returns
        -------
        numpy.ndarray
            (N, height, width) uint8, as coloured by `overlay`.

        Raises
        ------
        OptionError
            If there are no images, or an option is invalid. Also a ValueError.

        Examples
        --------
        >>> photo = np.zeros((30, 40, 3), np.uint8)
        >>> actgrid.Heatmap(np.random.rand(14, 14), images=photo).levels().shape
        (1, 30, 40)
        """
        return self._draw_overlays(1.0, "gray", options["clip"], options["threads"])[..., 0]

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
        """Draw contour lines of each map over its image.

        Parameters
        ----------
        levels : float or iterable of float, default (0.25, 0.5, 0.75)
            Fractions from 0 to 1 of the range of a map, which `clip` limits as in `overlay`. For
            signed maps, fractions of the largest absolute value, on both sides of zero.
        color : str or tuple of int, default "#ffd000"
            Colour of the lines: a name, ``"#rrggbb"`` or (r, g, b).
        negative_color : str or tuple of int, default "#00a0ff"
            Colour of the lines below zero in signed maps.
        width : int, optional
            Width of the lines in pixels. None: 1/200 of the shorter side of an image.
        **options
            See `actgrid.options.ContourOptions`.

        Returns
        -------
        Sheet
            A sheet whose ``pictures`` have the size of the images.

        Raises
        ------
        OptionError
            If there are no images, or an option is invalid. Also a ValueError.

        Examples
        --------
        >>> photo = np.zeros((30, 40, 3), np.uint8)
        >>> heatmap = actgrid.Heatmap(np.random.rand(14, 14), images=photo)
        >>> heatmap.contours([0.5], color="red").save("contours.png")
        """
        photos, regions = self._require_images(), self._list_regions()
        level_list = levels if isinstance(levels, Iterable) else [levels]
        fractions = [check_number("levels", fraction, 0, 1) for fraction in level_list]
        sides = photos.shape[1:3]
        if width is None:
            width = max(1, round(min(sides) * _LINE_WIDTH_FRACTION))
        width = check_integer("width", width, 1)
        lines = [(1, as_colour("color", color))]
        if self.signed:
            lines.append((-1, as_colour("negative_color", negative_color)))
        stats = self._measure_ranges(options["clip"])
        pictures = photos.copy()
        backend, threads = load_backend(), resolve_thread_count(options["threads"])
        for map_values, low, high, region, picture in zip(
            self.values, stats.min, stats.max, regions, pictures, strict=True
        ):
            values = np.empty(region.sides, np.float32)
            backend.resize(map_values[None], values[None], threads)
            region_slices, image_slices = region.compute_slices(sides)
            for sign, colour in lines:
                bands = np.zeros(region.sides, np.int16)
                for fraction in fractions:
                    bands += sign * values >= low + fraction * (high - low)
                picture[image_slices][stroke(find_band_edges(bands), width)[region_slices]] = colour
        return lay_out_sheet(pictures, columns=options["columns"])

    @takes_options(RenderOptions, normalize=UNSET, cmap=UNSET, background=UNSET)
    def to_grid(self, **options: Unpack[RenderOptions]) -> Grid:
        """Render the bare maps as a grid, one tile per map.

        Parameters
        ----------
        **options
            See `actgrid.options.RenderOptions`. By default `normalize` is ``"minmax"`` and `cmap`
            ``"viridis"``; for signed maps ``"symmetric"`` and ``"RdBu_r"``, whose middle level is
            also the background.

        Returns
        -------
        Grid
            The grid.

        Examples
        --------
        >>> heatmap = actgrid.Heatmap(np.random.rand(14, 14))
        >>> heatmap.to_grid(zoom=8, cmap="gray").levels.shape
        (112, 112)
        """
        render_options: RenderOptions = {**self._render_options, **options}
        return render(self.values, kind="image", data_format="channels_first", **render_options)

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the maps over their images, or the bare maps if there are no images.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        return (self.to_grid() if self.images is None else self.overlay()).to_rgb()

    @property
    def cmap(self) -> str:
        """Name of the default colormap. Signed maps have a diverging colormap."""
        return self._render_options["cmap"]

    def _draw_overlays(
        self, alpha: float, cmap: str, clip: float, threads: int | None
    ) -> npt.NDArray[np.uint8]:
        photos, regions = self._require_images(), self._list_regions()
        colours = palette(cmap)
        backend, threads = load_backend(), resolve_thread_count(threads)
        overlaid = np.empty(photos.shape, np.uint8)
        for values, mapping, photo, region, overlay in zip(
            self.values, self._iterate_mappings(clip), photos, regions, overlaid, strict=True
        ):
            if region == (0, 0, *photo.shape[:2]):
                backend.overlay(values, mapping, colours, photo, alpha, overlay, threads)
                continue
            # Pixels outside the region are darkened, because they are no input of the model.
            overlay[:] = photo * np.float32(1 - alpha) + np.float32(0.5)
            region_slices, image_slices = region.compute_slices(photo.shape[:2])
            region_pixels = np.zeros((*region.sides, 3), np.uint8)
            region_pixels[region_slices] = photo[image_slices]
            region_overlay = np.empty_like(region_pixels)
            backend.overlay(values, mapping, colours, region_pixels, alpha, region_overlay, threads)
            overlay[image_slices] = region_overlay[region_slices]
        return overlaid

    @property
    def _render_options(self) -> RenderOptions:
        return SIGNED if self.signed else _UNSIGNED_OPTIONS

    def _require_images(self) -> npt.NDArray[np.uint8]:
        if self.images is None:
            raise OptionError(
                "there are no images to draw over: give them as Heatmap(values, images=...), "
                "or draw the bare maps with to_grid()"
            )
        return self.images

    def _list_regions(self) -> list[Region]:
        if self.boxes is None:
            return [Region(0, 0, *self._require_images().shape[1:3])] * len(self)
        return [Region(*map(int, box)) for box in self.boxes]

    def _measure_ranges(self, clip: float) -> ChannelStats:
        """Return the statistics of each map, with the range of values that is drawn.

        Parameters
        ----------
        clip
            Percentile of the values that is the upper end of the range.

        Returns
        -------
        ChannelStats
            `min` and `max` are the ends of the range. For signed maps, all statistics are those of
            absolute values.
        """
        backend = load_backend()
        tiles = (np.abs(self.values) if self.signed else self.values)[:, None]
        stats = backend.measure(tiles, 1)
        _, high = backend.percentiles(tiles, (0, clip), False, 1)
        low = np.zeros_like(high) if self.signed else stats.min
        # If nearly all values are the smallest, the percentile is too: use the largest value.
        return replace(stats, min=low, max=np.where(high > low, high, stats.max))

    @np.errstate(divide="ignore", over="ignore", invalid="ignore")
    def _iterate_mappings(self, clip: float) -> Iterator[Mapping]:
        """Return an iterator over the conversion of each map from values to levels.

        Parameters
        ----------
        clip
            Percentile of the values that becomes the highest level.

        Returns
        -------
        iterator of Mapping
            One for each map.
        """
        stats = self._measure_ranges(clip)
        normalization = parse_normalize(self._render_options["normalize"])
        terms = normalization.compute_terms(stats, stats.min, stats.max, np.float32)
        return (Mapping(*entry) for entry in zip(*terms, strict=True))
