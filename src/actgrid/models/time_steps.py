"""Capture activations inside TimeDistributed for all time steps at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from actgrid.models.frameworks import keras, tensorflow

__all__ = ["TimeSteps", "is_sample_wise", "is_time_distributed"]

# Keras layers that run arbitrary code, which may mix the samples of a batch.
_CUSTOM_CODE_LAYERS = ("Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper")
_FUNCTION_ATTRIBUTES = ("activation", "recurrent_activation")


class TimeSteps:
    """Runner of layers inside TimeDistributed, once on the batch of all time steps.

    Keras itself runs them step by step, or in a loop if the number of steps is free. Activations,
    (N * T, ...), are split into (N, T, ...) and merged again for the next layer, so that the
    model's output depends on the captured tensors.
    """

    def __init__(self) -> None:
        self._counts: list[Any] = []
        # By id of a merged tensor: the tensor, which is kept so that its id is not reused, and the
        # split tensor.
        self._splits: dict[int, tuple[Any, Any]] = {}

    def call(self, layer: Any, inputs: Any, mask: Any = None) -> Any:
        """Run a TimeDistributed layer whose inner layer is sample-wise on all time steps.

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
            _, split_tensor = self._splits.get(id(tensor), (None, None))
            if split_tensor is not None and not self._counts:
                return split_tensor
            steps = _split_axis(tensor, [count])
            if split_tensor is not None:
                self._splits[id(steps)] = steps, split_tensor
            return steps

        return tf.nest.map_structure(split, outputs)

    def capture(
        self, outputs: Any, change: Callable[[Any], Any] = lambda outputs: outputs
    ) -> tuple[Any, Any]:
        """Restore the time axes of a layer's outputs, which were merged with the batch.

        Parameters
        ----------
        change
            Function of the outputs with time axes that returns the outputs to use instead.

        Returns
        -------
        tuple
            The outputs (N, T, ...) to record, and the outputs (N * T, ...) that the next layer
            receives.
        """
        if not self._counts:
            outputs = change(outputs)
            return outputs, outputs
        nest = tensorflow().nest
        splits = change(nest.map_structure(self._split, outputs))
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
    """Reshape (N * T, ...) to (N, T, ...), with one time axis for each of `counts`."""
    sides = tensor.shape[1:]
    split = _reshape(tensor, counts, sides, 1)
    static_counts = [count if isinstance(count, int) else None for count in counts]
    split.set_shape([split.shape[0], *static_counts, *sides])
    return split


def _merge_axes(tensor: Any, count: int) -> Any:
    """Reshape (N, T, ...) to (N * T, ...), merging `count` time axes."""
    sides = tensor.shape[1 + count :]
    merged = _reshape(tensor, [], sides, 1 + count)
    merged.set_shape([merged.shape[0], *sides])
    return merged


def _reshape(tensor: Any, counts: list[Any], sides: Any, start: int) -> Any:
    """Reshape a tensor to (-1, *counts, *sides), also if sides are not fixed.

    Parameters
    ----------
    start
        Number of the first axis of `tensor` that belongs to `sides`.
    """
    tf = tensorflow()
    if sides.is_fully_defined():
        return tf.reshape(tensor, [-1, *counts, *sides])
    return tf.reshape(tensor, tf.concat([[-1, *counts], tf.shape(tensor)[start:]], 0))


def is_time_distributed(layer: Any) -> bool:
    """Return whether a layer runs with the `call` method of Keras's TimeDistributed."""
    time_distributed = keras().layers.TimeDistributed
    return isinstance(layer, time_distributed) and type(layer).call is time_distributed.call


def is_sample_wise(layer: Any) -> bool:
    """Return whether a layer is known to compute each sample of a batch independently.

    Only Keras's own layers that run no user code are known to do so.
    """
    return all(_is_part_sample_wise(part) for part in (layer, *_iterate_parts(layer)))


def _iterate_parts(layer: Any) -> Iterator[Any]:
    """Yield all layers and operations inside a layer, at any depth."""
    yield from layer._flatten_layers(include_self=False, recursive=True)
    for part in layer._flatten_layers(include_self=True, recursive=True):
        if isinstance(part, keras().Function):
            yield from part.operations


def _is_part_sample_wise(layer: Any) -> bool:
    layer_class, layers = type(layer), keras().layers
    if isinstance(layer, layers.InputLayer):
        return layer.batch_shape[0] is None  # else it accepts only batches of this size
    axes = getattr(layer, "axis", None)
    functions: list[Callable[..., Any] | None] = [
        getattr(layer, name, None) for name in _FUNCTION_ATTRIBUTES
    ]
    return (
        isinstance(layer, layers.Layer)
        and layer_class.__module__.startswith("keras.")
        and layer_class.__name__ not in _CUSTOM_CODE_LAYERS
        and not getattr(layer, "stateful", False)
        and getattr(layer, "quantization_mode", None) is None
        and 0 not in (axes if isinstance(axes, (list, tuple)) else [axes])
        and all(
            function is None or getattr(function, "__module__", "").startswith("keras.")
            for function in functions
        )
    )
