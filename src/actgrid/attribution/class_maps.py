"""Class activation maps: what a layer's channels say of the target, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from actgrid.attribution.batches import Attribution, ExplainedBatch, ScoreReader, SymbolicRun
from actgrid.attribution.input_gradients import (
    Reduction,
    guided_backprop,
    saliency,
)
from actgrid.attribution.method import method
from actgrid.attribution.perturbation import masked_scores
from actgrid.attribution.scores import TargetScores
from actgrid.attribution.target_layers import grid_advice, target_calls, token_calls
from actgrid.errors import LayerError, ModelError, OptionError, ShapeError
from actgrid.models.calls import Call, choose_calls
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import Selection
from actgrid.models.types import LayerLike
from actgrid.option_groups import check_option
from actgrid.options import MethodOptions

__all__ = [
    "Formula",
    "by_mean_gradient",
    "cam",
    "gradcam",
    "gradcam_plus_plus",
    "guided_gradcam",
    "layer_maps",
    "layercam",
    "scorecam",
    "spatial_axes",
]

# What weighs the channels of Score-CAM: the softmax of the scores over the channels, as in the
# paper, or the probability of the class, as in its authors' code.
Weighting = Literal["softmax", "probability"]

# From activations and gradients, (N, h, w, C), to maps, (N, h, w); of sequences and volumes too.
Formula = Callable[[Any, Any], Any]


# Why a map is zero everywhere.
_NO_CHANNEL = "no channel of the layer {} contributes positively to the score"
_AFTER_ATTENTION = (
    "as it is after the last attention to a class token: name an earlier layer, or none"
)
_SATURATED = (
    "and in the image, as it is where the output or a whole layer is saturated: occlusion and rise "
    "need no gradient"
)


@dataclass(frozen=True)
class _Layer:
    """The layer to use: None for the default, or the layer path of one call of it.

    `any_rank` tells that its output may be a sequence or a volume too.
    """

    chosen: Selection | str | None
    token_grid: tuple[int, int] | None
    any_rank: bool = False

    def activation(self, model: Any, run: SymbolicRun) -> tuple[Call, Any, Any]:
        """Return the layer's call, its activation, and the gradient of the scores by that.

        Raises
        ------
        LayerError
            If no layer, or no single one, is meant, or the score does not depend on it.
        ShapeError
            If it has no picture for each channel.
        """
        tf = tensorflow()
        calls = self._calls(model, run)
        for call in reversed(calls):
            (gradient,) = tf.gradients(run.target_scores.scores, call.tensor)
            if gradient is not None:
                return call, self._pictures(call, call.tensor), self._pictures(call, gradient)
        raise LayerError(
            f"the score does not depend on the layer {calls[-1].info.path}, or not smoothly"
        )

    def token_gradients(self, run: SymbolicRun) -> tuple[Any, Any]:
        """Return the paths of all layers of tokens, and how large the gradients by these are."""
        tf = tensorflow()
        height, width = self.token_grid or (1, 1)
        calls = token_calls(run.calls, run.target_scores.scores, height * width)
        gradients = tf.gradients(run.target_scores.scores, [call.tensor for call in calls])
        sizes = [
            tf.constant(0.0)
            if gradient is None
            else tf.reduce_max(tf.abs(self._pictures(call, gradient)))
            for call, gradient in zip(calls, gradients, strict=True)
        ]
        return tf.constant([call.info.path for call in calls]), tf.stack(sizes)

    def _calls(self, model: Any, run: SymbolicRun) -> list[Call]:
        if self.chosen is None:
            return target_calls(run.calls, run.image, run.target_scores.scores, run.outputs)
        if isinstance(self.chosen, str):
            return [call for call in run.calls if call.info.path == self.chosen]
        ranks = (3, 4, 5) if self.any_rank else (4,) if self.token_grid is None else (3,)
        found = choose_calls(model, run.calls, self.chosen)
        paths = list(dict.fromkeys(call.node.path for call in found))
        if len(paths) > 1:
            raise LayerError(f"layer must be one layer, not {len(paths)}: {', '.join(paths[:5])}")
        # Of several calls the last that the score depends on.
        for call in found:
            if len(call.info.shape) not in ranks:
                raise ShapeError(
                    f"layer {call.info.path} gives {call.info.shape}, no picture for each channel"
                    + ("; say token_grid=(h, w)" if len(call.info.shape) == 3 else "")
                )
        return found

    def _pictures(self, call: Call, tensor: Any) -> Any:
        tf = tensorflow()
        tensor = tf.cast(tensor, tf.float32)
        if self.token_grid is not None:
            height, width = self.token_grid
            tokens = tensor.shape[1]
            if tokens is not None and tokens < height * width:
                raise ShapeError(
                    f"layer {call.info.path}: {tokens} tokens do not fill a grid of "
                    f"{height} x {width}{grid_advice(tokens)}"
                )
            # The last ones, after class and register tokens.
            return tf.reshape(tensor[:, -height * width :], (-1, height, width, tensor.shape[-1]))
        first = call.info.data_format == "channels_first"
        return tf.transpose(tensor, (0, *range(2, tensor.shape.rank), 1)) if first else tensor


@dataclass(frozen=True)
class _Maps:
    """A map for each image, or with `formula` None the activations themselves."""

    reader: ScoreReader
    layer: _Layer
    formula: Formula | None
    linear: bool = False

    def __call__(
        self, model: Any, inputs: Any, target_classes: Any
    ) -> tuple[Any, Any, Any, TargetScores]:
        tf = tensorflow()
        run = self.reader.run(model, inputs, target_classes)
        call, activation, gradient = self.layer.activation(model, run)
        if self.linear:
            _check_linear(run.target_scores.scores, call)
        maps = activation if self.formula is None else self.formula(activation, gradient)
        has_gradient = tf.reduce_any(gradient != 0, list(range(1, gradient.shape.rank)))
        return tf.constant(call.info.path), maps, has_gradient, run.target_scores


@dataclass(frozen=True)
class _TokenGradients:
    """Layers of tokens, and how large the gradients by their patches are."""

    reader: ScoreReader
    layer: _Layer

    def __call__(self, model: Any, inputs: Any, target_classes: Any) -> tuple[Any, Any]:
        return self.layer.token_gradients(self.reader.run(model, inputs, target_classes))


def _weighed(activation: Any, weights: Any) -> Any:
    return tensorflow().reduce_sum(activation * weights, -1)


def spatial_axes(activation: Any) -> list[int]:
    """Return the axes between samples and channels of an activation, channels last."""
    return list(range(1, activation.shape.rank - 1))


def by_mean_gradient(activation: Any, gradient: Any) -> Any:
    """Return the sum of the channels, each weighed by its mean gradient."""
    mean = tensorflow().reduce_mean(gradient, spatial_axes(gradient), keepdims=True)
    return _weighed(activation, mean)


def _gradcam(activation: Any, gradient: Any) -> Any:
    return tensorflow().nn.relu(by_mean_gradient(activation, gradient))


def _gradcam_plus_plus(activation: Any, gradient: Any) -> Any:
    # Of the exponential of the score, as in the paper: its factor exp(score), the same in all
    # channels, is left out, as it overflows. The paper's g^2 / (2 g^2 + total g^3) is taken
    # without its powers, which leave the range of float32.
    tf = tensorflow()
    axes = spatial_axes(activation)
    total = tf.reduce_sum(activation, axes, keepdims=True)
    weights = tf.math.divide_no_nan(tf.nn.relu(gradient), 2 + total * gradient)
    weights = tf.reduce_sum(weights, axes, keepdims=True)
    return tf.nn.relu(_weighed(activation, weights))


def _layercam(activation: Any, gradient: Any) -> Any:
    tf = tensorflow()
    return tf.nn.relu(_weighed(activation, tf.nn.relu(gradient)))


def _cam(activation: Any, gradient: Any) -> Any:
    # Global averaging divides the head's weights by the number of positions.
    tf = tensorflow()
    positions = tf.cast(tf.reduce_prod(tf.shape(gradient)[1:-1]), gradient.dtype)
    return _weighed(activation, gradient * positions)


# What leaves scores linear in a layer. `Mean` is the global average.
_LINEAR = frozenset(
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
    """Raise ModelError unless only a global average and a dense layer follow a call."""
    after: set[str] = set()
    waiting = list(call.tensor.consumers())
    while waiting:
        operation = waiting.pop()
        if operation.name not in after:
            after.add(operation.name)
            waiting += [user for output in operation.outputs for user in output.consumers()]
    between: dict[str, str] = {}
    waiting = [scores.op]
    while waiting:
        operation = waiting.pop()
        if operation.name in after and operation.name not in between:
            between[operation.name] = operation.type
            # What is gathered, not which: that the classes are predicted changes nothing.
            inputs = (
                list(operation.inputs)[:1] if operation.type == "GatherV2" else operation.inputs
            )
            waiting += [tensor.op for tensor in inputs]
    kinds = set(between.values())
    if "Mean" not in kinds or not kinds <= _LINEAR:
        raise ModelError(
            f"cam needs a global average and one dense layer after the layer {call.info.path}, "
            "and there is something else; gradcam does not"
        )


def layer_maps(
    batch: ExplainedBatch,
    layer: LayerLike | None,
    formula: Formula | None,
    *,
    token_grid: Any = None,
    linear: bool = False,
    any_rank: bool = False,
) -> Attribution:
    """Return the maps that a formula makes of a layer's activations and their gradients.

    Parameters
    ----------
    formula
        Hashable, as the compiled function is kept by it; None: the activations themselves.
    linear
        Whether only a global average and a dense layer may follow; the maps are signed then.
    any_rank
        Whether a layer that is named may give (N, T, C) or (N, D, H, W, C) too, for maps (N, T) or
        (N, D, H, W).
    """
    chosen = replace(_layer(batch, layer, token_grid), any_rank=any_rank)
    body = _Maps(batch.reader, chosen, formula, linear)
    path, maps, has_gradient, target_scores = batch.run(body)
    name = path.numpy().decode()
    target_scores = batch.check_scores(target_scores)
    zero = f"the gradient of the score is zero in the layer {name}"
    reasons = np.full(len(batch), _NO_CHANNEL.format(name), object)
    has_none = ~np.asarray(has_gradient)
    if has_none.any():
        reasons = np.where(has_none, f"{zero} {_SATURATED}", reasons)
        in_image = _reaches_image(batch.with_classes_of(target_scores))
        reasons = np.where(has_none & in_image, f"{zero}, {_AFTER_ATTENTION}", reasons)
    return Attribution(np.asarray(maps), target_scores, linear, name, zero_reasons=tuple(reasons))


def _reaches_image(batch: ExplainedBatch) -> Any:
    """Return for each image whether the gradient of the score by it is not zero."""
    try:
        gradients = saliency(batch).values
    except ModelError:  # something before the layer is not differentiable
        return np.zeros(len(batch), bool)
    return gradients.reshape(len(batch), -1).any(1)


def _layer(batch: ExplainedBatch, layer: LayerLike | None, token_grid: Any) -> _Layer:
    if isinstance(layer, (list, tuple, set)):
        raise OptionError(f"layer must be one layer, not {layer!r}")
    grid = check_option(MethodOptions, "token_grid", token_grid)
    if layer is not None or grid is None:
        return _Layer(None if layer is None else Selection(layer), grid)
    # After the last attention to a class token, patches have a gradient, and it is zero.
    paths, sizes = batch.run(_TokenGradients(batch.reader, _Layer(None, grid)))
    chosen = np.flatnonzero(sizes)
    if not chosen.size:
        raise LayerError(
            "the gradient of the score is zero in every layer of tokens: methods such as occlusion "
            "need no gradient"
        )
    return _Layer(paths.numpy()[chosen[-1]].decode(), grid)


@method("cam", "Zhou 2015, https://arxiv.org/abs/1512.04150", needs=["gradients", "layer"])
def cam(batch: ExplainedBatch, layer: LayerLike | None = None) -> Attribution:
    """Weigh the channels before a global average by the dense layer after it."""
    return layer_maps(batch, layer, _cam, linear=True)


@method("gradcam", "Selvaraju 2016, https://arxiv.org/abs/1610.02391", needs=["gradients", "layer"])
def gradcam(
    batch: ExplainedBatch, layer: LayerLike | None = None, *, token_grid: Any = None
) -> Attribution:
    """Weigh a layer's channels by their mean gradient; keep what is positive."""
    return layer_maps(batch, layer, _gradcam, token_grid=token_grid)


@method(
    "gradcam++",
    "Chattopadhyay 2017, https://arxiv.org/abs/1710.11063",
    needs=["gradients", "layer"],
)
def gradcam_plus_plus(
    batch: ExplainedBatch, layer: LayerLike | None = None, *, token_grid: Any = None
) -> Attribution:
    """Weigh a layer's channels by their positive gradients: finds several objects of a class."""
    return layer_maps(batch, layer, _gradcam_plus_plus, token_grid=token_grid)


def _masks(image: Any, sample: Any, sides: tuple[int, int], maps: Any) -> Any:
    """Return each channel, enlarged, from 0 at its lowest value to 1 at its highest."""
    tf = tensorflow()
    chosen = tf.gather_nd(maps, tf.stack([image, sample], 1))
    larger = tf.image.resize(chosen[..., None], sides)[..., 0]
    low = tf.reduce_min(larger, (1, 2), keepdims=True)
    high = tf.reduce_max(larger, (1, 2), keepdims=True)
    return tf.math.divide_no_nan(larger - low, high - low)


@method("scorecam", "Wang 2019, https://arxiv.org/abs/1910.01279", needs=["layer"])
def scorecam(
    batch: ExplainedBatch,
    layer: LayerLike | None = None,
    *,
    max_channels: int | None = None,
    baseline: Any = 0.0,
    weighting: Weighting = "softmax",
    token_grid: Any = None,
) -> Attribution:
    """Weigh a layer's channels by the score of the image where they are active; no gradients."""
    body = _Maps(batch.reader, _layer(batch, layer, token_grid), None)
    path, activation, _, target_scores = batch.run(body)
    target_scores = batch.check_scores(target_scores)
    if weighting == "probability" and not target_scores.is_logit:
        raise OptionError(
            "weighting='probability' needs a model that ends in a softmax or sigmoid, and a class "
            "as the target: take weighting='softmax'"
        )
    tf = tensorflow()
    activation = tf.transpose(activation, (0, 3, 1, 2))
    if max_channels is not None and max_channels < activation.shape[1]:
        strongest = tf.argsort(-tf.math.reduce_std(activation, (2, 3)), stable=True)
        strongest = strongest[:, :max_channels]
        activation = tf.gather(activation, strongest, batch_dims=1)
    # A constant channel has no mask, and says nothing of any place.
    varies = tf.reduce_max(activation, (2, 3)) > tf.reduce_min(activation, (2, 3))
    scores = masked_scores(
        batch.with_classes_of(target_scores),
        _masks,
        int(activation.shape[1]),
        baseline,
        activation,
        probability=weighting == "probability",
    )
    weights = tf.constant(scores)
    if weighting == "softmax":
        weights = tf.nn.softmax(tf.where(varies, weights, weights.dtype.min))
    weights = tf.where(varies, weights, 0)[:, :, None, None]
    maps = tf.nn.relu(tf.reduce_sum(weights * activation, 1))
    name = path.numpy().decode()
    reason = _NO_CHANNEL.format(name)
    return Attribution(
        np.asarray(maps), target_scores, layer=name, zero_reasons=(reason,) * len(maps)
    )


@method(
    "layercam", "Jiang 2021, https://doi.org/10.1109/TIP.2021.3089943", needs=["gradients", "layer"]
)
def layercam(
    batch: ExplainedBatch, layer: LayerLike | None = None, *, token_grid: Any = None
) -> Attribution:
    """Weigh each value of a layer by its own positive gradient: sharp in earlier layers too."""
    return layer_maps(batch, layer, _layercam, token_grid=token_grid)


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
) -> Attribution:
    """Multiply guided backpropagation by Grad-CAM: fine detail of the class alone."""
    coarse = gradcam(batch, layer, token_grid=token_grid)
    fine = guided_backprop(batch, reduce=reduce)
    tf = tensorflow()
    larger = tf.image.resize(coarse.values[..., None], batch.sides)[..., 0]
    return coarse._replace(values=fine.values * np.asarray(larger))
