"""Tests that default pictures equal a textbook's, for two networks.

The reference follows the loop of Chollet, Deep Learning with Python (2017), section 5.4.1.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

import actgrid


def tile_textbook(activation: npt.NDArray[Any], columns: int) -> npt.NDArray[np.uint8]:
    """Tile (H, W, C) like the book, with the channels of an incomplete last row."""
    height, width, channels = activation.shape
    rows = -(-channels // columns)
    picture = np.zeros((rows * height, min(columns, channels) * width), np.uint8)
    for channel in range(channels):
        # In float32, the book's result is wrong by up to 23 levels in channels whose standard
        # deviation is as small as the rounding error of their mean; the demo has seven.
        image = activation[:, :, channel].astype(np.float64)
        image -= image.mean()
        deviation = image.std()
        if deviation > 0:
            image /= deviation
            image *= 64
        else:
            image[:] = 0  # the book's code yields NaN
        image += 128
        top, left = channel // columns * height, channel % columns * width
        picture[top : top + height, left : left + width] = np.clip(image, 0, 255).astype("uint8")
    return picture


def assert_agrees(activations: dict[str, npt.NDArray[Any]]) -> None:
    for path, activation in activations.items():
        expected = tile_textbook(activation[0], 16)
        for backend in ("native", "numba", "numpy"):
            grid = actgrid.render(activation, columns=16, padding=0, backend=backend)
            difference = np.abs(grid.levels.astype(int) - expected)
            assert difference.max() <= 1, (path, backend)
            assert (difference > 0).mean() <= 1e-3, (path, backend)
            for channel in np.flatnonzero(grid.stats.dead):
                assert (grid.tile(int(channel)) == 128).all(), (path, backend)


@pytest.mark.slow
def test_every_convolution_and_pooling_layer_of_vgg16() -> None:
    keras.utils.set_random_seed(0)
    model = keras.applications.VGG16(weights=None)
    batch = actgrid.load_images(actgrid.demo.photo(), model=model)
    activations = actgrid.Extractor(model, ["*conv*", "*pool*"])(batch)
    assert len(activations) == 18
    assert sum(activation.shape[-1] for activation in activations.values()) == 5696
    assert_agrees(activations)


@pytest.mark.slow
def test_every_layer_of_the_demo() -> None:
    model = actgrid.load_model("demo")
    batch = actgrid.load_images(actgrid.demo.photo(), model=model)
    activations = actgrid.Extractor(model)(batch)
    assert len(activations) == 141
    assert_agrees(activations)
