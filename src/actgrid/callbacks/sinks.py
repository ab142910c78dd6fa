"""Outputs of callbacks: TensorBoard, folders, Weights & Biases, MLflow, and other sinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from actgrid.callbacks.folder_sink import FolderSink
from actgrid.callbacks.mlflow_sink import MlflowSink
from actgrid.callbacks.wandb_sink import WandbSink
from actgrid.encoding import make_folder
from actgrid.errors import OptionError, suggest
from actgrid.runs.events import EventWriter

__all__ = ["Outputs", "Sink"]

# Sinks of other packages, by the name of the package.
_PACKAGE_SINKS: dict[str, Any] = {"wandb": WandbSink, "mlflow": MlflowSink}
_METHODS = ("images", "scalar", "histogram", "flush", "close")


class Sink(Protocol):  # numpydoc ignore=PR01
    """Protocol of an object that receives the results of callbacks.

    One thread calls the methods: for each step `images`, `scalar` and `histogram`, then `flush`,
    and at the end of each training `close`, after which the sink may be used again. An
    `actgrid.errors.OutputError` becomes a warning, and training continues.

    Examples
    --------
    >>> class PrintSink:
    ...     def images(self, tag, pngs, step): ...
    ...     def scalar(self, tag, value, step):
    ...         print(step, tag, value)
    ...     def histogram(self, tag, values, step): ...
    ...     def flush(self): ...
    ...     def close(self): ...
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU(name="relu")])
    >>> data = np.ones((2, 8, 8, 3))
    >>> with actgrid.callbacks.ChannelHealth(data, sinks=PrintSink()) as health:
    ...     health.set_model(model)
    ...     health(7)
    7 relu/dead_channels 3
    7 relu/mean_zero_fraction 0.0
    7 relu/nonfinite 0
    """

    def images(self, tag: str, pngs: Sequence[bytes], step: int) -> None:
        """Receive PNG files of equal size, one for each sample.

        Parameters
        ----------
        tag : str
            Name of the pictures, such as a layer path.
        pngs : sequence of bytes
            Contents of the files.
        step : int
            Number of the training step.
        """

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Receive a number, which may be NaN.

        Parameters
        ----------
        tag : str
            Name of the number, such as ``"conv/dead_channels"``.
        value : float
            The number.
        step : int
            Number of the training step.
        """

    def histogram(self, tag: str, values: npt.ArrayLike, step: int) -> None:
        """Receive an array whose distribution is of interest, such as one value for each channel.

        Parameters
        ----------
        tag : str
            Name of the values, such as ``"conv/mean"``.
        values : array_like
            Numbers, which may be NaN or infinite.
        step : int
            Number of the training step.
        """

    def flush(self) -> None:
        """Write everything that was received, at the end of a step."""

    def close(self) -> None:
        """Release files and connections, at the end of a training."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of a callback, which are opened when training begins.

    Attributes
    ----------
    log_dir
        Log folder of TensorBoard; None: no events are written.
    folder
        Folder for files; None: no files are written.
    others
        Sinks; names of packages with sinks (``"wandb"``, ``"mlflow"``), and runs of these packages.
    """

    log_dir: str | Path | None = None
    folder: Path | None = None
    others: tuple[Any, ...] = ()

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Outputs:
        """Create the outputs from the options `log_dir`, `folder` and `sinks`, and the folders.

        Raises
        ------
        OptionError
            If a value of `sinks` is no sink.
        MissingDependencyError
            If the package of a sink is not installed.
        OutputError
            If a folder cannot be created.
        """
        log_dir, folder, sinks = options["log_dir"], options["folder"], options["sinks"]
        if sinks is None:
            sinks = ()
        others = tuple(sinks) if isinstance(sinks, (list, tuple)) else (sinks,)
        for value in others:
            _check_sink(value)
        # A URL is not created here.
        is_folder = log_dir is not None and "://" not in str(log_dir)
        return cls(
            make_folder(log_dir) if is_folder else log_dir,
            None if folder is None else make_folder(folder),
            others,
        )

    def __bool__(self) -> bool:
        return self.log_dir is not None or self.folder is not None or bool(self.others)

    def open(self) -> list[Sink]:
        """Open the outputs.

        Raises
        ------
        OutputError
            If a file cannot be created.
        OptionError
            If a package has no active run.
        """
        sinks: list[Sink] = []
        if self.log_dir is not None:
            sinks.append(EventWriter(self.log_dir))
        if self.folder is not None:
            sinks.append(FolderSink(self.folder))
        return [*sinks, *map(_open_sink, self.others)]


def _check_sink(value: Any) -> None:
    """Raise an error unless a value of the option `sinks` is valid."""
    if isinstance(value, str):
        if value not in _PACKAGE_SINKS:
            raise OptionError(
                f"sinks must be wandb, mlflow, a run, a sink, or a list of these, not {value!r}"
                f"{suggest(value, _PACKAGE_SINKS)}"
            )
        _PACKAGE_SINKS[value].import_package()
    elif _find_package_sink(value) is None and not _is_sink(value):
        missing = [name for name in _METHODS if not callable(getattr(value, name, None))]
        raise OptionError(
            f"sinks must be wandb, mlflow, a run, a sink, or a list of these: "
            f"{type(value).__name__} lacks the methods {', '.join(missing)} of a sink"
        )


def _open_sink(value: Any) -> Sink:
    if isinstance(value, str):
        sink: Sink = _PACKAGE_SINKS[value].from_active_run()
        return sink
    package_sink = _find_package_sink(value)
    return value if package_sink is None else package_sink(value)  # type: ignore[no-any-return]


def _is_sink(value: Any) -> bool:
    return all(callable(getattr(value, name, None)) for name in _METHODS)


def _find_package_sink(value: Any) -> Any:
    """Return the class of the sink for a run of another package; None for other objects."""
    classes = type(value).__mro__
    roots = [kind.__module__.partition(".")[0] for kind in classes]
    return next((_PACKAGE_SINKS[root] for root in roots if root in _PACKAGE_SINKS), None)
