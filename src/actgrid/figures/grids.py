"""Draw the activations of a model for one input as grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack, cast

import numpy.typing as npt

from actgrid.attribution.channel_relevance import check_order_options, measure_sample_relevance
from actgrid.errors import OptionError
from actgrid.figures.on_device import draw_on_device, is_gpu_used
from actgrid.models import Extractor, load_images
from actgrid.models.drawing import draw_layers
from actgrid.models.extraction import get_extractor, is_traceable
from actgrid.models.image_sources import are_images
from actgrid.models.sample_files import load_samples
from actgrid.models.types import LayersLike, ModelInput, ModelLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import RenderArrayOptions, RenderModelOptions
from actgrid.rendering import Grid, PictureDict

__all__ = ["get_batch_size", "render_model"]


@takes_options(RenderModelOptions, data_format=None)
def render_model(
    model: ModelLike | Extractor,
    x: ModelInput,
    layers: LayersLike = None,
    **options: Unpack[RenderModelOptions],
) -> PictureDict[Grid]:
    """Run a model on an input and draw the activations of its layers as grids.

    Parameters
    ----------
    model : keras.Model, str or Extractor
        The model, or anything that `actgrid.load_model` takes. The function that is compiled in
        the first call is kept with the model for later calls; an `actgrid.Extractor` keeps its own.
    x : array_like, dict, list or image sources
        The model's input with its batch axis, already preprocessed; or image files or Pillow
        images, which `actgrid.load_images` prepares for the model; or files of sequences, tables or
        volumes, for a model that takes these.
    layers : str, int, type, callable, list or None, optional
        The layers to draw, see `actgrid.Extractor`. None: all layers with a spatial output, or
        the layers of the extractor.
    **options
        See `actgrid.options.RenderModelOptions`.

    Returns
    -------
    PictureDict of str to Grid
        Layer path -> grid, in the order in which the layers run. Notebooks show the pictures of
        this dict.

    Raises
    ------
    ModelError
        If the model cannot be loaded or run. Also a ValueError.
    LayerError
        If an item of `layers` matches no layer. Also a KeyError.
    ShapeError
        If `x` does not fit the model, or an activation cannot be drawn. Also a ValueError.
    OptionError
        If an option is invalid, or `layers` is given with an extractor. Also a ValueError.

    Notes
    -----
    The kind and data format of each activation are those of its layer. `sample` is the index of
    the image in the batch, and `token_grid` applies only to sequences. ``backend="tensorflow"``
    draws inside the model's compiled function: only pictures and statistics are copied from the
    device, a quarter of the bytes of the activations. ``"auto"`` uses this backend if TensorFlow
    runs the model on a GPU. With an extractor, the drawing is then compiled by XLA, which makes
    the first call slower.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
    ...     keras.layers.MaxPooling2D(name="pool"),
    ... ])
    >>> grids = actgrid.render_model(model, np.random.rand(1, 32, 32, 3), cmap="magma")
    >>> list(grids)
    ['conv', 'pool']
    >>> grids["conv"].save("conv.png")
    """
    extractor = get_extractor(model, layers)
    if (samples := load_samples(x, extractor.model)) is not None:
        x = samples.batch
    elif are_images(x):
        x = load_images(x, model=extractor.model)
    backend = options["backend"]
    is_by_relevance = check_order_options(options)
    if is_by_relevance and backend == "tensorflow":
        raise OptionError(
            "backend='tensorflow' cannot sort channels by relevance: choose another backend"
        )
    uses_gpu = backend in ("auto", "tensorflow") and is_traceable(extractor) and is_gpu_used()
    if backend == "tensorflow" or (uses_gpu and options["kind"] is None and not is_by_relevance):
        # XLA compiles longer than it takes to draw a few inputs: only an extractor is reused.
        return draw_on_device(extractor, x, options, fuse=uses_gpu and extractor is model)
    activations = extractor(x)
    batch = get_batch_size(activations)
    relevance = None
    if is_by_relevance:
        target, labels, sample = options["target"], options["labels"], options["sample"]
        paths = list(activations)
        rows = measure_sample_relevance(extractor.model, x, paths, target, labels, sample)
        relevance = {path: values[0] for path, values in rows.items()}
    render_options = cast(RenderArrayOptions, pick_options(options, RenderArrayOptions))
    return draw_layers(
        extractor.layers, activations, batch=batch, relevance=relevance, **render_options
    )


def get_batch_size(activations: Mapping[str, npt.NDArray[Any]]) -> int:
    """Return the number of samples in the activations of one run of a model.

    Parameters
    ----------
    activations
        Layer path -> (N, ...) array. Activations that do not depend on the input have length 1.
    """
    return max(map(len, activations.values()))
