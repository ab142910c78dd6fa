"""Results of the evaluation of attribution maps: tables, curves and their picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.evaluation.metrics import get_metrics
from actgrid.rendering.colormaps import palette
from actgrid.rendering.curve_plot import draw_curves
from actgrid.rendering.labelled_matrix import draw_labelled_matrix
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import lay_out_sheet, pad_pictures
from actgrid.rendering.stats import import_pandas

if TYPE_CHECKING:
    import pandas

__all__ = ["Evaluation", "EvaluationCurve"]

# Part of the colormap of ranks in which black text is easy to read, from worst to best.
_WORST_LEVEL, _BEST_LEVEL = 40, 180
_RANK_COLORMAP = "Blues"
_RANK_SPAN = _BEST_LEVEL - _WORST_LEVEL


class EvaluationCurve(NamedTuple):  # numpydoc ignore=PR01
    """Curves of a metric for each attribution and sample.

    Parameters
    ----------
    x : numpy.ndarray
        (S,) float32: abscissae.
    values : numpy.ndarray
        (A, N, S) float32: ordinates for A attributions of N samples.
    x_label, y_label : str
        Names of the axes.

    Examples
    --------
    >>> from actgrid.evaluation import EvaluationCurve
    >>> curve = EvaluationCurve(np.linspace(0, 1, 3), np.ones((1, 2, 3)), "fraction", "score")
    >>> curve.values.mean(1).shape
    (1, 3)
    """

    x: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]
    x_label: str
    y_label: str


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Picture):  # numpydoc ignore=PR01
    """Values of metrics of one or several attributions for each sample.

    `actgrid.evaluate` returns an evaluation. As a picture it is a table of the mean values, in the
    colours of their ranks, above the mean curves.

    Parameters
    ----------
    names : tuple of str
        Names of the A attributions.
    values : dict of str to numpy.ndarray
        Metric -> (A, N) float64: its value for each attribution and sample; NaN where the metric is
        not defined.
    curves : dict of str to EvaluationCurve
        Metric -> its curves, for metrics that are areas under curves or means of them.
    images : numpy.ndarray
        (N,) int64: index of the image, or other sample, of each of N maps.
    targets : tuple of str
        Names of the N explained classes or functions.

    Examples
    --------
    >>> from actgrid.evaluation import Evaluation
    >>> values = {"deletion": np.array([[0.1], [0.4]]), "insertion": np.array([[0.8], [0.3]])}
    >>> evaluation = Evaluation(("gradcam", "saliency"), values, {}, np.array([0]), ("cat",))
    >>> evaluation.ranking
    ['gradcam', 'saliency']
    >>> evaluation.means["deletion"].tolist()
    [0.1, 0.4]
    """

    names: tuple[str, ...]
    values: Mapping[str, npt.NDArray[np.float64]]
    curves: Mapping[str, EvaluationCurve] = field(default_factory=dict)
    images: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    targets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        attributions = ", ".join(self.names)
        samples = "1 map" if len(self.images) == 1 else f"{len(self.images)} maps"
        return f"<Evaluation of {attributions} by {', '.join(self.values)}, {samples}>"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(self.values)

    @property
    def means(self) -> dict[str, npt.NDArray[np.float64]]:
        """Mean value of each metric over the samples, without NaN: metric -> (A,)."""
        return {
            name: np.array([_average(row) for row in values])
            for name, values in self.values.items()
        }

    @property
    def ranks(self) -> dict[str, npt.NDArray[np.float64]]:
        """Rank of each attribution by the mean of each metric, 1 for the best: metric -> (A,).

        Equal means have their mean rank. Metrics that do not judge a map are left out.
        """
        ranks = {}
        for name, means in self.means.items():
            is_higher_better = get_metrics()[name].is_higher_better
            if is_higher_better is not None:
                costs = np.where(np.isnan(means), np.inf, -means if is_higher_better else means)
                lower = (costs[None] < costs[:, None]).sum(1)
                equal = (costs[None] == costs[:, None]).sum(1)
                ranks[name] = lower + (equal + 1) / 2
        return ranks

    @property
    def ranking(self) -> list[str]:
        """Names of the attributions, ordered by their mean rank over the metrics, best first."""
        if not self.ranks:
            return list(self.names)
        mean_ranks = np.mean(list(self.ranks.values()), 0)
        return [self.names[index] for index in np.argsort(mean_ranks, kind="stable")]

    def to_frame(self) -> pandas.DataFrame:
        """Convert the values to a pandas DataFrame: a row for each map, a column for each metric.

        Returns
        -------
        pandas.DataFrame
            Columns: the metrics. Index: ``image``; before it ``attribution`` if there are several,
            and after it ``target`` if an image has several maps.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.
        """
        pandas = import_pandas()
        count = len(self.images)
        index: dict[str, Any] = {}
        if len(self.names) > 1:
            index["attribution"] = np.repeat(self.names, count)
        index["image"] = np.tile(self.images, len(self.names))
        if len(set(self.images.tolist())) < count:
            index["target"] = np.tile(self.targets, len(self.names))
        columns = {name: values.ravel() for name, values in self.values.items()}
        return pandas.DataFrame({**index, **columns}).set_index(list(index))

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the mean values as a table, and the mean curves of the metrics below.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        table = self._draw_table()
        if not self.curves:
            return table
        plots = [
            draw_curves(
                curve.x,
                dict(zip(self.names, np.nanmean(curve.values, 1), strict=True)),
                title=f"{name}: {curve.y_label}",
                x_label=curve.x_label,
            )
            for name, curve in self.curves.items()
        ]
        columns = min(2, len(plots))
        sheet = lay_out_sheet(np.stack(plots), columns=columns).to_rgb()
        width = max(table.shape[1], sheet.shape[1])
        parts = pad_pictures([table, sheet])
        heights = table.shape[0], sheet.shape[0]
        return np.concatenate(
            [part[:height, :width] for part, height in zip(parts, heights, strict=True)]
        )

    def _draw_table(self) -> npt.NDArray[np.uint8]:
        means, ranks = self.means, self.ranks
        colours = np.full((len(self.names), len(means), 3), 255, np.uint8)
        worst = max(len(self.names) - 1, 1)
        for column, name in enumerate(means):
            if name in ranks:
                quality = 1 - (ranks[name] - 1) / worst
                levels = (_WORST_LEVEL + quality * _RANK_SPAN).astype(np.uint8)
                colours[:, column] = palette(_RANK_COLORMAP)[levels]
        metrics = get_metrics()
        return draw_labelled_matrix(
            colours,
            self.names,
            [_describe_direction(name, metrics[name].is_higher_better) for name in means],
            texts=[[f"{means[name][row]:.3g}" for name in means] for row in range(len(self.names))],
            title=f"mean over {len(self.images)} map{'s' if len(self.images) != 1 else ''}",
            row_axis="attribution",
            column_axis="metric",
            note="darker: better; > higher is better, < lower is better",
        )


def _average(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN; NaN if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _describe_direction(name: str, is_higher_better: bool | None) -> str:
    return name if is_higher_better is None else f"{name} {'>' if is_higher_better else '<'}"
