"""Files of one image: a picture of each layer, and ``stats.json``."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Unpack, cast

import numpy as np
import numpy.typing as npt
import orjson

from actgrid.encoding import make_folder, write_file
from actgrid.figures.grids import get_batch_size
from actgrid.models import LayerInfo
from actgrid.models.drawing import draw_layers
from actgrid.option_checks import resolve_thread_count
from actgrid.option_groups import get_options, pick_options, takes_options
from actgrid.options import (
    FileOptions,
    RenderArrayOptions,
    RenderFileOptions,
    WeightFileOptions,
)
from actgrid.rendering import ChannelStats, Grid, encode_picture
from actgrid.rendering.stats import get_named_arrays

__all__ = [
    "DrawnLayer",
    "describe",
    "draw_files",
    "get_picture_suffix",
    "group_layers",
    "make_folder_names",
    "make_safe_name",
    "make_unique_names",
    "number_files",
    "save_layers",
    "split_options",
    "worker_threads",
]

Array = npt.NDArray[Any]

# Number of groups into which the layers of an image are divided for each drawing thread.
_GROUPS_PER_THREAD = 4
# Device names that Windows reserves, with any suffix.
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
# Dtypes of activations whose statistics are written to ``stats.json`` with the digits of float32.
_SHORT_DTYPES = ("float16", "bfloat16", "float32")
# Maximum length of a name in bytes. Most file systems allow 255; numbers and suffixes are added.
_MAX_BYTES = 100


@dataclass(frozen=True)
class DrawnLayer:
    """Record of a layer that was drawn and saved.

    Parameters
    ----------
    info : LayerInfo
        Description of the layer.
    shape : tuple of int
        Shape of the activation of one image, without the batch axis.
    dtype : str
        Name of the activation's dtype.
    stats : ChannelStats
        Statistics of the channels.
    file : str
        File name of the picture.
    milliseconds : float
        Time to measure, paint, encode and write the picture.
    note : str
        How the picture of a long sequence was folded and pooled, see `Grid.note`.
    relevance : ndarray or None
        Relevance of each channel, by which ``order="relevance"`` sorted the channels; None for
        another order.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")
    ... ])
    >>> extractor = actgrid.Extractor(model)
    >>> activations = extractor(np.random.rand(1, 8, 8, 3))
    >>> layer, = actgrid.figures.save_layers("cat", extractor.layers, activations)
    >>> layer.file, layer.shape, layer.channels
    ('00_conv.png', (6, 6, 4), 4)
    """

    info: LayerInfo
    shape: tuple[int, ...]
    dtype: str
    stats: ChannelStats
    file: str
    milliseconds: float
    note: str = ""
    relevance: npt.NDArray[np.float32] | None = None

    @classmethod
    def create(
        cls,
        info: LayerInfo,
        activation: npt.NDArray[Any],
        drawn: DrawnFile,
        file: str,
        start: float,
    ) -> DrawnLayer:
        """Create the record of a layer that was drawn and written.

        Parameters
        ----------
        info : LayerInfo
            Description of the layer.
        activation : ndarray
            (N, ...) activation.
        drawn : DrawnFile
            The picture.
        file : str
            File name of the picture.
        start : float
            Value of `time.perf_counter` when writing started.

        Returns
        -------
        DrawnLayer
            The record; `milliseconds` includes the time since `start`.
        """
        milliseconds = drawn.milliseconds + (time.perf_counter() - start) * 1e3
        shape, dtype = activation.shape[1:], activation.dtype.name
        grid = drawn.grid
        return cls(info, shape, dtype, grid.stats, file, milliseconds, grid.note, drawn.relevance)

    @property
    def channels(self) -> int:
        """Number of channels of the layer."""
        return self.shape[self.info.channel_axis - 1]

    @property
    def dead_count(self) -> int:
        """Number of dead channels of the layer.

        All values of a dead channel are the same finite value.
        """
        return int(self.stats.dead.sum())

    def describe(self) -> dict[str, Any]:
        """Return the description of the layer for ``stats.json``.

        Returns
        -------
        dict of str to object
            The path, type, shape, names of the axes, dtype, number of channels and file of the
            layer, and the note of its picture if there is one.
        """
        note = {"note": self.note} if self.note else {}
        return {
            "path": self.info.path,
            "type": self.info.type,
            "shape": list(self.shape),
            "axes": list(self.info.axes[1:]),
            "dtype": self.dtype,
            "channels": self.channels,
            "file": self.file,
            **note,
        }


def make_safe_name(name: str) -> str:
    """Convert a name to a similar name that is valid in all common file systems.

    Parameters
    ----------
    name : str
        Any text, such as a layer path.

    Returns
    -------
    str
        Letters, digits and ``_.+-``, of at most 101 bytes in UTF-8.

    Examples
    --------
    >>> actgrid.figures.make_safe_name("block1/conv:1")
    'block1_conv_1'
    """
    encoded = re.sub(r"[^\w.+\-]+", "_", name).strip("._").encode()
    safe = encoded[:_MAX_BYTES].decode(errors="ignore")
    safe = safe.rstrip(".") or "_"
    return f"_{safe}" if _RESERVED.fullmatch(safe) else safe


def make_folder_names(images: Iterable[Path]) -> list[str]:
    """Return a unique folder name for each image file, from its stem.

    Parameters
    ----------
    images : iterable of Path
        Paths of image files.

    Returns
    -------
    list of str
        A name for each image, in order.

    Examples
    --------
    >>> from pathlib import Path
    >>> actgrid.figures.make_folder_names([Path("a/cat.jpg"), Path("b/cat.png")])
    ['cat', 'cat-2']
    """
    return make_unique_names(make_safe_name(image.stem) for image in images)


def make_unique_names(names: Iterable[str], reserved: Iterable[str] = ()) -> list[str]:
    """Add numbers to names that repeat, ignoring case.

    Parameters
    ----------
    names : iterable of str
        Names, which may repeat.
    reserved : iterable of str, optional
        Names that must not occur in the result.

    Returns
    -------
    list of str
        A name for each item of `names`, unique without regard to case.

    Examples
    --------
    >>> actgrid.figures.make_unique_names(["cat", "dog", "Cat"], reserved=["dog"])
    ['cat', 'dog-2', 'Cat-2']
    """
    make_unique_names: list[str] = []
    # The last number that was added to each name in use.
    numbers = {name.casefold(): 1 for name in reserved}
    for base in names:
        name = base
        number = numbers.get(base.casefold(), 1)
        while name.casefold() in numbers:
            number += 1
            name = f"{base}-{number}"
        numbers[name.casefold()] = 1
        numbers[base.casefold()] = number
        make_unique_names.append(name)
    return make_unique_names


def number_files(paths: Sequence[str], suffix: str) -> list[str]:
    """Return a numbered file name for each layer path, such as ``07_conv1.png``.

    Parameters
    ----------
    paths
        Layer paths, in order.
    suffix
        Suffix of the files, such as ``.png``.
    """
    digits = max(2, len(str(len(paths) - 1)))
    return [f"{index:0{digits}}_{make_safe_name(path)}{suffix}" for index, path in enumerate(paths)]


@contextmanager
def worker_threads(threads: int | None, name: str) -> Iterator[ThreadPoolExecutor]:
    """Provide a pool of threads for drawing in a ``with`` block.

    Pending tasks are cancelled when the block is left.

    Parameters
    ----------
    threads
        Number of threads. None: one for each processor.
    name
        Word in the names of the threads.

    Yields
    ------
    ThreadPoolExecutor
        The pool.
    """
    # One drawing thread for each processor, besides TensorFlow's threads: fewer threads leave
    # processors idle while TensorFlow waits, and more threads or a lower priority gain nothing
    # (measured with 1 to 3 threads on 2 processors).
    pool = ThreadPoolExecutor(resolve_thread_count(threads), f"actgrid-{name}")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class DrawnFile(NamedTuple):
    """Record of the picture file of a layer.

    Attributes
    ----------
    path
        Layer path.
    grid
        The drawn grid.
    pieces
        Consecutive parts of the file.
    milliseconds
        Time to draw and encode the picture. Layers that are drawn together share the time of
        drawing in proportion to their number of values.
    relevance
        Relevance of each channel, if the channels are sorted by it; else None.
    """

    path: str
    grid: Grid
    pieces: list[bytes]
    milliseconds: float
    relevance: Array | None = None


def group_layers(activations: Mapping[str, Array], threads: int | None) -> list[dict[str, Array]]:
    """Group consecutive layers, each group to be drawn by one thread.

    A call for each of many small layers would take longer than drawing them, while the threads of a
    single image need several groups to share.

    Parameters
    ----------
    activations
        Layer path -> activation.
    threads
        Number of threads that draw. None: one for each processor.
    """
    total = sum(activation.nbytes for activation in activations.values())
    group_bytes = total / (_GROUPS_PER_THREAD * resolve_thread_count(threads))
    groups: list[dict[str, Array]] = []
    remaining = 0.0
    for path, activation in activations.items():
        if remaining <= 0:
            groups.append({})
            remaining = group_bytes
        groups[-1][path] = activation
        remaining -= activation.nbytes
    return groups


@takes_options(RenderFileOptions, data_format=None)
def draw_files(
    infos: Mapping[str, LayerInfo],
    activations: Mapping[str, Array],
    *,
    batch: int,
    relevance: Mapping[str, Array] | None = None,
    **options: Unpack[RenderFileOptions],
) -> Iterator[DrawnFile]:
    """Draw layers for one image of a batch, and encode the pictures one after another.

    The layers are drawn by a single thread: groups of layers are drawn in parallel, and encoding
    takes most of the time.

    Yields
    ------
    DrawnFile
        The picture file of each layer.
    """
    render_options, file_format, compression = split_options(options)
    start = time.perf_counter()
    grids = draw_layers(infos, activations, batch=batch, relevance=relevance, **render_options)
    drawing_ms = (time.perf_counter() - start) * 1e3
    total = sum(activation.size for activation in activations.values())
    for path, grid in grids.items():
        start = time.perf_counter()
        pieces = encode_picture(grid, f"picture.{file_format}", compression, 1)
        encoding_ms = (time.perf_counter() - start) * 1e3
        fraction = activations[path].size / total
        milliseconds = drawing_ms * fraction + encoding_ms
        values = None if relevance is None else relevance[path]
        yield DrawnFile(path, grid, pieces, milliseconds, values)


def get_picture_suffix(options: Mapping[str, Any]) -> str:
    """Return the suffix of picture files, such as ``.png``, from the option `format`.

    Parameters
    ----------
    options
        Option name -> value. The default format is used if `format` is missing.
    """
    return "." + str(options.get("format", get_options(FileOptions)["format"].default))


def split_options(
    options: RenderFileOptions | WeightFileOptions,
) -> tuple[RenderArrayOptions, str, str]:
    """Split the options for drawing pictures to files.

    Returns
    -------
    tuple
        Options of `actgrid.render` with one thread, value of `format`, and value of `compression`.
    """
    render_options = cast(RenderArrayOptions, pick_options(options, RenderArrayOptions))
    render_options["threads"] = 1
    return render_options, options["format"], options["compression"]


def describe(layers: Iterable[DrawnLayer], about: Mapping[str, Any]) -> bytes:
    """Return the content of the file ``stats.json`` for the drawn layers of an image.

    The statistics of activations of at most 32 bits are rounded to float32, which takes 60% of the
    bytes of float64.

    Parameters
    ----------
    layers
        The drawn layers with their statistics.
    about
        Further entries, which come before the layers.

    Returns
    -------
    bytes
        JSON text in UTF-8.
    """
    entries = [layer.describe() | _get_channel_arrays(layer) for layer in layers]
    # orjson writes NaN in arrays as null, like `to_dict`, and takes a third of the time for arrays
    # that it takes for lists.
    return orjson.dumps({**about, "layers": entries}, option=orjson.OPT_SERIALIZE_NUMPY)


def _get_channel_arrays(layer: DrawnLayer) -> dict[str, npt.NDArray[Any]]:
    arrays = get_named_arrays(layer.stats)
    if layer.relevance is not None:
        arrays["relevance"] = layer.relevance
    if layer.dtype not in _SHORT_DTYPES:
        return arrays
    return {
        name: array.astype(np.float32) if array.dtype == np.float64 else array
        for name, array in arrays.items()
    }


@takes_options(RenderFileOptions, data_format=None)
def save_layers(
    folder: str | Path,
    infos: Mapping[str, LayerInfo],
    activations: Mapping[str, npt.NDArray[Any]],
    *,
    about: Mapping[str, Any] | None = None,
    **options: Unpack[RenderFileOptions],
) -> list[DrawnLayer]:
    """Draw the layers of one image to ``NN_layer.png``, and write ``stats.json``.

    Parameters
    ----------
    folder : str or Path
        Output folder; created if necessary.
    infos : mapping of str to LayerInfo
        Layer path -> description, as in `Extractor.layers`.
    activations : mapping of str to ndarray
        Layer path -> activation, (N, ...), as `Extractor` returns them.
    about : mapping of str to object, optional
        Further entries for ``stats.json``, such as the image's name. None: no further entries.
    **options
        See `actgrid.options.RenderFileOptions`.

    Returns
    -------
    list of DrawnLayer
        A record of each layer, in the order of `activations`.

    Raises
    ------
    OutputError
        If a file cannot be written. Files that were already written are complete.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")
    ... ])
    >>> extractor = actgrid.Extractor(model)
    >>> activations = extractor(np.random.rand(1, 8, 8, 3))
    >>> layers = actgrid.figures.save_layers("cat", extractor.layers, activations, zoom=4)
    >>> [layer.file for layer in layers]
    ['00_conv.png']
    """
    output_folder = make_folder(folder)
    batch = get_batch_size(activations)

    files = number_files(list(activations), get_picture_suffix(options))
    file_by_path = dict(zip(activations, files, strict=True))

    def save(group: dict[str, Array]) -> list[DrawnLayer]:
        layers = []
        for drawn in draw_files(infos, group, batch=batch, **options):
            file = file_by_path[drawn.path]
            start = time.perf_counter()
            write_file(output_folder / file, *drawn.pieces)
            layer = DrawnLayer.create(infos[drawn.path], group[drawn.path], drawn, file, start)
            layers.append(layer)
        return layers

    threads = options["threads"]
    with worker_threads(threads, "draw") as pool:
        groups = group_layers(activations, threads)
        layers = [layer for drawn in pool.map(save, groups) for layer in drawn]
    write_file(output_folder / "stats.json", describe(layers, about or {}))
    return layers
