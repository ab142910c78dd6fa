"""Target of language models: the score of a next token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from actgrid.errors import OptionError, ShapeError, TargetError
from actgrid.models.frameworks import tensorflow
from actgrid.models.vocabularies import find_token_index
from actgrid.option_checks import check_integer
from actgrid.targets.class_scores import get_single_output, read_class_scores

__all__ = ["convert_token_target", "next_token"]

_KEYS = frozenset(["token", "position"])
# Name of the input of Keras language models that is 0 or False at padding.
_MASK_NAME = "padding_mask"


def next_token(
    token: int | str | None = None,
    *,
    position: int | None = None,
    tokens: Any = None,
    use_logits: bool = True,
) -> Callable[[Any, Any], Any]:
    """Return a target: the score of a token that a language model predicts next.

    ``target={"token": " Paris"}`` is short for this target, with the option `tokens` of
    `actgrid.explain`.

    Parameters
    ----------
    token : int or str, optional
        Index of the token, or its string, which is looked up in `tokens`. None: the token with the
        highest score.
    position : int, optional
        Position of the output that is read; negative positions count from the end. None: the last
        position that is not padding, by an input named ``"padding_mask"``, or the last position.
    tokens : tokenizer, TextVectorization layer or vocabulary, optional
        Tokens by index, as in `actgrid.explain`, for a token that is a string.
    use_logits : bool, optional
        If the model ends in a softmax, whether its logits are read in place of the probabilities.

    Returns
    -------
    callable
        Target for `actgrid.explain`, for an output (N, T, vocabulary) or (N, vocabulary).

    Raises
    ------
    TargetError
        If the string is not one token of `tokens`. Also a ValueError.
    OptionError
        If an argument is invalid. Also a ValueError.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((None,), dtype="int32"),
    ...     keras.layers.Embedding(5, 4),
    ...     keras.layers.Dense(5),
    ... ])
    >>> target = actgrid.targets.next_token("sat", tokens=["", "the", "cat", "sat", "down"])
    >>> text = actgrid.explain(model, np.array([[1, 2]]), "saliency", target)
    >>> text.values.shape
    (1, 2)
    """
    name = repr(token) if isinstance(token, str) else "" if token is None else str(token)
    if isinstance(token, str):
        if tokens is None:
            raise TargetError(
                f"the token {token!r} needs tokens, such as a tokenizer or a vocabulary: pass "
                "tokens, or the index of the token"
            )
        token = find_token_index(tokens, token)
    elif token is not None:
        token = check_integer("token", token, 0)
    if position is not None:
        position = check_integer("position", position)
    return _NextTokenScore(token, position, bool(use_logits), name)


def convert_token_target(target: Any, tokens: Any) -> Any:
    """Replace dicts such as ``{"token": " Paris"}`` in a target by `next_token`.

    Parameters
    ----------
    target
        Value of the option `target`: one target, or a list of targets.
    tokens
        Value of the option `tokens`.

    Returns
    -------
    object
        The target without such dicts.
    """
    if isinstance(target, list):
        return [convert_token_target(entry, tokens) for entry in target]
    if isinstance(target, Mapping):
        if "token" in target and _KEYS.issuperset(target):
            return next_token(target["token"], position=target.get("position"), tokens=tokens)
        return {name: convert_token_target(entry, tokens) for name, entry in target.items()}
    return target


@dataclass(frozen=True)
class _NextTokenScore:
    """Target function of `next_token`.

    Attributes
    ----------
    token
        Index of the token; None: the token with the highest score.
    position
        Position of the output; None: the last position that is not padding.
    use_logits
        Whether logits are read in place of probabilities.
    name
        The token, for the label of the map.
    """

    token: int | None
    position: int | None
    use_logits: bool
    name: str

    @property
    def __name__(self) -> str:
        """Label of the map."""
        return f"next_token({self.name})"

    def __call__(self, outputs: Any, inputs: Any) -> Any:
        """Return the scores, (N,), of an output (N, T, vocabulary) or (N, vocabulary)."""
        tf = tensorflow()
        output = get_single_output(outputs, "next_token")
        if output.shape.rank not in (2, 3):
            raise ShapeError(
                "next_token needs an output (N, T, vocabulary) or (N, vocabulary): got "
                f"{tuple(output.shape)}"
            )
        size = output.shape[-1]
        if self.token is not None and size is not None and self.token >= size:
            raise TargetError(f"there is no token {self.token}: the model has {size}")
        scores = tf.reduce_max(read_class_scores(output, self.token, self.use_logits), -1)
        if output.shape.rank == 2:
            return scores
        return tf.gather(scores, self._find_positions(scores, inputs), axis=1, batch_dims=1)

    def _find_positions(self, scores: Any, inputs: Any) -> Any:
        """Return the position that is read in each sample, (N,) int32."""
        tf = tensorflow()
        count, length = tf.unstack(tf.shape(scores))
        mask = inputs.get(_MASK_NAME) if isinstance(inputs, Mapping) else None
        if self.position is not None:
            static = scores.shape[1]
            if static is not None and not -static <= self.position < static:
                raise OptionError(
                    f"position is outside of the output: got {self.position} for {static} positions"
                )
            return tf.fill([count], self.position % length)
        if mask is None:
            return tf.fill([count], length - 1)
        indices = tf.range(length) * tf.cast(tf.cast(mask, tf.bool), tf.int32)
        return tf.reduce_max(indices, 1)
