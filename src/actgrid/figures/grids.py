"""`actgrid.render_model`: a model and an input to grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from actgrid.errors import OptionError
from actgrid.figures.on_device import draw_on_device, on_gpu
from actgrid.models import Extractor, load_images
from actgrid.models.drawing import draw_layer
from actgrid.models.extraction import is_traceable
from actgrid.models.image_sources import are_images
from actgrid.models.types import LayersLike, ModelInput, ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import RenderModelOptions
from actgrid.rendering import Grid

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["batch_size", "render_model"]


@takes_options(RenderModelOptions, data_format=None)
def render_model(
    model: ModelLike | Extractor,
    x: ModelInput,
    layers: LayersLike = None,
    **options: Unpack[RenderModelOptions],
) -> dict[str, Grid]:
    """Run a model on an input and draw its layers.

    Parameters
    ----------
    model
        A Keras model, anything that `actgrid.load_model` takes, or an `actgrid.Extractor`, which
        is worth making once where several inputs follow each other.
    x
        The model's input with its batch axis, already preprocessed; or image files or Pillow
        images, which `actgrid.load_images` then prepares for this model.
    layers
        Which layers, see `actgrid.Extractor`; None: every one with a spatial output.
    **options
        See `actgrid.options.RenderModelOptions`.

    Returns
    -------
    dict
        Layer path -> Grid, in the order in which the layers run.

    Raises
    ------
    ActgridError
        Whatever `load_model`, `Extractor`, `load_images` and `render` raise.

    Notes
    -----
    The kind of each activation and its data format are known; `sample` chooses the image of a
    batch, `token_grid` applies to sequences only. ``backend="tensorflow"`` draws inside the model's
    compiled function: pictures and statistics leave the device, a quarter of the bytes, and no
    activation does. ``"auto"`` is that where TensorFlow runs the model on a GPU; an extractor then
    has XLA compile the drawing, which takes a while at first.

    Examples
    --------
    >>> grids = actgrid.render_model("demo", actgrid.demo.photo(), "*_relu", cmap="magma")
    >>> grids["stem_relu"].save("stem_relu.png")
    """
    if isinstance(model, Extractor) and layers is not None:
        raise OptionError("the layers are those of the extractor: leave them out here")
    extractor = model if isinstance(model, Extractor) else Extractor(model, layers)
    if are_images(x):
        x = load_images(x, model=extractor.model)
    backend = options["backend"]
    gpu = backend in ("auto", "tensorflow") and is_traceable(extractor) and on_gpu()
    if backend == "tensorflow" or (gpu and options["kind"] is None):
        # An input or two would be drawn before XLA is done.
        return draw_on_device(extractor, x, options, fuse=gpu and extractor is model)
    activations = extractor(x)
    infos = extractor.layers
    return {
        path: draw_layer(infos[path], activation, batch=batch_size(activations), **options)
        for path, activation in activations.items()
    }


def batch_size(activations: Mapping[str, npt.NDArray[Any]]) -> int:
    """Return how many samples there are in activations of one run."""
    return max(map(len, activations.values()))
