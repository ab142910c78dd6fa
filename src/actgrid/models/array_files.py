"""Read arrays from .npy and .npz files of NumPy."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import FormatError
from actgrid.models.file_checks import check_file, check_size, raise_format_errors

__all__ = ["read_npy", "read_npz"]

Array = npt.NDArray[Any]


def read_npy(path: Path) -> Array:
    """Read the array of a .npy file; Python objects are not unpickled.

    Returns
    -------
    numpy.ndarray
        Array of numbers, bools or strings in the byte order of this machine.

    Raises
    ------
    FormatError
        If the file holds no such array, or is truncated.
    """
    size = check_file(path)
    with raise_format_errors(path, "a .npy file, as numpy.save writes it"), path.open("rb") as file:
        return _read_array(file, size, str(path))


def read_npz(path: Path) -> dict[str, Array]:
    """Read the arrays of a .npz file; Python objects are not unpickled.

    Returns
    -------
    dict
        Name -> array of numbers, bools or strings in the byte order of this machine.

    Raises
    ------
    FormatError
        If the file holds anything but such arrays, or is truncated.
    TooLargeError
        If the arrays take more than 4 GiB.
    """
    check_file(path)
    expected = "a .npz file, as numpy.savez writes it"
    arrays = {}
    with raise_format_errors(path, expected), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        check_size(path, sum(entry.file_size for entry in entries))
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename:
                raise FormatError(
                    f"{path} contains {name!r}, which is no array: expected {expected}"
                )
            with archive.open(entry) as file:
                arrays[name] = _read_array(file, entry.file_size, f"{name!r} in {path}")
        if not arrays:
            raise FormatError(f"{path} contains no arrays: expected {expected}")
    return arrays


def _read_array(file: IO[bytes], size: int, name: str) -> Array:
    """Read an array from an open .npy file of a size in bytes."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:  # later versions are for names of fields
        raise FormatError(f"{name} has version {version} of the format: expected plain numbers")
    shape, _, dtype = readers[version](file)
    if dtype.kind not in "biufSU":
        raise FormatError(f"{name} has the dtype {dtype}: expected numbers")
    # NumPy would allocate the memory before it reads the data.
    count = int(np.prod([int(side) for side in shape], dtype=object))
    if count * max(dtype.itemsize, 1) > size - file.tell():
        raise FormatError(f"{name} is truncated: its header declares the shape {shape} of {dtype}")
    file.seek(0)
    array = np.lib.format.read_array(file, allow_pickle=False)
    if dtype.kind == "f" and dtype.itemsize > 8:  # TensorFlow has no extended precision
        return array.astype(np.float64)
    return array.astype(dtype.newbyteorder("="), copy=False)
