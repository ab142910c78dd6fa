"""Run functions of model inputs as TensorFlow graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actgrid.models.frameworks import tensorflow
from actgrid.models.model_errors import make_model_error

__all__ = ["GraphFunction"]


class GraphFunction:
    """Callable that TensorFlow traces once per input signature and runs as a graph.

    Graphs are also used under ``tf.config.run_functions_eagerly(True)``, where a call of a
    `tf.function` would run the Python code: layer outputs that are captured during a trace exist
    only in graphs.

    Parameters
    ----------
    function
        Function of a model's inputs and further arguments, all structures of symbolic tensors. It
        returns a structure of symbolic tensors.
    relax_shapes
        Whether the second graph accepts all shapes, so that further shapes need no graph of their
        own.
    """

    def __init__(self, function: Callable[..., Any], *, relax_shapes: bool = False) -> None:
        # Keras also runs layers without AutoGraph.
        self._function = tensorflow().function(
            function, autograph=False, reduce_retracing=relax_shapes
        )

    def trace(self, inputs: Any, *arguments: Any) -> None:
        """Create the TensorFlow graph for inputs of this signature, unless it exists."""
        self._function.get_concrete_function(inputs, *arguments)

    def __call__(self, inputs: Any, *arguments: Any) -> Any:
        """Run the TensorFlow graph for inputs; create the graph if it does not exist.

        Raises
        ------
        ModelError
            If the model cannot be run on these inputs.
        """
        # Outside the `try`: errors during tracing come from the code of the model.
        graph = self._function.get_concrete_function(inputs, *arguments)
        try:
            return graph(inputs, *arguments)
        except tensorflow().errors.OpError as error:
            # Such as from a stateful layer, which accepts batches of one size only.
            raise make_model_error(inputs, error) from error

    @property
    def trace_count(self) -> int:
        """Number of TensorFlow graphs created so far."""
        count: int = self._function.experimental_get_tracing_count()
        return count
