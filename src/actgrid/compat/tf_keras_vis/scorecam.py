"""Score-CAM and Faster Score-CAM, as in tf-keras-vis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch
from actgrid.attribution.map_layers import compute_layer_maps, keep_activation
from actgrid.attribution.perturbation import score_masked_images
from actgrid.compat.tf_keras_vis.class_activation import Modifier, find_penultimate_layer, relu
from actgrid.compat.tf_keras_vis.visualization import (
    BatchScore,
    ModelVisualization,
    check_inference,
    finish_maps,
    match_rank,
    resize_maps,
)
from actgrid.errors import OptionError, ShapeError
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import map_tensors
from actgrid.option_checks import check_integer

__all__ = ["ScoreCAM", "Scorecam"]


@dataclass(frozen=True)
class _GroupedScore:
    """Score function for the concatenated outputs of several batches.

    Each batch has the number of images that the score function expects. The outputs are logits, and
    a softmax is applied to them first.
    """

    score: BatchScore

    def __call__(self, outputs: Any) -> Any:
        tf = tensorflow()
        groups = [
            tf.reshape(output, (-1, self.score.count, *output.shape[1:]))
            for output in tf.nest.flatten(outputs)
        ]
        # This call raises the errors of a score. After an error inside of map_fn, TensorFlow can no
        # longer create variables in a distribution strategy.
        self._score_group([group[0] for group in groups])
        scores = tf.map_fn(self._score_group, groups, fn_output_signature=tf.float32)
        return tf.reshape(scores, [-1])

    def _score_group(self, outputs: list[Any]) -> Any:
        tf = tensorflow()
        total = tf.zeros(self.score.count)
        for scores in self.score.compute_scores([tf.nn.softmax(output) for output in outputs]):
            if scores.shape.rank == 0 and self.score.count == 1:
                scores = scores[None]
            if scores.shape.rank != 1 or scores.shape[0] != self.score.count:
                raise ShapeError(
                    f"score must return one value for each of {self.score.count} images: got shape "
                    f"{tuple(scores.shape)}"
                )
            total += scores
        return total


def _make_masks(image: Any, sample: Any, sides: Any, maps: Any) -> Any:
    """Resize the activation maps of rows of images to masks scaled to 0 to 1.

    Parameters
    ----------
    image
        Index of the map of each row.
    sides
        Size of the masks.
    maps
        The activation maps.

    Returns
    -------
    tensor
        (rows, *sides).
    """
    tf = tensorflow()
    resized = resize_maps(tf.gather(maps, image), sides)
    axes = list(range(1, resized.shape.rank))
    low = tf.reduce_min(resized, axes, keepdims=True)
    high = tf.reduce_max(resized, axes, keepdims=True)
    return (resized - low) / (high - low + keras().config.epsilon())


class Scorecam(ModelVisualization):
    """Score-CAM: weights channels of a layer by the scores of masked inputs.

    See `ModelVisualization` for the arguments of the constructor.

    References
    ----------
    Wang et al., Score-CAM, 2019, https://arxiv.org/abs/1910.01279.
    """

    def __call__(
        self,
        score: Any,
        seed_input: Any,
        penultimate_layer: Any = None,
        seek_penultimate_conv_layer: bool = True,
        activation_modifier: Modifier = relu,
        batch_size: int = 32,
        max_N: int | None = None,  # noqa: N803  (the name in tf-keras-vis)
        training: bool = False,
        expand_cam: bool = True,
        normalize_cam: bool = True,
        *,
        standardize_cam: bool | None = None,
    ) -> Any:
        """Compute class activation maps without gradients.

        Parameters
        ----------
        score : callable or list of callable
            Function of the output that returns a score for each image, (N,), such as
            ``CategoricalScore([1, 294])``; a list with a function for each output of the model.
            Functions are traced. As in tf-keras-vis, functions receive the softmax of the output.
        seed_input : array_like or list of array_like
            Images, (N, H, W, C), or one image without N; volumes (N, D, H, W, C) or sequences
            (N, T, C); a list for several inputs. The first input with the spatial rank of the layer
            is masked.
        penultimate_layer : int, str or keras.Layer, optional
            The layer, by its index in ``model.layers``, by name or as an object. None: the last
            layer.
        seek_penultimate_conv_layer : bool, optional
            Whether to use the last convolution up to this layer instead of the layer.
        activation_modifier : callable, optional
            Function that modifies the maps, by default ``relu``. None: unchanged maps.
        batch_size : int, optional
            Number of masked images in one run of the model, at least the number of images.
        max_N : int, optional
            Number of channels to use for each image, those with the largest standard deviation
            (Faster Score-CAM). None, 0 or -1: all channels.
        training : bool, optional
            Must be False: the model is explained in inference mode.
        expand_cam : bool, optional
            Whether to resize the maps linearly to the size of the input.
        normalize_cam : bool, optional
            Whether to scale each map to the range 0 to 1.
        standardize_cam : bool, optional
            The name of `normalize_cam` before version 0.8. None: `normalize_cam` is used.

        Returns
        -------
        ndarray or list
            (N, H, W), (N, D, H, W) or (N, T) float32. If `seed_input` is a list, a list with the
            maps for each input, None for inputs of another rank. Without `expand_cam`, a single
            array in the size of the layer.

        Raises
        ------
        OptionError
            If an argument is invalid. Also a ValueError.
        ShapeError
            If the inputs do not fit the model or the layer. Also a ValueError.
        TargetError
            If the model has no such class. Also a ValueError.
        ModelError
            If the model cannot be run. Also a ValueError.
        LayerError
            If the model has no such layer, or the score does not depend on the layer. Also a
            KeyError.

        Examples
        --------
        >>> import keras
        >>> from actgrid.compat.tf_keras_vis.scorecam import Scorecam
        >>> from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, activation="relu"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2),
        ... ])
        >>> images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
        >>> Scorecam(model)(CategoricalScore([0, 1]), images, max_N=2).shape
        (2, 8, 8)
        """
        check_inference(training)
        normalize_maps = normalize_cam if standardize_cam is None else standardize_cam
        batch_size = check_integer("batch_size", batch_size, 1)
        layer = find_penultimate_layer(self.model, penultimate_layer, seek_penultimate_conv_layer)
        batches = self._batches(score, seed_input)
        batch = next(batch for batch in batches if batch is not None)
        activation = compute_layer_maps(batch, layer, keep_activation, any_rank=True).values
        activation = activation[..., _select_channels(activation, max_N)]
        matching = match_rank(batches, activation[..., 0])
        batch = next(batch for batch in matching if batch is not None)
        weights = _compute_weights(batch, activation, batch_size)
        maps = np.einsum("n...c,nc->n...", activation, weights)
        results = finish_maps(maps, batches, activation_modifier, expand_cam, normalize_maps)
        return self._unwrap(results, seed_input) if expand_cam else results


ScoreCAM = Scorecam


def _select_channels(
    activation: npt.NDArray[Any], max_channels: int | None
) -> npt.NDArray[np.intp]:
    """Return the channels of an activation to compute scores for.

    Parameters
    ----------
    activation
        (N, ..., channels).
    max_channels
        Number of channels with the largest standard deviation to select for each image. None or 0:
        all channels.

    Returns
    -------
    numpy.ndarray
        Sorted indices of the channels that are selected for any image.
    """
    count = activation.shape[-1]
    if max_channels is None or max_channels <= 0:
        return np.arange(count)
    if check_integer("max_N", max_channels) > count:
        raise OptionError(
            f"max_N must be at most {count}, the layer's channels: got {max_channels}"
        )
    deviation = activation.std(tuple(range(1, activation.ndim - 1)))
    return np.unique(np.argsort(-deviation, axis=1, kind="stable")[:, :max_channels])


def _compute_weights(
    batch: ExplainedBatch, activation: npt.NDArray[Any], batch_size: int
) -> npt.NDArray[np.float32]:
    """Return the score of each image masked by each channel of an activation.

    Parameters
    ----------
    batch
        The images and their target.
    activation
        (N, ..., C).
    batch_size
        Number of masked images per run of the model.

    Returns
    -------
    numpy.ndarray
        (N, C) float32.
    """
    tf = tensorflow()
    count, channels = len(batch), activation.shape[-1]
    step = max(1, batch_size // count)
    score: Any = batch.reader.score
    reader = replace(batch.reader, score=_GroupedScore(score))
    maps = np.moveaxis(activation, -1, 0)  # a batch of masks for each channel
    parts = []
    for start in range(0, channels, step):
        masks = maps[start : start + step].reshape(-1, *maps.shape[2:])
        copies = len(masks) // count

        def repeat(tensor: Any, copies: int = copies) -> Any:
            return tf.tile(tensor, [copies, *[1] * (len(tensor.shape) - 1)])

        group = replace(
            batch,
            inputs=map_tensors(repeat, batch.inputs),
            target_classes=repeat(batch.target_classes),
            reader=reader,
            batch_size=len(masks),
        )
        parts.append(score_masked_images(group, _make_masks, 1, 0.0, tf.constant(masks)))
    scores: npt.NDArray[np.float32] = np.concatenate(parts).reshape(channels, count).T
    return scores
