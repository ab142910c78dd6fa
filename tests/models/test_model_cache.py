"""Values that are cached with a model: traced once, until the model changes."""

from __future__ import annotations

import gc
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import actgrid
from actgrid.models import compute_receptive_fields
from actgrid.models.graph import build_layer_graph
from actgrid.models.model_cache import cache_with_model

LOSS = "sparse_categorical_crossentropy"


class Subclassed(keras.Model):  # type: ignore[misc]
    """A model whose code depends on attributes of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(3, 3, activation="relu", name="conv")
        self.blocks = [layers.Flatten(name="flat")]
        self.head = layers.Dense(2, activation="softmax", name="head")
        self.scale = 2.0
        self.factors = [1.0]
        self.settings = SimpleNamespace(shift=0.0)
        self.last: Any = None

    def call(self, x: Any) -> Any:
        x = self.conv(x) * self.scale * self.factors[0] + self.settings.shift
        self.last = x  # as models do that show their attention scores
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def make_functional() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, activation="relu", activity_regularizer="l2", name="conv")(inputs)
    x = layers.Dropout(0.5, name="drop")(layers.Flatten(name="flat")(x))
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="head")(x))


def make_subclassed() -> Any:
    keras.utils.set_random_seed(0)
    return Subclassed()


MODELS = {"functional": make_functional, "subclassed": make_subclassed}
x = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
y = np.array([0, 1])
image = Image.fromarray((x[0] * 255).astype(np.uint8))


def render_to_files(model: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        actgrid.render_images(model, [image], output=Path(folder) / "run")


FUNCTIONS: dict[str, Callable[[Any], object]] = {
    "list_layers": lambda model: actgrid.list_layers(model),
    "list_layers, input": lambda model: actgrid.list_layers(model, x),
    "render_model": lambda model: actgrid.render_model(model, x),
    "render_model, predicate": lambda model: actgrid.render_model(
        model, x, lambda layer: layer.name == "conv"
    ),
    "render_model, image": lambda model: actgrid.render_model(model, image),
    "render_model, device": lambda model: actgrid.render_model(model, x, backend="tensorflow"),
    "diagram": lambda model: actgrid.diagram(model),
    "diagram, input": lambda model: actgrid.diagram(model, x),
    "gradients": lambda model: actgrid.gradients(model, x, y, loss=LOSS),
    "maximize": lambda model: actgrid.maximize(model, "conv", [0], steps=2),
    "explain": lambda model: actgrid.explain(model, x),
    "explain, occlusion": lambda model: actgrid.explain(model, x, "occlusion", patch=4),
    "measure_images": lambda model: actgrid.measure_images(model, [image]),
    "render_images": render_to_files,
    "build_layer_graph": lambda model: build_layer_graph(model),
    "compute_receptive_fields": lambda model: compute_receptive_fields(model),
}


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record each trace of the layer ``conv`` of a model."""
    recorded: list[str] = []
    original = layers.Conv2D.call

    def call(self: Any, inputs: Any) -> Any:
        if not tf.executing_eagerly() and isinstance(inputs, tf.Tensor):
            recorded.append(self.name)
        return original(self, inputs)

    monkeypatch.setattr(layers.Conv2D, "call", call)
    return recorded


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_call_does_not_trace_the_model(name: str, kind: str, traces: list[str]) -> None:
    model, function = MODELS[kind](), FUNCTIONS[name]
    model(x)
    function(model)
    traces.clear()
    function(model)
    assert traces == []


@pytest.mark.parametrize("kind", MODELS)
def test_training_and_saving_keep_the_cache(kind: str, traces: list[str], tmp_path: Path) -> None:
    model = MODELS[kind]()
    model(x)
    first = actgrid.render_model(model, x, "conv")["conv"]
    cached = object()
    assert cache_with_model(model, "key", lambda: cached) is cached
    model.compile("sgd", LOSS, metrics=["accuracy"])
    model.fit(x, y, epochs=2, verbose=0)
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    model.summary(print_fn=lambda text: None)
    traces.clear()
    if kind == "functional":  # the code of the other model stores its activations
        assert cache_with_model(model, "key", object) is cached
    trained = actgrid.render_model(model, x, "conv")["conv"]
    if kind == "functional":
        assert traces == []
    # The weights after training are used.
    expected = actgrid.Extractor(model, "conv")(x)["conv"]
    np.testing.assert_array_equal(trained.levels, actgrid.render(expected, backend="auto").levels)
    assert not np.array_equal(trained.stats.mean, first.stats.mean)


def change_activation(model: Any) -> None:
    model.get_layer("conv").activation = keras.activations.tanh


def change_scale(model: Any) -> None:
    model.scale = -3.0


def change_list(model: Any) -> None:
    model.factors[0] = 5.0


def change_settings(model: Any) -> None:
    model.settings.shift = 7.0


def replace_weights(model: Any) -> None:
    model.get_layer("conv").enable_lora(2)
    model.get_layer("conv").lora_kernel_b.assign(np.ones((2, 3)))


CHANGES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "activation": ("functional", change_activation),
    "activation of an attribute": ("subclassed", change_activation),
    "attribute": ("subclassed", change_scale),
    "list": ("subclassed", change_list),
    "object": ("subclassed", change_settings),
    "weights": ("functional", replace_weights),
}


def score_first_class(outputs: Any) -> Any:
    return outputs[:, 0]


@pytest.mark.parametrize("name", CHANGES)
def test_changed_model_is_traced_again(name: str) -> None:
    kind, change = CHANGES[name]
    model = MODELS[kind]()
    model(x)
    for layer_paths in ("*", "head"):
        actgrid.render_model(model, x, layer_paths)
    actgrid.gradients(model, x, y, "*", loss=LOSS)
    actgrid.explain(model, x, "saliency", score_first_class)
    change(model)
    expected = actgrid.Extractor(model, "head")(x)["head"]
    np.testing.assert_array_equal(expected, model(x))
    np.testing.assert_array_equal(
        actgrid.render_model(model, x, "head", normalize="range(0, 1)")["head"].levels,
        actgrid.render(expected, normalize="range(0, 1)").levels,
    )
    loss = keras.losses.get(LOSS)(y, model(x))
    assert actgrid.gradients(model, x, y, "*", loss=LOSS).loss == pytest.approx(np.mean(loss))
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        score = score_first_class(model(inputs))
    np.testing.assert_allclose(
        actgrid.explain(model, x, "saliency", score_first_class).values,
        np.abs(tape.gradient(score, inputs)).max(-1),
        rtol=1e-4,
        atol=1e-7,
    )


def test_layers_added_to_a_sequential_model_are_listed_and_drawn() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3, name="first")])
    assert list(actgrid.render_model(model, x)) == ["first"]
    model.add(layers.Conv2D(2, 3, name="second"))
    assert list(actgrid.render_model(model, x)) == ["first", "second"]
    assert [info.path for info in actgrid.list_layers(model)] == ["first", "second"]
    assert len(actgrid.diagram(model).boxes) == 3
    model.pop()
    assert list(actgrid.render_model(model, x)) == ["first"]
    assert [info.path for info in actgrid.list_layers(model)] == ["first"]


def test_predicate_with_a_changed_result_selects_other_layers() -> None:
    model, names = make_functional(), ["conv"]

    def is_named(layer: Any) -> bool:
        return layer.name in names

    assert list(actgrid.render_model(model, x, is_named)) == ["conv"]
    names[:] = ["flat", "head"]
    assert list(actgrid.render_model(model, x, is_named)) == ["flat", "head"]


def test_model_that_is_built_by_the_first_call_is_not_traced_again(traces: list[str]) -> None:
    model = make_subclassed()
    first = actgrid.render_model(model, x)
    traces.clear()
    second = actgrid.render_model(model, x)
    assert traces == []
    np.testing.assert_array_equal(first["conv"].levels, second["conv"].levels)


def test_cache_does_not_keep_the_model_alive() -> None:
    model = make_functional()
    for function in FUNCTIONS.values():
        function(model)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_number_of_cached_values_is_limited() -> None:
    model = make_functional()
    for key in range(100):
        cache_with_model(model, key, lambda key=key: key)  # type: ignore[misc]
    recomputed: list[int] = []
    for key in (99, 68, 67, 0):
        cache_with_model(model, key, lambda key=key: recomputed.append(key))  # type: ignore[misc]
    assert recomputed == [67, 0]
