"""Training with pictures of every epoch: what they add to it."""

from __future__ import annotations

import contextlib
import io
import statistics
from collections.abc import Callable
from functools import cache, partial
from time import perf_counter
from typing import Any

import numpy as np

from actgrid.callbacks import ActivationGrids, ChannelHealth
from benchmarks.suite import Group, Target
from benchmarks.workload import Array, folder

__all__ = ["CALLBACKS"]

_BATCH = 32
# Short epochs, in turn with those of others: in long ones the machine's moods hide a few
# milliseconds. What a callback adds at the end of one does not depend on its length.
_BATCHES = 50
_EPOCHS = 8
# An epoch of CIFAR-10, of 50,000 images, has so many.
_TUTORIAL = 1563
_SAMPLES = 4
_LAYERS = ["conv2d", "max_pooling2d", "conv2d_1", "max_pooling2d_1", "conv2d_2"]


@cache
def network() -> Any:
    """Return the network of TensorFlow's tutorial on CNNs, for 32 x 32 images."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu", name=_LAYERS[0]),
            layers.MaxPooling2D(name=_LAYERS[1]),
            layers.Conv2D(64, 3, activation="relu", name=_LAYERS[2]),
            layers.MaxPooling2D(name=_LAYERS[3]),
            layers.Conv2D(64, 3, activation="relu", name=_LAYERS[4]),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


@cache
def images() -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    count = _BATCH * _BATCHES
    return random.random((count, 32, 32, 3), np.float32), random.integers(0, 10, count)


def epoch(make: Callable[[], list[Any]]) -> Callable[[], float]:
    """Train some epochs with callbacks, and return the median of their milliseconds.

    But for the first one: in every other, what the one before has left is written beside the
    training, and its own is taken at the end.
    """
    import keras

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.times.append(perf_counter())

    x, y = images()
    callbacks = make()

    def run() -> float:
        clock = Clock()
        with contextlib.redirect_stdout(io.StringIO()):  # tf-explain's progress bars
            network().fit(
                x, y, _BATCH, epochs=_EPOCHS + 1, verbose=0, callbacks=[*callbacks, clock]
            )
        return statistics.median(np.diff(clock.times)) * 1e3

    return run


def grids() -> list[Any]:
    x, _ = images()
    return [ActivationGrids(x[:_SAMPLES], _LAYERS, log_dir=folder() / "callbacks" / "grids")]


def health() -> list[Any]:
    x, _ = images()
    return [ChannelHealth(x[:64], _LAYERS, log_dir=folder() / "callbacks" / "health", lost=1)]


def tf_explain() -> list[Any]:
    """Return tf-explain's, one for each layer: it draws one, of all samples in one picture."""
    from tf_explain.callbacks.activations_visualization import ActivationsVisualizationCallback

    x, _ = images()
    logs = folder() / "callbacks" / "tf-explain"
    return [
        ActivationsVisualizationCallback((x[:_SAMPLES], None), [layer], logs) for layer in _LAYERS
    ]


def of_an_epoch(ours: float, alone: float) -> float:
    """Return what is added at the end of an epoch, in percent of the tutorial's."""
    return 100 * (ours - alone) / (alone * _TUTORIAL / _BATCHES)


CALLBACKS = Group(
    f"epoch of {_BATCHES} batches of {_BATCH}, CIFAR-10 tutorial's network, 5 layers, "
    f"{_SAMPLES} samples",
    {
        "no callback": partial(epoch, list),
        "ActivationGrids": partial(epoch, grids),
        "ChannelHealth, 64 samples": partial(epoch, health),
        "tf-explain's callback": partial(epoch, tf_explain),
    },
    (
        Target(
            "ActivationGrids, of the tutorial's epoch",
            *("ActivationGrids", "no callback", 2),
            how=of_an_epoch,
            unit="%",
        ),
    ),
    unit="ms an epoch",
)
