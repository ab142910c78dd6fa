"""Compute fingerprints of models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from isal import isal_zlib

from actgrid.models.frameworks import keras
from actgrid.models.layers import collect_layers
from actgrid.models.output_edits import get_output_edits

__all__ = ["compute_fingerprint", "hash_variables"]


def compute_fingerprint(model: Any) -> str:
    """Return a hash of a model's layers and weights, as 32 hexadecimal digits.

    The automatic names of models and inputs, which Keras numbers in order of creation, do not
    matter. Names of layers do, because pictures are named after layers.

    Returns
    -------
    str
        32 hexadecimal digits.

    Examples
    --------
    >>> from actgrid.models.fingerprint import compute_fingerprint
    >>> len(compute_fingerprint(actgrid.load_model("demo")))
    32
    """
    layers = [f"{node.path} {_serialize_config(node.layer)}" for node in collect_layers(model)]
    text = "\n".join([_serialize_config(model), *layers])
    automatic_names = [model.name, *(layer.name for layer in _list_input_layers(model))]
    for number, name in enumerate(automatic_names):
        text = text.replace(json.dumps(name), f'"counted:{number}"')
    for path, edit in get_output_edits(model).items():
        text += f"\n{path} {edit.fingerprint()}"
    return hash_variables(text.encode(), model.weights)


def hash_variables(definition: bytes, variables: Iterable[Any]) -> str:
    """Return a hash of the definition of a model and of the values of its variables.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = hashlib.sha256(definition)
    for variable in variables:
        values = np.ascontiguousarray(variable.numpy())
        # Faster than a cryptographic hash, which is not needed: weights are not forged here.
        checksum = isal_zlib.crc32(values.reshape(-1).view(np.uint8))
        digest.update(f"{values.shape} {values.dtype} {checksum:08x}\n".encode())
    return digest.hexdigest()[:32]


def _serialize_config(layer: Any) -> str:
    class_name = type(layer).__name__
    try:
        config = layer.get_config()
        return class_name + json.dumps(
            config, sort_keys=True, default=lambda value: type(value).__name__
        )
    except Exception:
        return class_name  # a custom layer that cannot be saved


def _list_input_layers(model: Any) -> list[Any]:
    layers = model._flatten_layers(include_self=False, recursive=True)
    return [layer for layer in layers if isinstance(layer, keras().layers.InputLayer)]
