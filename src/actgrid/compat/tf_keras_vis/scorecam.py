"""Score-CAM and Faster Score-CAM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch
from actgrid.attribution.class_maps import layer_maps
from actgrid.attribution.perturbation import masked_scores
from actgrid.compat.tf_keras_vis.class_activation import Modifier, penultimate, relu
from actgrid.compat.tf_keras_vis.visualization import (
    BatchScore,
    ModelVisualization,
    check_inference,
    enlarged,
    finished,
    fitting,
)
from actgrid.errors import OptionError, ShapeError
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import map_tensors
from actgrid.option_checks import integer_option

__all__ = ["ScoreCAM", "Scorecam"]


@dataclass(frozen=True)
class _ScoresOfGroups:
    """Scores of the softmax, of several batches of images in one: each is scored as a whole."""

    score: BatchScore

    def __call__(self, outputs: Any) -> Any:
        tf = tensorflow()
        groups = [
            tf.reshape(output, (-1, self.score.count, *output.shape[1:]))
            for output in tf.nest.flatten(outputs)
        ]
        # What a score raises it raises here: out of map_fn, TensorFlow could not go on to make
        # variables in a distribution strategy.
        self._of_one([group[0] for group in groups])
        scores = tf.map_fn(self._of_one, groups, fn_output_signature=tf.float32)
        return tf.reshape(scores, [-1])

    def _of_one(self, outputs: list[Any]) -> Any:
        tf = tensorflow()
        total = tf.zeros(self.score.count)
        for scores in self.score.values([tf.nn.softmax(output) for output in outputs]):
            if scores.shape.rank == 0 and self.score.count == 1:
                scores = scores[None]
            if scores.shape.rank != 1 or scores.shape[0] != self.score.count:
                raise ShapeError(
                    f"the score must be one for each of {self.score.count} images, not of shape "
                    f"{tuple(scores.shape)}"
                )
            total += scores
        return total


def _own_mask(image: Any, sample: Any, sides: Any, maps: Any) -> Any:
    """Return the map of each row, (rows, *sides), from 0 to 1."""
    tf = tensorflow()
    larger = enlarged(tf.gather(maps, image), sides)
    axes = list(range(1, larger.shape.rank))
    low = tf.reduce_min(larger, axes, keepdims=True)
    high = tf.reduce_max(larger, axes, keepdims=True)
    return (larger - low) / (high - low + keras().config.epsilon())


class Scorecam(ModelVisualization):
    """Shows where a layer's channels are active that raise the score by themselves.

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
        max_N: int | None = None,  # noqa: N803  (as it was called)
        training: bool = False,
        expand_cam: bool = True,
        normalize_cam: bool = True,
        *,
        standardize_cam: bool | None = None,
    ) -> Any:
        """Return the class activation maps, for which no gradients are needed.

        Parameters
        ----------
        score
            As for `Gradcam`. It is given the softmax of the output, as in tf-keras-vis.
        seed_input, penultimate_layer, seek_penultimate_conv_layer
            As for `Gradcam`, but for tokens (N, T), which cannot be masked. Of several inputs the
            first one that has the layer's axes is masked.
        activation_modifier, training, expand_cam, normalize_cam, standardize_cam
            As for `Gradcam`.
        batch_size
            How many masked images the model runs on at once, at least one for each image.
        max_N
            How many channels of each image are tried, those that vary most (Faster Score-CAM);
            None, 0 or -1: all.

        Returns
        -------
        numpy.ndarray or list
            As `Gradcam`.

        Raises
        ------
        OptionError, ShapeError, TargetError, ModelError
            If an argument cannot be used. ValueErrors.
        LayerError
            If there is no such layer. Also a KeyError.

        Examples
        --------
        >>> Scorecam(model)(CategoricalScore([1, 294]), images, max_N=10).shape
        (2, 224, 224)
        """
        check_inference(training)
        normalized = normalize_cam if standardize_cam is None else standardize_cam
        batch_size = integer_option("batch_size", batch_size, 1)
        layer = penultimate(self.model, penultimate_layer, seek_penultimate_conv_layer)
        batches = self._batches(score, seed_input)
        batch = next(batch for batch in batches if batch is not None)
        activation = layer_maps(batch, layer, None, any_rank=True).values
        activation = activation[..., _strongest(activation, max_N)]
        masked = fitting(batches, activation[..., 0])
        batch = next(batch for batch in masked if batch is not None)
        weights = _weights(batch, activation, batch_size)
        maps = np.einsum("n...c,nc->n...", activation, weights)
        found = finished(maps, batches, activation_modifier, expand_cam, normalized)
        return self._as_given(found, seed_input) if expand_cam else found


ScoreCAM = Scorecam


def _strongest(activation: npt.NDArray[Any], most: int | None) -> npt.NDArray[np.intp]:
    """Return the channels that vary most in any of the images."""
    count = activation.shape[-1]
    if most is None or most <= 0:
        return np.arange(count)
    if integer_option("max_N", most) > count:
        raise OptionError(f"max_N must be at most {count}, the layer's channels, not {most}")
    spread = activation.std(tuple(range(1, activation.ndim - 1)))
    return np.unique(np.argsort(-spread, axis=1, kind="stable")[:, :most])


def _weights(
    batch: ExplainedBatch, activation: npt.NDArray[Any], batch_size: int
) -> npt.NDArray[np.float32]:
    """Return the scores of the images behind each channel, (N, C)."""
    tf = tensorflow()
    count, channels = len(batch), activation.shape[-1]
    step = max(1, batch_size // count)
    score: Any = batch.reader.score
    reader = replace(batch.reader, score=_ScoresOfGroups(score))
    maps = np.moveaxis(activation, -1, 0)  # a batch of images for each channel
    found = []
    for start in range(0, channels, step):
        part = maps[start : start + step].reshape(-1, *maps.shape[2:])
        copies = len(part) // count

        def repeated(tensor: Any, copies: int = copies) -> Any:
            return tf.tile(tensor, [copies, *[1] * (len(tensor.shape) - 1)])

        group = replace(
            batch,
            inputs=map_tensors(repeated, batch.inputs),
            target_classes=repeated(batch.target_classes),
            reader=reader,
            batch_size=len(part),
        )
        found.append(masked_scores(group, _own_mask, 1, 0.0, tf.constant(part)))
    scores: npt.NDArray[np.float32] = np.concatenate(found).reshape(channels, count).T
    return scores
