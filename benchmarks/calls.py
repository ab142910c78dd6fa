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


def make_group(name: str) -> Group:
    cases: dict[str, Prepare] = {
        "Extractor": partial(prepare_extractor, name),
        "Extractor, with render_model": partial(prepare_extractor_grids, name),
    }
    cases |= {call: partial(prepare_call, name, call) for call in _CALLS}
    return Group(
        f"second and later calls: {name}, all layers with a spatial output",
        cases,
        (
            Target(
                "render_model of the model over that of an extractor",
                "render_model",
                "Extractor, with render_model",
                1.1,
            ),
            Target("list_layers over an extractor's call", "list_layers", "Extractor", 1.1),
        ),
    )


CALLS: dict[str, Group] = {
    **{f"calls-{name.lower()}": make_group(name) for name in _NETWORKS},
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
