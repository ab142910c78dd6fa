"""Benchmarks of PNG encoding and of deflate alone: time and size."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import actgrid
from actgrid.bench import Prepare
from benchmarks.suite import Group, Target
from benchmarks.workload import grids

__all__ = ["ENCODING"]

_RAW_DEFLATE = -15

# Prepares a function that encodes pictures, or compresses data, of a model. It returns the number
# of bytes.
PrepareBytes = Callable[[str], Callable[[], int]]


# --- PNG files ---


def encode_with_pillow(grid: actgrid.Grid, **options: int) -> bytes:
    buffer = io.BytesIO()
    grid.to_image().save(buffer, "PNG", **options)
    return buffer.getvalue()


def prepare_encoding(encode: Callable[[actgrid.Grid], bytes], model: str) -> Callable[[], int]:
    pictures = grids(model)
    return lambda: sum(len(encode(grid)) for grid in pictures)


def prepare_opencv(model: str) -> Callable[[], int]:
    import cv2

    def encode(grid: actgrid.Grid) -> bytes:
        is_encoded, data = cv2.imencode(".png", grid.levels)  # grayscale: OpenCV has no palettes
        assert is_encoded
        return bytes(data)

    return prepare_encoding(encode, model)


ENCODERS: dict[str, PrepareBytes] = {
    "actgrid": partial(prepare_encoding, actgrid.Grid.to_png),
    "actgrid, stored": partial(prepare_encoding, partial(actgrid.Grid.to_png, compression="none")),
    "Pillow, its default": partial(prepare_encoding, encode_with_pillow),
    "Pillow, level 1": partial(prepare_encoding, partial(encode_with_pillow, compress_level=1)),
    "OpenCV, its default": prepare_opencv,
}


# --- deflate alone ---


def read_idat_chunks(png: bytes) -> Iterator[bytes]:
    start = 8  # after the signature
    while start < len(png):
        length, kind = struct.unpack_from(">I4s", png, start)
        if kind == b"IDAT":
            yield png[start + 8 : start + 8 + length]
        start += length + 12


@cache
def filtered_rows(model: str) -> list[bytes]:
    """Return the data before compression of each PNG file: the rows that actgrid filtered."""
    return [zlib.decompress(b"".join(read_idat_chunks(grid.to_png()))) for grid in grids(model)]


def prepare_deflate(compress: Callable[[bytes], bytes], model: str) -> Callable[[], int]:
    pictures = filtered_rows(model)
    return lambda: sum(len(compress(rows)) for rows in pictures)


def prepare_own(model: str) -> Callable[[], int]:
    from actgrid import _core

    return prepare_deflate(partial(_core.deflate, last=True), model)


def prepare_zlib_like(module: Any, model: str, **options: int) -> Callable[[], int]:
    def compress(rows: bytes) -> bytes:
        deflater = module.compressobj(wbits=_RAW_DEFLATE, **options)
        data: bytes = deflater.compress(rows) + deflater.flush()
        return data

    return prepare_deflate(compress, model)


def prepare_isal(level: int, model: str) -> Callable[[], int]:
    from isal import isal_zlib

    return prepare_zlib_like(isal_zlib, model, level=level)


def prepare_libdeflate(model: str) -> Callable[[], int]:
    from deflate import deflate_compress

    return prepare_deflate(partial(deflate_compress, compresslevel=1), model)


def prepare_zlib_ng(model: str, **options: int) -> Callable[[], int]:
    from zlib_ng import zlib_ng

    return prepare_zlib_like(zlib_ng, model, level=1, **options)


DEFLATERS: dict[str, PrepareBytes] = {
    "actgrid": prepare_own,
    "ISA-L, level 1": partial(prepare_isal, 1),
    "ISA-L, level 0": partial(prepare_isal, 0),
    "libdeflate, level 1": prepare_libdeflate,
    "zlib-ng, level 1": prepare_zlib_ng,
    "zlib-ng, runs only": partial(prepare_zlib_ng, strategy=zlib.Z_RLE),
}


def make_cases(cases: Mapping[str, PrepareBytes], model: str) -> dict[str, Prepare]:
    return {name: partial(prepare, model) for name, prepare in cases.items()}


def make_size_cases(cases: Mapping[str, PrepareBytes], model: str) -> dict[str, Prepare]:
    def prepare_size(prepare: PrepareBytes) -> Callable[[], float]:
        run = prepare(model)
        return lambda: run() / 1e6

    return {name: partial(prepare_size, prepare) for name, prepare in cases.items()}


def make_groups(model: str, pictures: str) -> dict[str, Group]:
    pillow, isal, ours = "Pillow, its default", "ISA-L, level 1", "actgrid"
    key = model.lower()
    return {
        f"png-{key}": Group(
            f"PNG: {pictures}",
            make_cases(ENCODERS, model),
            (Target("Pillow's default over ours, time", pillow, ours, 15, 30, True),),
        ),
        f"size-{key}": Group(
            f"PNG size: {pictures}",
            make_size_cases(ENCODERS, model),
            (Target("ours over Pillow's default, size", ours, pillow, 1),),
            unit="MB",
            max_rounds=1,
        ),
        f"deflate-{key}": Group(
            f"deflate of the same filtered rows: {pictures}",
            make_cases(DEFLATERS, model),
            (Target("fastest library over ours, time", isal, ours, 1.5, 2, True),),
        ),
        f"deflate-size-{key}": Group(
            f"deflate size of the same filtered rows: {pictures}",
            make_size_cases(DEFLATERS, model),
            (Target("ours over the fastest library, size", ours, isal, 1.02, 1),),
            unit="MB",
            max_rounds=1,
        ),
    }


ENCODING = {
    **make_groups("VGG16", "VGG16, random weights, 15 megapixels"),
    **make_groups("demo", "the demo's ReLU layers, trained weights"),
}
