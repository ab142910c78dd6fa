"""Benchmarks of repeated calls of functions that take a model, and of their first call."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

import actgrid
from actgrid.bench import Prepare, Run
from benchmarks.suite import Group, Target
from benchmarks.workload import Array

__all__ = ["CALLS"]

_NETWORKS = ("MobileNetV2", "DenseNet121")
_CALLS_PER_RUN = 3
_LOSS = "sparse_categorical_crossentropy"


def make_model(name: str) -> Any:
    import keras

    return getattr(keras.applications, name)(weights=None)


get_model = cache(make_model)
get_extractor = cache(lambda name: actgrid.Extractor(get_model(name)))


@cache
def make_input() -> Array:
    return np.random.default_rng(0).random((1, 224, 224, 3), np.float32)


def prepare_loop(name: str, call: Callable[[Any, Array], object], has_extractor: bool) -> Run:
    model, x = get_extractor(name) if has_extractor else get_model(name), make_input()

    def run() -> None:
        for _ in range(_CALLS_PER_RUN):
            call(model, x)

    return run


def run_first_call(name: str) -> None:
    actgrid.Extractor(make_model(name))(make_input())


def run_plain_first_call(name: str) -> None:
    """Trace and run a Keras model of all layer outputs, as users write it themselves."""
    import keras
    import tensorflow as tf

    model = make_model(name)
    outputs = keras.Model(model.inputs, [layer.output for layer in model.layers])
    for tensor in tf.function(lambda x: outputs(x, training=False))(make_input()):
        np.asarray(tensor)


def list_layers(model: Any, x: Array) -> object:
    return actgrid.list_layers(model)


def compute_gradients(model: Any, x: Array) -> object:
    return actgrid.gradients(model, x, np.zeros(1, int), loss=_LOSS)


def maximize_class(model: Any, x: Array) -> object:
    return actgrid.maximize(model, "predictions", [0], steps=1)


def make_cases(name: str) -> dict[str, Prepare]:
    # The first call of each case runs another graph than the case before, which takes longer than a
    # further run of the same graph.
    calls: dict[str, tuple[Callable[[Any, Array], object], bool]] = {
        "Extractor": (actgrid.Extractor.__call__, True),
        "gradients": (compute_gradients, False),
        "render_model of the extractor": (actgrid.render_model, True),
        "diagram": (actgrid.diagram, False),
        "render_model": (actgrid.render_model, False),
        "list_layers": (list_layers, False),
        "maximize": (maximize_class, False),
    }
    return {
        f"{name}: {title}": partial(prepare_loop, name, *arguments)
        for title, arguments in calls.items()
    }


def make_targets(name: str) -> list[Target]:
    return [
        Target(
            f"{name}: render_model of the model over that of the extractor",
            f"{name}: render_model",
            f"{name}: render_model of the extractor",
            1.1,
        ),
        Target(
            f"{name}: list_layers over an extractor's call",
            f"{name}: list_layers",
            f"{name}: Extractor",
            1.1,
        ),
    ]


CALLS: dict[str, Group] = {
    "calls": Group(
        "second and later calls, all layers with a spatial output",
        {case: prepare for name in _NETWORKS for case, prepare in make_cases(name).items()},
        tuple(target for name in _NETWORKS for target in make_targets(name)),
        count={case: _CALLS_PER_RUN for name in _NETWORKS for case in make_cases(name)},
    ),
    "first-call": Group(
        "first call, with the construction of the model",
        {
            f"{name}, {title}": partial(partial, run, name)
            for name in (*_NETWORKS, "NASNetMobile")
            for title, run in (("keras.Model", run_plain_first_call), ("actgrid", run_first_call))
        },
        tuple(
            Target(
                f"{name}: actgrid over keras.Model of all layers",
                f"{name}, actgrid",
                f"{name}, keras.Model",
                2,
            )
            for name in (*_NETWORKS, "NASNetMobile")
        ),
        max_rounds=1,
    ),
}
