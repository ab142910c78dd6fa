"""The common workload, 18 layers of VGG16, and other ways of drawing it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import actgrid
import actgrid.demo
from actgrid.rendering.layout import Layout
from actgrid.rendering.tiles import tile

__all__ = [
    "COLUMNS",
    "IMAGES",
    "LAYERS",
    "Array",
    "PaintTask",
    "folder",
    "grids",
    "make_memory_folder",
    "make_tasks",
    "montage",
    "photos",
    "textbook",
    "vectorised",
    "vgg16",
    "vgg16_activations",
]

Array = npt.NDArray[Any]

COLUMNS = 16
IMAGES = 20
LAYERS = ["*conv*", "*pool*"]


@cache
def vgg16() -> actgrid.Extractor:
    """Return an extractor of the 18 layers of VGG16 with random weights.

    The layers have 5,696 channels: 60 MB of float32 for an image.
    """
    import keras

    keras.utils.set_random_seed(0)
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    return actgrid.Extractor(model, LAYERS)


@cache
def vgg16_activations() -> list[Array]:
    """Return the activations of one photo in VGG16: arrays (1, H, W, C) of float32."""
    batch = actgrid.load_images(actgrid.demo.photo(), model=vgg16().model)
    return list(vgg16()(batch).values())


@cache
def grids(model: str) -> list[actgrid.Grid]:
    """Return the grids of the layers of ``"VGG16"`` (random) or ``"demo"`` (trained)."""
    if model == "VGG16":
        activations = vgg16_activations()
    else:
        network = actgrid.load_model("demo")
        batch = actgrid.load_images(actgrid.demo.photo(), model=network)
        activations = list(actgrid.Extractor(network, "*_relu")(batch).values())
    return [actgrid.render(x, columns=COLUMNS, padding=0) for x in activations]


@cache
def folder() -> Path:
    """Return a temporary folder that is removed at exit."""
    path = Path(tempfile.mkdtemp(prefix="actgrid-benchmarks-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def make_memory_folder() -> Path:
    """Create a folder in memory, if possible, so that a slow disk does not hide other costs."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="actgrid-benchmarks-", dir=memory))


@cache
def photos() -> list[Path]:
    """Write 20 photos, and return their paths."""
    files = [folder() / f"{number}.jpg" for number in range(IMAGES)]
    for number, file in enumerate(files):
        actgrid.demo.photo().rotate(360 / IMAGES * number).save(file, quality=90)
    return files


@dataclass(frozen=True)
class PaintTask:
    """The tiles of an activation, their positions, and the canvas to paint them on."""

    tiles: Array
    origins: npt.NDArray[np.int64]
    canvas: npt.NDArray[np.uint8]


def make_tasks(activations: list[Array], data_format: str = "channels_last") -> list[PaintTask]:
    """Return a paint task for each activation (1, H, W, C) or (1, C, H, W)."""
    tasks = []
    for activation in activations:
        tiles = tile(activation, data_format=data_format).tiles
        channels, _, height, width = tiles.shape
        layout = Layout(channels, height, width, COLUMNS, 0)
        tasks.append(
            PaintTask(tiles, layout.compute_origins().reshape(-1, 1), layout.make_canvas(0))
        )
    return tasks


# --- other implementations ---


def textbook(activation: Array) -> npt.NDArray[np.float64]:
    """Draw (1, H, W, C) as in Chollet, Deep Learning with Python (2017), 5.4.1.

    Like the loop of the book, this function works in place on views of the activation, which is
    overwritten, and fills a float64 picture. Constant channels become NaN.
    """
    size, channels = activation.shape[1], activation.shape[-1]
    rows = channels // COLUMNS
    display = np.zeros((size * rows, COLUMNS * size))
    with np.errstate(all="ignore"):
        for row in range(rows):
            for column in range(COLUMNS):
                image = activation[0, :, :, row * COLUMNS + column]
                image -= image.mean()
                image /= image.std()
                image *= 64
                image += 128
                image = np.clip(image, 0, 255).astype("uint8")
                display[row * size : (row + 1) * size, column * size : (column + 1) * size] = image
    return display


def vectorised(activation: Array) -> npt.NDArray[np.uint8]:
    """Draw (1, H, W, C) in NumPy without a loop."""
    x = activation[0]
    height, width, channels = x.shape
    with np.errstate(all="ignore"):
        x = (x - x.mean((0, 1))) / x.std((0, 1)) * 64 + 128
        levels = np.clip(x, 0, 255).astype(np.uint8)
    tiled = levels.reshape(height, width, channels // COLUMNS, COLUMNS).transpose(2, 0, 3, 1)
    picture: npt.NDArray[np.uint8] = tiled.reshape(-1, COLUMNS * width)
    return picture


def montage(activation: Array, rescale: bool) -> Array:
    """Tile (1, H, W, C) with scikit-image.

    With `rescale`, each tile is mapped by its minimum and maximum, and the activation is
    overwritten.
    """
    from skimage.util import montage

    tiles = np.moveaxis(activation[0], -1, 0)
    shape = (len(tiles) // COLUMNS, COLUMNS)
    picture: Array = montage(tiles, rescale_intensity=rescale, grid_shape=shape)
    return picture
