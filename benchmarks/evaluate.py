"""Benchmark of metrics: deletion and insertion against Keras predictions."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import actgrid
from actgrid.bench import Run
from benchmarks.explain import get_images, get_network
from benchmarks.suite import Group, Target
from benchmarks.workload import Array

__all__ = ["EVALUATE"]

_IMAGES, _STEPS, _CLASS, _BATCH = 32, 100, 285, 32


@cache
def get_maps() -> Array:
    maps: Array = actgrid.explain(get_network(), get_images(), "gradcam", _CLASS).resize(224, 224)
    return maps


def prepare_evaluation(images: int = _IMAGES) -> Run:
    """Prepare deletion and insertion of images in 100 steps."""
    x, maps = get_images(), get_maps()

    def run(count: int = images) -> None:
        actgrid.evaluate(get_network(), x[:count], maps[:count], target=_CLASS, steps=_STEPS)

    run(1)  # compile before timing
    return run


def predict_perturbed_images() -> Run:
    """Prepare Keras predictions of the images that deletion shows, in advance, twice."""
    x, maps = get_images(), get_maps()
    ranks = np.argsort(np.argsort(-maps.reshape(len(maps), -1), 1), 1).reshape(maps.shape)
    counts = np.linspace(0, ranks[0].size, _STEPS + 1)
    means = x.mean((1, 2), keepdims=True)
    perturbed = np.empty((_STEPS + 1, *x.shape), np.float32)
    for step, count in enumerate(counts):
        perturbed[step] = np.where(ranks[..., None] < count, means, x)
    images = perturbed.reshape(-1, *x.shape[1:])

    def run() -> None:
        network: Any = get_network()
        for _ in ("deletion", "insertion"):
            network.predict(images, batch_size=_BATCH, verbose=0)

    return run


EVALUATE = Group(
    f"deletion and insertion of {_IMAGES} images in {_STEPS} steps, EfficientNet-Lite0",
    {
        "evaluate": prepare_evaluation,
        "model.predict of the perturbed images": predict_perturbed_images,
    },
    (
        Target(
            "evaluate over predict", "evaluate", "model.predict of the perturbed images", 1.2, 1.0
        ),
    ),
    max_rounds=3,
)
