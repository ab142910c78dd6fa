"""Class activation maps (CAM): attribution methods that weight channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from actgrid.attribution.batches import (
    BatchAttribution,
    ExplainedBatch,
    ScoreReader,
    SymbolicRun,
)
from actgrid.attribution.input_gradients import (
    Reduction,
    guided_backprop,
    saliency,
)
from actgrid.attribution.linear_resizing import resize_linearly
from actgrid.attribution.method import method
from actgrid.attribution.methods import list_known_layers, list_layerless_methods
from actgrid.attribution.perturbation import score_masked_images
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
from actgrid.models.layers import Selection
from actgrid.models.networks import get_network
from actgrid.models.types import LayerLike
from actgrid.option_groups import check_option
from actgrid.options import MethodOptions

__all__ = [
    "Formula",
    "cam",
    "compute_layer_maps",
    "gradcam",
    "gradcam_plus_plus",
    "guided_gradcam",
    "layercam",
    "list_spatial_axes",
    "scorecam",
    "weigh_by_mean_gradient",
]

# Channel weights of Score-CAM: "softmax" is the softmax of the scores over the channels, as in the
# paper; "probability" is the probability of the class, as in its authors' code.
Weighting = Literal["softmax", "probability"]

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
class _LayerChoice:
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

    def find_activation(self, model: Any, run: SymbolicRun) -> tuple[Call, Any, Any]:
        """Return the layer call to explain, its activation, and the gradient there.

        The gradient is that of the target scores with respect to the activation. Activation and
        gradient are float32 with channels last.

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
        rank = run.explained[0].shape.rank
        ranks = (3, 4, 5) if self.any_rank else (rank,) if self.token_grid is None else (3,)
        calls = choose_calls(model, run.calls, self.choice)
        paths = list(dict.fromkeys(call.node.path for call in calls))
        if len(paths) > 1:
            raise LayerError(f"layer must be one layer, not {len(paths)}: {', '.join(paths[:5])}")
        for call in calls:
            if rank == 4 and self.token_grid is None and call.info.token_grid is not None:
                continue
            if len(call.info.shape) not in ranks:
                axes = "tokens (N, T, C)" if self.token_grid is not None else _LAYER_AXES[rank]
                raise ShapeError(
                    f"layer {call.info.path} has no {axes}: its output is {call.info.shape}"
                    + (
                        "; pass token_grid=(h, w)"
                        if rank == 4 and len(call.info.shape) == 3
                        else ""
                    )
                )
        return calls

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
        if grid is not None and tensor.shape.rank == 3 and not self.any_rank:
            return tf.reshape(tensor[:, grid.patches], (-1, *grid[:2], tensor.shape[-1]))
        channels_first = call.info.data_format == "channels_first"
        channels_last = (0, *range(2, tensor.shape.rank), 1)
        return tf.transpose(tensor, channels_last) if channels_first else tensor


@dataclass(frozen=True)
class _MapFunction:
    """Function that computes a class activation map of each image from one layer.

    It returns the layer's path, the maps, whether each image has a gradient, and the target scores.
    Without a formula, the activations are returned in place of the maps.
    """

    reader: ScoreReader
    layer: _LayerChoice
    formula: Formula | None
    linear: bool = False

    def __call__(
        self, model: Any, inputs: Any, target_classes: Any
    ) -> tuple[Any, Any, Any, TargetScores]:
        tf = tensorflow()
        run = self.reader.run(model, inputs, target_classes)
        call, activation, gradient = self.layer.find_activation(model, run)
        if self.linear:
            _check_linear(run.target_scores.scores, call)
        maps = activation if self.formula is None else self.formula(activation, gradient)
        has_gradient = tf.reduce_any(gradient != 0, list(range(1, gradient.shape.rank)))
        return tf.constant(call.info.path), maps, has_gradient, run.target_scores


@dataclass(frozen=True)
class _TokenGradientFunction:
    """Function that returns the paths and largest absolute gradients of token layers."""

    reader: ScoreReader
    layer: _LayerChoice

    def __call__(self, model: Any, inputs: Any, target_classes: Any) -> tuple[Any, Any]:
        return self.layer.measure_token_gradients(self.reader.run(model, inputs, target_classes))


def _sum_channels(activation: Any, weights: Any) -> Any:
    """Return the weighted sum of the channels of an activation."""
    return tensorflow().reduce_sum(activation * weights, -1)


def list_spatial_axes(activation: Any) -> list[int]:
    """Return the axes between the batch axis and the last axis, the channels."""
    return list(range(1, activation.shape.rank - 1))


def weigh_by_mean_gradient(activation: Any, gradient: Any) -> Any:
    """Return the sum of the channels, each weighted by its mean gradient, (N, h, w)."""
    mean = tensorflow().reduce_mean(gradient, list_spatial_axes(gradient), keepdims=True)
    return _sum_channels(activation, mean)


def _compute_gradcam(activation: Any, gradient: Any) -> Any:
    return tensorflow().nn.relu(weigh_by_mean_gradient(activation, gradient))


def _compute_gradcam_plus_plus(activation: Any, gradient: Any) -> Any:
    # The paper differentiates exp(score). Its factor exp(score) is equal for all channels and is
    # left out, as it overflows. The paper's g^2 / (2 g^2 + total g^3) is divided by g^2, as the
    # powers of g leave the range of float32.
    tf = tensorflow()
    axes = list_spatial_axes(activation)
    total = tf.reduce_sum(activation, axes, keepdims=True)
    weights = tf.math.divide_no_nan(tf.nn.relu(gradient), 2 + total * gradient)
    weights = tf.reduce_sum(weights, axes, keepdims=True)
    return tf.nn.relu(_sum_channels(activation, weights))


def _compute_layercam(activation: Any, gradient: Any) -> Any:
    tf = tensorflow()
    return tf.nn.relu(_sum_channels(activation, tf.nn.relu(gradient)))


def _compute_cam(activation: Any, gradient: Any) -> Any:
    # Global averaging divides the gradient by the number of positions.
    tf = tensorflow()
    positions = tf.cast(tf.reduce_prod(tf.shape(gradient)[1:-1]), gradient.dtype)
    return _sum_channels(activation, gradient * positions)


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


def compute_layer_maps(
    batch: ExplainedBatch,
    layer: LayerLike | None,
    formula: Formula | None,
    *,
    token_grid: Any = None,
    linear: bool = False,
    any_rank: bool = False,
) -> BatchAttribution:
    """Compute maps from a layer's activations and gradients with a formula.

    Parameters
    ----------
    formula
        A hashable function, as compiled functions are cached by it; None: return the activations
        as maps.
    linear
        Whether to require that only a global average and a dense layer follow the layer. The maps
        are signed then.
    any_rank
        Whether a chosen layer may also return (N, T, C) or (N, D, H, W, C), for maps of (N, T) or
        (N, D, H, W).
    """
    choice = _choose_layer(batch, layer, token_grid, any_rank)
    body = _MapFunction(batch.reader, choice, formula, linear)
    path, maps, has_gradient, target_scores = batch.run(body)
    name = path.numpy().decode()
    target_scores = batch.check_scores(target_scores)
    axes = batch.layout.names if choice.token_grid is None else ("height", "width")
    zero_gradient = f"the gradient of the score is zero in the layer {name}"
    reasons = np.full(len(batch), _NO_CHANNEL.format(name), object)
    lacks_gradient = ~np.asarray(has_gradient)
    if lacks_gradient.any():
        reasons = np.where(lacks_gradient, f"{zero_gradient} {_SATURATED}", reasons)
        reaches_input = _has_input_gradient(batch.with_classes_of(target_scores))
        after_attention = lacks_gradient & reaches_input
        reasons = np.where(after_attention, f"{zero_gradient}, {_AFTER_ATTENTION}", reasons)
    return BatchAttribution(
        np.asarray(maps), target_scores, axes, linear, name, zero_reasons=tuple(reasons)
    )


def _has_input_gradient(batch: ExplainedBatch) -> Any:
    """Return (N,) bool: whether the score has a nonzero gradient for each sample."""
    try:
        gradients = saliency(batch)[0].values
    except ModelError:  # an operation before the layer is not differentiable
        return np.zeros(len(batch), bool)
    return gradients.reshape(len(batch), -1).any(1)


def _choose_layer(
    batch: ExplainedBatch, layer: LayerLike | None, token_grid: Any, any_rank: bool = False
) -> _LayerChoice:
    if batch.layout.rank < 3 and not any_rank:
        raise ShapeError(
            "class activation maps need an input with positions, such as (N, T, C) or "
            f"(N, H, W, C), not {tuple(batch.values.shape)}; a method that needs no layer explains "
            f"it: {list_layerless_methods()}"
        )
    if isinstance(layer, (list, tuple, set)):
        raise OptionError(f"layer must be one layer, not {layer!r}")
    grid = check_option(MethodOptions, "token_grid", token_grid)
    if layer is not None:
        return _LayerChoice(Selection(layer), grid, any_rank)
    default = _LayerChoice(None, grid, any_rank)
    if grid is None and (batch.layout.rank != 4 or not _may_have_token_grids(batch.model)):
        return default
    # After the last attention to the class token, the gradient of the patch tokens exists but is
    # zero.
    body = _TokenGradientFunction(batch.reader, _LayerChoice(None, grid))
    paths, magnitudes = batch.run(body)
    if not len(paths):
        return default
    nonzero = np.flatnonzero(magnitudes)
    if not nonzero.size:
        raise LayerError(
            "the gradient of the score is zero in every layer of tokens: use a method that needs "
            "no gradient, such as occlusion"
        )
    return _LayerChoice(paths.numpy()[nonzero[-1]].decode(), grid)


def _may_have_token_grids(model: Any) -> bool:
    infos = list_known_layers(get_network(model))
    return infos is None or any(
        info.token_grid is not None for info in infos if len(info.shape) == 3
    )


@method("cam", "Zhou 2015, https://arxiv.org/abs/1512.04150", needs=["gradients", "layer"])
def cam(batch: ExplainedBatch, layer: LayerLike | None = None) -> BatchAttribution:
    """Weight the channels before a global average by the dense layer that follows."""
    return compute_layer_maps(batch, layer, _compute_cam, linear=True)


@method("gradcam", "Selvaraju 2016, https://arxiv.org/abs/1610.02391", needs=["gradients", "layer"])
def gradcam(
    batch: ExplainedBatch, layer: LayerLike | None = None, *, token_grid: Any = None
) -> BatchAttribution:
    """Weight a layer's channels by their mean gradient; keep positive values."""
    return compute_layer_maps(batch, layer, _compute_gradcam, token_grid=token_grid)


@method(
    "gradcam++",
    "Chattopadhyay 2017, https://arxiv.org/abs/1710.11063",
    needs=["gradients", "layer"],
)
def gradcam_plus_plus(
    batch: ExplainedBatch, layer: LayerLike | None = None, *, token_grid: Any = None
) -> BatchAttribution:
    """Weight a layer's channels by their positive gradients; finds several objects."""
    return compute_layer_maps(batch, layer, _compute_gradcam_plus_plus, token_grid=token_grid)


def _make_channel_masks(image: Any, sample: Any, sides: Any, maps: Any) -> Any:
    """Return channels as masks: resized to the input and scaled to the range 0 to 1."""
    tf = tensorflow()
    channels = tf.gather_nd(maps, tf.stack([image, sample], 1))
    resized = resize_linearly(channels, sides)
    axes = list(range(1, resized.shape.rank))
    low = tf.reduce_min(resized, axes, keepdims=True)
    high = tf.reduce_max(resized, axes, keepdims=True)
    return tf.math.divide_no_nan(resized - low, high - low)


@method("scorecam", "Wang 2019, https://arxiv.org/abs/1910.01279", needs=["layer"])
def scorecam(
    batch: ExplainedBatch,
    layer: LayerLike | None = None,
    *,
    max_channels: int | None = None,
    baseline: Any = 0.0,
    weighting: Weighting = "softmax",
    token_grid: Any = None,
) -> BatchAttribution:
    """Weight a layer's channels by the score of the image that they mask."""
    choice = _choose_layer(batch, layer, token_grid)
    body = _MapFunction(batch.reader, choice, None)
    path, activation, _, target_scores = batch.run(body)
    target_scores = batch.check_scores(target_scores)
    if weighting == "probability" and not target_scores.is_logit:
        raise OptionError(
            "weighting='probability' needs a model that ends in a softmax or sigmoid, and a class "
            "as the target; use weighting='softmax'"
        )
    tf = tensorflow()
    rank = activation.shape.rank
    activation = tf.transpose(activation, (0, rank - 1, *range(1, rank - 1)))
    positions = list(range(2, rank))
    if max_channels is not None and max_channels < activation.shape[1]:
        by_deviation = tf.argsort(-tf.math.reduce_std(activation, positions), stable=True)
        by_deviation = by_deviation[:, :max_channels]
        activation = tf.gather(activation, by_deviation, batch_dims=1)
    # A constant channel cannot be scaled to a mask: its weight is zero.
    varies = tf.reduce_max(activation, positions) > tf.reduce_min(activation, positions)
    scores = score_masked_images(
        batch.with_classes_of(target_scores),
        _make_channel_masks,
        int(activation.shape[1]),
        baseline,
        activation,
        probability=weighting == "probability",
    )
    weights = tf.constant(scores)
    if weighting == "softmax":
        weights = tf.nn.softmax(tf.where(varies, weights, weights.dtype.min))
    weights = tf.where(varies, weights, 0)
    maps = tf.nn.relu(tf.einsum("nc...,nc->n...", activation, weights))
    name = path.numpy().decode()
    reason = _NO_CHANNEL.format(name)
    axes = batch.layout.names if choice.token_grid is None else ("height", "width")
    return BatchAttribution(
        np.asarray(maps), target_scores, axes, layer=name, zero_reasons=(reason,) * len(maps)
    )


@method(
    "layercam", "Jiang 2021, https://doi.org/10.1109/TIP.2021.3089943", needs=["gradients", "layer"]
)
def layercam(
    batch: ExplainedBatch, layer: LayerLike | None = None, *, token_grid: Any = None
) -> BatchAttribution:
    """Weight each activation of a layer by its own positive gradient."""
    return compute_layer_maps(batch, layer, _compute_layercam, token_grid=token_grid)


@method(
    "guided_gradcam",
    "Selvaraju 2016, https://arxiv.org/abs/1610.02391",
    needs=["gradients", "layer"],
)
def guided_gradcam(
    batch: ExplainedBatch,
    layer: LayerLike | None = None,
    *,
    reduce: Reduction = "max",
    token_grid: Any = None,
) -> BatchAttribution:
    """Multiply guided backpropagation by Grad-CAM, for class-specific detail."""
    coarse = gradcam(batch, layer, token_grid=token_grid)
    (fine,) = guided_backprop(batch, reduce=reduce)
    resized = np.asarray(resize_linearly(tensorflow().constant(coarse.values), batch.sides))
    if reduce == "none":
        resized = resized[..., None]
    return fine._replace(
        values=fine.values * resized,
        target_scores=coarse.target_scores,
        layer=coarse.layer,
        zero_reasons=coarse.zero_reasons,
    )
