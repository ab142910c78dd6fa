"""Functions of a model's input, run as graphs of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actgrid.models.frameworks import tensorflow
from actgrid.models.refusals import refusal

__all__ = ["GraphFunction"]


class GraphFunction:
    """A function that is traced into graphs, one for each kind of input, and run as these.

    It is run so under ``tf.config.run_functions_eagerly(True)`` too, where a call of a
    `tf.function` would run Python's code each time: what is captured while a model is traced
    exists in graphs alone.

    Parameters
    ----------
    function
        Takes a model's inputs and further arguments, structures of symbolic tensors, and returns
        a structure of them.
    relax_shapes
        Whether a graph for another shape is made for all shapes, so that not each needs its own.
    """

    def __init__(self, function: Callable[..., Any], *, relax_shapes: bool = False) -> None:
        # Keras runs layers without AutoGraph too.
        self._function = tensorflow().function(
            function, autograph=False, reduce_retracing=relax_shapes
        )

    def trace(self, inputs: Any, *arguments: Any) -> None:
        """Make the graph for inputs like these, tensors or TensorSpecs, unless there is one."""
        self._function.get_concrete_function(inputs, *arguments)

    def __call__(self, inputs: Any, *arguments: Any) -> Any:
        """Run the graph for these inputs, which is made if there is none.

        Raises
        ------
        ModelError
            If the model cannot be run on them.
        """
        # Outside of the `try`: what an operation raises while it is traced is the model's.
        graph = self._function.get_concrete_function(inputs, *arguments)
        try:
            return graph(inputs, *arguments)
        except tensorflow().errors.OpError as error:
            # As of a stateful layer, which is made for batches of one size.
            raise refusal(inputs, error) from error

    @property
    def trace_count(self) -> int:
        """Number of graphs made so far."""
        count: int = self._function.experimental_get_tracing_count()
        return count
