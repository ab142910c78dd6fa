"""Benchmarks of explanations: batches of actgrid against loops of tutorials."""

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
# Images of integrated gradients, which runs the network for every step.
_STEPPED = 4
_PATCH, _STRIDE = 32, 16


@cache
def get_network() -> Any:
    return actgrid.demo.model()


@cache
def get_images() -> Array:
    photo = actgrid.demo.photo()
    photos = [photo.rotate(360 / _BATCH * number) for number in range(_BATCH)]
    return actgrid.load_images(photos, model=get_network())


@cache
def prepare_explain(method: str, count: int = _BATCH, **options: Any) -> Run:
    x = get_images()[:count]

    def run() -> None:
        actgrid.explain(get_network(), x, method, _CLASS, **options)

    run()  # compile before timing
    return run


def explain_images(count: int) -> Run:
    """Prepare the Grad-CAM explanation of many images in batches of 32."""
    x = np.tile(get_images(), (count // _BATCH, 1, 1, 1))

    def run() -> None:
        actgrid.explain(get_network(), x, "gradcam", _CLASS, batch_size=_BATCH)

    return run


def gradcam_loop() -> Run:
    """Prepare Grad-CAM of one image as on keras.io, with a gradient tape."""
    import keras
    import tensorflow as tf

    outputs = [get_network().get_layer("head_relu").output, get_network().output]
    model = keras.Model(get_network().inputs[0], outputs)
    image = get_images()[:1]

    def run() -> None:
        with tf.GradientTape() as tape:
            activation, predictions = model(image)
            score = predictions[:, _CLASS]
        gradient = tape.gradient(score, activation)
        weights = tf.reduce_mean(gradient, (0, 1, 2))
        heatmap = tf.squeeze(activation[0] @ weights[..., None])
        (tf.maximum(heatmap, 0) / tf.reduce_max(heatmap)).numpy()

    return run


def integrated_gradients_loop(batch_size: int) -> Run:
    """Prepare integrated gradients of one image as on keras.io, with gradient tapes.

    Each tape computes `batch_size` steps.
    """
    import tensorflow as tf

    image = get_images()[:1]
    fractions = np.linspace(0, 1, _STEPS, dtype=np.float32)

    def run() -> None:
        gradients = []
        for start in range(0, _STEPS, batch_size):
            steps = tf.constant(fractions[start : start + batch_size, None, None, None] * image)
            with tf.GradientTape() as tape:
                tape.watch(steps)
                score = get_network()(steps)[:, _CLASS]
            gradients.append(tape.gradient(score, steps))
        path_gradients = tf.concat(gradients, 0)
        (tf.reduce_mean((path_gradients[:-1] + path_gradients[1:]) / 2, 0) * image).numpy()

    return run


def predict_patches() -> Run:
    """Prepare Keras predictions of occluded images, which are created in advance."""
    image = get_images()[0]
    occluded_images = []
    for top in range(0, image.shape[0], _STRIDE):
        for left in range(0, image.shape[1], _STRIDE):
            occluded = image.copy()
            occluded[top : top + _PATCH, left : left + _PATCH] = image.mean((0, 1))
            occluded_images.append(occluded)
    patches = np.stack(occluded_images)
    return lambda: get_network().predict(patches, batch_size=32, verbose=0)


EXPLAIN = Group(
    f"explaining one image: gradcam of {_BATCH}, integrated_gradients of {_STEPPED}, "
    "EfficientNet-Lite0",
    {
        "gradcam": partial(prepare_explain, "gradcam"),
        "gradcam, a tape for each image": gradcam_loop,
        "integrated_gradients": partial(
            prepare_explain, "integrated_gradients", _STEPPED, steps=_STEPS
        ),
        "integrated_gradients, a tape for each image and step": partial(
            integrated_gradients_loop, 1
        ),
        "integrated_gradients, a tape for each image": partial(integrated_gradients_loop, _STEPS),
        "occlusion, 196 patches": partial(
            prepare_explain, "occlusion", 1, patch=_PATCH, stride=_STRIDE
        ),
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
    count={"gradcam": _BATCH, "integrated_gradients": _STEPPED},
)
