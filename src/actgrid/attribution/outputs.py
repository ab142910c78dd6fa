"""The outputs of a model: names, structure, and what tells of two classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import leaves_with_paths, map_tensors
from actgrid.models.network import is_network
from actgrid.models.networks import trace_network
from actgrid.models.tracing import unchanged

__all__ = ["Evidence", "binary_evidence", "output_names", "output_specs"]

# What tells, beside the operations, that an output of one value is one of two classes: the loss is
# one of logits or of probabilities, or two names are given.
Evidence = Literal["logit", "probability", "names"] | None


def output_names(model: Any, outputs: Any) -> list[str]:
    """Return the names of a model's outputs, in the order of TensorFlow's nests.

    Those are the keys of a dict, the names of the output layers of a list, or else positions.
    """
    paths = [path for path, _ in leaves_with_paths(outputs)]
    if is_network(model):
        return list(model.outputs)
    if not isinstance(outputs, Mapping):
        names = list(getattr(model, "output_names", None) or [])
        if not names:  # of a Sequential
            tensors = getattr(model, "outputs", None) or []
            names = [tensor._keras_history.operation.name for tensor in tensors]
        if len(set(names)) == len(paths) and all(len(path) < 2 for path in paths):
            return names
    return ["/".join(map(str, path)) or "output" for path in paths]


def output_specs(model: Any, inputs: Any) -> Any:
    """Return the structure of a model's outputs; one that does not tell is traced for it.

    Raises
    ------
    ModelError
        If the model cannot be run on these inputs.
    """
    structure = getattr(model, "_outputs_struct", None)
    if structure is not None:
        return structure
    if not is_network(model) and len(getattr(model, "outputs", None) or []) == 1:
        return model.outputs[0]
    tf = tensorflow()
    traced: list[Any] = []

    def trace(inputs: Any) -> None:
        with unchanged():
            outputs = trace_network(model, inputs).outputs
        traced.append(map_tensors(tf.TensorSpec.from_tensor, outputs))

    specs = map_tensors(tf.TensorSpec.from_tensor, inputs)
    GraphFunction(trace).trace(specs)
    return traced[0]


def binary_evidence(model: Any, heads: Sequence[str], head: int, labels: Any = None) -> Evidence:
    """Return what tells of two classes for an output: the loss of the model, or two names."""
    loss = getattr(model, "loss", None)
    if isinstance(loss, Mapping):
        loss = loss.get(heads[head])
    elif isinstance(loss, (list, tuple)):
        loss = loss[head] if head < len(loss) else None
    losses = keras().losses
    if isinstance(loss, str):
        loss = losses.get(loss)
    if isinstance(loss, (losses.BinaryCrossentropy, losses.BinaryFocalCrossentropy)):
        return "logit" if loss.from_logits else "probability"
    if loss in (losses.binary_crossentropy, losses.binary_focal_crossentropy):
        return "probability"
    two = hasattr(labels, "__len__") and not isinstance(labels, str) and len(labels) == 2
    return "names" if two else None
