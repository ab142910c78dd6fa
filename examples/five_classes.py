"""Five classes of images: activations of each layer, as arrays and over the photo.

``--images FOLDER`` takes a folder that contains an image folder for each class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

import actgrid
from actgrid.models.image_sources import find_images
from common import read_options
from drawings import THINGS, write_folder

SIZE = 96


def train(folder: Path, epochs: int) -> tuple[Any, list[str]]:
    """Train a network on a folder of images; return it and the names of its classes."""
    data, tests = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIZE, SIZE), validation_split=0.2, subset="both", seed=0
    )
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Rescaling(1 / 255, name="rescaling"),
            *(
                layer
                for number, filters in enumerate((16, 32, 64), 1)
                for layer in (
                    layers.Conv2D(filters, 3, activation="relu", name=f"conv{number}"),
                    layers.MaxPooling2D(name=f"pool{number}"),
                )
            ),
            layers.GlobalAveragePooling2D(name="average"),
            layers.Dense(len(data.class_names), activation="softmax", name="things"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(data, validation_data=tests, epochs=epochs, shuffle=False, verbose=2)
    return model, data.class_names


def main() -> None:
    output, quick, images = read_options(__doc__, "five_classes", images=True)
    if images is None:
        print("no image folder given: generated drawings are used")
        images = write_folder(output / "images", THINGS, 20 if quick else 200, SIZE)
    keras.utils.set_random_seed(0)
    model, classes = train(images, epochs=1 if quick else 15)
    image = find_images(images / classes[-1])[0]
    photo = actgrid.load_images(image, model=model, preprocess="none")

    # Layer path -> array.
    activations = actgrid.Extractor(model)(photo)
    for path, activation in activations.items():
        print(f"{path:10} {activation.shape}")
        actgrid.render(activation).save(output / f"{path}.png")

    # Draw the channels with the largest standard deviation over the image.
    for path in ("conv1", "conv2", "conv3"):
        activation = activations[path][0]
        strongest = np.argsort(-activation.std((0, 1)))[:8]
        heatmap = actgrid.Heatmap(
            np.moveaxis(activation[..., strongest], -1, 0), images=photo[0].astype(np.uint8)
        )
        heatmap.overlay(columns=4).save(output / f"{path}_over_image.png")
    actgrid.compare_methods(model, photo, labels=classes).save(output / "explained.png")
    print(f"{len(list(output.glob('*.png')))} pictures: {output.resolve()}")


if __name__ == "__main__":
    main()
