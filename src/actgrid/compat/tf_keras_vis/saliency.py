"""Saliency and SmoothGrad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from actgrid.attribution.batches import ExplainedBatch
from actgrid.attribution.input_gradients import SEEDS, as_it_is, noisy, summed_gradients
from actgrid.compat.tf_keras_vis.utils import normalize
from actgrid.compat.tf_keras_vis.visualization import ModelVisualization, check_inference
from actgrid.models.frameworks import tensorflow
from actgrid.option_checks import integer_option, number_option

__all__ = ["Saliency"]


def _absolute(gradients: Any) -> Any:
    return tensorflow().abs(gradients)


class Saliency(ModelVisualization):
    """Shows how much the score changes with each pixel.

    References
    ----------
    Simonyan et al., Deep Inside Convolutional Networks, 2013, https://arxiv.org/abs/1312.6034.
    Smilkov et al., SmoothGrad, 2017, https://arxiv.org/abs/1706.03825.
    """

    def __call__(
        self,
        score: Any,
        seed_input: Any,
        smooth_samples: int = 0,
        smooth_noise: float = 0.20,
        keepdims: bool = False,
        gradient_modifier: Callable[[Any], Any] | None = _absolute,
        training: bool = False,
        normalize_map: bool = True,
        unconnected_gradients: Any = None,
        *,
        standardize_saliency: bool | None = None,
    ) -> Any:
        """Return the gradients of the score with respect to the input.

        Parameters
        ----------
        score
            A function of the output, such as ``CategoricalScore([1, 294])``, that gives a score
            for each image; a list of them for several outputs. It is traced.
        seed_input
            Images, (N, H, W, C) or one without N; or volumes (N, D, H, W, C) or sequences
            (N, T, C); with `keepdims` vectors (N, C) too; a list for several inputs.
        smooth_samples
            Of how many noisy copies the gradients are averaged; 0: of the image itself.
        smooth_noise
            Standard deviation of the noise, as a share of the range of each image. It follows
            NumPy's global generator: `numpy.random.seed` makes it repeatable.
        keepdims
            Whether the channels are kept and not their maximum.
        gradient_modifier
            What is done to the gradients of each copy, by default ``tf.abs``.
        training
            Must be False.
        normalize_map
            Whether each map is brought to 0 to 1; `standardize_saliency` before version 0.8.
        unconnected_gradients
            Without effect: a score that does not depend on the image is an error.

        Returns
        -------
        numpy.ndarray or list
            (N, H, W), (N, D, H, W) or (N, T) float32; with `keepdims` of the shape of the input; a
            list of these where `seed_input` was a list, with None for vectors (N, C), which have
            a map only with `keepdims`. Noise is added to the input that is looked at alone.

        Raises
        ------
        OptionError, ShapeError, TargetError, ModelError
            If an argument cannot be used. ValueErrors.

        Examples
        --------
        >>> saliency = Saliency(model, model_modifier=ReplaceToLinear())
        >>> saliency(CategoricalScore([1, 294]), images, smooth_samples=20).shape
        (2, 224, 224)
        """
        check_inference(training)
        samples = integer_option("smooth_samples", smooth_samples, 0)
        noise = number_option("smooth_noise", smooth_noise)
        if standardize_saliency is not None:
            normalize_map = standardize_saliency
        maps: list[Any] = []
        for batch in self._batches(score, seed_input, min_rank=2 if keepdims else 3):
            if batch is None:
                maps.append(None)
                continue
            found = _gradients(batch, samples, noise, gradient_modifier)
            if not keepdims:
                found = found.max(batch.reader.channel_axis)
            maps.append(normalize(found) if normalize_map else found)
        return self._as_given(maps, seed_input)


def _gradients(
    batch: ExplainedBatch, samples: int, noise: float, modifier: Callable[[Any], Any] | None
) -> Any:
    """Return the mean of modified gradients, sample by sample: the score wants each image once."""
    # tf-keras-vis's noise came from this generator.
    first = np.random.randint(SEEDS) if samples else 0  # noqa: NPY002
    total = np.zeros(batch.image.shape, np.float32)
    for sample in range(max(samples, 1)):
        table = [noise, (first + sample) % SEEDS]
        gradients = summed_gradients(batch, noisy if samples else as_it_is, [1.0], table)
        if modifier is not None:
            gradients = np.asarray(modifier(tensorflow().constant(gradients)))
        total += gradients
    return total / max(samples, 1)
