"""`actgrid.diagram`: a model to a picture of its layers as boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.backdrops import as_pictures
from actgrid.errors import LayerError, ModelError
from actgrid.models.calls import choose_calls, visible_calls
from actgrid.models.frameworks import tensorflow
from actgrid.models.graph import INPUT, input_infos
from actgrid.models.image_sources import are_images
from actgrid.models.images import load_with_pixels
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.loading import load_model
from actgrid.models.network import check_compiled
from actgrid.models.networks import network_of
from actgrid.models.tracing import trace_inputs, trace_model
from actgrid.models.types import LayersLike, ModelInput, ModelLike
from actgrid.option_checks import sample_option
from actgrid.option_groups import takes_options
from actgrid.options import ModelDiagramOptions
from actgrid.rendering import render
from actgrid.rendering.diagram import Box, Diagram, draw_diagram

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["diagram"]

_RANKS = (2, 3, 4, 5)  # of what there are boxes for, with the batch axis
_UNITS = 64  # that are told apart on the bar of a dense layer


@takes_options(ModelDiagramOptions, normalize="minmax")
def diagram(
    model: ModelLike,
    x: ModelInput | None = None,
    layers: LayersLike = None,
    **options: Unpack[ModelDiagramOptions],
) -> Diagram:
    """Draw a model's layers as boxes, each as large as what the layer gives.

    They stand in the order in which they run, after the model's inputs. Height and width are those
    of a layer's images, depth is its channels; a dense layer is a bar, a sequence a sheet of steps
    by channels. All lengths are as the square roots of these numbers, so that both 7 and 224 can
    be seen. Colours are by type.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    x
        The model's input with its batch axis, already preprocessed; or image files or Pillow
        images, which `actgrid.load_images` then prepares for this model. Each box then shows on
        its front what the layer gives for it: of images the root mean square over the channels,
        of a dense layer its units, of a sequence its steps and channels, and of the input
        itself what it is. None: boxes in the colour of their type.
    layers
        Which layers, see `actgrid.Extractor`; None: all but the insides of Keras's own layers.
    **options
        See `actgrid.options.ModelDiagramOptions`.

    Returns
    -------
    Diagram
        A picture: ``save``, ``to_image``, ``to_rgb``, and shown by notebooks; `boxes` is what it
        was drawn from.

    Raises
    ------
    ModelError
        If the model cannot be loaded or run, or its sizes are not fixed and `x` is not given.
        Also a ValueError.
    LayerError
        If no layer matches an item of `layers`, or none has an output that can be drawn. Also a
        KeyError.
    ShapeError, OptionError
        If `x` does not fit the model, or an option cannot be used. Both are ValueErrors.

    References
    ----------
    After the layered view of visualkeras (https://github.com/paulgavrikov/visualkeras).

    Examples
    --------
    >>> actgrid.diagram("keras:VGG16").save("vgg16.png")
    >>> actgrid.diagram("demo", actgrid.demo.photo(), "*_relu").save("cat.png")
    """
    network: Any = load_model(model)
    check_compiled(network_of(network), "diagram")
    pixels = None
    if are_images(x):
        pixels, x = load_with_pixels(x, model=network)
    inputs = trace_inputs(network, x)
    selection = Selection(layers)
    infos: list[LayerInfo] = []

    def trace(inputs: Any, sample: Any) -> list[Any]:
        given = [(info, one) for info, one in input_infos(network, inputs) if _has_box(info)]
        shown = [*given, *_layers(network, inputs, selection)]
        infos[:] = [info for info, _ in shown]
        return [_seen(info, tensor, sample) for info, tensor in shown]

    tf = tensorflow()
    function = tf.function(trace, autograph=False).get_concrete_function(
        inputs, tf.TensorSpec((), "int32")
    )
    if x is None:
        boxes = [_box(info, info.shape) for info in infos]
    else:
        given = [one for one in tf.nest.flatten(inputs) if one is not None]
        sample = sample_option(options["sample"], max(map(len, given)))
        boxes = []
        for info, (seen, shape) in zip(infos, function(inputs, tf.constant(sample)), strict=True):
            front = np.asarray(seen)
            if front.ndim == 3:
                face = _photo(front if pixels is None else pixels[sample])
            else:
                face = render(
                    front[..., None],
                    kind="image",
                    normalize=options["normalize"],
                    cmap=options["cmap"],
                ).to_rgb()
            boxes.append(_box(info, shape.numpy(), face))
    return draw_diagram(
        boxes,
        side=options["side"],
        width=options["width"],
        names=options["names"],
        legend=options["legend"],
    )


def _layers(model: Any, inputs: Any, selection: Selection) -> list[tuple[LayerInfo, Any]]:
    """Return what the chosen layers give.

    Raises
    ------
    LayerError
        If there is nothing to be drawn.
    """
    calls = trace_model(model, inputs).calls
    calls = visible_calls(calls) if selection.everything else choose_calls(model, calls, selection)
    drawn = [(call.info, call.tensor) for call in calls if _has_box(call.info)]
    if not drawn:
        raise LayerError("no layer has an output that can be drawn")
    return drawn


def _has_box(info: LayerInfo) -> bool:
    return len(info.shape) in _RANKS


def _seen(info: LayerInfo, tensor: Any, sample: Any) -> tuple[Any, Any]:
    """Return what is seen of one sample from the front, and the shape of all.

    That is (h, w) values; of an input that is an image of one to four channels, the image.
    """
    tf = tensorflow()
    shape = tf.shape(tensor)
    # What is the same for all samples is there once.
    one = tf.cast(tensor[tf.minimum(sample, shape[0] - 1)], tf.float32)
    if info.data_format == "channels_first" and info.spatial:
        one = tf.experimental.numpy.moveaxis(one, 0, -1)
    if info.kind == "dense":
        return _bar(one), shape
    if info.kind == "sequence":
        return tf.transpose(one), shape
    if info.type == INPUT and info.kind == "image" and info.channels in (1, 3, 4):
        return one, shape
    axes = (-1,) if info.kind == "image" else (0, -1)
    return tf.sqrt(tf.reduce_mean(tf.square(one), axes)), shape


def _photo(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8] | None:
    finite = image[np.isfinite(image)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
    pictures = as_pictures(np.nan_to_num(image[None], nan=low, posinf=high, neginf=low))
    return None if pictures is None else pictures[0]


def _bar(units: Any) -> Any:
    """Return the largest of neighbouring units, (h, 1), so that a single one can be seen."""
    tf = tensorflow()
    count = tf.shape(units)[0]
    parts = tf.minimum(count, _UNITS)
    part = tf.range(count) * parts // count
    return tf.math.segment_max(units, part)[:, None]


def _box(
    info: LayerInfo, shape: Sequence[int | None], face: npt.NDArray[np.uint8] | None = None
) -> Box:
    """Return the box of an output of this shape, batch and all.

    Raises
    ------
    ModelError
        If the shape is not fixed.
    """
    lengths = list(shape[1:])
    if info.data_format == "channels_first":
        lengths.append(lengths.pop(0))
    fixed = tuple(int(length) for length in lengths if length is not None)
    if len(fixed) < len(lengths):
        raise ModelError(
            f"the size of {info.path}, {tuple(info.shape)}, is not fixed: give an input, x"
        )
    return Box(info.path, info.type, fixed, face)
