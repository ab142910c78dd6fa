"""The files of one image: a picture for each layer, and what was measured."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from actgrid.encoding import writable_folder, write_file
from actgrid.models import LayerInfo
from actgrid.pipeline.grids import batch_size, draw_layer
from actgrid.rendering import ChannelStats

__all__ = ["DrawnLayer", "folder_names", "safe_name", "save_layers"]

# Names that Windows keeps for devices, whatever their suffix.
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
# In bytes, of which most file systems take 255: there is to be room for a number and a suffix.
_LONGEST = 100


@dataclass(frozen=True)
class DrawnLayer:
    """A layer that was drawn and saved.

    Attributes
    ----------
    info
        The layer.
    shape
        Shape of the activation of one image, without the batch axis.
    stats
        Of its channels.
    file
        The picture.
    milliseconds
        Time taken to measure, paint, encode and write it.
    """

    info: LayerInfo
    shape: tuple[int, ...]
    dtype: str
    stats: ChannelStats
    file: Path
    milliseconds: float

    @property
    def channels(self) -> int:
        """How many channels the layer has."""
        return self.shape[0 if self.info.data_format == "channels_first" else -1]

    @property
    def dead(self) -> int:
        """How many of them are dead."""
        return int(self.stats.dead.sum())

    def describe(self) -> dict[str, Any]:
        """Return what the layer is, for JSON."""
        return {
            "path": self.info.path,
            "type": self.info.type,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "channels": self.channels,
            "file": self.file.name,
        }


def safe_name(name: str) -> str:
    """Return a name that any file system takes, as like the given one as can be."""
    safe = re.sub(r"[^\w.\-]+", "_", name).strip("._").encode()[:_LONGEST].decode(errors="ignore")
    safe = safe.rstrip(".") or "_"
    return f"_{safe}" if _RESERVED.fullmatch(safe) else safe


def folder_names(images: Iterable[Path]) -> list[str]:
    """Return for each image file the name of its folder: its stem, numbered where it repeats."""
    names: list[str] = []
    taken: set[str] = set()
    for image in images:
        stem = name = safe_name(image.stem)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def save_layers(
    folder: Path,
    infos: Mapping[str, LayerInfo],
    activations: Mapping[str, npt.NDArray[Any]],
    *,
    sample: int = 0,
    suffix: str = ".png",
    compression: str = "fast",
    about: Mapping[str, Any] | None = None,
    **render_options: Any,
) -> list[DrawnLayer]:
    """Draw and save every layer of one image as ``NN_layer.png``, and ``stats.json``.

    Parameters
    ----------
    folder
        Where; made if need be.
    infos, activations
        By layer path, as `Extractor` gives them.
    sample
        Which image of the batch.
    suffix
        Of the pictures.
    compression
        Of PNG, see `Grid.save`.
    about
        Further entries for ``stats.json``, such as the image's name.
    render_options
        Options of `actgrid.render`.

    Raises
    ------
    OutputError
        If a file cannot be written. Those before it are whole.
    """
    writable_folder(folder)
    digits = max(2, len(str(len(activations) - 1)))
    batch = batch_size(activations)
    drawn: list[DrawnLayer] = []
    for number, (path, activation) in enumerate(activations.items()):
        start = time.perf_counter()
        grid = draw_layer(infos[path], activation, batch=batch, sample=sample, **render_options)
        file = folder / f"{number:0{digits}}_{safe_name(path)}{suffix}"
        grid.save(file, compression=compression)
        drawn.append(
            DrawnLayer(
                infos[path],
                activation.shape[1:],
                activation.dtype.name,
                grid.stats,
                file,
                (time.perf_counter() - start) * 1e3,
            )
        )
    layers = [layer.describe() | layer.stats.to_dict() for layer in drawn]
    text = json.dumps({**(about or {}), "layers": layers}, allow_nan=False)
    write_file(folder / "stats.json", text.encode())
    return drawn
