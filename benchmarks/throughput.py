"""Benchmarks of runs over many images, against the forward pass alone."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import actgrid
from actgrid.bench import Run
from actgrid.runs import Run as ImageRun
from benchmarks.suite import Group, Target
from benchmarks.workload import LAYERS, Array, make_memory_folder, photos, vgg16

__all__ = ["RAY", "THROUGHPUT", "run_images"]

_BATCH = 8
_DRAWING = {"format": "png"}
# Title -> name of the network, selection of its layers (None: the default of actgrid render), and
# number of images. In shorter runs, filling the stages and finding top images would dominate.
_NETWORKS: dict[str, tuple[str, object, int]] = {
    "VGG16, 18 layers": ("VGG16", LAYERS, 128),
    "embedded network, all 141 layers": ("demo", None, 160),
    "embedded network, 33 ReLU layers": ("demo", "*_relu", 240),
}
# Images of the short and the long run that give the fixed and the proportional time of an engine.
_FEW, _MANY = 50, 200


@cache
def get_network(name: str) -> Any:
    return vgg16().model if name == "VGG16" else actgrid.load_model("demo")


def repeat_photos(count: int) -> list[Path]:
    return [photos()[index % len(photos())] for index in range(count)]


@cache
def load_batch(name: str) -> Array:
    return actgrid.load_images(repeat_photos(_BATCH), model=get_network(name))


def prepare_forward(name: str, count: int) -> Run:
    """Prepare the compiled forward pass alone, on images that are already loaded."""
    import tensorflow as tf

    model, images = get_network(name), tf.constant(load_batch(name))
    compiled = tf.function(lambda x: model(x, training=False))
    compiled(images)

    def run() -> None:
        for _ in range(count // _BATCH):
            compiled(images).numpy()

    return run


def prepare_extraction(name: str, layers: Any, count: int) -> Run:
    """Prepare the extraction of the activations of layers, without further processing."""
    extractor, images = actgrid.Extractor(get_network(name), layers), load_batch(name)
    extractor(images)

    def run() -> None:
        for _ in range(count // _BATCH):
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
    folder = str(make_memory_folder())
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


def prepare_run(name: str, layers: Any, count: int, **options: Any) -> Run:
    run_images(name, layers, _BATCH, **options)  # compile before timing
    return partial(run_images, name, layers, count, **options)


def _compare_rates(ours: float, forward: float) -> float:
    """Return images per second as a fraction of those of the forward pass alone."""
    return forward / ours


def _make_group(title: str, name: str, layers: Any, count: int) -> Group:
    cases: Mapping[str, Any] = {
        "forward pass alone": partial(prepare_forward, name, count),
        "forward pass that hands out the layers": partial(prepare_extraction, name, layers, count),
        "statistics only, from files": partial(prepare_run, name, layers, count, top=9),
        "drawing, files to files": partial(prepare_run, name, layers, count, drawing=_DRAWING),
        "drawing and statistics": partial(
            prepare_run, name, layers, count, drawing=_DRAWING, top=9
        ),
    }
    targets = (
        Target(
            "images/s with statistics over forward alone",
            "statistics only, from files",
            "forward pass alone",
            0.9,
            0.95,
            is_minimum=True,
            compare=_compare_rates,
        ),
        Target(
            "images/s with drawing over forward alone",
            "drawing, files to files",
            "forward pass alone",
            0.7,
            0.9,
            is_minimum=True,
            compare=_compare_rates,
        ),
    )
    return Group(
        f"{count} images, ms each: {title}",
        cases,
        targets,
        count=dict.fromkeys(cases, count),
        max_rounds=1,
    )


THROUGHPUT: dict[str, Group] = {
    f"throughput-{number}": _make_group(title, *network)
    for number, (title, network) in enumerate(_NETWORKS.items(), 1)
}


class EngineCost(NamedTuple):
    """Fixed seconds of a run, such as the start of workers, and milliseconds for each image."""

    fixed: float
    per_image: float


@cache
def measure_engine(name: str) -> EngineCost:
    """Time a short and a long run of an engine that draws layers of the embedded network."""
    options: dict[str, Any] = {"drawing": _DRAWING, "shard_size": 25}
    if name == "ray":
        from actgrid.runs.ray import RayEngine

        options["engine"] = RayEngine(actors=2, model=partial(actgrid.load_model, "demo"))
    seconds = []
    for count in (_FEW, _MANY):
        start = perf_counter()
        run_images("demo", "*_relu", count, **options)
        seconds.append(perf_counter() - start)
    per_image = (seconds[1] - seconds[0]) / (_MANY - _FEW)
    return EngineCost(seconds[0] - _FEW * per_image, per_image * 1e3)


def prepare_engine(select: Callable[[EngineCost, EngineCost], float]) -> Callable[[], float]:
    import ray  # noqa: F401  (raises ImportError if it is missing)

    return lambda: select(measure_engine("local"), measure_engine("ray"))


def find_break_even(local: EngineCost, ray: EngineCost) -> float:
    """Return the number of images from which on Ray is faster, or infinity."""
    gain = local.per_image - ray.per_image
    return (ray.fixed - local.fixed) * 1e3 / gain if gain > 0 else math.inf


_LOCAL_IMAGE, _RAY_IMAGE = "local: each image, ms", "Ray, two workers: each image, ms"
_RAY_FIXED = "Ray, two workers: start and end, s"

RAY = Group(
    f"engines on this machine, runs of {_FEW} and {_MANY} images, embedded network, 33 ReLU layers",
    {
        "local: start and end, s": partial(prepare_engine, lambda local, ray: local.fixed),
        _LOCAL_IMAGE: partial(prepare_engine, lambda local, ray: local.per_image),
        _RAY_FIXED: partial(prepare_engine, lambda local, ray: ray.fixed),
        _RAY_IMAGE: partial(prepare_engine, lambda local, ray: ray.per_image),
        "images from which on Ray is faster": partial(prepare_engine, find_break_even),
    },
    (
        Target("time of an image, Ray over local", _RAY_IMAGE, _LOCAL_IMAGE, 1.1, 1),
        Target("start and end of Ray", _RAY_FIXED, _RAY_FIXED, 15, compare=min, unit="s"),
    ),
    unit="",
    max_rounds=1,
)
