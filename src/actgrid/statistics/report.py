"""`report.html`: statistics over many images as one page that opens anywhere."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import features

from actgrid.encoding import encode, write_file
from actgrid.models import LayerInfo
from actgrid.option_checks import integer_option
from actgrid.statistics.dataset import DatasetStats
from actgrid.statistics.layer_stats import NEARLY_DEAD, LayerStats
from actgrid.statistics.top_images import TopImages

__all__ = ["make_report", "save_report"]

Array = npt.NDArray[Any]

# Bytes of names that a page may have: of many images only the first for each channel are named.
_MOST_NAMES = 2_000_000
_FEW_NAMES = 2**16 - 1  # so many have numbers of two bytes
_NO_NAME = 2**32 - 1  # in two bytes the largest number too
_NEARLY, _DEAD = 1, 2
_QUALITY = 80


def make_report(
    stats: DatasetStats,
    *,
    model: str,
    about: str = "",
    top_images: Mapping[str, TopImages] | None = None,
    share: float = NEARLY_DEAD,
    picture_bytes: int = 4_000_000,
) -> bytes:
    """Return statistics as one page of HTML that needs nothing else.

    It lists layers with their dead and nearly dead channels, and shows of each layer histograms of
    any statistic over its channels, a table of these that can be sorted, and the images that
    excite them most.

    Parameters
    ----------
    stats
        The statistics.
    model
        The model's name.
    about
        A line about where they come from.
    top_images
        By layer path: pictures, see `find_top_images`.
    share
        A channel that less than this share of the images activates is nearly dead.
    picture_bytes
        Of the pictures so many bytes are put into the page, those of each layer's first channels
        first. The page says how many are left out.

    Returns
    -------
    bytes
        The page, UTF-8.

    Raises
    ------
    OptionError
        If an option cannot be used. Also a ValueError.
    """
    limit = integer_option("picture_bytes", picture_bytes, 0)
    known = stats.layers
    layers: list[dict[str, Any]] = []
    offset = 0
    for path, layer in known.items():
        dead, nearly = int(layer.dead.sum()), int(layer.nearly_dead(share).sum())
        layers.append(_about_layer(path, layer.info, offset, layer.count.size, dead, nearly))
        offset += layer.count.size
    depth, names, tops = _names(list(known.values()), stats.top)
    pictures = _pictures(layers, top_images or {}, limit)
    data = {
        "title": f"{model}: channels over {stats.images:,} images",
        "about": about,
        "images": stats.images,
        "top": stats.top,
        "share": share,
        "dead": sum(layer["dead"] for layer in layers),
        "nearly": sum(layer["nearly"] for layer in layers),
        "layers": layers,
        "values": _values(list(known.values()), stats.images),
        "states": _base64(_joined(_states(layer, share) for layer in known.values()), np.uint8),
        "depth": depth,
        "names": names,
        "tops": _base64(tops, np.uint16 if len(names) < _FEW_NAMES else np.uint32),
        "pictures": pictures,
        "withoutPictures": sum(layer["unpictured"] for layer in layers),
        "cell": max((top.tiles.shape[1] for top in (top_images or {}).values()), default=0),
    }
    # Nothing in it ends the script that it is in, whatever names hold; file names that are no
    # text pass as escapes too.
    encoded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = files("actgrid.statistics").joinpath("report.html").read_text("utf-8")
    head, rest = template.split("@TITLE@")
    body, end = rest.split("@DATA@")
    title = html.escape(str(data["title"])).encode("utf-8", "replace")
    return b"".join([head.encode(), title, body.encode(), encoded.encode("ascii"), end.encode()])


def save_report(
    path: str | Path,
    stats: DatasetStats,
    *,
    model: str,
    about: str = "",
    top_images: Mapping[str, TopImages] | None = None,
    share: float = NEARLY_DEAD,
    picture_bytes: int = 4_000_000,
) -> None:
    """Write the page of `make_report` to a file.

    Parameters
    ----------
    path
        The file.
    stats, model, about, top_images, share, picture_bytes
        As for `make_report`.

    Raises
    ------
    OutputError
        If it cannot be written. Also an OSError.
    """
    page = make_report(
        stats,
        model=model,
        about=about,
        top_images=top_images,
        share=share,
        picture_bytes=picture_bytes,
    )
    write_file(path, page)


def _about_layer(
    path: str, info: LayerInfo, offset: int, channels: int, dead: int, nearly: int
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
        "nearly": nearly,
        "pictured": [],
        "unpictured": 0,
    }


def _joined(arrays: Any) -> Array:
    listed = list(arrays)
    return np.concatenate(listed) if listed else np.zeros(0)


def _base64(array: Array, dtype: Any) -> str:
    """Return an array in few characters, as little-endian numbers."""
    data = array.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    return base64.b64encode(data).decode("ascii")


@np.errstate(over="ignore")  # what float32 does not hold is shown as infinite
def _values(layers: list[LayerStats], images: int) -> dict[str, str]:
    columns: dict[str, list[Array]] = {
        "mean": [layer.mean for layer in layers],
        "std": [layer.std for layer in layers],
        "min": [layer.min for layer in layers],
        "max": [layer.max for layer in layers],
        "zeros": [layer.zero_fraction for layer in layers],
        "activated": [layer.activated / max(images, 1) for layer in layers],
    }
    if any(layer.nonfinite.any() for layer in layers):
        columns["nonfinite"] = [layer.nonfinite for layer in layers]
    return {name: _base64(_joined(arrays), np.float32) for name, arrays in columns.items()}


def _states(layer: LayerStats, share: float) -> Array:
    return np.where(layer.dead, _DEAD, np.where(layer.nearly_dead(share), _NEARLY, 0))


def _names(layers: list[LayerStats], top: int) -> tuple[int, list[str], Array]:
    """Return how many images are named for each channel, the names, and which are whose."""
    named: dict[int, str] = {}
    for layer in layers:
        named |= layer.names()
    indices = _joined(layer.top_index for layer in layers).reshape(-1, top)
    for depth in range(top, 0, -1):
        used = np.unique(indices[:, :depth])
        used = used[used >= 0]
        if sum(len(named[index]) + 3 for index in used.tolist()) <= _MOST_NAMES:
            kept = indices[:, :depth]
            positions = np.where(kept < 0, _NO_NAME, np.searchsorted(used, kept))
            return depth, [named[index] for index in used.tolist()], positions
    return 0, [], np.zeros(0)


def _pictures(
    layers: list[dict[str, Any]], found: Mapping[str, TopImages], limit: int
) -> dict[int, dict[str, Any]]:
    """Return pictures by channel, as many as there is room for, and note in the layers which."""
    rows = [
        [(layer, found[layer["path"]], row) for row in range(found[layer["path"]].channels.size)]
        for layer in layers
        if layer["path"] in found
    ]
    pictures: dict[int, dict[str, Any]] = {}
    size = 0
    for turn in zip_longest(*rows):
        for layer, top, row in filter(None, turn):
            uri = _strip(top, row) if size < limit else ""
            size += len(uri)
            if not uri or size > limit:
                size = limit
                layer["unpictured"] += 1
                continue
            channel = layer["offset"] + int(top.channels[row])
            layer["pictured"].append(channel)
            pictures[channel] = {
                "uri": uri,
                "maxima": [image.maximum for image in top.images[row]],
                "names": [image.name for image in top.images[row]],
                "gone": np.flatnonzero(top.missing[row]).tolist(),
            }
    return pictures


def _strip(top: TopImages, row: int) -> str:
    """Return a channel's tile and patches side by side, as a data URI."""
    count = len(top.images[row])
    cells = [top.tiles[row], *top.patches[row, :count]]
    kind = "webp" if features.check("webp") else "jpeg"
    data = b"".join(encode(f"strip.{kind}", np.concatenate(cells, 1), quality=_QUALITY))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
