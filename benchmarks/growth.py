"""Benchmarks of growth: time by channels, images, threads and image side."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import actgrid
from actgrid.bench import Run
from actgrid.rendering import encode_picture
from benchmarks.suite import Group, GroupResult
from benchmarks.workload import Array, folder

__all__ = ["GROWTH", "plot_growth"]

_CHANNELS = (64, 256, 1024, 4096, 16384)
_IMAGES = (10, 100, 1000, 10_000)
_SIDES = (32, 64, 128, 256, 512, 1024)
_PHOTOS = 20


@cache
def make_activation(side: int, channels: int) -> Array:
    random = np.random.default_rng(0)
    return np.maximum(random.standard_normal((1, side, side, channels), np.float32), 0)


def prepare_drawing(side: int, channels: int, threads: int = 1) -> Run:
    """Prepare the drawing of a layer to the bytes of a PNG file."""
    activation = make_activation(side, channels)

    def run() -> None:
        grid = actgrid.render(activation, threads=threads)
        encode_picture(grid, "grid.png", "fast", threads)

    return run


@cache
def make_network() -> Any:
    """Return a network of three small convolutions, for images of any size."""
    import keras

    keras.utils.set_random_seed(0)
    convolutions = [keras.layers.Conv2D(8, 3, activation="relu", padding="same") for _ in range(3)]
    return keras.Sequential([keras.Input((None, None, 3)), *convolutions])


def prepare_image(side: int) -> Run:
    """Prepare the way from an image through the network to the PNG files of its layers."""
    extractor = actgrid.Extractor(make_network())
    batch = np.random.default_rng(0).random((1, side, side, 3), np.float32)
    extractor(batch)

    def run() -> None:
        for activation in extractor(batch).values():
            actgrid.render(activation).to_png()

    return run


@cache
def write_thumbnails() -> list[Path]:
    files = [folder() / f"thumbnail-{number}.png" for number in range(_PHOTOS)]
    photo = actgrid.demo.photo().resize((32, 32))
    for number, file in enumerate(files):
        photo.rotate(360 / _PHOTOS * number).save(file)
    return files


def prepare_images(count: int) -> Run:
    """Prepare a run over image files of 32 x 32 pixels, to tar shards."""
    images = list(itertools.islice(itertools.cycle(write_thumbnails()), count))
    options: dict[str, Any] = {"size": 32, "preprocess": "unit", "sink": "tar"}

    def run() -> None:
        output = tempfile.mkdtemp(dir=folder())
        actgrid.render_images(make_network(), images, output=output, **options)
        shutil.rmtree(output)

    return run


def make_group(
    title: str,
    item: str,
    sizes: Iterable[int],
    prepare: Callable[[int], Run],
    max_rounds: int = 1000,
) -> Group:
    named_sizes = {f"{item}: {size:,}": float(size) for size in sizes}
    cases = {name: partial(prepare, int(size)) for name, size in named_sizes.items()}
    return Group(title, cases, max_rounds=max_rounds, sizes=named_sizes)


def list_thread_counts() -> list[int]:
    """Return 1, 2, 4 and so on up to the number of processors, at least 1 and 2."""
    processors = max(2, os.cpu_count() or 1)
    return sorted({2**power for power in range(processors.bit_length())} | {processors})


GROWTH: dict[str, Group] = {
    "growth-channels": make_group(
        "growth with channels: an activation of 14 x 14 to a PNG file, one thread",
        "channels",
        _CHANNELS,
        partial(prepare_drawing, 14),
    ),
    "growth-threads": make_group(
        "growth with threads: an activation of 112 x 112 x 512 to a PNG file",
        "threads",
        list_thread_counts(),
        partial(prepare_drawing, 112, 512),
    ),
    "growth-side": make_group(
        "growth with image side: an image to 3 PNG files of 8 channels, all threads",
        "pixels",
        _SIDES,
        prepare_image,
    ),
    "growth-images": make_group(
        "growth with images: files of 32 x 32 pixels to 3 pictures of 8 channels each",
        "images",
        _IMAGES,
        prepare_images,
        max_rounds=1,
    ),
}


def plot_growth(results: Iterable[GroupResult], path: Path) -> None:
    """Plot the times of all results that have sizes, on logarithmic axes, to a file."""
    from matplotlib.figure import Figure

    curves = [result for result in results if result.group.sizes]
    figure = Figure(figsize=(4 * len(curves), 3.6), layout="constrained")
    for axes, result in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        sizes = list(result.group.sizes.values())
        times = [result.median(name) for name in result.group.sizes]
        axes.loglog(sizes, times, "o-", label=f"exponent {result.exponent():.2f}")
        axes.set(title=result.group.title.partition(":")[0], ylabel="ms")
        axes.set_xlabel(next(iter(result.group.sizes)).partition(":")[0])
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)
