"""
Watch a network learn
=====================

A callback draws the channels of a layer for the same images after each epoch. This network learns
to tell squares from circles.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import actgrid
from actgrid.callbacks import ActivationGrids

rng = np.random.default_rng(0)
y, x = np.mgrid[:32, :32]
labels = rng.integers(0, 2, 512)
centres, radii = rng.uniform(10, 22, (512, 2)), rng.uniform(4, 9, 512)
offsets = np.stack([y, x]) - centres[:, :, None, None]
distances = np.where(
    labels[:, None, None], np.hypot(*offsets.swapaxes(0, 1)), np.abs(offsets).max(1)
)
images = (distances < radii[:, None, None]).astype(np.float32)[..., None]

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((32, 32, 1)),
        keras.layers.Conv2D(16, 5, strides=2, activation="relu", name="conv1"),
        keras.layers.Conv2D(16, 5, strides=2, activation="relu", name="conv2"),
        keras.layers.Flatten(),
        keras.layers.Dense(2, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
folder = Path(tempfile.mkdtemp())
grids = ActivationGrids(images[:1], "conv1", folder=folder, zoom=3, columns=8)
history = model.fit(images, labels, epochs=8, verbose=0, callbacks=[grids])
print(f"accuracy after 8 epochs: {history.history['accuracy'][-1]:.2f}")

# %%
# The callback has written a picture after each epoch. This is the last one.
last = sorted(folder.rglob("*.png"))[-1]
print(last.relative_to(folder), Image.open(last).size)
actgrid.render_model(model, images[:1], "conv1", zoom=3, columns=8)["conv1"]
