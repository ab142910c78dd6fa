"""Layers inside TimeDistributed: all time steps of their activations, in one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from actgrid.models.frameworks import keras, tensorflow

__all__ = ["TimeSteps", "is_time_distributed", "sample_wise"]

# Layers of Keras that run any code, which may mix the samples of a batch.
_ANY_CODE = ("Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper")
_FUNCTIONS = ("activation", "recurrent_activation")


class TimeSteps:
    """Runs the layers inside TimeDistributed once, on the batch of all time steps.

    Keras itself runs them for one step after the other, or in a loop where the number of steps is
    free. Activations, (N * T, ...), are split into (N, T, ...) and merged again for the next layer,
    so that the model's output depends on what is captured.
    """

    def __init__(self) -> None:
        self._counts: list[Any] = []
        # What a tensor has been split into. The tensor is kept so that its id is not used again.
        self._splits: dict[int, tuple[Any, Any]] = {}

    def call(self, layer: Any, inputs: Any, mask: Any = None) -> Any:
        """Run a TimeDistributed layer whose inner layer is `sample_wise` on all time steps.

        Parameters
        ----------
        layer
            The TimeDistributed layer.
        inputs
            (N, T, ...).
        mask
            (N, T, ...), or None.
        """
        tf = tensorflow()
        inner = layer.layer
        options = {"training": False} if inner._call_has_training_arg else {}
        if mask is not None and inner._call_has_mask_arg:
            options["mask"] = _merge_axes(mask, 1)
        steps = inputs.shape[1]
        count = tf.shape(inputs)[1] if steps is None else steps
        self._counts.append(count)
        try:
            outputs = inner.call(_merge_axes(inputs, 1), **options)
        finally:
            self._counts.pop()

        def split(tensor: Any) -> Any:
            _, known = self._splits.get(id(tensor), (None, None))
            if known is not None and not self._counts:
                return known
            steps = _split_axis(tensor, [count])
            if known is not None:
                self._splits[id(steps)] = steps, known
            return steps

        return tf.nest.map_structure(split, outputs)

    def capture(self, outputs: Any) -> tuple[Any, Any]:
        """Return what a layer gave with its time axes, and what to give to the next layer."""
        if not self._counts:
            return outputs, outputs
        nest = tensorflow().nest
        splits = nest.map_structure(self._split, outputs)
        return splits, nest.map_structure(self._merge, splits)

    def _split(self, tensor: Any) -> Any:
        if id(tensor) in self._splits:
            return self._splits[id(tensor)][1]
        return _split_axis(tensor, self._counts)

    def _merge(self, split: Any) -> Any:
        merged = _merge_axes(split, len(self._counts))
        self._splits[id(merged)] = merged, split
        return merged


def _split_axis(tensor: Any, counts: list[Any]) -> Any:
    """Return (N * T, ...) as (N, T, ...), with an axis for each of `counts`."""
    rest = tensor.shape[1:]
    split = _reshape(tensor, counts, rest, 1)
    known = [count if isinstance(count, int) else None for count in counts]
    split.set_shape([split.shape[0], *known, *rest])
    return split


def _merge_axes(tensor: Any, count: int) -> Any:
    """Return (N, T, ...) as (N * T, ...), for `count` time axes."""
    rest = tensor.shape[1 + count :]
    merged = _reshape(tensor, [], rest, 1 + count)
    merged.set_shape([merged.shape[0], *rest])
    return merged


def _reshape(tensor: Any, counts: list[Any], rest: Any, start: int) -> Any:
    """Reshape a tensor to (-1, *counts, ...), `rest` being its axes from `start` on."""
    tf = tensorflow()
    if rest.is_fully_defined():
        return tf.reshape(tensor, [-1, *counts, *rest])
    return tf.reshape(tensor, tf.concat([[-1, *counts], tf.shape(tensor)[start:]], 0))


def is_time_distributed(layer: Any) -> bool:
    """Return whether a layer runs as Keras's TimeDistributed does."""
    kind = keras().layers.TimeDistributed
    return isinstance(layer, kind) and type(layer).call is kind.call


def sample_wise(layer: Any) -> bool:
    """Return whether a layer surely computes each sample from that sample alone.

    This is known of Keras's own layers alone, and only where they run no code of a user's.
    """
    return all(_is_sample_wise(part) for part in (layer, *_parts(layer)))


def _parts(layer: Any) -> Iterator[Any]:
    """Yield all layers and operations inside a layer."""
    yield from layer._flatten_layers(include_self=False, recursive=True)
    for part in layer._flatten_layers(include_self=True, recursive=True):
        if isinstance(part, keras().Function):
            yield from part.operations


def _is_sample_wise(layer: Any) -> bool:
    kind, layers = type(layer), keras().layers
    if isinstance(layer, layers.InputLayer):
        return layer.batch_shape[0] is None  # else it takes batches of that size alone
    axes = getattr(layer, "axis", None)
    functions: list[Callable[..., Any] | None] = [getattr(layer, name, None) for name in _FUNCTIONS]
    return (
        isinstance(layer, layers.Layer)
        and kind.__module__.startswith("keras.")
        and kind.__name__ not in _ANY_CODE
        and not getattr(layer, "stateful", False)
        and getattr(layer, "quantization_mode", None) is None
        and 0 not in (axes if isinstance(axes, (list, tuple)) else [axes])
        and all(
            function is None or getattr(function, "__module__", "").startswith("keras.")
            for function in functions
        )
    )
