"""Start and finish a run over many images, with its progress, events and summary."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import typer

from actgrid.cli import report
from actgrid.cli.command import Options
from actgrid.cli.loading import layer_choice, load_model, used_preprocessing
from actgrid.cli.messages import CommandStop
from actgrid.errors import OptionError, OutputError, suggest
from actgrid.options import DrawingOptions, ModelOptions, RayOptions, RunOptions
from actgrid.progress import progress
from actgrid.rendering.backends import load_backend
from actgrid.runs.manifest import Record
from actgrid.runs.runs import Run, Summary, check_start
from actgrid.runs.sources import find_items
from actgrid.runs.stores import local_folder, open_store

__all__ = ["finish_run", "start_run"]

_ENGINES = ("local", "ray")

_PROGRESS_SECONDS = 1.0
_SOME_FAILED, _INTERRUPTED = 1, 130


def start_run(
    model: str, images: list[str], options: Options, *, is_drawn: bool, top: int | None
) -> Run:
    """Return a run by the options of the command.

    Wrong options are found before the model loads.

    Parameters
    ----------
    is_drawn
        Whether layers are drawn.
    top
        Number of top images in statistics; None: no statistics.
    """
    check_start(options)
    if is_drawn:
        load_backend(options["backend"])
    output, engine, settings = options["output"], options["engine"], options.of(RunOptions)
    if engine not in _ENGINES:
        raise OptionError(
            f"--engine must be one of {', '.join(_ENGINES)}, not {engine!r}"
            f"{suggest(engine, _ENGINES)}"
        )
    items = find_items(images, local_folder(output))
    open_store(output)
    loaded = options.of(ModelOptions)
    if engine == "ray":
        from actgrid.runs.ray import RayEngine

        # Ray would tell of workers that died on standard output; it reads this once, when loaded.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        # TensorFlow would take all of a GPU, here where only workers need it.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        settings["engine"] = RayEngine(
            model=partial(load_model, model, **loaded), **options.of(RayOptions)
        )
    network = load_model(model, **loaded)
    used_preprocessing(network, options["preprocess"])  # which finish_run prints
    drawing: Any = options.of(DrawingOptions) if is_drawn else None
    layers = layer_choice(network, options["layers"])
    return Run(network, items, layers, output=output, drawing=drawing, top=top, **settings)


def finish_run(run: Run, options: Options) -> None:
    """Process the images of a run; print a line for each image and a summary, or events.

    Raises
    ------
    typer.Exit
        With code 1 if images failed.
    CommandStop, OutputError
        If it was stopped; the message tells how to go on.
    """
    as_json, top_channels = options["json"], options["top_channels"]
    pace = _Pace(run)
    before = run.recorded
    prepared = used_preprocessing(run.extractor.model, run.loading.preprocess)
    if as_json:
        about = report.preprocessing_as_dict(prepared)
        _tell(
            "start",
            output=run.store.place(),
            images=run.total,
            recorded=before,
            preprocessing=about,
        )
    with (
        run,
        progress(run.total, run.doing, done=before) as advance,
        _stopping(run),
    ):
        for record in run:
            figures = pace.figures() if pace.is_time() else None
            advance(pace.text(figures))
            if not as_json:
                print(_line(record, run), flush=True)
                continue
            _tell("image", **asdict(record))
            if figures is not None:
                _tell("progress", **figures)
        if run.summary().statistics is not None:
            run.finish(top_channels)
    summary = run.summary()
    if as_json:
        _tell(
            "end",
            output=summary.output,
            images=summary.images,
            failed=summary.failed,
            seconds=round(summary.seconds, 3),
            loads={name: round(load, 3) for name, load in pace.loads().items()},
        )
        _exit_if_failed(summary, options["quiet"])
        return
    is_summed_up = summary.images != 1 or summary.failed or summary.statistics is not None
    if is_summed_up:
        print()
    report.print_preprocessing(prepared)
    if is_summed_up:
        already = f" ({before:,} before)" if before else ""
        plural = "" if summary.images == 1 else "s"
        print(
            f"{summary.images:,} image{plural}{already}, {summary.failed:,} failed: "
            f"{summary.output}"
        )
    _exit_if_failed(summary, options["quiet"])


def _exit_if_failed(summary: Summary, quiet: bool) -> None:
    if not summary.failed:
        return
    if quiet:
        message = f"{summary.failed:,} of {summary.images:,} images failed: {summary.output}"
        raise CommandStop(message, _SOME_FAILED)
    raise typer.Exit(_SOME_FAILED)


@contextmanager
def _stopping(run: Run) -> Iterator[None]:
    """Say how far a run came that is stopped, and how to go on."""

    def state() -> str:
        of = f" of {run.total:,}" if run.total is not None else ""
        return f"{run.kept():,}{of} images are recorded, --resume goes on"

    try:
        yield
    except KeyboardInterrupt as error:
        raise CommandStop(f"interrupted: {state()}", _INTERRUPTED) from error
    except OutputError as error:
        raise OutputError(f"{error}; {state()}") from error


def _tell(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def _line(record: Record, run: Run) -> str:
    if record.failed:
        return f"{record.image}: failed: {record.error}"
    layers = f"{len(record.dead)} layer{'s' if len(record.dead) != 1 else ''}"
    channels = sum(info.channels or 0 for info in run.extractor.layers.values())
    dead = sum(record.dead.values())
    place = f": {run.store.place(record.files[0].rpartition('/')[0])}" if record.files else ""
    return f"{record.image}: {layers}, {channels:,} channels, {dead:,} dead{place}"


class _Pace:
    """Speed of a run, and load of its stages since the last figures."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._start = self._last = time.perf_counter()
        self._images = run.recorded
        self._seconds = dict(run.meter.seconds)
        self._text = ""

    def is_time(self) -> bool:
        """Return whether figures are due: at the first image, then once a second."""
        return not self._text or time.perf_counter() - self._last >= _PROGRESS_SECONDS

    def rate(self) -> float:
        """Return images per second."""
        passed = time.perf_counter() - self._start
        return (self._run.recorded - self._images) / passed if passed else 0.0

    def loads(self) -> dict[str, float]:
        """Return how many threads each stage has kept busy, on average."""
        passed = time.perf_counter() - self._start
        return {name: seconds / passed for name, seconds in self._run.meter.seconds.items()}

    def figures(self) -> dict[str, Any]:
        """Return what there is to say now; loads are those since this was asked last."""
        now = time.perf_counter()
        seconds = dict(self._run.meter.seconds)
        passed = now - self._last
        loads = {name: (seconds[name] - self._seconds[name]) / passed for name in seconds}
        self._last, self._seconds = now, seconds
        rate, total = self.rate(), self._run.total
        left = None if total is None or not rate else (total - self._run.recorded) / rate
        return {
            "recorded": self._run.recorded,
            "images_per_second": round(rate, 3),
            "seconds_left": None if left is None else round(left, 1),
            "loads": {name: round(load, 2) for name, load in loads.items()},
        }

    def text(self, figures: Mapping[str, Any] | None) -> str:
        """Return what stands beside the bar, by the last figures that there were."""
        if figures is not None:
            loads = " ".join(f"{name} {load:.1f}" for name, load in figures["loads"].items())
            self._text = f"{figures['images_per_second']:.1f} images/s  {loads}"
        return self._text
