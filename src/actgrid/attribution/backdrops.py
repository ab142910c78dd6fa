"""The pictures that maps are drawn over."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.errors import DtypeError, ShapeError
from actgrid.models.image_sources import are_images
from actgrid.models.images import Photo, load_photos

__all__ = ["Backdrop", "as_pictures", "backdrop_of_photos", "given_backdrop"]

# Photos of one size are kept in that size up to so many bytes in all, or else made smaller.
_MAX_BYTES = 512 << 20
# The longest side of photos of several sizes, which are brought to one.
_MAX_SIDE = 1024
# Values below and above these percentiles do not decide what the units are, or how far the range of
# an image reaches.
_UNIT_PERCENTILES = (1, 99)
_PERCENTILES = (0.1, 99.9)
# Pixels that were resized may leave their range by this fraction of it.
_TOLERANCE = 0.05
# Of images from 0 to 255 that are not black, a pixel is at least as light as this.
_LEAST_LIGHT = 16.0


class Backdrop(NamedTuple):
    """Pictures that maps are drawn over.

    Attributes
    ----------
    images
        (N, height, width, 3) uint8.
    boxes
        (N, 4): the part of each that its map covers, see `Heatmap`; None: all of it.
    """

    images: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.int64] | None

    def repeated(self, images: list[int]) -> Backdrop:
        """Return the pictures of these images, of which one may come several times."""
        if images == list(range(len(self.images))):
            return self
        return Backdrop(self.images[images], None if self.boxes is None else self.boxes[images])

    def reduced(self, side: int) -> Backdrop:
        """Return the same with pictures whose sides are at most so long."""
        height, width = self.images.shape[1:3]
        scale = side / max(height, width)
        if scale >= 1:
            return self
        size = max(1, round(width * scale)), max(1, round(height * scale))
        images = [
            np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
            for image in self.images
        ]
        ratios = np.array([size[1] / height, size[0] / width] * 2)
        boxes = None if self.boxes is None else np.rint(self.boxes * ratios).astype(np.int64)
        return Backdrop(np.stack(images), boxes)


def backdrop_of_photos(photos: list[Photo]) -> Backdrop:
    """Return photos as one backdrop.

    One photo, or several of one size, keep their size. Others are cut to the parts that the model
    is given, all of one size.
    """
    first = photos[0].pixels.shape
    alike = all(photo.pixels.shape == first for photo in photos)
    if alike and len(photos) * photos[0].pixels.nbytes <= _MAX_BYTES:
        boxes = np.array([photo.box for photo in photos], np.int64)
        is_whole = bool((boxes == (0, 0, *first[:2])).all())
        images = np.stack([photo.pixels for photo in photos])
        return Backdrop(images, None if is_whole else boxes)
    sides = [(bottom - top, right - left) for _, (top, left, bottom, right) in photos]
    height, width = max(sides)
    scale = min(1.0, _MAX_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    parts = []
    for pixels, (top, left, bottom, right) in photos:
        # Pillow leaves black what lies outside of a picture.
        part = Image.fromarray(pixels).crop((left, top, right, bottom))
        parts.append(np.asarray(part.resize(size, Image.Resampling.BICUBIC)))
    return Backdrop(np.stack(parts), None)


def given_backdrop(pixels: Any, count: int) -> Backdrop:
    """Return the pictures given by the option `pixels`, one for each map.

    Raises
    ------
    ShapeError
        If there are not as many, or they are no pictures.
    DtypeError
        If they are not numbers.
    """
    if are_images(pixels):
        backdrop = backdrop_of_photos(load_photos(pixels))
    else:
        array = np.asarray(pixels)
        if array.dtype.kind not in "biuf":
            raise DtypeError(f"pixels must be numbers from 0 to 255, not of {array.dtype}")
        if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4)):
            array = array[None]
        if array.ndim == 3:
            array = array[..., None]
        if array.ndim != 4 or array.shape[-1] not in (1, 3, 4) or array.size == 0:
            raise ShapeError(
                f"pixels must be (N, height, width, 1 or 3) from 0 to 255, not {np.shape(pixels)}"
            )
        if array.dtype.kind == "f":
            levels = as_pictures(np.nan_to_num(array))
            assert levels is not None  # of 1, 3 or 4 channels
        else:
            levels = np.clip(array, 0, 255).astype(np.uint8)
        backdrop = Backdrop(_as_rgb(levels), None)
    if len(backdrop.images) != count:
        raise ShapeError(f"pixels are {len(backdrop.images)} pictures for {count} images")
    return backdrop


def _as_rgb(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    colours = levels[..., :3]
    return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:3], 3)))


def as_pictures(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8] | None:
    """Return inputs as pictures, (N, H, W, 3); None for those of too many channels to be seen.

    The range of all images, but for a hundredth of the values at either end, tells the units:
    0 to 1, 0 to 255, or units of the model's own, whose range is stretched image by image.

    Parameters
    ----------
    pixels
        (N, H, W, C) real numbers.
    """
    if pixels.shape[-1] not in (1, 3, 4):
        return None
    pixels = pixels[..., :3]
    low, high = map(float, np.percentile(pixels, _UNIT_PERCENTILES))
    brightest = float(pixels.max())
    is_whole = bool((pixels == np.rint(pixels)).all())
    limits: tuple[float, float] | None = None
    if pixels.dtype == np.uint8:
        limits = (0.0, 255.0)
    elif low >= -_TOLERANCE and high <= 1 + 2 * _TOLERANCE and not (is_whole and brightest > 1):
        limits = (0.0, 1.0)
    elif low >= -_TOLERANCE * 255 and brightest >= _LEAST_LIGHT and high <= 255 * (1 + _TOLERANCE):
        limits = (0.0, 255.0)
    levels = np.empty((*pixels.shape[:3], 3), np.uint8)
    # One by one: there may be many, and each takes several times its size on the way.
    for picture, image in zip(levels, pixels, strict=True):
        first, last = limits or map(float, np.percentile(image, _PERCENTILES))
        if not last > first:  # one value next to everywhere
            first, last = 0.0, 255.0
        scaled = (image - first) * (255 / (last - first))
        picture[:] = np.clip(scaled, 0, 255) + 0.5
    return levels
