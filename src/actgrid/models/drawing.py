"""Render activations and weights with the settings that suit their layers."""

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

__all__ = ["arrange_kernel_axes", "draw_layer", "draw_weight"]


def draw_layer(
    info: LayerInfo,
    activation: npt.NDArray[Any],
    *,
    batch: int = 1,
    **options: Unpack[RenderArrayOptions],
) -> Grid:
    """Render the activation of a layer as a grid, by the kind and format of the layer.

    Parameters
    ----------
    info
        Description of the layer output.
    activation
        The output, with its batch axis.
    batch
        Number of samples in the batch. A layer may return one output for the whole batch, such as
        an embedding of positions; this output is drawn for every sample.
    **options
        See `actgrid.render`.

    Returns
    -------
    Grid
        A tile for each channel.
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
    """Render a weight as a grid, with a row for each output channel of a kernel.

    By default zero is in the middle of a diverging colormap. See `actgrid.render` for the options.

    Returns
    -------
    Grid
        The drawn weight.
    """
    weight_options: RenderArrayOptions = {**SIGNED, "kind": "kernel", **options}
    return render(arrange_kernel_axes(weight, values), **weight_options)


def arrange_kernel_axes(weight: Weight, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rearrange a kernel so that its last axes are (input, output) channels.

    Kernels of transposed and depthwise convolutions have another order. Weights of fewer than three
    axes are returned unchanged.
    """
    layers = keras().layers
    layer = weight.nodes[-1].layer if weight.nodes else None
    if values.ndim < 3:
        return values
    if isinstance(layer, (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)):
        return np.swapaxes(values, -1, -2)
    is_depthwise = isinstance(layer, (layers.DepthwiseConv1D, layers.DepthwiseConv2D))
    if is_depthwise or weight.variable.name == "depthwise_kernel":
        # Each output channel reads one input channel.
        return values.reshape(*values.shape[:-2], 1, -1)
    return values
