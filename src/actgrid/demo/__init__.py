"""An ImageNet-trained network, a photo and the class names, shipped with the package."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.demo.efficientnet_lite0 import build
from actgrid.models.labels import imagenet_labels

__all__ = ["labels", "model", "photo", "top_classes"]

_FILES = files(__name__)


def model() -> Any:
    """Return EfficientNet-Lite0 with its ImageNet weights, a Keras model.

    It takes (N, 224, 224, 3) RGB pixels, 0 to 255, and returns (N, 1000) class probabilities.

    References
    ----------
    Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019,
    https://arxiv.org/abs/1905.11946. Weights: see the file NOTICE.

    Examples
    --------
    >>> network = actgrid.demo.model()
    >>> network.count_params()
    4694024
    """
    network = build()
    with as_file(_FILES / "efficientnet_lite0_float16.npz") as path, np.load(path) as arrays:
        for layer in network.layers:
            count = len(layer.weights)
            layer.set_weights(
                [arrays[f"{layer.name}/{i}"].astype(np.float32) for i in range(count)]
            )
    return network


def photo() -> Image.Image:
    """Return the photo of a cat, 451 x 300 RGB.

    Examples
    --------
    >>> actgrid.demo.photo().size
    (451, 300)
    """
    with (_FILES / "cat.jpg").open("rb") as file:
        image = Image.open(file)
        image.load()
    return image


def labels() -> tuple[str, ...]:
    """Return the names of the 1000 ImageNet classes, in the order of the model's outputs.

    Examples
    --------
    >>> actgrid.demo.labels()[285]
    'Egyptian cat'
    """
    return imagenet_labels()


def top_classes(probabilities: npt.NDArray[np.float32], count: int = 5) -> list[tuple[str, float]]:
    """Return the likeliest classes of one image, as (name, probability), likeliest first.

    Parameters
    ----------
    probabilities
        (1000,) as the model returns them.
    count
        How many classes.
    """
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [(labels()[index], float(probabilities[index])) for index in best]
