"""From an activation of any kind to the tiles it is drawn as, without copying it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.option_checks import integer_option, sample_option
from actgrid.option_groups import check_option
from actgrid.options import ArrayOptions, GridOptions

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

# What each kind of array looks like, in channels_last order; N may be left out. Kernels also come
# with one or three sides, or none.
KINDS = {
    "image": "(N, H, W, C)",
    "volume": "(N, D, H, W, C)",
    "sequence": "(N, T, C)",
    "dense": "(N, C)",
    "kernel": "(kh, kw, Cin, Cout)",
}
_KIND_OF_RANK = {1: "dense", 2: "dense", 3: "image", 4: "image", 5: "volume"}


@dataclass(frozen=True)
class Tiling:
    """A view of an activation as tiles.

    Attributes
    ----------
    tiles
        (channels, slices, height, width) view. Two axes count the tiles, because depth slices and
        channels together seldom have a single stride.
    columns
        Tiles in a row of the picture, where the kind of activation decides it.
    joined
        The tiles are parts of one picture: no padding between them, one mapping for all.
    single_values
        The channels are single values, of which only statistics over all of them tell anything.
    """

    tiles: Array
    columns: int | None = None
    joined: bool = False
    single_values: bool = False


def as_array(activations: object) -> Array:
    """Return what can be drawn as an array, without a copy where its memory can be shared.

    Raises
    ------
    DtypeError
        If its elements are not real numbers or bools.
    """
    array = np.asarray(activations)
    check_dtype(array.dtype)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raise DtypeError unless arrays of a dtype can be drawn."""
    if dtype.name not in DTYPES:
        raise DtypeError(
            f"arrays of dtype {dtype} cannot be drawn; float16, bfloat16, float32, float64, "
            "integers and bool can"
        )


def tile(
    array: Array,
    *,
    kind: str | None = None,
    sample: int = 0,
    data_format: str | None = "channels_last",
    token_grid: int | tuple[int, int] | None = None,
) -> Tiling:
    """Return the tiles of one sample; see `actgrid.render` for the parameters.

    Raises
    ------
    OptionError
        If an option has no such value.
    ShapeError
        If the array is empty, or has not the rank of its kind.
    """
    sample = integer_option("sample", sample)
    check_option(ArrayOptions, "data_format", data_format)
    if kind is None:
        kind = "sequence" if token_grid is not None else _KIND_OF_RANK.get(array.ndim)
        if kind is None:
            raise ShapeError(
                f"an array of shape {array.shape} has no rank that can be drawn; "
                f"it must be one of {', '.join(KINDS.values())}"
            )
    check_option(ArrayOptions, "kind", kind)
    if token_grid is not None and kind != "sequence":
        raise OptionError(f"token_grid is for sequences, not for kind {kind!r}")
    if 0 in array.shape:
        raise ShapeError(f"an array of shape {array.shape} is empty: nothing can be drawn")
    if kind == "kernel":
        if sample != 0:
            raise OptionError("a kernel has no samples")
        return _kernel_tiling(array)

    one = _sample(array, kind, sample)
    channels_first = data_format == "channels_first"
    if kind == "dense":
        return _dense_tiling(one)
    if not channels_first:
        one = np.moveaxis(one, -1, 0)
    if kind == "image":
        return Tiling(one[:, None])
    if kind == "volume":
        return Tiling(one, columns=one.shape[1])
    if token_grid is None:
        return _sequence_tiling(one)
    return Tiling(_token_tiles(one, token_grid)[:, None])


def _dense_tiling(values: Array) -> Tiling:
    return Tiling(values[:, None, None, None], joined=True, single_values=True)


def _sequence_tiling(channels: Array) -> Tiling:
    # One T x C picture: channel by channel, a column of T pixels each.
    return Tiling(channels[:, None, :, None], columns=channels.shape[0], joined=True)


def _kernel_tiling(array: Array) -> Tiling:
    if array.ndim == 1:
        return _dense_tiling(array)
    if not 2 <= array.ndim <= 5:
        raise ShapeError(
            "a kernel must be (kd, kh, kw, Cin, Cout), (kh, kw, Cin, Cout), (kw, Cin, Cout), "
            f"(Cin, Cout) or (C,), not {array.shape}"
        )
    *sides, inputs, outputs = array.shape
    if max(sides, default=1) == 1:
        return _sequence_tiling(array.reshape(inputs, outputs).T)
    if len(sides) == 1:
        return Tiling(array.transpose(2, 0, 1)[:, None])
    # Two axes at most count the tiles: of three, two become one, which takes a copy.
    tiles = np.moveaxis(array, (-1, -2), (0, 1)).reshape(outputs, -1, *sides[-2:])
    return Tiling(tiles, columns=tiles.shape[1] if tiles.shape[1] > 1 else None)


def _sample(array: Array, kind: str, sample: int) -> Array:
    rank = KINDS[kind].count(",")  # without N
    if array.ndim == rank:
        if sample != 0:
            raise OptionError(
                f"sample {sample} was asked for, but an array of shape {array.shape} and kind "
                f"{kind!r} has no batch axis"
            )
        return array
    if array.ndim != rank + 1:
        raise _wrong_rank(array, kind)
    sampled: Array = array[sample_option(sample, len(array))]
    return sampled


def _wrong_rank(array: Array, kind: str) -> ShapeError:
    return ShapeError(f"an array of kind {kind!r} must be {KINDS[kind]}, not {array.shape}")


def _token_tiles(channels: Array, token_grid: int | tuple[int, int]) -> Array:
    height, width = check_option(GridOptions, "token_grid", token_grid)
    tokens = channels.shape[1]
    leading = tokens - height * width
    if leading < 0:
        raise ShapeError(f"{tokens} tokens do not fill a grid of {height} x {width}")
    # Class and register tokens come first. One stride becomes two: still no copy.
    used = channels[:, leading:]
    channel_stride, token_stride = used.strides
    return np.lib.stride_tricks.as_strided(
        used,
        (len(used), height, width),
        (channel_stride, token_stride * width, token_stride),
        writeable=False,
    )
