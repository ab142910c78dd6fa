"""Save pictures to files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from actgrid.encoding import encode, make_folder, write_file

__all__ = ["save_grayscale", "save_rgb"]


def save_grayscale(
    image: npt.NDArray[np.uint8], output_dir: str | Path, output_name: str | Path
) -> None:
    """Save a picture to a file.

    Parameters
    ----------
    image : ndarray
        (height, width) or (height, width, 3) uint8.
    output_dir : str or Path
        Output folder; created if necessary.
    output_name : str or Path
        File name; its suffix decides the format.

    Raises
    ------
    OutputError
        If the file cannot be written. Also an OSError.
    OptionError
        If the format is unknown. Also a ValueError.
    """
    pixels = np.ascontiguousarray(image, np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    path = make_folder(output_dir) / output_name
    write_file(path, *encode(path, pixels))


save_rgb = save_grayscale
