"""Convert texts to the input of a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from actgrid.errors import OptionError
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import read_input_specs

__all__ = ["encode_texts", "is_text", "takes_strings"]

# Suffixes of files of texts, or of indices of tokens.
_SUFFIXES = (".txt", ".npy", ".npz")


def takes_strings(model: Any) -> bool:
    """Return whether an input of a model takes strings."""
    tf = tensorflow()
    return any(
        spec is not None and spec.dtype == tf.string
        for spec in tf.nest.flatten(read_input_specs(model))
    )


def is_text(x: Any, model: Any, tokens: Any) -> bool:
    """Return whether strings are texts for a model, and not paths of files.

    Strings that end like a file of texts or arrays are paths if the file exists.
    """
    samples = x if isinstance(x, (list, tuple)) else [x]
    if not samples or not all(isinstance(sample, str) for sample in samples):
        return False
    # The method of Path raises an error for a long text.
    if any(
        sample.lower().endswith(_SUFFIXES) and os.path.isfile(sample)  # noqa: PTH113
        for sample in samples
    ):
        return False
    return takes_strings(model) or tokens is not None


def encode_texts(x: str | Sequence[str], model: Any, tokens: Any) -> Any:
    """Convert texts to the input of a model: strings, or the indices of their tokens.

    Parameters
    ----------
    x
        One text, or a list of texts.
    tokens
        For a model that takes indices: a function of a list of texts, such as a TextVectorization
        layer or a tokenizer.

    Returns
    -------
    tensor
        Strings (N,) or (N, 1), or indices (N, T).

    Raises
    ------
    OptionError
        If the model takes indices and `tokens` is no function.
    """
    tf = tensorflow()
    texts = [x] if isinstance(x, str) else list(x)
    (spec, *_) = tf.nest.flatten(read_input_specs(model)) or [None]
    if takes_strings(model):
        strings = tf.constant(texts)
        return strings[:, None] if spec is not None and spec.shape.rank == 2 else strings
    if not callable(tokens):
        raise OptionError(
            "the model takes indices of tokens: give tokens (--tokens), a TextVectorization layer "
            "or a tokenizer that converts the texts, or give the indices"
        )
    indices = tokens(texts)
    if isinstance(indices, tf.RaggedTensor):
        indices = indices.to_tensor()
    indices = tf.convert_to_tensor(indices)
    length = spec.shape[1] if spec is not None and spec.shape.rank == 2 else None
    if length is not None:
        indices = indices[:, :length]
        indices = tf.pad(indices, [[0, 0], [0, length - indices.shape[1]]])
    return indices
