"""Tests of GraphFunction, also with ``run_functions_eagerly(True)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import actgrid
from actgrid.callbacks import ActivationGrids
from actgrid.models.functions import GraphFunction
from actgrid.models.receptive_fields import compute_receptive_fields


@pytest.fixture
def run_functions_eagerly() -> Iterator[None]:
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def make_cnn() -> Any:
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.TimeDistributed(layers.Dense(4), name="rows"),
            layers.GlobalAveragePooling2D(name="average"),
            layers.Dense(3, activation="softmax", name="classes"),
        ]
    )


def extract(model: Any, x: Any) -> Any:
    return list(actgrid.Extractor(model, "*")(x).values())


def make_explain_run(method: str) -> Callable[[Any, Any], Any]:
    def run(model: Any, x: Any) -> Any:
        layer = "conv" if method in ("gradcam", "scorecam") else None
        return actgrid.explain(model, x, method, 1, layer).values

    return run


def differentiate(model: Any, x: Any) -> Any:
    result = actgrid.gradients(model, x, np.array([0, 2]), loss="sparse_categorical_crossentropy")
    return [*result.activations.values(), *result.weights.values(), result.loss]


RUNS: dict[str, Callable[[Any, Any], Any]] = {
    "extract": extract,
    "render": lambda model, x: actgrid.render_model(model, x, "conv")["conv"].levels,
    "diagram": lambda model, x: actgrid.diagram(model, x).to_rgb(),
    "measure": lambda model, x: actgrid.measure_images(model, x).layers["conv"].mean,
    "gradients": differentiate,
    "maximize": lambda model, x: actgrid.maximize(model, "conv", [1, 3], steps=3).inputs,
    **{
        method: make_explain_run(method)
        for method in ("gradcam", "scorecam", "saliency", "guided_backprop", "occlusion", "lime")
    },
}


@pytest.mark.parametrize("run", RUNS)
def test_results_do_not_change_when_functions_run_eagerly(
    run: str, request: pytest.FixtureRequest
) -> None:
    model, x = make_cnn(), np.random.default_rng(1).random((2, 12, 12, 3), np.float32)
    expected_results = RUNS[run](model, x)
    request.getfixturevalue("run_functions_eagerly")
    clone = keras.models.clone_model(model)  # has no compiled functions yet
    clone.set_weights(model.get_weights())
    for network in (model, clone):
        results = RUNS[run](network, x)
        for array, expected in zip(
            results if isinstance(results, list) else [results],
            expected_results if isinstance(expected_results, list) else [expected_results],
            strict=True,
        ):
            np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("run_functions_eagerly")
def test_list_layers_when_functions_run_eagerly() -> None:
    assert [info.path for info in actgrid.list_layers(make_cnn())][-2:] == ["average", "classes"]
    field = compute_receptive_fields(make_cnn(), layers="conv")["conv"]
    assert field is not None
    assert field.size == (3, 3)


@pytest.mark.filterwarnings("ignore:.*does not apply to tf.data functions")  # raised by Keras
@pytest.mark.usefixtures("run_functions_eagerly")
def test_callbacks_when_functions_run_eagerly(tmp_path: Any) -> None:
    model, x = make_cnn(), np.random.default_rng(1).random((4, 12, 12, 3), np.float32)
    model.compile("sgd", "sparse_categorical_crossentropy")
    grids = ActivationGrids(x[:1], "conv", folder=tmp_path)
    model.fit(x, np.array([0, 1, 2, 0]), epochs=1, verbose=0, callbacks=[grids])
    (picture,) = tmp_path.rglob("*.png")
    with Image.open(picture) as image:
        levels = np.asarray(image)
    np.testing.assert_array_equal(levels, actgrid.render_model(model, x[:1])["conv"].levels)


def test_graph_is_traced_once_per_signature() -> None:
    function = GraphFunction(lambda inputs: {"twice": inputs["x"] * 2}, relax_shapes=True)
    for count, traces in ((2, 1), (2, 1), (3, 2), (4, 2)):
        outputs = function({"x": tf.ones((count, 3)), "none": None})
        np.testing.assert_array_equal(outputs["twice"], np.full((count, 3), 2))
        assert function.trace_count == traces
    exact = GraphFunction(lambda inputs: inputs + 1)
    exact.trace(tf.TensorSpec((None, 2)))
    for count in (1, 2, 3):
        np.testing.assert_array_equal(exact(tf.zeros((count, 2))), np.ones((count, 2)))
    assert exact.trace_count == 1
