"""Start a run over many images, and print its progress, events and summary."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import typer

from actgrid.cli import report
from actgrid.cli.command import Options
from actgrid.cli.explaining import parse_targets, read_labels_option
from actgrid.cli.loading import load_model, parse_layers, read_tokens, resolve_preprocessing
from actgrid.cli.messages import CommandStop
from actgrid.errors import OptionError, OutputError, suggest
from actgrid.options import (
    CompareModelsOptions,
    DrawingOptions,
    LoadedModelOptions,
    RayOptions,
    RunOptions,
)
from actgrid.progress import show_progress
from actgrid.rendering.backends import load_backend
from actgrid.runs.comparing import ComparisonRun
from actgrid.runs.manifest import Record
from actgrid.runs.runs import Run, Summary, check_start
from actgrid.runs.sample_items import find_run_items
from actgrid.runs.stores import find_local_folder, open_store
from actgrid.statistics.model_pair import ModelPair

__all__ = ["finish_run", "start_comparison", "start_run"]

_ENGINES = ("local", "ray")

_PROGRESS_SECONDS = 1.0
_SOME_FAILED, _INTERRUPTED = 1, 130


def start_run(
    model: str, images: list[str], options: Options, *, is_drawn: bool, top: int | None
) -> Run:
    """Check the options of a command that runs over many images, and create the run.

    Invalid options are reported before the model loads.

    Parameters
    ----------
    is_drawn
        Whether the run draws layers.
    top
        Number of top images per channel in the statistics; None: no statistics.

    Returns
    -------
    Run
        The run with its loaded model.
    """
    check_start(options)
    if is_drawn:
        load_backend(options["backend"])
    output, engine, settings = options["output"], options["engine"], options.select(RunOptions)
    if engine not in _ENGINES:
        raise OptionError(
            f"--engine must be one of {', '.join(_ENGINES)}, not {engine!r}"
            f"{suggest(engine, _ENGINES)}"
        )
    loaded = options.select(LoadedModelOptions)
    get_model = cache(partial(load_model, model, **loaded))
    settings["tokens"] = read_tokens(options["tokens"])
    items = find_run_items(images, find_local_folder(output), get_model, settings)
    open_store(output)
    if engine == "ray":
        from actgrid.runs.ray import RayEngine

        # Ray prints messages about dead workers on standard output; it reads this at import.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        # By default, TensorFlow takes all GPU memory, also in this process, which needs none.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        settings["engine"] = RayEngine(
            model=partial(load_model, model, **loaded), **options.select(RayOptions)
        )
    network = get_model()
    resolve_preprocessing(network, options["preprocess"])  # checks the option
    drawing: Any = options.select(DrawingOptions) if is_drawn else None
    if is_drawn:
        labels = read_labels_option(options["labels"])
        target = None if options["target"] is None else parse_targets([options["target"]], labels)
        drawing |= {"labels": labels, "target": target}
    layers = parse_layers(network, options["layers"])
    return Run(network, items, layers, output=output, drawing=drawing, top=top, **settings)


def start_comparison(model: str, other_model: str, images: list[str], options: Options) -> Run:
    """Check the options of `actgrid compare-models`, and create the run.

    Invalid options are reported before the models load.

    Returns
    -------
    ComparisonRun
        The run with its loaded models.
    """
    check_start(options)
    open_store(options["output"])
    settings = options.select(CompareModelsOptions)
    settings["tokens"] = read_tokens(options["tokens"])
    loaded = options.select(LoadedModelOptions)
    other = load_model(other_model, **loaded)
    network = load_model(model, **{**loaded, "edits": None})
    resolve_preprocessing(network, options["preprocess"])  # checks the option
    names = options["layers"]
    layers: Any = parse_layers(network, names)
    if names is not None and any("=" in name for name in names):
        pairs = (name.partition("=") for name in names)
        layers = {path: other_path or path for path, _, other_path in pairs}
    titles = Path(model).name, Path(other_model).name
    pair = ModelPair(network, other, layers, titles)
    return ComparisonRun(pair, images, output=options["output"], **settings)


def finish_run(run: Run, options: Options) -> None:
    """Process the images of a run and print its results.

    Raises
    ------
    typer.Exit
        With code 1 if images failed.
    CommandStop, OutputError
        If the run was stopped; the message says how to continue.
    """
    as_json, top_channels = options["json"], options["top_channels"]
    speed = _SpeedMeter(run)
    recorded_before = run.recorded
    # Samples that are no images are passed to the model unchanged.
    preprocessing = (
        None if run.loader.is_prepared else resolve_preprocessing(run.model, run.loader.preprocess)
    )
    if as_json:
        _print_event(
            "start",
            output=run.store.get_full_path(),
            images=run.total,
            recorded=recorded_before,
            preprocessing=report.preprocessing_as_dict(preprocessing),
        )
    with (
        run,
        show_progress(run.total, run.activity, completed=recorded_before) as advance,
        _report_interruption(run),
    ):
        for record in run:
            figures = speed.measure() if speed.is_due() else None
            advance(speed.describe(figures))
            if not as_json:
                print(_describe_record(record, run), flush=True)
                continue
            _print_event("image", **asdict(record))
            if figures is not None:
                _print_event("progress", **figures)
        if run.summary().statistics is not None:
            run.finish(top_channels)
    summary = run.summary()
    if as_json:
        _print_event(
            "end",
            output=summary.output,
            images=summary.images,
            failed=summary.failed,
            seconds=round(summary.seconds, 3),
            loads={name: round(load, 3) for name, load in speed.compute_loads().items()},
        )
        _exit_if_failed(summary, options["quiet"])
        return
    has_summary = summary.images != 1 or summary.failed or summary.statistics is not None
    if has_summary:
        print()
    report.print_preprocessing(preprocessing)
    if isinstance(run, ComparisonRun):
        report.print_comparison(run.comparison, options["sort_by"])
    if has_summary:
        earlier = f" ({recorded_before:,} before)" if recorded_before else ""
        plural = "" if summary.images == 1 else "s"
        print(
            f"{summary.images:,} image{plural}{earlier}, {summary.failed:,} failed: "
            f"{summary.output}"
        )
    _exit_if_failed(summary, options["quiet"])


def _exit_if_failed(summary: Summary, is_quiet: bool) -> None:
    if not summary.failed:
        return
    if is_quiet:
        message = f"{summary.failed:,} of {summary.images:,} images failed: {summary.output}"
        raise CommandStop(message, _SOME_FAILED)
    raise typer.Exit(_SOME_FAILED)


@contextmanager
def _report_interruption(run: Run) -> Iterator[None]:
    """Add the state of a run to the message if the ``with`` block is interrupted.

    The message gives the number of recorded images and how to continue the run.

    Raises
    ------
    CommandStop
        After a KeyboardInterrupt.
    OutputError
        If the results cannot be written.
    """

    def describe_state() -> str:
        total = f" of {run.total:,}" if run.total is not None else ""
        return f"{run.count_recorded():,}{total} images are recorded; continue with --resume"

    try:
        yield
    except KeyboardInterrupt as error:
        raise CommandStop(f"interrupted: {describe_state()}", _INTERRUPTED) from error
    except OutputError as error:
        raise OutputError(f"{error}; {describe_state()}") from error


def _print_event(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def _describe_record(record: Record, run: Run) -> str:
    if record.failed:
        return f"{record.image}: failed: {record.error}"
    if isinstance(run, ComparisonRun):
        return f"{record.image}: compared"
    layers = f"{len(record.dead)} layer{'s' if len(record.dead) != 1 else ''}"
    channels = sum(info.channels or 0 for info in run.extractor.layers.values())
    dead = sum(record.dead.values())
    folder = (
        f": {run.store.get_full_path(record.files[0].rpartition('/')[0])}" if record.files else ""
    )
    return f"{record.image}: {layers}, {channels:,} channels, {dead:,} dead{folder}"


class _SpeedMeter:
    """Meter of the speed of a run: images per second, busy threads of each stage."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._start = self._last_time = time.perf_counter()
        self._images_before = run.recorded
        self._last_seconds = dict(run.meter.seconds)
        self._description = ""

    def is_due(self) -> bool:
        """Return whether to measure the speed now: at the first image, then once a second."""
        elapsed = time.perf_counter() - self._last_time
        return not self._description or elapsed >= _PROGRESS_SECONDS

    def compute_rate(self) -> float:
        """Return the mean number of images per second since the meter was created."""
        elapsed = time.perf_counter() - self._start
        return (self._run.recorded - self._images_before) / elapsed if elapsed else 0.0

    def compute_loads(self) -> dict[str, float]:
        """Return the mean number of busy threads since the meter was created.

        Returns
        -------
        dict
            Name of the stage -> number.
        """
        elapsed = time.perf_counter() - self._start
        return {name: seconds / elapsed for name, seconds in self._run.meter.seconds.items()}

    def measure(self) -> dict[str, Any]:
        """Return the progress and speed of the run now.

        Returns
        -------
        dict
            Recorded images, images per second, estimated seconds left, and `loads`. The loads are
            the mean numbers of busy threads of each stage since the previous measurement.
        """
        now = time.perf_counter()
        seconds = dict(self._run.meter.seconds)
        elapsed = now - self._last_time
        loads = {name: (seconds[name] - self._last_seconds[name]) / elapsed for name in seconds}
        self._last_time, self._last_seconds = now, seconds
        rate, total = self.compute_rate(), self._run.total
        seconds_left = None if total is None or not rate else (total - self._run.recorded) / rate
        return {
            "recorded": self._run.recorded,
            "images_per_second": round(rate, 3),
            "seconds_left": None if seconds_left is None else round(seconds_left, 1),
            "loads": {name: round(load, 2) for name, load in loads.items()},
        }

    def describe(self, figures: Mapping[str, Any] | None) -> str:
        """Return the text beside the progress bar.

        Parameters
        ----------
        figures
            Result of `measure`. None: the previous text is returned again.
        """
        if figures is not None:
            loads = " ".join(f"{name} {load:.1f}" for name, load in figures["loads"].items())
            self._description = f"{figures['images_per_second']:.1f} images/s  {loads}"
        return self._description
