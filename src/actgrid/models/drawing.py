"""Activations and weights, drawn by what is known of their layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.models.frameworks import keras
from actgrid.models.layers import LayerInfo, Weight
from actgrid.options import SIGNED, RenderArrayOptions
from actgrid.rendering import Grid, render

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["draw_layer", "draw_weight", "filters"]


def draw_layer(
    info: LayerInfo,
    activation: npt.NDArray[Any],
    *,
    batch: int = 1,
    **options: Unpack[RenderArrayOptions],
) -> Grid:
    """Draw one layer's activation, by what is known of the layer; see `actgrid.render`.

    A layer that gives one output for the whole of a larger `batch`, such as an embedding of
    positions, has that drawn for every sample.
    """
    if info.kind != "sequence":
        options["token_grid"] = None
    if len(activation) == 1 < batch:
        options["sample"] = 0
    if options.get("kind") is None:
        options["kind"] = info.kind
    if options.get("data_format") is None:
        options["data_format"] = info.data_format
    return render(activation, **options)


def draw_weight(
    weight: Weight, values: npt.NDArray[Any], **options: Unpack[RenderArrayOptions]
) -> Grid:
    """Draw a weight, or an array like it, with a row for each output channel of a convolution.

    See `actgrid.render`; by default zero is the middle of a diverging colormap.
    """
    given: RenderArrayOptions = {**SIGNED, "kind": "kernel", **options}
    return render(filters(weight, values), **given)


def filters(weight: Weight, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a kernel with its input and output channels last, in this order."""
    layers = keras().layers
    layer = weight.nodes[-1].layer if weight.nodes else None
    if values.ndim < 3:
        return values
    if isinstance(layer, (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)):
        return np.swapaxes(values, -1, -2)
    depthwise = isinstance(layer, (layers.DepthwiseConv1D, layers.DepthwiseConv2D))
    if depthwise or weight.variable.name == "depthwise_kernel":
        # Each output channel sees one input channel.
        return values.reshape(*values.shape[:-2], 1, -1)
    return values
