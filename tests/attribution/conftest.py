"""Fixtures: small networks of several model types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

SIDE, CLASSES, BATCH = 12, 3, 5


def make_features() -> list[Any]:
    return [
        layers.Conv2D(4, 3, activation="relu", name="conv1"),
        layers.MaxPooling2D(name="pool"),
        layers.Conv2D(5, 2, activation="relu", name="conv2"),
    ]


def make_sequential() -> Any:
    head = [layers.GlobalAveragePooling2D(), layers.Dense(CLASSES, activation="softmax")]
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), *make_features(), *head])


def make_functional() -> Any:
    first, pool, last = make_features()
    inputs = keras.Input((SIDE, SIDE, 3))
    x = last(pool(first(inputs)))
    x = layers.Add()([x, layers.Conv2D(5, 1, activation="relu", name="skip")(x)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Softmax()(layers.Dense(CLASSES)(x)))


def make_nested() -> Any:
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *make_features()], name="inner")
    head = [layers.GlobalAveragePooling2D(), layers.Dense(CLASSES, activation="softmax")]
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), inner, *head])


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool, self.last = make_features()
        self.average = layers.GlobalAveragePooling2D()
        self.dense = layers.Dense(CLASSES, activation="softmax", name="head")

    def call(self, x: Any) -> Any:
        return self.dense(self.average(self.last(self.pool(self.first(x)))))


def make_multi_input() -> Any:
    first, pool, last = make_features()
    vector = keras.Input((2,), name="vector")
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = layers.GlobalAveragePooling2D()(last(pool(first(image))))
    x = layers.Concatenate()([x, vector])
    return keras.Model(
        {"vector": vector, "image": image}, layers.Dense(CLASSES, activation="softmax")(x)
    )


MODEL_MAKERS: dict[str, Callable[[], Any]] = {
    "sequential": make_sequential,
    "functional": make_functional,
    "nested": make_nested,
    "subclassed": Subclassed,
    "multi_input": make_multi_input,
}


def make_model(model_type: str) -> tuple[Any, Any]:
    """Return a model of a type, and a batch of inputs for the model."""
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(4)
    model = MODEL_MAKERS[model_type]()
    x: Any = random.normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
    if model_type == "multi_input":
        x = {"vector": random.normal(size=(BATCH, 2)).astype(np.float32), "image": x}
    model(x)
    return model, x


@pytest.fixture(scope="session", params=sorted(MODEL_MAKERS))
def any_model(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return make_model(request.param)


@pytest.fixture(scope="session")
def cnn() -> tuple[Any, Any]:
    return make_model("sequential")


@pytest.fixture(scope="session")
def cnn_logits(cnn: tuple[Any, Any]) -> Any:
    """Return the network of `cnn` without its softmax."""
    model, x = cnn
    logits = keras.Sequential([*model.layers[:-1], layers.Dense(CLASSES)])
    logits.build(x.shape)
    logits.layers[-1].set_weights(model.layers[-1].get_weights())
    return logits


@pytest.fixture
def make_linear() -> Callable[..., Any]:
    """Return a function that builds a network of one dense layer from its weights."""

    def build(weights: Any, activation: str | None = None) -> Any:
        *sides, classes = weights.shape
        flat = layers.Flatten()
        model = keras.Sequential([keras.Input(sides), flat, layers.Dense(classes, activation)])
        model.layers[-1].set_weights([weights.reshape(-1, classes), np.arange(classes) / 4])
        return model

    return build
