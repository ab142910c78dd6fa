"""Encode animated WebP and GIF files from frames that are encoded once."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding.images import encode
from actgrid.errors import OptionError, ShapeError

__all__ = ["ANIMATION_FORMATS", "Animation", "check_animation"]

Levels = npt.NDArray[np.uint8]

_MAX_LOOPS = 0xFFFF


@dataclass(frozen=True)
class _Format:
    """Record of a file format of animations.

    Attributes
    ----------
    options
        Pillow options to encode a frame.
    extract_frame
        Function that extracts the data of a frame from the file of one picture.
    assemble
        Function that returns the file in pieces, given (height, width), the palette, frames with
        their durations in milliseconds, and the number of loops (0: endless).
    max_milliseconds
        Longest duration of a frame.
    """

    options: dict[str, Any]
    extract_frame: Callable[[bytes], bytes]
    assemble: Callable[[tuple[int, int], Levels, list[tuple[bytes, int]], int], list[bytes]]
    max_milliseconds: int


class Animation:
    """An animated picture: frames of one size, as levels with one palette.

    Pillow would encode every frame again for each file, drop repeated frames, and choose colours.
    Here a frame is encoded losslessly once, when it is appended, and the file can be made at any
    time.
    Decoded pixels are exactly the colours of the palette.

    Parameters
    ----------
    suffix : {".webp", ".gif"}
        File suffix of the format.
    palette : numpy.ndarray
        (256, 3) uint8 RGB colours of the levels.
    frame_milliseconds : int, default 200
        Duration of each frame. GIF rounds it to hundredths of a second.
    last_frame_milliseconds : int, optional
        Duration of the last frame in milliseconds. None: like the other frames.
    loop : int, default 0
        How often the animation is played; 0 for endless.

    Raises
    ------
    OptionError
        If the suffix is unknown, or a duration or `loop` is out of range. Also a ValueError.

    Notes
    -----
    The formats follow the GIF89a specification with Netscape's looping extension, and RFC 9649.

    References
    ----------
    CompuServe, 1990, Graphics Interchange Format, Version 89a.

    Zern, Massimino and Alakuijala, 2024, WebP Image Format, RFC 9649.

    Examples
    --------
    >>> from actgrid.encoding import Animation, write_file
    >>> from actgrid.rendering import palette
    >>> animation = Animation(".webp", palette("viridis"), frame_milliseconds=100)
    >>> for level in (0, 128, 255):
    ...     animation.append(np.full((8, 8), level, np.uint8))
    >>> len(animation)
    3
    >>> write_file("animation.webp", *animation.encode_pieces())
    """

    def __init__(
        self,
        suffix: str,
        palette: Levels,
        *,
        frame_milliseconds: int = 200,
        last_frame_milliseconds: int | None = None,
        loop: int = 0,
    ) -> None:
        self._format = check_animation(suffix, frame_milliseconds, last_frame_milliseconds, loop)
        self._suffix = suffix
        self._palette = palette
        self._frame_milliseconds = frame_milliseconds
        self._last_frame_milliseconds = last_frame_milliseconds
        self._loop = loop
        self._size: tuple[int, int] | None = None
        self._frames: list[bytes] = []

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, levels: Levels) -> None:
        """Encode a frame and append it to the animation.

        Parameters
        ----------
        levels : numpy.ndarray
            The frame, (height, width) uint8.

        Raises
        ------
        ShapeError
            If the frame differs in size from the previous frames. Also a ValueError.
        OptionError
            If the frame is too large for the format. Also a ValueError.
        """
        height, width = levels.shape
        self._check_size((height, width))
        pieces = encode(f"frame{self._suffix}", levels, self._palette, **self._format.options)
        self._frames.append(self._format.extract_frame(b"".join(pieces)))
        self._size = height, width

    def extend(self, other: Animation) -> None:
        """Append the frames of another animation with the same palette and format.

        Parameters
        ----------
        other : Animation
            The other animation.

        Raises
        ------
        ShapeError
            If the frames differ in size. Also a ValueError.
        """
        self._check_size(other._size)
        self._size = other._size
        self._frames += other._frames

    def encode_pieces(self) -> list[bytes]:
        """Return the animation file with all frames so far.

        Returns
        -------
        list of bytes
            The file in consecutive pieces.

        Raises
        ------
        ShapeError
            If there are no frames. Also a ValueError.
        """
        if self._size is None:
            raise ShapeError("the animation has no frames; expected at least one")
        durations = [self._frame_milliseconds] * len(self)
        if self._last_frame_milliseconds is not None:
            durations[-1] = self._last_frame_milliseconds
        timed_frames = list(zip(self._frames, durations, strict=True))
        return self._format.assemble(self._size, self._palette, timed_frames, self._loop)

    def _check_size(self, size: tuple[int, int] | None) -> None:
        if self._size not in (None, size):
            raise ShapeError(
                f"frames must have the size {self._size} of the first frame, not {size}"
            )


def check_animation(
    suffix: str, frame_milliseconds: int, last_frame_milliseconds: int | None, loop: int
) -> _Format:
    """Check the options of `Animation`, and return the format of a file suffix.

    Parameters
    ----------
    suffix : str
        File suffix, ``".webp"`` or ``".gif"``.
    frame_milliseconds : int
        Duration of each frame.
    last_frame_milliseconds : int or None
        Duration of the last frame; None: like the other frames.
    loop : int
        How often the animation is played; 0 for endless.

    Returns
    -------
    object
        The format, as used by `Animation`.

    Raises
    ------
    OptionError
        If an option is invalid. Also a ValueError.

    Examples
    --------
    >>> from actgrid.encoding import check_animation
    >>> check_animation(".webp", 200, None, 0).max_milliseconds
    16777215
    """
    file_format = ANIMATION_FORMATS.get(suffix)
    if file_format is None:
        raise OptionError(f"suffix must be {' or '.join(ANIMATION_FORMATS)}, not {suffix!r}")
    durations = {
        "frame_milliseconds": frame_milliseconds,
        "last_frame_milliseconds": frame_milliseconds
        if last_frame_milliseconds is None
        else last_frame_milliseconds,
    }
    ranges = {
        name: (duration, 1, file_format.max_milliseconds) for name, duration in durations.items()
    }
    for name, (value, low, high) in (ranges | {"loop": (loop, 0, _MAX_LOOPS)}).items():
        if not hasattr(value, "__index__") or not low <= value <= high:
            raise OptionError(
                f"{name} must be an integer from {low} to {high:,} for {suffix}, not {value!r}"
            )
    return file_format


# --- GIF ---

_GIF_SIZE = struct.Struct("<6sHHBBB")  # signature, width, height, flags, background, aspect
_PALETTE_FOLLOWS, _ALL_COLOURS = 0x80, 7  # 2 ** (7 + 1) colours
_EXTENSION, _IMAGE, _END = 0x21, 0x2C, 0x3B
_IMAGE_SIZE = struct.Struct("<BHHHHB")  # introducer, left, top, width, height, flags
_KEEP = 1 << 2  # a frame stays until the next frame replaces it


def _count_palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & _ALL_COLOURS) + 1) if flags & _PALETTE_FOLLOWS else 0


def _extract_gif_image(file: bytes) -> bytes:
    """Extract the image of a GIF file with one frame, for an animation.

    Returns
    -------
    bytes
        Image descriptor and image data, without the palette of the frame.
    """
    *_, flags, _, _ = _GIF_SIZE.unpack_from(file)
    position = _GIF_SIZE.size + _count_palette_bytes(flags)
    while file[position] == _EXTENSION:
        position = _skip_blocks(file, position + 2)
    introducer, *box, flags = _IMAGE_SIZE.unpack_from(file, position)
    # The animation has one palette, which the data index; the palette of the frame is dropped.
    start = position + _IMAGE_SIZE.size + _count_palette_bytes(flags)
    descriptor = _IMAGE_SIZE.pack(introducer, *box, flags & ~(_PALETTE_FOLLOWS | _ALL_COLOURS))
    return descriptor + file[start : _skip_blocks(file, start + 1)]


def _skip_blocks(file: bytes, position: int) -> int:
    """Return the position in a GIF file after a sequence of data blocks.

    Parameters
    ----------
    position
        Start of the first block.
    """
    while length := file[position]:
        position += 1 + length
    return position + 1


def _assemble_gif(
    size: tuple[int, int], palette: Levels, frames: list[tuple[bytes, int]], loop: int
) -> list[bytes]:
    height, width = size
    flags = _PALETTE_FOLLOWS | _ALL_COLOURS << 4 | _ALL_COLOURS
    pieces = [_GIF_SIZE.pack(b"GIF89a", width, height, flags, 0, 0), palette.tobytes()]
    if loop != 1:
        # The Netscape extension counts the repetitions after the first time.
        repetitions = max(loop - 1, 0)
        pieces.append(b"\x21\xff\x0bNETSCAPE2.0" + struct.pack("<BBHB", 3, 1, repetitions, 0))
    for data, milliseconds in frames:
        hundredths = max(1, round(milliseconds / 10))
        pieces += [struct.pack("<BBBBHBB", _EXTENSION, 0xF9, 4, _KEEP, hundredths, 0, 0), data]
    return [*pieces, bytes([_END])]


# --- WebP ---

_ANIMATED = 1 << 1
_NO_BLENDING = 1 << 1  # a frame replaces the previous pixels


def _pack_24_bits(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(3, "little") for number in numbers)


def _make_chunk(kind: bytes, *data: bytes) -> list[bytes]:
    """Return the parts of a RIFF chunk: its header, its data and a padding byte.

    The padding byte follows if the data have an odd length.
    """
    length = sum(map(len, data))
    return [kind + struct.pack("<I", length), *data, *([b"\0"] if length % 2 else [])]


def _extract_webp_chunks(file: bytes) -> bytes:
    """Return the content of a WebP file of one picture after the RIFF header."""
    return file[len(b"RIFF----WEBP") :]


def _assemble_webp(
    size: tuple[int, int], palette: Levels, frames: list[tuple[bytes, int]], loop: int
) -> list[bytes]:
    height, width = size

    def chunks() -> Iterator[bytes]:
        yield b"WEBP"
        yield from _make_chunk(
            b"VP8X", bytes([_ANIMATED, 0, 0, 0]), _pack_24_bits(width - 1, height - 1)
        )
        yield from _make_chunk(b"ANIM", bytes(4), struct.pack("<H", loop))
        for data, milliseconds in frames:
            frame_header = _pack_24_bits(0, 0, width - 1, height - 1, milliseconds) + bytes(
                [_NO_BLENDING]
            )
            yield from _make_chunk(b"ANMF", frame_header, data)

    return _make_chunk(b"RIFF", *chunks())


ANIMATION_FORMATS = {
    # Other settings save a few percent in several times the time.
    ".webp": _Format(
        {"lossless": True, "method": 2, "quality": 0},
        _extract_webp_chunks,
        _assemble_webp,
        (1 << 24) - 1,
    ),
    ".gif": _Format(
        {"optimize": False, "interlace": 0}, _extract_gif_image, _assemble_gif, 10 * 0xFFFF
    ),
}
