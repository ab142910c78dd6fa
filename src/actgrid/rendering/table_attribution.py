"""Attributions of the values of a table, drawn as bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actgrid.rendering.attribution import Attribution
from actgrid.rendering.bars import draw_bars
from actgrid.rendering.colormaps import palette

__all__ = ["TableAttribution"]

# Number of bars of a picture. The note says how many features are not drawn.
_MAX_BARS = 24
_GRAY = (160, 160, 160)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class TableAttribution(Attribution):  # numpydoc ignore=PR01
    """Attributions of the features of a table, (N, C), drawn as bars.

    The parameters and attributes are those of `Attribution`, with the axes ``("feature",)``;
    `names` are the names of the columns. The bars are those of the features with the largest
    absolute values, in descending order.

    Examples
    --------
    >>> from actgrid.rendering import make_attribution
    >>> attribution = make_attribution(
    ...     [[0.5, -1.0, 0.1]], ("feature",), names=["age", "income", "height"]
    ... )
    >>> attribution.save("table.png")
    """

    def _draw_pictures(
        self, alpha: float, cmap: str, clip: float, threads: int
    ) -> npt.NDArray[np.uint8]:
        levels = self._compute_levels(clip)
        count = self.values.shape[1]
        pictures = []
        for row, (values, row_levels) in enumerate(zip(self.values, levels, strict=True)):
            order = np.argsort(-np.abs(values), kind="stable")[:_MAX_BARS]
            names = self._name_features(row)
            hidden = count - len(order)
            note = ""
            if hidden:
                rest = float(values.sum(dtype=np.float64) - values[order].sum(dtype=np.float64))
                note = f"{hidden} more features, smaller in magnitude, sum to {rest:.4g}"
            pictures.append(
                draw_bars(
                    [names[index] for index in order],
                    values[order],
                    palette(cmap)[row_levels[order]],
                    note,
                )
            )
        return np.stack(pictures)

    def _draw_input_pictures(self) -> npt.NDArray[np.uint8]:
        pictures = []
        for row, values in enumerate(self._require_inputs()):
            shown = values[:_MAX_BARS]
            hidden = len(values) - len(shown)
            colours = np.full((len(shown), 3), _GRAY, np.uint8)
            note = f"{hidden} more features" if hidden else ""
            pictures.append(draw_bars(self._get_names(row)[: len(shown)], shown, colours, note))
        return np.stack(pictures)

    def _get_names(self, row: int) -> list[str]:
        names = list(self.names[row]) if self.names is not None else []
        count = self.values.shape[1]
        return names[:count] + [f"feature {index}" for index in range(len(names), count)]

    def _name_features(self, row: int) -> list[str]:
        names = self._get_names(row)
        if self.inputs is None or self.inputs.shape != self.values.shape:
            return names
        return [
            f"{name} = {value:.4g}" for name, value in zip(names, self.inputs[row], strict=False)
        ]
