"""The files of one image: a picture for each layer, and what was measured."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import orjson

from actgrid.encoding import writable_folder, write_file
from actgrid.models import LayerInfo
from actgrid.models.drawing import draw_layer
from actgrid.pipeline.grids import batch_size
from actgrid.rendering import ChannelStats
from actgrid.rendering.layout import thread_count

__all__ = [
    "DrawnLayer",
    "drawing_threads",
    "folder_names",
    "numbered_files",
    "safe_name",
    "save_layers",
    "start_saving",
    "unique_names",
]

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
    return unique_names(safe_name(image.stem) for image in images)


def unique_names(names: Iterable[str]) -> list[str]:
    """Return names, numbered where one repeats, whatever its case."""
    unique: list[str] = []
    numbers: dict[str, int] = {}  # of every name taken, the last that was given to one like it
    for wanted in names:
        name = wanted
        number = numbers.get(wanted.casefold(), 1)
        while name.casefold() in numbers:
            number += 1
            name = f"{wanted}-{number}"
        numbers[name.casefold()] = 1
        numbers[wanted.casefold()] = number
        unique.append(name)
    return unique


def numbered_files(folder: Path, paths: Sequence[str], suffix: str) -> list[Path]:
    """Return the file for each of the pictures in a folder: ``NN_path.png``."""
    digits = max(2, len(str(len(paths) - 1)))
    return [
        folder / f"{number:0{digits}}_{safe_name(path)}{suffix}"
        for number, path in enumerate(paths)
    ]


@contextmanager
def drawing_threads(threads: int | None) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of this many threads (None: one for each processor) to draw and save with.

    What waits to be drawn when an error leaves is not drawn any more.
    """
    # As many as there are processors, although TensorFlow has as many of its own: together they
    # keep all of them busy, which is what bounds the whole. One leaves them idle where TensorFlow
    # waits; more, or less urgent ones, gain nothing: measured with 1 to 3 on 2 processors.
    pool = ThreadPoolExecutor(thread_count(threads), "actgrid-draw")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def save_layers(
    folder: Path,
    infos: Mapping[str, LayerInfo],
    activations: Mapping[str, npt.NDArray[Any]],
    *,
    threads: int | None = None,
    **options: Any,
) -> list[DrawnLayer]:
    """Draw and save every layer of one image as ``NN_layer.png``, and ``stats.json``.

    Parameters
    ----------
    folder
        Where; made if need be.
    infos, activations
        By layer path, as `Extractor` gives them.
    threads
        At most this many draw; None: one for each processor.
    options
        See `start_saving`.

    Raises
    ------
    OutputError
        If a file cannot be written. Others may have been written; they are whole.
    """
    with drawing_threads(threads) as pool:
        return start_saving(pool, folder, infos, activations, **options)()


def start_saving(
    pool: ThreadPoolExecutor,
    folder: Path,
    infos: Mapping[str, LayerInfo],
    activations: Mapping[str, npt.NDArray[Any]],
    *,
    sample: int = 0,
    suffix: str = ".png",
    compression: str = "fast",
    about: Mapping[str, Any] | None = None,
    **render_options: Any,
) -> Callable[[], list[DrawnLayer]]:
    """Let threads of a pool draw and save the layers of one image, and return at once.

    An activation is let go of as soon as it is drawn.

    Parameters
    ----------
    pool
        From `drawing_threads`. Each layer is drawn by one of its threads: encoding takes most of
        the time, and layers need not wait for each other.
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

    Returns
    -------
    callable
        Waits for the pictures, writes ``stats.json``, and returns the layers in their order.

    Raises
    ------
    OutputError
        If the folder cannot be made; from the callable, if a file cannot be written.
    """
    writable_folder(folder)
    files = numbered_files(folder, list(activations), suffix)
    batch = batch_size(activations)

    def save(info: LayerInfo, activation: npt.NDArray[Any], file: Path) -> DrawnLayer:
        start = time.perf_counter()
        grid = draw_layer(info, activation, batch=batch, sample=sample, threads=1, **render_options)
        grid.save(file, compression=compression, threads=1)
        milliseconds = (time.perf_counter() - start) * 1e3
        shape, dtype = activation.shape[1:], activation.dtype.name
        return DrawnLayer(info, shape, dtype, grid.stats, file, milliseconds)

    saving = [
        pool.submit(save, infos[path], activation, file)
        for (path, activation), file in zip(activations.items(), files, strict=True)
    ]

    def finish() -> list[DrawnLayer]:
        drawn = [layer.result() for layer in saving]
        layers = [layer.describe() | layer.stats.to_dict() for layer in drawn]
        write_file(folder / "stats.json", orjson.dumps({**(about or {}), "layers": layers}))
        return drawn

    return finish
