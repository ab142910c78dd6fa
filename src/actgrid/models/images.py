"""Image files, arrays and pictures to the batch that a model wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import (
    OptionError,
    ShapeError,
)
from actgrid.models.image_inputs import fixed_sides, image_input
from actgrid.models.image_pixels import (
    Pixels,
    fit_planes,
    image_planes,
    image_size,
    visible_box,
)
from actgrid.models.image_sources import expand_sources
from actgrid.models.loading import load_model
from actgrid.models.preprocessing import preprocessing
from actgrid.models.tracing import known_specs
from actgrid.models.types import ImageSources, ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import InputOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Photo", "load_images", "load_photos", "load_with_pixels"]


@takes_options(InputOptions)
def load_images(
    images: ImageSources, model: ModelLike | None = None, **options: Unpack[InputOptions]
) -> npt.NDArray[Any]:
    """Return images as one batch, ready for a model.

    Parameters
    ----------
    images
        An image file, a folder (its image files, recursively, without hidden ones), a glob, a
        Pillow image, an array of pixels 0 to 255, (H, W) or (H, W, C), or a list of any of these.
        EXIF orientation is honoured; grayscale, palette, RGBA and 16-bit images are converted.
    model
        The model they are for: decides size, channels, data format, and ``"auto"``. None stands
        for a model that takes (N, H, W, 3).
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
        If a file does not exist or a glob or folder holds no image. Also a FileNotFoundError.
    ImageError
        If a file is not an image, is truncated, or is a decompression bomb. Also an OSError.
    OptionError, ShapeError
        If an option cannot be used, or images without a fixed size differ in theirs. Both are
        ValueErrors.

    Warns
    -----
    AssumptionWarning
        Once for a model, if ``"auto"`` has to assume x / 255.

    Notes
    -----
    ``"auto"`` decides by the layers of the model, never by its name:

    1. A model that scales its input before its first kernel (by a Rescaling or Normalization
       layer, by arithmetic, or inside a layer of its own) gets pixels 0 to 255.
    2. A model whose first kernels are those of a network in `keras.applications` gets what that
       network wants: its ``preprocess_input``, or, if it was made with
       ``include_preprocessing=False``, what it would otherwise do itself.
    3. Any other model gets x / 255, which is assumed: a warning says so.

    Examples
    --------
    >>> batch = actgrid.load_images(["cat.jpg", "dog.png"], size=224)
    >>> batch.shape
    (2, 224, 224, 3)
    """
    pixels, prepare = _loaded(images, _network(model), options)
    return prepare(pixels)


@takes_options(InputOptions)
def load_with_pixels(
    images: ImageSources, model: ModelLike | None = None, **options: Unpack[InputOptions]
) -> tuple[Pixels, npt.NDArray[Any]]:
    """Return images as pixels 0 to 255, (N, H, W, C), and as `load_images` prepares them."""
    pixels, prepare = _loaded(images, _network(model), options)
    return pixels, prepare(pixels.copy())


class Photo(NamedTuple):
    """An image as it is, and the part of it that a model is given.

    Attributes
    ----------
    pixels
        (H, W, 3) uint8 RGB, in the image's own size.
    box
        Top, left, bottom and right of that part in pixels. It reaches beyond the image where the
        image is padded.
    """

    pixels: npt.NDArray[np.uint8]
    box: tuple[int, int, int, int]


@takes_options(InputOptions)
def load_photos(
    images: ImageSources, model: ModelLike | None = None, **options: Unpack[InputOptions]
) -> list[Photo]:
    """Return images in their own sizes, each with the part that `load_images` takes of it.

    Parameters
    ----------
    images, model, options
        As for `load_images`; without a model and a size it takes all of an image.
    """
    network = _network(model)
    image_input(network)
    target_of, fit = _targets(options["size"], network), options["fit"]
    photos = []
    for source in expand_sources(images):
        pixels = np.rint(fit_planes(image_planes(source, 3), None, fit)).astype(np.uint8)
        height, width, _ = pixels.shape
        photos.append(Photo(pixels, visible_box(height, width, target_of(height, width), fit)))
    return photos


def _targets(size: Any, model: Any) -> Callable[[int, int], tuple[int, int] | None]:
    """Return what gives the size that an image of a height and width is brought to.

    Of a model that fixes one side alone, the other one keeps the shape of the image.
    """
    if size is not None:
        given = image_size(size)
        return lambda height, width: given
    known = None if model is None else known_specs(model)
    down, across = (None, None) if known is None else fixed_sides(model)

    def target(height: int, width: int) -> tuple[int, int] | None:
        if down is None and across is None:
            return None
        return (
            down or max(1, round(height * (across or 0) / width)),
            across or max(1, round(width * (down or 0) / height)),
        )

    return target


def _network(model: ModelLike | None) -> Any:
    return None if model is None else load_model(model)


def _loaded(
    sources: ImageSources, model: Any, options: InputOptions
) -> tuple[Pixels, Callable[[Pixels], npt.NDArray[Any]]]:
    """Return images as pixels, and what makes the model's batch of them, perhaps in place."""
    channels, channels_first, _ = image_input(model)
    target_of = _targets(options["size"], model)
    prepare = preprocessing(options["preprocess"], model)
    fit = options["fit"]
    # One by one: there is never more than one image in its own size.
    opened = (image_planes(source, channels) for source in expand_sources(sources))
    images = [
        fit_planes(planes, target_of(planes[0].height, planes[0].width), fit) for planes in opened
    ]
    if not images:
        raise OptionError("no images were given")
    shapes = {image.shape[:2] for image in images}
    if len(shapes) > 1:
        raise ShapeError(
            f"images of different sizes ({', '.join(f'{h} x {w}' for h, w in sorted(shapes))}) "
            "make no batch: give a size"
        )

    def prepared(pixels: Pixels) -> npt.NDArray[Any]:
        batch = np.asarray(prepare(pixels))
        return np.moveaxis(batch, -1, 1) if channels_first else batch

    return np.stack(images), prepared
