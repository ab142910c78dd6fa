"""Prepare images and other samples as the input of the viewer's model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.errors import ModelError, ShapeError
from actgrid.models.frameworks import tensorflow
from actgrid.models.image_inputs import find_fixed_sides, find_image_input
from actgrid.models.image_pixels import parse_image_size
from actgrid.models.images import load_with_pixels
from actgrid.models.inputs import as_tensors, get_fixed_batch_size, prepare_inputs, read_input_specs
from actgrid.models.sample_inputs import find_sample_kind
from actgrid.models.tracing import build_model
from actgrid.option_groups import check_option
from actgrid.options import InputOptions
from actgrid.web.images import compute_scaled_size, read_image
from actgrid.web.samples import Sample, draw_sample

__all__ = ["ImageConverter", "InputConverter", "PreparedImage", "SampleConverter", "make_converter"]

Array = npt.NDArray[Any]

# Maximum height and width of images for a model whose input size is not fixed.
_MAX_SIDE = 512
# An image that is prepared to find the shape and dtype of the model's input.
_BLANK = Image.new("RGB", (64, 64))


class PreparedImage(NamedTuple):
    """An image that is resized and preprocessed for the model, or another sample.

    Parameters
    ----------
    picture
        Pixels before preprocessing, or a drawing of the sample: (height, width, 3) uint8.
    x
        Input of the model, a batch of one sample.
    """

    picture: npt.NDArray[np.uint8]
    x: Array


class InputConverter(Protocol):
    """Protocol of the conversion of samples to the input of a model.

    Attributes
    ----------
    kind
        ``"image"``, ``"sequence"``, ``"volume"``, ``"table"`` or ``"text"``.
    size
        (height, width) of all images in pixels; None if samples keep their size.
    spec
        TensorSpec of the input with which the model is traced.
    """

    kind: str
    size: tuple[int, int] | None
    spec: Any

    def prepare(self, source: Any) -> PreparedImage:
        """Load a sample as input of the model."""

    def make_blank(self) -> Array | None:
        """Return an input to run the model with once; None if its size is not known."""


def make_converter(
    model: Any, size: Any, preprocess: Any, fit: str, kind: str | None = None
) -> InputConverter:
    """Return the conversion of samples to the input of a model.

    For the parameters and errors see `Engine`.
    """
    check_option(InputOptions, "fit", fit)
    if kind is None:
        kind = find_sample_kind(model)
    if kind is None or kind == "image":
        return ImageConverter(model, size, preprocess, fit)
    return SampleConverter(model, kind)


class ImageConverter:
    """Conversion of images to the input of a model; see `InputConverter`.

    Parameters
    ----------
    model
        The model, which is built.
    size, preprocess, fit
        See `actgrid.load_images`. If the input size of the model is not fixed and `size` is None,
        images keep their size, except that larger images are reduced to at most 512 pixels a side.

    Raises
    ------
    ModelError, ShapeError
        If the model has no image input or several inputs, or needs a `size`. Both are ValueErrors.
    """

    kind = "image"

    def __init__(
        self, model: Any, size: Any, preprocess: str | Callable[[Any], Any], fit: str
    ) -> None:
        self._model, self._preprocess, self._fit = model, preprocess, fit
        _, channels_first, fixed = find_image_input(model)
        self.size = fixed if size is None else parse_image_size(size)
        self.spec = self._create_spec(channels_first)

    def _create_spec(self, channels_first: bool) -> Any:
        """Return the TensorSpec of the model's input, and build the model if needed."""
        input_specs = read_input_specs(self._model)
        sides = slice(2, 4) if channels_first else slice(1, 3)
        if self.size is None:
            if input_specs is None:
                raise ModelError(
                    f"the input of the model {self._model.name!r} is not known: give a size, or "
                    "call the model once"
                )
            if any(find_fixed_sides(self._model)):
                (shape,) = (tuple(spec.shape) for spec in tensorflow().nest.flatten(input_specs))
                raise ShapeError(
                    f"the input size of the model is only partly fixed: got {shape}; give a size"
                )
        blank = as_tensors(self.prepare(_BLANK).x)
        spec_shape: list[int | None] = [
            None if input_specs is None else get_fixed_batch_size(self._model),
            *blank.shape[1:],
        ]
        if self.size is None:
            spec_shape[sides] = None, None
        spec = tensorflow().TensorSpec(spec_shape, blank.dtype)
        prepare_inputs(self._model, spec)
        build_model(self._model, blank)
        return spec

    def prepare(self, source: Any) -> PreparedImage:
        """Load, resize and preprocess an image from a path, a Pillow image or an array.

        Raises
        ------
        ImageError
            If the image cannot be read. Also an OSError.
        """
        image, size, fit = read_image(source), self.size, self._fit
        if size is None:
            size, fit = compute_scaled_size(image, _MAX_SIDE), "stretch"
        pixels, x = load_with_pixels(
            image, size=size, preprocess=self._preprocess, model=self._model, fit=fit
        )
        picture = np.rint(pixels[0, ..., :3]).astype(np.uint8)
        return PreparedImage(np.repeat(picture, 3 // picture.shape[2], axis=2), x)

    def make_blank(self) -> Array | None:
        """Return the input for a blank image; None if the size of images is not fixed."""
        return None if self.size is None else self.prepare(_BLANK).x


class SampleConverter:
    """Conversion of samples that are no images; see `InputConverter`.

    Parameters
    ----------
    model
        The model, which is built.
    kind
        Kind of the samples.

    Raises
    ------
    ShapeError
        If the model has several inputs. Also a ValueError.
    """

    size: tuple[int, int] | None = None

    def __init__(self, model: Any, kind: str) -> None:
        self.kind = kind
        specs = tensorflow().nest.flatten(read_input_specs(model))
        if len(specs) != 1:
            raise ShapeError(
                f"the viewer shows models with one input, but {model.name!r} has {len(specs)}"
            )
        (self.spec,) = specs
        build_model(model, self.spec)

    def prepare(self, source: Sample) -> PreparedImage:
        """Draw a sample, and return the drawing with the sample."""
        return PreparedImage(draw_sample(source), source.x)

    def make_blank(self) -> Array | None:
        """Return None: the model is compiled for the first sample."""
        return None
