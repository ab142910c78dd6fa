"""Attention weights of one layer, drawn as matrices, arcs or heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.errors import DtypeError, OptionError, ShapeError, suggest
from actgrid.option_checks import check_integer
from actgrid.rendering.attention_arcs import AttentionArcs, format_token
from actgrid.rendering.attribution import Attribution
from actgrid.rendering.attribution_kinds import make_attribution
from actgrid.rendering.colormaps import palette
from actgrid.rendering.labelled_matrix import draw_labelled_matrix
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import Sheet, lay_out_sheet, shorten_text
from actgrid.rendering.tiles import as_array
from actgrid.rendering.token_grid import TokenGrid

__all__ = ["AttentionMap"]

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

_TILE_SIDE = 160  # pixels of the longer side of a small matrix in `to_rgb`
_MIN_TILE_SIDE = 64
_NOTE_FONT_SIZE = 12
_NOTE_HEIGHT = 24
_NOTE_COLOUR = (110, 110, 110)
_MAX_ARC_TOKENS = 64  # for which notebooks show arcs


@dataclass(frozen=True, eq=False, repr=False, init=False)
class AttentionMap(Picture):
    """Attention weights of one layer for one sample: how much each query attends to each key.

    As a picture, an attention map is a sheet with a matrix of each head.

    Parameters
    ----------
    values : array_like
        (heads, queries, keys) real numbers: the weights, usually from 0 to 1.
    queries, keys : sequence of str, optional
        Names of the tokens that attend, and of the tokens that are attended to. ``""`` marks
        padding, which is not drawn. None: names of the positions in the grid, which are ``"class"``
        for a single token before the patches, ``"token 0"``, ``"token 1"`` and so on for several
        tokens beside them, and ``"row,column"`` for patches; without a grid, the index.
    query_grid, key_grid : TokenGrid, optional
        Grid of image patches that the queries or the keys form.
    image : array_like, optional
        (height, width, 3) uint8: the image that the patches of the keys cover.
    layer : str, optional
        Path of the layer.
    cmap : str, default "viridis"
        Name of the colormap of matrices.

    Attributes
    ----------
    values
        (heads, queries, keys) float32.
    queries, keys
        Tuples of the names of all tokens, ``""`` for padding.
    query_grid, key_grid, layer, cmap
        The arguments.
    image
        (height, width, 3) uint8, or None.

    Raises
    ------
    ShapeError, OptionError
        If an array has the wrong shape, the number of names or of tokens of a grid differs from
        the number of weights, or an option is invalid. Both are ValueErrors.
    DtypeError
        If `values` are not real numbers, or `image` is not uint8. Also a TypeError.

    Notes
    -----
    A notebook shows the arcs of `arcs` if there are names of tokens, no grid, and at most 64
    tokens; otherwise the sheet of `to_rgb`.

    Examples
    --------
    >>> from actgrid.rendering import AttentionMap, TokenGrid
    >>> words = ["the", "cat", "sleeps"]
    >>> attention = AttentionMap(np.full((2, 3, 3), 1 / 3), queries=words, keys=words)
    >>> attention
    <AttentionMap 2 heads of 3 queries x 3 keys>
    >>> attention.matrix("max").save("matrix.png")
    >>> grid = TokenGrid(14, 14, leading=1)
    >>> weights = np.random.rand(12, 197, 197)
    >>> attention = AttentionMap(weights, query_grid=grid, key_grid=grid)
    >>> attention.attend_from("class")
    <Heatmap 1 map of 14 x 14, attention, attention from class>
    """

    values: Floats
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    query_grid: TokenGrid | None
    key_grid: TokenGrid | None
    image: Pixels | None
    layer: str | None
    cmap: str
    _has_names: bool

    def __init__(
        self,
        values: object,
        *,
        queries: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        query_grid: TokenGrid | None = None,
        key_grid: TokenGrid | None = None,
        image: object = None,
        layer: str | None = None,
        cmap: str = "viridis",
    ) -> None:
        array = as_array(values)
        if array.ndim != 3 or array.size == 0:
            raise ShapeError(
                f"values: got shape {array.shape}; expected (heads, queries, keys) and not empty"
            )
        _, query_count, key_count = array.shape
        palette(cmap)  # raises an error for an unknown name
        with np.errstate(over="ignore"):
            weights = np.ascontiguousarray(array, np.float32)
        for name, value in {
            "values": weights,
            "queries": _as_names("queries", queries, "query_grid", query_grid, query_count),
            "keys": _as_names("keys", keys, "key_grid", key_grid, key_count),
            "query_grid": query_grid,
            "key_grid": key_grid,
            "image": None if image is None else _as_image(image),
            "layer": layer,
            "cmap": cmap,
            "_has_names": queries is not None or keys is not None,
        }.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self.heads

    def __repr__(self) -> str:
        size = f"{self._head_count} of {len(self.queries)} queries x {len(self.keys)} keys"
        return f"<AttentionMap {', '.join(filter(None, (size, self.layer)))}>"

    @property
    def heads(self) -> int:
        """Number of heads."""
        return len(self.values)

    def select_heads(self, head: int | str = "mean") -> Floats:
        """Return the weights of one head, or of all heads combined.

        Parameters
        ----------
        head : int or {"mean", "max"}, default "mean"
            Position of a head; a negative position counts from the end. ``"mean"`` and ``"max"``
            are the mean and the maximum over all heads.

        Returns
        -------
        numpy.ndarray
            (queries, keys) float32, including padding.

        Raises
        ------
        OptionError
            If there is no such head. Also a ValueError.

        Examples
        --------
        >>> from actgrid.rendering import AttentionMap
        >>> attention = AttentionMap([[[0.0, 1.0]], [[0.5, 0.5]]])
        >>> attention.select_heads("mean")
        array([[0.25, 0.75]], dtype=float32)
        >>> attention.select_heads(-1)
        array([[0.5, 0.5]], dtype=float32)
        """
        position = self._find_head(head)
        weights: Floats
        if position is not None:
            weights = self.values[position]
        else:
            weights = self.values.mean(axis=0) if head == "mean" else self.values.max(axis=0)
        return weights

    def to_rgb(self) -> Pixels:
        """Draw the matrix of each head, with queries as rows and keys as columns.

        Padding is left out. The colormap extends from 0 to the largest value of the layer, so that
        the heads can be compared.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.

        Raises
        ------
        OptionError
            If the picture has more than 2**30 pixels. Also a ValueError.
        """
        rows, columns = self._visible
        values = self.values[:, rows[:, None], columns]
        largest = _find_largest(values)
        zoom = max(1, _TILE_SIDE // max(len(rows), len(columns)))
        # The sides of a long and narrow matrix have different zooms, so that its caption fits.
        tall, wide = (max(zoom, -(-_MIN_TILE_SIDE // len(side))) for side in (rows, columns))
        levels = _compute_levels(values, largest).repeat(tall, axis=1).repeat(wide, axis=2)
        sheet = lay_out_sheet(
            palette(self.cmap)[levels],
            padding=8,
            captions=[f"head {head}" for head in range(self.heads)],
        )
        return _append_note(sheet.to_rgb(), _describe_axes(largest))

    def matrix(self, head: int | str = "mean", cmap: str | None = None) -> Sheet:
        """Draw the weights as a matrix with the names of the tokens.

        Rows are queries and columns are keys, without padding. The colormap extends from 0 to the
        largest value of the matrix.

        Parameters
        ----------
        head : int or {"mean", "max"}, default "mean"
            The head, as in `select_heads`.
        cmap : str, optional
            Name of the colormap. None: `cmap`.

        Returns
        -------
        Sheet
            A sheet with one picture.

        Raises
        ------
        OptionError
            If there is no such head, or no such colormap. Also a ValueError.

        Examples
        --------
        >>> from actgrid.rendering import AttentionMap
        >>> words = ["the", "cat", "sleeps"]
        >>> attention = AttentionMap(np.full((2, 3, 3), 1 / 3), queries=words, keys=words)
        >>> len(attention.matrix(head=1, cmap="inferno"))
        1
        """
        rows, columns = self._visible
        values = self.select_heads(head)[rows[:, None], columns]
        largest = _find_largest(values)
        picture = draw_labelled_matrix(
            palette(cmap or self.cmap)[_compute_levels(values, largest)],
            [format_token(self.queries[row]) for row in rows],
            [format_token(self.keys[column]) for column in columns],
            title=self._describe_head(head),
            row_axis="query",
            column_axis="key",
            note=_describe_axes(largest),
        )
        return lay_out_sheet(picture[None])

    def arcs(
        self, head: int | str = "mean", threshold: float = 0.05, cmap: str | None = None
    ) -> AttentionArcs:
        """Draw the tokens as a line of text, with arcs from each query to the keys it attends to.

        If the names of queries and keys differ, as in attention of a decoder to an encoder, the
        keys form a second line above the queries, and straight lines connect them. Padding is left
        out.

        Parameters
        ----------
        head : int or {"mean", "max"}, default "mean"
            The head, as in `select_heads`.
        threshold : float, default 0.05
            Fraction of the largest weight, 0 to 1. Smaller weights are not drawn. Weights of a
            token to itself are never drawn, nor counted as the largest weight.
        cmap : str, optional
            Name of the colormap that colours the arcs by weight. None: arcs to earlier tokens are
            blue and arcs to later tokens are orange.

        Returns
        -------
        AttentionArcs
            A picture with the methods ``to_svg`` and ``to_html`` too.

        Raises
        ------
        OptionError
            If there is no such head, or an option is invalid. Also a ValueError.

        Examples
        --------
        >>> from actgrid.rendering import AttentionMap
        >>> words = ["the", "cat", "sleeps"]
        >>> attention = AttentionMap(np.full((2, 3, 3), 1 / 3), queries=words, keys=words)
        >>> attention.arcs()
        <AttentionArcs 3 tokens, 6 arcs>
        >>> attention.arcs(head=0, threshold=0.5).save("arcs.png")
        """
        rows, columns = self._visible
        return AttentionArcs(
            self.select_heads(head)[rows[:, None], columns],
            [self.queries[row] for row in rows],
            [self.keys[column] for column in columns],
            threshold=threshold,
            cmap=cmap,
            title=self._describe_head(head),
        )

    def attend_from(
        self, query: int | str | tuple[int, int], head: int | str = "mean"
    ) -> Attribution:
        """Return where one query attends to, as a heatmap over the image or as coloured text.

        Parameters
        ----------
        query : int, str or tuple of int
            Index of the query, where a negative index counts from the end; its name, if no other
            query has the same name; or the row and column of a patch of `query_grid`.
        head : int or {"mean", "max"}, default "mean"
            The head, as in `select_heads`.

        Returns
        -------
        Attribution
            With a `key_grid`, a `Heatmap` of the weights of the patches, (1, grid height, grid
            width), over `image`. Its `details` hold the weights of the tokens before and after the
            patches as ``"leading"``, (1, leading), and ``"trailing"``, (1, trailing). Without a
            `key_grid`, a `TextAttribution` of the weights of all keys, (1, keys).

        Raises
        ------
        OptionError
            If there is no such query or head, several queries have the name, or the query is
            padding. Also a ValueError.

        Examples
        --------
        >>> from actgrid.rendering import AttentionMap, TokenGrid
        >>> grid = TokenGrid(2, 3, leading=1)
        >>> attention = AttentionMap(
        ...     np.random.rand(4, 7, 7),
        ...     query_grid=grid,
        ...     key_grid=grid,
        ...     image=np.zeros((20, 30, 3), np.uint8),
        ... )
        >>> heatmap = attention.attend_from((1, 2), head=3)
        >>> heatmap.values.shape, heatmap.details["leading"].shape
        ((1, 2, 3), (1, 1))
        >>> heatmap.save("patch.png")
        """
        position = self._find_query(query)
        weights = self.select_heads(head)[position][None]
        facts: dict[str, Any] = {
            "labels": [f"attention from {format_token(self.queries[position])}"],
            "method": "attention",
            "layer": self.layer,
        }
        if self.key_grid is None:
            return make_attribution(weights, ("token",), names=[self.keys], **facts)
        grid, patches = self.key_grid, self.key_grid.patches
        details = {"leading": weights[:, : patches.start], "trailing": weights[:, patches.stop :]}
        return make_attribution(
            weights[:, patches].reshape(1, grid.height, grid.width),
            ("height", "width"),
            images=self.image,
            details=details,
            **facts,
        )

    def _repr_html_(self) -> str | None:
        """Return the arcs as HTML, or None if notebooks are to show the PNG file."""
        has_grid = self.query_grid is not None or self.key_grid is not None
        is_short = max(map(len, self._visible)) <= _MAX_ARC_TOKENS
        return self.arcs().to_html() if self._has_names and not has_grid and is_short else None

    @property
    def _visible(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The positions of the queries and of the keys that are not padding."""
        return np.flatnonzero(self.queries), np.flatnonzero(self.keys)

    @property
    def _head_count(self) -> str:
        """The number of heads in words."""
        return "1 head" if self.heads == 1 else f"{self.heads} heads"

    def _find_head(self, head: int | str) -> int | None:
        """Return the non-negative position of a head, or None for ``"mean"`` and ``"max"``."""
        if isinstance(head, str) and head in ("mean", "max"):
            return None
        last = self.heads - 1
        expected = f'expected 0 to {last}, "mean" or "max": the layer has {self._head_count}'
        if isinstance(head, str):
            raise OptionError(f"head: got {head!r}; {expected}")
        position = check_integer("head", head)
        if not -self.heads <= position < self.heads:
            raise OptionError(f"head: got {position}; {expected}")
        return position % self.heads

    def _describe_head(self, head: int | str) -> str:
        position = self._find_head(head)
        name = f"head {position}"
        if position is None:
            name = f"{'mean' if head == 'mean' else 'maximum'} of {self._head_count}"
        return ", ".join(filter(None, (self.layer, name)))

    def _find_query(self, query: int | str | tuple[int, int]) -> int:
        """Return the non-negative position of a query."""
        if isinstance(query, str):
            return self._find_query_by_name(query)
        if isinstance(query, tuple):
            position = self._find_patch(query)
        else:
            count = len(self.queries)
            position = check_integer("query", query)
            if not -count <= position < count:
                raise OptionError(f"query: got {position}; expected an index from 0 to {count - 1}")
            position %= count
        if not self.queries[position]:
            raise OptionError(f"query: got {query}, which is padding; expected another token")
        return position

    def _find_query_by_name(self, name: str) -> int:
        positions = [position for position, other in enumerate(self.queries) if other == name]
        if not name or not positions:
            hint = suggest(name, filter(None, self.queries))
            raise OptionError(f"query: got {name!r}; expected the name of a token{hint}")
        if len(positions) > 1:
            listed = ", ".join(map(str, positions[:10])) + (", ..." if len(positions) > 10 else "")
            raise OptionError(
                f"query: got {name!r}, the name of {len(positions)} tokens; expected one of the "
                f"indices {listed}"
            )
        return positions[0]

    def _find_patch(self, patch: tuple[int, ...]) -> int:
        """Return the position of a patch of the grid of the queries, given as (row, column)."""
        grid = self.query_grid
        if grid is None:
            raise OptionError(
                f"query: got {patch}; expected an index or a name, as there is no query_grid"
            )
        if len(patch) != 2:
            raise OptionError(f"query: got {patch}; expected (row, column)")
        row, column = (check_integer("query", index) for index in patch)
        if not (0 <= row < grid.height and 0 <= column < grid.width):
            raise OptionError(
                f"query: got {patch}; expected (row, column) in a grid of {grid.height} x "
                f"{grid.width} patches"
            )
        return grid.leading + row * grid.width + column


def _as_names(
    name: str,
    names: Sequence[str] | None,
    grid_name: str,
    grid: TokenGrid | None,
    count: int,
) -> tuple[str, ...]:
    """Return the name of each token.

    Parameters
    ----------
    name
        Name of the argument, for error messages.
    names
        The argument. None: the names of the positions in the grid, or else the indices.
    grid_name
        Name of the argument that holds the grid, for error messages.
    grid
        Grid of patches that the tokens form.
    count
        Number of tokens.
    """
    if grid is not None:
        if not isinstance(grid, TokenGrid):
            raise OptionError(f"{grid_name}: got {grid!r}; expected a TokenGrid")
        if grid.tokens != count:
            raise ShapeError(f"{grid_name}: got a grid of {grid.tokens} tokens; expected {count}")
    if names is None:
        return tuple(map(str, range(count))) if grid is None else _name_positions(grid)
    # A text is a sequence of texts, its letters, which are seldom tokens.
    if isinstance(names, str) or not all(isinstance(token, str) for token in names):
        raise OptionError(f"{name}: got {names!r}; expected a sequence of texts")
    if len(names) != count:
        raise ShapeError(f"{name}: got {len(names)} names; expected {count}, as values have")
    if not any(names):
        raise OptionError(f"{name}: got {count} empty names; expected a token that is no padding")
    return tuple(names)


def _name_positions(grid: TokenGrid) -> tuple[str, ...]:
    """Return a name for each token of a grid of patches."""
    others = [f"token {index}" for index in range(grid.leading + grid.trailing)]
    if grid.leading == 1:
        others[0] = "class"
    patches = [f"{row},{column}" for row in range(grid.height) for column in range(grid.width)]
    return (*others[: grid.leading], *patches, *others[grid.leading :])


def _as_image(image: object) -> Pixels:
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ShapeError(f"image: got shape {pixels.shape}; expected (height, width, 3)")
    if pixels.dtype != np.uint8:
        raise DtypeError(f"image: got {pixels.dtype}; expected uint8")
    return pixels


def _find_largest(values: Floats) -> float:
    """Return the largest finite value, at least 0."""
    return float(np.max(values, initial=0, where=np.isfinite(values)))


def _compute_levels(values: Floats, largest: float) -> Pixels:
    """Return the level of each value: 0 for NaN and values up to 0, 255 for the largest value."""
    # Dividing first keeps the product finite in float32.
    scaled = np.clip(values / np.float32(largest or 1), 0, 1) * np.float32(255)
    levels: Pixels = (np.nan_to_num(scaled, nan=0.0) + np.float32(0.5)).astype(np.uint8)
    return levels


def _describe_axes(largest: float) -> str:
    return f"rows: queries, columns: keys; colours: 0 to {largest:.3g}"


def _append_note(picture: Pixels, note: str) -> Pixels:
    """Return a picture with a line of text below, wide enough for the text."""
    font: Any = ImageFont.load_default(_NOTE_FONT_SIZE)
    height, width, _ = picture.shape
    extended = Image.new(
        "RGB", (max(width, int(font.getlength(note)) + 9), height + _NOTE_HEIGHT), (255, 255, 255)
    )
    extended.paste(Image.fromarray(picture))
    text = shorten_text(note, font, extended.width - 8)
    position = (4, height + _NOTE_HEIGHT / 2)
    ImageDraw.Draw(extended).text(position, text, _NOTE_COLOUR, font, anchor="lm")
    return np.asarray(extended)
