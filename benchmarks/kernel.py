"""Benchmarks of measure, map and paint by implementation, dtype and layout."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from time import perf_counter

import numpy as np

import actgrid
from actgrid.bench import Prepare, Run
from actgrid.rendering.backends import DrawTask, load_backend
from actgrid.rendering.normalize import parse_normalize
from benchmarks import workload
from benchmarks.suite import Group, Target
from benchmarks.workload import COLUMNS, Array, PaintTask, make_tasks, vgg16_activations

__all__ = ["BANDWIDTH", "DTYPES", "KERNEL", "LAYOUTS", "SIZES"]


def prepare_kernel(tasks: list[PaintTask], name: str = "native", threads: int = 1) -> Run:
    backend, standard = load_backend(name), parse_normalize("standard")

    draw = getattr(backend, "draw", None)
    if draw is not None:
        layers = [DrawTask(task.tiles, task.origins, task.canvas) for task in tasks]
        return partial(draw, layers, standard, threads)

    def run() -> None:
        for task in tasks:
            stats = backend.measure(task.tiles, threads)
            mapping = standard.compute_mapping(task.tiles, stats, "channel", backend)
            backend.paint(task.tiles, mapping, task.origins, task.canvas, threads)

    return run


vgg16_tasks = cache(lambda: make_tasks(vgg16_activations()))


def prepare_memory_bound(tasks: list[PaintTask], reads: int) -> Run:
    """Prepare the lower bound of the time: read the values once or twice, write the levels.

    The statistics of a tile must be known before its first level is drawn. A layer that does not
    fit the last-level cache is therefore read twice.
    """
    # The maximum of 4-byte integers is the fastest read of memory in NumPy.
    numbers = [_get_memory(task.tiles).view(np.uint32) for task in tasks]

    def run() -> None:
        for values, task in zip(numbers, tasks, strict=True):
            for _ in range(reads):
                values.max()
            task.canvas.fill(1)

    return run


def _get_memory(tiles: Array) -> Array:
    """Return the values of tiles without gaps as a flat view, in the order of memory."""
    order = np.argsort(tiles.strides, kind="stable")[::-1]
    values: Array = tiles.transpose(order).reshape(-1)
    assert np.shares_memory(values, tiles)
    return values


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


KERNEL = Group(
    "kernel: VGG16, 18 layers, 5,696 channels, 60.3 MB float32",
    {
        "floor: one read, one write": lambda: prepare_memory_bound(vgg16_tasks(), 1),
        "floor: two reads, one write": lambda: prepare_memory_bound(vgg16_tasks(), 2),
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
            "kernel over two reads, one write",
            "native, 1 thread",
            "floor: two reads, one write",
            2.5,
            1.3,
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


# --- one layer at a time ---

Shape = tuple[int, int, int]  # height, width, channels
DTYPE_NAMES = ("float32", "float16", "bfloat16", "float64", "uint8", "int32")


@cache
def make_layer_tasks(
    shape: Shape, dtype: str = "float32", data_format: str = "channels_last"
) -> list[PaintTask]:
    """Return the task of a random layer, of which about half the values are 0."""
    if dtype == "bfloat16":
        import ml_dtypes  # registers the dtype; a dependency of TensorFlow

        dtype = ml_dtypes.bfloat16
    values = np.maximum(np.random.default_rng(0).standard_normal(shape, dtype=np.float32), 0)
    if np.dtype(dtype).kind in "iu":
        values *= 255 / values.max()
    activation = values.astype(dtype)[None]
    if data_format == "channels_first":
        activation = np.ascontiguousarray(np.moveaxis(activation, -1, 1))
    return make_tasks([activation], data_format)


def count_repetitions(shape: Shape) -> int:
    """Return how often a run draws a layer, so that most draws find the layer in the caches."""
    return max(1, 30_000_000 // math.prod(shape))


def format_shape(shape: Shape) -> str:
    return " x ".join(map(str, shape))


class LayerCases:
    """The cases and targets of a group in which each run draws one layer repeatedly."""

    def __init__(self) -> None:
        self.cases: dict[str, Prepare] = {}
        self.counts: dict[str, float] = {}
        self.targets: list[Target] = []

    def add(
        self, name: str, shape: Shape, prepare: Callable[[list[PaintTask]], Run], *layout: str
    ) -> None:
        count = self.counts[name] = count_repetitions(shape)

        def prepare_repeated() -> Run:
            draw = prepare(make_layer_tasks(shape, *layout))

            def run() -> None:
                for _ in range(count):
                    draw()

            return run

        self.cases[name] = prepare_repeated

    def make_group(self, title: str) -> Group:
        return Group(title, self.cases, tuple(self.targets), count=self.counts)


def make_size_group() -> Group:
    layers = LayerCases()
    for shape in SHAPES:
        size = format_shape(shape)
        one_thread, two_threads = f"{size}, 1 thread", f"{size}, 2 threads"
        one_read, two_reads = f"{size}, one read, one write", f"{size}, two reads, one write"
        layers.add(one_read, shape, partial(prepare_memory_bound, reads=1))
        layers.add(two_reads, shape, partial(prepare_memory_bound, reads=2))
        layers.add(one_thread, shape, prepare_kernel)
        layers.add(two_threads, shape, partial(prepare_kernel, threads=2))
        layers.targets += [
            Target(f"{size}, over one read, one write", one_thread, one_read, 9, 1.3),
            Target(f"{size}, over two reads, one write", one_thread, two_reads, 6, 1.3),
        ]
        if math.prod(shape) > 1 << 18:  # smaller layers are drawn by one thread
            layers.targets.append(
                Target(f"{size}, 2 threads over 1", one_thread, two_threads, 1.4, 1.7, True)
            )
    return layers.make_group("kernel by size of the layer, drawn repeatedly, float32")


def make_dtype_group() -> Group:
    layers = LayerCases()
    for shape in ((56, 56, 256), (224, 224, 3), (7, 7, 512)):
        for dtype in DTYPE_NAMES:
            floor = f"{format_shape(shape)} {dtype}, two reads, one write"
            layers.add(floor, shape, partial(prepare_memory_bound, reads=2), dtype)
            for data_format in ("channels_last", "channels_first"):
                name = f"{format_shape(shape)} {dtype}, {data_format.replace('_', ' ')}"
                layers.add(name, shape, prepare_kernel, dtype, data_format)
                layers.targets.append(Target(f"{name}, over the floor", name, floor, 16, 1.3))
    return layers.make_group("kernel by dtype and layout, drawn repeatedly, 1 thread")


SHAPES: list[Shape] = [
    (448, 448, 128),  # 103 MB, more than the last-level cache of most processors
    (224, 224, 64),
    (112, 112, 128),
    (56, 56, 256),
    (28, 28, 512),
    (14, 14, 512),
    (7, 7, 512),
    (224, 224, 16),
    (224, 224, 8),
    (224, 224, 3),
]
SIZES = make_size_group()
DTYPES = make_dtype_group()


# --- bandwidth of memory ---


def prepare_bandwidth(shape: Shape, threads: int) -> Callable[[], float]:
    """Prepare the measurement of how fast threads read a layer together, in GB/s."""
    tasks = make_layer_tasks(shape)
    values = _get_memory(tasks[0].tiles).view(np.uint32)
    count = count_repetitions(shape)

    def read(part: Array) -> None:
        for _ in range(count):
            part.max()

    def run() -> float:
        with ThreadPoolExecutor(threads) as pool:
            start = perf_counter()
            list(pool.map(read, np.array_split(values, threads)))
            return values.nbytes * count / (perf_counter() - start) / 1e9

    return run


BANDWIDTH = Group(
    "bandwidth of reading, by size of a layer",
    {
        f"{format_shape(shape)}, {name}": partial(prepare_bandwidth, shape, threads)
        for shape in SHAPES[:3]
        for threads, name in ((1, "1 thread"), (2, "2 threads"))
    },
    unit="GB/s",
)


# --- layouts of the whole workload ---


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
