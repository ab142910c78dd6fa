"""Log results of other functions to the outputs of callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from actgrid.callbacks.drift import compute_scalars
from actgrid.callbacks.sinks import Outputs, Sink
from actgrid.errors import OptionError
from actgrid.option_checks import check_integer
from actgrid.option_groups import takes_options
from actgrid.options import OutputOptions
from actgrid.rendering.picture import Picture
from actgrid.statistics import DatasetStats, ModelComparison

__all__ = ["log"]


@takes_options(OutputOptions)
def log(
    result: Any, step: int = 0, *, tag: str = "picture", **options: Unpack[OutputOptions]
) -> None:
    """Log a result of another function to TensorBoard, files, Weights & Biases or MLflow.

    Parameters
    ----------
    result : Picture, dict, DatasetStats or ModelComparison
        Any picture of actgrid; a dict of pictures by tag, as `actgrid.render_model` returns it;
        statistics of `actgrid.measure_images`; or a comparison of `actgrid.compare_models`.
    step : int, optional
        Number of the step.
    tag : str, optional
        Name of a single picture.
    **options
        See `actgrid.options.OutputOptions`. Statistics are logged as the scalar
        ``LAYER/dead_channels`` and histograms over the channels, ``LAYER/zero_fraction``,
        ``LAYER/mean`` and ``LAYER/std``. A comparison is logged as the scalars of
        `actgrid.callbacks.ModelDrift` and the picture ``comparison``.

    Raises
    ------
    OptionError
        If the result cannot be logged, there is no output, or a value of `sinks` is no sink. Also a
        ValueError.
    OutputError
        If an output cannot be written. Also an OSError.
    MissingDependencyError
        If the package of a sink is not installed. Also an ImportError.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> grids = {"noise": actgrid.render(np.random.default_rng(0).random((1, 8, 8, 4)))}
    >>> actgrid.callbacks.log(grids, step=3, folder="logged")
    >>> [path.as_posix() for path in Path("logged").rglob("*.png")]
    ['logged/00_noise/000003.png']
    """
    step = check_integer("step", step, 0)
    if isinstance(result, Picture) and not isinstance(result, ModelComparison):
        result = {tag: result}
    _check_result(result)
    outputs = Outputs.from_options(options)
    if not outputs:
        raise OptionError("log_dir, folder and sinks are all None: pass at least one of them")
    for sink in outputs.open():
        _send(sink, result, step)
        sink.flush()
        sink.close()


def _check_result(result: Any) -> None:
    """Raise OptionError unless a result can be logged."""
    if isinstance(result, (DatasetStats, ModelComparison)):
        return
    if not isinstance(result, Mapping):
        raise OptionError(
            f"result must be a picture, a dict of pictures, a DatasetStats or a ModelComparison, "
            f"not {type(result).__name__}"
        )
    for tag, picture in result.items():
        if not isinstance(picture, Picture):
            raise OptionError(f"result[{tag!r}] must be a picture, not {type(picture).__name__}")


def _send(sink: Sink, result: Any, step: int) -> None:
    """Pass a result to a sink."""
    if isinstance(result, DatasetStats):
        for path, layer in result.layers.items():
            sink.scalar(f"{path}/dead_channels", int(layer.dead.sum()), step)
            for name in ("zero_fraction", "mean", "std"):
                sink.histogram(f"{path}/{name}", getattr(layer, name), step)
        return
    pictures = result
    if isinstance(result, ModelComparison):
        pictures = {"comparison": result}
        for tag, value in compute_scalars(result).items():
            sink.scalar(tag, value, step)
    for tag, picture in pictures.items():
        sink.images(str(tag), [picture.to_png()], step)
