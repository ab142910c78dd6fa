"""Layers of class activation maps: choose a layer, and compute maps from its activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from actgrid.attribution.batches import (
    BatchAttribution,
    ExplainedBatch,
    ScoreReader,
    SymbolicRun,
)
from actgrid.attribution.input_gradients import saliency
from actgrid.attribution.listed_target_layers import find_target_layer
from actgrid.attribution.methods import list_layerless_methods
from actgrid.attribution.scores import TargetScores
from actgrid.attribution.target_layers import (
    TokenLayerError,
    find_target_calls,
    find_token_calls,
    suggest_token_grid,
)
from actgrid.errors import LayerError, ModelError, OptionError, ShapeError
from actgrid.models.calls import Call, choose_calls
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.network import is_differentiable
from actgrid.models.networks import describe_network_layers, get_network, list_known_layers
from actgrid.models.types import LayerLike
from actgrid.option_groups import check_option
from actgrid.options import MethodOptions

__all__ = [
    "Formula",
    "LayerChoice",
    "LayerValues",
    "choose_layer",
    "compute_layer_maps",
    "compute_layer_values",
    "keep_activation",
    "list_spatial_axes",
    "make_layer_attribution",
]

# Maps activations and gradients, both (N, h, w, C), to attribution maps, (N, h, w). The spatial
# axes may also be those of a sequence (N, T, C) or of a volume (N, D, h, w, C).
Formula = Callable[[Any, Any], Any]


# Axes of a layer whose positions correspond to those of an input, by the number of its axes.
_LAYER_AXES = {3: "time axis (N, T, C)", 4: "height and width", 5: "depth, height and width"}

# Reasons for which a map is zero everywhere.
_NO_CHANNEL = "no channel of the layer {} contributes positively to the score"
_AFTER_ATTENTION = (
    "as for every layer after the last attention to the class token: choose an earlier layer, or "
    "leave out layer"
)
_SATURATED = (
    "and in the input, as for a saturated output or layer: occlusion and rise need no gradient"
)


@dataclass(frozen=True)
class LayerChoice:
    """The layer of a class activation map.

    Attributes
    ----------
    choice
        The user's selection, or the path of one call of a layer; None: the default layer.
    token_grid
        (h, w) of the tokens, for layers that return (N, T, C); None: the layer is spatial, or its
        grid of tokens is known.
    any_rank
        Whether the layer may have another number of axes than the explained tensor.
    """

    choice: Selection | str | None
    token_grid: tuple[int, int] | None
    any_rank: bool = False

    @property
    def paths(self) -> list[str]:
        """The path of the layer, if it is known."""
        return [self.choice] if isinstance(self.choice, str) else []

    def find_activation(self, model: Any, run: SymbolicRun) -> tuple[Call, Any, Any]:
        """Return the layer call to explain, its activation, and the gradient there.

        The gradient is that of the target scores with respect to the activation; None for a network
        outside TensorFlow. Activation and gradient are float32 with channels last.

        Raises
        ------
        LayerError
            If the selection matches no layer or several, or the score does not depend on the
            layer.
        ShapeError
            If the layer's output has no spatial axes.
        """
        tf = tensorflow()
        calls = self._find_calls(model, run)
        if not is_differentiable(get_network(model)):
            return calls[-1], self._to_spatial(calls[-1], calls[-1].tensor), None
        for call in reversed(calls):
            (gradient,) = tf.gradients(run.target_scores.scores, call.tensor)
            if gradient is not None:
                return call, self._to_spatial(call, call.tensor), self._to_spatial(call, gradient)
        raise LayerError(
            f"the score does not depend on the layer {calls[-1].info.path}, or has no gradient "
            "with respect to its output"
        )

    def measure_token_gradients(self, run: SymbolicRun) -> tuple[Any, Any]:
        """Return the paths of all token layers, and the largest absolute gradient of each.

        Without a `token_grid`, they are the layers whose grid of tokens is known. Both are empty if
        layers with height and width suit class activation maps.
        """
        tf = tensorflow()
        scores = run.target_scores.scores
        if self.token_grid is None:
            try:
                find_target_calls(run.calls, run.explained[0], scores, run.outputs)
            except TokenLayerError:
                calls = find_token_calls(run.calls, scores)
            else:
                return tf.constant([], tf.string), tf.constant([])
        else:
            height, width = self.token_grid
            calls = find_token_calls(run.calls, scores, height * width)
        gradients = tf.gradients(run.target_scores.scores, [call.tensor for call in calls])
        magnitudes = [
            tf.constant(0.0)
            if gradient is None
            else tf.reduce_max(tf.abs(self._to_spatial(call, gradient)))
            for call, gradient in zip(calls, gradients, strict=True)
        ]
        return tf.constant([call.info.path for call in calls]), tf.stack(magnitudes)

    def _find_calls(self, model: Any, run: SymbolicRun) -> list[Call]:
        """Return the layer calls from which the maps may be computed, in execution order.

        `find_activation` uses the last of these calls that the score depends on.
        """
        if self.choice is None:
            explained = run.explained[0]
            return find_target_calls(run.calls, explained, run.target_scores.scores, run.outputs)
        if isinstance(self.choice, str):
            return [call for call in run.calls if call.info.path == self.choice]
        calls = choose_calls(model, run.calls, self.choice)
        _check_single([call.node.path for call in calls])
        for call in calls:
            self.check_axes(call.info, run.explained[0].shape.rank)
        return calls

    def check_axes(self, info: LayerInfo, rank: int) -> None:
        """Raise ShapeError unless a layer suits an explained tensor with `rank` axes."""
        if rank == 4 and self.token_grid is None and info.token_grid is not None:
            return
        ranks = (3, 4, 5) if self.any_rank else (rank,) if self.token_grid is None else (3,)
        if len(info.shape) not in ranks:
            axes = "tokens (N, T, C)" if self.token_grid is not None else _LAYER_AXES[rank]
            hint = "; pass token_grid=(h, w)" if rank == 4 and len(info.shape) == 3 else ""
            raise ShapeError(f"layer {info.path} has no {axes}: its output is {info.shape}{hint}")

    def _to_spatial(self, call: Call, tensor: Any) -> Any:
        """Return the output of a layer as float32 with spatial axes, channels last."""
        tf = tensorflow()
        tensor = tf.cast(tensor, tf.float32)
        if self.token_grid is not None:
            height, width = self.token_grid
            tokens = tensor.shape[1]
            if tokens is not None and tokens < height * width:
                raise ShapeError(
                    f"layer {call.info.path}: {tokens} tokens do not fill a grid of "
                    f"{height} x {width}{suggest_token_grid(tokens)}"
                )
            # Class and register tokens come first and are skipped.
            return tf.reshape(tensor[:, -height * width :], (-1, height, width, tensor.shape[-1]))
        grid = call.info.token_grid
        if grid is not None and self._has_known_tokens(call):
            return tf.reshape(tensor[:, grid.patches], (-1, *grid[:2], tensor.shape[-1]))
        channels_last = (0, *range(2, tensor.shape.rank), 1)
        return tf.transpose(tensor, channels_last) if self.is_channels_first(call) else tensor

    def _has_known_tokens(self, call: Call) -> bool:
        """Return whether a layer returns tokens whose grid is known."""
        is_sequence = call.tensor.shape.rank == 3 and not self.any_rank
        return call.info.token_grid is not None and is_sequence

    def is_channels_first(self, call: Call) -> bool:
        """Return whether the channels of a layer's output are its second axis."""
        has_tokens = self.token_grid is not None or self._has_known_tokens(call)
        return call.info.data_format == "channels_first" and not has_tokens


@dataclass(frozen=True)
class _MapFunction:
    """Function that computes a class activation map of each image from one layer.

    It returns the fields of `LayerValues` as tensors.
    """

    reader: ScoreReader
    layer: LayerChoice
    formula: Formula
    linear: bool = False

    def __call__(self, model: Any, inputs: Any, target_classes: Any) -> tuple[Any, ...]:
        tf = tensorflow()
        run = self.reader.run(model, inputs, target_classes, layers=self.layer.paths)
        call, activation, gradient = self.layer.find_activation(model, run)
        if self.linear:
            _check_linear(run.target_scores.scores, call)
        values = self.formula(activation, gradient)
        if gradient is None:
            has_gradient = tf.fill(tf.shape(target_classes), False)
        else:
            has_gradient = tf.reduce_any(gradient != 0, list(range(1, gradient.shape.rank)))
        return tf.constant(call.info.path), values, has_gradient, run.target_scores


@dataclass(frozen=True)
class _TokenGradientFunction:
    """Function that returns the paths and largest absolute gradients of token layers."""

    reader: ScoreReader
    layer: LayerChoice

    def __call__(self, model: Any, inputs: Any, target_classes: Any) -> tuple[Any, Any]:
        return self.layer.measure_token_gradients(self.reader.run(model, inputs, target_classes))


def list_spatial_axes(activation: Any) -> list[int]:
    """Return the axes between the batch axis and the last axis, the channels."""
    return list(range(1, activation.shape.rank - 1))


# Operations through which a score stays linear in a layer. `Mean` is the global average.
_LINEAR_OPERATIONS = frozenset(
    [
        "AddV2",
        "BiasAdd",
        "Cast",
        "ConcatV2",
        "Conv2D",
        "EnsureShape",
        "ExpandDims",
        "GatherV2",
        "Identity",
        "MatMul",
        "Mean",
        "Neg",
        "Pack",
        "Reshape",
        "Shape",
        "Squeeze",
        "StridedSlice",
        "Transpose",
    ]
)


def _check_linear(scores: Any, call: Call) -> None:
    """Raise ModelError if more than a global average and a dense layer follow a call."""
    descendants: set[str] = set()
    pending = list(call.tensor.consumers())
    while pending:
        operation = pending.pop()
        if operation.name not in descendants:
            descendants.add(operation.name)
            pending += [user for output in operation.outputs for user in output.consumers()]
    types_by_name: dict[str, str] = {}
    pending = [scores.op]
    while pending:
        operation = pending.pop()
        if operation.name in descendants and operation.name not in types_by_name:
            types_by_name[operation.name] = operation.type
            # The indices of a gather are ignored: predicted classes derive from the layer too, by
            # operations that are not linear.
            inputs = (
                list(operation.inputs)[:1] if operation.type == "GatherV2" else operation.inputs
            )
            pending += [tensor.op for tensor in inputs]
    operation_types = set(types_by_name.values())
    if "Mean" not in operation_types or not operation_types <= _LINEAR_OPERATIONS:
        raise ModelError(
            f"cam needs a model with only a global average and one dense layer after the layer "
            f"{call.info.path}; gradcam has no such requirement"
        )


class LayerValues(NamedTuple):
    """Record of what a formula computes from the activations and gradients of a layer.

    Attributes
    ----------
    layer
        Path of the layer.
    values
        Result of the formula: a tensor, or a structure of tensors.
    has_gradient
        (N,) bool: whether the score of each sample has a nonzero gradient in the layer.
    target_scores
        Checked target scores of the samples.
    """

    layer: str
    values: Any
    has_gradient: Any
    target_scores: TargetScores


def keep_activation(activation: Any, gradient: Any) -> Any:
    """Return the activations: the `Formula` of methods that use no gradient."""
    return activation


def compute_layer_values(
    batch: ExplainedBatch, choice: LayerChoice, formula: Formula, linear: bool = False
) -> LayerValues:
    """Compute values from a layer's activations and gradients with a formula.

    For the parameters see `compute_layer_maps`.
    """
    body = _MapFunction(batch.reader, choice, formula, linear)
    path, values, has_gradient, target_scores = batch.run(body)
    return LayerValues(
        path.numpy().decode(), values, np.asarray(has_gradient), batch.check_scores(target_scores)
    )


def make_layer_attribution(
    batch: ExplainedBatch, choice: LayerChoice, maps: Any, target_scores: TargetScores, layer: str
) -> BatchAttribution:
    """Return maps, (N, h, w), that were computed from a layer, as the result of a method.

    Parameters
    ----------
    layer
        Path of the layer.
    """
    axes = batch.layout.names if choice.token_grid is None else ("height", "width")
    reasons = (_NO_CHANNEL.format(layer),) * len(batch)
    maps = np.asarray(maps, np.float32)
    return BatchAttribution(maps, target_scores, axes, layer=layer, zero_reasons=reasons)


def compute_layer_maps(
    batch: ExplainedBatch,
    layer: LayerLike | None,
    formula: Formula,
    *,
    token_grid: Any = None,
    linear: bool = False,
    any_rank: bool = False,
) -> BatchAttribution:
    """Compute maps from a layer's activations and gradients with a formula.

    Parameters
    ----------
    formula
        A hashable function, as compiled functions are cached by it.
    linear
        Whether to require that only a global average and a dense layer follow the layer. The maps
        are signed then.
    any_rank
        Whether a chosen layer may also return (N, T, C) or (N, D, H, W, C), for maps of (N, T) or
        (N, D, H, W).
    """
    choice = choose_layer(batch, layer, token_grid, any_rank)
    name, maps, has_gradient, target_scores = compute_layer_values(batch, choice, formula, linear)
    attribution = make_layer_attribution(batch, choice, maps, target_scores, name)
    attribution = attribution._replace(signed=linear)
    lacks_gradient = ~has_gradient
    if lacks_gradient.any():
        zero_gradient = f"the gradient of the score is zero in the layer {name}"
        reasons = np.array(attribution.zero_reasons, object)
        reasons = np.where(lacks_gradient, f"{zero_gradient} {_SATURATED}", reasons)
        reaches_input = _has_input_gradient(batch.with_classes_of(target_scores))
        after_attention = lacks_gradient & reaches_input
        reasons = np.where(after_attention, f"{zero_gradient}, {_AFTER_ATTENTION}", reasons)
        attribution = attribution._replace(zero_reasons=tuple(reasons))
    return attribution


def _has_input_gradient(batch: ExplainedBatch) -> Any:
    """Return (N,) bool: whether the score has a nonzero gradient for each sample."""
    try:
        gradients = saliency(batch)[0].values
    except ModelError:  # an operation before the layer is not differentiable
        return np.zeros(len(batch), bool)
    return gradients.reshape(len(batch), -1).any(1)


def choose_layer(
    batch: ExplainedBatch, layer: LayerLike | None, token_grid: Any, any_rank: bool = False
) -> LayerChoice:
    """Check the options `layer` and `token_grid`, and choose the layer of a map.

    Parameters
    ----------
    any_rank
        Whether a chosen layer may have another number of axes than the explained tensor.

    Raises
    ------
    ShapeError
        If the explained tensor has no positions.
    OptionError
        If several layers are given, or the grid is invalid.
    LayerError
        If the gradient of the score is zero in all layers of tokens.
    """
    if batch.layout.rank < 3 and not any_rank:
        raise ShapeError(
            "class activation maps need an input with positions, such as (N, T, C) or "
            f"(N, H, W, C), not {tuple(batch.values.shape)}; a method that needs no layer explains "
            f"it: {list_layerless_methods(get_network(batch.model))}"
        )
    if isinstance(layer, (list, tuple, set)):
        raise OptionError(f"layer must be one layer, not {layer!r}")
    grid = check_option(MethodOptions, "token_grid", token_grid)
    if not is_differentiable(get_network(batch.model)):
        return _choose_listed_layer(batch, layer, LayerChoice(None, grid, any_rank))
    if layer is not None:
        return LayerChoice(Selection(layer), grid, any_rank)
    default = LayerChoice(None, grid, any_rank)
    if grid is None and (batch.layout.rank != 4 or not _may_have_token_grids(batch.model)):
        return default
    # After the last attention to the class token, the gradient of the patch tokens exists but is
    # zero.
    body = _TokenGradientFunction(batch.reader, LayerChoice(None, grid))
    paths, magnitudes = batch.run(body)
    if not len(paths):
        return default
    nonzero = np.flatnonzero(magnitudes)
    if not nonzero.size:
        raise LayerError(
            "the gradient of the score is zero in every layer of tokens: use a method that needs "
            "no gradient, such as occlusion"
        )
    return LayerChoice(paths.numpy()[nonzero[-1]].decode(), grid)


def _choose_listed_layer(
    batch: ExplainedBatch, layer: LayerLike | None, choice: LayerChoice
) -> LayerChoice:
    """Choose the layer of a map among the layers that a network outside TensorFlow lists.

    Parameters
    ----------
    choice
        The options of the layer.
    """
    network, reader = get_network(batch.model), batch.reader
    infos = describe_network_layers(network, reader.get_model_inputs(batch.inputs))
    rank = batch.layout.rank
    if layer is not None:
        chosen = Selection(layer).select(infos)
        _check_single([info.path for info in chosen])
        choice.check_axes(chosen[0], rank)
        return replace(choice, choice=chosen[0].path)
    names = [info.name for info in network.inputs]
    explained = names[reader.explained[0].position] if names else None
    output = None if reader.output_index is None else network.outputs[reader.output_index]
    rank = rank if choice.token_grid is None else 3
    info = find_target_layer(network, infos, rank, explained, output)
    return replace(choice, choice=info.path)


def _check_single(paths: Iterable[str]) -> None:
    """Raise LayerError unless paths of layers are those of one layer."""
    different = list(dict.fromkeys(paths))
    if len(different) > 1:
        raise LayerError(
            f"layer must be one layer, not {len(different)}: {', '.join(different[:5])}"
        )


def _may_have_token_grids(model: Any) -> bool:
    infos = list_known_layers(get_network(model))
    return infos is None or any(
        info.token_grid is not None for info in infos if len(info.shape) == 3
    )
