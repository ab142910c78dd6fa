"""Read vocabularies from files, and convert texts to indices of tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from actgrid.errors import FormatError, OptionError, TargetError, suggest
from actgrid.models.file_checks import raise_format_errors, read_text_file
from actgrid.models.frameworks import keras, tensorflow

__all__ = ["Tokenizer", "find_token_index", "list_token_indices", "read_vocabulary"]

_EXPECTED = (
    "a text file with a token in each line in the order of the indices, or a .json file with a "
    "list of tokens or a dict of token and index"
)
# Tokens that stand for padding and for words outside of the vocabulary.
_PADDING_TOKENS = ("", "[PAD]", "<pad>", "<PAD>")
_UNKNOWN_TOKENS = ("[UNK]", "<unk>", "<UNK>", "[OOV]", "<oov>", "<OOV>")
_MAX_INDEX = 1 << 24


def read_vocabulary(path: Path) -> list[str]:
    """Read the tokens of a vocabulary in the order of their indices.

    Parameters
    ----------
    path : pathlib.Path
        A text file in UTF-8 with a token in each line, or a .json file: a list of tokens, a dict of
        token and index in either order, or the file ``tokenizer.json`` of the package tokenizers.

    Returns
    -------
    list of str
        Tokens by index. An index without a token is named ``"[3]"``.

    Raises
    ------
    FormatError
        If the file is no vocabulary, or repeats a token.
    """
    text = read_text_file(path, _EXPECTED)
    if path.suffix.lower() == ".json":
        with raise_format_errors(path, _EXPECTED):
            tokens = _parse_json(path, json.loads(text))
    else:
        tokens = text.removesuffix("\n").split("\n")
    positions: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if token in positions:
            raise FormatError(
                f"{path} repeats the token {token!r}: got the indices {positions[token]} and "
                f"{index}; expected different tokens"
            )
        positions[token] = index
    if not any(tokens):
        raise FormatError(f"{path} contains no tokens: expected {_EXPECTED}")
    return tokens


def _parse_json(path: Path, content: Any) -> list[str]:
    """Return the tokens of a decoded .json file in the order of their indices."""
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"].get("vocab")  # the format of the package tokenizers
        if isinstance(content, list):  # of (token, score)
            content = [entry[0] for entry in content]
    if isinstance(content, list) and all(isinstance(token, str) for token in content):
        return content
    if isinstance(content, Mapping) and content:
        pairs = [
            (token, index) if isinstance(index, int) else (index, int(token))
            for token, index in content.items()
        ]
        indices = [index for _, index in pairs]
        is_valid = all(isinstance(token, str) for token, _ in pairs)
        if is_valid and min(indices) >= 0 and max(indices) < _MAX_INDEX:
            if len(set(indices)) < len(indices):
                raise FormatError(f"{path} gives several tokens the same index")
            tokens = [f"[{index}]" for index in range(max(indices) + 1)]
            for token, index in pairs:
                tokens[index] = token
            return tokens
    raise FormatError(f"{path} contains no vocabulary: expected {_EXPECTED}")


def find_token_index(tokens: Any, token: str) -> int:
    """Return the index of a token.

    Parameters
    ----------
    tokens : tokenizer, layer, sequence or mapping
        A vocabulary, or an object that has one; see the option `tokens` of `actgrid.explain`.
    token : str
        The token, or a text that the tokenizer converts to one token.

    Returns
    -------
    int
        Index of the token.

    Raises
    ------
    TargetError
        If there is no such token, or the text has several tokens.
    """
    tokenizer = getattr(tokens, "tokenizer", tokens)
    indices: dict[str, int] = {}
    if hasattr(tokenizer, "get_vocabulary"):
        indices = {str(name): index for index, name in enumerate(tokenizer.get_vocabulary())}
    elif isinstance(tokenizer, Mapping):
        indices = {str(name): int(index) for name, index in list_token_indices(tokenizer)}
    elif isinstance(tokenizer, (Sequence, np.ndarray)) and not isinstance(tokenizer, str):
        indices = {str(name): index for index, name in enumerate(tokenizer)}
    # The vocabularies of keras-hub are in no order of indices.
    if hasattr(tokenizer, "token_to_id") and token in indices:
        return int(tokenizer.token_to_id(token))
    if token in indices:
        return indices[token]
    if callable(tokenizer):
        # Some tokenizers write spaces in another way, such as GPT-2, whose " Paris" is "ĠParis".
        found = [index for index in np.ravel(_to_dense(tokenizer([token]))) if index != 0]
        if len(found) == 1:
            return int(found[0])
        if found and not indices:
            raise TargetError(f"the text {token!r} has {len(found)} tokens: expected one token")
    raise TargetError(f"there is no token {token!r}{suggest(token, indices)}")


def list_token_indices(vocabulary: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """Return the token and the index of each entry of a mapping in either direction."""
    return [
        (value, key) if isinstance(key, (int, np.integer)) else (key, value)
        for key, value in vocabulary.items()
    ]


def _to_dense(indices: Any) -> Any:
    return indices.to_tensor() if hasattr(indices, "to_tensor") else indices


class Tokenizer:
    """Function that converts texts to the indices of their words in a vocabulary.

    Texts are standardized and split into words by `keras.layers.TextVectorization`: punctuation is
    removed, and letters become lower case unless the vocabulary has upper case. Tokens of parts of
    words, such as those of BERT, need the tokenizer of their package.

    Parameters
    ----------
    vocabulary : sequence of str
        Tokens in the order of their indices. ``""``, ``"[PAD]"`` or ``"<pad>"`` stands for padding;
        ``"[UNK]"``, ``"<unk>"`` or ``"<oov>"`` for words outside of the vocabulary.

    Examples
    --------
    >>> Tokenizer(["", "[UNK]", "good", "film"])(["A good film!"]).to_list()
    [[1, 2, 3]]
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._vocabulary = list(vocabulary)
        if len(set(self._vocabulary)) < len(self._vocabulary):
            raise OptionError("tokens must be different strings: a token is repeated")

    def get_vocabulary(self) -> list[str]:
        """Return the tokens in the order of their indices."""
        return list(self._vocabulary)

    def __call__(self, texts: str | Sequence[str]) -> Any:
        """Convert texts to indices of tokens, a ragged tensor (N, None) of int64.

        Raises
        ------
        OptionError
            If a word is not in the vocabulary, which has no token for unknown words.
        """
        tf = tensorflow()
        texts = [texts] if isinstance(texts, str) else list(texts)
        layer, indices = self._layer
        layer_indices = layer(tf.constant(texts))
        if indices[1] < 0 and (is_unknown := (layer_indices == 1)).flat_values.numpy().any():
            row = int(is_unknown.to_tensor().numpy().any(axis=1).argmax())
            raise OptionError(
                f"the text {texts[row]!r} has words outside of the vocabulary: expected a "
                f"vocabulary with a token for unknown words, such as {_UNKNOWN_TOKENS[0]}"
            )
        return layer_indices.with_flat_values(tf.gather(indices, layer_indices.flat_values))

    @cached_property
    def _layer(self) -> tuple[Any, Any]:
        """A TextVectorization layer, and the indices of its tokens in the vocabulary."""
        special = [
            next((token for token in names if token in self._vocabulary), None)
            for names in (_PADDING_TOKENS, _UNKNOWN_TOKENS)
        ]
        # The layer itself adds tokens for padding and unknown words as its first two.
        reserved = {*special, "", "[UNK]"}
        words = [token for token in self._vocabulary if token not in reserved]
        positions = {token: index for index, token in enumerate(self._vocabulary)}
        is_lower = all(word == word.lower() for word in words if word[:1] not in "[<")
        layer = keras().layers.TextVectorization(
            standardize="lower_and_strip_punctuation" if is_lower else "strip_punctuation",
            vocabulary=words,
            ragged=True,
        )
        padding, unknown = special
        indices = [
            0 if padding is None else positions[padding],
            -1 if unknown is None else positions[unknown],
            *(positions[word] for word in words),
        ]
        return layer, np.array(indices, np.int64)
