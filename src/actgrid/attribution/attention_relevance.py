"""Attribution methods that follow attention through the layers of a transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from actgrid.attribution.batches import (
    BatchAttribution,
    ExplainedBatch,
    ScoreReader,
    SymbolicRun,
)
from actgrid.attribution.method import method
from actgrid.attribution.scores import TargetScores
from actgrid.attribution.target_layers import collect_ancestors
from actgrid.errors import LayerError, ShapeError
from actgrid.models.calls import Call
from actgrid.models.frameworks import tensorflow

__all__ = ["HEAD_FUSIONS", "HeadFusion", "attention_relevance", "attention_rollout"]

# How the attention of several heads is combined.
HeadFusion = Literal["mean", "max", "min"]
HEAD_FUSIONS = get_args(HeadFusion)


@method(
    "attention_rollout",
    "Abnar 2020, https://arxiv.org/abs/2005.00928",
    needs=["gradients", "attention"],
)
def attention_rollout(
    batch: ExplainedBatch, *, head_fusion: HeadFusion = "mean"
) -> BatchAttribution:
    """Multiply the attention of all layers; follows tokens to the tokens that are read."""
    return _compute_maps(batch, _RolloutFunction(batch.reader, head_fusion))


@method(
    "attention_relevance",
    "Chefer 2021, https://arxiv.org/abs/2103.15679",
    needs=["gradients", "attention"],
)
def attention_relevance(batch: ExplainedBatch) -> BatchAttribution:
    """Multiply the attention of all layers, weighted by its gradient of the score."""
    return _compute_maps(batch, _RelevanceFunction(batch.reader))


def _compute_maps(batch: ExplainedBatch, body: Any) -> BatchAttribution:
    values, target_scores = batch.run(body)
    return BatchAttribution(
        np.asarray(values, np.float32), batch.check_scores(target_scores), batch.layout.names
    )


@dataclass(frozen=True)
class _RolloutFunction:
    """Function that computes the attention rollout of each sample, and the target scores."""

    reader: ScoreReader
    head_fusion: str

    def __call__(self, model: Any, inputs: Any, target_classes: Any) -> tuple[Any, TargetScores]:
        tf = tensorflow()
        run = self.reader.run(model, inputs, target_classes)
        calls = find_self_attention(run)
        fuse = getattr(tf, f"reduce_{self.head_fusion}")
        rollout = None
        for call in calls:
            attention = fuse(tf.cast(call.tensor, tf.float32), 1)
            # The residual connection passes each token on, next to what it attends to.
            attention = (attention + _make_identity(attention)) / 2
            attention /= tf.reduce_sum(attention, -1, keepdims=True)
            rollout = attention if rollout is None else tf.matmul(attention, rollout)
        return _read_tokens(run, calls[-1], rollout), run.target_scores


@dataclass(frozen=True)
class _RelevanceFunction:
    """Function that computes the relevance of tokens of each sample, and the target scores."""

    reader: ScoreReader

    def __call__(self, model: Any, inputs: Any, target_classes: Any) -> tuple[Any, TargetScores]:
        tf = tensorflow()
        run = self.reader.run(model, inputs, target_classes)
        calls = find_self_attention(run)
        relevance = None
        for call in calls:
            attention = tf.cast(call.tensor, tf.float32)
            gradient = _get_gradient(run, call)
            weighted = tf.reduce_mean(tf.nn.relu(attention * gradient), 1)
            if relevance is None:
                relevance = _make_identity(weighted)
            relevance += tf.matmul(weighted, relevance)
        values = _read_tokens(run, calls[-1], relevance, without_identity=True)
        return values, run.target_scores


def find_self_attention(run: SymbolicRun) -> list[Call]:
    """Return the attention of the explained tokens to each other, in order.

    Attention to other tokens is left out, such as that of a decoder to the tokens of an encoder.

    Raises
    ------
    LayerError
        If there is no such attention between the explained input and the score.
    ShapeError
        If the attention is limited to windows, or the number of tokens changes.
    """
    explained = run.explained[0]
    derived = _collect_descendants(explained)
    ancestors = collect_ancestors([run.target_scores.scores])
    calls: list[Call] = []
    for call in run.calls:
        if not call.node.is_attention or call.scores is None:
            continue
        if call.scores.tensor.name not in ancestors or call.scores.tensor.name not in derived:
            continue
        operands = call.scores.operands or (call.scores.tensor,)
        if all(operand.name in derived for operand in operands):
            if calls and call.info.shape[2:] != calls[0].info.shape[2:]:
                raise ShapeError(
                    f"the attention layers must have one number of tokens: got "
                    f"{calls[0].info.shape[2:]} in {calls[0].info.path} and {call.info.shape[2:]} "
                    f"in {call.info.path}; use attnlrp or a method of gradients"
                )
            calls.append(call)
        elif calls:
            break  # tokens of a decoder attend to the explained tokens
    if not calls:
        raise LayerError(
            "the model has no attention of the explained tokens to each other: use a method that "
            "needs no attention, such as saliency"
        )
    shape = calls[0].info.shape
    has_windows = any(call.scores is not None and call.scores.has_windows for call in calls)
    if shape[2] != shape[3] or has_windows:
        raise ShapeError(
            f"{calls[0].info.path}: attention of shape {shape} is not one of all tokens to all "
            "tokens, such as attention within windows; use attnlrp or a method of gradients"
        )
    return calls


def _collect_descendants(tensor: Any) -> set[str]:
    """Return the names of a tensor and of all tensors that are computed from it."""
    names = {tensor.name}
    pending = list(tensor.consumers())
    visited: set[str] = set()
    while pending:
        operation = pending.pop()
        if operation.name not in visited:
            visited.add(operation.name)
            for output in operation.outputs:
                names.add(output.name)
                pending += output.consumers()
    return names


def _get_gradient(run: SymbolicRun, call: Call) -> Any:
    """Return the gradient of the scores of the target with respect to attention scores."""
    tf = tensorflow()
    assert call.scores is not None
    (gradient,) = tf.gradients(run.target_scores.scores, call.scores.tensor)
    if gradient is None:
        return tf.zeros_like(call.tensor, tf.float32)
    return tf.cast(call.scores.arrange(gradient), tf.float32)


def _make_identity(matrices: Any) -> Any:
    tf = tensorflow()
    lengths = tf.shape(matrices)
    return tf.eye(lengths[-1], batch_shape=lengths[:1])


def _read_tokens(
    run: SymbolicRun, last: Call, relevance: Any, without_identity: bool = False
) -> Any:
    """Return the relevance of each token for the tokens that the score is read from.

    The score is read from the queries of the last attention that it depends on: one class token, or
    the last token of a language model, or all tokens that are averaged.

    Parameters
    ----------
    run
        The traced model.
    last
        The last attention.
    relevance
        (N, queries, tokens).
    without_identity
        Whether to leave out the relevance of a token for itself that all tokens have.
    """
    tf = tensorflow()
    if without_identity:
        relevance -= _make_identity(relevance)
    is_read = tf.reduce_any(_get_gradient(run, last) != 0, (1, 3))
    # A saturated score has no gradient: the class token is read, or all tokens.
    grid = last.info.grids[2]
    positions = tf.range(tf.shape(is_read)[1])
    usual = positions == 0 if grid is not None and grid.leading else positions >= 0
    is_read = tf.where(tf.reduce_any(is_read, 1, keepdims=True), is_read, usual)
    weights = tf.cast(is_read, tf.float32)
    weights /= tf.reduce_sum(weights, 1, keepdims=True)
    values = tf.einsum("nq,nqk->nk", weights, relevance)
    return _arrange_tokens(run, last, values)


def _arrange_tokens(run: SymbolicRun, last: Call, values: Any) -> Any:
    """Return the values of tokens in the axes of the explained tensor."""
    tf = tensorflow()
    rank, count = run.explained[0].shape.rank, run.explained[0].shape[1]
    grid = last.info.token_grid
    if rank == 3:
        # A class token may be added after the explained embedding.
        if grid is not None and count == grid.height * grid.width != grid.tokens:
            return values[:, grid.patches]
        return values
    if rank != 4 or grid is None:
        raise ShapeError(
            f"{last.info.path}: the grid of the image's tokens is not known; use attnlrp or a "
            "method of gradients"
        )
    return tf.reshape(values[:, grid.patches], (-1, grid.height, grid.width))
