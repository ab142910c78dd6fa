"""A small network, and images for it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers


@pytest.fixture
def network() -> Any:
    """A classifier; tests change it."""
    keras.utils.set_random_seed(14)
    inputs = keras.Input((10, 10, 3), name="image")
    x = layers.Conv2D(6, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(5, 3, activation="relu", name="conv")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="out")(x), name="net")


@pytest.fixture
def images() -> npt.NDArray[np.float32]:
    return np.random.default_rng(15).random((3, 10, 10, 3), np.float32)
