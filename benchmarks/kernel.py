"""Measure, map and paint: against other ways, by type and by layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec

import numpy as np

import actgrid
from actgrid.bench import Run
from actgrid.rendering.backends import load_backend
from actgrid.rendering.normalize import parse_normalize
from benchmarks import workload
from benchmarks.suite import Group, Target
from benchmarks.workload import COLUMNS, Array, Job, jobs, vgg16_activations

__all__ = ["DTYPES", "KERNEL", "LAYOUTS"]


def draw(made: list[Job], backend: str = "native", threads: int = 1) -> Run:
    drawing, standard = load_backend(backend), parse_normalize("standard")

    def run() -> None:
        for job in made:
            stats = drawing.measure(job.tiles, threads)
            mapping = standard.mapping(job.tiles, stats, "channel", drawing)
            drawing.paint(job.tiles, mapping, job.origins, job.canvas, threads)

    return run


vgg16_jobs = cache(lambda: jobs(vgg16_activations()))


def floor() -> Run:
    """Read the floats once, as fast as NumPy reads, and write the bytes once."""
    numbers = [job.tiles.transpose(1, 2, 3, 0).reshape(-1).view("f8") for job in vgg16_jobs()]
    assert all(np.shares_memory(a, job.tiles) for a, job in zip(numbers, vgg16_jobs(), strict=True))

    def run() -> None:
        for values, job in zip(numbers, vgg16_jobs(), strict=True):
            values.max()
            job.canvas.fill(1)

    return run


def ours(backend: str, threads: int = 1) -> Callable[[], Run]:
    return lambda: draw(vgg16_jobs(), backend, threads)


def whole(threads: int) -> Run:
    def run() -> None:
        for activation in vgg16_activations():
            actgrid.render(activation, columns=COLUMNS, padding=0, threads=threads)

    return run


def other(way: Callable[[Array], object], package: str = "numpy", overwrites: bool = False) -> Run:
    if find_spec(package) is None:
        raise ImportError(f"{package} is not installed")
    inputs = [x.copy() if overwrites else x for x in vgg16_activations()]

    def run() -> None:
        for activation in inputs:
            way(activation)

    return run


def _floor_must() -> tuple[float, float]:
    try:
        from actgrid import _core
    except ImportError:
        return 3.5, 2
    return (3.5 if _core.simd_variant() == "avx512" else 4.5), 2


KERNEL = Group(
    "kernel: VGG16, 18 layers, 5,696 channels, 60.3 MB float32",
    {
        "floor: one read, one write": floor,
        "native, 1 thread": ours("native"),
        "native, 2 threads": ours("native", 2),
        "actgrid.render, native, 1 thread": lambda: whole(1),
        "actgrid.render, native, 2 threads": lambda: whole(2),
        "numba, 1 thread": ours("numba"),
        "numpy (the reference)": ours("numpy"),
        "NumPy, vectorised": lambda: other(workload.vectorised),
        "skimage.util.montage, values as they are": lambda: other(
            partial(workload.montage, rescale=False), "skimage"
        ),
        "skimage.util.montage, rescaling": lambda: other(
            partial(workload.montage, rescale=True), "skimage", overwrites=True
        ),
        "textbook loop": lambda: other(workload.textbook, overwrites=True),
    },
    (
        Target(
            "kernel over the floor",
            "native, 1 thread",
            "floor: one read, one write",
            *_floor_must(),
        ),
        Target("textbook loop over kernel", "textbook loop", "native, 1 thread", 60, 100, True),
        Target("vectorised NumPy over kernel", "NumPy, vectorised", "native, 1 thread", 4, 8, True),
        Target(
            "montage, rescaling, over kernel",
            "skimage.util.montage, rescaling",
            "native, 1 thread",
            25,
            40,
            True,
        ),
        Target("2 threads over 1", "native, 1 thread", "native, 2 threads", 1.7, 1.9, True),
    ),
)


@cache
def typed(dtype: str) -> list[Job]:
    if dtype == "bfloat16":
        import ml_dtypes  # makes NumPy know it; it comes with TensorFlow

        dtype = ml_dtypes.bfloat16
    activations = vgg16_activations()
    if np.dtype(dtype).kind in "iu":
        activations = [x / x.max() * 255 for x in activations]
    return jobs([x.astype(dtype) for x in activations])


def _typed(dtype: str) -> Callable[[], Run]:
    return lambda: draw(typed(dtype))


DTYPES = Group(
    "kernel by type, the same 15 million values, 1 thread",
    {
        name: _typed(name)
        for name in ("float32", "float16", "bfloat16", "float64", "uint8", "int32")
    },
    (
        Target("float16 over float32", "float16", "float32", 0.9, 0.7),
        Target("bfloat16 over float32", "bfloat16", "float32", 0.9, 0.7),
    ),
)


def _first(x: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


# What brings (1, H, W, C) to the layout, with the same values.
_LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "channels last": lambda x: x,
    "channels first": _first,
    "every second channel": lambda x: x.repeat(2, -1)[..., ::2],
    "every second row and column": lambda x: x.repeat(2, 1).repeat(2, 2)[:, ::2, ::2],
    "reversed": lambda x: x[:, ::-1, ::-1, ::-1],
}


@cache
def laid_out(name: str) -> list[Job]:
    data_format = "channels_first" if name == "channels first" else "channels_last"
    return jobs([_LAYOUTS[name](x) for x in vgg16_activations()], data_format)


LAYOUTS = Group(
    "kernel by layout, the same float32 values, 1 thread",
    {name: partial(lambda name: draw(laid_out(name)), name) for name in _LAYOUTS},
    (Target("channels first over channels last", "channels first", "channels last", 1),),
)
