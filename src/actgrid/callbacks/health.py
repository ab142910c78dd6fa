"""Keras callback that reports dead channels and NaN values during training."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.callbacks.base import SinkCallback
from actgrid.callbacks.grids import check_layers
from actgrid.callbacks.samples import Samples, read_data
from actgrid.callbacks.sinks import Sink
from actgrid.figures.grids import get_batch_size
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import collect_weights
from actgrid.models.types import LayersLike
from actgrid.option_checks import resolve_thread_count
from actgrid.option_groups import takes_options
from actgrid.options import HealthOptions
from actgrid.rendering import ChannelStats
from actgrid.rendering.stats import list_stat_arrays, make_stats, reshape_stats
from actgrid.statistics.measurements import measure_image_stats

__all__ = ["ChannelHealth", "ChannelHealthWarning"]

# Maximum number of layers or weights named in one warning.
_MAX_NAMES = 8


class ChannelHealthWarning(UserWarning):
    """Warning about dead channels, NaN or infinite values in layers or weights."""


@takes_options(HealthOptions, batch_size=32)
class ChannelHealth(SinkCallback):
    """Keras callback that counts dead channels, zeros and NaN values during training.

    Parameters
    ----------
    data : array_like, dict, list, image sources or dataset
        The samples, as in `ActivationGrids`. Some dozens of samples are needed to tell that a
        channel is dead. Statistics are computed over all samples together.
    layers : str, int, type, callable, list or None, optional
        The layers to measure, see `actgrid.Extractor`. None: all layers with a spatial output.
    **options
        See `actgrid.options.HealthOptions`. For each layer, the outputs receive the scalars
        ``LAYER/dead_channels``, ``LAYER/mean_zero_fraction`` and ``LAYER/nonfinite``, and
        histograms over the channels, ``LAYER/zero_fraction``, ``LAYER/mean`` and ``LAYER/std``.
        `folder` receives the files ``scalars.jsonl``, and ``histograms.jsonl`` with the values of
        all channels, a line of JSON for each step and tag. Lines are appended.

    Attributes
    ----------
    steps : list of int
        The measured steps, over all trainings of a model. Cleared if the model changes.
    history : dict of str to list of float
        A number for each step, by the name of the scalar, as in Keras's `History`:

        ``LAYER/dead_channels``
            Number of dead channels: all their values are the same finite value (for ReLU: zero).
        ``LAYER/mean_zero_fraction``
            Fraction of the layer's finite values that are zero, 0 to 1; NaN if no value is finite.
        ``LAYER/nonfinite``
            Number of values that are NaN or infinite.

    Raises
    ------
    OptionError
        If an option is invalid, or `data` is an iterator or an infinite dataset. Also a ValueError.
    ActgridError
        If `data` is invalid or the layers cannot be extracted, as in `ActivationGrids`.

    Warns
    -----
    ChannelHealthWarning
        If a layer returns NaN or infinite values, if more than the fraction `max_lost_fraction` of
        its channels died, or if a weight of the model has NaN or infinite values. Each layer or
        weight is reported once. The layers or weights of one step are in one warning.
    RuntimeWarning
        If an output cannot be written, as in `ActivationGrids`.

    Notes
    -----
    On a CPU, TensorFlow fuses a convolution or dense layer with its ReLU, and the fused operation
    turns NaN into zero. Channels of a network with NaN weights may therefore look dead, which is
    why the weights are checked, too.

    The training thread measures the activations between two batches. `history` is therefore
    complete at the end of each epoch for the callbacks that follow. Another thread writes the
    events, as in `ActivationGrids`.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((16, 16, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", bias_initializer="ones", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2, activation="softmax"),
    ... ])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> x, y = np.random.rand(32, 16, 16, 3), np.arange(32) % 2
    >>> health = actgrid.callbacks.ChannelHealth(x, "conv")
    >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[health])
    >>> health.history["conv/dead_channels"]
    [0, 0]
    """

    def __init__(
        self, data: Any, layers: LayersLike = None, **options: Unpack[HealthOptions]
    ) -> None:
        super().__init__(options)
        self._data, self._layers = read_data(data), check_layers(layers)
        self._max_lost_fraction = options["max_lost_fraction"]
        self._batch_size = options["batch_size"]
        self.steps: list[int] = []
        self.history: dict[str, list[float]] = {}

    def _prepare(self, model: Any) -> None:
        self._samples = Samples(model, self._data, self._layers, self._batch_size)
        self._weights = collect_weights(model)
        self.steps, self.history = [], {}
        self._initially_alive: dict[str, npt.NDArray[np.bool_]] = {}
        self._reported: dict[str, set[str]] = {}

    def _observe(self, step: int | None) -> dict[str, ChannelStats]:
        batches: dict[str, list[ChannelStats]] = {}
        for activations in self._samples.extract():
            batch, infos = get_batch_size(activations), self._samples.layers
            for path, activation in activations.items():
                stats = measure_image_stats(
                    infos[path], activation, batch=batch, threads=resolve_thread_count(None)
                )
                batches.setdefault(path, []).append(stats)
        stats_by_path = {path: _join_batches(stats) for path, stats in batches.items()}
        if step is None:
            self._initially_alive = {path: ~stats.dead for path, stats in stats_by_path.items()}
        else:
            self._record_stats(step, stats_by_path)
        return stats_by_path

    def _record_stats(self, step: int, stats_by_path: Mapping[str, ChannelStats]) -> None:
        """Append the statistics of a training step to `history`, and warn of problems.

        Parameters
        ----------
        step
            Number of the step.
        stats_by_path
            Layer path -> statistics of each channel.
        """
        self.steps.append(step)
        for path, stats in stats_by_path.items():
            for name, value in _compute_scalars(stats).items():
                self.history.setdefault(f"{path}/{name}", []).append(value)
        paths = [path for path, stats in stats_by_path.items() if stats.nonfinite.any()]
        self._warn(step, "layers return NaN or infinite values", {path: path for path in paths})
        paths = [weight.path for weight in self._weights if not _is_finite(weight.variable)]
        self._warn(step, "weights are NaN or infinite", {path: path for path in paths})
        texts = {}
        for path, stats in stats_by_path.items():
            alive = self._initially_alive[path]
            dead_count, alive_count = int(stats.dead[alive].sum()), int(alive.sum())
            if dead_count > self._max_lost_fraction * alive_count:
                texts[path] = f"{path} ({dead_count} of {alive_count})"
        self._warn(step, "layers have lost channels, which are dead now", texts)

    def _warn(self, step: int, problem: str, texts: Mapping[str, str]) -> None:
        """Warn of a problem of layers or weights that were not reported before.

        Parameters
        ----------
        step
            Number of the training step.
        problem
            Description of the problem.
        texts
            Path of a layer or weight -> its text in the message.
        """
        reported = self._reported.setdefault(problem, set())
        new_texts = [text for path, text in texts.items() if path not in reported]
        reported.update(texts)
        if new_texts:
            listed = ", ".join(new_texts[:_MAX_NAMES])
            rest = len(new_texts) - _MAX_NAMES
            message = f"step {step}: {problem}: {listed}{f' and {rest} more' if rest > 0 else ''}"
            warnings.warn(message, ChannelHealthWarning, stacklevel=2)

    def _draw(self, observation: Any) -> dict[str, ChannelStats]:
        return dict(observation)

    def _send(self, sink: Sink, step: int, content: Mapping[str, ChannelStats]) -> None:
        for path, stats in content.items():
            for name, value in _compute_scalars(stats).items():
                sink.scalar(f"{path}/{name}", value, step)
            for name in ("zero_fraction", "mean", "std"):
                sink.histogram(f"{path}/{name}", getattr(stats, name), step)


def _is_finite(variable: Any) -> bool:
    tf = tensorflow()
    if not tf.as_dtype(variable.dtype).is_floating:
        return True
    return bool(tf.reduce_all(tf.math.is_finite(variable.value)))


def _join_batches(batches: Iterable[ChannelStats]) -> ChannelStats:
    """Pool channel statistics over all samples of several batches.

    Parameters
    ----------
    batches
        Statistics of each batch, arrays (channels, samples).

    Returns
    -------
    ChannelStats
        Statistics with arrays (channels,).
    """
    arrays, sizes = zip(*((list_stat_arrays(stats), stats.size) for stats in batches), strict=True)
    joined = (np.concatenate(parts, 1) for parts in zip(*arrays, strict=True))
    return reshape_stats(make_stats(joined, sizes[0]).pool(1), -1)


def _compute_scalars(stats: ChannelStats) -> dict[str, float]:
    """Summarize the statistics of a layer's channels in single numbers.

    Returns
    -------
    dict
        Name -> number: dead channels, mean fraction of zeros, and NaN or infinite values.
    """
    return {
        "dead_channels": int(stats.dead.sum()),
        "mean_zero_fraction": stats.pool().zero_fraction.item(),
        "nonfinite": int(stats.nonfinite.sum()),
    }
