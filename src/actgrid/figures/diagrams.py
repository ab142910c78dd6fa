"""Draw diagrams of models, in which each layer is a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.errors import LayerError, ModelError
from actgrid.models.calls import choose_calls, filter_visible_calls
from actgrid.models.compiled import compile_function, trace_once
from actgrid.models.frameworks import tensorflow
from actgrid.models.graph import INPUT, describe_inputs
from actgrid.models.image_sources import are_images
from actgrid.models.images import load_with_pixels
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.loading import load_model
from actgrid.models.network import check_connected, is_compiled
from actgrid.models.networks import describe_network_layers, get_network, trace_network
from actgrid.models.sample_files import load_samples
from actgrid.models.tracing import prepare_trace_inputs
from actgrid.models.types import LayersLike, ModelInput, ModelLike
from actgrid.option_checks import check_sample
from actgrid.option_groups import takes_options
from actgrid.options import ModelDiagramOptions
from actgrid.rendering import render
from actgrid.rendering.diagram import Box, Diagram, draw_diagram
from actgrid.rendering.input_pictures import to_pictures

__all__ = ["diagram"]

# Ranks, with the batch axis, of outputs that are drawn as boxes.
_RANKS = (2, 3, 4, 5)
# Maximum number of rows on the bar of a dense layer.
_MAX_ROWS = 64


@takes_options(ModelDiagramOptions, normalize="minmax")
def diagram(
    model: ModelLike,
    x: ModelInput | None = None,
    layers: LayersLike = None,
    **options: Unpack[ModelDiagramOptions],
) -> Diagram:
    """Draw a model's layers as boxes whose size shows the shape of the layer's output.

    The boxes of the inputs come first, then those of the layers in the order in which they run.
    For images, the height, width and depth of a box stand for height, width and channels. A dense
    layer is a bar, and a sequence a sheet of steps by channels. All lengths are proportional to
    the square root of the sizes, so that both 7 and 224 are visible. The colour shows the type of
    the layer.

    Parameters
    ----------
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes.
    x : array_like, dict, list or image sources, optional
        The model's input with its batch axis, already preprocessed; or image files or Pillow
        images, which `actgrid.load_images` prepares for the model. The front of each box then
        shows the layer's activation: for images the root mean square over the channels, for a
        dense layer its units, for a sequence its steps and channels, and for an image input the
        image. None: the boxes have plain colours.
    layers : str, int, type, callable, list or None, optional
        The layers to draw, see `actgrid.Extractor`. None: all layers, except the layers inside of
        Keras's own layers.
    **options
        See `actgrid.options.ModelDiagramOptions`.

    Returns
    -------
    Diagram
        A picture with the methods ``save``, ``to_image`` and ``to_rgb``. `boxes` are the boxes
        that were drawn.

    Raises
    ------
    ModelError
        If the model cannot be loaded or run, or its sizes are not fixed and `x` is None. Also a
        ValueError.
    LayerError
        If an item of `layers` matches no layer, or no output can be drawn. Also a KeyError.
    ShapeError
        If `x` does not fit the model. Also a ValueError.
    OptionError
        If an option is invalid. Also a ValueError.

    References
    ----------
    Gavrikov, visualkeras, 2020, https://github.com/paulgavrikov/visualkeras (layered view).

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(name="mean"),
    ...     keras.layers.Dense(4, name="head"),
    ... ])
    >>> diagram = actgrid.diagram(model)
    >>> [box.shape for box in diagram.boxes]
    [(32, 32, 3), (30, 30, 8), (8,), (4,)]
    >>> diagram.save("model.png")

    With an input, the boxes show activations:

    >>> actgrid.diagram(model, np.random.rand(1, 32, 32, 3)).save("activations.png")
    """
    network: Any = load_model(model)
    check_connected(get_network(network), "diagram")
    pixels = None
    if (samples := load_samples(x, network)) is not None:
        x = samples.batch
    elif are_images(x):
        pixels, x = load_with_pixels(x, model=network)
    inputs = prepare_trace_inputs(network, x)
    selection = Selection(layers).resolve_predicates(network)
    if x is None:
        infos = trace_once(network, _TraceInfos(selection), inputs)
        boxes = [_make_box(info, info.shape) for info in infos]
    else:
        tf = tensorflow()
        flat_inputs = [tensor for tensor in tf.nest.flatten(inputs) if tensor is not None]
        sample = check_sample(options["sample"], max(map(len, flat_inputs)))
        boxes = []
        function = compile_function(network, _ComputeFronts(selection))
        fronts = function(inputs, tf.constant(sample))
        for info, (tensor, shape) in zip(function.body.infos, fronts, strict=True):
            front = np.asarray(tensor)
            if front.ndim == 3:
                face = _to_picture(front if pixels is None else pixels[sample])
            else:
                face = render(
                    front[..., None],
                    kind="image",
                    normalize=options["normalize"],
                    cmap=options["cmap"],
                ).to_rgb()
            boxes.append(_make_box(info, shape.numpy(), face))
    return draw_diagram(
        boxes,
        side=options["side"],
        width=options["width"],
        names=options["names"],
        legend=options["legend"],
    )


@dataclass(frozen=True)
class _TraceInfos:
    """Function for `trace_once` that describes the boxes of a diagram."""

    layers: Selection

    def __call__(self, model: Any, inputs: Any) -> list[LayerInfo]:
        return [info for info, _ in _list_tensors(model, inputs, self.layers)]


@dataclass(frozen=True)
class _ComputeFronts:
    """Function that returns the values on the front of each box of a diagram."""

    layers: Selection
    # Descriptions of the boxes, filled while the model is traced.
    infos: list[LayerInfo] = field(default_factory=list, compare=False)

    def __call__(self, model: Any, inputs: Any, sample: Any) -> list[Any]:
        tensors = _list_tensors(model, inputs, self.layers)
        self.infos[:] = [info for info, _ in tensors]
        return [_make_front(info, tensor, sample) for info, tensor in tensors]


def _list_tensors(model: Any, inputs: Any, selection: Selection) -> list[tuple[LayerInfo, Any]]:
    """Return the symbolic inputs and layer outputs that a diagram of the model shows.

    Parameters
    ----------
    selection
        The selected layers.

    Returns
    -------
    list of tuple
        (`LayerInfo`, symbolic tensor) of each input, then of each output.

    Raises
    ------
    LayerError
        If no output can be drawn.
    """
    network = get_network(model)
    if is_compiled(network):
        calls = trace_network(network, inputs).calls
        calls = (
            filter_visible_calls(calls)
            if selection.selects_all
            else choose_calls(model, calls, selection)
        )
    else:
        infos = describe_network_layers(network, inputs)
        infos = infos if selection.selects_all else selection.select(infos)
        paths = [info.path for info in infos if _has_box(info)]
        calls = trace_network(network, inputs, layers=paths).calls
    outputs = [(call.info, call.tensor) for call in calls if _has_box(call.info)]
    if not outputs:
        raise LayerError("no layer has an output that can be drawn")
    return [pair for pair in describe_inputs(model, inputs) if _has_box(pair[0])] + outputs


def _has_box(info: LayerInfo) -> bool:
    return len(info.shape) in _RANKS


def _make_front(info: LayerInfo, tensor: Any, sample: Any) -> tuple[Any, Any]:
    """Return the values to draw on the front of a layer's box in a diagram.

    Parameters
    ----------
    info
        Description of the layer output.
    tensor
        Symbolic layer output of a batch.
    sample
        Index of the sample to draw.

    Returns
    -------
    tuple of tensor
        The values, (h, w), and the shape of `tensor`. For an image input of 1, 3 or 4 channels, the
        values are (h, w, channels).
    """
    tf = tensorflow()
    shape = tf.shape(tensor)
    # Outputs that do not depend on the input have a single sample.
    values = tf.cast(tensor[tf.minimum(sample, shape[0] - 1)], tf.float32)
    if info.is_spatial:
        values = tf.experimental.numpy.moveaxis(values, info.channel_axis - 1, -1)
    if info.kind == "dense":
        return _pool_units(values), shape
    if info.kind == "sequence":
        return tf.transpose(values), shape
    if info.type == INPUT and info.kind == "image" and info.channels in (1, 3, 4):
        return values, shape
    axes = (0, -1) if info.kind == "volume" else (-1,)
    return tf.sqrt(tf.reduce_mean(tf.square(values), axes)), shape


def _to_picture(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8] | None:
    finite = image[np.isfinite(image)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
    pictures = to_pictures(np.nan_to_num(image[None], nan=low, posinf=high, neginf=low))
    return None if pictures is None else pictures[0]


def _pool_units(units: Any) -> Any:
    """Reduce the units of a dense layer to at most 64 rows by maxima of neighbours.

    Parameters
    ----------
    units
        (units,).

    Returns
    -------
    tensor
        (rows, 1).
    """
    tf = tensorflow()
    count = tf.shape(units)[0]
    row_count = tf.minimum(count, _MAX_ROWS)
    rows = tf.range(count) * row_count // count
    return tf.math.segment_max(units, rows)[:, None]


def _make_box(
    info: LayerInfo, shape: Sequence[int | None], face: npt.NDArray[np.uint8] | None = None
) -> Box:
    """Create the box of a layer output for a diagram.

    Parameters
    ----------
    info
        Description of the layer output.
    shape
        Shape of the output with its batch axis.
    face
        RGB picture on the front. None: a plain colour.

    Returns
    -------
    Box
        The box, with channels last.

    Raises
    ------
    ModelError
        If the shape is not fixed.
    """
    lengths = list(shape[1:])
    if info.is_spatial:
        lengths.append(lengths.pop(info.channel_axis - 1))
    fixed = tuple(int(length) for length in lengths if length is not None)
    if len(fixed) < len(lengths):
        raise ModelError(
            f"the size of {info.path}, {tuple(info.shape)}, is not fixed: pass an input, x"
        )
    return Box(info.path, info.type, fixed, face)
