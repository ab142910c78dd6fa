"""Sink that logs to a run of MLflow."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.callbacks.folder_sink import number_samples
from actgrid.callbacks.trackers import import_tracker, open_png, translate_errors
from actgrid.errors import OptionError

__all__ = ["MlflowSink"]

# Characters that MLflow refuses in the names of metrics and images.
_INVALID = re.compile(r"[^a-zA-Z0-9_\-. /]")
# Number of metrics that one request may have.
_MAX_METRICS = 1000
# MLflow has no histograms: these percentiles of the values are logged as metrics.
_PERCENTILES = {"min": 0, "median": 50, "max": 100}
_NAME = "MLflow"


class MlflowSink:
    """Sink that logs to a run of MLflow: images and metrics.

    Implements `Sink`. An array is logged as the metrics ``TAG/min``, ``TAG/median`` and
    ``TAG/max``. Characters that MLflow refuses in names are replaced by underscores.

    Parameters
    ----------
    run : mlflow.ActiveRun or mlflow.entities.Run
        The run. It is not ended by `close`.
    """

    def __init__(self, run: Any) -> None:
        # The functions of MLflow use the active run of their thread, but another thread writes.
        self._run_id = run.info.run_id
        self._mlflow = self.import_package()
        self._client = self._mlflow.MlflowClient()
        self._metrics: list[Any] = []

    @staticmethod
    def import_package() -> Any:
        """Import the package; raise MissingDependencyError if it is not installed."""
        return import_tracker("mlflow")

    @classmethod
    def from_active_run(cls) -> MlflowSink:
        """Return a sink of the active run of this thread; raise OptionError if there is none."""
        run = cls.import_package().active_run()
        if run is None:
            raise OptionError(
                "sinks='mlflow' needs an active run: call mlflow.start_run() first, or pass the run"
            )
        return cls(run)

    def images(self, tag: str, pngs: Sequence[bytes], step: int) -> None:
        """Log PNG files as images ``TAG``, or ``TAG/SAMPLE`` for several samples."""
        for sample, png in zip(number_samples(len(pngs)), pngs, strict=True):
            key = _clean_name(f"{tag}/{sample}" if sample else tag)
            with translate_errors(_NAME):
                self._client.log_image(self._run_id, open_png(png), key=key, step=step)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Receive a number, which `flush` logs as a metric."""
        milliseconds = int(time.time() * 1000)
        metric = self._mlflow.entities.Metric(_clean_name(tag), float(value), milliseconds, step)
        self._metrics.append(metric)

    def histogram(self, tag: str, values: npt.ArrayLike, step: int) -> None:
        """Receive an array, of which `flush` logs percentiles of the finite values."""
        array = np.asarray(values, np.float64).ravel()
        finite = array[np.isfinite(array)]
        if finite.size:
            for name, percentile in _PERCENTILES.items():
                self.scalar(f"{tag}/{name}", float(np.percentile(finite, percentile)), step)

    def flush(self) -> None:
        """Log the metrics that were received.

        Raises
        ------
        OutputError
            If the metrics cannot be logged. They are dropped.
        """
        metrics, self._metrics = self._metrics, []
        with translate_errors(_NAME):
            for start in range(0, len(metrics), _MAX_METRICS):
                part = metrics[start : start + _MAX_METRICS]
                self._client.log_batch(self._run_id, metrics=part)

    def close(self) -> None:
        """End a training; the run stays open for other results."""


def _clean_name(name: str) -> str:
    return _INVALID.sub("_", name)
