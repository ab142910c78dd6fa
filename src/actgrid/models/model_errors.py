"""Convert errors of failing models to one-line actgrid errors."""

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

__all__ = ["extract_error_line", "make_model_error", "raise_model_errors", "summarize_error"]

# Keras's text for an error in a layer's `call`: the call, the message, and the arguments.
_IN_CALL = re.compile(
    r"Exception encountered when calling (?P<call>.*?)\.\n\n(?P<message>.*?)\n\n"
    r"Arguments received by .*",
    re.DOTALL,
)
# Matches "float() argument must be ... not 'SymbolicTensor'", and "Using a symbolic `tf.Tensor` as
# a Python `bool` is not allowed".
_SYMBOLIC = re.compile(r"symbolic", re.IGNORECASE)
_NO_ATTRIBUTE = re.compile(r"'SymbolicTensor' object has no attribute '(\w+)'")
_EAGER_ONLY = (
    "the model runs only eagerly, because it reads tensor values in Python, but actgrid compiles "
    "models: write keras.ops.where or keras.ops.cond for Python's if, and keras.ops for NumPy, or "
    "wrap that code in a tf.py_function"
)
# An error of a network outside TensorFlow, in the message of the operation that runs the network.
_NETWORK_ERROR = re.compile(r"actgrid\.errors\.ModelError: (.*)")
# Matches "Conv2DCustomBackpropInputOp only supports NHWC".
_CHANNELS_FIRST = re.compile(r"only supports (the )?N(HW|DHW)C")


@contextmanager
def raise_model_errors(inputs: Any) -> Iterator[None]:
    """Convert errors of a model in the ``with`` block to ModelError.

    The message contains the shapes of the inputs.

    The code of a model may raise any exception.
    """
    try:
        yield
    except ActgridError:
        raise
    except Exception as error:
        raise make_model_error(inputs, error) from error


def make_model_error(inputs: Any, error: Exception) -> ModelError:
    """Make an error with input shapes and reason for a model that failed.

    Parameters
    ----------
    inputs
        Tensors, or a structure of tensors.
    error
        The exception that TensorFlow, Keras, or the code of the model raised.

    Returns
    -------
    ModelError
        The error, of a subclass if the model cannot run on any input.
    """
    tf = tensorflow()
    shapes = ", ".join(
        str(tuple(tensor.shape)) for tensor in tf.nest.flatten(inputs) if tensor is not None
    )
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return ModelError(
            f"the device has not enough memory for inputs of shape {shapes}: use a smaller "
            "batch_size or smaller images"
        )
    if network_error := _NETWORK_ERROR.search(str(error)):
        return ModelError(network_error[1])
    if _CHANNELS_FIRST.search(str(error)):
        return DeviceError(
            "this device cannot run the channels-first convolutions of the model: TensorFlow "
            "computes them on a GPU, or on a CPU for which it uses oneDNN; "
            f"{summarize_error(error)}"
        )
    if isinstance(error, tf.errors.UnimplementedError):
        return DeviceError(f"this device cannot run the model: {summarize_error(error)}")
    if _is_eager_only(error):
        return UnusableModelError(f"{_EAGER_ONLY} ({summarize_error(error).partition('. ')[0]})")
    # Other error types are bugs in the code of the model, not invalid inputs.
    error_class = ModelError if _has_clear_message(error) else UnusableModelError
    return error_class(
        f"the model cannot be run on inputs of shape {shapes}: {summarize_error(error)}"
    )


def _has_clear_message(error: Exception) -> bool:
    """Return whether TensorFlow and Keras raise exceptions of this type themselves.

    Their messages explain the problem. Exceptions of other types are bugs in the code of a model.
    """
    return isinstance(error, (ValueError, NotImplementedError, tensorflow().errors.OpError))


def _is_eager_only(error: Exception) -> bool:
    """Return whether an error was raised because a tensor has no value in a graph.

    Examples are a missing method ``numpy``, and a condition on a symbolic tensor.
    """
    text = str(error)
    if missing := _NO_ATTRIBUTE.search(text):
        with tensorflow().init_scope():  # outside the graph that is being traced
            return hasattr(tensorflow().constant(0), missing[1])
    return _SYMBOLIC.search(text) is not None


def summarize_error(error: Exception) -> str:
    """Return the message of an error as one line, after the name of the failed call.

    The type of the error is included where the message alone says little, as for a KeyError.

    Returns
    -------
    str
        One line of text.
    """
    # The text of a KeyError is the repr of its message.
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = strip_terminal_codes(str(message))
    if text.startswith("Graph execution error"):
        # The reason stands after a traceback and before the names of operations.
        text = text.split("\n\t")[0].strip().splitlines()[-1]
    prefix = ""
    if in_call := _IN_CALL.fullmatch(text):
        prefix, text = f"{in_call['call']}: ", in_call["message"]
    if not _has_clear_message(error):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return prefix + textwrap.shorten(text, 300, placeholder=" ...")


def extract_error_line(error: BaseException) -> str:
    """Return the reason in the message of a Keras error, as one line of text."""
    text = strip_terminal_codes(str(error)).rpartition("Exception encountered:")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith("Exception encountered when calling"):
        lines = lines[1:] or lines
    return lines[0][:300] if lines else type(error).__name__
