"""Measure the residual stream of a transformer, and read predictions from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from actgrid.attribution.model_samples import ModelSample, prepare_sample
from actgrid.attribution.tokens import name_indices
from actgrid.errors import LayerError, ModelError, OptionError, suggest
from actgrid.models.calls import Trace
from actgrid.models.compiled import compile_function, trace_once
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import free_batch_axis, map_tensors
from actgrid.models.labels import resolve_labels
from actgrid.models.layers import collect_layers
from actgrid.models.network import check_compiled
from actgrid.models.networks import get_network, trace_network
from actgrid.models.residual_stream import find_residual_stream
from actgrid.models.tracing import keep_state
from actgrid.models.types import ModelInput, ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import LogitLensOptions, TokenSampleOptions
from actgrid.rendering import LogitLens, ResidualStream
from actgrid.targets import get_logits

__all__ = ["compute_logit_lens", "measure_residual_stream"]


@takes_options(TokenSampleOptions)
def measure_residual_stream(
    model: ModelLike, x: ModelInput, **options: Unpack[TokenSampleOptions]
) -> ResidualStream:
    """Measure the norm and the change of direction of a transformer's residual stream.

    The residual stream is the tensor (N, T, C) to which each attention and feed-forward layer adds
    its output. The norm shows how much has been written to a token; the angle between a state and
    the state before it shows how much a layer changed it.

    Parameters
    ----------
    model : keras.Model or str
        A transformer, or anything that `actgrid.load_model` takes.
    x : array_like, dict, list, image sources or texts
        The model's input, as for `actgrid.explain`.
    **options
        See `actgrid.options.TokenSampleOptions`.

    Returns
    -------
    ResidualStream
        Norms and angles of each state and token.

    Raises
    ------
    LayerError
        If the model has no residual additions of tokens. Also a KeyError.
    ModelError
        If the model cannot be run on `x`. Also a ValueError.

    References
    ----------
    Elhage and others, 2021, A Mathematical Framework for Transformer Circuits.

    Examples
    --------
    >>> import keras
    >>> inputs = keras.Input((4, 8))
    >>> attended = keras.layers.MultiHeadAttention(2, 4)(inputs, inputs)
    >>> model = keras.Model(inputs, keras.layers.Add(name="add")([inputs, attended]))
    >>> stream = actgrid.measure_residual_stream(model, np.random.rand(1, 4, 8))
    >>> stream.states
    ('embedding', 'add: attention')
    """
    prepared = prepare_sample(model, x, options["sample"], options["tokens"])
    names, states = _compute_states(prepared, "measure_residual_stream")
    values = np.stack([np.asarray(state[0], np.float64) for state in states])
    norms = np.linalg.norm(values, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = (values[1:] * values[:-1]).sum(-1) / (norms[1:] * norms[:-1])
    angles = np.full(norms.shape, np.nan)
    angles[1:] = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return ResidualStream(
        norms, angles, names, tokens=prepared.name_tokens(values.shape[1], names[-1])
    )


@takes_options(LogitLensOptions)
def compute_logit_lens(
    model: ModelLike, x: ModelInput, **options: Unpack[LogitLensOptions]
) -> LogitLens:
    """Compute what a transformer would predict from each state of its residual stream.

    Parameters
    ----------
    model : keras.Model or str
        A transformer, or anything that `actgrid.load_model` takes.
    x : array_like, dict, list, image sources or texts
        The model's input, as for `actgrid.explain`.
    **options
        See `actgrid.options.LogitLensOptions`. `output_head` converts a state (N, T, C) to logits:
        a layer path, a layer or a function, or a list of these that is applied in order, such as
        the final normalization and the output layer. Of an embedding, the table is used, which is
        the head of a model with tied weights.

    Returns
    -------
    LogitLens
        The best predictions of each state: at each token for a language model, or of the class for
        a classifier.

    Raises
    ------
    LayerError
        If the model has no residual additions of tokens, or `output_head` names no layer. Also a
        KeyError.
    ModelError
        If the last state is not the output of a layer, so that `output_head` must be given. Also a
        ValueError.
    OptionError
        If an option is invalid. Also a ValueError.

    References
    ----------
    nostalgebraist, 2020, interpreting GPT: the logit lens.

    Examples
    --------
    >>> import keras
    >>> inputs = keras.Input((4,), dtype="int32")
    >>> x = keras.layers.Embedding(10, 8)(inputs)
    >>> x = keras.layers.Add(name="add")([x, keras.layers.MultiHeadAttention(2, 4)(x, x)])
    >>> model = keras.Model(inputs, keras.layers.Dense(10)(x))
    >>> lens = actgrid.compute_logit_lens(model, np.array([[1, 2, 3, 4]]))
    >>> lens.indices.shape
    (2, 4, 5)
    """
    head = options["output_head"]
    prepared = prepare_sample(model, x, options["sample"], options["tokens"])
    names, states = _compute_states(prepared, "compute_logit_lens")
    tf = tensorflow()
    stacked = tf.concat(states, 0)
    repeated = _repeat_inputs(prepared.inputs, len(states))
    body: Any
    if head is None:
        specs = map_tensors(free_batch_axis, prepared.inputs)
        path = trace_once(prepared.model, _LastStateSearch(), specs)
        if path is None:
            raise ModelError(
                "the last state of the residual stream is not the output of a layer: pass "
                "output_head, such as the path of the output layer"
            )
        body = _TailFunction(path)
    else:
        body = _HeadFunction(_resolve_head(prepared.model, head))
    logits = np.asarray(compile_function(prepared.model, body)(repeated, stacked), np.float64)
    if logits.ndim == 2:
        logits = logits[:, None]
    if logits.ndim != 3:
        raise ModelError(
            f"output_head must return logits (N, T, classes) or (N, classes): got {logits.shape}"
        )
    count = min(options["top_k"], logits.shape[-1])
    indices = np.argsort(-logits, axis=-1, kind="stable")[..., :count]
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = np.take_along_axis(shifted / shifted.sum(-1, keepdims=True), indices, -1)
    positions = logits.shape[1]
    is_text = positions > 1 or positions == int(states[0].shape[1])
    return LogitLens(
        indices,
        probabilities,
        names,
        tokens=prepared.name_tokens(positions, names[-1]) if is_text else ["prediction"],
        labels=_name_predictions(prepared, indices, logits.shape[-1], is_text),
    )


@dataclass(frozen=True)
class _StatesFunction:
    """Function that returns the states of the residual stream."""

    def __call__(self, model: Any, inputs: Any) -> list[Any]:
        return [state.tensor for state in _trace_stream(model, inputs)[1]]


@dataclass(frozen=True)
class _NamesFunction:
    """Function for `trace_once` that returns the names of the states."""

    def __call__(self, model: Any, inputs: Any) -> list[str]:
        return [state.name for state in _trace_stream(model, inputs)[1]]


@dataclass(frozen=True)
class _LastStateSearch:
    """Function for `trace_once`: path of the layer that returns the last state, or None."""

    def __call__(self, model: Any, inputs: Any) -> str | None:
        trace, states = _trace_stream(model, inputs)
        last = states[-1].tensor
        paths = [call.info.path for call in trace.calls if call.tensor.name == last.name]
        return paths[-1] if paths else None


@dataclass(frozen=True)
class _TailFunction:
    """Function that computes logits from other values of the last state."""

    path: str

    def __call__(self, model: Any, inputs: Any, states: Any) -> Any:
        tf = tensorflow()
        trace = _trace_stream(model, inputs)[0]
        (last,) = [call.tensor for call in trace.calls if call.info.path == self.path]
        states = tf.cast(tf.ensure_shape(states, last.shape), last.dtype)
        with keep_state():
            output = trace_network(model, inputs, {self.path: states}).outputs
        return get_logits(_get_single(output))


@dataclass(frozen=True)
class _HeadFunction:
    """Function that computes logits from states with given layers or functions."""

    parts: tuple[Any, ...]

    def __call__(self, model: Any, inputs: Any, states: Any) -> Any:
        tf = tensorflow()
        states = tf.ensure_shape(states, _trace_stream(model, inputs)[1][-1].tensor.shape)
        with keep_state():
            for part in self.parts:
                states = _apply_head(part, states)
        return states


def _trace_stream(model: Any, inputs: Any) -> tuple[Trace, list[Any]]:
    with keep_state():
        trace = trace_network(model, inputs)
    return trace, find_residual_stream(trace)


def _compute_states(prepared: ModelSample, purpose: str) -> tuple[list[str], list[Any]]:
    """Return the names and the values (1, T, C) of the states of one width."""
    check_compiled(get_network(prepared.model), purpose)
    # The compiled function below also takes any batch size.
    specs = map_tensors(free_batch_axis, prepared.inputs)
    names = trace_once(prepared.model, _NamesFunction(), specs)
    states = compile_function(prepared.model, _StatesFunction())(prepared.inputs)
    # In a hierarchical model, the states before the last change of size are left out.
    kept = [index for index, state in enumerate(states) if state.shape == states[-1].shape]
    return [names[index] for index in kept], [
        tensorflow().cast(states[index], tensorflow().float32) for index in kept
    ]


def _repeat_inputs(inputs: Any, count: int) -> Any:
    tf = tensorflow()
    tensors = [
        None if tensor is None else tf.repeat(tensor, count, axis=0)
        for tensor in tf.nest.flatten(inputs)
    ]
    return tf.nest.pack_sequence_as(inputs, tensors)


def _get_single(output: Any) -> Any:
    tensors = tensorflow().nest.flatten(output)
    if len(tensors) != 1:
        raise ModelError(
            f"the model has {len(tensors)} outputs: pass output_head, such as the path of the "
            "output layer"
        )
    return tensors[0]


def _resolve_head(model: Any, head: Any) -> tuple[Any, ...]:
    """Return the layers and functions of the option `output_head`."""
    parts = head if isinstance(head, (list, tuple)) else [head]
    layers = {node.path: node.layer for node in collect_layers(model)}
    resolved = []
    for part in parts:
        if isinstance(part, str):
            if part not in layers:
                raise LayerError(
                    f"output_head is not a layer of the model: got {part!r}{suggest(part, layers)}"
                )
            part = layers[part]
        if not callable(part):
            raise OptionError(
                f"output_head must be a layer path, a layer or a function: got {part!r}"
            )
        resolved.append(part)
    return tuple(resolved)


def _apply_head(part: Callable[[Any], Any], states: Any) -> Any:
    """Apply a layer or function; of an embedding, its table."""
    tf = tensorflow()
    if isinstance(part, keras().layers.Embedding):
        if getattr(part, "reverse_kernel", None) is not None or hasattr(part, "tie_weights"):
            return part(states, reverse=True)  # ReversibleEmbedding of keras-hub
        table = tf.cast(tf.convert_to_tensor(part.embeddings), states.dtype)
        return tf.einsum("ntc,vc->ntv", states, table)
    return part(states)


def _name_predictions(
    prepared: ModelSample, indices: Any, count: int, is_text: bool
) -> list[Any] | None:
    """Return the strings of predicted tokens or classes; None if they are not known."""
    if is_text:
        names: list[Any] | None = name_indices(prepared.tokens, indices)
        return names
    labels = resolve_labels(prepared.model, count, None)
    if labels is None:
        return None
    return [[[labels[index] for index in cell] for cell in row] for row in indices.tolist()]
