"""CIFAR-10: what every channel sees while the network learns, in TensorBoard and as a movie.

Afterwards the network is saved, loaded again and explained. To see what was written:
``tensorboard --logdir out/cifar10/logs`` (``pip install tensorboard``).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

import actgrid
from actgrid.callbacks import ActivationGrids, ChannelHealth, Explanations, TrainingMovie
from common import options, or_drawn
from drawings import CLASSES, drawn

NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def network() -> Any:
    """Return TensorFlow's tutorial network, not trained."""
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
    output, quick, _ = options(__doc__, "cifar10")
    keras.utils.set_random_seed(0)
    names: tuple[str, ...] = NAMES

    def stand_in() -> Any:
        nonlocal names
        names = CLASSES
        return drawn(CLASSES, 300 if quick else 5000, 32), drawn(CLASSES, 100, 32, seed=1)

    (x, y), (tests, truth) = or_drawn(keras.datasets.cifar10.load_data, stand_in, quick)
    x, tests = x / 255.0, tests / 255.0
    watched, logs = tests[:3], output / "logs"
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        x,
        y,
        epochs=2 if quick else 10,
        validation_data=(tests, truth),
        callbacks=[
            ActivationGrids(watched, ["conv*", "pool*"], log_dir=logs / "grids", zoom=2),
            ChannelHealth(tests[:100], log_dir=logs / "health"),
            Explanations(watched, "gradcam", log_dir=logs / "gradcam"),
            TrainingMovie(watched[:1], "conv*", folder=output, zoom=2),
        ],
        verbose=2,
    )
    model.save(output / "cifar10.keras")

    loaded = actgrid.load_model(output / "cifar10.keras")
    large = keras.ops.image.resize(tests[:6], (96, 96), interpolation="nearest")
    found = actgrid.explain(loaded, tests[:6], "gradcam", labels=names)
    print("seen as", ", ".join(found.labels or ()))
    pixels = (large * 255).numpy().astype("uint8")
    actgrid.Heatmap(found.values, images=pixels).save(output / "explained.png")
    print(f"logs: {logs.resolve()}, pictures: {output.resolve()}")


if __name__ == "__main__":
    main()
