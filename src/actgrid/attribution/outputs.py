"""The outputs of a model: names, structure, and evidence of binary classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from actgrid.models.compiled import trace_once
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import flatten_with_paths, map_tensors
from actgrid.models.network import is_network
from actgrid.models.networks import trace_network
from actgrid.models.tracing import keep_state

__all__ = ["BinaryEvidence", "find_binary_evidence", "get_output_specs", "list_output_names"]

# Evidence, beyond the model's operations, that an output of one value stands for two classes: the
# model's loss takes a logit or a probability, or the user gave two class names.
BinaryEvidence = Literal["logit", "probability", "names"] | None


def list_output_names(model: Any, outputs: Any) -> list[str]:
    """Return the names of a model's outputs, in the order of `tf.nest.flatten`.

    The names are the keys of a dict, the names of the output layers for a list, or else indices.
    Those of a network are its `output_names`, if it has them, or the paths of its outputs.
    """
    paths = [path for path, _ in flatten_with_paths(outputs)]
    if is_network(model):
        return list(getattr(model, "output_names", model.outputs))
    if not isinstance(outputs, Mapping):
        names = list(getattr(model, "output_names", None) or [])
        if not names:  # a Sequential has no `output_names`
            tensors = getattr(model, "outputs", None) or []
            names = [tensor._keras_history.operation.name for tensor in tensors]
        if len(set(names)) == len(paths) and all(len(path) < 2 for path in paths):
            return names
    return ["/".join(map(str, path)) or "output" for path in paths]


def get_output_specs(model: Any, inputs: Any) -> Any:
    """Return the structure of a model's outputs, tracing the model if necessary.

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
    return trace_once(model, _describe_outputs, inputs)


def _describe_outputs(model: Any, inputs: Any) -> Any:
    with keep_state():
        outputs = trace_network(model, inputs).outputs
    return map_tensors(tensorflow().TensorSpec.from_tensor, outputs)


def find_binary_evidence(
    model: Any, names: Sequence[str], index: int, labels: Any = None
) -> BinaryEvidence:
    """Return the evidence that an output stands for two classes, or None.

    Parameters
    ----------
    names
        Names of the model's outputs.
    index
        Index of the output.
    labels
        Class names of the output, if they are known.
    """
    loss = getattr(model, "loss", None)
    if isinstance(loss, Mapping):
        loss = loss.get(names[index])
    elif isinstance(loss, (list, tuple)):
        loss = loss[index] if index < len(loss) else None
    losses = keras().losses
    if isinstance(loss, str):
        loss = losses.get(loss)
    if isinstance(loss, (losses.BinaryCrossentropy, losses.BinaryFocalCrossentropy)):
        return "logit" if loss.from_logits else "probability"
    if loss in (losses.binary_crossentropy, losses.binary_focal_crossentropy):
        return "probability"
    has_two = hasattr(labels, "__len__") and not isinstance(labels, str) and len(labels) == 2
    return "names" if has_two else None
