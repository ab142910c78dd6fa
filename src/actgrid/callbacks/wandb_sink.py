"""Sink that logs to a run of Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.callbacks.trackers import import_tracker, open_png, translate_errors
from actgrid.errors import OptionError

__all__ = ["WandbSink"]

# Metric that is the horizontal axis of all others. The step of Weights & Biases itself must grow
# with each call, and other callbacks of the training may use it, too.
_STEP = "actgrid/step"
_NAME = "Weights & Biases"


class WandbSink:
    """Sink that logs to a run of Weights & Biases: media, curves and histograms.

    Implements `Sink`. A step is logged at once, with its number as the metric ``actgrid/step``.

    Parameters
    ----------
    run : wandb.Run
        The run. It is not finished by `close`.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self._wandb = self.import_package()
        self._values: dict[str, Any] = {}
        self._step = 0
        self._defined_tags: set[str] = set()

    @staticmethod
    def import_package() -> Any:
        """Import the package; raise MissingDependencyError if it is not installed."""
        return import_tracker("wandb")

    @classmethod
    def from_active_run(cls) -> WandbSink:
        """Return a sink of the active run; raise OptionError if there is none."""
        run = cls.import_package().run
        if run is None:
            raise OptionError(
                "sinks='wandb' needs an active run: call wandb.init() first, or pass the run"
            )
        return cls(run)

    def images(self, tag: str, pngs: Sequence[bytes], step: int) -> None:
        """Log PNG files as images, one for each sample."""
        with translate_errors(_NAME):
            self._add(tag, [self._wandb.Image(open_png(png)) for png in pngs], step)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Log a number."""
        self._add(tag, value, step)

    def histogram(self, tag: str, values: npt.ArrayLike, step: int) -> None:
        """Log a histogram of the finite values of an array; nothing if there are none."""
        array = np.asarray(values, np.float64).ravel()
        finite = array[np.isfinite(array)]
        if finite.size:
            with translate_errors(_NAME):
                self._add(tag, self._wandb.Histogram(finite), step)

    def _add(self, tag: str, value: Any, step: int) -> None:
        self._step = step
        self._values[tag] = value

    def flush(self) -> None:
        """Log the values that were received as one step.

        Raises
        ------
        OutputError
            If the values cannot be logged. They are dropped.
        """
        values, self._values = self._values, {}
        with translate_errors(_NAME):
            for tag in values:
                if tag not in self._defined_tags:
                    self._run.define_metric(tag, step_metric=_STEP)
                    self._defined_tags.add(tag)
            if values:
                self._run.log({**values, _STEP: self._step})

    def close(self) -> None:
        """End a training; the run stays open for other results."""
