"""Benchmarks of overlays: a heatmap resized, coloured and blended with a photo."""

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
def make_heatmap() -> npt.NDArray[np.float32]:
    """Return a map (14, 14) of float32 from 0 to 1."""
    return np.random.default_rng(0).random((14, 14), np.float32)


@cache
def make_photo() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (_HEIGHT, _WIDTH, 3), np.uint8)


def prepare_overlay(backend_name: str, threads: int = 1) -> Run:
    backend, canvas = load_backend(backend_name), np.empty_like(make_photo())
    mapping = Mapping(*(np.array([term]) for term in (0.0, 255.0, 0.5)))
    arguments = (make_heatmap(), mapping, palette("viridis"), make_photo(), _ALPHA, canvas, threads)
    return lambda: backend.overlay(*arguments)


def prepare_opencv_overlay(threads: int = 1) -> Run:
    import cv2

    cv2.setNumThreads(threads)
    colours = np.ascontiguousarray(palette("viridis")[:, None])
    sources, canvas = (make_heatmap(), make_photo()), np.empty_like(make_photo())

    def run() -> None:
        values, image = sources
        levels = cv2.convertScaleAbs(cv2.resize(values, (_WIDTH, _HEIGHT)), alpha=255)
        coloured = cv2.applyColorMap(levels, colours)
        cv2.addWeighted(image, 1 - _ALPHA, coloured, _ALPHA, 0, dst=canvas)

    return run


OVERLAY = Group(
    "overlay: a 14 x 14 map over 12 megapixels",
    {
        "native, 1 thread": partial(prepare_overlay, "native"),
        "native, 2 threads": partial(prepare_overlay, "native", 2),
        "numpy (the reference)": partial(prepare_overlay, "numpy"),
        "OpenCV, 1 thread": prepare_opencv_overlay,
        "OpenCV, 2 threads": partial(prepare_opencv_overlay, 2),
    },
    (
        Target("OpenCV over ours, 1 thread", "OpenCV, 1 thread", "native, 1 thread", 1, 2, True),
        Target("OpenCV over ours, 2 threads", "OpenCV, 2 threads", "native, 2 threads", 1, 2, True),
        Target("NumPy over ours", "numpy (the reference)", "native, 1 thread", 10, 30, True),
    ),
)
