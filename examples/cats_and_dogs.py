"""Cats and dogs: draw one channel of a layer of a network saved as ``.h5``.

``--images FOLDER`` takes a folder that contains the image folders ``cat`` and ``dog``.
"""

from __future__ import annotations

from pathlib import Path

import keras
from keras import layers
from PIL import Image

import actgrid
from actgrid.models.image_sources import find_images
from common import read_options
from drawings import PETS, write_folder

SIZE = 96


def train_and_save(folder: Path, epochs: int, file: Path) -> None:
    """Train a network on a folder of images, and save it in the HDF5 format."""
    data = keras.utils.image_dataset_from_directory(folder, image_size=(SIZE, SIZE), seed=0)
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Rescaling(1 / 255)])
    for number, filters in enumerate((32, 64, 128), 1):
        model.add(layers.Conv2D(filters, 3, activation="relu", name=f"conv2d_{number}"))
        model.add(layers.MaxPooling2D(2, name=f"max_pooling2d_{number}"))
    model.add(layers.Flatten())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(1, activation="sigmoid", name="dog"))
    model.compile("rmsprop", "binary_crossentropy", metrics=["accuracy"])
    model.fit(data, epochs=epochs, shuffle=False, verbose=2)
    model.save(file)


def main() -> None:
    output, quick, images = read_options(__doc__, "cats_and_dogs", images=True)
    if images is None:
        print("no image folder given: generated drawings are used")
        images = write_folder(output / "images", PETS, 30 if quick else 300, SIZE)
    cat = find_images(images / "cat")[0]
    keras.utils.set_random_seed(0)
    train_and_save(images, 1 if quick else 5, output / "cats_and_dogs.h5")

    model = actgrid.load_model(output / "cats_and_dogs.h5")
    channel = actgrid.render_model(model, cat, "conv2d_1", order=[4], zoom=4)["conv2d_1"]
    channel.save(output / "conv2d_1_channel_4.png")
    grid = actgrid.render_model(model, cat, "conv2d_1")["conv2d_1"]
    grid.save(output / "conv2d_1.png")

    # Draw the channel that this image activates most over the image.
    strongest = int(grid.stats.mean.argmax())
    activation = actgrid.Extractor(model, "conv2d_1")(actgrid.load_images(cat, model=model))
    heatmap = actgrid.Heatmap(activation["conv2d_1"][..., strongest], images=Image.open(cat))
    heatmap.save(output / f"conv2d_1_channel_{strongest}_over_image.png")
    print(f"{len(list(output.glob('*.png')))} pictures: {output.resolve()}")


if __name__ == "__main__":
    main()
