"""Read audio from .wav files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import FormatError
from actgrid.models.file_checks import check_file, check_size, raise_format_errors

__all__ = ["read_wave"]

Samples = npt.NDArray[np.float32]

_EXPECTED = (
    "a .wav file of 8, 16, 24 or 32-bit PCM or of 32 or 64-bit floats, such as ffmpeg writes with "
    "-c:a pcm_s16le"
)
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# Encodings that can be read: format tag and bits of a value.
_ENCODINGS = frozenset(
    [*((_PCM, bits) for bits in (8, 16, 24, 32)), *((_FLOAT, bits) for bits in (32, 64))]
)
# Length of the data in files that were written to a pipe.
_UNKNOWN_LENGTH = 0xFFFFFFFF


class _Format(NamedTuple):
    """Record of the format of audio data: encoding, channels and bits of a value."""

    tag: int
    channels: int
    bits: int


def read_wave(path: Path) -> Samples:
    """Read the audio of a .wav file.

    The module `wave` of the standard library reads no floats, and before Python 3.12 no files of
    the format WAVE_FORMAT_EXTENSIBLE, which recorders use for 24-bit and multichannel audio.

    Returns
    -------
    numpy.ndarray
        (T, channels) float32. Integers are scaled to the range -1 to 1; floats are unchanged.

    Raises
    ------
    FormatError
        If the file is no .wav file, is truncated, or has another encoding.
    """
    check_file(path)
    with raise_format_errors(path, _EXPECTED):
        content = memoryview(path.read_bytes())
        audio_format, data = _read_chunks(path, content)
        if (audio_format.tag, audio_format.bits) not in _ENCODINGS or not audio_format.channels:
            raise FormatError(
                f"{path} has {audio_format.channels} channels of {audio_format.bits} bits in "
                f"format {audio_format.tag:#x}: expected {_EXPECTED}"
            )
        frame_size = audio_format.channels * audio_format.bits // 8
        frame_count, remainder = divmod(len(data), frame_size)
        if remainder or not frame_count:
            raise FormatError(
                f"{path} is truncated or empty: got {len(data)} bytes of audio; expected a "
                f"multiple of {frame_size}"
            )
        check_size(path, frame_count * audio_format.channels * 4)
        return _decode(data, audio_format).reshape(frame_count, audio_format.channels)


def _read_chunks(path: Path, content: memoryview) -> tuple[_Format, memoryview]:
    """Return the format and the data of a RIFF file."""
    if bytes(content[:4]) != b"RIFF" or bytes(content[8:12]) != b"WAVE":
        raise FormatError(f"{path} is no RIFF file of audio: expected {_EXPECTED}")
    audio_format: _Format | None = None
    position = 12
    while position + 8 <= len(content):
        name = bytes(content[position : position + 4])
        (length,) = struct.unpack_from("<I", content, position + 4)
        chunk = content[position + 8 : position + 8 + length]
        if name == b"data":
            if audio_format is None:
                raise FormatError(f"{path} has no format before its data: expected {_EXPECTED}")
            if len(chunk) < length != _UNKNOWN_LENGTH:
                raise FormatError(
                    f"{path} is truncated: got {len(chunk)} bytes of audio; expected {length}"
                )
            if length == _UNKNOWN_LENGTH:  # the file may end within a frame
                frame_size = max(audio_format.channels * audio_format.bits // 8, 1)
                chunk = chunk[: len(chunk) // frame_size * frame_size]
            return audio_format, chunk
        if name == b"fmt ":
            tag, channels, _, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
            if tag == _EXTENSIBLE:  # the format tag begins the GUID of the encoding
                (tag,) = struct.unpack_from("<H", chunk, 24)
            audio_format = _Format(tag, channels, bits)
        position += 8 + length + length % 2
    raise FormatError(f"{path} is truncated: got no audio data; expected {_EXPECTED}")


def _decode(data: memoryview, audio_format: _Format) -> Samples:
    """Convert audio data to values from -1 to 1."""
    if audio_format.tag == _FLOAT:
        return np.frombuffer(data, f"<f{audio_format.bits // 8}").astype(np.float32)
    if audio_format.bits == 8:  # 8-bit values are unsigned
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)
    if audio_format.bits == 24:
        padded = np.zeros((len(data) // 3, 4), np.uint8)  # 24-bit values as the high bytes of 32
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        values = padded.view("<i4")[:, 0].astype(np.float64) / 2**31
    else:
        values = np.frombuffer(data, f"<i{audio_format.bits // 8}").astype(np.float64)
        values /= 2 ** (audio_format.bits - 1)
    return values.astype(np.float32)
