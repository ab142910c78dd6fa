"""Activations, heatmaps and gradients shown or saved."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.attribution.backdrops import as_pictures
from actgrid.compat.keract.json_files import named_outputs
from actgrid.encoding import writable_folder
from actgrid.errors import (
    OptionError,
    ShapeError,
)
from actgrid.models.frameworks import keras
from actgrid.options import DATA_FORMATS
from actgrid.rendering import Grid, Heatmap, Picture, render

__all__ = ["display_activations", "display_gradients_of_trainable_weights", "display_heatmaps"]

Array = npt.NDArray[Any]

_PIXELS_IN_INCH = 100  # of matplotlib's figures
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
    """Show or save a picture of each layer, with a tile for each channel, and print its shape.

    Parameters
    ----------
    activations
        What `get_activations` returned, for one sample; arrays of more are left out.
    cmap
        Name of a colormap; None: ``"viridis"``.
    save
        Whether to save ``0_name.png``, ``1_name.png``, ... instead of showing the pictures.
    directory
        The folder to save in; made if need be.
    data_format
        ``"channels_last"`` or ``"channels_first"``.
    fig_size
        Width and height in inches, of 100 pixels each: small tiles are enlarged as far as that.
        Pictures that are larger by themselves stay so, with a pixel for each value.
    reshape_1d_layers
        Whether values without a place, (1, C), fill a rectangle instead of a line.

    Raises
    ------
    OptionError, ShapeError, DtypeError
        If an option or an array cannot be used. Also ValueErrors, or a TypeError.
    OutputError
        If a file cannot be written. Also an OSError.

    Examples
    --------
    >>> display_activations(get_activations(model, image), save=True, directory="pictures")
    conv (1, 26, 26, 32)
    pool (1, 13, 13, 32)
    """
    if data_format not in DATA_FORMATS:
        raise OptionError(f"data_format must be one of {DATA_FORMATS}, not {data_format!r}")
    display = _Display(directory if save else None, fig_size)
    for name, array in _single(activations):
        tiles = np.atleast_1d(array[0])
        if data_format == "channels_first":
            tiles = np.moveaxis(tiles, 0, -1)
        if tiles.ndim == 1:
            tiles = _as_line(tiles, reshape_1d_layers)
        elif tiles.ndim == 2:
            tiles = tiles[None]  # a line for each channel
        channels = tiles.shape[-1]
        # Of volumes each channel is a row by itself.
        columns = _columns(channels) if tiles.ndim == 3 else None
        display.grid(
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
    """Show or save each layer's channels as heatmaps over an image, and print its shape.

    Parameters
    ----------
    activations
        What `get_activations` returned, for one sample; arrays of more, and those without a
        place, (1, C), are left out.
    input_image
        The image, (H, W, 3) or (H, W), 0 to 255; values of 0 to 1, and preprocessed ones, are
        brought to that range.
    directory, save
        As for `display_activations`.
    fix
        Whether a batch axis, and the channel axis of a gray image, are taken off first.

    Raises
    ------
    ShapeError
        If `input_image` is no image, or a layer has more axes than one. Also a ValueError.
    OutputError
        If a file cannot be written. Also an OSError.

    Examples
    --------
    >>> display_heatmaps(get_activations(model, image, "block1_conv1"), photo, save=True)
    block1_conv1 (1, 224, 224, 64)
    """
    photo = _photo(input_image, fix)
    first = keras().config.image_data_format() == "channels_first"
    display = _Display(directory if save else None, _HEATMAPS_INCHES)
    for name, array in _single(activations, least=3):
        if array.ndim > 4:
            raise ShapeError(f"layer {name}: maps over an image have 3 or 4 axes, not {array.ndim}")
        maps = array[0] if first else np.moveaxis(array[0], -1, 0)
        maps = maps.reshape(*maps.shape[:2], -1)
        columns = _columns(len(maps))
        heatmap = Heatmap(maps, images=display.fitted(photo, columns), signed=False)
        display.put(name, heatmap.overlay(alpha=0.3, cmap="jet", clip=100, columns=columns))


def display_gradients_of_trainable_weights(
    gradients: Mapping[Any, Any], directory: str | Path = ".", save: bool = False
) -> None:
    """Show or save the gradients of each convolution's kernel, and print its shape.

    Parameters
    ----------
    gradients
        What `get_gradients_of_trainable_weights` returned; arrays that are not
        (height, width, channels in, channels out) are left out.
    directory, save
        As for `display_activations`.

    Raises
    ------
    OutputError
        If a file cannot be written. Also an OSError.
    """
    display = _Display(directory if save else None, _HEATMAPS_INCHES)
    for name, gradient in gradients.items():
        array = np.asarray(gradient)
        if array.ndim != 4:
            print(name, array.shape, "-> left out: not (height, width, channels in, channels out)")
            continue
        print(name, array.shape)
        display.grid(name, array, normalize="minmax", kind="kernel")


def _single(activations: Mapping[Any, Any], least: int = 1) -> Iterator[tuple[Any, Array]]:
    """Yield those of one sample and so many axes; print the shape of each."""
    for name, array in named_outputs(activations):
        if array.ndim < 1 or len(array) != 1:
            print(name, array.shape, "-> left out: not of one sample")
        elif array.ndim < least:
            print(name, array.shape, "-> left out: values without a place")
        else:
            print(name, array.shape)
            yield name, array


def _columns(count: int) -> int:
    """Return how many pictures a row has where there are about as many rows."""
    return -(-count // (math.isqrt(max(count - 1, 0)) + 1))


def _as_line(values: Array, fold: bool) -> Array:
    """Return values as one tile: a line that can be seen, or the rectangle nearest to square."""
    count = len(values)
    if not fold:
        return np.broadcast_to(values, (-(-count // 64), count))[..., None]
    width = next(side for side in range(math.isqrt(count), 0, -1) if count % side == 0)
    return values.reshape(-1, width, 1)


def _photo(image: Any, fix: bool) -> npt.NDArray[np.uint8]:
    """Return an image as pixels, (height, width, 3)."""
    pixels = np.asarray(image)
    if fix and pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim == 2 or (fix and pixels.ndim == 3 and pixels.shape[2] == 1):
        pixels = pixels.reshape(*pixels.shape[:2], 1)
    pictures = as_pictures(pixels[None].astype(np.float32)) if pixels.ndim == 3 else None
    if pictures is None:
        raise ShapeError(f"input_image must be (H, W, 3) or (H, W), not {np.shape(image)}")
    return np.array(np.broadcast_to(pictures[0], (*pixels.shape[:2], 3)))


class _Display:
    """Shows pictures, or saves them one after the other.

    Parameters
    ----------
    folder
        Where to save; None: they are shown.
    inches
        Width and height that they may have.
    """

    def __init__(self, folder: str | Path | None, inches: tuple[float, float]) -> None:
        self.folder = None if folder is None else writable_folder(folder)
        self.inches = inches
        self.width, self.height = (max(1, int(side * _PIXELS_IN_INCH)) for side in inches)
        self.count = 0

    def grid(self, name: Any, tiles: Array, **options: Any) -> None:
        """Draw tiles as large as there is room, and put the picture."""
        drawn = render(tiles, **options)
        height, width = drawn.levels.shape
        zoom = min(self.width // width, self.height // height)
        self.put(name, drawn if zoom < 2 else render(tiles, **options, zoom=zoom))

    def fitted(self, photo: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
        """Return an image as large, or as small, as so many in a row have room."""
        height, width = photo.shape[:2]
        if zoom := self.width // (columns * width):
            return photo.repeat(zoom, 0).repeat(zoom, 1)
        wide = max(1, min(width, 2 * self.width // columns))
        size = wide, max(1, height * wide // width)
        return np.asarray(Image.fromarray(photo).resize(size))

    def put(self, name: Any, picture: Grid | Picture) -> None:
        """Show a picture, or save it by the layer's name."""
        if self.folder is None:
            _show(picture, str(name), self.inches)
        else:
            picture.save(self.folder / f"{self.count}_{str(name).split('/')[0]}.png")
        self.count += 1


def _show(picture: Grid | Picture, title: str, inches: tuple[float, float]) -> None:
    """Show a picture in the notebook, in matplotlib's window, or in the system's viewer."""
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
