"""Benchmarks of each stage from activations to files, against the floor of the stage."""

from __future__ import annotations

import atexit
import os
import shutil
from functools import cache, partial
from pathlib import Path

import numpy as np
from isal import isal_zlib

import actgrid
from actgrid.bench import Run
from actgrid.models.drawing import draw_layers
from actgrid.rendering import encode_picture
from benchmarks.kernel import prepare_memory_bound
from benchmarks.suite import Group, Target
from benchmarks.workload import Array, make_memory_folder, make_tasks

__all__ = ["STAGES"]

_RAW_DEFLATE = -15


@cache
def make_extractor() -> actgrid.Extractor:
    return actgrid.Extractor(actgrid.load_model("demo"))


@cache
def load_photo() -> Array:
    return actgrid.load_images(actgrid.demo.photo(), model=make_extractor().model)


@cache
def make_activations() -> dict[str, Array]:
    return make_extractor()(load_photo())


@cache
def make_grids() -> list[actgrid.Grid]:
    return list(draw_layers(make_extractor().layers, make_activations()).values())


@cache
def encode_grids() -> list[list[bytes]]:
    return [encode_picture(grid, "grid.png", threads=1) for grid in make_grids()]


def prepare_forward() -> Run:
    import tensorflow as tf

    model, x = make_extractor().model, tf.constant(load_photo())
    compiled = tf.function(lambda x: model(x, training=False))
    compiled(x)
    return lambda: compiled(x).numpy()


def prepare_drawing(threads: int) -> Run:
    infos, activations = make_extractor().layers, make_activations()
    return lambda: draw_layers(infos, activations, threads=threads)


def prepare_render_calls() -> Run:
    def run() -> None:
        for activation in make_activations().values():
            actgrid.render(activation, threads=1)

    return run


def prepare_isal() -> Run:
    rows = [np.ascontiguousarray(grid.levels) for grid in make_grids()]

    def run() -> None:
        for levels in rows:
            isal_zlib.compress(levels, 1, _RAW_DEFLATE)

    return run


def prepare_encoding() -> Run:
    grids = make_grids()

    def run() -> None:
        for grid in grids:
            encode_picture(grid, "grid.png", threads=1)

    return run


@cache
def make_output_folder() -> Path:
    """Return a folder in memory that is removed at exit."""
    path = make_memory_folder()
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def prepare_raw_writing() -> Run:
    files = [
        (str(make_output_folder() / f"{i}"), b"".join(p)) for i, p in enumerate(encode_grids())
    ]

    def run() -> None:
        for path, data in files:
            file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.write(file, data)
            os.close(file)

    return run


def prepare_atomic_writing() -> Run:
    from actgrid.encoding import write_file

    files = [(make_output_folder() / f"{i}.png", pieces) for i, pieces in enumerate(encode_grids())]

    def run() -> None:
        for path, pieces in files:
            write_file(path, *pieces)

    return run


STAGES = Group(
    "stages of one image, EfficientNet-Lite0, all 141 layers, 22 megapixels, 1 thread",
    {
        "forward pass alone": prepare_forward,
        "extraction of 141 layers": lambda: partial(make_extractor(), load_photo()),
        "floor: one read, one write": lambda: prepare_memory_bound(
            make_tasks(list(make_activations().values())), 1
        ),
        "drawing in one call": lambda: prepare_drawing(1),
        "drawing in one call, 2 threads": lambda: prepare_drawing(2),
        "drawing by actgrid.render, 141 calls": prepare_render_calls,
        "floor: ISA-L level 1": prepare_isal,
        "encoding as PNG": prepare_encoding,
        "floor: open, write, close": prepare_raw_writing,
        "writing, atomically": prepare_atomic_writing,
    },
    (
        Target("extraction over forward", "extraction of 141 layers", "forward pass alone", 2, 1.5),
        Target(
            "drawing over its floor", "drawing in one call", "floor: one read, one write", 3, 1.5
        ),
        Target("encoding over ISA-L", "encoding as PNG", "floor: ISA-L level 1", 1.5, 1),
        Target("writing over its floor", "writing, atomically", "floor: open, write, close", 1.5),
    ),
)
