"""The images that excite channels most: patches of what each channel sees of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.attribution.backdrops import as_pictures
from actgrid.figures.grids import batch_size as batch_of
from actgrid.models import Extractor, LayerInfo
from actgrid.models.drawing import draw_layer
from actgrid.models.inputs import batch_shape, join_batches
from actgrid.models.receptive_fields import Box, ReceptiveField
from actgrid.option_checks import integer_option
from actgrid.option_groups import check_option, complete_options
from actgrid.options import GridOptions, TileLevelOptions
from actgrid.rendering import Grid
from actgrid.rendering.colormaps import palette
from actgrid.rendering.sheet import Sheet, lay_out_sheet
from actgrid.statistics.dataset import DatasetStats
from actgrid.statistics.layer_stats import LayerStats, TopImage

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TopImages", "find_top_images"]

Array = npt.NDArray[Any]
Pictures = npt.NDArray[np.uint8]
# Returns an image's pixels, (H, W, C), and the batch of one that the model takes; None where it
# cannot be had again.
Load = Callable[[int], "tuple[Array, Array] | None"]


@dataclass(frozen=True, eq=False, repr=False)
class TopImages:
    """What excites some channels of a layer most. Made by `find_top_images`.

    Attributes
    ----------
    info
        The layer.
    channels
        (n,) int: the channels.
    images
        For each of them, the images that excite it most, the one that does most first.
    tiles
        (n, cell, cell, 3) uint8: the channel, drawn for the first of its images.
    patches
        (n, top, cell, cell, 3) uint8: what the channel sees of each image where it is largest.
    missing
        (n, top) bool: which images could not be had again. Their patches are blank, as are those
        where a channel has fewer images.
    """

    info: LayerInfo
    channels: npt.NDArray[np.intp]
    images: tuple[tuple[TopImage, ...], ...]
    tiles: Pictures
    patches: Pictures
    missing: npt.NDArray[np.bool_]

    def __repr__(self) -> str:
        return f"<TopImages {self.info.path}, {self.channels.size} channels>"

    def sheet(self) -> Sheet:
        """Return the pictures of all channels: a row for each, its tile first."""
        count, top, side = self.patches.shape[:3]
        rows = np.concatenate([self.tiles[:, None], self.patches], 1)
        captions = []
        for channel, images in zip(self.channels, self.images, strict=True):
            under = [f"{image.maximum:.3g} {Path(image.name).stem}" for image in images]
            captions += [f"channel {channel}", *under, *[""] * (top - len(images))]
        return lay_out_sheet(
            rows.reshape(count * (1 + top), side, side, 3),
            columns=1 + top,
            captions=captions,
        )


def find_top_images(
    extractor: Extractor,
    stats: DatasetStats,
    load: Load,
    fields: Mapping[str, ReceptiveField | None],
    *,
    channels: int | None = 8,
    cell: int = 64,
    background: int = 200,
    batch_size: int = 8,
    **render_options: Unpack[TileLevelOptions],
) -> dict[str, TopImages]:
    """Cut the patches that excite channels most out of their images, and draw these channels.

    Each image is loaded once, in the order of their indices, and the model run on those for which
    a channel is drawn.

    Parameters
    ----------
    extractor
        Of the layers that the statistics are of.
    stats
        The statistics.
    load
        Returns for an image's index its pixels, (H, W, C) as the model saw them, and the model's
        input, a batch of one; or None where it cannot be had again.
    fields
        By layer path, see `receptive_fields`. Where there is none, the whole image is shown.
    channels
        How many channels of each layer: those with the largest maxima. None: all but dead ones.
    cell
        Side of each picture, in pixels.
    background
        Level of what is blank: beyond an image's edges, and beside what is not square.
    batch_size
        Images in one run of the model.
    render_options
        Normalization and colormap of the tiles, see `actgrid.options.TileLevelOptions`.

    Returns
    -------
    dict
        Layer path -> TopImages, for layers that have channels which are not dead.

    Raises
    ------
    OptionError
        If an option cannot be used. Also a ValueError.
    """
    cell = integer_option("cell", cell, 8)
    batch_size = integer_option("batch_size", batch_size, 1)
    background = check_option(GridOptions, "background", background)
    if channels is not None:
        integer_option("channels", channels, 1)
    known = stats.layers
    found = {
        path: _blank(layer, chosen, stats.top, cell, background)
        for path, layer in known.items()
        if (chosen := _most_excited(layer, channels)).size
    }
    options = complete_options(TileLevelOptions, render_options)
    drawer = _Drawer(extractor, found, cell, background, batch_size, options)
    for index, uses in _uses(found):
        image = load(index)
        if image is None:
            for path, row, rank in uses:
                found[path].missing[row, rank] = True
            continue
        pixels, x = image
        picture = _picture(pixels)
        for path, row, rank in uses:
            top = found[path].images[row][rank]
            patch = _cut(picture, _window(fields.get(path), top.place, picture), background)
            found[path].patches[row, rank] = _fitted(patch, cell, background)
        drawer.add(x, [(path, row) for path, row, rank in uses if rank == 0])
    drawer.draw()
    return found


def _most_excited(layer: LayerStats, count: int | None) -> npt.NDArray[np.intp]:
    """Return so many channels, those with the largest maxima first, without those that are dead."""
    order = np.argsort(-layer.top_max[:, 0], kind="stable")
    alive = ~layer.dead & (layer.top_index[:, 0] >= 0)
    return order[alive[order]][:count]


def _blank(
    layer: LayerStats, channels: npt.NDArray[np.intp], top: int, cell: int, background: int
) -> TopImages:
    shape = (channels.size, top, cell, cell, 3)
    patches = np.full(shape, background, np.uint8)
    return TopImages(
        info=layer.info,
        channels=channels,
        images=tuple(tuple(layer.top(int(channel))) for channel in channels),
        tiles=patches[:, 0].copy(),
        patches=patches,
        missing=np.zeros(shape[:2], bool),
    )


def _uses(found: Mapping[str, TopImages]) -> Iterator[tuple[int, list[tuple[str, int, int]]]]:
    """Yield each image's index, in order, and where it is shown: path, row and rank."""
    uses: dict[int, list[tuple[str, int, int]]] = {}
    for path, top in found.items():
        for row, images in enumerate(top.images):
            for rank, image in enumerate(images):
                uses.setdefault(image.index, []).append((path, row, rank))
    yield from sorted(uses.items())


class _Drawer:
    """Draws tiles, of several images in one run of the model."""

    def __init__(
        self,
        extractor: Extractor,
        found: Mapping[str, TopImages],
        cell: int,
        background: int,
        batch_size: int,
        options: dict[str, Any],
    ) -> None:
        self._extractor = extractor
        self._found = found
        self._cell = cell
        self._background = background
        self._batch_size = batch_size
        self._options = options
        self._inputs: list[Any] = []
        self._uses: list[list[tuple[str, int]]] = []

    def add(self, x: Any, uses: list[tuple[str, int]]) -> None:
        """Take an image, and the path and row of each tile that is to be drawn of it."""
        if not uses:
            return
        if self._inputs and (
            len(self._inputs) == self._batch_size or batch_shape(self._inputs[0]) != batch_shape(x)
        ):
            self.draw()
        self._inputs.append(x)
        self._uses.append(uses)

    def draw(self) -> None:
        """Draw what was taken."""
        if not self._inputs:
            return
        activations = self._extractor(join_batches(self._inputs))
        infos, batch = self._extractor.layers, batch_of(activations)
        for sample, uses in enumerate(self._uses):
            rows: dict[str, list[int]] = {}
            for path, row in uses:
                rows.setdefault(path, []).append(row)
            for path, ours in rows.items():
                top = self._found[path]
                grid = draw_layer(
                    infos[path],
                    activations[path],
                    batch=batch,
                    sample=sample,
                    **{**self._options, "order": top.channels[ours].tolist(), "zoom": 1},
                )
                for row in ours:
                    top.tiles[row] = self._tile(grid, top, row)
        self._inputs, self._uses = [], []

    def _tile(self, grid: Grid, top: TopImages, row: int) -> Pictures:
        place = top.images[row][0].place
        # Of a volume the slice with the maximum.
        levels = grid.tile(int(top.channels[row]), place[0] if top.info.kind == "volume" else 0)
        if top.info.kind == "sequence" and levels.shape[1] == 1:
            levels = np.repeat(levels, len(levels), 1)  # a column, too narrow to be seen
        return _fitted(palette(grid.cmap)[levels], self._cell, self._background, nearest=True)


def _picture(pixels: Array) -> Pictures:
    """Return an image's pixels as (H, W, 3) levels."""
    pixels = np.asarray(pixels)
    pixels = pixels.reshape(pixels.shape[-3:])
    pictures = as_pictures(pixels[None])
    if pictures is None:  # of channels that are no colours
        pictures = as_pictures(pixels.mean(-1, keepdims=True)[None])
        assert pictures is not None
    return np.broadcast_to(pictures[0], (*pixels.shape[:2], 3))


def _window(field: ReceptiveField | None, place: tuple[int, ...], picture: Pictures) -> Box:
    """Return what to show of an image: along an axis that a field is longer than, all of it."""
    height, width = picture.shape[:2]
    if field is None:
        return 0, 0, height, width
    top, left, bottom, right = field.window(place)
    if bottom - top >= height:
        top, bottom = 0, height
    if right - left >= width:
        left, right = 0, width
    return top, left, bottom, right


def _cut(picture: Pictures, window: Box, background: int) -> Pictures:
    """Return part of a picture, with a background beyond its edges."""
    top, left, bottom, right = window
    height, width = picture.shape[:2]
    patch = np.full((max(bottom - top, 1), max(right - left, 1), 3), background, np.uint8)
    rows = slice(min(max(top, 0), height), min(max(bottom, 0), height))
    columns = slice(min(max(left, 0), width), min(max(right, 0), width))
    seen = picture[rows, columns]
    y, x = rows.start - top, columns.start - left
    patch[y : y + seen.shape[0], x : x + seen.shape[1]] = seen
    return patch


def _fitted(picture: Pictures, cell: int, background: int, nearest: bool = False) -> Pictures:
    """Return a picture brought to fit a square, in its middle."""
    height, width = picture.shape[:2]
    scale = cell / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    # What is enlarged shows its pixels; what is made smaller is averaged.
    enlarge = nearest and scale >= 1
    how = Image.Resampling.NEAREST if enlarge else Image.Resampling.BICUBIC
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, how))
    fitted = np.full((cell, cell, 3), background, np.uint8)
    y, x = (cell - size[1]) // 2, (cell - size[0]) // 2
    fitted[y : y + size[1], x : x + size[0]] = resized
    return fitted
