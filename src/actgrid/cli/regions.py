"""Read the options `--masks` and `--boxes` of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actgrid.errors import OptionError, ShapeError
from actgrid.models.array_files import read_npy
from actgrid.models.images import load_photos

__all__ = ["parse_boxes", "read_masks"]


def parse_boxes(texts: Sequence[str] | None) -> list[tuple[float, ...]] | None:
    """Parse boxes such as ``"10,20,90,120"``: top, left, bottom and right.

    Returns
    -------
    list or None
        A box for each text; None without boxes.

    Raises
    ------
    OptionError
        If a text is not four numbers.
    """
    if not texts:
        return None
    boxes: list[tuple[float, ...]] = []
    for text in texts:
        try:
            box: tuple[float, ...] = tuple(float(number) for number in text.split(","))
        except ValueError:
            box = ()
        if len(box) != 4:
            raise OptionError(
                f"--boxes must be top,left,bottom,right, such as 10,20,90,120, not {text!r}"
            )
        boxes.append(box)
    return boxes


def read_masks(files: Sequence[str] | None) -> Any:
    """Read masks from images, nonzero in the object, or .npy files.

    Returns
    -------
    ndarray or None
        (masks, height, width): one for each file, or for each mask in a .npy file. None without
        files.

    Raises
    ------
    FormatError, MissingFileError
        If a file cannot be read.
    ShapeError
        If the masks differ in size.
    """
    if not files:
        return None
    masks: list[Any] = []
    for file in files:
        if Path(file).suffix.lower() == ".npy":
            array = read_npy(Path(file))
            masks += list(array) if array.ndim > 2 else [array]
        else:
            (photo,) = load_photos(file)
            masks.append(photo.pixels.any(-1))
    shapes = {np.shape(mask) for mask in masks}
    if len(shapes) > 1:
        raise ShapeError(f"--masks must be of one size: got {', '.join(map(str, sorted(shapes)))}")
    return np.stack(masks)
