"""CIFAR-10: draw all channels during training, in TensorBoard and as a movie.

Afterwards the network is saved, loaded and explained. Show the logs with
``tensorboard --logdir out/cifar10/logs`` (``pip install tensorboard``).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

import actgrid
from actgrid.callbacks import ActivationGrids, ChannelHealth, Explanations, TrainingMovie
from common import load_or_generate, read_options
from drawings import CLASSES, draw

NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def make_network() -> Any:
    """Return the untrained network of TensorFlow's CNN tutorial."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(64, 3, activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Conv2D(64, 3, activation="relu", name="conv3"),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name="dense"),
            layers.Dense(10, activation="softmax", name="classes"),
        ],
        name="cifar10",
    )


def main() -> None:
    output, quick, _ = read_options(__doc__, "cifar10")
    keras.utils.set_random_seed(0)
    names: tuple[str, ...] = NAMES

    def generate() -> Any:
        nonlocal names
        names = CLASSES
        return draw(CLASSES, 300 if quick else 5000, 32), draw(CLASSES, 100, 32, seed=1)

    (x, y), (tests, truth) = load_or_generate(keras.datasets.cifar10.load_data, generate, quick)
    x, tests = x / 255.0, tests / 255.0
    samples, logs = tests[:3], output / "logs"
    model = make_network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        x,
        y,
        epochs=2 if quick else 10,
        validation_data=(tests, truth),
        callbacks=[
            ActivationGrids(samples, ["conv*", "pool*"], log_dir=logs / "grids", zoom=2),
            ChannelHealth(tests[:100], log_dir=logs / "health"),
            Explanations(samples, "gradcam", log_dir=logs / "gradcam"),
            TrainingMovie(samples[:1], "conv*", folder=output, zoom=2),
        ],
        verbose=2,
    )
    model.save(output / "cifar10.keras")

    loaded = actgrid.load_model(output / "cifar10.keras")
    large = keras.ops.image.resize(tests[:6], (96, 96), interpolation="nearest")
    heatmap = actgrid.explain(loaded, tests[:6], "gradcam", labels=names)
    print("predicted classes:", ", ".join(heatmap.labels or ()))
    pixels = (large * 255).numpy().astype("uint8")
    actgrid.Heatmap(heatmap.values, images=pixels).save(output / "explained.png")
    print(f"logs: {logs.resolve()}, pictures: {output.resolve()}")


if __name__ == "__main__":
    main()
