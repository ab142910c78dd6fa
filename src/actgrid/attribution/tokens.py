"""Name the tokens of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError
from actgrid.models.calls import Call
from actgrid.models.compiled import compile_function
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.network import is_network
from actgrid.models.networks import trace_network
from actgrid.models.tracing import keep_state
from actgrid.models.vocabularies import list_token_indices

__all__ = ["name_indices", "name_tokens"]

_EXPECTED = (
    "tokens must be a TextVectorization or StringLookup layer, a tokenizer with the method "
    "id_to_token, a vocabulary (a list of strings by index), a function of an index, or a list of "
    "strings for each sample"
)


def name_tokens(
    model: Any, inputs: Any, position: int, length: int, tokens: Any
) -> list[tuple[str, ...]] | None:
    """Return the strings of the tokens of each sample; None if they are not known.

    Parameters
    ----------
    inputs
        The model's inputs, as `prepare_inputs` returns them.
    position
        Position of the input that holds the tokens or strings.
    length
        Number of tokens of each sample.
    tokens
        Value of the option `tokens`.

    Returns
    -------
    list of tuple of str or None
        `length` strings for each sample, ``""`` for padding.

    Raises
    ------
    OptionError
        If `tokens` is invalid.
    ShapeError
        If the number of strings does not fit the tokens.
    """
    tensor = tensorflow().nest.flatten(inputs)[position]
    if tokens is not None and not callable(tokens):
        strings = _read_strings(tokens, len(tensor), length)
        if strings is not None:
            return strings
    indices: npt.NDArray[Any] | None = None
    if tensor.dtype == tensorflow().string:
        found = compile_function(model, _VectorizationFunction())(inputs)
        layers = _list_vectorizations(model)
        if not layers or not len(found):
            return None
        tokens = layers[0] if tokens is None else tokens
        indices = np.asarray(found)
    elif tensor.shape.rank == 2:
        indices = np.asarray(tensor).astype(np.int64)
    if tokens is None or indices is None or indices.shape[1] != length:
        return None
    get_token = _read_vocabulary(tokens)
    return [tuple(get_token(int(index)) for index in row) for row in indices]


def name_indices(tokens: Any, indices: npt.NDArray[Any]) -> Any:
    """Return the strings of an array of token indices, as nested lists.

    None: `tokens` is None or no vocabulary.
    """
    if tokens is None or (
        isinstance(tokens, Sequence) and tokens and not isinstance(tokens[0], str)
    ):
        return None
    get_token = _read_vocabulary(tokens)

    def convert(values: Any) -> Any:
        return (
            [convert(value) for value in values] if isinstance(values, list) else get_token(values)
        )

    return convert(indices.tolist())


def _list_vectorizations(model: Any) -> list[Any]:
    if is_network(model):
        return []
    layers = keras().layers
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, (layers.TextVectorization, layers.StringLookup))
    ]


@dataclass(frozen=True)
class _VectorizationFunction:
    """Function that returns the indices of the tokens, (N, T), that a model makes of strings."""

    def __call__(self, model: Any, inputs: Any) -> Any:
        with keep_state():
            calls: list[Call] = trace_network(model, inputs).calls
        for call in calls:
            if call.tensor.dtype.is_integer and len(call.info.shape) == 2:
                return call.tensor
        return tensorflow().zeros((0, 0), tensorflow().int64)


def _read_strings(tokens: Any, count: int, length: int) -> list[tuple[str, ...]] | None:
    """Return given strings of each sample; None if `tokens` is a vocabulary or tokenizer."""
    if isinstance(tokens, (str, bytes)) or not isinstance(tokens, (Sequence, np.ndarray)):
        return None
    rows = list(tokens)
    if rows and all(isinstance(row, str) for row in rows):
        if not (count == 1 and len(rows) == length):
            return None  # a vocabulary
        rows = [rows]
    if len(rows) != count:
        raise ShapeError(
            f"tokens must have a list of strings for each sample: got {len(rows)} for {count}"
        )
    strings = []
    for row in rows:
        texts = tuple(map(str, row))
        if len(texts) > length:
            raise ShapeError(
                f"tokens must have at most {length} strings for each sample: got {len(texts)}"
            )
        strings.append(texts + ("",) * (length - len(texts)))
    return strings


def _read_vocabulary(tokens: Any) -> Callable[[int], str]:
    """Return a function that returns the string of a token by its index."""
    tokenizer = getattr(tokens, "tokenizer", tokens)
    if hasattr(tokenizer, "get_vocabulary"):
        vocabulary = list(tokenizer.get_vocabulary())
        if hasattr(tokenizer, "id_to_token"):
            return lambda index: str(tokenizer.id_to_token(index))
        return lambda index: _look_up(vocabulary, index)
    if hasattr(tokenizer, "id_to_token"):
        return lambda index: str(tokenizer.id_to_token(index))
    if isinstance(tokenizer, Mapping):
        by_index = {index: token for token, index in list_token_indices(tokenizer)}
        return lambda index: str(by_index.get(index, f"[{index}]"))
    if callable(tokenizer):
        return lambda index: str(tokenizer(index))
    if isinstance(tokenizer, (Sequence, np.ndarray)) and not isinstance(tokenizer, (str, bytes)):
        vocabulary = list(map(str, tokenizer))
        return lambda index: _look_up(vocabulary, index)
    raise OptionError(f"{_EXPECTED}, not {tokens!r}")


def _look_up(vocabulary: Sequence[Any], index: int) -> str:
    # An index outside of the vocabulary belongs to a reserved or unknown token.
    return str(vocabulary[index]) if 0 <= index < len(vocabulary) else f"[{index}]"
