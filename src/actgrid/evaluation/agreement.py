"""Measure how similar the maps of several attribution methods are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError
from actgrid.evaluation.correlation import correlate, rank_values
from actgrid.evaluation.map_values import read_maps, resize_maps
from actgrid.option_groups import takes_options
from actgrid.options import AgreementOptions
from actgrid.rendering import Attribution
from actgrid.rendering.labelled_matrix import draw_labelled_matrix
from actgrid.rendering.picture import Picture
from actgrid.rendering.residual_stream import color_values

__all__ = ["Agreement", "measure_agreement"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(Picture):  # numpydoc ignore=PR01
    """Similarity of the maps of each pair of attributions.

    `actgrid.measure_agreement` returns an agreement. As a picture it is a matrix of the mean
    similarities.

    Parameters
    ----------
    names : tuple of str
        Names of the A attributions.
    samples : numpy.ndarray
        (N, A, A) float64: similarity of each pair for each sample; NaN where it is not defined,
        such as the correlation of a constant map.
    measure : str
        ``"spearman"``, ``"pearson"`` or ``"overlap"``.

    Examples
    --------
    >>> from actgrid.evaluation import Agreement
    >>> agreement = Agreement(("a", "b"), np.array([[[1, 0.5], [0.5, 1]]]), "spearman")
    >>> agreement.values.tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    >>> agreement.save("agreement.png")
    """

    names: tuple[str, ...]
    samples: npt.NDArray[np.float64]
    measure: str

    def __repr__(self) -> str:
        return f"<Agreement of {', '.join(self.names)}, {self.measure}>"

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """Mean similarity of each pair over the samples, (A, A), without NaN."""
        known = ~np.isnan(self.samples)
        count = known.sum(0)
        total = np.where(known, self.samples, 0).sum(0)
        means: Array = np.divide(total, count, np.full(total.shape, np.nan), where=count > 0)
        return means

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the mean similarities as a matrix of attributions.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        is_correlation = self.measure != "overlap"
        low, cmap = (-1.0, "RdBu_r") if is_correlation else (0.0, "viridis")
        values = self.values
        return draw_labelled_matrix(
            color_values(values, low, 1.0, cmap),
            self.names,
            self.names,
            texts=[[f"{value:.2f}" for value in row] for row in values],
            title=f"agreement of the maps ({self.measure})",
            note=f"mean over {len(self.samples)} map{'s' if len(self.samples) != 1 else ''}",
        )


@takes_options(AgreementOptions)
def measure_agreement(
    attributions: Mapping[str, Any], **options: Unpack[AgreementOptions]
) -> Agreement:
    """Measure how similar the maps of several attributions of the same samples are.

    Parameters
    ----------
    attributions : dict
        Name -> an `actgrid.Attribution`, or an array of maps (N, ...). Smaller maps are enlarged
        linearly to the largest size along each axis.
    **options
        See `actgrid.options.AgreementOptions`.

    Returns
    -------
    Agreement
        The similarity of each pair for each sample, -1 to 1 (0 to 1 for the overlap). As a picture
        it is a matrix of the means.

    Raises
    ------
    OptionError
        If there are fewer than two attributions, or an option is invalid. Also a ValueError.
    ShapeError
        If the attributions differ in the number of maps or of axes. Also a ValueError.
    DtypeError
        If the maps are not real numbers. Also a TypeError.

    Notes
    -----
    The overlap is the number of positions that are among the `fraction` largest values of both
    maps, relative to the number of these positions in one map. For random maps it is near
    `fraction`, and correlations are near 0.

    References
    ----------
    Krishna et al., The Disagreement Problem in Explainable Machine Learning, 2022,
    https://arxiv.org/abs/2202.01602.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> maps = rng.random((3, 16, 16))
    >>> agreement = actgrid.measure_agreement({"a": maps, "b": maps**2, "c": rng.random((3, 8, 8))})
    >>> round(float(agreement.values[0, 1]), 3)
    1.0
    >>> agreement.save("agreement.png")
    """
    if not isinstance(attributions, Mapping) or len(attributions) < 2:
        raise OptionError("attributions must be a dict of at least two attributions by name")
    names = tuple(map(str, attributions))
    arrays = [
        entry.values if isinstance(entry, Attribution) else np.asarray(entry)
        for entry in attributions.values()
    ]
    count = len(arrays[0]) if arrays[0].ndim else 0
    maps = [read_maps(array, count, name) for name, array in zip(names, arrays, strict=True)]
    rank = min(array.ndim for array in maps)
    # A last axis of channels, of which one of the attributions has none, is added up.
    maps = [array.sum(-1) if array.ndim == rank + 1 else array for array in maps]
    if any(array.ndim != rank for array in maps):
        shapes = ", ".join(
            f"{name} {array.shape}" for name, array in zip(names, arrays, strict=True)
        )
        raise ShapeError(f"attributions must have the same axes: got {shapes}")
    sides = tuple(map(max, zip(*(array.shape[1:] for array in maps), strict=True)))
    rows: list[Array] = [resize_maps(array, sides).reshape(count, -1) for array in maps]
    measure = options["measure"]
    if measure == "spearman":  # the correlation of the ranks
        rows = [rank_values(array) for array in rows]
    elif measure == "overlap":
        rows = [_mark_largest(array, options["fraction"]) for array in rows]
    samples = np.empty((count, len(names), len(names)))
    for first, first_rows in enumerate(rows):
        for second in range(first, len(rows)):
            if measure == "overlap":
                similarity = (first_rows & rows[second]).sum(1) / first_rows.sum(1)
            else:
                similarity = correlate(first_rows, rows[second])
            samples[:, first, second] = samples[:, second, first] = similarity
    return Agreement(names, samples, measure)


def _mark_largest(values: Array, fraction: float) -> Array:
    """Return whether each value is among the largest of its row, (N, K) bool."""
    size = max(1, round(fraction * values.shape[1]))
    is_large = np.zeros(values.shape, bool)
    np.put_along_axis(is_large, np.argsort(-values, 1, kind="stable")[:, :size], True, 1)
    return is_large
