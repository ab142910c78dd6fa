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
from actgrid.encoding import blank_levels, encode_png, png
from actgrid.errors import ShapeError

PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)


@contextmanager
def using(variant: str) -> Iterator[None]:
    """Let the core use a variant meanwhile."""
    fastest = _core.simd_variant()
    _core.use_simd_variant(variant)
    try:
        yield
    finally:
        _core.use_simd_variant(fastest)


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
    compression=st.sampled_from(["fast", "small", "none"]),
)
def test_pillow_finds_the_same_levels_and_colours(
    levels: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8] | None, compression: str
) -> None:
    opened = Image.open(io.BytesIO(encode_png(levels, palette, compression=compression)))
    opened.load()
    if compression != "small":
        assert opened.mode == ("L" if palette is None else "P")
    expected = np.repeat(levels[..., None], 3, 2) if palette is None else palette[levels]
    np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), expected)


def pixel_data(data: bytes) -> bytes:
    """The rows of a PNG file, each after its filter byte."""
    return zlib.decompress(b"".join(body for kind, body in chunks(data) if kind == b"IDAT"))


@pytest.mark.parametrize("compression", ["fast", "none"])
def test_file_is_indexed_unfiltered_and_whole(compression: str) -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) ** 2
    data = encode_png(levels, PALETTE, compression=compression)
    found = chunks(data)
    assert {kind: None for kind, _ in found} == dict.fromkeys([b"IHDR", b"PLTE", b"IDAT", b"IEND"])
    assert found[0][1] == struct.pack(">IIBBBBB", 4, 3, 8, 3, 0, 0, 0)
    assert found[1][1] == PALETTE.tobytes()
    assert pixel_data(data) == b"\0\0\1\4\x09\0\x10\x19\x24\x31\0\x40\x51\x64\x79"


def test_gray_palette_is_not_stored() -> None:
    gray = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    found = chunks(encode_png(np.zeros((2, 2), np.uint8), gray))
    assert b"PLTE" not in dict(found)
    assert found[0][1][9] == 0  # grayscale


def test_levels_that_rise_along_rows_are_subtracted() -> None:
    levels = np.arange(200, dtype=np.uint8) + np.arange(0, 50, 7, dtype=np.uint8)[:, None]
    data = encode_png(levels)
    rows = np.frombuffer(pixel_data(data), np.uint8).reshape(8, 201)
    # By Paeth all but the first row, which has none above; without the core all by "sub".
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
def test_bands_make_one_file_whatever_the_threads(
    compression: str, bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(2)
    levels = generator.integers(0, 256, (70, 50), np.uint8)
    levels[20:40] = np.arange(50)  # bands may differ in their filters
    monkeypatch.setattr(png, "_BAND_BYTES", 51 * -(-70 // bands))
    data = encode_png(levels, PALETTE, compression=compression)
    found = [kind for kind, _ in chunks(data)]
    assert found.count(b"IDAT") == bands + 1  # the checksum has one of its own
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), levels)
    for threads in (2, 5):
        assert encode_png(levels, PALETTE, compression=compression, threads=threads) == data


@pytest.mark.parametrize("core", [True, False])
@given(
    levels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 90))),
    flat=st.tuples(st.integers(0, 40), st.integers(0, 90)),
)
def test_both_deflates_keep_every_level(
    core: bool, levels: npt.NDArray[np.uint8], flat: tuple[int, int]
) -> None:
    levels = levels.copy()
    levels[flat[0] :, flat[1] :] = 7
    with pytest.MonkeyPatch.context() as patch:
        if not core:
            patch.setattr(png, "_core", None)  # as where there was no compiler
        data = encode_png(levels)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), levels)


# Runs on either side of what matches and blocks hold, noise that does not shrink, and nothing.
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
def test_deflate_is_read_by_zlib(variant: str, parts: list[tuple[int, str]], last: bool) -> None:
    generator = np.random.default_rng(3)
    most = {"run": 1, "noise": 256, "few": 5}
    data = np.concatenate(
        [generator.integers(0, most[kind], size, np.uint8) for size, kind in parts]
        or [np.zeros(0, np.uint8)]
    )
    with using(variant):
        deflated = _core.deflate(data, last)
    inflater = zlib.decompressobj(-15)
    assert inflater.decompress(deflated) == data.tobytes()
    assert inflater.eof == last
    assert len(deflated) <= data.size + data.size // 1000 + 20  # noise is stored


@pytest.mark.parametrize("kind", ["run", "noise", "normal"])
def test_size_is_estimated(kind: str) -> None:
    generator = np.random.default_rng(4)
    data = {
        "run": np.repeat(generator.integers(0, 256, 1000, np.uint8), 40),
        "noise": generator.integers(0, 256, 40000, np.uint8),
        "normal": generator.normal(128, 9, 40000).astype(np.uint8),
    }[kind]
    deflated = len(_core.deflate(data, True))
    assert _core.estimate_deflated(data) == pytest.approx(deflated, rel=0.1)


@pytest.mark.parametrize("variant", _core.simd_variants())
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 80))))
def test_paeth_filter_is_undone_by_its_definition(
    variant: str, levels: npt.NDArray[np.uint8]
) -> None:
    rows = png._unfiltered(levels)
    filtered = np.zeros_like(rows)
    with using(variant):
        _core.filter_paeth(rows, filtered)
    wide = np.pad(levels.astype(int), ((0, 0), (1, 0)))
    left, above, corner = wide[1:, :-1], wide[:-1, 1:], wide[:-1, :-1]
    expected = left + above - corner
    near = [abs(expected - one) for one in (left, above, corner)]
    best = np.argmin(near, axis=0)  # the first of equals, in this order
    predicted = np.choose(best, [left, above, corner])
    np.testing.assert_array_equal(filtered[1:, 1:], (levels[1:] - predicted) % 256)


def test_core_checks_the_arguments_of_the_filter() -> None:
    rows = np.zeros((3, 4), np.uint8)
    with pytest.raises(ValueError, match="of one shape"):
        _core.filter_paeth(rows, np.zeros((3, 5), np.uint8))


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_checksums_of_pieces_are_that_of_the_whole(pieces: list[bytes]) -> None:
    joined = 1
    for piece in pieces:
        joined = png._joined_adler(joined, zlib.adler32(piece), len(piece))
    assert joined == zlib.adler32(b"".join(pieces))


def test_blank_levels_are_deflated_where_they_are() -> None:
    levels = blank_levels(5, 7, background=9)
    assert levels.shape == (5, 7)
    assert (levels == 9).all()
    levels[2, 3] = 200
    assert png._unfiltered(levels) is levels.base
    for other in (levels[:, :-1], levels[1:], levels[::-1], levels.copy(), levels[:, ::2]):
        rows = png._unfiltered(other)
        assert rows is not levels.base
        np.testing.assert_array_equal(rows[:, 1:], other)
        np.testing.assert_array_equal(rows[:, 0], 0)
    # Whoever writes to the byte before a row has not made it a filter.
    assert levels.base is not None
    levels.base[0, 0] = 3
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(levels)))), levels)


def test_strided_levels_are_encoded() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (9, 20), np.uint8)[::-2, ::3]
    opened = Image.open(io.BytesIO(encode_png(levels)))
    np.testing.assert_array_equal(np.asarray(opened), levels)


@pytest.mark.parametrize("shape", [(3,), (0, 4), (4, 0), (2, 2, 3)])
def test_no_picture_is_refused(shape: Any) -> None:
    with pytest.raises(ShapeError, match="levels must be"):
        encode_png(np.zeros(shape, np.uint8))
