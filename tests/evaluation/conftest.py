"""Fixtures: a model that looks at a known square of its input."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

SIDE = 24
SQUARE = (slice(6, 14), slice(9, 17))


def make_planted_model() -> Any:
    """Return a model whose class 1 has the logit 12 * (mean of the square - 0.5)."""
    weights = np.zeros((SIDE, SIDE, 3, 2), np.float32)
    weights[(*SQUARE, slice(None), 1)] = 12 / (8 * 8 * 3)
    layers = [keras.Input((SIDE, SIDE, 3)), keras.layers.Flatten(), keras.layers.Dense(2, name="d")]
    model = keras.Sequential([*layers, keras.layers.Softmax()])
    model.get_layer("d").set_weights([weights.reshape(-1, 2), np.array([0, -6], np.float32)])
    return model


@pytest.fixture(scope="session")
def planted_model() -> Any:
    return make_planted_model()


@pytest.fixture(scope="session")
def planted_images() -> npt.NDArray[np.float32]:
    """Return images of noise with a bright square, which the model classifies as class 1."""
    images = np.random.default_rng(2).random((4, SIDE, SIDE, 3)).astype(np.float32)
    images *= 0.6
    images[(slice(None), *SQUARE)] += 0.4
    return images


@pytest.fixture(scope="session")
def oracle() -> npt.NDArray[np.float32]:
    """Return the true map: 1 in the square."""
    oracle = np.zeros((4, SIDE, SIDE), np.float32)
    oracle[(slice(None), *SQUARE)] = 1
    return oracle


@pytest.fixture(scope="session")
def network() -> Any:
    """Return a small convolutional network with random weights."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((16, 12, 3)),
            keras.layers.Conv2D(6, 3, activation="relu", name="first"),
            keras.layers.Conv2D(6, 3, activation="relu", name="second"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, activation="softmax", name="head"),
        ]
    )


@pytest.fixture(scope="session")
def samples() -> npt.NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(3, 16, 12, 3)).astype(np.float32) * 3
