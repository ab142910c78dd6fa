"""Recognize the networks of `keras.applications` and the demo by their kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from actgrid.models.frameworks import keras
from actgrid.models.network import is_network

__all__ = ["DEMO", "Architecture", "find_architecture", "kernel_lines"]

# The name of the embedded model's architecture.
DEMO = "demo"


class Architecture(NamedTuple):
    """The architecture that a model has, or begins with.

    Attributes
    ----------
    name
        A name in `keras.applications`, or ``"demo"``.
    is_whole
        Whether the model has it with its head of 1000 classes, and nothing else with weights.
    """

    name: str
    is_whole: bool


def find_architecture(model: Any) -> Architecture | None:
    """Return the known architecture whose kernels are the first, or all, of a model.

    The kernels of all layers are compared in order, by the class, the shape and the strides. Names
    of models and layers do not count.
    """
    if is_network(model):
        return None
    known = _digests()
    counts = {count for count, _ in known}
    found: Architecture | None = None
    digest, total = hashlib.sha256(), 0
    for total, line in enumerate(kernel_lines(model), 1):
        digest.update(line.encode())
        if total in counts:
            found = known.get((total, digest.hexdigest()[:16]), found)
    complete = known.get((total, digest.hexdigest()[:16]))
    if complete is not None and complete.is_whole and _ends_in_classes(model):
        return complete
    return None if found is None else found._replace(is_whole=False)


def _ends_in_classes(model: Any) -> bool:
    """Return whether the last kernel of a model gives logits or their softmax."""
    nested = keras().Model
    for layer in reversed(model.layers):
        if isinstance(layer, nested):
            return _ends_in_classes(layer)
        if any(len(variable.shape) > 1 for variable in layer.weights):
            activation = getattr(layer, "activation", None)
            return getattr(activation, "__name__", "linear") in ("linear", "softmax")
    return False


def kernel_lines(model: Any) -> Iterator[str]:
    """Yield a line for each kernel of a model's layers, in order, nested models included."""
    for layer in getattr(model, "layers", []):
        if isinstance(layer, keras().Model):
            yield from kernel_lines(layer)
            continue
        strides = tuple(getattr(layer, "strides", ()) or ())
        for variable in layer.weights:
            if len(variable.shape) > 1:
                yield f"{type(layer).__name__} {tuple(variable.shape)} {strides}\n"


@lru_cache(maxsize=1)
def _digests() -> dict[tuple[int, str], Architecture]:
    """Return architectures by the number and the digest of their kernels."""
    found: dict[tuple[int, str], Architecture] = {}
    text = (files(__package__) / "architectures.txt").read_text("utf-8")
    for line in text.splitlines():
        name, *fields = line.split()
        for is_whole, (count, digest) in enumerate((fields[:2], fields[2:])):
            found[int(count), digest] = Architecture(name, bool(is_whole))
    return found
