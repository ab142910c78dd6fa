from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from actgrid.encoding import encode_png, png
from actgrid.errors import ShapeError

PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert checksum == zlib.crc32(kind + body)
        found.append((kind, body))
        at += 12 + length
    return found


@given(
    levels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    palette=st.sampled_from([None, PALETTE]),
    compression=st.sampled_from(png.COMPRESSIONS),
)
def test_pillow_finds_the_same_levels_and_colours(
    levels: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8] | None, compression: str
) -> None:
    opened = Image.open(io.BytesIO(encode_png(levels, palette, compression=compression)))
    opened.load()
    if compression == "fast":
        assert opened.mode == ("L" if palette is None else "P")
    expected = np.repeat(levels[..., None], 3, 2) if palette is None else palette[levels]
    np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), expected)


def test_file_is_indexed_unfiltered_and_whole() -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    found = chunks(encode_png(levels, PALETTE))
    assert [kind for kind, _ in found] == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert found[0][1] == struct.pack(">IIBBBBB", 4, 3, 8, 3, 0, 0, 0)
    assert found[1][1] == PALETTE.tobytes()
    rows = zlib.decompress(found[2][1])
    assert rows == b"\0\0\1\2\3\0\4\5\6\7\0\x08\x09\x0a\x0b"


def test_gray_palette_is_not_stored() -> None:
    gray = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    found = chunks(encode_png(np.zeros((2, 2), np.uint8), gray))
    assert [kind for kind, _ in found] == [b"IHDR", b"IDAT", b"IEND"]
    assert found[0][1][9] == 0  # grayscale


def test_strided_levels_are_encoded() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (9, 20), np.uint8)[::-2, ::3]
    opened = Image.open(io.BytesIO(encode_png(levels)))
    np.testing.assert_array_equal(np.asarray(opened), levels)


def test_large_data_is_split_among_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "_CHUNK_BYTES", 100)
    levels = np.random.default_rng(2).integers(0, 256, (50, 50), np.uint8)
    data = encode_png(levels)
    assert sum(kind == b"IDAT" for kind, _ in chunks(data)) > 10
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), levels)


@pytest.mark.parametrize("shape", [(3,), (0, 4), (4, 0), (2, 2, 3)])
def test_no_picture_is_refused(shape: Any) -> None:
    with pytest.raises(ShapeError, match="levels must be"):
        encode_png(np.zeros(shape, np.uint8))
