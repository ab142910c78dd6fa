"""Benchmarks of callbacks: the time that they add to the epochs of a training."""

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
# Short epochs: in long epochs, noise exceeds the few milliseconds that a callback adds at the end
# of an epoch, whose length does not matter.
_BATCHES = 50
_EPOCHS = 8
# Batches in an epoch of CIFAR-10 (50,000 images).
_CIFAR10_BATCHES = 1563
_SAMPLES = 4
_LAYERS = ["conv2d", "max_pooling2d", "conv2d_1", "max_pooling2d_1", "conv2d_2"]


@cache
def get_network() -> Any:
    """Return the network of TensorFlow's CNN tutorial, for images of 32 x 32 pixels."""
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
def get_data() -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    count = _BATCH * _BATCHES
    return random.random((count, 32, 32, 3), np.float32), random.integers(0, 10, count)


def prepare_epochs(make_callbacks: Callable[[], list[Any]]) -> Callable[[], float]:
    """Prepare a training that returns the median milliseconds of an epoch.

    The first epoch is not counted: from the second epoch on, the results of the previous epoch
    are written during the training.
    """
    import keras

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.times.append(perf_counter())

    x, y = get_data()
    callbacks = make_callbacks()

    def run() -> float:
        clock = Clock()
        with contextlib.redirect_stdout(io.StringIO()):  # tf-explain's progress bars
            get_network().fit(
                x, y, _BATCH, epochs=_EPOCHS + 1, verbose=0, callbacks=[*callbacks, clock]
            )
        return statistics.median(np.diff(clock.times)) * 1e3

    return run


def make_grids_callback() -> list[Any]:
    x, _ = get_data()
    return [ActivationGrids(x[:_SAMPLES], _LAYERS, log_dir=folder() / "callbacks" / "grids")]


def make_health_callback() -> list[Any]:
    x, _ = get_data()
    return [
        ChannelHealth(
            x[:64], _LAYERS, log_dir=folder() / "callbacks" / "health", max_lost_fraction=1
        )
    ]


def make_tf_explain_callbacks() -> list[Any]:
    """Return a callback of tf-explain for each layer: it draws only one layer."""
    from tf_explain.callbacks.activations_visualization import ActivationsVisualizationCallback

    x, _ = get_data()
    logs = folder() / "callbacks" / "tf-explain"
    return [
        ActivationsVisualizationCallback((x[:_SAMPLES], None), [layer], logs) for layer in _LAYERS
    ]


def compute_overhead(ours: float, reference: float) -> float:
    """Return the added time of an epoch as a percentage of a CIFAR-10 epoch."""
    return 100 * (ours - reference) / (reference * _CIFAR10_BATCHES / _BATCHES)


CALLBACKS = Group(
    f"epoch of {_BATCHES} batches of {_BATCH}, CIFAR-10 tutorial's network, 5 layers, "
    f"{_SAMPLES} samples",
    {
        "no callback": partial(prepare_epochs, list),
        "ActivationGrids": partial(prepare_epochs, make_grids_callback),
        "ChannelHealth, 64 samples": partial(prepare_epochs, make_health_callback),
        "tf-explain's callback": partial(prepare_epochs, make_tf_explain_callbacks),
    },
    (
        Target(
            "ActivationGrids, of the tutorial's epoch",
            *("ActivationGrids", "no callback", 2),
            compare=compute_overhead,
            unit="%",
        ),
    ),
    unit="ms an epoch",
)
