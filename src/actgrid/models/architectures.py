"""Recognize known architectures of `keras.applications` by their kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from actgrid.models.frameworks import keras
from actgrid.models.network import is_network

__all__ = ["DEMO", "Architecture", "describe_kernels", "find_architecture"]

# Name of the architecture of the embedded demo model.
DEMO = "demo"


class Architecture(NamedTuple):
    """Record of a known architecture that a model has or starts with.

    Attributes
    ----------
    name
        A name in `keras.applications`, or ``"demo"``.
    is_complete
        Whether the model is the whole architecture with its head of 1000 classes, and has no
        further weights.
    """

    name: str
    is_complete: bool


def find_architecture(model: Any) -> Architecture | None:
    """Return the known architecture that a model has or starts with; None if unknown.

    The kernels of all layers are compared in order, by class, shape and strides. Names of models
    and layers do not matter.

    Returns
    -------
    Architecture or None
        Name of the architecture, and whether the model is the whole architecture.
    """
    if is_network(model):
        return None
    digests = _read_digests()
    counts = {count for count, _ in digests}
    architecture: Architecture | None = None
    digest, total = hashlib.sha256(), 0
    for total, line in enumerate(describe_kernels(model), 1):
        digest.update(line.encode())
        if total in counts:
            architecture = digests.get((total, digest.hexdigest()[:16]), architecture)
    complete = digests.get((total, digest.hexdigest()[:16]))
    if complete is not None and complete.is_complete and _ends_in_classes(model):
        return complete
    return None if architecture is None else architecture._replace(is_complete=False)


def _ends_in_classes(model: Any) -> bool:
    """Return whether a model ends in a classification layer.

    This is assumed if the last layer with a kernel has no activation, or has a softmax.
    """
    model_class = keras().Model
    for layer in reversed(model.layers):
        if isinstance(layer, model_class):
            return _ends_in_classes(layer)
        if any(len(variable.shape) > 1 for variable in layer.weights):
            activation = getattr(layer, "activation", None)
            return getattr(activation, "__name__", "linear") in ("linear", "softmax")
    return False


def describe_kernels(model: Any) -> Iterator[str]:
    """Yield a text line for each kernel of a model, in the order of its layers.

    A kernel is a weight of more than one axis. Kernels in nested models are included.

    Yields
    ------
    str
        Class of the layer, shape of the kernel and strides of the layer.
    """
    for layer in getattr(model, "layers", []):
        if isinstance(layer, keras().Model):
            yield from describe_kernels(layer)
            continue
        strides = tuple(getattr(layer, "strides", ()) or ())
        for variable in layer.weights:
            if len(variable.shape) > 1:
                yield f"{type(layer).__name__} {tuple(variable.shape)} {strides}\n"


@lru_cache(maxsize=1)
def _read_digests() -> dict[tuple[int, str], Architecture]:
    """Read the table of known architectures from the file ``architectures.txt``.

    Returns
    -------
    dict
        (number of kernels, SHA-256 digest of the kernel descriptions) -> `Architecture`.
    """
    architectures: dict[tuple[int, str], Architecture] = {}
    text = (files(__package__) / "architectures.txt").read_text("utf-8")
    for line in text.splitlines():
        name, *fields = line.split()
        for is_complete, (count, digest) in enumerate((fields[:2], fields[2:])):
            architectures[int(count), digest] = Architecture(name, bool(is_complete))
    return architectures
