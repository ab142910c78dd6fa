"""An embedded network trained on ImageNet, with a photo and the class names."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.demo.efficientnet_lite0 import build_model
from actgrid.models.labels import load_imagenet_labels

__all__ = ["find_top_classes", "labels", "model", "photo"]

_FILES = files(__name__)


def model() -> Any:
    """Return EfficientNet-Lite0 with its ImageNet weights.

    The model takes (N, 224, 224, 3) RGB pixels from 0 to 255 and returns (N, 1000) class
    probabilities.

    Returns
    -------
    keras.Model
        A new model. The source of the weights is named in the file NOTICE.

    References
    ----------
    Tan and Le, 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
    https://arxiv.org/abs/1905.11946.

    Examples
    --------
    >>> network = actgrid.demo.model()
    >>> network.count_params()
    4694024
    """
    network = build_model()
    weights = _read_weights()
    _read_weights.cache_clear()  # to free the memory
    for layer in network.layers:
        layer.set_weights([weights[f"{layer.name}/{i}"] for i in range(len(layer.weights))])
    return network


@lru_cache(maxsize=1)
def _read_weights() -> dict[str, npt.NDArray[np.float32]]:
    """Return the weights of the network: ``LAYER/NUMBER`` -> array."""
    with as_file(_FILES / "efficientnet_lite0_float16.npz") as path, np.load(path) as arrays:
        return {name: array.astype(np.float32) for name, array in arrays.items()}


def prefetch_weights() -> None:
    """Read the weights of the next `model`, in a thread beside the import of TensorFlow."""
    _read_weights()


def photo() -> Image.Image:
    """Return the embedded photo of a cat.

    Returns
    -------
    PIL.Image.Image
        A new RGB image of 451 x 300 pixels.

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
    """Return the names of the 1000 ImageNet classes, in output order.

    Returns
    -------
    tuple of str
        The names.

    Examples
    --------
    >>> actgrid.demo.labels()[285]
    'Egyptian cat'
    """
    return load_imagenet_labels()


def find_top_classes(
    probabilities: npt.NDArray[np.float32], count: int = 5
) -> list[tuple[str, float]]:
    """Return the most probable classes of one image, in descending order.

    Parameters
    ----------
    probabilities : numpy.ndarray
        (1000,) float32 probabilities, as returned by the model for one image.
    count : int, default 5
        Number of classes.

    Returns
    -------
    list of tuple
        Pairs (name, probability).

    Examples
    --------
    >>> probabilities = np.zeros(1000, np.float32)
    >>> probabilities[285] = 0.75
    >>> actgrid.demo.find_top_classes(probabilities, 1)
    [('Egyptian cat', 0.75)]
    """
    indices = np.argsort(-probabilities, kind="stable")[:count]
    return [(labels()[index], float(probabilities[index])) for index in indices]
