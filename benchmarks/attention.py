"""Benchmark of attention scores: a ViT-B/16 with and without their capture."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

import actgrid
from actgrid.bench import Run
from benchmarks.suite import Group, Target

__all__ = ["ATTENTION", "make_vit"]

# ViT-B/16 of Dosovitskiy and others, 2021.
_SIDE, _PATCH, _WIDTH, _HEADS, _DEPTH = 224, 16, 768, 12, 12


@cache
def make_vit() -> Any:
    """Return a vision transformer of the size of ViT-B/16 with random weights."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((_SIDE, _SIDE, 3))
    count = (_SIDE // _PATCH) ** 2
    x = layers.Reshape((count, _WIDTH))(layers.Conv2D(_WIDTH, _PATCH, _PATCH)(image))
    token = layers.Dense(_WIDTH)(layers.GlobalAveragePooling1D()(x))
    x = layers.Concatenate(1)([layers.Reshape((1, _WIDTH))(token), x])
    for block in range(_DEPTH):
        y = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(_HEADS, _WIDTH // _HEADS, name=f"attention{block}")
        x = layers.Add()([x, attention(y, y)])
        y = layers.Dense(4 * _WIDTH, "gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(_WIDTH)(y)])
    logits = layers.Dense(1000, name="classes")(layers.LayerNormalization()(x)[:, 0])
    return keras.Model(image, logits)


def prepare_extraction(*layers: str) -> Run:
    """Prepare the extraction of the outputs of some layers for one image."""
    extractor = actgrid.Extractor(make_vit(), list(layers))
    image = np.random.default_rng(0).random((1, _SIDE, _SIDE, 3), np.float32)

    def run() -> None:
        extractor(image)

    run()  # compile before timing
    return run


def prepare_forward_pass() -> Run:
    """Prepare one compiled run of the model without extraction."""
    import tensorflow as tf

    model = make_vit()
    function = tf.function(lambda image: model(image, training=False))
    image = tf.random.stateless_uniform((1, _SIDE, _SIDE, 3), (0, 0))

    def run() -> None:
        function(image).numpy()

    run()
    return run


ATTENTION = Group(
    "all attention of a ViT-B/16, 12 layers of 12 heads, 22 MB for one image",
    {
        "forward pass": prepare_forward_pass,
        "forward pass in an extractor": partial(prepare_extraction, "classes"),
        "with all attention": partial(prepare_extraction, "*/attention", "classes"),
    },
    (Target("attention over forward pass", "with all attention", "forward pass", 1.3, 1.1),),
)
