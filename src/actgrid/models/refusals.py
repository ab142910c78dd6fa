"""Errors for a model that fails on its inputs, in one line."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from actgrid.errors import (
    ActgridError,
    DeviceError,
    ModelError,
    UnusableModelError,
    strip_terminal_codes,
)
from actgrid.models.frameworks import tensorflow

__all__ = ["reason", "refusal", "running"]

# What Keras makes of the error of a layer's `call`: where, the message, and the arguments.
_IN_CALL = re.compile(
    r"Exception encountered when calling (?P<call>.*?)\.\n\n(?P<message>.*?)\n\n"
    r"Arguments received by .*",
    re.DOTALL,
)
# As in "float() argument must be ... not 'SymbolicTensor'", and "Using a symbolic `tf.Tensor` as a
# Python `bool` is not allowed".
_SYMBOLIC = re.compile(r"symbolic", re.IGNORECASE)
_NO_ATTRIBUTE = re.compile(r"'SymbolicTensor' object has no attribute '(\w+)'")
_EAGER_ONLY = (
    "the model runs only eagerly, as it reads values of tensors in Python, and actgrid compiles "
    "models: write keras.ops.where or keras.ops.cond for Python's if, and keras.ops for NumPy, or "
    "put that code into a tf.py_function"
)
# As in "Conv2DCustomBackpropInputOp only supports NHWC".
_CHANNELS_FIRST = re.compile(r"only supports (the )?N(HW|DHW)C")


@contextmanager
def running(inputs: Any) -> Iterator[None]:
    """Raise ModelError where a model fails on its inputs, and say of what shapes these are.

    A model's own code may raise any exception.
    """
    try:
        yield
    except ActgridError:
        raise
    except Exception as error:
        raise refusal(inputs, error) from error


def refusal(inputs: Any, error: Exception) -> ModelError:
    """Return the error to raise where a model fails on its inputs: of what shapes, and why.

    Parameters
    ----------
    inputs
        Tensors, or a structure of them.
    error
        What TensorFlow, Keras, or the model's own code raised.
    """
    tf = tensorflow()
    shapes = ", ".join(
        str(tuple(tensor.shape)) for tensor in tf.nest.flatten(inputs) if tensor is not None
    )
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return ModelError(
            f"the device has not enough memory for inputs of {shapes}: give a smaller batch_size, "
            "or smaller images"
        )
    if _CHANNELS_FIRST.search(str(error)):
        return DeviceError(
            "this device cannot run the channels-first convolutions of the model: TensorFlow "
            f"computes them on a GPU, or on a CPU for which it uses oneDNN; {reason(error)}"
        )
    if isinstance(error, tf.errors.UnimplementedError):
        return DeviceError(f"this device cannot run the model: {reason(error)}")
    if _is_eager_only(error):
        return UnusableModelError(f"{_EAGER_ONLY} ({reason(error).partition('. ')[0]})")
    # Errors of other kinds are faults of the model's own code, and not refusals of an input.
    kind = ModelError if _tells_by_message(error) else UnusableModelError
    return kind(f"the model cannot be run on {shapes}: {reason(error)}")


def _tells_by_message(error: Exception) -> bool:
    """Return whether an error is of a kind that TensorFlow and Keras raise with a message."""
    return isinstance(error, (ValueError, NotImplementedError, tensorflow().errors.OpError))


def _is_eager_only(error: Exception) -> bool:
    """Return whether an error comes of what tensors can do only when they have a value."""
    text = str(error)
    if missing := _NO_ATTRIBUTE.search(text):
        with tensorflow().init_scope():  # out of the graph that is being traced
            return hasattr(tensorflow().constant(0), missing[1])
    return _SYMBOLIC.search(text) is not None


def reason(error: Exception) -> str:
    """Return the message of an error in one line, after the name of the call that failed.

    The kind of error is part of it where the message alone may say little, as that of a KeyError.
    """
    # The text of a KeyError is the repr of its message.
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = strip_terminal_codes(str(message))
    if text.startswith("Graph execution error"):
        # After a traceback, and before the names of operations.
        text = text.split("\n\t")[0].strip().splitlines()[-1]
    where = ""
    if in_call := _IN_CALL.fullmatch(text):
        where, text = f"{in_call['call']}: ", in_call["message"]
    if not _tells_by_message(error):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return where + textwrap.shorten(text, 300, placeholder=" ...")
