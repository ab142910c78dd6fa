"""Cases to time, each beside a yardstick.

A yardstick is fixed work of NumPy, zlib or Python.

A recorded figure is a ratio to its yardstick, so figures last only as long as the yardsticks:
never change them, nor the inputs of a case. A changed case is a new case with a new name.

A worker process runs these cases on another build of actgrid too. So each case imports what it
needs of actgrid when it is prepared: a case that another build cannot run leaves the others alone.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from actgrid.bench.measuring import Prepare, Run

__all__ = ["Case", "bench_cases"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """Work of ours, and the fixed work that it is measured against."""

    ours: Prepare
    yardstick: Prepare


# --- yardsticks ---


def _arithmetic() -> Run:
    """Scale, clip and narrow floats that stay in the cache: vector arithmetic, as in the core."""
    values = _relu((1 << 14,))
    scratch, levels = np.empty_like(values), np.empty(values.size, np.uint8)

    def run() -> None:
        for _ in range(16):
            np.multiply(values, np.float32(64), out=scratch)
            np.add(scratch, np.float32(128), out=scratch)
            np.clip(scratch, 0, 255, out=scratch)
            np.copyto(levels, scratch, casting="unsafe")

    return run


def _deflate() -> Run:
    """Deflate by zlib."""
    data = _levels(100, 200).tobytes()
    return lambda: zlib.compress(data, 1)


def _interpreter() -> Run:
    """Run Python's own loop, and NumPy on next to nothing."""
    few = np.ones(8)

    def run() -> int:
        total = 0
        for i in range(6000):
            total += i * i % 7
        for _ in range(100):
            few.sum()
        return total

    return run


# --- inputs ---


@cache
def _relu(shape: tuple[int, ...]) -> Array:
    """Return float32 values, half of them zero, as after a ReLU."""
    return np.maximum(np.random.default_rng(0).standard_normal(shape, np.float32), 0)


@cache
def _levels(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a picture that deflates about as well as a drawn grid."""
    return (_relu((height, width)) * 80).astype(np.uint8)


def _first(x: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, -1, 0))


_SHAPE = (56, 56, 128)

# (H, W, C), of which every round copies: where in memory an array lies matters too.
_ACTIVATIONS: dict[str, Callable[[], Array]] = {
    "float32": lambda: _relu(_SHAPE).copy(),
    "224 px": lambda: _relu((224, 224, 64)).copy(),
    "7 px": lambda: _relu((7, 7, 512)).copy(),
    "channels first": lambda: np.moveaxis(_first(_relu(_SHAPE)), 0, -1),
    # Steps that are powers of two would crowd a few sets of the cache: how much so is chance.
    "every second channel": lambda: _relu((56, 56, 240)).copy()[..., ::2],
    "reversed": lambda: _relu((56, 56, 120)).copy()[::-1, ::-1, ::-1],
    "float16": lambda: _relu(_SHAPE).astype(np.float16),
    "float64": lambda: _relu(_SHAPE).astype(np.float64),
    "uint8": lambda: (_relu(_SHAPE) * 80).astype(np.uint8),
}


def _bfloat16() -> Array:
    import ml_dtypes  # it comes with TensorFlow

    return _relu(_SHAPE).astype(ml_dtypes.bfloat16)


# --- ours ---


def _measuring(activation: Callable[[], Array]) -> Run:
    from actgrid.rendering.backends import load_backend
    from actgrid.rendering.tiles import tile

    tiles = tile(activation()).tiles
    return partial(load_backend().measure, tiles, 1)


def _painting(activation: Callable[[], Array]) -> Run:
    from actgrid.rendering.backends import load_backend
    from actgrid.rendering.layout import Layout
    from actgrid.rendering.normalize import parse_normalize
    from actgrid.rendering.tiles import tile

    tiles = tile(activation()).tiles
    channels, _, height, width = tiles.shape
    layout = Layout(channels, height, width, 16, 0)
    backend = load_backend()
    mapping = parse_normalize("standard").mapping(
        tiles, backend.measure(tiles, 1), "channel", backend
    )
    origins = layout.origins().reshape(-1, 1)
    return partial(backend.paint, tiles, mapping, origins, layout.canvas(0), 1)


def _percentiles() -> Run:
    from actgrid.rendering.backends import load_backend
    from actgrid.rendering.normalize import parse_normalize
    from actgrid.rendering.tiles import tile

    tiles = tile(_relu((28, 28, 32)).copy()).tiles
    backend = load_backend()
    stats = backend.measure(tiles, 1)
    return partial(parse_normalize("percentile").mapping, tiles, stats, "channel", backend)


def _small_grids() -> Run:
    import actgrid

    activation = _relu((1, 8, 8, 16)).copy()

    def run() -> None:
        for _ in range(8):
            actgrid.render(activation, threads=1)

    return run


def _png() -> Run:
    from actgrid.encoding import encode_png
    from actgrid.rendering import palette

    return partial(encode_png, _levels(256, 400).copy(), palette("viridis"))


@cache
def _extractor() -> Any:
    """Return an extractor of 17 layers that cost next to nothing: the rest is ours."""
    from actgrid.models import Extractor
    from actgrid.models.frameworks import keras

    layers = keras().layers
    network = [keras().Input((32, 32, 3)), layers.Conv2D(8, 3)]
    return Extractor(keras().Sequential(network + [layers.ReLU() for _ in range(16)]))


def _extraction() -> Run:
    extractor, batch = _extractor(), _relu((1, 32, 32, 3)).copy()

    def run() -> None:
        for _ in range(2):
            extractor(batch)

    return run


def _files() -> Run:
    from actgrid.demo import photo
    from actgrid.runs.jobs import Job
    from actgrid.runs.sources import find_items
    from actgrid.runs.work import Work

    extractor, images = _extractor(), find_items([photo()] * 2)
    work = Work({}, threads=1)
    # Disks have moods.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            for _ in Job(None, work, folder).run(extractor, images.start()):
                pass

    return run


def _times(count: int, yardstick: Prepare) -> Prepare:
    def prepare() -> Run:
        once = yardstick()

        def run() -> None:
            for _ in range(count):
                once()

        return run

    return prepare


def bench_cases(quick: bool = False) -> dict[str, Case]:
    """Return the cases by name; the `quick` ones need no TensorFlow.

    All drawing is on one thread: what a second one brings depends on who else uses the machine.
    """
    activations = dict(_ACTIVATIONS)
    if not quick:
        activations["bfloat16"] = _bfloat16
    cases: dict[str, Case] = {}
    for name, activation in activations.items():
        yardstick = _times(8, _arithmetic) if name == "224 px" else _arithmetic
        cases[f"measure, {name}"] = Case(partial(_measuring, activation), yardstick)
        cases[f"paint, {name}"] = Case(partial(_painting, activation), yardstick)
    cases["percentiles"] = Case(_percentiles, _interpreter)
    cases["small grids"] = Case(_small_grids, _interpreter)
    cases["encode"] = Case(_png, _deflate)
    if not quick:
        cases["extract"] = Case(_extraction, _times(4, _interpreter))
        cases["image to files"] = Case(_files, _times(20, _deflate))
    return cases
