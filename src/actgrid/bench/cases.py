"""Benchmark cases of the regression check, each with a yardstick.

A yardstick is a fixed computation with NumPy, zlib or Python. A recorded time is a ratio to the
yardstick. Therefore never change a yardstick, or the inputs of a case: add a new case with a new
name instead.

Worker processes also run these cases on other builds of actgrid. Each case imports actgrid only
when it is prepared, so that a case which another build cannot run does not affect other cases.
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

__all__ = ["Case", "make_cases"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """Record of a benchmark case: a function of actgrid and a fixed computation.

    Parameters
    ----------
    ours : callable
        Prepares the case, and returns the function to time.
    yardstick : callable
        Prepares the fixed computation, and returns the function to time.

    Examples
    --------
    >>> case = actgrid.bench.make_cases(quick=True)["encode"]
    >>> compress = case.yardstick()
    >>> len(compress()) > 0
    True
    """

    ours: Prepare
    yardstick: Prepare


# --- yardsticks ---


def _prepare_arithmetic() -> Run:
    """Prepare a benchmark of vector arithmetic like that of the C++ core.

    Returns
    -------
    callable
        Function that runs the benchmark once.
    """
    values = _make_activation((1 << 14,))
    scratch, levels = np.empty_like(values), np.empty(values.size, np.uint8)

    def run() -> None:
        for _ in range(16):
            np.multiply(values, np.float32(64), out=scratch)
            np.add(scratch, np.float32(128), out=scratch)
            np.clip(scratch, 0, 255, out=scratch)
            np.copyto(levels, scratch, casting="unsafe")

    return run


def _prepare_deflate() -> Run:
    """Prepare a benchmark of compression with zlib.

    Returns
    -------
    callable
        Function that runs the benchmark once.
    """
    data = _make_levels(100, 200).tobytes()
    return lambda: zlib.compress(data, 1)


def _prepare_interpreter() -> Run:
    """Prepare a benchmark of a Python loop and NumPy calls on a small array.

    Returns
    -------
    callable
        Function that runs the benchmark once.
    """
    ones = np.ones(8)

    def run() -> int:
        total = 0
        for i in range(6000):
            total += i * i % 7
        for _ in range(100):
            ones.sum()
        return total

    return run


# --- inputs ---


@cache
def _make_activation(shape: tuple[int, ...]) -> Array:
    """Return random float32 values of which half are zero, like the output of a ReLU."""
    return np.maximum(np.random.default_rng(0).standard_normal(shape, np.float32), 0)


@cache
def _make_levels(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a uint8 picture with the compression ratio of a typical grid."""
    return (_make_activation((height, width)) * 80).astype(np.uint8)


def _to_channels_first(x: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, -1, 0))


_SHAPE = (56, 56, 128)

# Arrays (H, W, C). Each round copies them, because the address of an array affects the speed.
_ACTIVATIONS: dict[str, Callable[[], Array]] = {
    "float32": lambda: _make_activation(_SHAPE).copy(),
    "224 px": lambda: _make_activation((224, 224, 64)).copy(),
    "7 px": lambda: _make_activation((7, 7, 512)).copy(),
    "channels first": lambda: np.moveaxis(_to_channels_first(_make_activation(_SHAPE)), 0, -1),
    # 240, because strides of a power of two map to few sets of the cache, with random effect.
    "every second channel": lambda: _make_activation((56, 56, 240)).copy()[..., ::2],
    "reversed": lambda: _make_activation((56, 56, 120)).copy()[::-1, ::-1, ::-1],
    "float16": lambda: _make_activation(_SHAPE).astype(np.float16),
    "float64": lambda: _make_activation(_SHAPE).astype(np.float64),
    "uint8": lambda: (_make_activation(_SHAPE) * 80).astype(np.uint8),
}


def _make_bfloat16() -> Array:
    import ml_dtypes  # a dependency of TensorFlow

    return _make_activation(_SHAPE).astype(ml_dtypes.bfloat16)


# --- cases ---


def _prepare_measure(activation: Callable[[], Array]) -> Run:
    from actgrid.rendering.backends import load_backend
    from actgrid.rendering.tiles import tile

    tiles = tile(activation()).tiles
    return partial(load_backend().measure, tiles, 1)


def _prepare_paint(activation: Callable[[], Array]) -> Run:
    from actgrid.rendering.backends import load_backend
    from actgrid.rendering.layout import Layout
    from actgrid.rendering.normalize import parse_normalize
    from actgrid.rendering.tiles import tile

    tiles = tile(activation()).tiles
    channels, _, height, width = tiles.shape
    layout = Layout(channels, height, width, 16, 0)
    backend = load_backend()
    mapping = parse_normalize("standard").compute_mapping(
        tiles, backend.measure(tiles, 1), "channel", backend
    )
    origins = layout.compute_origins().reshape(-1, 1)
    return partial(backend.paint, tiles, mapping, origins, layout.make_canvas(0), 1)


def _prepare_percentiles() -> Run:
    from actgrid.rendering.backends import load_backend
    from actgrid.rendering.normalize import parse_normalize
    from actgrid.rendering.tiles import tile

    tiles = tile(_make_activation((28, 28, 32)).copy()).tiles
    backend = load_backend()
    stats = backend.measure(tiles, 1)
    return partial(parse_normalize("percentile").compute_mapping, tiles, stats, "channel", backend)


def _prepare_small_grids() -> Run:
    import actgrid

    activation = _make_activation((1, 8, 8, 16)).copy()

    def run() -> None:
        for _ in range(8):
            actgrid.render(activation, threads=1)

    return run


def _prepare_png() -> Run:
    from actgrid.encoding import encode_png
    from actgrid.rendering import palette

    return partial(encode_png, _make_levels(256, 400).copy(), palette("viridis"))


@cache
def _make_extractor() -> Any:
    """Return an `Extractor` of 17 layers that compute little.

    Its run time consists mostly of overhead.
    """
    from actgrid.models import Extractor
    from actgrid.models.frameworks import keras

    layers = keras().layers
    network = [keras().Input((32, 32, 3)), layers.Conv2D(8, 3)]
    return Extractor(keras().Sequential(network + [layers.ReLU() for _ in range(16)]))


def _prepare_extraction() -> Run:
    extractor, batch = _make_extractor(), _make_activation((1, 32, 32, 3)).copy()

    def run() -> None:
        for _ in range(2):
            extractor(batch)

    return run


def _prepare_files() -> Run:
    from actgrid.demo import photo
    from actgrid.runs.processing import ProcessingOptions
    from actgrid.runs.run_spec import RunSpec
    from actgrid.runs.sources import find_items

    extractor, images = _make_extractor(), find_items([photo()] * 2)
    options = ProcessingOptions({}, threads=1)
    # Files in memory: the speed of disks varies.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            for _ in RunSpec(None, options, folder).process(extractor, images.start()):
                pass

    return run


def _repeat(count: int, yardstick: Prepare) -> Prepare:
    def prepare() -> Run:
        run_once = yardstick()

        def run() -> None:
            for _ in range(count):
                run_once()

        return run

    return prepare


def make_cases(quick: bool = False) -> dict[str, Case]:
    """Return the benchmark cases of the regression check.

    All cases use one thread: the gain of a second thread depends on other load of the machine.

    Parameters
    ----------
    quick : bool
        Whether to return only the cases that need no TensorFlow.

    Returns
    -------
    dict
        Name -> Case.

    Examples
    --------
    >>> "encode" in actgrid.bench.make_cases(quick=True)
    True
    """
    activations = dict(_ACTIVATIONS)
    if not quick:
        activations["bfloat16"] = _make_bfloat16
    cases: dict[str, Case] = {}
    for name, activation in activations.items():
        yardstick = _repeat(8, _prepare_arithmetic) if name == "224 px" else _prepare_arithmetic
        cases[f"measure, {name}"] = Case(partial(_prepare_measure, activation), yardstick)
        cases[f"paint, {name}"] = Case(partial(_prepare_paint, activation), yardstick)
    cases["percentiles"] = Case(_prepare_percentiles, _prepare_interpreter)
    cases["small grids"] = Case(_prepare_small_grids, _prepare_interpreter)
    cases["encode"] = Case(_prepare_png, _prepare_deflate)
    if not quick:
        cases["extract"] = Case(_prepare_extraction, _repeat(4, _prepare_interpreter))
        cases["image to files"] = Case(_prepare_files, _repeat(20, _prepare_deflate))
    return cases
