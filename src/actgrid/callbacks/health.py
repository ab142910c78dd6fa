"""`ChannelHealth`: which channels of a network die, or give NaN, while it is trained."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.callbacks.base import Sink, TrainingCallback
from actgrid.callbacks.grids import check_layers
from actgrid.callbacks.pictures import event_folder
from actgrid.callbacks.samples import Samples, read_data
from actgrid.figures.grids import batch_size as samples_in
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import model_weights
from actgrid.models.types import LayersLike
from actgrid.option_checks import thread_count
from actgrid.option_groups import takes_options
from actgrid.options import HealthOptions
from actgrid.rendering import ChannelStats
from actgrid.rendering.stats import arrays_of, reshape_stats, stats_of
from actgrid.runs.events import EventWriter
from actgrid.statistics.measurements import measure_image_stats

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ChannelHealth", "ChannelHealthWarning"]

_MOST_NAMED = 8  # layers or weights in one warning


class ChannelHealthWarning(UserWarning):
    """Layers or weights have NaN or infinite values, or layers have lost many channels."""


@takes_options(HealthOptions, batch_size=32)
class ChannelHealth(TrainingCallback):
    """Measures every channel of chosen layers again and again while a model is trained.

    Parameters
    ----------
    data
        As in `ActivationGrids`, but as many samples as it takes to tell that a channel is dead:
        some dozens. Statistics are those of all of them together.
    layers
        As in `ActivationGrids`.
    **options
        See `actgrid.options.HealthOptions`. For each layer `log_dir` gets scalars,
        ``LAYER/dead_channels``, ``LAYER/mean_zero_fraction`` and ``LAYER/nonfinite``, and
        histograms over the channels, ``LAYER/zero_fraction``, ``LAYER/mean`` and ``LAYER/std``.

    Attributes
    ----------
    steps : list of int
        The steps measured, over all trainings of a model; another one begins anew.
    history : dict
        The same scalars, a list for each of one number for each step, as in Keras's `History`:

        ``LAYER/dead_channels``
            How many channels are dead: all their values are the same finite value (for ReLU:
            zero).
        ``LAYER/mean_zero_fraction``
            The share of the layer's finite values that are zero, 0 to 1; NaN if it has none.
        ``LAYER/nonfinite``
            How many values are NaN or infinite.

    Raises
    ------
    ActgridError
        As `ActivationGrids`.

    Warns
    -----
    ChannelHealthWarning
        Once for each layer that gives NaN or infinite values, once for each that has lost more
        than `lost` of its channels, and once for each weight of the model, of any layer, that has
        such values. Those of one step are in one warning.
    RuntimeWarning
        As `ActivationGrids`.

    Notes
    -----
    TensorFlow computes a convolution or dense layer and its ReLU in one on a CPU, which makes zeros
    of NaN: a network whose weights have gone NaN may look dead. This is why weights are checked.

    Measuring is done between two batches by the thread that trains, at the speed of memory: so
    `history` is complete at the end of each epoch, for callbacks that come later. Events are
    written by another thread, as in `ActivationGrids`.

    Examples
    --------
    >>> health = actgrid.callbacks.ChannelHealth(x_test[:64], log_dir="logs/health")
    >>> model.fit(x_train, y_train, epochs=10, callbacks=[health])
    >>> health.history["conv2d/dead_channels"]
    [0, 3, 11, 16, 16, 16, 16, 16, 16, 16]
    """

    def __init__(
        self, data: Any, layers: LayersLike = None, **options: Unpack[HealthOptions]
    ) -> None:
        super().__init__(options["every"])
        self._data, self._layers = read_data(data), check_layers(layers)
        log_dir = options["log_dir"]
        self._log_dir = None if log_dir is None else event_folder(log_dir)
        self._lost = options["lost"]
        self._batch_size = options["batch_size"]
        self.steps: list[int] = []
        self.history: dict[str, list[float]] = {}

    def _prepare(self, model: Any) -> None:
        self._samples = Samples(model, self._data, self._layers, self._batch_size)
        self._weights = model_weights(model)
        self.steps, self.history = [], {}
        self._alive: dict[str, npt.NDArray[np.bool_]] = {}
        self._warned_of: dict[str, set[str]] = {}

    def _look(self, step: int | None) -> dict[str, ChannelStats]:
        batches: dict[str, list[ChannelStats]] = {}
        for activations in self._samples.activations():
            batch, infos = samples_in(activations), self._samples.layers
            for path, activation in activations.items():
                stats = measure_image_stats(
                    infos[path], activation, batch=batch, threads=thread_count(None)
                )
                batches.setdefault(path, []).append(stats)
        found = {path: _joined(stats) for path, stats in batches.items()}
        if step is None:
            self._alive = {path: ~stats.dead for path, stats in found.items()}
        else:
            self._note(step, found)
        return found

    def _note(self, step: int, found: Mapping[str, ChannelStats]) -> None:
        self.steps.append(step)
        for path, stats in found.items():
            for name, value in _scalars(stats).items():
                self.history.setdefault(f"{path}/{name}", []).append(value)
        broken = [path for path, stats in found.items() if stats.nonfinite.any()]
        self._warn(step, "layers give NaN or infinite values", {path: path for path in broken})
        broken = [weight.path for weight in self._weights if not _all_finite(weight.variable)]
        self._warn(step, "weights are NaN or infinite", {path: path for path in broken})
        shrunk = {}
        for path, stats in found.items():
            alive = self._alive[path]
            dead, before = int(stats.dead[alive].sum()), int(alive.sum())
            if dead > self._lost * before:
                shrunk[path] = f"{path} ({dead} of {before})"
        self._warn(step, "layers have lost channels, which are dead now", shrunk)

    def _warn(self, step: int, what: str, paths: Mapping[str, str]) -> None:
        """Warn of those paths that were not warned of before, as they are to be shown."""
        known = self._warned_of.setdefault(what, set())
        new = [shown for path, shown in paths.items() if path not in known]
        known.update(paths)
        if new:
            named = ", ".join(new[:_MOST_NAMED])
            more = f" and {len(new) - _MOST_NAMED} more" if len(new) > _MOST_NAMED else ""
            message = f"step {step}: {what}: {named}{more}"
            warnings.warn(message, ChannelHealthWarning, stacklevel=2)

    def _draw(self, seen: Any) -> dict[str, ChannelStats]:
        return dict(seen)

    def _open(self) -> list[Sink]:
        return [] if self._log_dir is None else [_HealthEvents(self._log_dir)]


def _all_finite(variable: Any) -> bool:
    tf = tensorflow()
    if not tf.as_dtype(variable.dtype).is_floating:
        return True
    return bool(tf.reduce_all(tf.math.is_finite(variable.value)))


def _joined(batches: Iterable[ChannelStats]) -> ChannelStats:
    """Return the statistics, (channels,), of samples that are (channels, samples) in batches."""
    arrays, sizes = zip(*((arrays_of(stats), stats.size) for stats in batches), strict=True)
    together = (np.concatenate(parts, 1) for parts in zip(*arrays, strict=True))
    return reshape_stats(stats_of(together, sizes[0]).pool(1), -1)


def _scalars(stats: ChannelStats) -> dict[str, float]:
    return {
        "dead_channels": int(stats.dead.sum()),
        "mean_zero_fraction": stats.pool().zero_fraction.item(),
        "nonfinite": int(stats.nonfinite.sum()),
    }


class _HealthEvents:
    def __init__(self, log_dir: str | Path) -> None:
        self._events = EventWriter(log_dir)

    def write(self, step: int, drawn: Mapping[str, ChannelStats]) -> None:
        for path, stats in drawn.items():
            for name, value in _scalars(stats).items():
                self._events.scalar(f"{path}/{name}", value, step)
            for name in ("zero_fraction", "mean", "std"):
                self._events.histogram(f"{path}/{name}", getattr(stats, name), step)
        self._events.flush()

    def close(self) -> None:
        self._events.close()
