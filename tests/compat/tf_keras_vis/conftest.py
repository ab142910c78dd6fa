"""Fixtures: small networks and their inputs."""

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
    """Return a classifier, which tests may modify."""
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
    """Return a function that makes a network of sequences or volumes, and two inputs."""

    def make_network(
        sides: tuple[int, ...], data_format: str
    ) -> tuple[Any, npt.NDArray[np.float32]]:
        keras.utils.set_random_seed(24)
        rank = len(sides)
        shape = (*sides, 2) if data_format == "channels_last" else (2, *sides)
        convolution = getattr(layers, f"Conv{rank}D")
        pooling = getattr(layers, f"GlobalAveragePooling{rank}D")
        inputs = keras.Input(shape)
        x = convolution(4, 3, activation="relu", name="conv", data_format=data_format)(inputs)
        # With these weights, gradients vary between positions and are mostly positive.
        mostly_positive = keras.initializers.RandomUniform(-0.1, 0.3)
        positions = layers.Dense(3, kernel_initializer=mostly_positive)(layers.Flatten()(x))
        mean = layers.Dense(3, kernel_initializer=mostly_positive)(
            pooling(data_format=data_format)(x)
        )
        model = keras.Model(inputs, layers.Add()([positions, mean]))
        return model, np.random.default_rng(25).random((2, *shape), np.float32)

    return make_network
