"""Circles, squares and triangles: draw every channel of a small network.

This example follows the section on intermediate activations of Chollet, Deep Learning with Python
(2017), section 5.4.1. Three lines replace its loop over layers, columns and rows.
"""

from __future__ import annotations

import keras
from keras import layers

import actgrid
from common import read_options
from drawings import SHAPES, draw


def main() -> None:
    output, quick, _ = read_options(__doc__, "shapes")
    keras.utils.set_random_seed(0)
    x, y = draw(SHAPES, 300 if quick else 1500, 64)
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(len(SHAPES), activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=2 if quick else 6, verbose=2)

    tests, truth = draw(SHAPES, 60, 64, seed=1)
    accuracy = model.evaluate(tests, truth, verbose=0)[1]
    print(f"accuracy on {len(tests)} test images: {accuracy:.0%}")

    # Draw every channel of every intermediate layer.
    grids = actgrid.render_model(model, tests[2:3], zoom=2)
    for number, (path, grid) in enumerate(grids.items()):
        grid.save(output / f"{number}_{path}.png")

    print(f"{len(grids)} pictures: {output.resolve()}")


if __name__ == "__main__":
    main()
