"""`actgrid.render_images` and `actgrid.measure_images`: a model over many images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actgrid.errors import RunError
from actgrid.models.types import LayersLike, ModelLike
from actgrid.progress import progress as shown
from actgrid.rendering.layout import integer_option
from actgrid.runs.jobs import Loading
from actgrid.runs.runs import Engine, Run, Summary, local
from actgrid.statistics.dataset import DatasetStats

__all__ = ["measure_images", "render_images"]


def render_images(
    model: ModelLike,
    inputs: Any,
    output: str | Path,
    layers: LayersLike = None,
    *,
    statistics: bool = False,
    top: int = 9,
    size: int | tuple[int, int] | None = None,
    preprocess: str | Callable[[Any], Any] | None = "auto",
    fit: str = "crop",
    suffix: str = ".png",
    compression: str = "fast",
    sink: str = "folders",
    batch_size: int = 8,
    shard_size: int = 100,
    threads: int | None = None,
    on_error: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    engine: Engine = local,
    progress: bool = False,
    **render_options: Any,
) -> Summary:
    """Draw a model's layers for many images, to files.

    Images are streamed: while the model runs on a batch, the next ones are loaded, and the last
    one is drawn and written. What is written does not depend on threads or timing. A run that was
    stopped, however, goes on with `resume` to the same bytes.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    inputs
        Image files, folders (recursively), globs, ``.txt`` lists of paths, or several of these; a
        `tf.data.Dataset` of images, (image, label) or batches of these; an iterable of arrays of
        pixels 0 to 255 or Pillow images, or of (image, label).
    output
        A folder, or a URL of fsspec's such as ``"s3://bucket/run"``. It gets the pictures;
        ``manifest.jsonl``, a line for each image with its status, files, dead channels by layer,
        milliseconds and error; and ``run.json``: the model's fingerprint, layers, options and
        versions.
    layers
        Which, see `actgrid.Extractor`; None: every one with a spatial output.
    statistics
        Also take statistics over all images, see `measure_images`.
    top
        For these, how many images to keep for each channel.
    size, preprocess, fit
        How images become the model's input, see `actgrid.load_images`; with ``preprocess=None``
        they are arrays that it takes as they are.
    suffix, compression
        Of the pictures, see `Grid.save`.
    sink
        ``"folders"``: a folder for each image, ``NN_layer.png`` and ``stats.json``; ``"tar"``: a
        tar file for each shard, as WebDataset reads them.
    batch_size
        Images in one run of the model.
    shard_size
        How many images that follow each other make a shard, which a batch never crosses: a tar
        file, a task of an engine, a step in which statistics are merged and kept.
    threads
        At most this many load, and as many draw; None: one for each processor.
    on_error
        ``"skip"``: an image that cannot be used is recorded in the manifest and left out;
        ``"raise"``: it stops the run. None: ``"raise"`` for files named one by one, else
        ``"skip"``.
    resume
        Go on where an earlier run of the same stopped; if there is none, begin.
    overwrite
        Replace an earlier run in `output`: every file that it recorded is removed first.
    engine
        Who does the work: this process, or an `actgrid.runs.RayEngine`.
    progress
        Show a progress bar, on a terminal.
    render_options
        Options of `actgrid.render`.

    Returns
    -------
    Summary
        How many images are recorded and how many of them failed.

    Raises
    ------
    RunError
        If `output` holds a run and neither `resume` nor `overwrite` is given, if the run to resume
        was of other options, which the message tells, or if another run is writing there. Also a
        ValueError.
    OutputError
        If something cannot be written; the run can be resumed. Also an OSError.
    ActgridError
        Whatever `load_model`, `Extractor`, `load_images` and `render` raise, before anything is
        written.

    Examples
    --------
    >>> summary = actgrid.render_images("demo", "photos", "out", "*_relu", resume=True)
    >>> summary.images, summary.failed
    (1000, 2)
    """
    run = Run(
        model,
        inputs,
        output,
        layers,
        drawing={"suffix": suffix, "compression": compression, **render_options},
        top=top if statistics else None,
        loading=Loading(size, preprocess, fit),
        sink=sink,
        batch_size=batch_size,
        shard_size=shard_size,
        threads=threads,
        on_error=on_error,
        resume=resume,
        overwrite=overwrite,
        engine=engine,
    )
    return _carried_out(run, progress)


def measure_images(
    model: ModelLike,
    inputs: Any,
    layers: LayersLike = None,
    *,
    output: str | Path | None = None,
    top: int = 9,
    top_channels: int | None = 8,
    size: int | tuple[int, int] | None = None,
    preprocess: str | Callable[[Any], Any] | None = "auto",
    fit: str = "crop",
    batch_size: int = 8,
    shard_size: int = 100,
    threads: int | None = None,
    on_error: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    engine: Engine = local,
    progress: bool = False,
) -> DatasetStats:
    """Measure every channel of a model's layers over many images, without drawing.

    Parameters
    ----------
    model, inputs, layers
        As for `render_images`.
    output
        A folder or URL, which gets ``stats.npz``, ``summary.json``, ``report.html``, the sheets
        ``top/NN_layer.png``, and the manifest of `render_images`; None: nothing is kept.
    top
        How many images to keep for each channel: those with its largest values.
    top_channels
        How many channels of each layer are shown with their top images in sheets and report,
        those with the largest values; None: all that are not dead.
    size, preprocess, fit, batch_size, shard_size, threads, on_error, resume, overwrite, engine
        As for `render_images`.
    progress
        Show a progress bar, on a terminal.

    Returns
    -------
    DatasetStats
        By layer and channel mean, standard deviation, extremes, share of zeros, how many images
        activate it, and which do most.

    Raises
    ------
    RunError
        If no image could be used and there is no `output`, whose manifest would tell. Also a
        ValueError.
    ActgridError
        Whatever `render_images` raises.

    Examples
    --------
    >>> stats = actgrid.measure_images("demo", "photos", "*_relu", output="stats")
    >>> stats.layers["stem_relu"].dead.sum()
    4
    """
    if top_channels is not None:
        integer_option("top_channels", top_channels, 1)

    def measure(folder: str | Path) -> Run:
        return Run(
            model,
            inputs,
            folder,
            layers,
            top=top,
            loading=Loading(size, preprocess, fit),
            batch_size=batch_size,
            shard_size=shard_size,
            threads=threads,
            on_error=on_error,
            resume=resume,
            overwrite=overwrite,
            engine=engine,
        )

    if output is not None:
        found = _carried_out(measure(output), progress, top_channels).statistics
    else:
        with tempfile.TemporaryDirectory(prefix="actgrid-") as folder:
            found = _carried_out(measure(folder), progress, kept=False).statistics
    assert found is not None
    return found


def _carried_out(run: Run, progress: bool, channels: int | None = 8, kept: bool = True) -> Summary:
    problem = None
    with run:
        with shown(run.total, run.doing, progress, run.recorded) as advance:
            for record in run:
                problem = problem or record.error
                advance()
        summary = run.summary()
        if not kept and summary.failed and summary.failed == summary.images:
            raise RunError(f"none of {summary.images:,} images could be used; the first: {problem}")
        if kept and run.summary().statistics is not None:
            run.finish(channels)
        return run.summary()
