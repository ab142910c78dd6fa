"""Fixtures: a small network and images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers


@pytest.fixture(scope="package")
def network() -> Any:
    """Return a classifier that ends in a softmax layer."""
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(6, 3, activation="relu", name="first"),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(5, name="scores"),
            layers.Activation("softmax", name="softmax"),
        ]
    )


@pytest.fixture(scope="package")
def images() -> npt.NDArray[np.float32]:
    return np.random.default_rng(5).random((3, 12, 12, 3), np.float32)
