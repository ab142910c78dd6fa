"""Draw the weights of a model as grids, and save them as files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from actgrid.encoding import make_folder
from actgrid.errors import LayerError
from actgrid.figures.files import (
    get_picture_suffix,
    number_files,
    split_options,
    worker_threads,
)
from actgrid.models.drawing import draw_weight
from actgrid.models.layers import Selection, Weight, collect_weights
from actgrid.models.loading import load_model
from actgrid.models.network import check_editable
from actgrid.models.networks import get_network
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import SIGNED, RenderOptions, WeightFileOptions
from actgrid.rendering import Grid, PictureDict

__all__ = ["DrawnWeight", "render_weights", "save_weights"]


@dataclass(frozen=True)
class DrawnWeight:
    """Record of a weight that was drawn and saved.

    Parameters
    ----------
    path : str
        Layer path and name of the weight, such as ``"block1_conv1/kernel"``.
    type : str
        Class name of the layer.
    shape : tuple of int
        Shape of the weight.
    dtype : str
        Name of the weight's dtype.
    min : float
        Smallest value of the weight.
    max : float
        Largest value of the weight.
    file : Path
        Path of the picture.
    milliseconds : float
        Time to measure, paint, encode and write the picture.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")
    ... ])
    >>> weight, = actgrid.figures.save_weights("weights", model)
    >>> weight.path, weight.shape, weight.file.name
    ('conv/kernel', (3, 3, 3, 4), '00_conv_kernel.png')
    """

    path: str
    type: str
    shape: tuple[int, ...]
    dtype: str
    min: float
    max: float
    file: Path
    milliseconds: float


@takes_options(RenderOptions, **SIGNED)
def render_weights(
    model: ModelLike, layers: LayersLike = None, **options: Unpack[RenderOptions]
) -> PictureDict[Grid]:
    """Draw a model's convolution kernels, or all weights of chosen layers, as grids.

    Parameters
    ----------
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes.
    layers : str, int, type, callable, list or None, optional
        The layers, see `actgrid.Extractor`: all their weights except scalars are drawn, also those
        of layers inside. None: the kernels of all convolutions, which are the weights of rank 3
        to 5.
    **options
        See `actgrid.options.RenderOptions`. By default each tile is normalized separately; with
        ``scope="layer"`` the magnitudes of filters can be compared.

    Returns
    -------
    PictureDict of str to Grid
        Weight path (``"block1_conv1/kernel"``) -> grid. Kernels are drawn as with
        ``kind="kernel"``, a row for each output channel, also those of transposed convolutions.
        Depthwise kernels have a tile for each output channel.

    Raises
    ------
    LayerError
        If an item of `layers` matches no layer, or only layers without weights; or if `layers` is
        None and the model has no convolution. Also a KeyError.
    ModelError
        If the model cannot be loaded, or is not built and has no weights. Also a ValueError.
    OptionError
        If an option is invalid. Also a ValueError.
    ShapeError
        If a weight has more axes than can be drawn. Also a ValueError.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")
    ... ])
    >>> grids = actgrid.render_weights(model, zoom=8)
    >>> grids["conv/kernel"].levels.shape
    (120, 88)
    >>> grids["conv/kernel"].save("kernel.png")
    """
    weights = _choose_weights(load_model(model), layers)
    return PictureDict(
        (weight.path, draw_weight(weight, weight.variable.numpy(), **options)) for weight in weights
    )


@takes_options(WeightFileOptions, **SIGNED)
def save_weights(
    folder: str | Path,
    model: ModelLike,
    layers: LayersLike = None,
    **options: Unpack[WeightFileOptions],
) -> list[DrawnWeight]:
    """Draw a model's weights and save them as ``NN_layer_weight.png``.

    Parameters
    ----------
    folder : str or Path
        Output folder; created if necessary.
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes.
    layers : str, int, type, callable, list or None, optional
        The layers, as in `actgrid.render_weights`. None: the kernels of all convolutions.
    **options
        See `actgrid.options.WeightFileOptions`.

    Returns
    -------
    list of DrawnWeight
        A record of each weight, in order.

    Raises
    ------
    OutputError
        If a file cannot be written. Files that were already written are complete.
    ActgridError
        If `actgrid.render_weights` cannot draw the weights.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")
    ... ])
    >>> weights = actgrid.figures.save_weights("weights", model, "conv")
    >>> [weight.file.name for weight in weights]
    ['00_conv_kernel.png', '01_conv_bias.png']
    """
    render_options, _, compression = split_options(options)
    network = load_model(model)
    weights = _choose_weights(network, layers)
    output_folder = make_folder(folder)

    def save(weight: Weight, file: Path) -> DrawnWeight:
        start = time.perf_counter()
        values = weight.variable.numpy()
        grid = draw_weight(weight, values, **render_options)
        grid.save(file, compression=compression, threads=1)
        return DrawnWeight(
            path=weight.path,
            type=type(weight.nodes[-1].layer if weight.nodes else model).__name__,
            shape=values.shape,
            dtype=values.dtype.name,
            min=float(grid.stats.min.min()),
            max=float(grid.stats.max.max()),
            file=file,
            milliseconds=(time.perf_counter() - start) * 1e3,
        )

    files = number_files([weight.path for weight in weights], get_picture_suffix(options))
    with worker_threads(options["threads"], "draw") as pool:
        return list(pool.map(save, weights, [output_folder / file for file in files]))


def _choose_weights(model: Any, layers: LayersLike) -> list[Weight]:
    """Return the weights of a model to draw.

    Parameters
    ----------
    layers
        Layers whose weights to draw. None: the kernels of all convolutions.

    Returns
    -------
    list of Weight
        Scalars are left out.

    Raises
    ------
    LayerError
        If there are no such weights.
    """
    check_editable(get_network(model), "render_weights")
    if layers is None:
        kernels = [
            weight for weight in collect_weights(model) if 3 <= len(weight.variable.shape) <= 5
        ]
        if not kernels:
            raise LayerError(
                "the model has no convolution: set layers to the layers whose weights are drawn"
            )
        return kernels
    weights = Selection(layers).select_weights(model)
    return [weight for weight in weights if len(weight.variable.shape)]
