"""Show or save activations, heatmaps and gradients, as keract does."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.compat.keract.json_files import iterate_outputs
from actgrid.encoding import make_folder
from actgrid.errors import (
    OptionError,
    ShapeError,
)
from actgrid.models.frameworks import keras
from actgrid.options import DATA_FORMATS
from actgrid.rendering import Grid, Heatmap, Picture, render
from actgrid.rendering.input_pictures import to_pictures

__all__ = ["display_activations", "display_gradients_of_trainable_weights", "display_heatmaps"]

Array = npt.NDArray[Any]

# Default resolution of matplotlib's figures.
_PIXELS_PER_INCH = 100
_HEATMAPS_INCHES = (12, 12)


def display_activations(
    activations: Mapping[Any, Any],
    cmap: str | None = None,
    save: bool = False,
    directory: str | Path = ".",
    data_format: str = "channels_last",
    fig_size: tuple[float, float] = (24, 24),
    reshape_1d_layers: bool = False,
) -> None:
    """Show or save a grid of the channels of each layer, and print the shapes.

    Parameters
    ----------
    activations : dict
        Result of `get_activations` for one sample. Arrays of several samples are skipped.
    cmap : str, optional
        Name of a colormap. None: ``"viridis"``.
    save : bool, optional
        Whether to save files ``0_name.png``, ``1_name.png``, ... instead of showing the pictures.
    directory : str or Path, optional
        Output folder; created if necessary.
    data_format : str, optional
        ``"channels_last"`` or ``"channels_first"``.
    fig_size : tuple of float, optional
        Width and height of a picture in inches of 100 pixels. Small tiles are enlarged to fill this
        size. Larger pictures keep one pixel for each value.
    reshape_1d_layers : bool, optional
        Whether dense activations, (1, C), are folded to a rectangle instead of a line.

    Raises
    ------
    OptionError
        If an option is invalid. Also a ValueError.
    ShapeError
        If an array cannot be drawn. Also a ValueError.
    DtypeError
        If an array is not of real numbers. Also a TypeError.
    OutputError
        If a file cannot be written. Also an OSError.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat import keract
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, name="conv"),
    ...     keras.layers.Flatten(name="flatten"),
    ...     keras.layers.Dense(2, name="dense"),
    ... ])
    >>> activations = keract.get_activations(model, np.zeros((1, 8, 8, 3)), ["conv", "dense"])
    >>> keract.display_activations(activations, save=True, directory="pictures")
    conv (1, 6, 6, 4)
    dense (1, 2)
    """
    if data_format not in DATA_FORMATS:
        raise OptionError(f"data_format must be one of {DATA_FORMATS}, not {data_format!r}")
    display = _Display(directory if save else None, fig_size)
    for name, array in _iterate_single(activations):
        tiles = np.atleast_1d(array[0])
        if data_format == "channels_first":
            tiles = np.moveaxis(tiles, 0, -1)
        if tiles.ndim == 1:
            tiles = _make_line(tiles, reshape_1d_layers)
        elif tiles.ndim == 2:
            tiles = tiles[None]  # each channel of a sequence is a line
        channels = tiles.shape[-1]
        # Each channel of a volume has a row.
        columns = _choose_columns(channels) if tiles.ndim == 3 else None
        display.draw_grid(
            name,
            tiles,
            normalize="minmax",
            columns=columns,
            cmap="viridis" if cmap is None else cmap,
        )


def display_heatmaps(
    activations: Mapping[Any, Any],
    input_image: Any,
    directory: str | Path = ".",
    save: bool = False,
    fix: bool = True,
) -> None:
    """Show or save the channels of each layer as heatmaps over an image.

    Parameters
    ----------
    activations : dict
        Result of `get_activations` for one sample. Arrays of several samples, and dense
        activations, (1, C), are skipped.
    input_image : array_like
        The image, (H, W, 3) or (H, W), with values from 0 to 255. Other ranges, such as 0 to 1, are
        scaled to 0 to 255.
    directory : str or Path, optional
        Output folder; created if necessary.
    save : bool, optional
        Whether to save files ``0_name.png``, ``1_name.png``, ... instead of showing the pictures.
    fix : bool, optional
        Whether to remove a batch axis, and the channel axis of a gray image.

    Raises
    ------
    ShapeError
        If `input_image` is not an image, or a layer has more than 4 axes. Also a ValueError.
    OutputError
        If a file cannot be written. Also an OSError.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat import keract
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, name="conv"),
    ...     keras.layers.Flatten(name="flatten"),
    ...     keras.layers.Dense(2, name="dense"),
    ... ])
    >>> image = np.random.rand(1, 8, 8, 3)
    >>> activations = keract.get_activations(model, image, "conv")
    >>> keract.display_heatmaps(activations, image, save=True, directory="heatmaps")
    conv (1, 6, 6, 4)
    """
    photo = _to_photo(input_image, fix)
    is_channels_first = keras().config.image_data_format() == "channels_first"
    display = _Display(directory if save else None, _HEATMAPS_INCHES)
    for name, array in _iterate_single(activations, min_axes=3):
        if array.ndim > 4:
            raise ShapeError(f"layer {name} must have 3 or 4 axes for heatmaps, not {array.ndim}")
        maps = array[0] if is_channels_first else np.moveaxis(array[0], -1, 0)
        maps = maps.reshape(*maps.shape[:2], -1)
        columns = _choose_columns(len(maps))
        heatmap = Heatmap(maps, images=display.fit_photo(photo, columns), signed=False)
        display.output(name, heatmap.overlay(alpha=0.3, cmap="jet", clip=100, columns=columns))


def display_gradients_of_trainable_weights(
    gradients: Mapping[Any, Any], directory: str | Path = ".", save: bool = False
) -> None:
    """Show or save the gradients of convolution kernels, and print the shapes.

    Parameters
    ----------
    gradients : dict
        Result of `get_gradients_of_trainable_weights`. Arrays that are not (height, width, input
        channels, output channels) are skipped.
    directory : str or Path, optional
        Output folder; created if necessary.
    save : bool, optional
        Whether to save files ``0_name.png``, ``1_name.png``, ... instead of showing the pictures.

    Raises
    ------
    OutputError
        If a file cannot be written. Also an OSError.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat import keract
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, name="conv"),
    ...     keras.layers.Flatten(name="flatten"),
    ...     keras.layers.Dense(2, name="dense"),
    ... ])
    >>> model.compile(loss="mse")
    >>> x, y = np.ones((1, 8, 8, 3)), np.ones((1, 2))
    >>> gradients = keract.get_gradients_of_trainable_weights(model, x, y)
    >>> keract.display_gradients_of_trainable_weights(
    ...     {"conv/kernel:0": gradients["conv/kernel:0"]}, "gradients", save=True
    ... )
    conv/kernel:0 (3, 3, 3, 4)
    """
    display = _Display(directory if save else None, _HEATMAPS_INCHES)
    for name, gradient in gradients.items():
        array = np.asarray(gradient)
        if array.ndim != 4:
            print(name, array.shape, "-> skipped: not a 4-D convolution kernel")
            continue
        print(name, array.shape)
        display.draw_grid(name, array, normalize="minmax", kind="kernel")


def _iterate_single(
    activations: Mapping[Any, Any], min_axes: int = 1
) -> Iterator[tuple[Any, Array]]:
    """Yield the activations that are a single sample, and print each shape.

    Other activations are skipped.

    Parameters
    ----------
    activations
        Layer name -> array or list of arrays.
    min_axes
        Lowest number of axes of an array that is not skipped.

    Yields
    ------
    tuple
        (layer name, array).
    """
    for name, array in iterate_outputs(activations):
        if array.ndim < 1 or len(array) != 1:
            print(name, array.shape, "-> skipped: not a single sample")
        elif array.ndim < min_axes:
            print(name, array.shape, "-> skipped: no spatial axes")
        else:
            print(name, array.shape)
            yield name, array


def _choose_columns(count: int) -> int:
    """Return the number of columns of a nearly square grid of `count` pictures."""
    return -(-count // (math.isqrt(max(count - 1, 0)) + 1))


def _make_line(values: Array, fold: bool) -> Array:
    """Arrange the values of a vector as one tile.

    Parameters
    ----------
    values
        (count,).
    fold
        Whether the tile is a nearly square rectangle instead of a thick line.

    Returns
    -------
    numpy.ndarray
        (height, width, 1).
    """
    count = len(values)
    if not fold:
        return np.broadcast_to(values, (-(-count // 64), count))[..., None]
    width = next(side for side in range(math.isqrt(count), 0, -1) if count % side == 0)
    return values.reshape(-1, width, 1)


def _to_photo(image: Any, fix: bool) -> npt.NDArray[np.uint8]:
    """Convert an image to RGB pixels, (height, width, 3) uint8.

    Parameters
    ----------
    fix
        Whether a batch of one image and an image with a channel axis of length 1 are accepted.
    """
    pixels = np.asarray(image)
    if fix and pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim == 2 or (fix and pixels.ndim == 3 and pixels.shape[2] == 1):
        pixels = pixels.reshape(*pixels.shape[:2], 1)
    pictures = to_pictures(pixels[None].astype(np.float32)) if pixels.ndim == 3 else None
    if pictures is None:
        raise ShapeError(f"input_image must be (H, W, 3) or (H, W), not {np.shape(image)}")
    return np.array(np.broadcast_to(pictures[0], (*pixels.shape[:2], 3)))


class _Display:
    """Output of pictures: shows the pictures, or saves them as numbered files.

    Parameters
    ----------
    folder : str, Path or None
        Output folder; None: the pictures are shown.
    inches : tuple of float
        Maximum width and height of enlarged pictures.
    """

    def __init__(self, folder: str | Path | None, inches: tuple[float, float]) -> None:
        self.folder = None if folder is None else make_folder(folder)
        self.inches = inches
        self.width, self.height = (max(1, int(side * _PIXELS_PER_INCH)) for side in inches)
        self.count = 0

    def draw_grid(self, name: Any, tiles: Array, **options: Any) -> None:
        """Draw tiles as a grid and show it, or save it to a file.

        The grid is enlarged to the available size.

        Parameters
        ----------
        name
            Name of the layer.
        tiles
            (channels, height, width) or another form that `actgrid.render` takes.
        **options
            Options of `actgrid.render`.
        """
        grid = render(tiles, **options)
        height, width = grid.levels.shape
        zoom = min(self.width // width, self.height // height)
        self.output(name, grid if zoom < 2 else render(tiles, **options, zoom=zoom))

    def fit_photo(self, photo: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
        """Resize a photo so that `columns` copies of it fill the available width."""
        height, width = photo.shape[:2]
        if zoom := self.width // (columns * width):
            return photo.repeat(zoom, 0).repeat(zoom, 1)
        new_width = max(1, min(width, 2 * self.width // columns))
        size = new_width, max(1, height * new_width // width)
        return np.asarray(Image.fromarray(photo).resize(size))

    def output(self, name: Any, picture: Grid | Picture) -> None:
        """Show a picture, or save it to a file that is named after the layer."""
        if self.folder is None:
            _show(picture, str(name), self.inches)
        else:
            picture.save(self.folder / f"{self.count}_{str(name).split('/')[0]}.png")
        self.count += 1


def _show(picture: Grid | Picture, title: str, inches: tuple[float, float]) -> None:
    """Show a picture in a notebook, a matplotlib window or the system's image viewer."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if ipython and hasattr(shell, "kernel"):
        ipython.display.display(picture)
        return
    try:
        from matplotlib import pyplot
    except ImportError:
        picture.to_image().show(title)
        return
    figure, axes = pyplot.subplots(figsize=inches)
    axes.imshow(picture.to_rgb())
    axes.axis("off")
    figure.suptitle(title)
    pyplot.show()
    pyplot.close(figure)
