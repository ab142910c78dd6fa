"""The functions `actgrid.render_images` and `actgrid.measure_images`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Unpack, cast

from actgrid.errors import OptionError, RunError
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import (
    DrawingOptions,
    MeasureImagesOptions,
    RenderImagesOptions,
    RunOptions,
)
from actgrid.progress import show_progress
from actgrid.runs.runs import Run, Summary
from actgrid.statistics.dataset import DatasetStats

__all__ = ["measure_images", "process_run", "render_images"]


@takes_options(RenderImagesOptions)
def render_images(
    model: ModelLike,
    images: Any,
    layers: LayersLike = None,
    *,
    output: str | Path,
    **options: Unpack[RenderImagesOptions],
) -> Summary:
    """Draw the activation maps of many images, and write them to files.

    Images are streamed: while the model runs on a batch, the next images are loaded, and the
    previous ones are drawn and written. The written files do not depend on threads or timing. A run
    that was interrupted can be continued with `resume`, and then writes the same bytes.

    Parameters
    ----------
    model : keras.Model or str or pathlib.Path
        A Keras model, or a model specification, see `actgrid.load_model`.
    images : str, pathlib.Path, PIL.Image.Image, array, tf.data.Dataset or iterable
        Image files, folders (searched recursively), globs, ``.txt`` lists of paths, or several of
        these; a `tf.data.Dataset` of images, (image, label) or batches of these; an iterable of
        Pillow images or arrays (H, W, C) with values from 0 to 255, or of (image, label).
    layers : str, int, type, callable or sequence of these, optional
        Layers to draw, see `actgrid.Extractor`; None: all layers with a spatial output.
    output : str or pathlib.Path
        A folder, or an fsspec URL such as ``"s3://bucket/run"``. It receives the pictures;
        ``manifest.jsonl``, a line for each image with its status, files, dead channels by layer,
        milliseconds and error; and ``run.json``, the fingerprint of the model, layers, options and
        versions.
    **options
        See `actgrid.options.RenderImagesOptions`. With ``preprocess="prepared"``, images are arrays
        that are passed to the model unchanged.

    Returns
    -------
    Summary
        Number of recorded and failed images.

    Raises
    ------
    RunError
        If `output` contains a run and neither `resume` nor `overwrite` is given, if the run to
        resume has different options, or if another run is writing to `output`. Also a ValueError.
    OutputError
        If a file cannot be written; the run can be resumed. Also an OSError.
    ActgridError
        Errors of `load_model`, `Extractor`, `load_images` and `render`, raised before anything is
        written.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> images = np.zeros((2, 8, 8, 3), np.uint8)
    >>> summary = actgrid.render_images(model, images, output="out", preprocess="unit")
    >>> summary.images, summary.failed
    (2, 0)
    """
    run = Run(
        model,
        images,
        layers,
        output=output,
        drawing=cast(DrawingOptions, pick_options(options, DrawingOptions)),
        top=options["top"] if options["statistics"] else None,
        **cast(RunOptions, pick_options(options, RunOptions)),
    )
    return process_run(run, options["progress"], options["top_channels"])


@takes_options(MeasureImagesOptions)
def measure_images(
    model: ModelLike,
    images: Any,
    layers: LayersLike = None,
    *,
    output: str | Path | None = None,
    **options: Unpack[MeasureImagesOptions],
) -> DatasetStats:
    """Measure statistics of every channel of a model's layers over many images.

    Parameters
    ----------
    model : keras.Model or str or pathlib.Path
        A Keras model, or a model specification, see `actgrid.load_model`.
    images : str, pathlib.Path, PIL.Image.Image, array, tf.data.Dataset or iterable
        The images, see `render_images`.
    layers : str, int, type, callable or sequence of these, optional
        Layers to measure, see `actgrid.Extractor`; None: all layers with a spatial output.
    output : str or pathlib.Path or None
        A folder or URL. It receives ``stats.npz``, ``summary.json``, ``report.html``, the sheets
        ``top/NN_layer.png``, and the manifest of `render_images`; None: no files are written.
    **options
        See `actgrid.options.MeasureImagesOptions`.

    Returns
    -------
    DatasetStats
        For each layer and channel: mean, standard deviation, minimum, maximum, fraction of zeros,
        number of images that activate the channel, and the images that activate it most.

    Raises
    ------
    RunError
        If no image could be used and there is no `output`. Also a ValueError.
    ActgridError
        Errors of `render_images`.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> images = np.zeros((2, 8, 8, 3), np.uint8)
    >>> stats = actgrid.measure_images(model, images, preprocess="unit")
    >>> stats.images, int(stats.layers["conv"].dead.sum())
    (2, 4)
    """

    def measure(folder: str | Path) -> Run:
        return Run(
            model,
            images,
            layers,
            output=folder,
            top=options["top"],
            **cast(RunOptions, pick_options(options, RunOptions)),
        )

    progress = options["progress"]
    if output is None and (options["resume"] or options["overwrite"]):
        raise OptionError("resume and overwrite require output, the folder of the run")
    if output is not None:
        stats = process_run(measure(output), progress, options["top_channels"]).statistics
    else:
        with tempfile.TemporaryDirectory(prefix="actgrid-") as folder:
            stats = process_run(measure(folder), progress, is_temporary=True).statistics
    assert stats is not None
    return stats


def process_run(
    run: Run, progress: bool, top_channels: int | str = "all", is_temporary: bool = False
) -> Summary:
    """Process all images of a run with a progress bar, and finish the run.

    Parameters
    ----------
    is_temporary
        Whether the output is removed afterwards, so that no results are written.

    Raises
    ------
    RunError
        If the output is temporary and no image could be used.
    """
    problem = None
    with run:
        with show_progress(run.total, run.activity, progress, run.recorded) as advance:
            for record in run:
                problem = problem or record.error
                advance()
        summary = run.summary()
        if is_temporary and summary.failed and summary.failed == summary.images:
            raise RunError(
                f"none of {summary.images:,} images could be used; the first error: {problem}"
            )
        if not is_temporary and run.summary().statistics is not None:
            run.finish(top_channels)
        return run.summary()
