"""Benchmarks of comparisons of two models, and of the ablation of channels."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np

import actgrid
from actgrid.bench import Run
from benchmarks.explain import get_images, get_network
from benchmarks.suite import Group, Target

__all__ = ["ABLATION", "COMPARISON"]

_IMAGES, _BATCH, _CLASS = 32, 8, 285
_LAYER = "block14_add"


@cache
def get_changed_network() -> Any:
    """Return a copy of the network with other weights."""
    network = get_network()
    changed = keras.models.clone_model(network)
    changed.set_weights([weight * np.float32(0.99) for weight in network.get_weights()])
    return changed


def prepare_comparison() -> Run:
    """Prepare a comparison of all channels of two models."""

    def run(count: int = _IMAGES) -> None:
        actgrid.compare_models(
            get_network(),
            get_changed_network(),
            get_images()[:count],
            batch_size=_BATCH,
            progress=False,
        )

    run(_BATCH)  # compile before timing
    return run


def prepare_measurements() -> Run:
    """Prepare statistics of all channels of each model, one after the other."""

    def run(count: int = _IMAGES) -> None:
        for network in (get_network(), get_changed_network()):
            actgrid.measure_images(
                network,
                list(get_images()[:count]),
                preprocess="prepared",
                batch_size=_BATCH,
                progress=False,
            )

    run(_BATCH)
    return run


def prepare_ablation() -> Run:
    """Prepare the ablation of all channels of a layer for one image."""

    def run() -> None:
        actgrid.ablate_channels(get_network(), get_images()[:1], _LAYER, _CLASS, progress=False)

    run()
    return run


def predict_without_channels() -> Run:
    """Prepare as many Keras predictions of the complete network as the layer has channels."""
    network = get_network()
    channels = network.get_layer(_LAYER).output.shape[-1]
    images = np.repeat(get_images()[:1], channels, 0)

    def run() -> None:
        network.predict(images, batch_size=32, verbose=0)

    run()
    return run


COMPARISON = Group(
    f"comparison of all channels of two networks, {_IMAGES} images, EfficientNet-Lite0",
    {
        "compare_models": prepare_comparison,
        "measure_images of each network": prepare_measurements,
    },
    (
        Target(
            "comparison over measurements",
            "compare_models",
            "measure_images of each network",
            2.5,
            2.0,
        ),
    ),
    max_rounds=5,
)

ABLATION = Group(
    f"ablation of the channels of {_LAYER} for one image, EfficientNet-Lite0",
    {
        "ablate_channels": prepare_ablation,
        "model.predict for each channel": predict_without_channels,
    },
    (
        Target(
            "ablation over predictions",
            "ablate_channels",
            "model.predict for each channel",
            0.2,
            0.1,
        ),
    ),
    max_rounds=5,
)
