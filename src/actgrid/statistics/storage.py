"""Serialize statistics to bytes in the ``.npz`` format of NumPy, and back."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import FormatError, MissingFileError
from actgrid.models import LayerInfo
from actgrid.models.archives import check_zip
from actgrid.rendering import TokenGrid
from actgrid.statistics.accumulator import Accumulator

__all__ = ["deserialize", "read_file", "serialize", "to_npz"]

Array = npt.NDArray[Any]

_FORMAT, _VERSION = "actgrid dataset statistics", 2


def read_file(path: str | Path, name: str) -> bytes:
    """Read a file of statistics.

    Parameters
    ----------
    path
        The file, or the output folder of a run.
    name
        Name of the file in an output folder.

    Raises
    ------
    MissingFileError
        If the file does not exist. Also a FileNotFoundError.
    FormatError
        If the file cannot be read. Also a ValueError.
    """
    path = Path(path)
    if path.is_dir():
        path /= name
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}") from None
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from error


def serialize(statistics: Accumulator) -> bytes:
    """Serialize accumulated statistics to the content of an ``.npz`` file."""
    statistics.drop_names(max_names=0)
    about = {
        "format": f"{_FORMAT} {_VERSION}",
        "images": statistics.images,
        "layers": [asdict(info) for info in statistics.infos.values()],
        "channels": [part.stop - part.start for part in statistics.slices.values()],
        "names": sorted(statistics.names.items()),
    }
    # ASCII with escapes can represent all file names, also those that are not valid Unicode.
    encoded = np.frombuffer(json.dumps(about).encode("ascii"), np.uint8)
    return to_npz({"about": encoded} | (statistics.values | statistics.get_top_arrays()))


def to_npz(arrays: Mapping[str, Array]) -> bytes:
    """Return the content of an ``.npz`` file with the given arrays."""
    buffer = io.BytesIO()
    try:
        # Compression would take longer than processing a hundred images.
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
    except ValueError as error:
        # Closing the file fails if Ctrl-C was pressed while an array was written.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    return buffer.getvalue()


def deserialize(data: bytes) -> Accumulator:
    """Restore accumulated statistics from the bytes of `serialize`.

    Returns
    -------
    Accumulator
        The statistics.

    Raises
    ------
    FormatError
        If the data has another format or format version. Also a ValueError.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_zip(archive, len(data))
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays: dict[str, Array] = dict(file)
        about = json.loads(arrays["about"].tobytes())
        name, _, version = about["format"].rpartition(" ")
        if name == _FORMAT and version != str(_VERSION):
            raise FormatError(
                f"format version {version}, expected {_VERSION}: measure the images again"
            )
        if name != _FORMAT:
            raise FormatError(f"format {about['format']!r}, expected {_FORMAT!r}")
        infos = [_read_info(info) for info in about["layers"]]
        if sum(about["channels"]) != len(arrays["top_max"]):
            raise FormatError(f"top_max must have {sum(about['channels'])} channels")
        stats = Accumulator(arrays["top_max"].shape[1])
        stats.start({info.path: info for info in infos}, about["channels"])
        stats.images = about["images"]
        stats.names = dict(about["names"])
        for name, expected in (stats.values | stats.get_top_arrays()).items():
            if (arrays[name].shape, arrays[name].dtype) != (expected.shape, expected.dtype):
                raise FormatError(f"{name} must be {expected.shape} {expected.dtype}")
        stats.values = {name: arrays[name] for name in stats.values}
        stats.maxima = arrays["top_max"]
        stats.indices, stats.positions = arrays["top_index"], arrays["top_position"]
    except (
        *(KeyError, TypeError, ValueError, IndexError, AttributeError, EOFError),
        *(OSError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error),
    ) as error:
        reason = f": {error}" if isinstance(error, FormatError) else ""
        raise FormatError(f"not a statistics file of this version of actgrid{reason}") from error
    return stats


def _read_info(description: dict[str, Any]) -> LayerInfo:
    """Return the description of a layer from its JSON object."""
    description = dict(description)
    for name in ("shape", "axes"):
        description[name] = tuple(description.get(name, ()))
    grids = description.get("grids", ())
    description["grids"] = tuple(None if grid is None else TokenGrid(*grid) for grid in grids)
    return LayerInfo(**description)
