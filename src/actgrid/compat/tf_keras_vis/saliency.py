"""Saliency and SmoothGrad, as in tf-keras-vis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from actgrid.attribution.batches import ExplainedBatch
from actgrid.attribution.input_gradients import SEED_LIMIT, add_noise, keep_values, sum_gradients
from actgrid.compat.tf_keras_vis.utils import normalize
from actgrid.compat.tf_keras_vis.visualization import ModelVisualization, check_inference
from actgrid.models.frameworks import tensorflow
from actgrid.option_checks import check_integer, check_number

__all__ = ["Saliency"]


def _take_absolute(gradients: Any) -> Any:
    return tensorflow().abs(gradients)


class Saliency(ModelVisualization):
    """Computes gradients of a score with respect to pixels (saliency, SmoothGrad).

    See `ModelVisualization` for the arguments of the constructor.

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
        gradient_modifier: Callable[[Any], Any] | None = _take_absolute,
        training: bool = False,
        normalize_map: bool = True,
        unconnected_gradients: Any = None,
        *,
        standardize_saliency: bool | None = None,
    ) -> Any:
        """Compute the gradients of the score with respect to the input.

        Parameters
        ----------
        score : callable or list of callable
            Function of the output that returns a score for each image, (N,), such as
            ``CategoricalScore([1, 294])``; a list with a function for each output of the model.
            Functions are traced.
        seed_input : array_like or list of array_like
            Images, (N, H, W, C), or one image without N; volumes (N, D, H, W, C) or sequences
            (N, T, C); with `keepdims` also vectors (N, C); a list for several inputs.
        smooth_samples : int, optional
            Number of noisy copies over which the gradients are averaged. 0: gradients of the
            unmodified input.
        smooth_noise : float, optional
            Standard deviation of the noise, relative to the range of each image. The noise is
            seeded from NumPy's global generator and reproducible with `numpy.random.seed`.
        keepdims : bool, optional
            Whether to keep the channels instead of their maximum.
        gradient_modifier : callable, optional
            Function that modifies the gradients of each copy, by default ``tf.abs``. None:
            unchanged gradients.
        training : bool, optional
            Must be False: the model is explained in inference mode.
        normalize_map : bool, optional
            Whether to scale each map to the range 0 to 1.
        unconnected_gradients : object, optional
            Ignored: a score that does not depend on the input raises an error.
        standardize_saliency : bool, optional
            The name of `normalize_map` before version 0.8. None: `normalize_map` is used.

        Returns
        -------
        ndarray or list
            (N, H, W), (N, D, H, W) or (N, T) float32; with `keepdims` the shape of the input. If
            `seed_input` is a list, a list with the maps for each input, None for vectors (N, C)
            without `keepdims`. Noise is added only to the explained input.

        Raises
        ------
        OptionError
            If an argument is invalid. Also a ValueError.
        ShapeError
            If the inputs do not fit the model. Also a ValueError.
        TargetError
            If the model has no such class. Also a ValueError.
        ModelError
            If the model cannot be run, or has no gradient. Also a ValueError.

        Examples
        --------
        >>> import keras
        >>> from actgrid.compat.tf_keras_vis.saliency import Saliency
        >>> from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, activation="relu"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2),
        ... ])
        >>> images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
        >>> saliency = Saliency(model)
        >>> saliency(CategoricalScore([0, 1]), images, smooth_samples=5).shape
        (2, 8, 8)
        """
        check_inference(training)
        samples = check_integer("smooth_samples", smooth_samples, 0)
        noise = check_number("smooth_noise", smooth_noise)
        if standardize_saliency is not None:
            normalize_map = standardize_saliency
        maps: list[Any] = []
        for batch in self._batches(score, seed_input, min_rank=2 if keepdims else 3):
            if batch is None:
                maps.append(None)
                continue
            gradients = _average_gradients(batch, samples, noise, gradient_modifier)
            if not keepdims:
                gradients = gradients.max(batch.layout.channel_axis)
            maps.append(normalize(gradients) if normalize_map else gradients)
        return self._unwrap(maps, seed_input)


def _average_gradients(
    batch: ExplainedBatch, samples: int, noise: float, modifier: Callable[[Any], Any] | None
) -> Any:
    """Average the gradients of a score over noisy copies of the images.

    The copies are computed one after another, as the score must receive each image exactly once.

    Parameters
    ----------
    batch
        The images and their target.
    samples
        Number of noisy copies. 0: the images without noise.
    noise
        Amount of noise.
    modifier
        Function that changes the gradients before they are averaged. None: none.

    Returns
    -------
    numpy.ndarray
        Mean gradients, in the shape of the images.
    """
    # tf-keras-vis takes its noise from this generator.
    first_seed = np.random.randint(SEED_LIMIT) if samples else 0  # noqa: NPY002
    total = np.zeros(batch.values.shape, np.float32)
    for sample in range(max(samples, 1)):
        table = [noise, (first_seed + sample) % SEED_LIMIT]
        gradients = sum_gradients(batch, add_noise if samples else keep_values, [1.0], table)
        if modifier is not None:
            gradients = np.asarray(modifier(tensorflow().constant(gradients)))
        total += gradients
    return total / max(samples, 1)
