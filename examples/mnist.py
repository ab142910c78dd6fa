"""MNIST: filters, channels, Grad-CAM, LIME, synthesized digits, diagram.

The network has three convolutions (32, 64 and 64 channels) and 458,570 parameters.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

import actgrid
from common import load_digits, read_options


def make_network() -> Any:
    """Return the untrained network."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv3"),
            layers.Flatten(name="flatten"),
            layers.Dense(128, activation="relu", name="dense"),
            layers.Dense(10, activation="softmax", name="digits"),
        ],
        name="mnist",
    )


def main() -> None:
    output, quick, _ = read_options(__doc__, "mnist")
    keras.utils.set_random_seed(0)
    (x, y), (tests, truth) = load_digits(quick)
    model = make_network()
    print(f"{model.count_params():,} parameters")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=2, batch_size=32 if quick else 128, verbose=2)
    accuracy = model.evaluate(tests, truth, verbose=0)[1]
    print(f"accuracy on {len(tests)} test images: {accuracy:.1%}")

    for path, grid in actgrid.render_weights(model, "conv*", zoom=3).items():
        if path.endswith("kernel"):
            grid.save(output / f"filters_{path.split('/')[0]}.png")

    seven = tests[truth == 7][:1]
    for path, grid in actgrid.render_model(model, seven, zoom=4).items():
        grid.save(output / f"seven_{path}.png")

    examples = np.stack([tests[truth == digit][0] for digit in range(10)])
    large = (examples * 255).astype(np.uint8).repeat(4, 1).repeat(4, 2)
    methods: dict[str, dict[str, Any]] = {
        "gradcam": {},
        "integrated_gradients": {},
        "lime": {"segments": 40, "samples": 100 if quick else 1000},
    }
    for method, method_options in methods.items():
        explanation = actgrid.explain(model, examples, method, **method_options)
        heatmap = actgrid.Heatmap(explanation.values, images=large, signed=explanation.signed)
        heatmap.overlay(columns=5).save(output / f"{method}.png")

    maximization = actgrid.maximize(
        model,
        "digits",
        range(10),
        steps=16 if quick else 256,
        parametrization="pixel",
        total_variation=0.2,
        preprocess="unit",
        columns=5,
    )
    picture = maximization.to_image()
    picture.resize((picture.width * 4, picture.height * 4), 0).save(output / "digits.png")

    actgrid.diagram(model, seven).save(output / "diagram.png")
    print(f"{len(list(output.glob('*.png')))} pictures: {output.resolve()}")


if __name__ == "__main__":
    main()
