"""Results of ablation and activation patching: tables and rankings as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.rendering.bars import draw_bars
from actgrid.rendering.picture import Picture
from actgrid.rendering.stats import import_pandas

if TYPE_CHECKING:
    import pandas

__all__ = ["ActivationPatching", "ChannelAblation"]

# Number of channels in a picture: the largest effects, then the smallest.
_LARGEST, _SMALLEST = 20, 5
_POSITIVE, _NEGATIVE = (31, 119, 180), (214, 96, 77)

Floats = npt.NDArray[np.float64]


def _average_rows(values: Floats) -> Floats:
    """Return the mean of each column, without NaN values; NaN if there are no others."""
    known = ~np.isnan(values)
    count = known.sum(0)
    means: Floats = np.where(
        count > 0, np.where(known, values, 0).sum(0) / np.maximum(count, 1), np.nan
    )
    return means


def _rank(means: Floats) -> npt.NDArray[np.intp]:
    """Return the positions of the means, largest first; NaN last, equal means in order."""
    return np.argsort(np.where(np.isnan(means), np.inf, -means), kind="stable")


def _choose_shown(ranking: Sequence[int]) -> list[int]:
    """Return the ranked positions that a picture shows: the first and the last."""
    if len(ranking) <= _LARGEST + _SMALLEST:
        return list(ranking)
    return [*ranking[:_LARGEST], *ranking[-_SMALLEST:]]


def _draw_effects(
    names: Sequence[str], means: Floats, note: str, tiles: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.uint8]:
    colours = np.where(np.nan_to_num(means)[:, None] >= 0, _POSITIVE, _NEGATIVE).astype(np.uint8)
    return draw_bars(names, means.astype(np.float32), colours, note, icons=tiles)


@dataclass(frozen=True, eq=False, repr=False)
class ChannelAblation(Picture):  # numpydoc ignore=PR01
    """Decrease of the target score of each sample without each channel of a layer.

    `actgrid.ablate_channels` returns one for each layer. As a picture it is a ranking: the 20
    channels with the largest mean decrease and the 5 with the smallest, each with its tile for the
    first sample.

    Parameters
    ----------
    layer : str
        Path of the layer.
    channels : numpy.ndarray
        (K,) int: the replaced channels, in increasing order.
    targets : tuple of str
        Name of the target of each of the N samples.
    scores : numpy.ndarray
        (N,) float32: score of the unchanged model.
    ablated_scores : numpy.ndarray
        (N, K) float32: score with one channel replaced.
    is_logit : bool
        Whether scores are logits, before a final softmax or sigmoid.
    value : str
        Value that replaces a channel, as text.

    Examples
    --------
    >>> from actgrid.interventions import ChannelAblation
    >>> scores, ablated = np.float32([3]), np.float32([[3, 1, 4]])
    >>> ablation = ChannelAblation("conv", np.arange(3), ("cat",), scores, ablated, True, "0")
    >>> ablation.ranking.tolist(), ablation.mean_drops.tolist()
    ([1, 0, 2], [0.0, 2.0, -1.0])
    """

    layer: str
    channels: npt.NDArray[np.intp]
    targets: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    ablated_scores: npt.NDArray[np.float32]
    is_logit: bool
    value: str
    _tiles: npt.NDArray[np.uint8] | None = None

    def __repr__(self) -> str:
        return (
            f"<ChannelAblation of {self.layer}, {len(self.channels)} channels, "
            f"{len(self.scores)} samples>"
        )

    @property
    def drops(self) -> npt.NDArray[np.float64]:
        """Decrease of the score of each sample without each channel, (N, K) float64."""
        return self.scores.astype(np.float64)[:, None] - self.ablated_scores

    @property
    def mean_drops(self) -> npt.NDArray[np.float64]:
        """Mean decrease of the score over the samples, (K,) float64."""
        return _average_rows(self.drops)

    @property
    def ranking(self) -> npt.NDArray[np.intp]:
        """Channels by their mean decrease, largest first, (K,)."""
        return self.channels[_rank(self.mean_drops)]

    def to_frame(self) -> pandas.DataFrame:
        """Convert the scores to a pandas DataFrame with a row for each sample and channel.

        Returns
        -------
        pandas.DataFrame
            Columns: ``layer``, ``channel``, ``sample``, ``target``, ``score``, ``ablated_score``,
            ``drop``. Channels are in the order of `ranking`.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.
        """
        order, count = _rank(self.mean_drops), len(self.scores)
        return import_pandas().DataFrame(
            {
                "layer": self.layer,
                "channel": np.repeat(self.channels[order], count),
                "sample": np.tile(np.arange(count), len(order)),
                "target": np.tile(np.array(self.targets, object), len(order)),
                "score": np.tile(self.scores, len(order)),
                "ablated_score": self.ablated_scores[:, order].T.ravel(),
                "drop": self.drops[:, order].T.ravel(),
            }
        )

    def to_records(self) -> list[dict[str, Any]]:
        """Return the layer, number and mean decrease of each channel, largest decrease first.

        Returns
        -------
        list of dict
            Dicts with ``layer``, ``channel`` and ``drop``, for JSON.
        """
        means = self.mean_drops
        return [
            {"layer": self.layer, "channel": int(self.channels[row]), "drop": float(means[row])}
            for row in _rank(means)
        ]

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the ranking of the channels as bars.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        shown = _choose_shown(_rank(self.mean_drops).tolist())
        names = [f"channel {self.channels[position]}" for position in shown]
        targets = ", ".join(dict.fromkeys(self.targets))
        note = (
            f"{self.layer}: mean decrease of the {'logit' if self.is_logit else 'score'} of "
            f"{targets} with one channel replaced by {self.value}"
        )
        tiles = None if self._tiles is None else self._tiles[shown]
        return _draw_effects(names, self.mean_drops[shown], note, tiles)


@dataclass(frozen=True, eq=False, repr=False)
class ActivationPatching(Picture):  # numpydoc ignore=PR01
    """Effect of inserting the activations of another input, for each layer or channel.

    `actgrid.patch_activations` returns one. The effect is 0 if the score stays that of `x`, and 1
    if it becomes that of `source`. As a picture it is a bar for each layer in the order in which
    the layers run, or a ranking of the channels.

    Parameters
    ----------
    layers : tuple of str
        (K,) path of each layer whose activations are inserted.
    channels : numpy.ndarray or None
        (K,) int: the inserted channel of each layer; None: the whole output.
    targets : tuple of str
        Name of the target of each of the N samples.
    scores : numpy.ndarray
        (N,) float32: score of `x`.
    source_scores : numpy.ndarray
        (N,) float32: score of `source`.
    patched_scores : numpy.ndarray
        (N, K) float32: score of `x` with inserted activations.
    is_logit : bool
        Whether scores are logits, before a final softmax or sigmoid.

    Examples
    --------
    >>> from actgrid.interventions import ActivationPatching
    >>> scores = np.float32([0]), np.float32([4]), np.float32([[1, 4]])
    >>> ActivationPatching(("conv", "out"), None, ("cat",), *scores, True).effects
    array([[0.25, 1.  ]])
    """

    layers: tuple[str, ...]
    channels: npt.NDArray[np.intp] | None
    targets: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    source_scores: npt.NDArray[np.float32]
    patched_scores: npt.NDArray[np.float32]
    is_logit: bool

    def __repr__(self) -> str:
        unit = "layers" if self.channels is None else "channels"
        return f"<ActivationPatching of {len(self.layers)} {unit}, {len(self.scores)} samples>"

    @property
    def effects(self) -> npt.NDArray[np.float64]:
        """Change of each score relative to the difference of the inputs, (N, K) float64.

        NaN for a sample whose score is that of `source`.
        """
        scores = self.scores.astype(np.float64)[:, None]
        difference = self.source_scores.astype(np.float64)[:, None] - scores
        with np.errstate(divide="ignore", invalid="ignore"):
            effects: Floats = np.where(
                difference == 0, np.nan, (self.patched_scores - scores) / difference
            )
        return effects

    @property
    def mean_effects(self) -> npt.NDArray[np.float64]:
        """Mean effect over the samples, (K,) float64."""
        return _average_rows(self.effects)

    def to_frame(self) -> pandas.DataFrame:
        """Convert the scores to a pandas DataFrame with a row for each sample and effect.

        Returns
        -------
        pandas.DataFrame
            Columns: ``layer``, ``channel`` (only for channels), ``sample``, ``target``, ``score``,
            ``source_score``, ``patched_score``, ``effect``. Layers are in the order in which they
            run; channels are sorted by their mean effect, largest first.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.
        """
        order, count = self._order(), len(self.scores)
        columns: dict[str, Any] = {"layer": np.repeat(np.array(self.layers, object)[order], count)}
        if self.channels is not None:
            columns["channel"] = np.repeat(self.channels[order], count)
        return import_pandas().DataFrame(
            {
                **columns,
                "sample": np.tile(np.arange(count), len(order)),
                "target": np.tile(np.array(self.targets, object), len(order)),
                "score": np.tile(self.scores, len(order)),
                "source_score": np.tile(self.source_scores, len(order)),
                "patched_score": self.patched_scores[:, order].T.ravel(),
                "effect": self.effects[:, order].T.ravel(),
            }
        )

    def _order(self) -> npt.NDArray[np.intp]:
        if self.channels is None:
            return np.arange(len(self.layers))
        return _rank(self.mean_effects)

    def to_records(self) -> list[dict[str, Any]]:
        """Return the mean effect of each layer or channel, in the order of `to_frame`.

        Returns
        -------
        list of dict
            Dicts with ``layer``, ``channel`` (only for channels) and ``effect``, for JSON.
        """
        means, records = self.mean_effects, []
        for row in self._order().tolist():
            record: dict[str, Any] = {"layer": self.layers[row]}
            if self.channels is not None:
                record["channel"] = int(self.channels[row])
            records.append(record | {"effect": float(means[row])})
        return records

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the effect of each layer, or the ranking of the channels, as bars.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        shown, names = self._order().tolist(), list(self.layers)
        if self.channels is not None:
            shown = _choose_shown(shown)
            names = [
                f"{layer} {channel}"
                for layer, channel in zip(self.layers, self.channels, strict=True)
            ]
        targets = ", ".join(dict.fromkeys(self.targets))
        note = (
            f"effect on the {'logit' if self.is_logit else 'score'} of {targets}: "
            "0 as before, 1 as the source"
        )
        return _draw_effects(
            [names[position] for position in shown], self.mean_effects[shown], note, None
        )
