"""Load images and prepare them as a batch for a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.errors import (
    OptionError,
    ShapeError,
)
from actgrid.models.image_inputs import find_fixed_sides, find_image_input
from actgrid.models.image_pixels import (
    Pixels,
    choose_target_size,
    compute_visible_box,
    convert_to_planes,
    fit_planes,
    parse_image_size,
)
from actgrid.models.image_sources import expand_sources
from actgrid.models.loading import load_model
from actgrid.models.preprocessing import get_preprocess_function
from actgrid.models.tracing import find_input_specs
from actgrid.models.types import ImageSources, ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import InputOptions

__all__ = ["Photo", "load_images", "load_photos", "load_with_pixels"]


@takes_options(InputOptions)
def load_images(
    images: ImageSources, model: ModelLike | None = None, **options: Unpack[InputOptions]
) -> npt.NDArray[Any]:
    """Load images as one batch of pixels, prepared for a model.

    Parameters
    ----------
    images : path, str, PIL.Image.Image, array_like or list of these
        An image file, a folder (its image files, recursively, without hidden files), a glob, a
        Pillow image, an array of pixels 0 to 255, (H, W) or (H, W, C), or a list of these.
        The EXIF orientation is applied; grayscale, palette, RGBA and 16-bit images are converted.
    model : keras.Model, Network, str or pathlib.Path, optional
        The model that the images are for. Its input decides the size, the channels and the data
        format, and its layers decide the preprocessing ``"auto"``. None: a model that takes
        (N, H, W, 3).
    **options
        See `actgrid.options.InputOptions`. A function for `preprocess` takes the batch,
        (N, H, W, C) float32.

    Returns
    -------
    numpy.ndarray
        (N, H, W, C) float32, or (N, C, H, W) for a channels-first model.

    Raises
    ------
    MissingFileError
        If a file does not exist, or a glob or folder contains no image. Also a FileNotFoundError.
    ImageError
        If a file is not an image, is truncated, or is a decompression bomb. Also an OSError.
    OptionError, ShapeError
        If an option is invalid, or the images differ in size and no size is fixed. Both are
        ValueErrors.

    Warns
    -----
    AssumptionWarning
        Once for each model for which ``"auto"`` has to assume x / 255.

    Notes
    -----
    ``"auto"`` chooses the preprocessing by the layers of the model, never by its name:

    1. A model that scales its input before its first kernel (in a Rescaling or Normalization layer,
       by arithmetic, or inside a custom layer) gets pixels 0 to 255.
    2. A model whose first kernels are those of a network in `keras.applications` gets the
       preprocessing of that network: its ``preprocess_input``, or, for a network created with
       ``include_preprocessing=False``, the scaling that the network would otherwise contain.
    3. Any other model gets x / 255. This is an assumption, and a warning says so.

    Examples
    --------
    >>> from actgrid import demo
    >>> demo.photo().save("cat.png")
    >>> actgrid.load_images(["cat.png", "cat.png"], size=224).shape
    (2, 224, 224, 3)
    """
    pixels, prepare = _load_pixels(images, _load_optional_model(model), options)
    return prepare(pixels)


@takes_options(InputOptions)
def load_with_pixels(
    images: ImageSources, model: ModelLike | None = None, **options: Unpack[InputOptions]
) -> tuple[Pixels, npt.NDArray[Any]]:
    """Load images as pixels and as prepared input of a model.

    Returns
    -------
    tuple of numpy.ndarray
        Pixels from 0 to 255, (N, H, W, C), and the array that `load_images` returns.
    """
    pixels, prepare = _load_pixels(images, _load_optional_model(model), options)
    return pixels, prepare(pixels.copy())


class Photo(NamedTuple):
    """Record of an image in its own size, and the box of pixels that a model receives.

    Attributes
    ----------
    pixels
        (H, W, 3) uint8 RGB, in the image's own size.
    box
        Top, left, bottom and right of the box in pixels. The box extends beyond the image where the
        image is padded.
    """

    pixels: npt.NDArray[np.uint8]
    box: tuple[int, int, int, int]


@takes_options(InputOptions)
def load_photos(
    images: ImageSources, model: ModelLike | None = None, **options: Unpack[InputOptions]
) -> list[Photo]:
    """Load images in their own sizes, with the box of the pixels a model receives.

    Parameters
    ----------
    images, model
        As for `load_images`; without a model and a size the box is the whole image.
    **options
        As for `load_images`.

    Returns
    -------
    list of Photo
        The images and their boxes.
    """
    network = _load_optional_model(model)
    find_image_input(network)
    choose_target, fit = _choose_target_sizes(options["size"], network), options["fit"]
    photos = []
    for source in expand_sources(images):
        pixels = np.rint(fit_planes(convert_to_planes(source, 3), None, fit)).astype(np.uint8)
        height, width, _ = pixels.shape
        photos.append(
            Photo(pixels, compute_visible_box(height, width, choose_target(height, width), fit))
        )
    return photos


def _choose_target_sizes(size: Any, model: Any) -> Callable[[int, int], tuple[int, int] | None]:
    """Return a function that chooses the size to which an image is resized.

    Returns
    -------
    callable
        Function of the height and width of an image that returns (height, width). It returns None
        if the image is not resized.
    """
    if size is not None:
        fixed_size = parse_image_size(size)
        return lambda height, width: fixed_size
    specs = None if model is None else find_input_specs(model)
    fixed_height, fixed_width = (None, None) if specs is None else find_fixed_sides(model)
    return lambda height, width: choose_target_size(height, width, fixed_height, fixed_width)


def _load_optional_model(model: ModelLike | None) -> Any:
    return None if model is None else load_model(model)


def _load_pixels(
    sources: ImageSources, model: Any, options: InputOptions
) -> tuple[Pixels, Callable[[Pixels], npt.NDArray[Any]]]:
    """Load images as pixels, and choose the preprocessing for a model.

    Returns
    -------
    tuple
        Pixels from 0 to 255, (N, H, W, C), and the function that converts the pixels to the input
        of the model.
    """
    channels, channels_first, _ = find_image_input(model)
    choose_target = _choose_target_sizes(options["size"], model)
    prepare = get_preprocess_function(options["preprocess"], model)
    fit = options["fit"]
    # A generator, so that only one image at a time is in memory in its own size.
    planes_of_images = (convert_to_planes(source, channels) for source in expand_sources(sources))
    images = [
        fit_planes(planes, choose_target(planes[0].height, planes[0].width), fit)
        for planes in planes_of_images
    ]
    if not images:
        raise OptionError("no images were given")
    shapes = {image.shape[:2] for image in images}
    if len(shapes) > 1:
        raise ShapeError(
            f"images of different sizes ({', '.join(f'{h} x {w}' for h, w in sorted(shapes))}) "
            "cannot form a batch: set size"
        )

    def prepare_batch(pixels: Pixels) -> npt.NDArray[Any]:
        batch = np.asarray(prepare(pixels))
        return np.moveaxis(batch, -1, 1) if channels_first else batch

    return np.stack(images), prepare_batch
