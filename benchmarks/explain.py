"""Explanations: batches through one compiled function, against the tutorials' loops."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

import actgrid
import actgrid.demo
from actgrid.bench import Run
from benchmarks.suite import Group, Target
from benchmarks.workload import Array

__all__ = ["EXPLAIN", "explain_images"]

_BATCH, _STEPS, _CLASS = 32, 50, 285
_PATCH, _STRIDE = 32, 16


@cache
def network() -> Any:
    return actgrid.demo.model()


@cache
def images() -> Array:
    photo = actgrid.demo.photo()
    turned = [photo.rotate(360 / _BATCH * number) for number in range(_BATCH)]
    return actgrid.load_images(turned, model=network())


def ours(method: str, count: int = _BATCH, **options: Any) -> Run:
    x = images()[:count]

    def run() -> None:
        actgrid.explain(network(), x, method, _CLASS, **options)

    run()  # compiled
    return run


def explain_images(count: int) -> Run:
    """Explain many images, 32 at once."""
    x = np.tile(images(), (count // _BATCH, 1, 1, 1))

    def run() -> None:
        actgrid.explain(network(), x, "gradcam", _CLASS, batch_size=_BATCH)

    return run


def gradcam_loop() -> Run:
    """Explain one image as in keras.io's example of Grad-CAM: a tape around a second model."""
    import keras
    import tensorflow as tf

    outputs = [network().get_layer("head_relu").output, network().output]
    model = keras.Model(network().inputs[0], outputs)
    image = images()[:1]

    def run() -> None:
        with tf.GradientTape() as tape:
            activation, predictions = model(image)
            score = predictions[:, _CLASS]
        gradient = tape.gradient(score, activation)
        weights = tf.reduce_mean(gradient, (0, 1, 2))
        heatmap = tf.squeeze(activation[0] @ weights[..., None])
        (tf.maximum(heatmap, 0) / tf.reduce_max(heatmap)).numpy()

    return run


def integrated_gradients_loop(at_once: int) -> Run:
    """Explain one image as in keras.io's example: a tape for each step, or for several at once."""
    import tensorflow as tf

    image = images()[:1]
    shares = np.linspace(0, 1, _STEPS, dtype=np.float32)

    def run() -> None:
        gradients = []
        for start in range(0, _STEPS, at_once):
            steps = tf.constant(shares[start : start + at_once, None, None, None] * image)
            with tf.GradientTape() as tape:
                tape.watch(steps)
                score = network()(steps)[:, _CLASS]
            gradients.append(tape.gradient(score, steps))
        found = tf.concat(gradients, 0)
        (tf.reduce_mean((found[:-1] + found[1:]) / 2, 0) * image).numpy()

    return run


def predict_patches() -> Run:
    """Let Keras predict the images that occlusion makes, which are there already."""
    image = images()[0]
    hidden = []
    for top in range(0, image.shape[0], _STRIDE):
        for left in range(0, image.shape[1], _STRIDE):
            one = image.copy()
            one[top : top + _PATCH, left : left + _PATCH] = image.mean((0, 1))
            hidden.append(one)
    patches = np.stack(hidden)
    return lambda: network().predict(patches, batch_size=32, verbose=0)


EXPLAIN = Group(
    "explaining one image of 32, EfficientNet-Lite0",
    {
        "gradcam": partial(ours, "gradcam"),
        "gradcam, a tape for each image": gradcam_loop,
        "integrated_gradients": partial(ours, "integrated_gradients", steps=_STEPS),
        "integrated_gradients, a tape for each image and step": partial(
            integrated_gradients_loop, 1
        ),
        "integrated_gradients, a tape for each image": partial(integrated_gradients_loop, _STEPS),
        "occlusion, 196 patches": partial(ours, "occlusion", 1, patch=_PATCH, stride=_STRIDE),
        "model.predict, 196 patches": predict_patches,
    },
    (
        Target(
            "gradcam: tapes over ours", "gradcam, a tape for each image", "gradcam", 5, 10, True
        ),
        Target(
            "integrated_gradients: tapes over ours",
            "integrated_gradients, a tape for each image and step",
            "integrated_gradients",
            5,
            8,
            True,
        ),
        Target("occlusion over predict", "occlusion, 196 patches", "model.predict, 196 patches", 1),
    ),
    count={"gradcam": _BATCH, "integrated_gradients": _BATCH},
    most_rounds=3,
)
