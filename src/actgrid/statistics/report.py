"""Create ``report.html``: a self-contained page of statistics over many images."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import features

from actgrid.encoding import encode, write_file
from actgrid.models import LayerInfo
from actgrid.option_checks import check_integer
from actgrid.statistics.dataset import DatasetStats
from actgrid.statistics.layer_stats import NEARLY_DEAD, LayerStats
from actgrid.statistics.top_images import TopImages

__all__ = ["fill_template", "make_report", "save_report"]

Array = npt.NDArray[Any]

# Bytes of image names in a page: with more images, only the first ones of each channel are named.
_MAX_NAME_BYTES = 2_000_000
_MAX_UINT16_NAMES = 2**16 - 1  # more names need four bytes for each index
_NO_NAME = 2**32 - 1  # also the largest number if truncated to two bytes
_NEARLY_DEAD, _DEAD = 1, 2
_QUALITY = 80


def make_report(
    stats: DatasetStats,
    *,
    model: str,
    about: str = "",
    top_images: Mapping[str, TopImages] | None = None,
    nearly_dead_fraction: float = NEARLY_DEAD,
    picture_bytes: int = 4_000_000,
) -> bytes:
    """Create a self-contained HTML page of the channel statistics over many images.

    The page lists the layers with their dead and nearly dead channels. For each layer it shows
    histograms of the statistics over the channels, a sortable table of the channels, and the images
    that activate each channel most.

    Parameters
    ----------
    stats : DatasetStats
        The statistics.
    model : str
        Name of the model.
    about : str
        One line that describes the origin of the statistics.
    top_images : dict or None
        Layer path -> TopImages, see `find_top_images`; None: no pictures.
    nearly_dead_fraction : float
        A channel is nearly dead if less than this fraction of the images activates it, 0 to 1.
    picture_bytes : int
        Maximum size of all pictures in bytes. The first channels of each layer have priority, and
        the page says how many channels have no pictures.

    Returns
    -------
    bytes
        The page in UTF-8.

    Raises
    ------
    OptionError
        If an option is not valid. Also a ValueError.

    Examples
    --------
    >>> from actgrid.statistics import make_report
    >>> make_report(actgrid.DatasetStats(), model="small")[:15]
    b'<!doctype html>'
    """
    limit = check_integer("picture_bytes", picture_bytes, 0)
    layer_stats = stats.layers  # each access copies
    layers: list[dict[str, Any]] = []
    offset = 0
    for path, layer in layer_stats.items():
        dead = int(layer.dead.sum())
        nearly_dead = int(layer.find_nearly_dead(nearly_dead_fraction).sum())
        layers.append(
            _describe_layer(path, layer.info, offset, layer.count.size, dead, nearly_dead)
        )
        offset += layer.count.size
    depth, names, top_indices = _collect_names(list(layer_stats.values()), stats.top)
    pictures = _encode_pictures(layers, top_images or {}, limit)
    states = [_get_states(layer, nearly_dead_fraction) for layer in layer_stats.values()]
    data = {
        "title": f"{model}: channels over {stats.images:,} images",
        "about": about,
        "images": stats.images,
        "top": stats.top,
        "nearlyDeadFraction": nearly_dead_fraction,
        "dead": sum(layer["dead"] for layer in layers),
        "nearlyDead": sum(layer["nearlyDead"] for layer in layers),
        "layers": layers,
        "values": _encode_values(list(layer_stats.values()), stats.images),
        "states": _encode_base64(_concatenate(states), np.uint8),
        "depth": depth,
        "names": names,
        "topIndices": _encode_base64(
            top_indices, np.uint16 if len(names) < _MAX_UINT16_NAMES else np.uint32
        ),
        "pictures": pictures,
        "channelsWithoutPictures": sum(layer["channelsWithoutPictures"] for layer in layers),
        "cell": max((top.tiles.shape[1] for top in (top_images or {}).values()), default=0),
    }
    return fill_template("report.html", str(data["title"]), data)


def fill_template(name: str, title: str, data: Mapping[str, Any]) -> bytes:
    """Insert a title and data into a page of this package.

    Parameters
    ----------
    name
        File name of the page, which contains ``@TITLE@`` and, after it, ``@DATA@``.
    title
        Title of the page.
    data
        Data that the scripts of the page read, as JSON.

    Returns
    -------
    bytes
        The page in UTF-8.
    """
    # Escaping "<" keeps names from closing the script element. ASCII escapes also represent file
    # names that are not valid Unicode.
    encoded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = files("actgrid.statistics").joinpath(name).read_text("utf-8")
    head, rest = template.split("@TITLE@")
    body, end = rest.split("@DATA@")
    escaped = html.escape(title).encode("utf-8", "replace")
    return b"".join([head.encode(), escaped, body.encode(), encoded.encode("ascii"), end.encode()])


def save_report(
    path: str | Path,
    stats: DatasetStats,
    *,
    model: str,
    about: str = "",
    top_images: Mapping[str, TopImages] | None = None,
    nearly_dead_fraction: float = NEARLY_DEAD,
    picture_bytes: int = 4_000_000,
) -> None:
    """Write an HTML report of channel statistics to a file, see `make_report`.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    stats, model, about, top_images, nearly_dead_fraction, picture_bytes : object
        See `make_report`.

    Raises
    ------
    OptionError
        If an option is not valid. Also a ValueError.
    OutputError
        If the file cannot be written. Also an OSError.

    Examples
    --------
    >>> from actgrid.statistics import save_report
    >>> save_report("report.html", actgrid.DatasetStats(), model="small")
    """
    page = make_report(
        stats,
        model=model,
        about=about,
        top_images=top_images,
        nearly_dead_fraction=nearly_dead_fraction,
        picture_bytes=picture_bytes,
    )
    write_file(path, page)


def _describe_layer(
    path: str, info: LayerInfo, offset: int, channels: int, dead: int, nearly_dead: int
) -> dict[str, Any]:
    sides = ("?" if side is None else str(side) for side in info.shape[1:])
    return {
        "path": path,
        "type": info.type,
        "shape": " x ".join(sides),
        "dtype": info.dtype,
        "offset": offset,
        "channels": channels,
        "dead": dead,
        "nearlyDead": nearly_dead,
        "channelsWithPictures": [],
        "channelsWithoutPictures": 0,
    }


def _concatenate(arrays: Iterable[Array]) -> Array:
    """Concatenate arrays; return an empty array if there are none."""
    array_list = list(arrays)
    return np.concatenate(array_list) if array_list else np.zeros(0)


def _encode_base64(array: Array, dtype: Any) -> str:
    """Encode an array as base64 text of its values in little-endian byte order."""
    data = array.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    return base64.b64encode(data).decode("ascii")


@np.errstate(over="ignore")  # values beyond float32 become infinite
def _encode_values(layers: list[LayerStats], images: int) -> dict[str, str]:
    columns: dict[str, list[Array]] = {
        "mean": [layer.mean for layer in layers],
        "std": [layer.std for layer in layers],
        "min": [layer.min for layer in layers],
        "max": [layer.max for layer in layers],
        "zeros": [layer.zero_fraction for layer in layers],
        "activatingImages": [layer.activating_images / max(images, 1) for layer in layers],
    }
    if any(layer.nonfinite.any() for layer in layers):
        columns["nonfinite"] = [layer.nonfinite for layer in layers]
    return {
        name: _encode_base64(_concatenate(arrays), np.float32) for name, arrays in columns.items()
    }


def _get_states(layer: LayerStats, nearly_dead_fraction: float) -> Array:
    """Return a code of the state of each channel: dead, nearly dead, or 0 (alive).

    Parameters
    ----------
    nearly_dead_fraction
        Fraction of images up to which an activated channel is nearly dead.
    """
    is_nearly_dead = layer.find_nearly_dead(nearly_dead_fraction)
    return np.where(layer.dead, _DEAD, np.where(is_nearly_dead, _NEARLY_DEAD, 0))


def _collect_names(layers: list[LayerStats], top: int) -> tuple[int, list[str], Array]:
    """Collect the image names that the report shows for the top images of channels.

    Fewer top images of each channel are named if the names would exceed a size limit.

    Parameters
    ----------
    layers
        Statistics of the layers.
    top
        Number of top images of each channel.

    Returns
    -------
    tuple
        Number of named images per channel, image names, and (channels, number) indices into the
        names.
    """
    names: dict[int, str] = {}
    for layer in layers:
        names |= layer.get_names()
    indices = _concatenate(layer.top_index for layer in layers).reshape(-1, top)
    for depth in range(top, 0, -1):
        used = np.unique(indices[:, :depth])
        used = used[used >= 0]
        if sum(len(names[index]) + 3 for index in used.tolist()) <= _MAX_NAME_BYTES:
            shown = indices[:, :depth]
            positions = np.where(shown < 0, _NO_NAME, np.searchsorted(used, shown))
            return depth, [names[index] for index in used.tolist()], positions
    return 0, [], np.zeros(0)


def _encode_pictures(
    layers: list[dict[str, Any]], top_images: Mapping[str, TopImages], limit: int
) -> dict[int, dict[str, Any]]:
    """Encode the pictures of channels for the report up to a size limit.

    Parameters
    ----------
    layers
        Entries of the layers in the report. The numbers of channels without pictures in the entries
        are updated.
    top_images
        Layer path -> pictures of its channels.
    limit
        Size from which further pictures are left out, in bytes.

    Returns
    -------
    dict
        Number of the channel in the report -> entry with its picture.
    """
    rows = [
        [
            (layer, top_images[layer["path"]], row)
            for row in range(len(top_images[layer["path"]].tiles))
        ]
        for layer in layers
        if layer["path"] in top_images
    ]
    pictures: dict[int, dict[str, Any]] = {}
    size = 0
    for turn in zip_longest(*rows):
        for layer, top, row in filter(None, turn):
            uri = _encode_strip(top, row) if size < limit else ""
            size += len(uri)
            if not uri or size > limit:
                size = limit
                layer["channelsWithoutPictures"] += 1
                continue
            channel = layer["offset"] + int(top.channels[row])
            layer["channelsWithPictures"].append(channel)
            pictures[channel] = {
                "uri": uri,
                "maxima": [image.maximum for image in top.images[row]],
                "names": [image.name for image in top.images[row]],
                "missing": np.flatnonzero(top.missing[row]).tolist(),
            }
    return pictures


def _encode_strip(top: TopImages, row: int) -> str:
    """Encode the tile and patches of a channel side by side as one image.

    Parameters
    ----------
    top
        Pictures of the channels of a layer.
    row
        Position of the channel.

    Returns
    -------
    str
        Data URI of a WebP or JPEG image.
    """
    count = len(top.images[row])
    cells = [top.tiles[row], *top.patches[row, :count]]
    kind = "webp" if features.check("webp") else "jpeg"
    data = b"".join(encode(f"strip.{kind}", np.concatenate(cells, 1), quality=_QUALITY))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
