"""Select registered gradients for operations of a traced graph."""

from __future__ import annotations

from typing import Any

__all__ = ["set_gradient"]


def set_gradient(operation: Any, name: str) -> None:
    """Let TensorFlow use a registered gradient function for an operation.

    Parameters
    ----------
    operation
        Operation of a graph, whose gradient is computed later.
    name
        Name that was given to `tf.RegisterGradient`.
    """
    from tensorflow.core.framework.attr_value_pb2 import AttrValue

    operation._set_attr("_gradient_op_type", AttrValue(s=name.encode()))
