"""The base class of pictures: conversion to images, arrays and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.encoding import encode, write_file
from actgrid.encoding.png import to_pillow
from actgrid.option_checks import thread_count

__all__ = ["Picture", "encode_picture"]


class Picture(ABC):
    """A picture: `to_rgb` makes it, and all else follows from that.

    Examples
    --------
    >>> picture = actgrid.render(np.ones((4, 4, 3)))
    >>> picture.to_rgb().shape
    (9, 9, 3)
    >>> picture.to_image().size
    (9, 9)
    >>> picture.save("ones.png")
    """

    @abstractmethod
    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Return the picture, (height, width, 3) uint8."""

    def _indexed(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
        """Return the pixels and the palette of levels, None where the pixels are RGB."""
        return self.to_rgb(), None

    def to_image(self) -> Image.Image:
        """Return a Pillow image: mode RGB; of levels mode P with a palette, or L for gray."""
        return to_pillow(*self._indexed())

    def to_png(self, compression: str = "fast", threads: int | None = None) -> bytes:
        """Return the picture as a PNG file; levels make an indexed file, or a grayscale one.

        Parameters
        ----------
        compression
            ``"fast"``; ``"small"`` for a smaller file in about thirty times the time; ``"none"``
            for a file that is not compressed.
        threads
            Maximum number of threads that deflate a large picture; None: one for each processor.
            The file does not depend on it.

        Raises
        ------
        OptionError
            If an option cannot be used. Also a ValueError.
        """
        return b"".join(encode_picture(self, "picture.png", compression, threads))

    def _repr_png_(self) -> bytes:
        return self.to_png()  # what a notebook shows

    def save(
        self,
        path: str | Path,
        compression: str = "fast",
        threads: int | None = None,
        **pillow_options: object,
    ) -> None:
        """Write the picture to a file, whole or not at all.

        Parameters
        ----------
        path
            Its suffix chooses the format: .png, .webp, .jpg, .tiff or any other that Pillow writes.
        compression, threads
            For PNG, as in `to_png`.
        **pillow_options
            Given to Pillow's ``Image.save``, such as ``quality=90``.

        Raises
        ------
        OptionError
            If the suffix is of no format that can be written, or an option cannot be used. Also a
            ValueError.
        OutputError
            If the file cannot be written. Also an OSError.
        """
        write_file(path, *encode_picture(self, path, compression, threads, **pillow_options))


def encode_picture(
    picture: Picture,
    path: str | Path,
    compression: str = "fast",
    threads: int | None = None,
    **pillow_options: object,
) -> list[bytes]:
    """Return the file that `Picture.save` would write, in pieces."""
    pixels, palette = picture._indexed()
    return encode(
        path,
        pixels,
        palette,
        compression=compression,
        threads=thread_count(threads),
        **pillow_options,
    )
