"""`actgrid.render_images` and `actgrid.measure_images`: a model over many images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from actgrid.errors import OptionError, RunError
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import (
    DrawingOptions,
    MeasureImagesOptions,
    RenderImagesOptions,
    RunOptions,
)
from actgrid.progress import progress as shown
from actgrid.runs.runs import Run, Summary
from actgrid.statistics.dataset import DatasetStats

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["measure_images", "render_images"]


@takes_options(RenderImagesOptions)
def render_images(
    model: ModelLike,
    images: Any,
    layers: LayersLike = None,
    *,
    output: str | Path,
    **options: Unpack[RenderImagesOptions],
) -> Summary:
    """Draw a model's layers for many images, to files.

    Images are streamed: while the model runs on a batch, the next ones are loaded, and the last
    one is drawn and written. What is written does not depend on threads or timing. A run that was
    stopped, however, goes on with `resume` to the same bytes.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    images
        Image files, folders (recursively), globs, ``.txt`` lists of paths, or several of these; a
        `tf.data.Dataset` of images, (image, label) or batches of these; an iterable of arrays of
        pixels 0 to 255 or Pillow images, or of (image, label).
    layers
        Which, see `actgrid.Extractor`; None: every one with a spatial output.
    output
        A folder, or a URL that fsspec takes, such as ``"s3://bucket/run"``. It gets the pictures;
        ``manifest.jsonl``, a line for each image with its status, files, dead channels by layer,
        milliseconds and error; and ``run.json``: the model's fingerprint, layers, options and
        versions.
    **options
        See `actgrid.options.RenderImagesOptions`. With ``preprocess="prepared"`` images are arrays
        that the model takes as they are.

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
    >>> summary = actgrid.render_images("demo", "photos", "*_relu", output="out", resume=True)
    >>> summary.images, summary.failed
    (1000, 2)
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
    return _carried_out(run, options["progress"], options["top_channels"])


@takes_options(MeasureImagesOptions)
def measure_images(
    model: ModelLike,
    images: Any,
    layers: LayersLike = None,
    *,
    output: str | Path | None = None,
    **options: Unpack[MeasureImagesOptions],
) -> DatasetStats:
    """Measure every channel of a model's layers over many images, without drawing.

    Parameters
    ----------
    model, images, layers
        As for `render_images`.
    output
        A folder or URL, which gets ``stats.npz``, ``summary.json``, ``report.html``, the sheets
        ``top/NN_layer.png``, and the manifest of `render_images`; None: nothing is kept.
    **options
        See `actgrid.options.MeasureImagesOptions`.

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
        raise OptionError("resume and overwrite are for a run in a folder: give output")
    if output is not None:
        found = _carried_out(measure(output), progress, options["top_channels"]).statistics
    else:
        with tempfile.TemporaryDirectory(prefix="actgrid-") as folder:
            found = _carried_out(measure(folder), progress, kept=False).statistics
    assert found is not None
    return found


def _carried_out(
    run: Run, progress: bool, top_channels: int | str = "all", kept: bool = True
) -> Summary:
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
            run.finish(top_channels)
        return run.summary()
