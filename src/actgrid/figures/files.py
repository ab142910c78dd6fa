"""The files of one image: a picture for each layer, and what was measured."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy.typing as npt
import orjson

from actgrid.encoding import writable_folder, write_file
from actgrid.figures.grids import batch_size
from actgrid.models import LayerInfo
from actgrid.models.drawing import draw_layer
from actgrid.option_checks import thread_count
from actgrid.option_groups import options_of, pick_options, takes_options
from actgrid.options import (
    FileOptions,
    RenderArrayOptions,
    RenderFileOptions,
    WeightFileOptions,
)
from actgrid.rendering import ChannelStats, Grid, encode_picture
from actgrid.rendering.stats import named_arrays

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "DrawnLayer",
    "describe",
    "draw_file",
    "folder_names",
    "numbered_files",
    "picture_suffix",
    "safe_name",
    "save_layers",
    "split_options",
    "unique_names",
    "worker_threads",
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
        Name of the picture.
    milliseconds
        Time taken to measure, paint, encode and write it.
    """

    info: LayerInfo
    shape: tuple[int, ...]
    dtype: str
    stats: ChannelStats
    file: str
    milliseconds: float

    @classmethod
    def of(
        cls, info: LayerInfo, activation: npt.NDArray[Any], grid: Grid, file: str, start: float
    ) -> DrawnLayer:
        """Return what is to be known of a layer, drawn since `start` of `time.perf_counter`."""
        milliseconds = (time.perf_counter() - start) * 1e3
        shape, dtype = activation.shape[1:], activation.dtype.name
        return cls(info, shape, dtype, grid.stats, file, milliseconds)

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
            "file": self.file,
        }


def safe_name(name: str) -> str:
    """Return a name that any file system takes, as like the given one as can be."""
    safe = re.sub(r"[^\w.+\-]+", "_", name).strip("._").encode()[:_LONGEST].decode(errors="ignore")
    safe = safe.rstrip(".") or "_"
    return f"_{safe}" if _RESERVED.fullmatch(safe) else safe


def folder_names(images: Iterable[Path]) -> list[str]:
    """Return for each image file the name of its folder: its stem, numbered where it repeats."""
    return unique_names(safe_name(image.stem) for image in images)


def unique_names(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Return names, numbered where one repeats or is taken, whatever its case."""
    unique: list[str] = []
    # Of every name taken, the last number that was given to one like it.
    numbers = {name.casefold(): 1 for name in taken}
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


def numbered_files(paths: Sequence[str], suffix: str) -> list[str]:
    """Return the file for each of the pictures in a folder: ``NN_path.png``."""
    digits = max(2, len(str(len(paths) - 1)))
    return [f"{number:0{digits}}_{safe_name(path)}{suffix}" for number, path in enumerate(paths)]


@contextmanager
def worker_threads(threads: int | None, name: str) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of this many threads (None: one for each processor).

    What waits for a thread when an error leaves is not done any more.
    """
    # To draw with, as many as there are processors, although TensorFlow has as many of its own:
    # together they keep all of them busy, which is what bounds the whole. One leaves them idle
    # where TensorFlow waits; more, or less urgent ones, gain nothing: measured with 1 to 3 on 2
    # processors.
    pool = ThreadPoolExecutor(thread_count(threads), f"actgrid-{name}")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@takes_options(RenderFileOptions, data_format=None)
def draw_file(
    info: LayerInfo,
    activation: npt.NDArray[Any],
    *,
    batch: int,
    **options: Unpack[RenderFileOptions],
) -> tuple[Grid, list[bytes]]:
    """Draw a layer for one image of a batch, by one thread; also return the pieces of its file.

    Each layer is drawn by one thread of many: encoding takes most of the time, and layers need
    not wait for each other.
    """
    render_options, file_format, compression = split_options(options)
    grid = draw_layer(info, activation, batch=batch, **render_options)
    return grid, encode_picture(grid, f"picture.{file_format}", compression, 1)


def picture_suffix(options: Mapping[str, Any]) -> str:
    """Return the suffix of pictures that are drawn with these options."""
    return "." + str(options.get("format", options_of(FileOptions)["format"].default))


def split_options(
    options: RenderFileOptions | WeightFileOptions,
) -> tuple[RenderArrayOptions, str, str]:
    """Return the options of drawing, for one thread, and the format and compression of files."""
    render_options = cast(RenderArrayOptions, pick_options(options, RenderArrayOptions))
    render_options["threads"] = 1
    return render_options, options["format"], options["compression"]


def describe(drawn: Iterable[DrawnLayer], about: Mapping[str, Any]) -> bytes:
    """Return what ``stats.json`` says of the layers of an image, after what else it says."""
    layers = [layer.describe() | named_arrays(layer.stats) for layer in drawn]
    # Where `to_dict` has None, orjson writes null; it takes a third of the time from arrays.
    return orjson.dumps({**about, "layers": layers}, option=orjson.OPT_SERIALIZE_NUMPY)


@takes_options(RenderFileOptions, data_format=None)
def save_layers(
    folder: str | Path,
    infos: Mapping[str, LayerInfo],
    activations: Mapping[str, npt.NDArray[Any]],
    *,
    about: Mapping[str, Any] | None = None,
    **options: Unpack[RenderFileOptions],
) -> list[DrawnLayer]:
    """Draw and save every layer of one image as ``NN_layer.png``, and ``stats.json``.

    Parameters
    ----------
    folder
        Where; made if need be.
    infos, activations
        By layer path, as `Extractor` gives them.
    about
        Further entries for ``stats.json``, such as the image's name.
    **options
        See `actgrid.options.RenderFileOptions`.

    Raises
    ------
    OutputError
        If a file cannot be written. Others may have been written; they are whole.
    """
    place = writable_folder(folder)
    batch = batch_size(activations)

    def save(path: str, file: str) -> DrawnLayer:
        start, activation = time.perf_counter(), activations[path]
        grid, pieces = draw_file(infos[path], activation, batch=batch, **options)
        write_file(place / file, *pieces)
        return DrawnLayer.of(infos[path], activation, grid, file, start)

    files = numbered_files(list(activations), picture_suffix(options))
    with worker_threads(options["threads"], "draw") as pool:
        drawn = list(pool.map(save, activations, files))
    write_file(place / "stats.json", describe(drawn, about or {}))
    return drawn
