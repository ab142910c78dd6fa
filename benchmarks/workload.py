"""What is drawn: VGG16's 18 convolution and pooling layers of one photo; the textbook's way."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import actgrid
import actgrid.demo

__all__ = ["COLUMNS", "textbook", "vgg16"]

Activations = dict[str, npt.NDArray[Any]]

COLUMNS = 16


def vgg16() -> tuple[actgrid.Extractor, npt.NDArray[Any], Activations]:
    """Extractor, input and activations: 5,696 channels, 60 MB of float32. Weights are random."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.applications.VGG16(weights=None)
    batch = actgrid.load_images(actgrid.demo.photo(), model=model)
    extractor = actgrid.Extractor(model, ["*conv*", "*pool*"])
    return extractor, batch, extractor(batch)


def textbook(activation: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Draw (1, H, W, C) as in Deep Learning with Python (Chollet, 2017), section 5.4.1.

    Written anew after the book, whose loop works in place on views of the activation and fills a
    float64 picture; constant channels become NaN there too. The activation is overwritten.
    """
    size, channels = activation.shape[1], activation.shape[-1]
    rows = channels // COLUMNS
    display = np.zeros((size * rows, COLUMNS * size))
    for row in range(rows):
        for column in range(COLUMNS):
            image = activation[0, :, :, row * COLUMNS + column]
            image -= image.mean()
            image /= image.std()
            image *= 64
            image += 128
            image = np.clip(image, 0, 255).astype("uint8")
            display[row * size : (row + 1) * size, column * size : (column + 1) * size] = image
    return display
