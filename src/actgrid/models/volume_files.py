"""Read volumes from TIFF and NIfTI files."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.errors import FormatError, ImageError, MissingDependencyError, ShapeError
from actgrid.models.file_checks import check_file, check_size, raise_format_errors
from actgrid.models.image_sources import raise_image_errors

__all__ = ["read_nifti", "read_tiff"]

Volumes = npt.NDArray[np.float32]


def read_tiff(path: Path) -> Volumes:
    """Read the pages of a TIFF file as the slices of a volume.

    Returns
    -------
    numpy.ndarray
        (1, D, H, W, C) float32 with the values of the file. Palette colours become RGB.

    Raises
    ------
    ImageError
        If the file is no TIFF file, is truncated, or is a decompression bomb.
    ShapeError
        If the pages differ in size or channels.
    """
    check_file(path)
    slices: list[Volumes] = []
    with (
        _raise_truncation_errors(path),
        raise_image_errors(path),
        Image.open(path, formats=["TIFF"]) as image,
    ):
        count = getattr(image, "n_frames", 1)
        for position in range(count):
            image.seek(position)
            bands = 3 if image.mode == "P" else len(image.getbands())
            check_size(path, count * image.width * image.height * bands * 4)
            page = image.convert("RGB") if image.mode == "P" else image
            values = np.atleast_3d(np.asarray(page).astype(np.float32))
            if slices and slices[0].shape != values.shape:
                raise ShapeError(
                    f"{path} has pages of different shapes: got {slices[0].shape} for page 0 and "
                    f"{values.shape} for page {position}; expected slices of a volume"
                )
            slices.append(values)
    return np.stack(slices)[None]


@contextmanager
def _raise_truncation_errors(path: Path) -> Iterator[None]:
    """Raise ImageError where Pillow would only warn, and leave out the missing pages."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Corrupt EXIF data|Truncated File Read", UserWarning)
        try:
            yield
        except UserWarning as warning:
            raise ImageError(f"{path} is truncated or broken: {warning}") from warning


def read_nifti(path: Path, channels: int | None) -> Volumes:
    """Read the volume, or the volumes, of a NIfTI file.

    The axes stay in the order of the file, which is that of arrays for training that nibabel reads.

    Parameters
    ----------
    channels
        Number of channels that the model takes. It decides whether the fourth axis of the file is
        that of channels or, for 1 channel, that of several volumes. None: any number.

    Returns
    -------
    numpy.ndarray
        (N, D, H, W, C) float32 with the scale and offset of the file's header applied.

    Raises
    ------
    FormatError
        If the file is no NIfTI file, is truncated, or has complex numbers or colours.
    MissingDependencyError
        If nibabel is not installed.
    ShapeError
        If the file has fewer than 3 or more than 4 axes.
    """
    size = check_file(path)
    nibabel = _import_nibabel(path)
    with raise_format_errors(path, "a NIfTI file of real numbers"):
        image = nibabel.load(path)
        dtype = image.get_data_dtype()
        if not isinstance(image, nibabel.Nifti1Pair) or dtype.kind not in "iuf":
            raise FormatError(
                f"{path} holds {type(image).__name__} of dtype {dtype}: expected a NIfTI file of "
                "real numbers"
            )
        shape = tuple(image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) not in (3, 4) or 0 in shape:
            raise ShapeError(
                f"{path} has the shape {image.shape}: expected (x, y, z) or (x, y, z, channels)"
            )
        check_size(path, math.prod(shape) * 4)
        if path.suffix.lower() == ".nii" and math.prod(shape) * dtype.itemsize > size:
            raise FormatError(f"{path} is truncated: its header declares the shape {shape}")
        values = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(*shape[:3], -1)
    volumes = np.moveaxis(values, -1, 0)[..., None] if channels == 1 else values[None]
    return np.ascontiguousarray(volumes)


def _import_nibabel(path: Path) -> Any:
    try:
        return importlib.import_module("nibabel")
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} needs nibabel, which is not installed ({error}); to install it, pip install "
            "'actgrid[volumes]'"
        ) from error
