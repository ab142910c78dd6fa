"""Many images: how many a second, against the forward pass alone."""

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
# What is chosen of each network: all that `actgrid render` draws by itself, or a part.
_NETWORKS: dict[str, tuple[str, object]] = {
    "VGG16, 18 layers": ("VGG16", LAYERS),
    "embedded network, all 141 layers": ("demo", None),
    "embedded network, 33 ReLU layers": ("demo", "*_relu"),
}


@cache
def network(name: str) -> Any:
    return vgg16().model if name == "VGG16" else actgrid.load_model("demo")


def files(count: int) -> list[Path]:
    return [photos()[index % len(photos())] for index in range(count)]


@cache
def batch(name: str) -> Array:
    return actgrid.load_images(files(_BATCH), model=network(name))


def forward(name: str) -> Run:
    """Run the compiled network alone, on images that are loaded already."""
    import tensorflow as tf

    model, images = network(name), tf.constant(batch(name))
    compiled = tf.function(lambda x: model(x, training=False))
    compiled(images)

    def run() -> None:
        for _ in range(-(-_COUNT // _BATCH)):
            compiled(images).numpy()

    return run


def extraction(name: str, layers: Any) -> Run:
    """Run the network and let it hand out its layers, which nobody looks at."""
    found, images = actgrid.Extractor(network(name), layers), batch(name)
    found(images)

    def run() -> None:
        for _ in range(-(-_COUNT // _BATCH)):
            found(images)

    return run


def run_images(
    name: str, layers: Any, count: int, each: Callable[[int], None] = lambda done: None, **work: Any
) -> None:
    """Do a run over so many photo files, in memory: disks have moods."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="actgrid-benchmarks-", dir=memory)
    try:
        run = ImageRun(
            network(name), files(count), layers, output=folder, batch_size=_BATCH, **work
        )
        for record in run:
            assert not record.failed
            each(record.index + 1)
    finally:
        shutil.rmtree(folder)


def images(name: str, layers: Any, **work: Any) -> Run:
    run_images(name, layers, _BATCH, **work)  # what is only done once is done
    return partial(run_images, name, layers, _COUNT, **work)


def _rate(reached: float, alone: float) -> float:
    """Return the share of the forward pass's images per second."""
    return alone / reached


def _group(title: str, name: str, layers: Any) -> Group:
    cases: Mapping[str, Any] = {
        "forward pass alone": partial(forward, name),
        "forward pass that hands out the layers": partial(extraction, name, layers),
        "statistics only, from files": partial(images, name, layers, top=9),
        "drawing, files to files": partial(images, name, layers, drawing=_DRAWING),
        "drawing and statistics": partial(images, name, layers, drawing=_DRAWING, top=9),
    }
    targets = (
        Target(
            "images/s with statistics over forward alone",
            "statistics only, from files",
            "forward pass alone",
            0.9,
            least=True,
            how=_rate,
        ),
        Target(
            "images/s with drawing over forward alone",
            "drawing, files to files",
            "forward pass alone",
            0.7,
            least=True,
            how=_rate,
        ),
    )
    return Group(
        f"{_COUNT} images, ms each: {title}",
        cases,
        targets,
        count=dict.fromkeys(cases, _COUNT),
        most_rounds=1,
    )


THROUGHPUT: dict[str, Group] = {
    f"throughput-{number}": _group(title, *chosen)
    for number, (title, chosen) in enumerate(_NETWORKS.items(), 1)
}


def on_ray() -> Run:
    from actgrid.runs.ray import RayEngine

    engine = RayEngine(actors=2, model=partial(actgrid.load_model, "demo"))
    work: dict[str, Any] = {"drawing": _DRAWING, "shard_size": 25}
    return partial(run_images, "demo", "*_relu", _COUNT, engine=engine, **work)


RAY = Group(
    f"{_COUNT} images, ms each: embedded network, 33 ReLU layers, drawing",
    {
        "local": partial(images, "demo", "*_relu", drawing=_DRAWING, shard_size=25),
        "Ray, two actors, with their start": on_ray,
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
    most_rounds=1,
)
