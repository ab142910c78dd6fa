"""A map over a large photo: resized, coloured and blended."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import numpy.typing as npt

from actgrid.bench import Run
from actgrid.rendering import palette
from actgrid.rendering.backends import load_backend
from actgrid.rendering.normalize import Mapping
from benchmarks.suite import Group, Target

__all__ = ["OVERLAY"]

_HEIGHT, _WIDTH = 3000, 4000
_ALPHA = 0.5


@cache
def heat() -> npt.NDArray[np.float32]:
    """Return a map of values 0 to 1."""
    return np.random.default_rng(0).random((14, 14), np.float32)


@cache
def photo() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (_HEIGHT, _WIDTH, 3), np.uint8)


def ours(backend: str, threads: int = 1) -> Run:
    drawing, overlaid = load_backend(backend), np.empty_like(photo())
    mapping = Mapping(*(np.array([term]) for term in (0.0, 255.0, 0.5)))
    arguments = (heat(), mapping, palette("viridis"), photo(), _ALPHA, overlaid, threads)
    return lambda: drawing.overlay(*arguments)


def opencv(threads: int = 1) -> Run:
    import cv2

    cv2.setNumThreads(threads)
    colours = np.ascontiguousarray(palette("viridis")[:, None])
    sources, overlaid = (heat(), photo()), np.empty_like(photo())

    def run() -> None:
        values, image = sources
        levels = cv2.convertScaleAbs(cv2.resize(values, (_WIDTH, _HEIGHT)), alpha=255)
        coloured = cv2.applyColorMap(levels, colours)
        cv2.addWeighted(image, 1 - _ALPHA, coloured, _ALPHA, 0, dst=overlaid)

    return run


OVERLAY = Group(
    "overlay: a 14 x 14 map over 12 megapixels",
    {
        "native, 1 thread": partial(ours, "native"),
        "native, 2 threads": partial(ours, "native", 2),
        "numpy (the reference)": partial(ours, "numpy"),
        "OpenCV, 1 thread": opencv,
        "OpenCV, 2 threads": partial(opencv, 2),
    },
    (
        Target("OpenCV over ours, 1 thread", "OpenCV, 1 thread", "native, 1 thread", 1, 2, True),
        Target("OpenCV over ours, 2 threads", "OpenCV, 2 threads", "native, 2 threads", 1, 2, True),
        Target("NumPy over ours", "numpy (the reference)", "native, 1 thread", 10, 30, True),
    ),
)
