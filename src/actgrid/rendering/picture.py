"""Base class of pictures: conversion to images, arrays and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.encoding import encode, write_file
from actgrid.encoding.png import convert_to_pillow
from actgrid.option_checks import resolve_thread_count

__all__ = ["Picture", "encode_picture"]


class Picture(ABC):
    """Base class of pictures, which can be saved, converted and shown in notebooks.

    A subclass implements `to_rgb`.

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
        """Return the picture as RGB pixels.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """

    def _to_indexed(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
        """Return the pixels of the picture in their most compact form.

        Returns
        -------
        tuple
            Levels (height, width) and their palette, or RGB pixels (height, width, 3) and None.
        """
        return self.to_rgb(), None

    def to_image(self) -> Image.Image:
        """Convert the picture to a Pillow image.

        Returns
        -------
        PIL.Image.Image
            Mode RGB; for levels, mode P with a palette, or mode L for a gray palette.
        """
        return convert_to_pillow(*self._to_indexed())

    def to_png(self, compression: str = "fast", threads: int | None = None) -> bytes:
        """Encode the picture as a PNG file; levels become an indexed or grayscale file.

        Parameters
        ----------
        compression : {"fast", "small", "none"}, default "fast"
            ``"small"`` makes a smaller file in about thirty times the time; ``"none"`` does not
            compress.
        threads : int, optional
            Maximum number of threads that compress a large picture. The file does not depend on
            this number. None: one thread per processor.

        Returns
        -------
        bytes
            The PNG file.

        Raises
        ------
        OptionError
            If an option is invalid. Also a ValueError.
        """
        return b"".join(encode_picture(self, "picture.png", compression, threads))

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        """Return the PNG file that notebooks show, and its alternative text."""
        return self.to_png(), {"alt": repr(self).strip("<>")}

    def save(
        self,
        path: str | Path,
        compression: str = "fast",
        threads: int | None = None,
        **pillow_options: object,
    ) -> None:
        """Write the picture to a file; on an error no partial file is left.

        Parameters
        ----------
        path : str or pathlib.Path
            File to write. The suffix selects the format: .png, .webp, .jpg, .tiff or any other
            format that Pillow writes.
        compression : {"fast", "small", "none"}, default "fast"
            Compression of PNG files, as in `to_png`.
        threads : int, optional
            Number of threads for PNG files, as in `to_png`.
        **pillow_options : object
            Options of Pillow's ``Image.save``, such as ``quality=90``.

        Raises
        ------
        OptionError
            If Pillow cannot write files with this suffix, or an option is invalid. Also a
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
    """Encode a picture as the file that `Picture.save` would write.

    Parameters
    ----------
    picture : Picture
        The picture.
    path : str or pathlib.Path
        File name, of which only the suffix is used.
    compression : {"fast", "small", "none"}, default "fast"
        Compression of PNG files.
    threads : int, optional
        Number of threads for PNG files. None: one thread per processor.
    **pillow_options : object
        Options of Pillow's ``Image.save``.

    Returns
    -------
    list of bytes
        The file in consecutive pieces.

    Examples
    --------
    >>> from actgrid.rendering import encode_picture
    >>> picture = actgrid.render(np.ones((4, 4, 3)))
    >>> b"".join(encode_picture(picture, "ones.png")) == picture.to_png()
    True
    """
    pixels, palette = picture._to_indexed()
    return encode(
        path,
        pixels,
        palette,
        compression=compression,
        threads=resolve_thread_count(threads),
        **pillow_options,
    )
