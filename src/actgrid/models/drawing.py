"""Render activations and weights with the settings that suit their layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.models.frameworks import keras
from actgrid.models.layers import LayerInfo, Weight
from actgrid.option_groups import takes_options
from actgrid.options import SIGNED, RenderArrayOptions
from actgrid.rendering import Grid, PictureDict, TokenGrid, render
from actgrid.rendering.draw import render_arrays, sort_channels

__all__ = [
    "arrange_kernel_axes",
    "choose_token_grid",
    "describe_grid",
    "draw_layer",
    "draw_layers",
    "draw_weight",
]

# What the rows and columns of a tile are, by the kind of layer output.
_REMARKS = {
    "attention": "a tile for each head, with queries as rows and keys as columns",
    "heads": "a tile for each head, with tokens as rows and channels as columns",
}


@takes_options(RenderArrayOptions, data_format=None)
def draw_layers(
    infos: Mapping[str, LayerInfo],
    activations: Mapping[str, npt.NDArray[Any]],
    *,
    batch: int = 1,
    relevance: Mapping[str, npt.NDArray[Any]] | None = None,
    **options: Unpack[RenderArrayOptions],
) -> PictureDict[Grid]:
    """Render the activations of several layers as grids, as `draw_layer` renders each.

    Parameters
    ----------
    infos
        Layer path -> description of the layer output.
    activations
        Layer path -> output, with its batch axis.
    batch
        Number of samples in the batch.
    relevance
        Layer path -> relevance of each channel for the drawn sample, by which ``order="relevance"``
        sorts the channels.
    **options
        See `actgrid.render`.

    Returns
    -------
    PictureDict of {str: Grid}
        Layer path -> grid.
    """
    requests = []
    for path, activation in activations.items():
        layer_options = _get_layer_options(infos[path], activation, batch, options)
        if relevance is not None:
            layer_options["order"] = sort_channels(relevance[path]).tolist()
        requests.append((activation, layer_options))
    grids = render_arrays(requests, options)
    return PictureDict(
        (path, describe_grid(infos[path], grid, options))
        for path, grid in zip(activations, grids, strict=True)
    )


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
    (grid,) = draw_layers({"": info}, {"": activation}, batch=batch, **options).values()
    return grid


def _get_layer_options(
    info: LayerInfo, activation: npt.NDArray[Any], batch: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of `actgrid.render` that a layer determines."""
    kind = options["kind"] or info.kind
    has_heads = kind in ("attention", "heads")
    return {
        "kind": kind,
        "data_format": (not has_heads and options["data_format"]) or info.data_format,
        "sample": 0 if len(activation) == 1 < batch else options["sample"],
        "token_grid": choose_token_grid(info, options["token_grid"], options["kind"]),
    }


def choose_token_grid(
    info: LayerInfo, token_grid: tuple[int, int] | None = None, kind: str | None = None
) -> tuple[int, int] | TokenGrid | None:
    """Return the grid that the tokens of a layer are drawn in; None for no grid.

    The option `token_grid` comes before the grid that was found for the layer. With the option
    ``kind="sequence"``, tokens are drawn in a grid only if `token_grid` is given.
    """
    if info.kind != "sequence":
        return None
    return token_grid or (info.token_grid if kind is None else None)


def describe_grid(info: LayerInfo, grid: Grid, options: Mapping[str, Any]) -> Grid:
    """Return the grid of a layer with a remark on its axes; see `Grid.note`."""
    remark = "" if options["kind"] else _REMARKS.get(info.kind, "")
    token_grid = choose_token_grid(info, options["token_grid"], options["kind"])
    if isinstance(token_grid, TokenGrid):
        others = token_grid.leading + token_grid.trailing
        if others:
            remark = f"patches only; tokens that are not drawn: {others}"
    elif info.lacks_grid and token_grid is None:
        remark = "tokens of an image whose grid is not known: pass token_grid=(height, width)"
    return replace(grid, _remark=remark) if remark else grid


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
