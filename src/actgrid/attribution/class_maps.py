"""Class activation maps (CAM) that weight channels by gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from actgrid.attribution.batches import (
    BatchAttribution,
    ExplainedBatch,
    ScoreReader,
    expand_to_rank,
    gather_rows,
)
from actgrid.attribution.input_gradients import SEED_LIMIT, Reduction, add_noise, guided_backprop
from actgrid.attribution.linear_resizing import resize_linearly
from actgrid.attribution.map_layers import (
    LayerChoice,
    choose_layer,
    compute_layer_maps,
    compute_layer_values,
    keep_activation,
    list_spatial_axes,
    make_layer_attribution,
)
from actgrid.attribution.method import method
from actgrid.models.frameworks import tensorflow
from actgrid.models.types import LayerLike

__all__ = [
    "cam",
    "eigencam",
    "eigengradcam",
    "gradcam",
    "gradcam_plus_plus",
    "guided_gradcam",
    "hirescam",
    "layercam",
    "smooth_gradcam_plus_plus",
    "weigh_by_mean_gradient",
    "xgradcam",
]


def _sum_channels(activation: Any, weights: Any) -> Any:
    """Return the weighted sum of the channels of an activation."""
    return tensorflow().reduce_sum(activation * weights, -1)


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


def _multiply(activation: Any, gradient: Any) -> Any:
    return activation * gradient


def _compute_hirescam(activation: Any, gradient: Any) -> Any:
    return tensorflow().nn.relu(_sum_channels(activation, gradient))


def _compute_xgradcam(activation: Any, gradient: Any) -> Any:
    tf = tensorflow()
    axes = list_spatial_axes(activation)
    total = tf.reduce_sum(activation, axes, keepdims=True)
    weighted = tf.reduce_sum(activation * gradient, axes, keepdims=True)
    return tf.nn.relu(_sum_channels(activation, tf.math.divide_no_nan(weighted, total)))


def _project_on_principal_component(values: Any) -> Any:
    """Return the projection of each position on the first principal component, (N, h, w).

    The component is the first right singular vector of the positions' channels, which are not
    centred, as in the paper. Its sign is that in which the map agrees with the sum of the channels.

    Parameters
    ----------
    values
        (N, h, w, C), or with other spatial axes.
    """
    values = np.asarray(values)
    matrices = values.reshape(len(values), -1, values.shape[-1]).astype(np.float64)
    if matrices.shape[1] < matrices.shape[2]:
        # The projections are an eigenvector of the smaller of the two Gram matrices.
        eigenvalues, vectors = np.linalg.eigh(matrices @ matrices.swapaxes(1, 2))
        projections = vectors[..., -1] * np.sqrt(np.maximum(eigenvalues[:, -1:], 0))
    else:
        vectors = np.linalg.eigh(matrices.swapaxes(1, 2) @ matrices)[1]
        projections = np.einsum("npc,nc->np", matrices, vectors[..., -1])
    agreement = np.sum(projections * matrices.sum(-1), 1, keepdims=True)
    projections = np.where(agreement < 0, -projections, projections)
    return projections.reshape(values.shape[:-1])


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


@method("hirescam", "Draelos 2020, https://arxiv.org/abs/2011.08891", needs=["gradients", "layer"])
def hirescam(
    batch: ExplainedBatch, layer: LayerLike | None = None, *, token_grid: Any = None
) -> BatchAttribution:
    """Weight each activation of a layer by its own gradient; keep positive sums."""
    return compute_layer_maps(batch, layer, _compute_hirescam, token_grid=token_grid)


@method("xgradcam", "Fu 2020, https://arxiv.org/abs/2008.02312", needs=["gradients", "layer"])
def xgradcam(
    batch: ExplainedBatch, layer: LayerLike | None = None, *, token_grid: Any = None
) -> BatchAttribution:
    """Weight a layer's channels by their gradient, averaged by activation."""
    return compute_layer_maps(batch, layer, _compute_xgradcam, token_grid=token_grid)


@method("eigencam", "Muhammad 2020, https://arxiv.org/abs/2008.00299", needs=["layer"])
def eigencam(
    batch: ExplainedBatch, layer: LayerLike | None = None, *, token_grid: Any = None
) -> BatchAttribution:
    """Project a layer's channels on their first principal component, for no class."""
    choice = choose_layer(batch, layer, token_grid)
    name, activation, _, target_scores = compute_layer_values(batch, choice, keep_activation)
    maps = np.maximum(_project_on_principal_component(activation), 0)
    return make_layer_attribution(batch, choice, maps, target_scores, name)


@method(
    "eigengradcam",
    "Gildenblat 2021, https://github.com/jacobgil/pytorch-grad-cam",
    needs=["gradients", "layer"],
)
def eigengradcam(
    batch: ExplainedBatch, layer: LayerLike | None = None, *, token_grid: Any = None
) -> BatchAttribution:
    """Project gradient times activation on their first principal component."""
    attribution = compute_layer_maps(batch, layer, _multiply, token_grid=token_grid)
    maps = _project_on_principal_component(attribution.values).astype(np.float32)
    return attribution._replace(values=maps, signed=True)


@dataclass(frozen=True)
class _NoisyGradientFunction:
    """Function that sums powers of a layer's gradients over noisy copies of each sample.

    It returns the sums of the gradients, of their squares and of their cubes, (N, h, w, C) each.
    The gradients are divided by `scales`, as their powers leave the range of float32.
    """

    reader: ScoreReader
    layer: LayerChoice

    def __call__(
        self,
        model: Any,
        inputs: Any,
        target_classes: Any,
        row: Any,
        sample: Any,
        table: Any,
        scales: Any,
    ) -> list[Any]:
        tf = tensorflow()
        count = tf.shape(target_classes)[0]
        inputs, target_classes = gather_rows((inputs, target_classes), row)
        noisy = [
            tf.ensure_shape(
                add_noise(values, None, sample, table, index * SEED_LIMIT), values.shape
            )
            for index, values in enumerate(self.reader.get_explained(inputs))
        ]
        inputs = self.reader.replace_explained(inputs, noisy)
        run = self.reader.run(model, inputs, target_classes)
        _, _, gradient = self.layer.find_activation(model, run)
        gradient /= expand_to_rank(tf.gather(scales, row), gradient)
        return [
            tf.math.unsorted_segment_sum(gradient**power, row, count) for power in (1.0, 2.0, 3.0)
        ]


def _measure_gradient(activation: Any, gradient: Any) -> Any:
    """Return the activations, and the largest absolute gradient of each sample, (N,)."""
    tf = tensorflow()
    largest = tf.reduce_max(tf.abs(gradient), list(range(1, gradient.shape.rank)))
    return activation, tf.where(largest > 0, largest, tf.ones_like(largest))


@method(
    "smooth_gradcam++",
    "Omeiza 2019, https://arxiv.org/abs/1908.01224",
    needs=["gradients", "layer"],
)
def smooth_gradcam_plus_plus(
    batch: ExplainedBatch,
    layer: LayerLike | None = None,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    token_grid: Any = None,
) -> BatchAttribution:
    """Compute gradcam++ with gradients averaged over noisy copies of the input."""
    tf = tensorflow()
    choice = choose_layer(batch, layer, token_grid)
    name, values, _, target_scores = compute_layer_values(batch, choice, _measure_gradient)
    activation, scales = values
    batch = batch.with_classes_of(target_scores)
    body = _NoisyGradientFunction(batch.reader, choice)
    table = tf.constant([noise, seed % SEED_LIMIT], tf.float32)
    parts = batch.run_samples(body, samples, table, scales)
    first, second, third = (tf.add_n(sums) / samples for sums in zip(*parts, strict=True))
    axes = list_spatial_axes(activation)
    total = tf.reduce_sum(activation, axes, keepdims=True)
    curvature = 2 * second + total * third * expand_to_rank(scales, third)
    weights = tf.math.divide_no_nan(second, curvature) * tf.nn.relu(first)
    weights = tf.reduce_sum(weights, axes, keepdims=True) * expand_to_rank(scales, weights)
    maps = tf.nn.relu(_sum_channels(activation, weights))
    return make_layer_attribution(batch, choice, maps, target_scores, name)
