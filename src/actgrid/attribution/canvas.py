"""Parametrize images by pixels or by spatial frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.maximization_inputs import MaximizationInputs
from actgrid.errors import (
    ModelError,
    OptionError,
)
from actgrid.models.data_formats import input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.image_pixels import image_size
from actgrid.models.preprocessing import preprocessing
from actgrid.models.tracing import trace_model
from actgrid.option_checks import integer_option

__all__ = ["Canvas"]

# How the colours of natural images go together: the square root of their covariance over ImageNet,
# from Olah et al., its largest column of length 1.
_COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], np.float32)
_COLOURS /= np.linalg.norm(_COLOURS, axis=0).max()
# Of the pictures to begin with, which are next to gray.
_NOISE = 0.01
# Height and width of an image that a model is tried on, to hear what it says of it.
_TRIAL = 64
# Of the spectrum, and how fast it falls with the frequency: a little faster than in photos, against
# the fine patterns that networks like best.
_STRENGTH = 0.18
_FALL = 1.25


@dataclass(frozen=True)
class Canvas:
    """How parameters are images, and images what a model takes."""

    parametrization: str
    height: int
    width: int
    depth: int
    channels_first: bool
    preprocess: Any
    rgb_channels: tuple[int, ...] | None

    @classmethod
    def of(
        cls,
        model: Any,
        inputs: MaximizationInputs,
        parametrization: str,
        size: Any,
        preprocess: Any,
        rgb_channels: Any,
    ) -> Canvas:
        """Return the canvas of a model's input.

        Raises
        ------
        OptionError
            If an option cannot be used, or the size is not known.
        """
        preprocessing(preprocess, model)
        shape = inputs.image_shape
        channels_first = input_data_format(model, inputs.position) == "channels_first"
        depth = shape[1 if channels_first else 3] or 3
        height, width = shape[2:4] if channels_first else shape[1:3]
        rgb = None
        if rgb_channels is not None:
            if isinstance(rgb_channels, str) or len(rgb_channels) != 3:
                raise OptionError(f"rgb_channels must be three channels, not {rgb_channels!r}")
            rgb = tuple(
                integer_option("a channel of rgb_channels", channel, 0, depth - 1)
                for channel in rgb_channels
            )
        if size is not None:
            height, width = image_size(size)
        if height is None or width is None:
            trial = cls(parametrization, _TRIAL, _TRIAL, depth, channels_first, preprocess, rgb)
            raise OptionError(_unknown_size(model, inputs, trial))
        return cls(parametrization, height, width, depth, channels_first, preprocess, rgb)

    def noise(self, seed: int) -> Any:
        """Return the parameters of one faint random image."""
        shape: tuple[int, ...] = (self.height, self.width, self.depth)
        if self.parametrization == "fourier":
            shape = (self.depth, self.height, self.width // 2 + 1, 2)
        noise = np.random.default_rng(seed).normal(0, _NOISE, (1, *shape))
        return tensorflow().constant(noise, "float32")

    def shares(self, parameters: Any) -> Any:
        """Return images, (N, H, W, C) of 0 to 1."""
        tf = tensorflow()
        values = parameters
        if self.parametrization == "fourier":
            spectrum = tf.complex(parameters[..., 0], parameters[..., 1]) * self._amplitudes()
            planes = tf.signal.irfft2d(spectrum, [self.height, self.width])
            values = tf.transpose(planes, (0, 2, 3, 1))
            if self.depth == 3:
                values = tf.einsum("nhwc,dc->nhwd", values, _COLOURS)
        return tf.sigmoid(values)

    def _amplitudes(self) -> Any:
        """Return how strong each spatial frequency is in photos: as one over the frequency."""
        down, right = np.fft.fftfreq(self.height)[:, None], np.fft.rfftfreq(self.width)
        longest = 1 / max(self.height, self.width)
        amplitudes = _STRENGTH / np.maximum(np.hypot(down, right), longest) ** _FALL
        return (amplitudes * math.sqrt(self.height * self.width)).astype(np.complex64)

    def prepared(self, model: Any, shares: Any) -> Any:
        """Return what the model takes for images of 0 to 1."""
        tf = tensorflow()
        inputs = tf.cast(preprocessing(self.preprocess, model)(shares * 255), "float32")
        return tf.transpose(inputs, (0, 3, 1, 2)) if self.channels_first else inputs

    def inputs(self, model: Any, parameters: Any) -> Any:
        """Return what the model takes for these parameters."""
        return self.prepared(model, self.shares(parameters))

    def images(self, parameters: Any) -> npt.NDArray[np.uint8]:
        """Return the pixels to show, (N, H, W, 3)."""
        shares: npt.NDArray[np.float32] = self.shares(parameters).numpy()
        levels = np.rint(shares * 255).astype(np.uint8)
        if self.rgb_channels is not None:
            return levels[..., list(self.rgb_channels)]
        if self.depth == 1:
            return np.repeat(levels, 3, axis=-1)
        return levels[..., :3] if self.depth == 4 else levels


def _unknown_size(model: Any, inputs: MaximizationInputs, trial: Canvas) -> str:
    """Return why no size can be chosen for a model's images, after a trial of one size."""
    if not model.built:
        return "the model has not been called, and says nothing of its images: give a size"
    image = trial.inputs(model, trial.noise(0))
    run = GraphFunction(lambda given: trace_model(model, given).outputs)
    try:
        run.trace(inputs.with_image(image))
    except ModelError as error:
        return (
            f"the model does not say what size its images have: give a size; with {_TRIAL} x "
            f"{_TRIAL}, {error}"
        )
    return "the model takes images of any size: give a size, (height, width)"
