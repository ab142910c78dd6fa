"""Benchmarks of PNG encoding: time and file size."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import actgrid
from actgrid.bench import Prepare
from benchmarks.suite import Group, Target
from benchmarks.workload import grids

__all__ = ["ENCODING"]

Encode = Callable[[actgrid.Grid], bytes]


def encode_with_pillow(grid: actgrid.Grid, **options: int) -> bytes:
    buffer = io.BytesIO()
    grid.to_image().save(buffer, "PNG", **options)
    return buffer.getvalue()


def encode_with_opencv(grid: actgrid.Grid) -> bytes:
    import cv2

    is_encoded, data = cv2.imencode(".png", grid.levels)  # grayscale: OpenCV writes no palettes
    assert is_encoded
    return bytes(data)


ENCODERS: dict[str, Encode] = {
    "actgrid": actgrid.Grid.to_png,
    "Pillow, its default": encode_with_pillow,
    "Pillow, level 1": partial(encode_with_pillow, compress_level=1),
    "OpenCV, its default": encode_with_opencv,
}


def prepare_encoding(model: str, encode: Encode) -> Callable[[], int]:
    if encode is encode_with_opencv:
        import cv2  # noqa: F401  (raises ImportError if it is missing)
    pictures = grids(model)
    return lambda: sum(len(encode(grid)) for grid in pictures)


def prepare_size(model: str, encode: Encode) -> Callable[[], float]:
    run = prepare_encoding(model, encode)
    return lambda: run() / 1e6


def make_cases(
    model: str, prepare: Callable[[str, Encode], Callable[[], object]]
) -> dict[str, Prepare]:
    return {name: partial(prepare, model, encode) for name, encode in ENCODERS.items()}


def make_groups(model: str, title: str) -> tuple[Group, Group]:
    theirs, ours = "Pillow, its default", "actgrid"
    return (
        Group(
            f"PNG: {title}",
            make_cases(model, prepare_encoding),
            (Target("Pillow's default over ours, time", theirs, ours, 15, 30, True),),
        ),
        Group(
            f"PNG size: {title}",
            make_cases(model, prepare_size),
            (Target("ours over Pillow's default, size", ours, theirs, 1),),
            unit="MB",
            max_rounds=1,
        ),
    )


ENCODING = {
    name: group
    for model, title in (
        ("VGG16", "VGG16, random weights, 15 megapixels"),
        ("demo", "the demo's ReLU layers, trained weights"),
    )
    for name, group in zip(
        (f"png-{model.lower()}", f"size-{model.lower()}"), make_groups(model, title), strict=True
    )
}
