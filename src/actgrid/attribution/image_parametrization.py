"""Parametrization of images by pixels, spatial frequencies or their phases."""

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
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.image_pixels import parse_image_size
from actgrid.models.networks import trace_network
from actgrid.models.preprocessing import get_preprocess_function
from actgrid.option_checks import check_integer

__all__ = ["ImageParametrization"]

# Correlation of the colours of natural images: the square root of their covariance over ImageNet
# (Olah et al., 2017), scaled to a largest column of length 1.
_COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], np.float32)
_COLOURS /= np.linalg.norm(_COLOURS, axis=0).max()
# Standard deviation of the initial parameters, which make a nearly gray image.
_NOISE = 0.01
# Height and width of the image that a model is tried on if the size of its images is unknown.
_TRIAL_SIDE = 64
# Strength of the spectrum of the parametrization by spatial frequencies. It sets the contrast that
# a learning rate reaches.
_SPECTRUM_STRENGTH = 0.075
# Standard deviation of each decorrelated colour of a `maco` image, before the sigmoid. In photos it
# is from 1 to 3.
_MACO_CONTRAST = 2.2
# Phase in radians that a parameter of 1 stands for. It sets the change of the phases that a
# learning rate reaches.
_PHASE_SCALE = 10.0
# Exponent of the decay of the magnitude with the frequency. It is 1 in the model of natural photos,
# and from 1.1 to 1.6 in single photos.
_FOURIER_DECAY = 1.0
_MACO_DECAY = 1.2


@dataclass(frozen=True)
class ImageParametrization:
    """Mapping from optimized parameters to images, and from images to a model's input.

    Attributes
    ----------
    basis
        ``"pixel"``, ``"fourier"`` or ``"maco"``, the quantities that are optimized.
    height, width, depth
        Size of the images, and the number of their channels.
    channels_first
        Whether the model takes (N, C, H, W).
    preprocess
        See the option `preprocess` of `actgrid.maximize`.
    rgb_channels
        Indices of the channels that are drawn as red, green and blue. None: the channels are
        drawn in their order.
    """

    basis: str
    height: int
    width: int
    depth: int
    channels_first: bool
    preprocess: Any
    rgb_channels: tuple[int, ...] | None

    @classmethod
    def from_options(
        cls,
        model: Any,
        inputs: MaximizationInputs,
        basis: str,
        size: Any,
        preprocess: Any,
        rgb_channels: Any,
    ) -> ImageParametrization:
        """Create a parametrization for the image input of a model.

        Raises
        ------
        OptionError
            If an option is invalid, or the image size is unknown.
        """
        get_preprocess_function(preprocess, model)
        shape = inputs.image_shape
        channels_first = find_input_data_format(model, inputs.position) == "channels_first"
        depth = shape[1 if channels_first else 3] or 3
        height, width = shape[2:4] if channels_first else shape[1:3]
        rgb = None
        if rgb_channels is not None:
            if isinstance(rgb_channels, str) or len(rgb_channels) != 3:
                raise OptionError(f"rgb_channels must be three channels, not {rgb_channels!r}")
            rgb = tuple(
                check_integer("a channel of rgb_channels", channel, 0, depth - 1)
                for channel in rgb_channels
            )
        if size is not None:
            height, width = parse_image_size(size)
        if height is None or width is None:
            side = _TRIAL_SIDE
            trial = cls(basis, side, side, depth, channels_first, preprocess, rgb)
            raise OptionError(_explain_unknown_size(model, inputs, trial))
        return cls(basis, height, width, depth, channels_first, preprocess, rgb)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.height, self.width

    @property
    def shares_step_size(self) -> bool:
        """True if all parameters of an image have a common step size."""
        return self.basis == "fourier"

    def make_noise(self, seed: int, count: int = 1) -> Any:
        """Return the float32 parameters, (count, ...), of random images.

        The images are nearly gray; with the basis ``"maco"`` they have random phases.
        """
        rng = np.random.default_rng(seed)
        spectrum_shape = (count, self.depth, self.height, self.width // 2 + 1)
        if self.basis == "maco":
            noise = rng.uniform(-math.pi, math.pi, spectrum_shape) / _PHASE_SCALE
        elif self.basis == "fourier":
            # The strength is that of the learning rate, and not of the initial image.
            noise = rng.normal(0, _NOISE * 0.25 / _SPECTRUM_STRENGTH, (*spectrum_shape, 2))
        else:
            noise = rng.normal(0, _NOISE, (count, self.height, self.width, self.depth))
        return tensorflow().constant(noise, "float32")

    def to_unit_images(self, parameters: Any) -> Any:
        """Convert image parameters to images, (N, H, W, C) with values from 0 to 1."""
        return tensorflow().sigmoid(self.to_values(parameters))

    def to_values(self, parameters: Any) -> Any:
        """Convert image parameters to the values of images before the sigmoid, (N, H, W, C)."""
        tf = tensorflow()
        if self.basis == "pixel":
            return parameters
        values = tf.transpose(self._to_planes(parameters), (0, 2, 3, 1))
        return tf.einsum("nhwc,dc->nhwd", values, _COLOURS) if self.depth == 3 else values

    def _to_planes(self, parameters: Any) -> Any:
        """Convert parameters of frequencies to decorrelated colours, (N, C, H, W)."""
        tf = tensorflow()
        size = [self.height, self.width]
        if self.basis == "fourier":
            spectrum = tf.complex(parameters[..., 0], parameters[..., 1])
            return tf.signal.irfft2d(spectrum * self._compute_amplitudes(), size)
        # The first and, for an even width, the last column have each frequency twice: the phases of
        # the two are opposite, so that the spectrum is that of real values.
        columns = np.isin(np.arange(self.width // 2 + 1), (0, self.width / 2))
        opposite = tf.roll(tf.reverse(parameters, [2]), 1, 2)
        phases = _PHASE_SCALE * tf.where(columns, (parameters - opposite) / 2, parameters)
        magnitudes = self.compute_magnitudes()
        spectrum = tf.complex(magnitudes * tf.cos(phases), magnitudes * tf.sin(phases))
        return tf.signal.irfft2d(spectrum, size)

    def _compute_frequencies(self) -> npt.NDArray[np.float64]:
        """Return the spatial frequencies, (H, W // 2 + 1), in cycles per pixel and above 0."""
        down, right = np.fft.fftfreq(self.height)[:, None], np.fft.rfftfreq(self.width)
        frequencies: npt.NDArray[np.float64] = np.hypot(down, right)
        return np.maximum(frequencies, 1 / max(self.height, self.width))

    def _compute_amplitudes(self) -> npt.NDArray[np.complex64]:
        """Return the weight of each spatial frequency, (H, W // 2 + 1)."""
        amplitudes = _SPECTRUM_STRENGTH / self._compute_frequencies() ** _FOURIER_DECAY
        return (amplitudes * math.sqrt(self.height * self.width)).astype(np.complex64)

    def compute_magnitudes(self) -> npt.NDArray[np.float32]:
        """Return the fixed magnitudes of a `maco` image, (H, W // 2 + 1) float32.

        They follow a power law of the frequency in each decorrelated colour. The mean is 0.
        """
        magnitudes = self._compute_frequencies() ** -_MACO_DECAY
        magnitudes[0, 0] = 0
        # Parseval: the columns of `rfft2` stand for two frequencies, except the first and, for an
        # even width, the last.
        counts = np.full(magnitudes.shape[1], 2)
        counts[0] = 1
        if self.width % 2 == 0:
            counts[-1] = 1
        pixels = self.height * self.width
        deviation = math.sqrt(float((magnitudes**2 * counts).sum())) / pixels
        return (magnitudes * (_MACO_CONTRAST / (deviation or 1.0))).astype(np.float32)

    def to_model_input(self, model: Any, images: Any) -> Any:
        """Preprocess images, (N, H, W, C) from 0 to 1, to the model's image input."""
        tf = tensorflow()
        inputs = tf.cast(get_preprocess_function(self.preprocess, model)(images * 255), "float32")
        return tf.transpose(inputs, (0, 3, 1, 2)) if self.channels_first else inputs

    def parameters_to_model_input(self, model: Any, parameters: Any) -> Any:
        """Convert image parameters to the preprocessed image input of the model."""
        return self.to_model_input(model, self.to_unit_images(parameters))

    def to_pixels(self, parameters: Any) -> npt.NDArray[np.uint8]:
        """Convert image parameters to displayable uint8 pixels, (N, H, W, 3).

        Images of two or more than four channels, which have no RGB form, keep their C channels.
        """
        images: npt.NDArray[np.float32] = self.to_unit_images(parameters).numpy()
        levels = np.rint(images * 255).astype(np.uint8)
        if self.rgb_channels is not None:
            return levels[..., list(self.rgb_channels)]
        if self.depth == 1:
            return np.repeat(levels, 3, axis=-1)
        return levels[..., :3] if self.depth == 4 else levels


def _explain_unknown_size(
    model: Any, inputs: MaximizationInputs, trial: ImageParametrization
) -> str:
    """Return the error message for a model whose image size is unknown.

    The model is run on a trial image, so that the message can name the model's own error.
    """
    if not getattr(model, "built", True):
        return "size is unknown, as the model has not been called: pass size=(height, width)"
    image = trial.parameters_to_model_input(model, trial.make_noise(0))
    run = GraphFunction(lambda tensors: trace_network(model, tensors).outputs)
    try:
        run.trace(inputs.with_image(image))
    except ModelError as error:
        return (
            "size is unknown, as the model does not define it: pass size=(height, width); with "
            f"{_TRIAL_SIDE} x {_TRIAL_SIDE}, {error}"
        )
    return "size is unknown, as the model takes images of any size: pass size=(height, width)"
