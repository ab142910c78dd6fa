"""The class `actgrid.ConceptSensitivity`: TCAV scores of concepts in layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.rendering.bars import draw_bars
from actgrid.rendering.picture import Picture
from actgrid.rendering.stats import import_pandas

if TYPE_CHECKING:
    import pandas

__all__ = ["ConceptSensitivity"]

# Significance level before the correction for several tests.
_LEVEL = 0.05
_BLUE = (66, 133, 200)
_GRAY = (200, 200, 200)


@dataclass(frozen=True, eq=False, repr=False)
class ConceptSensitivity(Picture):
    """TCAV scores: how often a class score increases towards a concept in a layer.

    `actgrid.measure_concept_sensitivity` returns an instance. As a picture it has a bar for each
    concept and layer, gray if the score does not differ significantly from that of random concepts.

    Parameters
    ----------
    concepts : tuple of str
        Names of the K concepts.
    layers : tuple of str
        Paths of the L layers.
    scores : ndarray
        (K, L, R) float64: TCAV score of each of R concept activation vectors, the fraction of the
        images whose class score increases in the direction of the vector, 0 to 1.
    random_scores : ndarray
        (L, R) float64: TCAV scores of vectors between two random sets of images.
    accuracies : ndarray
        (K, L, R) float64: accuracy of the classifier of each vector on images that it was not
        trained on.
    p_values : ndarray
        (K, L) float64: p-value of a two-sided t-test (Welch) that the scores of a concept have the
        same mean as the random scores, without a correction for several tests.

    Examples
    --------
    >>> sensitivity = actgrid.ConceptSensitivity(
    ...     ("striped",), ("block5",), np.array([[[0.9, 1.0]]]), np.array([[0.5, 0.4]]),
    ...     np.array([[[1.0, 1.0]]]), np.array([[0.02]]),
    ... )
    >>> sensitivity
    <ConceptSensitivity of 1 concept in 1 layer, 1 significant>
    >>> sensitivity.mean_scores
    array([[0.95]])
    >>> sensitivity.save("sensitivity.png")
    """

    concepts: tuple[str, ...]
    layers: tuple[str, ...]
    scores: npt.NDArray[np.float64]
    random_scores: npt.NDArray[np.float64]
    accuracies: npt.NDArray[np.float64]
    p_values: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.concepts)

    def __repr__(self) -> str:
        concepts, layers = (
            f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
            for names, noun in ((self.concepts, "concept"), (self.layers, "layer"))
        )
        return (
            f"<ConceptSensitivity of {concepts} in {layers}, "
            f"{int(self.is_significant.sum())} significant>"
        )

    @property
    def mean_scores(self) -> npt.NDArray[np.float64]:
        """(K, L) mean TCAV score of each concept in each layer."""
        means: npt.NDArray[np.float64] = self.scores.mean(axis=-1)
        return means

    @property
    def is_significant(self) -> npt.NDArray[np.bool_]:
        """(K, L) whether a score differs from random scores (5 %, Bonferroni-corrected)."""
        significant: npt.NDArray[np.bool_] = self.p_values < _LEVEL / self.p_values.size
        return significant

    def to_records(self) -> list[dict[str, Any]]:
        """Return the results of each concept in each layer, for JSON.

        Returns
        -------
        list of dict
            For each concept and layer ``concept``, ``layer``, ``score`` (mean TCAV score),
            ``deviation`` (its standard deviation over the vectors), ``random_score``, ``p_value``,
            ``is_significant`` and ``accuracy`` (mean accuracy of the classifiers).
        """
        return [
            {
                "concept": concept,
                "layer": layer,
                "score": float(self.scores[row, column].mean()),
                "deviation": float(self.scores[row, column].std()),
                "random_score": float(self.random_scores[column].mean()),
                "p_value": float(self.p_values[row, column]),
                "is_significant": bool(self.is_significant[row, column]),
                "accuracy": float(self.accuracies[row, column].mean()),
            }
            for row, concept in enumerate(self.concepts)
            for column, layer in enumerate(self.layers)
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Convert the results to a pandas DataFrame with a row for each concept and layer.

        Returns
        -------
        pandas.DataFrame
            Columns: the entries of `to_records`. Index: ``(concept, layer)``.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.
        """
        return import_pandas().DataFrame(self.to_records()).set_index(["concept", "layer"])

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the mean TCAV score of each concept in each layer as a bar.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        records = self.to_records()
        names = [
            record["concept"]
            if len(self.layers) == 1
            else f"{record['concept']}, {record['layer']}"
            for record in records
        ]
        values = np.array([record["score"] for record in records], np.float32)
        colours = np.array(
            [_BLUE if record["is_significant"] else _GRAY for record in records], np.uint8
        )
        note = (
            f"TCAV score; of random concepts {self.random_scores.mean():.2f}; "
            f"gray: not significant (p >= {_LEVEL / self.p_values.size:.2g})"
        )
        return draw_bars(names, values, colours, note)
