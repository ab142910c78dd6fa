"""View activations of any kind as tiles, without copying."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.option_checks import check_integer, check_sample
from actgrid.option_groups import check_option
from actgrid.options import ArrayOptions, GridOptions
from actgrid.rendering.token_grid import TokenGrid

__all__ = [
    "DTYPES",
    "KINDS",
    "Tiling",
    "as_array",
    "check_dtype",
    "tile",
]

Array = npt.NDArray[Any]

DTYPES = frozenset(
    ["bool", "float16", "bfloat16", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)

# Shape of each kind of array, in channels_last order; N is optional. Kernels may also have one or
# three sides, or none.
KINDS = {
    "image": "(N, H, W, C)",
    "volume": "(N, D, H, W, C)",
    "sequence": "(N, T, C)",
    "dense": "(N, C)",
    "kernel": "(kh, kw, Cin, Cout)",
    "attention": "(N, heads, queries, keys)",
    "heads": "(N, T, heads, C)",
}
_KIND_OF_RANK = {1: "dense", 2: "dense", 3: "image", 4: "image", 5: "volume"}


@dataclass(frozen=True)
class Tiling:
    """Record of an activation viewed as tiles, with rules for the layout of the tiles.

    Attributes
    ----------
    tiles
        (channels, slices, height, width) view. Two axes count the tiles, because channels and depth
        slices together rarely have a single stride.
    columns
        Number of tiles in a row of the picture, if the kind of activation decides it; else None.
    is_joined
        Whether the tiles are parts of one picture: without padding, and with one mapping from
        values to levels for all tiles.
    has_single_values
        Whether the channels are single values, so that only statistics over all channels are
        useful.
    is_sequence
        Whether the picture has the steps of a sequence as rows, and is folded if it is long.
    """

    tiles: Array
    columns: int | None = None
    is_joined: bool = False
    has_single_values: bool = False
    is_sequence: bool = False


def as_array(activations: object) -> Array:
    """Convert an activation to a NumPy array in native byte order.

    Returns
    -------
    numpy.ndarray
        A view without a copy if memory can be shared.

    Raises
    ------
    DtypeError
        If the elements are not real numbers or bools.
    """
    array = np.asarray(activations)
    check_dtype(array.dtype)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raise DtypeError unless arrays of this dtype can be drawn."""
    if dtype.name not in DTYPES:
        raise DtypeError(
            f"arrays of dtype {dtype} cannot be drawn; expected float16, bfloat16, float32, "
            "float64, "
            "integers or bool"
        )


def tile(
    array: Array,
    *,
    kind: str | None = None,
    sample: int = 0,
    data_format: str | None = "channels_last",
    token_grid: int | tuple[int, int] | TokenGrid | None = None,
) -> Tiling:
    """View one sample of an activation as tiles, without a copy.

    See `actgrid.render` for the parameters.

    Returns
    -------
    Tiling
        The activation as tiles, with rules for their layout.

    Raises
    ------
    OptionError
        If an option is invalid.
    ShapeError
        If the array is empty, or its rank does not fit its kind.
    """
    sample = check_integer("sample", sample)
    check_option(ArrayOptions, "data_format", data_format)
    if kind is None:
        kind = "sequence" if token_grid is not None else _KIND_OF_RANK.get(array.ndim)
        if kind is None:
            raise ShapeError(
                f"an array of shape {array.shape} has no rank that can be drawn; "
                f"expected one of {', '.join(KINDS.values())}"
            )
    check_option(ArrayOptions, "kind", kind)
    if token_grid is not None and kind != "sequence":
        raise OptionError(f"token_grid is only for sequences, not for kind {kind!r}")
    if 0 in array.shape:
        raise ShapeError(f"an array of shape {array.shape} is empty: nothing can be drawn")
    if kind == "kernel":
        if sample != 0:
            raise OptionError(
                f"sample must be 0 for kind 'kernel', which has no samples, not {sample}"
            )
        return _tile_kernel(array)

    sample_values = _select_sample(array, kind, sample)
    channels_first = data_format == "channels_first"
    if kind == "dense":
        return _tile_dense(sample_values)
    if kind in ("attention", "heads"):
        is_split = kind == "heads" and not channels_first
        return Tiling((sample_values.swapaxes(0, 1) if is_split else sample_values)[:, None])
    if not channels_first:
        sample_values = np.moveaxis(sample_values, -1, 0)
    if kind == "image":
        return Tiling(sample_values[:, None])
    if kind == "volume":
        return Tiling(sample_values, columns=sample_values.shape[1])
    if token_grid is None:
        return replace(_tile_columns(sample_values), is_sequence=True)
    return Tiling(_view_tokens(sample_values, token_grid)[:, None])


def _tile_dense(values: Array) -> Tiling:
    return Tiling(values[:, None, None, None], is_joined=True, has_single_values=True)


def _tile_columns(channels: Array) -> Tiling:
    # One T x C picture, in which each channel is a column of T pixels.
    return Tiling(channels[:, None, :, None], columns=channels.shape[0], is_joined=True)


def _tile_kernel(array: Array) -> Tiling:
    if array.ndim == 1:
        return _tile_dense(array)
    if not 2 <= array.ndim <= 5:
        raise ShapeError(
            "a kernel must be (kd, kh, kw, Cin, Cout), (kh, kw, Cin, Cout), (kw, Cin, Cout), "
            f"(Cin, Cout) or (C,), not {array.shape}"
        )
    *sides, inputs, outputs = array.shape
    if max(sides, default=1) == 1:
        return _tile_columns(array.reshape(inputs, outputs).T)
    if len(sides) == 1:
        return Tiling(array.transpose(2, 0, 1)[:, None])
    # Only two axes can count the tiles. Joining two of three axes takes a copy.
    tiles = np.moveaxis(array, (-1, -2), (0, 1)).reshape(outputs, -1, *sides[-2:])
    return Tiling(tiles, columns=tiles.shape[1] if tiles.shape[1] > 1 else None)


def _select_sample(array: Array, kind: str, sample: int) -> Array:
    rank = KINDS[kind].count(",")  # without N
    if array.ndim == rank:
        if sample != 0:
            raise OptionError(
                f"sample must be 0, not {sample}: an array of shape {array.shape} and kind "
                f"{kind!r} "
                "has no batch axis"
            )
        return array
    if array.ndim != rank + 1:
        raise _make_rank_error(array, kind)
    sampled: Array = array[check_sample(sample, len(array))]
    return sampled


def _make_rank_error(array: Array, kind: str) -> ShapeError:
    return ShapeError(f"an array of kind {kind!r} must be {KINDS[kind]}, not {array.shape}")


def _view_tokens(channels: Array, token_grid: int | tuple[int, int] | TokenGrid) -> Array:
    tokens = channels.shape[1]
    if not isinstance(token_grid, TokenGrid):
        # Class and register tokens come first.
        height, width = check_option(GridOptions, "token_grid", token_grid)
        token_grid = TokenGrid(height, width, tokens - height * width)
    height, width = token_grid[:2]
    if token_grid.leading < 0 or token_grid.tokens > tokens:
        raise ShapeError(f"{tokens} tokens do not fill a grid of {height} x {width}")
    # Splitting one stride into two takes no copy.
    used = channels[:, token_grid.patches]
    channel_stride, token_stride = used.strides
    return np.lib.stride_tricks.as_strided(
        used,
        (len(used), height, width),
        (channel_stride, token_stride * width, token_stride),
        writeable=False,
    )
