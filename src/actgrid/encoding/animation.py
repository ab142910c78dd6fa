"""Animated WebP and GIF, put together of frames that are encoded once."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding.images import encode
from actgrid.errors import OptionError, ShapeError

__all__ = ["ANIMATIONS", "Animation", "check_animation"]

Levels = npt.NDArray[np.uint8]

_MOST_LOOPS = 0xFFFF


@dataclass(frozen=True)
class _Format:
    """A file format of animations.

    Attributes
    ----------
    options
        For Pillow, which encodes a frame.
    data
        Takes from the file of one frame what an animation has of it.
    file
        Returns the pieces of the file: of (height, width), the palette, frames with the
        milliseconds that each is shown, and how often they are played, 0 for ever.
    longest
        Milliseconds that a frame can be shown.
    """

    options: dict[str, Any]
    data: Callable[[bytes], bytes]
    file: Callable[[tuple[int, int], Levels, list[tuple[bytes, int]], int], list[bytes]]
    longest: int


class Animation:
    """A picture that moves: frames of one size, of levels and one palette.

    Pillow would encode every frame anew for each file, drop those that equal the one before, and
    choose colours. Here a frame is encoded when it is appended, without loss, and every file that
    is made is whole: decoded pixels are those of the palette exactly.

    Parameters
    ----------
    suffix
        ``".webp"`` or ``".gif"``.
    palette
        (256, 3) uint8 RGB of each level.
    milliseconds
        How long each frame is shown. GIF counts in hundredths of a second.
    hold
        How long the last one is; None: like the others.
    loop
        How often it is played; 0 for ever.

    Raises
    ------
    OptionError
        If there is no such format, or a time or `loop` is out of its range. Also a ValueError.

    Notes
    -----
    The formats are those of *GIF89a* (CompuServe 1990), with Netscape's extension to loop, and of
    *WebP* (RFC 9649).

    Examples
    --------
    >>> movie = Animation(".webp", palette)
    >>> for levels in pictures:
    ...     movie.append(levels)
    >>> write_file("movie.webp", *movie.pieces())
    """

    def __init__(
        self,
        suffix: str,
        palette: Levels,
        *,
        milliseconds: int = 200,
        hold: int | None = None,
        loop: int = 0,
    ) -> None:
        self._format = check_animation(suffix, milliseconds, hold, loop)
        self._suffix = suffix
        self._palette = palette
        self._milliseconds, self._hold, self._loop = milliseconds, hold, loop
        self._size: tuple[int, int] | None = None
        self._frames: list[bytes] = []

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, levels: Levels) -> None:
        """Encode a frame, (height, width) uint8, and put it at the end.

        Raises
        ------
        ShapeError
            If it has another size than the frames before. Also a ValueError.
        OptionError
            If it is too large for the format. Also a ValueError.
        """
        height, width = levels.shape
        self._check_size((height, width))
        picture = encode(f"frame{self._suffix}", levels, self._palette, **self._format.options)
        self._frames.append(self._format.data(b"".join(picture)))
        self._size = height, width

    def extend(self, other: Animation) -> None:
        """Put the frames of another animation, which has the same palette and format, at the end.

        Raises
        ------
        ShapeError
            If they have another size. Also a ValueError.
        """
        self._check_size(other._size)
        self._size = other._size
        self._frames += other._frames

    def pieces(self) -> list[bytes]:
        """Return the file of all frames so far, in pieces.

        Raises
        ------
        ShapeError
            If there is none. Also a ValueError.
        """
        if self._size is None:
            raise ShapeError("an animation needs a frame at least")
        times = [self._milliseconds] * len(self)
        if self._hold is not None:
            times[-1] = self._hold
        shown = list(zip(self._frames, times, strict=True))
        return self._format.file(self._size, self._palette, shown, self._loop)

    def _check_size(self, size: tuple[int, int] | None) -> None:
        if self._size not in (None, size):
            raise ShapeError(f"the frames are of {self._size}, not of {size}")


def check_animation(suffix: str, milliseconds: int, hold: int | None, loop: int) -> _Format:
    """Return the format of a suffix; raise what `Animation` would for these options."""
    found = ANIMATIONS.get(suffix)
    if found is None:
        raise OptionError(f"animations are {' or '.join(ANIMATIONS)}, not {suffix!r}")
    times = {"milliseconds": milliseconds, "hold": milliseconds if hold is None else hold}
    ranges = {name: (time, 1, found.longest) for name, time in times.items()}
    for name, (value, least, most) in (ranges | {"loop": (loop, 0, _MOST_LOOPS)}).items():
        if not hasattr(value, "__index__") or not least <= value <= most:
            raise OptionError(
                f"{name} must be an integer from {least} to {most:,} for {suffix}, not {value!r}"
            )
    return found


# --- GIF ---

_GIF_SIZE = struct.Struct("<6sHHBBB")  # signature, width, height, flags, background, aspect
_PALETTE_FOLLOWS, _ALL_COLOURS = 0x80, 7  # 2 ** (7 + 1) of them
_EXTENSION, _IMAGE, _END = 0x21, 0x2C, 0x3B
_IMAGE_SIZE = struct.Struct("<BHHHHB")  # introducer, left, top, width, height, flags
_KEEP = 1 << 2  # a frame stays until the next one, which covers it


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & _ALL_COLOURS) + 1) if flags & _PALETTE_FOLLOWS else 0


def _gif_data(file: bytes) -> bytes:
    """Return the image of a GIF of one: its descriptor and data, without a palette."""
    *_, flags, _, _ = _GIF_SIZE.unpack_from(file)
    place = _GIF_SIZE.size + _palette_bytes(flags)
    while file[place] == _EXTENSION:
        place = _after_blocks(file, place + 2)
    introducer, *box, flags = _IMAGE_SIZE.unpack_from(file, place)
    # The one palette is the animation's, of which the data are levels.
    start = place + _IMAGE_SIZE.size + _palette_bytes(flags)
    descriptor = _IMAGE_SIZE.pack(introducer, *box, flags & ~(_PALETTE_FOLLOWS | _ALL_COLOURS))
    return descriptor + file[start : _after_blocks(file, start + 1)]


def _after_blocks(file: bytes, place: int) -> int:
    """Return where blocks end that begin here, the last of which is empty."""
    while length := file[place]:
        place += 1 + length
    return place + 1


def _gif(
    size: tuple[int, int], palette: Levels, frames: list[tuple[bytes, int]], loop: int
) -> list[bytes]:
    height, width = size
    flags = _PALETTE_FOLLOWS | _ALL_COLOURS << 4 | _ALL_COLOURS
    pieces = [_GIF_SIZE.pack(b"GIF89a", width, height, flags, 0, 0), palette.tobytes()]
    if loop != 1:
        # Netscape counts what follows the first time.
        again = max(loop - 1, 0)
        pieces.append(b"\x21\xff\x0bNETSCAPE2.0" + struct.pack("<BBHB", 3, 1, again, 0))
    for data, milliseconds in frames:
        hundredths = max(1, round(milliseconds / 10))
        pieces += [struct.pack("<BBBBHBB", _EXTENSION, 0xF9, 4, _KEEP, hundredths, 0, 0), data]
    return [*pieces, bytes([_END])]


# --- WebP ---

_ANIMATED = 1 << 1
_NO_BLENDING = 1 << 1  # a frame replaces what is there


def _24_bits(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(3, "little") for number in numbers)


def _chunk(kind: bytes, *data: bytes) -> list[bytes]:
    """Return a chunk, whose data are padded to an even length."""
    length = sum(map(len, data))
    return [kind + struct.pack("<I", length), *data, *([b"\0"] if length % 2 else [])]


def _webp_data(file: bytes) -> bytes:
    """Return the chunks of a WebP file of one picture without metadata: its data alone."""
    return file[len(b"RIFF----WEBP") :]


def _webp(
    size: tuple[int, int], palette: Levels, frames: list[tuple[bytes, int]], loop: int
) -> list[bytes]:
    height, width = size

    def chunks() -> Iterator[bytes]:
        yield b"WEBP"
        yield from _chunk(b"VP8X", bytes([_ANIMATED, 0, 0, 0]), _24_bits(width - 1, height - 1))
        yield from _chunk(b"ANIM", bytes(4), struct.pack("<H", loop))
        for data, milliseconds in frames:
            shown = _24_bits(0, 0, width - 1, height - 1, milliseconds) + bytes([_NO_BLENDING])
            yield from _chunk(b"ANMF", shown, data)

    return _chunk(b"RIFF", *chunks())


ANIMATIONS = {
    # Searching longer for a few percent would take several times as long.
    ".webp": _Format(
        {"lossless": True, "method": 2, "quality": 0}, _webp_data, _webp, (1 << 24) - 1
    ),
    ".gif": _Format({"optimize": False, "interlace": 0}, _gif_data, _gif, 10 * 0xFFFF),
}
