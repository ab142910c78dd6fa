"""Hashable NumPy arrays, for targets that are the keys of a cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import DtypeError, OptionError

__all__ = ["FrozenArray", "freeze_array"]


@dataclass(frozen=True)
class FrozenArray:
    """A float32 array that can be compared and hashed.

    Attributes
    ----------
    shape
        Shape of the array.
    data
        Values of the array in C order.
    """

    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    def to_numpy(self) -> npt.NDArray[np.float32]:
        """Return the values as a read-only array."""
        return np.frombuffer(self.data, np.float32).reshape(self.shape)


def freeze_array(name: str, values: Any) -> FrozenArray:
    """Convert an array to a `FrozenArray`.

    Parameters
    ----------
    name
        Name of the option, for error messages.
    values
        Array of finite real numbers or of booleans.

    Raises
    ------
    DtypeError
        If the values are not real numbers.
    OptionError
        If a value is NaN or infinite.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):  # nested lists of different lengths
        array = np.array(None)
    if array.dtype.kind not in "fiub":
        raise DtypeError(f"{name} must be an array of real numbers or booleans, not {values!r}")
    array = np.asarray(array, np.float32, order="C")
    if not np.isfinite(array).all():
        raise OptionError(f"{name} must be finite: got NaN or infinite values")
    # Zeros of both signs are equal, but their bytes are not.
    return FrozenArray(array.shape, (array + np.float32(0)).tobytes())
