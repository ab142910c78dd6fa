"""Benchmarks of measure, map and paint by implementation, dtype and layout."""

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
from benchmarks.workload import COLUMNS, Array, PaintTask, make_tasks, vgg16_activations

__all__ = ["DTYPES", "KERNEL", "LAYOUTS"]


def prepare_kernel(tasks: list[PaintTask], name: str = "native", threads: int = 1) -> Run:
    backend, standard = load_backend(name), parse_normalize("standard")

    def run() -> None:
        for task in tasks:
            stats = backend.measure(task.tiles, threads)
            mapping = standard.compute_mapping(task.tiles, stats, "channel", backend)
            backend.paint(task.tiles, mapping, task.origins, task.canvas, threads)

    return run


vgg16_tasks = cache(lambda: make_tasks(vgg16_activations()))


def prepare_memory_bound() -> Run:
    """Prepare the lower bound of the time: read the floats and write the bytes once."""
    numbers = [task.tiles.transpose(1, 2, 3, 0).reshape(-1).view("f8") for task in vgg16_tasks()]
    assert all(
        np.shares_memory(a, task.tiles) for a, task in zip(numbers, vgg16_tasks(), strict=True)
    )

    def run() -> None:
        for values, task in zip(numbers, vgg16_tasks(), strict=True):
            values.max()
            task.canvas.fill(1)

    return run


def kernel_case(backend: str, threads: int = 1) -> Callable[[], Run]:
    return lambda: prepare_kernel(vgg16_tasks(), backend, threads)


def prepare_render(threads: int) -> Run:
    def run() -> None:
        for activation in vgg16_activations():
            actgrid.render(activation, columns=COLUMNS, padding=0, threads=threads)

    return run


def prepare_other(
    function: Callable[[Array], object], package: str = "numpy", overwrites: bool = False
) -> Run:
    if find_spec(package) is None:
        raise ImportError(f"{package} is not installed")
    inputs = [x.copy() if overwrites else x for x in vgg16_activations()]

    def run() -> None:
        for activation in inputs:
            function(activation)

    return run


def _get_memory_bound_targets() -> tuple[float, float]:
    try:
        from actgrid import _core
    except ImportError:
        return 3.5, 2
    return (3.5 if _core.simd_variant() == "avx512" else 4.5), 2


KERNEL = Group(
    "kernel: VGG16, 18 layers, 5,696 channels, 60.3 MB float32",
    {
        "floor: one read, one write": prepare_memory_bound,
        "native, 1 thread": kernel_case("native"),
        "native, 2 threads": kernel_case("native", 2),
        "actgrid.render, native, 1 thread": lambda: prepare_render(1),
        "actgrid.render, native, 2 threads": lambda: prepare_render(2),
        "numba, 1 thread": kernel_case("numba"),
        "numpy (the reference)": kernel_case("numpy"),
        "NumPy, vectorised": lambda: prepare_other(workload.vectorised),
        "skimage.util.montage, values as they are": lambda: prepare_other(
            partial(workload.montage, rescale=False), "skimage"
        ),
        "skimage.util.montage, rescaling": lambda: prepare_other(
            partial(workload.montage, rescale=True), "skimage", overwrites=True
        ),
        "textbook loop": lambda: prepare_other(workload.textbook, overwrites=True),
    },
    (
        Target(
            "kernel over the floor",
            "native, 1 thread",
            "floor: one read, one write",
            *_get_memory_bound_targets(),
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
def make_typed_tasks(dtype: str) -> list[PaintTask]:
    if dtype == "bfloat16":
        import ml_dtypes  # registers the dtype; a dependency of TensorFlow

        dtype = ml_dtypes.bfloat16
    activations = vgg16_activations()
    if np.dtype(dtype).kind in "iu":
        activations = [x / x.max() * 255 for x in activations]
    return make_tasks([x.astype(dtype) for x in activations])


def _dtype_case(dtype: str) -> Callable[[], Run]:
    return lambda: prepare_kernel(make_typed_tasks(dtype))


DTYPES = Group(
    "kernel by type, the same 15 million values, 1 thread",
    {
        name: _dtype_case(name)
        for name in ("float32", "float16", "bfloat16", "float64", "uint8", "int32")
    },
    (
        Target("float16 over float32", "float16", "float32", 0.9, 0.7),
        Target("bfloat16 over float32", "bfloat16", "float32", 0.9, 0.7),
    ),
)


def _to_channels_first(x: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


# Name of the layout -> function that converts (1, H, W, C) to it, with the same values.
_LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "channels last": lambda x: x,
    "channels first": _to_channels_first,
    "every second channel": lambda x: x.repeat(2, -1)[..., ::2],
    "every second row and column": lambda x: x.repeat(2, 1).repeat(2, 2)[:, ::2, ::2],
    "reversed": lambda x: x[:, ::-1, ::-1, ::-1],
}


@cache
def make_layout_tasks(name: str) -> list[PaintTask]:
    data_format = "channels_first" if name == "channels first" else "channels_last"
    return make_tasks([_LAYOUTS[name](x) for x in vgg16_activations()], data_format)


LAYOUTS = Group(
    "kernel by layout, the same float32 values, 1 thread",
    {
        name: partial(lambda name: prepare_kernel(make_layout_tasks(name)), name)
        for name in _LAYOUTS
    },
    (Target("channels first over channels last", "channels first", "channels last", 1),),
)
