"""Create ``report.html`` of a model comparison: a self-contained page."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from actgrid.rendering.picture import Picture
from actgrid.statistics.model_comparison import LayerComparison, ModelComparison
from actgrid.statistics.report import fill_template

__all__ = ["make_comparison_report"]

# Channels of a layer in the page, those with the largest differences.
_MAX_CHANNELS = 64
_DIGITS = 4


def make_comparison_report(
    comparison: ModelComparison, pictures: Mapping[str, Picture] | None = None
) -> bytes:
    """Create a self-contained HTML page of a model comparison.

    The page has a sortable table of the layers, and for each layer its picture and a table of the
    channels that differ most, with the images in which they do.

    Parameters
    ----------
    comparison : ModelComparison
        The comparison.
    pictures : dict or None
        Layer path -> picture of the layer, such as a `ComparedGrids`; None: no pictures.

    Returns
    -------
    bytes
        The page in UTF-8.

    Examples
    --------
    >>> import keras
    >>> from actgrid.statistics.comparison_report import make_comparison_report
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU(name="relu")])
    >>> x = np.zeros((4, 8, 8, 3), np.float32)
    >>> make_comparison_report(actgrid.compare_models(model, model, x))[:15]
    b'<!doctype html>'
    """
    summary = comparison.summary()
    layers = comparison.layers
    data = {
        "models": summary["models"],
        "images": comparison.images,
        "layers": [
            {
                **{name: _to_json(value) for name, value in layer.items()},
                "channels": _list_channels(layers[layer["layer"]]),
                "picture": _encode_picture((pictures or {}).get(layer["layer"])),
            }
            for layer in summary["layers"]
        ],
    }
    title = f"{comparison.names[0]} and {comparison.names[1]}: {comparison.images:,} images"
    return fill_template("comparison_report.html", title, data)


def _list_channels(layer: LayerComparison) -> list[list[Any]]:
    """Return a row for each of the channels that differ most, worst first.

    Each row has the channel, its difference, relative difference, correlation and state, and the
    name of the image in which it differs most.
    """
    if np.isnan(layer.difference).all():
        return []
    order = np.argsort(-np.nan_to_num(layer.difference), kind="stable")[:_MAX_CHANNELS]
    relative, correlation = layer.relative_difference, layer.correlation
    died, revived = layer.died, layer.revived
    rows = []
    for channel in order.tolist():
        images = layer.get_top_images(channel)
        state = "died" if died[channel] else "revived" if revived[channel] else ""
        values = (layer.difference[channel], relative[channel], correlation[channel])
        rows.append([channel, *(_to_json(float(value)) for value in values), state, _name(images)])
    return rows


def _name(images: list[Any]) -> str:
    return str(images[0].name) if images else ""


def _encode_picture(picture: Picture | None) -> str:
    if picture is None:
        return ""
    return f"data:image/png;base64,{base64.b64encode(picture.to_png()).decode('ascii')}"


def _to_json(value: Any) -> Any:
    """Return a number with four digits; None for NaN, and text for an infinite value."""
    if not isinstance(value, float):
        return value
    if math.isnan(value):
        return None
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else "infinite"
