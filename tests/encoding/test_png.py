"""Tests of `actgrid.encoding.png`."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from actgrid import _core
from actgrid.encoding import encode_png, make_blank_levels, png
from actgrid.errors import ShapeError

PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)


@contextmanager
def use_variant(variant: str) -> Iterator[None]:
    """Select a variant of the native core in the ``with`` block."""
    fastest = _core.simd_variant()
    _core.use_simd_variant(variant)
    try:
        yield
    finally:
        _core.use_simd_variant(fastest)


def parse_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, position = [], 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack(">I", data[position + 8 + length : position + 12 + length])
        assert checksum == zlib.crc32(kind + body)
        chunks.append((kind, body))
        position += 12 + length
    return chunks


@given(
    levels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    palette=st.sampled_from([None, PALETTE]),
    compression=st.sampled_from(["fast", "small", "none"]),
)
def test_pillow_decodes_equal_levels_and_colours(
    levels: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8] | None, compression: str
) -> None:
    opened = Image.open(io.BytesIO(encode_png(levels, palette, compression=compression)))
    opened.load()
    if compression != "small":
        assert opened.mode == ("L" if palette is None else "P")
    expected = np.repeat(levels[..., None], 3, 2) if palette is None else palette[levels]
    np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), expected)


def read_rows(data: bytes) -> bytes:
    """Return the decompressed rows of a PNG file, each after its filter byte."""
    return zlib.decompress(b"".join(body for kind, body in parse_chunks(data) if kind == b"IDAT"))


@pytest.mark.parametrize("compression", ["fast", "none"])
def test_file_has_expected_chunks(compression: str) -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) ** 2
    data = encode_png(levels, PALETTE, compression=compression)
    chunks = parse_chunks(data)
    assert {kind: None for kind, _ in chunks} == dict.fromkeys([b"IHDR", b"PLTE", b"IDAT", b"IEND"])
    assert chunks[0][1] == struct.pack(">IIBBBBB", 4, 3, 8, 3, 0, 0, 0)
    assert chunks[1][1] == PALETTE.tobytes()
    assert read_rows(data) == b"\0\0\1\4\x09\0\x10\x19\x24\x31\0\x40\x51\x64\x79"


def test_gray_palette_is_not_stored() -> None:
    gray = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    chunks = parse_chunks(encode_png(np.zeros((2, 2), np.uint8), gray))
    assert b"PLTE" not in dict(chunks)
    assert chunks[0][1][9] == 0  # grayscale


def test_rising_levels_are_filtered() -> None:
    levels = np.arange(200, dtype=np.uint8) + np.arange(0, 50, 7, dtype=np.uint8)[:, None]
    data = encode_png(levels)
    rows = np.frombuffer(read_rows(data), np.uint8).reshape(8, 201)
    # "Paeth" for all rows but the first, which has no row above; without the core "sub" for all.
    assert set(rows[:, 0]) <= {1, 4}
    assert rows[0, 0] == 1
    assert (rows[:, 2:] == 1).all()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), levels)


def test_no_compression_stores_the_bytes() -> None:
    levels = np.zeros((300, 400), np.uint8)
    assert len(encode_png(levels, compression="none")) > levels.size
    assert len(encode_png(levels)) < levels.size // 50


@pytest.mark.parametrize("compression", ["fast", "none"])
@pytest.mark.parametrize("bands", [1, 2, 3, 7])
def test_file_does_not_depend_on_threads(
    compression: str, bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(2)
    levels = generator.integers(0, 256, (70, 50), np.uint8)
    levels[20:40] = np.arange(50)  # bands may have different filters
    monkeypatch.setattr(png, "_BAND_BYTES", 51 * -(-70 // bands))
    data = encode_png(levels, PALETTE, compression=compression)
    kinds = [kind for kind, _ in parse_chunks(data)]
    assert kinds.count(b"IDAT") == bands + 1  # the checksum has a separate chunk
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), levels)
    for threads in (2, 5):
        assert encode_png(levels, PALETTE, compression=compression, threads=threads) == data


@pytest.mark.parametrize("core", [True, False])
@given(
    levels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 90))),
    flat=st.tuples(st.integers(0, 40), st.integers(0, 90)),
)
def test_deflate_backends_are_lossless(
    core: bool, levels: npt.NDArray[np.uint8], flat: tuple[int, int]
) -> None:
    levels = levels.copy()
    levels[flat[0] :, flat[1] :] = 7
    with pytest.MonkeyPatch.context() as patch:
        if not core:
            patch.setattr(png, "_core", None)  # as without a compiler
        data = encode_png(levels)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), levels)


# Runs around the maximum lengths of matches and blocks, incompressible noise, and no data.
@pytest.mark.parametrize("variant", _core.simd_variants())
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, 3, 4, 5, 8, 9, 257, 258, 259, 260, 261, 519, 70000, 300000]),
            st.sampled_from(["run", "noise", "few"]),
        ),
        max_size=6,
    ),
    last=st.booleans(),
)
@settings(max_examples=60)
def test_zlib_decompresses_deflate(variant: str, parts: list[tuple[int, str]], last: bool) -> None:
    generator = np.random.default_rng(3)
    value_counts = {"run": 1, "noise": 256, "few": 5}
    data = np.concatenate(
        [generator.integers(0, value_counts[kind], size, np.uint8) for size, kind in parts]
        or [np.zeros(0, np.uint8)]
    )
    with use_variant(variant):
        deflated = _core.deflate(data, last)
    inflater = zlib.decompressobj(-15)
    assert inflater.decompress(deflated) == data.tobytes()
    assert inflater.eof == last
    assert len(deflated) <= data.size + data.size // 1000 + 20  # noise is stored


def unfilter(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Undo the filters of PNG rows (height, 1 + width), as the PNG specification defines them."""
    levels = np.zeros((rows.shape[0] + 1, rows.shape[1]), int)  # a row and a column of zeros
    for y, row in enumerate(rows.astype(int), 1):
        for x in range(1, len(row)):
            left, above, corner = levels[y, x - 1], levels[y - 1, x], levels[y - 1, x - 1]
            expected = left + above - corner
            neighbours = [left, above, corner]
            nearest = min(neighbours, key=lambda value: abs(expected - value))  # the first of ties
            prediction = {0: 0, 1: left, 4: nearest}[row[0]]
            levels[y, x] = (row[x] + prediction) % 256
    return levels[1:, 1:].astype(np.uint8)


_random = np.random.default_rng(5)
_ramp = np.arange(40) * 3
# Levels for which each filter is best: noise, rows that start anywhere, a surface with an edge.
FILTERED = {
    0: _random.integers(0, 2, (30, 40)) * 200,
    1: _random.integers(0, 256, (30, 1)) + _ramp,
    4: np.add.outer(_random.integers(0, 9, 30).cumsum(), _random.integers(0, 9, 40).cumsum()),
}


@pytest.mark.parametrize("variant", _core.simd_variants())
@pytest.mark.parametrize("filter_type", FILTERED)
def test_best_filter_is_applied(filter_type: int, variant: str) -> None:
    levels = FILTERED[filter_type].astype(np.uint8)
    with use_variant(variant):
        data, adler32 = _core.compress_rows(png._add_filter_bytes(levels), True)
    rows = zlib.decompress(data, -15)
    assert adler32 == zlib.adler32(rows)
    filtered = np.frombuffer(rows, np.uint8).reshape(30, 41)
    # Without a row above, the first row gets the filter "sub" instead of "Paeth".
    assert filtered[:, 0].tolist() == [min(filter_type, 1), *[filter_type] * 29]
    np.testing.assert_array_equal(unfilter(filtered), levels)


@pytest.mark.parametrize("variant", _core.simd_variants())
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 80))), st.booleans())
@settings(max_examples=30, deadline=None)
def test_filtered_rows_are_lossless(
    variant: str, levels: npt.NDArray[np.uint8], last: bool
) -> None:
    with use_variant(variant):
        data, adler32 = _core.compress_rows(png._add_filter_bytes(levels), last)
    inflater = zlib.decompressobj(-15)
    rows = inflater.decompress(data)
    assert inflater.eof == last
    assert adler32 == zlib.adler32(rows)
    filtered = np.frombuffer(rows, np.uint8).reshape(len(levels), -1)
    np.testing.assert_array_equal(unfilter(filtered), levels)


@pytest.mark.parametrize("fill", [0, 255])
def test_checksum_of_a_large_band(fill: int) -> None:
    rows = np.full((300, 4001), fill, np.uint8)
    rows[:, 0] = 0
    data, adler32 = _core.compress_rows(rows, True)
    assert adler32 == zlib.adler32(zlib.decompress(data, -15))


def test_core_checks_the_shape_of_rows() -> None:
    for shape in ((3,), (3, 1), (0, 4)):
        with pytest.raises(ValueError, match="rows must be"):
            _core.compress_rows(np.zeros(shape, np.uint8), True)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_combined_checksums_equal_checksum_of_joined_data(pieces: list[bytes]) -> None:
    checksum = 1
    for piece in pieces:
        checksum = png._combine_adler32(checksum, zlib.adler32(piece), len(piece))
    assert checksum == zlib.adler32(b"".join(pieces))


def test_blank_levels_are_not_copied() -> None:
    levels = make_blank_levels(5, 7, background=9)
    assert levels.shape == (5, 7)
    assert (levels == 9).all()
    levels[2, 3] = 200
    assert png._add_filter_bytes(levels) is levels.base
    for view in (levels[:, :-1], levels[1:], levels[::-1], levels.copy(), levels[:, ::2]):
        rows = png._add_filter_bytes(view)
        assert rows is not levels.base
        np.testing.assert_array_equal(rows[:, 1:], view)
        np.testing.assert_array_equal(rows[:, 0], 0)
    # A write to the byte before a row must not select a filter.
    assert levels.base is not None
    levels.base[0, 0] = 3
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(levels)))), levels)


def test_strided_levels() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (9, 20), np.uint8)[::-2, ::3]
    opened = Image.open(io.BytesIO(encode_png(levels)))
    np.testing.assert_array_equal(np.asarray(opened), levels)


@pytest.mark.parametrize("shape", [(3,), (0, 4), (4, 0), (2, 2, 3)])
def test_invalid_levels_raise(shape: Any) -> None:
    with pytest.raises(ShapeError, match="levels must be"):
        encode_png(np.zeros(shape, np.uint8))
