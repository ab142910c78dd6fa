"""Benchmarks of scaling: time per value by channels, tile size and images."""

from __future__ import annotations

from functools import partial

import numpy as np

import actgrid
from actgrid.bench import Run
from benchmarks.suite import Group

__all__ = ["GROWTH"]

Shape = tuple[int, int, int, int]

_CHANNELS = (64, 256, 1024, 4096, 16384)
_PIXELS = (7, 14, 28, 56, 112, 224, 512, 1024)
_IMAGES = (1, 4, 16, 64)
_VALUES = 1 << 22


def prepare_render(shape: Shape) -> Run:
    activations = np.random.default_rng(0).standard_normal(shape, np.float32)

    def run() -> None:
        for sample in range(len(activations)):
            actgrid.render(activations, sample=sample)

    return run


def make_group(title: str, shapes: dict[str, Shape]) -> Group:
    return Group(
        f"actgrid.render, ms per million values: {title}",
        {name: partial(prepare_render, shape) for name, shape in shapes.items()},
        count={name: float(np.prod(shape)) / 1e6 for name, shape in shapes.items()},
    )


def _count_channels(pixels: int) -> int:
    return max(4, min(16384, _VALUES // pixels**2))


GROWTH: dict[str, Group] = {
    "channels": make_group(
        "channels of 14 x 14", {f"{count:,} channels": (1, 14, 14, count) for count in _CHANNELS}
    ),
    "pixels": make_group(
        "tiles, at most 4 million values",
        {
            f"{side} x {side} x {_count_channels(side):,}": (1, side, side, _count_channels(side))
            for side in _PIXELS
        },
    ),
    "images": make_group(
        "images of 28 x 28 x 64",
        {f"{count} image{'s' if count > 1 else ''}": (count, 28, 28, 64) for count in _IMAGES},
    ),
}
