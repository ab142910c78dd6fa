"""Grids to PNG: time and size."""

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


def pillow(grid: actgrid.Grid, **options: int) -> bytes:
    buffer = io.BytesIO()
    grid.to_image().save(buffer, "PNG", **options)
    return buffer.getvalue()


def opencv(grid: actgrid.Grid) -> bytes:
    import cv2

    done, data = cv2.imencode(".png", grid.levels)  # grayscale: it writes no palettes
    assert done
    return bytes(data)


ENCODERS: dict[str, Encode] = {
    "actgrid": actgrid.Grid.to_png,
    "Pillow, its default": pillow,
    "Pillow, level 1": partial(pillow, compress_level=1),
    "OpenCV, its default": opencv,
}


def encoding(model: str, encode: Encode) -> Callable[[], int]:
    if encode is opencv:
        import cv2  # noqa: F401  (an ImportError says that it is not there)
    drawn = grids(model)
    return lambda: sum(len(encode(grid)) for grid in drawn)


def size(model: str, encode: Encode) -> Callable[[], float]:
    run = encoding(model, encode)
    return lambda: run() / 1e6


def cases(model: str, what: Callable[[str, Encode], Callable[[], object]]) -> dict[str, Prepare]:
    return {name: partial(what, model, encode) for name, encode in ENCODERS.items()}


def groups(model: str, title: str) -> tuple[Group, Group]:
    theirs, ours = "Pillow, its default", "actgrid"
    return (
        Group(
            f"PNG: {title}",
            cases(model, encoding),
            (Target("Pillow's default over ours, time", theirs, ours, 15, 30, True),),
        ),
        Group(
            f"PNG size: {title}",
            cases(model, size),
            (Target("ours over Pillow's default, size", ours, theirs, 1),),
            unit="MB",
            most_rounds=1,
        ),
    )


ENCODING = {
    name: group
    for model, title in (
        ("VGG16", "VGG16, random weights, 15 megapixels"),
        ("demo", "the demo's ReLU layers, trained weights"),
    )
    for name, group in zip(
        (f"png-{model.lower()}", f"size-{model.lower()}"), groups(model, title), strict=True
    )
}
