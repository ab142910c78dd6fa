"""Fixtures: a small CNN, its data, and readers of TensorBoard events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def _set_seed() -> None:
    keras.utils.set_random_seed(20)


@pytest.fixture
def cnn() -> Callable[[], Any]:
    """Return a function that makes a small CNN with batch normalization and dropout.

    The CNN takes 8 x 8 images and has three classes.
    """

    def make_cnn() -> Any:
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3, activation="relu", name="conv"),
                layers.BatchNormalization(name="norm"),
                layers.MaxPooling2D(name="pool"),
                layers.Dropout(0.3, name="dropout"),
                layers.Flatten(name="flatten"),
                layers.Dense(3, activation="softmax", name="classes"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    return make_cnn


@pytest.fixture
def x() -> Array:
    return np.random.default_rng(1).random((12, 8, 8, 3), np.float32)


@pytest.fixture
def y() -> Array:
    return np.arange(12) % 3


@pytest.fixture
def read_images() -> Callable[[Path], dict[str, dict[int, list[bytes]]]]:
    """Return a function that reads image summaries: tag -> step -> files."""

    def read(folder: Path) -> dict[str, dict[int, list[bytes]]]:
        summaries: dict[str, dict[int, list[bytes]]] = {}
        events = _read_events(folder)
        for tag in events.Tags()["tensors"]:
            assert events.SummaryMetadata(tag).plugin_data.plugin_name == "images"
            summaries[tag] = {
                event.step: list(event.tensor_proto.string_val[2:]) for event in events.Tensors(tag)
            }
        return summaries

    return read


@pytest.fixture
def read_numbers() -> Callable[[Path], dict[str, dict[int, Array]]]:
    """Return a function that reads scalars and histograms: tag -> step -> array."""

    def read(folder: Path) -> dict[str, dict[int, Array]]:
        from tensorboard.util import tensor_util

        events = _read_events(folder)
        return {
            tag: {
                event.step: tensor_util.make_ndarray(event.tensor_proto)
                for event in events.Tensors(tag)
            }
            for tag in events.Tags()["tensors"]
        }

    return read


def _read_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events
