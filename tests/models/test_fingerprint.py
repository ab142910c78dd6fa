from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from actgrid.models.fingerprint import fingerprint


def network(
    *, kernel: int = 3, activation: str = "relu", bias: float = 0.0, name: str | None = None
) -> Any:
    """A model with the same weights each time, whose own name and its input's Keras counts."""
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


def wired(crossed: bool) -> Any:
    """Two convolutions of equal shapes, one after the other, in either order."""
    x = inputs = keras.Input((8, 8, 4))
    seeds = {"first": 1, "second": 2}
    for name in reversed(seeds) if crossed else seeds:
        initializer = keras.initializers.GlorotUniform(seed=seeds[name])
        x = layers.Conv2D(4, 3, padding="same", kernel_initializer=initializer, name=name)(x)
    return keras.Model(inputs, x)


def skipped(after: bool) -> Any:
    """A connection that skips one layer or none: the same layers and weights."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(2.0, name="scale")(inputs)
    y = layers.Rescaling(3.0, name="more")(x)
    return keras.Model(inputs, layers.Add(name="add")([y, x if after else inputs]))


def test_it_is_32_digits() -> None:
    found = fingerprint(network())
    assert len(found) == 32
    assert int(found, 16) >= 0


@pytest.mark.parametrize("build", [network, lambda: wired(False), lambda: skipped(True)])
def test_the_same_model_made_again_has_the_same(build: Callable[[], Any]) -> None:
    first, second = build(), build()
    # Keras has counted them on.
    assert first.name != second.name
    assert first.inputs[0].name != second.inputs[0].name
    assert fingerprint(first) == fingerprint(second)


def test_it_is_the_same_after_saving_and_loading(tmp_path: Any) -> None:
    model = network(name="saved")
    model.save(tmp_path / "model.keras")
    keras.Input((3,))  # counted between
    assert fingerprint(keras.models.load_model(tmp_path / "model.keras")) == fingerprint(model)


def test_running_a_model_does_not_change_it() -> None:
    model = network()
    before = fingerprint(model)
    model(np.ones((2, 8, 8, 3)), training=True)  # which moves the seeds of the dropout
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    "changed",
    [{"kernel": 5}, {"activation": "elu"}, {"bias": 0.5}],
    ids=str,
)
def test_other_options_and_weights_have_another(changed: dict[str, Any]) -> None:
    assert fingerprint(network(**changed)) != fingerprint(network())


def test_one_changed_weight_changes_it() -> None:
    model = network()
    before = fingerprint(model)
    kernel, bias = model.layers[0].get_weights()
    kernel[1, 2, 0, 3] = np.nextafter(kernel[1, 2, 0, 3], np.float32(1))
    model.layers[0].set_weights([kernel, bias])
    assert fingerprint(model) != before


def test_names_of_layers_count() -> None:
    one, other = (
        keras.Sequential([keras.Input((4, 4, 3)), layers.ReLU(name=name)]) for name in ("a", "b")
    )
    assert fingerprint(one) != fingerprint(other)


def test_wiring_counts() -> None:
    assert fingerprint(wired(True)) != fingerprint(wired(False))
    assert fingerprint(skipped(True)) != fingerprint(skipped(False))


def test_weights_of_any_dtype_and_shape_count() -> None:
    def half(bias: float) -> Any:
        constant = keras.initializers.Constant(bias)
        layer = layers.Conv2D(2, 1, dtype="bfloat16", bias_initializer=constant, name="half")
        layer.kernel_initializer = keras.initializers.Ones()
        return keras.Sequential([keras.Input((4, 4, 3)), layer])

    assert fingerprint(half(1)) == fingerprint(half(1))
    assert fingerprint(half(1)) != fingerprint(half(1.0078125))  # the next one after it

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
    before = fingerprint(model)
    model.layers[0].count.assign([1, 2])
    changed = fingerprint(model)
    assert changed != before
    model.layers[0].factor.assign(2.0)
    assert fingerprint(model) not in (before, changed)


class Subclassed(keras.Model):  # type: ignore[misc]
    """It takes an argument that it does not tell of, so that Keras cannot describe it."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        ones = keras.initializers.Ones()
        self.conv = layers.Conv2D(2, kernel, kernel_initializer=ones, name="conv")

    def call(self, x: Any) -> Any:
        return self.conv(x)


def test_models_that_cannot_be_described_have_one() -> None:
    models = [Subclassed(kernel) for kernel in (3, 3, 5)]
    for model in models:
        model(np.zeros((1, 8, 8, 3)))
    same, again, other = map(fingerprint, models)
    assert same == again
    assert same != other
    models[0].conv.bias.assign([0, 1])
    assert fingerprint(models[0]) != same


class Strange(layers.Layer):  # type: ignore[misc]
    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(**options)
        self.strange = config

    def call(self, x: Any) -> Any:
        return x

    def get_config(self) -> Any:
        if isinstance(self.strange, Exception):
            raise self.strange
        return {**super().get_config(), "strange": self.strange}


@pytest.mark.parametrize(
    "config",
    [{1: "a", "b": 2}, {(1, 2): 3}, {1, 2}, object(), RuntimeError("cannot be told"), KeyError(1)],
    ids=lambda config: type(config).__name__,
)
def test_layers_of_ones_own_may_be_as_strange_as_they_like(config: Any) -> None:
    def build(options: Any) -> Any:
        conv = layers.Conv2D(2, 3, **options, kernel_initializer="ones", name="conv")
        return keras.Sequential([keras.Input((8, 8, 3)), Strange(config, name="own"), conv])

    assert fingerprint(build({})) == fingerprint(build({}))
    assert fingerprint(build({})) != fingerprint(build({"strides": 2}))
