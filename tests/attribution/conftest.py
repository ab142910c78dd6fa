"""Small networks of every kind, each with ReLUs, a global average and a softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

SIDE, CLASSES, BATCH = 12, 3, 5


def features() -> list[Any]:
    return [
        layers.Conv2D(4, 3, activation="relu", name="conv1"),
        layers.MaxPooling2D(name="pool"),
        layers.Conv2D(5, 2, activation="relu", name="conv2"),
    ]


def sequential() -> Any:
    head = [layers.GlobalAveragePooling2D(), layers.Dense(CLASSES, activation="softmax")]
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), *features(), *head])


def functional() -> Any:
    first, pool, last = features()
    inputs = keras.Input((SIDE, SIDE, 3))
    x = last(pool(first(inputs)))
    x = layers.Add()([x, layers.Conv2D(5, 1, activation="relu", name="skip")(x)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Softmax()(layers.Dense(CLASSES)(x)))


def nested() -> Any:
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *features()], name="inner")
    head = [layers.GlobalAveragePooling2D(), layers.Dense(CLASSES, activation="softmax")]
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), inner, *head])


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool, self.last = features()
        self.average = layers.GlobalAveragePooling2D()
        self.dense = layers.Dense(CLASSES, activation="softmax", name="head")

    def call(self, x: Any) -> Any:
        return self.dense(self.average(self.last(self.pool(self.first(x)))))


def multi_input() -> Any:
    first, pool, last = features()
    vector = keras.Input((2,), name="vector")
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = layers.GlobalAveragePooling2D()(last(pool(first(image))))
    x = layers.Concatenate()([x, vector])
    return keras.Model(
        {"vector": vector, "image": image}, layers.Dense(CLASSES, activation="softmax")(x)
    )


KINDS: dict[str, Callable[[], Any]] = {
    "sequential": sequential,
    "functional": functional,
    "nested": nested,
    "subclassed": Subclassed,
    "multi_input": multi_input,
}


def make(kind: str) -> tuple[Any, Any]:
    """A model of a kind and a batch for it."""
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(4)
    model = KINDS[kind]()
    x: Any = random.normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
    if kind == "multi_input":
        x = {"vector": random.normal(size=(BATCH, 2)).astype(np.float32), "image": x}
    model(x)
    return model, x


@pytest.fixture(scope="session", params=sorted(KINDS))
def any_kind(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return make(request.param)


@pytest.fixture(scope="session")
def cnn() -> tuple[Any, Any]:
    return make("sequential")


@pytest.fixture(scope="session")
def cnn_logits(cnn: tuple[Any, Any]) -> Any:
    """The same network without its softmax."""
    model, x = cnn
    logits = keras.Sequential([*model.layers[:-1], layers.Dense(CLASSES)])
    logits.build(x.shape)
    logits.layers[-1].set_weights(model.layers[-1].get_weights())
    return logits


@pytest.fixture
def linear() -> Callable[..., Any]:
    """A network without anything between the image and its outputs but one dense layer."""

    def build(weights: Any, activation: str | None = None) -> Any:
        *sides, classes = weights.shape
        flat = layers.Flatten()
        model = keras.Sequential([keras.Input(sides), flat, layers.Dense(classes, activation)])
        model.layers[-1].set_weights([weights.reshape(-1, classes), np.arange(classes) / 4])
        return model

    return build
