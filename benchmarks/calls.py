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
_LOSS = "sparse_categorical_crossentropy"
# Function of a model and its input -> name.
_CALLS: dict[str, Callable[[Any, Array], object]] = {
    "render_model": lambda model, x: actgrid.render_model(model, x),
    "diagram": lambda model, x: actgrid.diagram(model, x),
    "list_layers": lambda model, x: actgrid.list_layers(model),
    "gradients": lambda model, x: actgrid.gradients(model, x, np.zeros(1, int), loss=_LOSS),
    "maximize": lambda model, x: actgrid.maximize(model, "predictions", [0], steps=1),
}


def make_model(name: str) -> Any:
    import keras

    return getattr(keras.applications, name)(weights=None)


get_model = cache(make_model)
get_extractor = cache(lambda name: actgrid.Extractor(get_model(name)))


@cache
def make_input() -> Array:
    return np.random.default_rng(0).random((1, 224, 224, 3), np.float32)


def prepare_extractor(name: str) -> Run:
    return partial(get_extractor(name), make_input())


def prepare_extractor_grids(name: str) -> Run:
    return partial(actgrid.render_model, get_extractor(name), make_input())


def prepare_call(name: str, call: str) -> Run:
    return partial(_CALLS[call], get_model(name), make_input())


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


def make_cases(name: str) -> dict[str, Prepare]:
    cases: dict[str, Prepare] = {
        f"{name}: Extractor": partial(prepare_extractor, name),
        f"{name}: render_model of the extractor": partial(prepare_extractor_grids, name),
    }
    return cases | {f"{name}: {call}": partial(prepare_call, name, call) for call in _CALLS}


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
