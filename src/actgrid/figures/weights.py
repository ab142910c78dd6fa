"""A model's weights to grids and files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actgrid.encoding import writable_folder
from actgrid.errors import LayerError
from actgrid.figures.files import numbered_files, picture_suffix, split_options, worker_threads
from actgrid.models.drawing import draw_weight
from actgrid.models.layers import Selection, Weight, model_weights
from actgrid.models.loading import load_model
from actgrid.models.network import check_editable
from actgrid.models.networks import network_of
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import SIGNED, RenderOptions, WeightFileOptions
from actgrid.rendering import Grid

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DrawnWeight", "render_weights", "save_weights"]


@dataclass(frozen=True)
class DrawnWeight:
    """A weight that was drawn and saved.

    Attributes
    ----------
    path
        Layer path and name of the weight.
    type
        Class of its layer.
    shape, dtype
        Of the weight.
    min, max
        Its smallest and its largest value.
    file
        The picture.
    milliseconds
        Time taken to measure, paint, encode and write it.
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
) -> dict[str, Grid]:
    """Draw a model's weights: the filters of its convolutions, or all weights of chosen layers.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    layers
        Which layers, see `actgrid.Extractor`: of these every weight that is not a scalar, and
        those of the layers inside. None: the kernels of all convolutions, which are the weights
        of three to five axes.
    **options
        See `actgrid.options.RenderOptions`. Each tile is normalized by itself: for filters whose
        strength can be compared, ``scope="layer"``.

    Returns
    -------
    dict
        Layer path and name of the weight (``"block1_conv1/kernel"``) -> Grid. Kernels are drawn
        as with ``kind="kernel"``, a row for each output channel, those of transposed convolutions
        too; depthwise ones as a tile for each output channel.

    Raises
    ------
    LayerError
        If no layer matches an item of `layers`, or has no weights; or if without `layers` there
        is no convolution. Also a KeyError.
    ModelError
        If the model cannot be loaded, or has not been called and has no weights yet. Also a
        ValueError.
    OptionError, ShapeError
        Whatever `render` raises.

    Examples
    --------
    >>> grids = actgrid.render_weights("demo", "stem_conv", zoom=8)
    >>> grids["stem_conv/kernel"].save("stem.png")
    """
    chosen = _choose(load_model(model), layers)
    return {
        weight.path: draw_weight(weight, weight.variable.numpy(), **options) for weight in chosen
    }


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
    folder
        Where; made if need be.
    model, layers
        As for `render_weights`.
    **options
        See `actgrid.options.WeightFileOptions`.

    Raises
    ------
    OutputError
        If a file cannot be written. Others may have been written; they are whole.
    """
    render_options, _, compression = split_options(options)
    network = load_model(model)
    weights = _choose(network, layers)
    place = writable_folder(folder)

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

    files = numbered_files([weight.path for weight in weights], picture_suffix(options))
    with worker_threads(options["threads"], "draw") as pool:
        return list(pool.map(save, weights, [place / file for file in files]))


def _choose(model: Any, layers: LayersLike) -> list[Weight]:
    check_editable(network_of(model), "render_weights")
    if layers is None:
        kernels = [one for one in model_weights(model) if 3 <= len(one.variable.shape) <= 5]
        if not kernels:
            raise LayerError("the model has no convolution; name the layers whose weights to draw")
        return kernels
    return [one for one in Selection(layers).choose_weights(model) if len(one.variable.shape)]
