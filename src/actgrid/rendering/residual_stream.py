"""Pictures of a residual stream: norms and directions by layer and token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError
from actgrid.rendering.colormaps import palette
from actgrid.rendering.heatmap_inputs import as_numbers
from actgrid.rendering.labelled_matrix import draw_labelled_matrix
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import pad_pictures

__all__ = ["LogitLens", "ResidualStream", "color_values"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False, init=False)
class ResidualStream(Picture):  # numpydoc ignore=PR01
    """Norm and change of direction of a residual stream, by layer and token.

    `actgrid.measure_residual_stream` returns a residual stream. As a picture it is two matrices of
    layers by tokens: the norms, and the angles.

    Parameters
    ----------
    norms : array_like
        (states, tokens): Euclidean norm of the stream at each token.
    angles : array_like
        (states, tokens): angle in degrees between each state and the state before it; NaN for the
        first state.
    states : sequence of str
        Name of each state: where it is in the model.
    tokens : sequence of str, optional
        Name of each token; ``""`` for padding, which is not drawn. None: the numbers of the tokens.
    cmap : str, default "viridis"
        Name of the colormap.

    Examples
    --------
    >>> from actgrid.rendering import ResidualStream
    >>> stream = ResidualStream([[1, 2], [2, 2]], [[np.nan, np.nan], [0, 90]], ["in", "block"])
    >>> stream
    <ResidualStream 2 states of 2 tokens>
    >>> stream.save("stream.png")
    """

    norms: npt.NDArray[np.float32]
    angles: npt.NDArray[np.float32]
    states: tuple[str, ...]
    tokens: tuple[str, ...]
    cmap: str

    def __init__(
        self,
        norms: object,
        angles: object,
        states: Sequence[str],
        *,
        tokens: Sequence[str] | None = None,
        cmap: str = "viridis",
    ) -> None:
        values = as_numbers("norms", norms, 2, "(states, tokens)")
        changes = as_numbers("angles", angles, 2, "(states, tokens)")
        if changes.shape != values.shape or len(states) != len(values):
            raise ShapeError(
                f"angles and states must fit norms: got {changes.shape} and {len(states)} for "
                f"{values.shape}"
            )
        names = _name_columns(tokens, values.shape[1])
        for name, value in (
            ("norms", values),
            ("angles", changes),
            ("states", tuple(states)),
            ("tokens", names),
            ("cmap", cmap),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.states)

    def __repr__(self) -> str:
        return f"<ResidualStream {len(self)} states of {len(self.tokens)} tokens>"

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the norms and the angles as two matrices of layers by tokens.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        pictures = pad_pictures(
            [
                self._draw(self.norms, "norm of the residual stream"),
                self._draw(self.angles[1:], "change of direction in degrees", first=1),
            ]
        )
        return np.concatenate(list(pictures))

    def _draw(self, values: Array, title: str, first: int = 0) -> Array:
        shown = np.array([bool(token) for token in self.tokens])
        values = values[:, shown]
        low, high = _find_range(values)
        return draw_labelled_matrix(
            color_values(values, low, high, self.cmap),
            _shorten_paths(self.states)[first:],
            [token for token in self.tokens if token],
            title=title,
            row_axis="layer",
            column_axis="token",
            note=f"colours from {low:.4g} to {high:.4g}",
        )


@dataclass(frozen=True, eq=False, repr=False, init=False)
class LogitLens(Picture):  # numpydoc ignore=PR01
    """Tokens or classes that a model would predict from each state of its residual stream.

    `actgrid.compute_logit_lens` returns a logit lens. As a picture it is a matrix of layers by
    tokens: each cell has the best prediction, in the colour of its probability. For a classifier,
    which has one prediction, the columns are its k best classes.

    Parameters
    ----------
    indices : array_like
        (states, positions, k) int: the k best predictions, best first.
    probabilities : array_like
        (states, positions, k): their probabilities.
    states : sequence of str
        Name of each state: where it is in the model.
    tokens : sequence of str, optional
        Name of the token at each position; ``""`` for padding, which is not drawn. None: the
        numbers of the positions.
    labels : sequence of sequence of sequence of str, optional
        (states, positions, k) strings of the predictions. None: the indices.
    cmap : str, default "viridis"
        Name of the colormap.

    Examples
    --------
    >>> from actgrid.rendering import LogitLens
    >>> lens = LogitLens([[[3], [1]]], [[[0.5], [0.9]]], ["block"], tokens=["a", "cat"])
    >>> lens
    <LogitLens 1 state of 2 positions>
    >>> lens.save("lens.png")
    """

    indices: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    states: tuple[str, ...]
    tokens: tuple[str, ...]
    labels: tuple[tuple[tuple[str, ...], ...], ...]
    cmap: str

    def __init__(
        self,
        indices: object,
        probabilities: object,
        states: Sequence[str],
        *,
        tokens: Sequence[str] | None = None,
        labels: Sequence[Any] | None = None,
        cmap: str = "viridis",
    ) -> None:
        numbers = np.asarray(indices)
        values = as_numbers("probabilities", probabilities, 3, "(states, positions, k)")
        if numbers.dtype.kind not in "iu" or numbers.shape != values.shape:
            raise ShapeError(
                f"indices must be integers of shape {values.shape}: got {numbers.dtype} of shape "
                f"{numbers.shape}"
            )
        if len(states) != len(values):
            raise ShapeError(f"states must have {len(values)} names: got {len(states)}")
        texts = numbers.tolist() if labels is None else labels
        named = tuple(tuple(tuple(map(str, cell)) for cell in row) for row in texts)
        for name, value in (
            ("indices", numbers.astype(np.int64)),
            ("probabilities", values),
            ("states", tuple(states)),
            ("tokens", _name_columns(tokens, values.shape[1])),
            ("labels", named),
            ("cmap", cmap),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.states)

    def __repr__(self) -> str:
        states = "1 state" if len(self) == 1 else f"{len(self)} states"
        return f"<LogitLens {states} of {len(self.tokens)} positions>"

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the best prediction of each state and position, coloured by its probability.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        shown = [index for index, token in enumerate(self.tokens) if token]
        is_single = len(shown) == 1
        if is_single:  # a classifier: its best predictions side by side
            probabilities = self.probabilities[:, shown[0]]
            texts = [row[shown[0]] for row in self.labels]
            columns = [str(rank + 1) for rank in range(probabilities.shape[1])]
        else:
            probabilities = self.probabilities[:, shown, 0]
            texts = [tuple(row[index][0] for index in shown) for row in self.labels]
            columns = [self.tokens[index] for index in shown]
        return draw_labelled_matrix(
            color_values(probabilities, 0, 1, self.cmap),
            _shorten_paths(self.states),
            columns,
            texts=texts,
            title=f"best prediction{'s' if is_single else ''} of each layer",
            row_axis="layer",
            column_axis="rank" if is_single else "token",
            note="colours: probability from 0 to 1",
        )


def _name_columns(tokens: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if tokens is None:
        return tuple(map(str, range(count)))
    if isinstance(tokens, str) or len(tokens) != count:
        raise OptionError(f"tokens must have {count} names: got {tokens!r}")
    return tuple(map(str, tokens))


def _shorten_paths(states: Sequence[str]) -> list[str]:
    """Return the names of states without the outer layers that all of them are in."""
    paths = [state.split("/") for state in states if "/" in state]
    common = 0
    while paths and all(len(path) > common + 1 for path in paths):
        if len({path[common] for path in paths}) > 1:
            break
        common += 1
    return ["/".join(state.split("/")[common:]) if "/" in state else state for state in states]


def _find_range(values: Array) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def color_values(values: Array, low: float, high: float, cmap: str) -> npt.NDArray[np.uint8]:
    """Return the colour of each value between two limits, (..., 3) uint8; NaN is black."""
    scale = 255 / (high - low) if high > low else 0.0
    levels = np.clip((np.nan_to_num(values) - low) * scale, 0, 255).astype(np.uint8)
    colours: npt.NDArray[np.uint8] = palette(cmap)[levels]
    return np.where(np.isnan(values)[..., None], np.uint8(0), colours)
