"""Tests of `actgrid.models.fingerprint`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from actgrid.models.fingerprint import compute_fingerprint


def make_network(
    *, kernel: int = 3, activation: str = "relu", bias: float = 0.0, name: str | None = None
) -> Any:
    """Return a model with fixed weights, whose name and input name Keras numbers."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(
                4,
                kernel,
                activation=activation,
                kernel_initializer=keras.initializers.GlorotUniform(seed=1),
                bias_initializer=keras.initializers.Constant(bias),
                name="conv",
            ),
            layers.Dropout(0.5, name="dropout"),
            layers.MaxPooling2D(name="pool"),
        ],
        name=name,
    )


def make_chain(is_reversed: bool) -> Any:
    """Return two convolutions of equal shapes in sequence, in either order."""
    x = inputs = keras.Input((8, 8, 4))
    seeds = {"first": 1, "second": 2}
    for name in reversed(seeds) if is_reversed else seeds:
        initializer = keras.initializers.GlorotUniform(seed=seeds[name])
        x = layers.Conv2D(4, 3, padding="same", kernel_initializer=initializer, name=name)(x)
    return keras.Model(inputs, x)


def make_skip_model(skips_layer: bool) -> Any:
    """Return a model whose skip connection starts before or after a layer."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(2.0, name="scale")(inputs)
    y = layers.Rescaling(3.0, name="more")(x)
    return keras.Model(inputs, layers.Add(name="add")([y, x if skips_layer else inputs]))


def test_fingerprint_is_32_hexadecimal_digits() -> None:
    fingerprint = compute_fingerprint(make_network())
    assert len(fingerprint) == 32
    assert int(fingerprint, 16) >= 0


@pytest.mark.parametrize(
    "build", [make_network, lambda: make_chain(False), lambda: make_skip_model(True)]
)
def test_equal_models_have_equal_fingerprints(build: Callable[[], Any]) -> None:
    first, second = build(), build()
    # Keras has numbered the second model differently.
    assert first.name != second.name
    assert first.inputs[0].name != second.inputs[0].name
    assert compute_fingerprint(first) == compute_fingerprint(second)


def test_fingerprint_survives_saving_and_loading(tmp_path: Any) -> None:
    model = make_network(name="saved")
    model.save(tmp_path / "model.keras")
    keras.Input((3,))  # takes a number in between
    assert compute_fingerprint(
        keras.models.load_model(tmp_path / "model.keras")
    ) == compute_fingerprint(model)


def test_running_a_model_keeps_fingerprint() -> None:
    model = make_network()
    before = compute_fingerprint(model)
    model(np.ones((2, 8, 8, 3)), training=True)  # advances the seed of the dropout
    assert compute_fingerprint(model) == before


@pytest.mark.parametrize(
    "changed",
    [{"kernel": 5}, {"activation": "elu"}, {"bias": 0.5}],
    ids=str,
)
def test_options_and_weights_change_fingerprint(changed: dict[str, Any]) -> None:
    assert compute_fingerprint(make_network(**changed)) != compute_fingerprint(make_network())


def test_one_weight_changes_fingerprint() -> None:
    model = make_network()
    before = compute_fingerprint(model)
    kernel, bias = model.layers[0].get_weights()
    kernel[1, 2, 0, 3] = np.nextafter(kernel[1, 2, 0, 3], np.float32(1))
    model.layers[0].set_weights([kernel, bias])
    assert compute_fingerprint(model) != before


def test_layer_names_change_fingerprint() -> None:
    first, second = (
        keras.Sequential([keras.Input((4, 4, 3)), layers.ReLU(name=name)]) for name in ("a", "b")
    )
    assert compute_fingerprint(first) != compute_fingerprint(second)


def test_connections_change_fingerprint() -> None:
    assert compute_fingerprint(make_chain(True)) != compute_fingerprint(make_chain(False))
    assert compute_fingerprint(make_skip_model(True)) != compute_fingerprint(make_skip_model(False))


def test_weights_of_any_dtype_and_shape_change_fingerprint() -> None:
    def half(bias: float) -> Any:
        constant = keras.initializers.Constant(bias)
        layer = layers.Conv2D(2, 1, dtype="bfloat16", bias_initializer=constant, name="half")
        layer.kernel_initializer = keras.initializers.Ones()
        return keras.Sequential([keras.Input((4, 4, 3)), layer])

    assert compute_fingerprint(half(1)) == compute_fingerprint(half(1))
    assert compute_fingerprint(half(1)) != compute_fingerprint(
        half(1.0078125)
    )  # the next larger bfloat16

    class Scalar(layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.factor = self.add_weight(shape=(), initializer="ones")
            self.count = self.add_weight(
                shape=(2,), initializer="ones", dtype="int32", trainable=False
            )
            self.none = self.add_weight(shape=(0, 3), initializer="ones")

        def call(self, x: Any) -> Any:
            return x * self.factor

    model = keras.Sequential([keras.Input((4, 4, 3)), Scalar(name="scalar")])
    before = compute_fingerprint(model)
    model.layers[0].count.assign([1, 2])
    changed = compute_fingerprint(model)
    assert changed != before
    model.layers[0].factor.assign(2.0)
    assert compute_fingerprint(model) not in (before, changed)


class SubclassedModel(keras.Model):  # type: ignore[misc]
    """A model without a complete get_config, which Keras cannot describe."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        ones = keras.initializers.Ones()
        self.conv = layers.Conv2D(2, kernel, kernel_initializer=ones, name="conv")

    def call(self, x: Any) -> Any:
        return self.conv(x)


def test_models_without_config_have_fingerprints() -> None:
    models = [SubclassedModel(kernel) for kernel in (3, 3, 5)]
    for model in models:
        model(np.zeros((1, 8, 8, 3)))
    first, second, third = map(compute_fingerprint, models)
    assert first == second
    assert first != third
    models[0].conv.bias.assign([0, 1])
    assert compute_fingerprint(models[0]) != first


class CustomConfigLayer(layers.Layer):  # type: ignore[misc]
    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(**options)
        self.config_value = config

    def call(self, x: Any) -> Any:
        return x

    def get_config(self) -> Any:
        if isinstance(self.config_value, Exception):
            raise self.config_value
        return {**super().get_config(), "config_value": self.config_value}


@pytest.mark.parametrize(
    "config",
    [
        {1: "a", "b": 2},
        {(1, 2): 3},
        {1, 2},
        object(),
        RuntimeError("cannot be described"),
        KeyError(1),
    ],
    ids=lambda config: type(config).__name__,
)
def test_custom_layers_with_any_config(config: Any) -> None:
    def build(options: Any) -> Any:
        conv = layers.Conv2D(2, 3, **options, kernel_initializer="ones", name="conv")
        return keras.Sequential(
            [keras.Input((8, 8, 3)), CustomConfigLayer(config, name="own"), conv]
        )

    assert compute_fingerprint(build({})) == compute_fingerprint(build({}))
    assert compute_fingerprint(build({})) != compute_fingerprint(build({"strides": 2}))
