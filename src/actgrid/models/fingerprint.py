"""Telling whether a model is the same as before."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from isal import isal_zlib

from actgrid.models.frameworks import keras
from actgrid.models.layers import model_layers

__all__ = ["fingerprint"]


def fingerprint(model: Any) -> str:
    """Return 32 hexadecimal digits that are the same for the same layers and weights.

    The names that Keras gives to models and inputs, which count those made before, do not matter;
    names of layers do, because pictures are named after them.

    Examples
    --------
    >>> fingerprint(actgrid.load_model("demo")) == fingerprint(actgrid.load_model("demo"))
    True
    """
    layers = [f"{node.path} {_config(node.layer)}" for node in model_layers(model)]
    text = "\n".join([_config(model), *layers])
    counted = [model.name, *(layer.name for layer in _inputs(model))]
    for number, name in enumerate(counted):
        text = text.replace(json.dumps(name), f'"counted:{number}"')
    digest = hashlib.sha256(text.encode())
    for variable in model.weights:
        values = np.ascontiguousarray(variable.numpy())
        # Much faster than a cryptographic hash: nobody forges weights here.
        checksum = isal_zlib.crc32(values.reshape(-1).view(np.uint8))
        digest.update(f"{values.shape} {values.dtype} {checksum:08x}\n".encode())
    return digest.hexdigest()[:32]


def _config(layer: Any) -> str:
    kind = type(layer).__name__
    try:
        config = layer.get_config()
        return kind + json.dumps(config, sort_keys=True, default=lambda it: type(it).__name__)
    except Exception:
        return kind  # one of the user's own, which cannot be saved


def _inputs(model: Any) -> list[Any]:
    found = model._flatten_layers(include_self=False, recursive=True)
    return [layer for layer in found if isinstance(layer, keras().layers.InputLayer)]
