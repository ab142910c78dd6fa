"""A small network, and images for it."""

from __future__ import annotations

from collections.abc import Callable
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


@pytest.fixture
def spatial_network() -> Callable[[tuple[int, ...], str], tuple[Any, npt.NDArray[np.float32]]]:
    """Return a function that makes a network of sequences or volumes of these sides, and two."""

    def make(sides: tuple[int, ...], data_format: str) -> tuple[Any, npt.NDArray[np.float32]]:
        keras.utils.set_random_seed(24)
        rank = len(sides)
        shape = (*sides, 2) if data_format == "channels_last" else (2, *sides)
        convolution = getattr(layers, f"Conv{rank}D")
        pooling = getattr(layers, f"GlobalAveragePooling{rank}D")
        inputs = keras.Input(shape)
        x = convolution(4, 3, activation="relu", name="conv", data_format=data_format)(inputs)
        # Gradients that differ from place to place, and mostly are positive.
        mostly_positive = keras.initializers.RandomUniform(-0.1, 0.3)
        places = layers.Dense(3, kernel_initializer=mostly_positive)(layers.Flatten()(x))
        mean = layers.Dense(3, kernel_initializer=mostly_positive)(
            pooling(data_format=data_format)(x)
        )
        model = keras.Model(inputs, layers.Add()([places, mean]))
        return model, np.random.default_rng(25).random((2, *shape), np.float32)

    return make
