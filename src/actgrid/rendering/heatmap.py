"""Attribution maps of images, drawn as overlays, contours or grids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError
from actgrid.option_checks import check_integer, check_number, resolve_thread_count
from actgrid.option_groups import UNSET, takes_options
from actgrid.options import ContourOptions, LevelOptions, RenderOptions
from actgrid.rendering.attribution import Attribution, measure_ranges, resize_maps
from actgrid.rendering.backends import load_backend
from actgrid.rendering.colormaps import palette
from actgrid.rendering.contours import Region, find_band_edges, stroke
from actgrid.rendering.draw import render
from actgrid.rendering.grid import Grid
from actgrid.rendering.heatmap_inputs import as_boxes, as_colour, as_maps, as_photos
from actgrid.rendering.sheet import Sheet, lay_out_sheet

__all__ = ["Heatmap"]

# Width of contours as a fraction of the shorter side of an image.
_LINE_WIDTH_FRACTION = 1 / 200

Colour = str | tuple[int, int, int]


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Heatmap(Attribution):
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

    images: npt.NDArray[np.uint8] | None
    boxes: npt.NDArray[np.int64] | None

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
        super().__init__(
            maps,
            ("height", "width"),
            target=target,
            labels=labels,
            score=score,
            signed=signed,
            method=method,
            layer=layer,
            is_logit=is_logit,
            details=details,
        )
        self._set(
            images=None if images is None else as_photos(images, len(maps)),
            boxes=None if boxes is None else as_boxes(boxes, len(maps)),
        )

    def _get_arguments(self) -> dict[str, Any]:
        arguments = super()._get_arguments()
        for name in ("axes", "inputs", "names"):  # always the same
            del arguments[name]
        return arguments

    def _describe_size(self) -> str:
        height, width = self.values.shape[1:]
        return f"{width} x {height}"

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
        return Heatmap(**self._get_arguments() | {"images": images, "boxes": boxes})

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
        return resize_maps(self.values, *sides, resolve_thread_count(threads))

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
        threads = resolve_thread_count(options["threads"])
        return self._draw_pictures(1.0, "gray", options["clip"], threads)[..., 0]

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
        stats = measure_ranges(self.values, self.signed, options["clip"])
        pictures = photos.copy()
        threads = resolve_thread_count(options["threads"])
        for map_values, low, high, region, picture in zip(
            self.values, stats.min, stats.max, regions, pictures, strict=True
        ):
            (values,) = resize_maps(map_values[None], *region.sides, threads)
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

    def _draw_pictures(
        self, alpha: float, cmap: str, clip: float, threads: int
    ) -> npt.NDArray[np.uint8]:
        photos, regions = self._require_images(), self._list_regions()
        colours, backend = palette(cmap), load_backend()
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

    def _draw_input_pictures(self) -> npt.NDArray[np.uint8]:
        return self._require_images()

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
