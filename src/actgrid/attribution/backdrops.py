"""Backdrops: the pictures that attribution maps are drawn over."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.errors import DtypeError, ShapeError
from actgrid.models.image_sources import are_images
from actgrid.models.images import Photo, load_photos
from actgrid.rendering.input_pictures import to_pictures

__all__ = ["Backdrop", "make_backdrop", "make_photo_backdrop"]

# Photos of one size keep that size up to this total number of bytes, and are shrunk beyond it.
_MAX_BYTES = 512 << 20
# Longest side of photos of different sizes after they are resized to a common size.
_MAX_SIDE = 1024


class Backdrop(NamedTuple):
    """Pictures that attribution maps are drawn over.

    Attributes
    ----------
    images
        (N, height, width, 3) uint8 RGB pixels.
    boxes
        (N, 4) int64: top, left, bottom and right of the part of each picture that its map covers;
        None: the maps cover the whole pictures.
    """

    images: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.int64] | None

    def select(self, indices: list[int]) -> Backdrop:
        """Return a `Backdrop` of the pictures at the given indices, which may repeat."""
        if indices == list(range(len(self.images))):
            return self
        return Backdrop(self.images[indices], None if self.boxes is None else self.boxes[indices])

    def shrink(self, max_side: int) -> Backdrop:
        """Return a `Backdrop` with pictures reduced to at most `max_side` pixels a side."""
        height, width = self.images.shape[1:3]
        scale = max_side / max(height, width)
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


def make_photo_backdrop(photos: list[Photo]) -> Backdrop:
    """Combine photos into one backdrop.

    Photos of one size keep it. Photos of different sizes are cropped to the parts that the model
    sees, and resized to a common size.
    """
    first = photos[0].pixels.shape
    have_one_size = all(photo.pixels.shape == first for photo in photos)
    if have_one_size and len(photos) * photos[0].pixels.nbytes <= _MAX_BYTES:
        boxes = np.array([photo.box for photo in photos], np.int64)
        cover_all = bool((boxes == (0, 0, *first[:2])).all())
        images = np.stack([photo.pixels for photo in photos])
        return Backdrop(images, None if cover_all else boxes)
    sides = [(bottom - top, right - left) for _, (top, left, bottom, right) in photos]
    height, width = max(sides)
    scale = min(1.0, _MAX_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    parts = []
    for pixels, (top, left, bottom, right) in photos:
        # Pillow fills the area outside of the photo with black.
        part = Image.fromarray(pixels).crop((left, top, right, bottom))
        parts.append(np.asarray(part.resize(size, Image.Resampling.BICUBIC)))
    return Backdrop(np.stack(parts), None)


def make_backdrop(pixels: Any, count: int) -> Backdrop:
    """Convert the option `pixels` to a backdrop with one picture for each image.

    Raises
    ------
    ShapeError
        If the number of pictures is not `count`, or the array is not shaped like pictures.
    DtypeError
        If the array is not numeric.
    """
    if are_images(pixels):
        backdrop = make_photo_backdrop(load_photos(pixels))
    else:
        array = np.asarray(pixels)
        if array.dtype.kind not in "biuf":
            raise DtypeError(f"pixels must be numbers from 0 to 255: got dtype {array.dtype}")
        if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4)):
            array = array[None]
        if array.ndim == 3:
            array = array[..., None]
        if array.ndim != 4 or array.shape[-1] not in (1, 3, 4) or array.size == 0:
            raise ShapeError(
                "pixels must have the shape (N, height, width, 1 or 3), with values from 0 to 255: "
                f"got {np.shape(pixels)}"
            )
        if array.dtype.kind == "f":
            levels = to_pictures(np.nan_to_num(array))
            assert levels is not None  # arrays of 1, 3 or 4 channels are always converted
        else:
            levels = np.clip(array, 0, 255).astype(np.uint8)
        backdrop = Backdrop(_to_rgb(levels), None)
    if len(backdrop.images) != count:
        raise ShapeError(
            f"pixels must have one picture for each image: got {len(backdrop.images)} pictures for "
            f"{count} images"
        )
    return backdrop


def _to_rgb(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    colours = levels[..., :3]
    return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:3], 3)))
