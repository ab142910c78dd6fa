"""What every picture in full colour can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.encoding import encode, write_file

__all__ = ["Picture"]


class Picture(ABC):
    """A picture in RGB. All but `to_rgb` follows from that."""

    @abstractmethod
    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Return the picture, (height, width, 3) uint8."""

    def to_image(self) -> Image.Image:
        """Return a Pillow image of mode RGB."""
        return Image.fromarray(self.to_rgb())

    def to_png(self, compression: str = "fast") -> bytes:
        """Return the picture as a PNG file.

        Parameters
        ----------
        compression
            ``"fast"``, ``"small"`` for a smaller file in a multiple of the time, or ``"none"``.

        Raises
        ------
        OptionError
            If `compression` is none of the three. Also a ValueError.
        """
        return b"".join(encode("picture.png", self.to_rgb(), compression=compression))

    def _repr_png_(self) -> bytes:
        return self.to_png()  # what a notebook shows

    def save(self, path: str | Path, **options: Any) -> None:
        """Write the picture to a file, whole or not at all.

        Parameters
        ----------
        path
            Its suffix chooses the format: .png, .webp, .jpg, .tiff or any other of Pillow's.
        options
            For PNG ``compression``, as in `to_png`; anything else is given to Pillow's
            ``Image.save``, such as ``quality=90``.

        Raises
        ------
        OptionError
            If the suffix is of no format that can be written. Also a ValueError.
        OutputError
            If the file cannot be written. Also an OSError.
        """
        write_file(path, *encode(path, self.to_rgb(), **options))
