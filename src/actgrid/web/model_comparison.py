"""Activations of the viewer's model and of a second model for the same image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import NotFoundError, ShapeError
from actgrid.models import LayerInfo
from actgrid.models.networks import count_parameters
from actgrid.options import SIGNED
from actgrid.statistics.model_pair import LayerPair
from actgrid.web.engine import Engine
from actgrid.web.images import StoredImage
from actgrid.web.layers import describe_layer, draw_levels, round_for_json
from actgrid.web.viewed import ViewedModel

__all__ = ["ModelComparison", "describe_difference", "draw_difference"]

Array = npt.NDArray[Any]
# The normalization between two given values, which draws both models in one colour scale.
_SHARED_SCALE = "range"


class ModelComparison:
    """Differences between the activations of two models for the same images.

    Layers are matched by their path.

    Parameters
    ----------
    engine, viewed
        The model of the viewer.
    other_engine, other_viewed
        The second model.
    """

    def __init__(
        self,
        engine: Engine,
        viewed: ViewedModel,
        other_engine: Engine,
        other_viewed: ViewedModel,
    ) -> None:
        self._engine, self._viewed = engine, viewed
        self._other_engine, self._other_viewed = other_engine, other_viewed
        nodes = {other_viewed.infos[node].path: node for node in other_viewed.drawable_nodes}
        self._matches = {
            node: nodes[viewed.infos[node].path]
            for node in viewed.drawable_nodes
            if viewed.infos[node].path in nodes
        }

    def describe(self) -> dict[str, Any]:
        """Return the name and the layers of the second model, for JSON."""
        model = self._other_engine.model
        return {
            "name": model.name,
            "parameters": count_parameters(model),
            "layers": [self._matches.get(node) for node in range(len(self._viewed))],
            "has_classes": self._other_viewed.class_node is not None,
            "shared_scale": _SHARED_SCALE,
        }

    async def compute_difference(self, image: StoredImage, node: int) -> Array:
        """Return the activation of the model minus that of the second model, a batch of 1.

        Raises
        ------
        NotFoundError
            If the second model has no layer with this path. Also a LookupError.
        ShapeError
            If the activations have different shapes. Also a ValueError.
        """
        path = self._viewed.infos[node].path
        other_name = self._other_engine.model.name
        if node not in self._matches:
            raise NotFoundError(f"the model {other_name!r} has no layer {path} that can be drawn")
        first = await self._engine.get_activation(image, node)
        other_node = self._matches[node]
        pair = LayerPair(self._viewed.infos[node], self._other_viewed.infos[other_node])
        second = pair.arrange(await self._other_engine.get_activation(image, other_node))
        if first.shape != second.shape:
            raise ShapeError(
                f"the layer {path} has different shapes: got {first.shape[1:]} and "
                f"{second.shape[1:]}; expected equal shapes for a difference"
            )
        dtype = np.result_type(first, second, np.float32)
        difference: Array = np.subtract(first, second, dtype=dtype)
        return difference


def describe_difference(info: LayerInfo, difference: Array) -> dict[str, Any]:
    """Return the largest difference of each channel, and the tile layout, for JSON."""
    layer = describe_layer(info, difference)
    ends = np.array([layer["stats"]["min"], layer["stats"]["max"]], np.float64)
    largest = np.abs(ends).max(0)
    finite = largest[np.isfinite(largest)]
    return layer | {
        "largest": round_for_json(largest),
        "limit": float(finite.max()) if finite.size else None,
        "cmap": SIGNED["cmap"],
    }


def draw_difference(info: LayerInfo, difference: Array) -> bytes:
    """Return the tiles of a difference as a grayscale PNG file, zero in the middle."""
    return draw_levels(info, difference, SIGNED["normalize"], "layer")
