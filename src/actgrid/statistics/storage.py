"""Statistics to bytes and back: NumPy's ``.npz``."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import FormatError
from actgrid.models import LayerInfo
from actgrid.models.archives import check_zip
from actgrid.statistics.accumulator import Accumulator

__all__ = ["from_bytes", "to_bytes"]

Array = npt.NDArray[Any]

_FORMAT = "actgrid dataset statistics 1"


def to_bytes(statistics: Accumulator) -> bytes:
    """Return the file that `DatasetStats.save` writes."""
    statistics.drop_names(keep=0)
    about = {
        "format": _FORMAT,
        "images": statistics.images,
        "layers": [asdict(info) for info in statistics.infos.values()],
        "channels": [part.stop - part.start for part in statistics.slices.values()],
        "names": sorted(statistics.names.items()),
    }
    # As ASCII, in which even file names that are no text can be written.
    encoded = np.frombuffer(json.dumps(about).encode("ascii"), np.uint8)
    buffer = io.BytesIO()
    members: dict[str, Any] = {"about": encoded} | statistics.values | statistics.tops()
    # Not compressed, which would take longer than a hundred images.
    np.savez(buffer, **members)
    return buffer.getvalue()


def from_bytes(data: bytes) -> Accumulator:
    """Return what `to_bytes` made bytes of.

    Raises
    ------
    FormatError
        If it is none of that. Also a ValueError.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_zip(archive, len(data))
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays: dict[str, Array] = dict(file)
        about = json.loads(arrays["about"].tobytes())
        if about["format"] != _FORMAT:
            raise FormatError(f"of the format {about['format']!r}, not {_FORMAT!r}")
        infos = [LayerInfo(**{**info, "shape": tuple(info["shape"])}) for info in about["layers"]]
        if sum(about["channels"]) != len(arrays["top_max"]):
            raise FormatError(f"top_max is not of {sum(about['channels'])} channels")
        stats = Accumulator(arrays["top_max"].shape[1])
        stats.start({info.path: info for info in infos}, about["channels"])
        stats.images = about["images"]
        stats.names = dict(about["names"])
        for name, empty in (stats.values | stats.tops()).items():
            if (arrays[name].shape, arrays[name].dtype) != (empty.shape, empty.dtype):
                raise FormatError(f"{name} is not of {empty.shape} {empty.dtype}")
        stats.values = {name: arrays[name] for name in stats.values}
        stats.maxima = arrays["top_max"]
        stats.indices, stats.places = arrays["top_index"], arrays["top_place"]
    except (
        *(KeyError, TypeError, ValueError, IndexError, AttributeError, EOFError),
        *(OSError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error),
    ) as error:
        reason = f": {error}" if isinstance(error, FormatError) else ""
        raise FormatError(f"these are no statistics that actgrid saved{reason}") from error
    return stats
