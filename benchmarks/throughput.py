"""Benchmarks of runs over many images, against the forward pass alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import actgrid
from actgrid.bench import Run
from actgrid.runs import Run as ImageRun
from benchmarks.suite import Group, Target
from benchmarks.workload import LAYERS, Array, photos, vgg16

__all__ = ["RAY", "THROUGHPUT", "run_images"]

_COUNT = 500
_BATCH = 8
_DRAWING = {"format": "png"}
# Title -> name of the network and selection of its layers; None: the default of actgrid render.
_NETWORKS: dict[str, tuple[str, object]] = {
    "VGG16, 18 layers": ("VGG16", LAYERS),
    "embedded network, all 141 layers": ("demo", None),
    "embedded network, 33 ReLU layers": ("demo", "*_relu"),
}


@cache
def get_network(name: str) -> Any:
    return vgg16().model if name == "VGG16" else actgrid.load_model("demo")


def repeat_photos(count: int) -> list[Path]:
    return [photos()[index % len(photos())] for index in range(count)]


@cache
def load_batch(name: str) -> Array:
    return actgrid.load_images(repeat_photos(_BATCH), model=get_network(name))


def prepare_forward(name: str) -> Run:
    """Prepare the compiled forward pass alone, on images that are already loaded."""
    import tensorflow as tf

    model, images = get_network(name), tf.constant(load_batch(name))
    compiled = tf.function(lambda x: model(x, training=False))
    compiled(images)

    def run() -> None:
        for _ in range(-(-_COUNT // _BATCH)):
            compiled(images).numpy()

    return run


def prepare_extraction(name: str, layers: Any) -> Run:
    """Prepare the extraction of the activations of layers, without further processing."""
    extractor, images = actgrid.Extractor(get_network(name), layers), load_batch(name)
    extractor(images)

    def run() -> None:
        for _ in range(-(-_COUNT // _BATCH)):
            extractor(images)

    return run


def run_images(
    name: str,
    layers: Any,
    count: int,
    report: Callable[[int], None] = lambda completed: None,
    **options: Any,
) -> None:
    """Process photo files with `actgrid.runs.Run`, with output to files in memory."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="actgrid-benchmarks-", dir=memory)
    try:
        run = ImageRun(
            get_network(name),
            repeat_photos(count),
            layers,
            output=folder,
            batch_size=_BATCH,
            **options,
        )
        for record in run:
            assert not record.failed
            report(record.index + 1)
    finally:
        shutil.rmtree(folder)


def prepare_run(name: str, layers: Any, **options: Any) -> Run:
    run_images(name, layers, _BATCH, **options)  # compile before timing
    return partial(run_images, name, layers, _COUNT, **options)


def _compare_rates(ours: float, forward: float) -> float:
    """Return images per second as a fraction of those of the forward pass alone."""
    return forward / ours


def _make_group(title: str, name: str, layers: Any) -> Group:
    cases: Mapping[str, Any] = {
        "forward pass alone": partial(prepare_forward, name),
        "forward pass that hands out the layers": partial(prepare_extraction, name, layers),
        "statistics only, from files": partial(prepare_run, name, layers, top=9),
        "drawing, files to files": partial(prepare_run, name, layers, drawing=_DRAWING),
        "drawing and statistics": partial(prepare_run, name, layers, drawing=_DRAWING, top=9),
    }
    targets = (
        Target(
            "images/s with statistics over forward alone",
            "statistics only, from files",
            "forward pass alone",
            0.9,
            is_minimum=True,
            compare=_compare_rates,
        ),
        Target(
            "images/s with drawing over forward alone",
            "drawing, files to files",
            "forward pass alone",
            0.7,
            is_minimum=True,
            compare=_compare_rates,
        ),
    )
    return Group(
        f"{_COUNT} images, ms each: {title}",
        cases,
        targets,
        count=dict.fromkeys(cases, _COUNT),
        max_rounds=1,
    )


THROUGHPUT: dict[str, Group] = {
    f"throughput-{number}": _make_group(title, *network)
    for number, (title, network) in enumerate(_NETWORKS.items(), 1)
}


def prepare_ray_run() -> Run:
    from actgrid.runs.ray import RayEngine

    engine = RayEngine(actors=2, model=partial(actgrid.load_model, "demo"))
    options: dict[str, Any] = {"drawing": _DRAWING, "shard_size": 25}
    return partial(run_images, "demo", "*_relu", _COUNT, engine=engine, **options)


RAY = Group(
    f"{_COUNT} images, ms each: embedded network, 33 ReLU layers, drawing",
    {
        "local": partial(prepare_run, "demo", "*_relu", drawing=_DRAWING, shard_size=25),
        "Ray, two actors, with their start": prepare_ray_run,
    },
    (
        Target(
            "Ray on the same two processors over local",
            "Ray, two actors, with their start",
            "local",
            2.0,
        ),
    ),
    count=dict.fromkeys(("local", "Ray, two actors, with their start"), _COUNT),
    max_rounds=1,
)
