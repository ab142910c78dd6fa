"""Base class of attributions: how much each part of an input contributes to a score."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, SupportsIndex, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError
from actgrid.option_checks import resolve_thread_count
from actgrid.option_groups import takes_options
from actgrid.options import SIGNED, FrameOptions, HeatmapOptions, RenderOptions
from actgrid.rendering.backends import load_backend
from actgrid.rendering.colormaps import palette
from actgrid.rendering.heatmap_inputs import as_entries, as_labels, as_numbers
from actgrid.rendering.normalize import Mapping, parse_normalize
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import Sheet, lay_out_sheet
from actgrid.rendering.stats import ChannelStats

__all__ = ["Attribution", "measure_ranges", "resize_maps"]

Array = npt.NDArray[Any]
_Self = TypeVar("_Self", bound="Attribution")

# Render options of unsigned maps; those of signed maps are `SIGNED`.
UNSIGNED: RenderOptions = {"normalize": "minmax", "cmap": "viridis"}


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Attribution(Picture):
    """How much each part of an input contributes to a score, for each sample.

    `actgrid.explain` returns an attribution of the class that draws its kind of input; see
    `actgrid.rendering.make_attribution`. As a picture, an attribution is its `overlay`.

    Parameters
    ----------
    values : array_like
        (N, ...) real numbers: a map for each sample, with the axes that `axes` names.
    axes : sequence of str
        Name of each axis of a map, such as ``("time",)`` or ``("time", "channel")``.
    inputs : array_like, optional
        The explained values: (N, ..., C) with channels last, or (N, C) for a table. The lengths may
        differ from those of the maps, which are resized for drawing.
    names : sequence of sequence of str, optional
        For each sample the names of the positions of the first axis, such as the tokens of a text
        or the columns of a table; one sequence for all samples.
    target : array_like, optional
        (N,) int: index of the class that each map explains; -1 for a function of the output. None
        if no map explains a class.
    labels : iterable of str, optional
        Names of the N classes or functions.
    score : array_like, optional
        (N,): score of the target of each map.
    signed : bool, optional
        Whether negative values count against the target. None: True if there are negative values.
    method : str, optional
        Name of the attribution method.
    layer : str, optional
        Path of the layer that the method used.
    is_logit : bool, default False
        Whether `score` is a logit: the value before a softmax or sigmoid.
    details : dict, optional
        Further results of the method by name, such as LIME's weights. Arrays, lists and tuples of
        length N have one entry per map.

    Attributes
    ----------
    values
        (N, ...) float32.
    axes, names, target, labels, score, signed, method, layer, is_logit, details
        The arguments: `axes` and `labels` as tuples, `names` as a tuple of N tuples, `target` as
        int64, `score` as float32, `details` as a dict.
    inputs
        Float32, or None.

    Raises
    ------
    ShapeError, OptionError
        If an array has the wrong shape, or an option is invalid. Both are ValueErrors.
    DtypeError
        If an array does not hold real numbers. Also a TypeError.

    Examples
    --------
    >>> from actgrid.rendering import make_attribution
    >>> signal = np.sin(np.arange(100) / 5)
    >>> attribution = make_attribution(signal[None] ** 2, ("time",), inputs=signal[None, :, None])
    >>> attribution
    <SequenceAttribution 1 map of 100 time>
    >>> attribution.save("signal.png")
    """

    values: npt.NDArray[np.float32]
    axes: tuple[str, ...]
    inputs: npt.NDArray[np.float32] | None
    names: tuple[tuple[str, ...], ...] | None
    target: npt.NDArray[np.int64] | None
    labels: tuple[str, ...] | None
    score: npt.NDArray[np.float32] | None
    signed: bool
    method: str | None
    layer: str | None
    is_logit: bool
    details: dict[str, Any]

    def __init__(
        self,
        values: object,
        axes: Sequence[str],
        *,
        inputs: object = None,
        names: Sequence[Any] | None = None,
        target: object = None,
        labels: Iterable[str] | None = None,
        score: object = None,
        signed: bool | None = None,
        method: str | None = None,
        layer: str | None = None,
        is_logit: bool = False,
        details: dict[str, Any] | None = None,
    ) -> None:
        maps = as_numbers("values", values, len(axes) + 1, f"(N, {', '.join(axes)})")
        count = len(maps)
        explained = None
        if inputs is not None:
            explained = as_numbers("inputs", inputs, None, "(N, ...)")
            if len(explained) != count:
                raise ShapeError(f"inputs must have {count} samples, not {len(explained)}")
        self._set(
            values=maps,
            axes=tuple(axes),
            inputs=explained,
            names=None if names is None else _as_names(names, count),
            target=as_entries("target", target, count, "iu", np.int64),
            labels=as_labels(labels, count),
            score=as_entries("score", score, count, "fiub", np.float32),
            signed=bool((maps < 0).any()) if signed is None else bool(signed),
            method=method,
            layer=layer,
            is_logit=bool(is_logit),
            details=dict(details or {}),
        )

    def _set(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self: _Self, index: SupportsIndex | slice) -> _Self:
        """Return an attribution with one or several of the maps of this attribution."""
        if isinstance(index, slice):
            rows = index
        else:
            position = range(len(self))[operator.index(index)]
            rows = slice(position, position + 1)
        if not self.values[rows].size:
            raise OptionError(f"{index} selects none of {len(self)} maps")

        def select_entries(entries: Any) -> Any:
            is_sequence = isinstance(entries, (list, tuple)) or np.ndim(entries) > 0
            return entries[rows] if is_sequence and len(entries) == len(self) else entries

        arguments = self._get_arguments()
        for name, value in arguments.items():
            if name == "details":
                arguments[name] = {key: select_entries(entries) for key, entries in value.items()}
            elif name != "axes" and isinstance(value, (np.ndarray, tuple)):
                arguments[name] = value[rows]
        return type(self)(**arguments)

    def _get_arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor for an equal attribution."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def with_sign(self: _Self, signed: bool) -> _Self:
        """Return the same maps, drawn as signed or as unsigned maps.

        Parameters
        ----------
        signed : bool
            Whether zero is in the middle of the colormap, as for maps with negative values.

        Returns
        -------
        Attribution
            The maps with this value of `signed`.

        Examples
        --------
        >>> heatmap = actgrid.Heatmap(np.random.rand(14, 14))
        >>> heatmap.cmap, heatmap.with_sign(True).cmap
        ('viridis', 'RdBu_r')
        """
        return type(self)(**self._get_arguments() | {"signed": signed})

    def __iter__(self: _Self) -> Iterator[_Self]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        names = [self.method, self.layer, *(self.labels or ())[:3]]
        if self.labels and len(self) > 3:
            names.append("...")
        maps = "1 map" if len(self) == 1 else f"{len(self)} maps"
        size = f"{maps} of {self._describe_size()}"
        return f"<{type(self).__name__} {', '.join([size, *filter(None, names)])}>"

    def _describe_size(self) -> str:
        pairs = zip(self.values.shape[1:], self.axes, strict=True)
        return " x ".join(f"{side} {axis}" for side, axis in pairs) or "1 value"

    @property
    def cmap(self) -> str:
        """Name of the default colormap. Signed maps have a diverging colormap."""
        return self._render_options["cmap"]

    @property
    def _render_options(self) -> RenderOptions:
        return SIGNED if self.signed else UNSIGNED

    @takes_options(HeatmapOptions)
    def overlay(self, **options: Unpack[HeatmapOptions]) -> Sheet:
        """Draw each map in colour over or beside its input.

        Parameters
        ----------
        **options
            See `actgrid.options.HeatmapOptions`.

        Returns
        -------
        Sheet
            A sheet with a picture of each map.

        Raises
        ------
        OptionError
            If there is no input to draw over, or an option is invalid. Also a ValueError.

        Notes
        -----
        The colormap extends from the smallest value of a map to the percentile `clip`, so that a
        few outliers do not darken the rest; ``clip=100`` uses the exact range. For signed maps zero
        is in the middle of the colormap, and the percentile is that of absolute values.

        Examples
        --------
        >>> photo = np.zeros((30, 40, 3), np.uint8)
        >>> heatmap = actgrid.Heatmap(np.random.rand(14, 14), images=photo)
        >>> heatmap.overlay(alpha=0.7).save("overlay.png")
        """
        pictures = self._draw_pictures(*self._get_drawing(options))
        return lay_out_sheet(pictures, columns=options["columns"])

    def _get_drawing(self, options: HeatmapOptions | FrameOptions) -> tuple[float, str, float, int]:
        """Return the opacity, colormap, percentile and number of threads of complete options."""
        threads = resolve_thread_count(options["threads"])
        return options["alpha"], options["cmap"] or self.cmap, options["clip"], threads

    def _draw_pictures(
        self, alpha: float, cmap: str, clip: float, threads: int
    ) -> npt.NDArray[np.uint8]:
        """Draw a picture of each map: (N, height, width, 3) uint8.

        Here the bare maps are drawn, with at most two axes.
        """
        levels = self._compute_levels(clip).reshape(len(self), self.values.shape[1], -1)
        return palette(cmap)[levels]

    def draw_inputs(self, columns: int | None = None) -> Sheet:
        """Draw the explained inputs without their maps.

        Parameters
        ----------
        columns : int, optional
            Number of pictures in a row. None: the number that makes the sheet nearest to square.

        Returns
        -------
        Sheet
            A sheet with a picture of each input. A volume is cut through its centre.

        Raises
        ------
        OptionError
            If there are no inputs to draw, or an option is invalid. Also a ValueError.

        Examples
        --------
        >>> from actgrid.rendering import make_attribution
        >>> signal = np.sin(np.arange(100) / 5)[None]
        >>> attribution = make_attribution(signal**2, ("time",), inputs=signal[..., None])
        >>> attribution.draw_inputs().save("signal.png")
        """
        return lay_out_sheet(self._draw_input_pictures(), columns=columns)

    def _draw_input_pictures(self) -> npt.NDArray[np.uint8]:
        """Draw a picture of each input: (N, height, width, 3) uint8."""
        raise OptionError(f"the inputs of maps with the axes {self.axes} cannot be drawn")

    def _require_inputs(self) -> npt.NDArray[np.float32]:
        if self.inputs is None:
            raise OptionError("there are no inputs to draw: give them as inputs=...")
        return self.inputs

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the maps over or beside their inputs.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        return self.overlay().to_rgb()

    def _compute_levels(self, clip: float) -> npt.NDArray[np.uint8]:
        """Return the level of each value, by the range that `overlay` draws."""
        levels = np.empty(self.values.shape, np.uint8)
        for values, mapping, level in zip(
            self.values, self._iterate_mappings(clip), levels, strict=True
        ):
            with np.errstate(invalid="ignore", over="ignore"):
                scaled = (values - mapping.shift) * mapping.scale + mapping.base
            level[...] = np.nan_to_num(np.clip(scaled, 0, 255), nan=0.0)
        return levels

    @np.errstate(divide="ignore", over="ignore", invalid="ignore")
    def _iterate_mappings(self, clip: float) -> Iterator[Mapping]:
        """Return an iterator over the conversion of each map from values to levels.

        Parameters
        ----------
        clip
            Percentile of the values that becomes the highest level.

        Returns
        -------
        iterator of Mapping
            One for each map.
        """
        stats = measure_ranges(self.values, self.signed, clip)
        normalization = parse_normalize(self._render_options["normalize"])
        terms = normalization.compute_terms(stats, stats.min, stats.max, np.float32)
        return (Mapping(*entry) for entry in zip(*terms, strict=True))


def resize_maps(
    maps: npt.NDArray[np.float32], height: int, width: int, threads: int
) -> npt.NDArray[np.float32]:
    """Return maps (N, h, w), resized bilinearly to (N, height, width), see `Heatmap.resize`."""
    resized = np.empty((len(maps), height, width), np.float32)
    load_backend().resize(np.ascontiguousarray(maps, np.float32), resized, threads)
    return resized


def measure_ranges(maps: npt.NDArray[np.float32], signed: bool, clip: float) -> ChannelStats:
    """Return the statistics of each map, with the range of values that is drawn.

    Parameters
    ----------
    maps : numpy.ndarray
        (N, ...) float32.
    signed : bool
        Whether zero is in the middle of the colormap.
    clip : float
        Percentile of the values that is the upper end of the range.

    Returns
    -------
    ChannelStats
        `min` and `max` are the ends of the range. For signed maps, all statistics are those of
        absolute values.
    """
    backend = load_backend()
    tiles = (np.abs(maps) if signed else maps).reshape(len(maps), 1, len(maps[0]), -1)
    stats = backend.measure(tiles, 1)
    _, high = backend.percentiles(tiles, (0, clip), False, 1)
    low = np.zeros_like(high) if signed else stats.min
    # If nearly all values are the smallest, the percentile is too: use the largest value.
    return replace(stats, min=low, max=np.where(high > low, high, stats.max))


def _as_names(names: Sequence[Any], count: int) -> tuple[tuple[str, ...], ...]:
    """Return the names of the positions of each sample."""
    if all(isinstance(name, str) for name in names):
        return (tuple(names),) * count
    rows = tuple(tuple(map(str, row)) for row in names)
    if len(rows) != count:
        raise ShapeError(f"names must have an entry for each of {count} samples, not {len(rows)}")
    return rows
