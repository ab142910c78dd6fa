"""Find the images that activate channels most, and cut out the activating patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.figures.grids import get_batch_size
from actgrid.models import Extractor, LayerInfo
from actgrid.models.drawing import draw_layer
from actgrid.models.inputs import get_batch_shape, join_batches
from actgrid.models.receptive_fields import Box, ReceptiveField
from actgrid.option_checks import check_integer
from actgrid.option_groups import check_option, complete_options
from actgrid.options import GridOptions, TileLevelOptions
from actgrid.rendering import Grid
from actgrid.rendering.colormaps import palette
from actgrid.rendering.input_pictures import to_pictures
from actgrid.rendering.sheet import Sheet, lay_out_sheet
from actgrid.statistics.dataset import DatasetStats
from actgrid.statistics.layer_stats import LayerStats, TopImage

__all__ = ["TopImages", "find_top_images"]

Array = npt.NDArray[Any]
Pictures = npt.NDArray[np.uint8]
# Loads an image by index: its pixels (H, W, C) and a batch of size 1 for the model; None if the
# image is missing.
Load = Callable[[int], "tuple[Array, Array] | None"]


@dataclass(frozen=True, eq=False, repr=False)
class TopImages:
    """Record of the images that activate the channels of a layer most.

    Parameters
    ----------
    info : LayerInfo
        The layer.
    channels : numpy.ndarray
        (n,) int: indices of the channels.
    images : tuple of tuple of TopImage
        For each channel, the images that activate it most, largest maximum first.
    tiles : numpy.ndarray
        (n, cell, cell, 3) uint8: the activation map of the channel for its first image.
    patches : numpy.ndarray
        (n, top, cell, cell, 3) uint8: the receptive field of the maximum in each image; blank if
        the image is missing or the channel has fewer images.
    missing : numpy.ndarray
        (n, top) bool: whether the image could not be loaded again.

    Examples
    --------
    >>> from actgrid.statistics import TopImage, TopImages
    >>> shape = (None, 4, 4, 2)
    >>> info = actgrid.LayerInfo("conv", "Conv2D", shape, "float32", "channels_last", 0, 0)
    >>> image = TopImage(index=0, name="cat.jpg", maximum=2.5, position=(1, 1))
    >>> tiles, patches = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 1, 8, 8, 3), np.uint8)
    >>> TopImages(info, np.array([1]), ((image,),), tiles, patches, np.zeros((1, 1), bool))
    <TopImages conv, 1 channels>
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
        """Arrange the patches in a labelled table with a row for each channel.

        Returns
        -------
        Sheet
            The captions are the maximum and the name of each image.
        """
        count, top, side = self.patches.shape[:3]
        rows = np.concatenate([self.tiles[:, None], self.patches], 1)
        captions = []
        for channel, images in zip(self.channels, self.images, strict=True):
            image_captions = [f"{image.maximum:.3g} {Path(image.name).stem}" for image in images]
            captions += [f"channel {channel}", *image_captions, *[""] * (top - len(images))]
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
    """Cut out the image patches that activate channels most, and draw the channels.

    Each image is loaded once, in the order of the indices. The model runs on the first image of
    each channel.

    Parameters
    ----------
    extractor : Extractor
        Extractor of the layers of the statistics.
    stats : DatasetStats
        The statistics.
    load : callable
        Takes an image index, and returns the pixels (H, W, C) of the model's input and the input
        itself, a batch of size 1; or None if the image is missing.
    fields : dict
        Layer path -> ReceptiveField; for a layer without field, the whole image is shown.
    channels : int or None
        Number of channels of each layer, largest maxima first; None: all channels that are not
        dead.
    cell : int
        Side of each picture in pixels.
    background : int
        Level of blank pixels, 0 to 255: beyond the edges of an image, and beside patches that are
        not square.
    batch_size : int
        Maximum number of images in a batch.
    **render_options
        Normalization and colormap of the tiles, see `actgrid.options.TileLevelOptions`.

    Returns
    -------
    dict
        Layer path -> TopImages, for layers with channels that are not dead.

    Raises
    ------
    OptionError
        If an option is not valid. Also a ValueError.

    Examples
    --------
    >>> import keras
    >>> from actgrid.statistics import find_top_images
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU(name="relu")])
    >>> extractor = actgrid.Extractor(model)
    >>> images = np.random.default_rng(0).random((5, 8, 8, 3), np.float32)
    >>> stats = actgrid.DatasetStats(top=2)
    >>> stats.update(extractor(images), extractor.layers)
    >>> load = lambda index: (images[index], images[index : index + 1])
    >>> top_images = find_top_images(extractor, stats, load, fields={}, cell=16)
    >>> top_images["relu"].patches.shape
    (3, 2, 16, 16, 3)
    """
    cell = check_integer("cell", cell, 8)
    batch_size = check_integer("batch_size", batch_size, 1)
    background = check_option(GridOptions, "background", background)
    if channels is not None:
        check_integer("channels", channels, 1)
    top_images = {
        path: _make_blank(layer, selected, stats.top, cell, background)
        for path, layer in stats.layers.items()
        if (selected := _select_channels(layer, channels)).size
    }
    options = complete_options(TileLevelOptions, render_options)
    drawer = _TileDrawer(extractor, top_images, cell, background, batch_size, options)
    for index, uses in _group_by_image(top_images):
        image = load(index)
        if image is None:
            for path, row, rank in uses:
                top_images[path].missing[row, rank] = True
            continue
        pixels, x = image
        picture = _to_picture(pixels)
        for path, row, rank in uses:
            image_position = top_images[path].images[row][rank].position
            window = _find_window(fields.get(path), image_position, picture)
            patch = _crop(picture, window, background)
            top_images[path].patches[row, rank] = _fit(patch, cell, background)
        drawer.add(x, [(path, row) for path, row, rank in uses if rank == 0])
    drawer.draw()
    return top_images


def _select_channels(layer: LayerStats, count: int | None) -> npt.NDArray[np.intp]:
    """Return the channels of a layer with the largest maxima, dead channels excluded.

    Parameters
    ----------
    count
        Number of channels. None: all.

    Returns
    -------
    numpy.ndarray
        Channel indices, largest maximum first.
    """
    order = np.argsort(-layer.top_max[:, 0], kind="stable")
    is_alive = ~layer.dead & (layer.top_index[:, 0] >= 0)
    return order[is_alive[order]][:count]


def _make_blank(
    layer: LayerStats, channels: npt.NDArray[np.intp], top: int, cell: int, background: int
) -> TopImages:
    shape = (channels.size, top, cell, cell, 3)
    patches = np.full(shape, background, np.uint8)
    return TopImages(
        info=layer.info,
        channels=channels,
        images=tuple(tuple(layer.get_top_images(int(channel))) for channel in channels),
        tiles=patches[:, 0].copy(),
        patches=patches,
        missing=np.zeros(shape[:2], bool),
    )


def _group_by_image(
    top_images: Mapping[str, TopImages],
) -> Iterator[tuple[int, list[tuple[str, int, int]]]]:
    """Group the patches of all layers by the image that they are cut from.

    Yields
    ------
    tuple
        Image index, and (layer path, row of the channel, rank among its top images) of each patch.
    """
    uses: dict[int, list[tuple[str, int, int]]] = {}
    for path, layer in top_images.items():
        for row, images in enumerate(layer.images):
            for rank, image in enumerate(images):
                uses.setdefault(image.index, []).append((path, row, rank))
    yield from sorted(uses.items())


class _TileDrawer:
    """Helper that runs a model on batches of images and draws tiles of its channels."""

    def __init__(
        self,
        extractor: Extractor,
        top_images: Mapping[str, TopImages],
        cell: int,
        background: int,
        batch_size: int,
        options: dict[str, Any],
    ) -> None:
        self._extractor = extractor
        self._top_images = top_images
        self._cell = cell
        self._background = background
        self._batch_size = batch_size
        self._options = options
        self._inputs: list[Any] = []
        self._uses: list[list[tuple[str, int]]] = []

    def add(self, x: Any, uses: list[tuple[str, int]]) -> None:
        """Add an image whose tiles are to be drawn.

        A full batch is drawn first.

        Parameters
        ----------
        x
            Input of the model for the image.
        uses
            (layer path, row) of each tile to draw from the image.
        """
        if not uses:
            return
        if self._inputs and (
            len(self._inputs) == self._batch_size
            or get_batch_shape(self._inputs[0]) != get_batch_shape(x)
        ):
            self.draw()
        self._inputs.append(x)
        self._uses.append(uses)

    def draw(self) -> None:
        """Run the model on the images that were added, and store the drawn channels.

        Each tile is stored in the `TopImages` of its layer. The added images are then removed.
        """
        if not self._inputs:
            return
        activations = self._extractor(join_batches(self._inputs))
        infos, batch = self._extractor.layers, get_batch_size(activations)
        for sample, uses in enumerate(self._uses):
            rows: dict[str, list[int]] = {}
            for path, row in uses:
                rows.setdefault(path, []).append(row)
            for path, layer_rows in rows.items():
                layer = self._top_images[path]
                grid = draw_layer(
                    infos[path],
                    activations[path],
                    batch=batch,
                    sample=sample,
                    **{**self._options, "order": layer.channels[layer_rows].tolist(), "zoom": 1},
                )
                for row in layer_rows:
                    layer.tiles[row] = self._draw_tile(grid, layer, row)
        self._inputs, self._uses = [], []

    def _draw_tile(self, grid: Grid, layer: TopImages, row: int) -> Pictures:
        position = layer.images[row][0].position
        # A volume is shown by the slice with the maximum.
        depth = position[0] if layer.info.kind == "volume" else 0
        levels = grid.tile(int(layer.channels[row]), depth)
        if layer.info.kind == "sequence" and levels.shape[1] == 1:
            levels = np.repeat(levels, len(levels), 1)  # a column of one pixel would be invisible
        return _fit(palette(grid.cmap)[levels], self._cell, self._background, nearest=True)


def _to_picture(pixels: Array) -> Pictures:
    """Convert the pixels of an image to RGB levels (height, width, 3) uint8."""
    pixels = np.asarray(pixels)
    pixels = pixels.reshape(pixels.shape[-3:])
    pictures = to_pictures(pixels[None])
    if pictures is None:  # the channels are not colours
        pictures = to_pictures(pixels.mean(-1, keepdims=True)[None])
        assert pictures is not None
    return np.broadcast_to(pictures[0], (*pixels.shape[:2], 3))


def _find_window(field: ReceptiveField | None, position: tuple[int, ...], picture: Pictures) -> Box:
    """Return the part of an image that a layer position depends on.

    Parameters
    ----------
    field
        Receptive field of the layer. None: not known.
    position
        Position in the layer output.
    picture
        The image.

    Returns
    -------
    tuple of int
        Top, left, bottom and right in pixels. An axis that the field covers entirely has the length
        of the image.
    """
    height, width = picture.shape[:2]
    if field is None:
        return 0, 0, height, width
    top, left, bottom, right = field.window(position)
    if bottom - top >= height:
        top, bottom = 0, height
    if right - left >= width:
        left, right = 0, width
    return top, left, bottom, right


def _crop(picture: Pictures, window: Box, background: int) -> Pictures:
    """Crop a picture to a window; fill the part beyond its edges with `background`."""
    top, left, bottom, right = window
    height, width = picture.shape[:2]
    patch = np.full((max(bottom - top, 1), max(right - left, 1), 3), background, np.uint8)
    rows = slice(min(max(top, 0), height), min(max(bottom, 0), height))
    columns = slice(min(max(left, 0), width), min(max(right, 0), width))
    visible = picture[rows, columns]
    y, x = rows.start - top, columns.start - left
    patch[y : y + visible.shape[0], x : x + visible.shape[1]] = visible
    return patch


def _fit(picture: Pictures, cell: int, background: int, nearest: bool = False) -> Pictures:
    """Resize a picture to fit into a square, and centre it there.

    Parameters
    ----------
    cell
        Side of the square in pixels.
    background
        Level of the pixels beside the picture.
    nearest
        Whether an enlarged picture shows its pixels as squares.

    Returns
    -------
    numpy.ndarray
        (cell, cell, 3) uint8.
    """
    height, width = picture.shape[:2]
    scale = cell / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    # An enlarged tile shows its pixels; a reduced one is averaged.
    is_enlarged = nearest and scale >= 1
    filter_ = Image.Resampling.NEAREST if is_enlarged else Image.Resampling.BICUBIC
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, filter_))
    square = np.full((cell, cell, 3), background, np.uint8)
    y, x = (cell - size[1]) // 2, (cell - size[0]) // 2
    square[y : y + size[1], x : x + size[0]] = resized
    return square
