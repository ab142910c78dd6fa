"""The functions of keract, for scripts that were written for it.

>>> from actgrid.compat import keract
>>> activations = keract.get_activations(model, images)
>>> keract.display_activations(activations, save=True)

Results have keract's keys, order and shapes. What differs: models need not be compiled for their
activations, layers of every kind of model are found, and pictures are drawn by `actgrid.render`,
without the title and the colour bar that matplotlib gave them.

Keras 3 does not run without eager execution, which keract told its users to turn off:
``tf.compat.v1.disable_eager_execution()`` does nothing but warn once this module is imported.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.attribution.backdrops import as_pictures
from actgrid.attribution.compiled import compiled
from actgrid.attribution.loss_gradients import gradients
from actgrid.encoding import writable_folder, write_file
from actgrid.errors import (
    FormatError,
    LayerError,
    MissingFileError,
    ModelError,
    OptionError,
    ShapeError,
    suggest,
)
from actgrid.models import load_model
from actgrid.models.calls import choose_calls
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import (
    input_names,
    map_tensors,
    partial_model,
    prepare_inputs,
)
from actgrid.models.layers import Node, Selection, model_layers, model_weights
from actgrid.models.refusals import reason
from actgrid.models.tracing import build, trace_model
from actgrid.options import DATA_FORMATS
from actgrid.rendering import Grid, Heatmap, Picture, render

__all__ = [
    "display_activations",
    "display_gradients_of_trainable_weights",
    "display_heatmaps",
    "get_activations",
    "get_gradients_of_activations",
    "get_gradients_of_trainable_weights",
    "load_activations_from_json_file",
    "persist_to_json_file",
]

Array = npt.NDArray[Any]
Activations = dict[Any, Any]

OUTPUT_FORMATS = ("simple", "full", "numbered")

_PIXELS_IN_INCH = 100  # of matplotlib's figures
_HEATMAPS_INCHES = (12, 12)


def _stay_eager() -> None:
    """Keep eager execution on, whatever a script does."""
    tf = tensorflow()

    def disable_eager_execution() -> None:
        warnings.warn(
            "Keras 3 needs eager execution, so it stays on; nothing here needs it off",
            stacklevel=2,
        )

    # By its own name: that puts another module in the place of the attribute ``tf.compat.v1``, as
    # Keras's TensorBoard callback would later.
    v1: Any = importlib.import_module("tensorflow.compat.v1")
    if not tf.executing_eagerly():
        try:
            v1.enable_eager_execution()
        except ValueError as error:
            raise ModelError(
                "Keras 3 needs eager execution, which this program has turned off and done without "
                "already: take tf.compat.v1.disable_eager_execution() out of it"
            ) from error
    v1.disable_eager_execution = disable_eager_execution


_stay_eager()

# A module in a package of that name: `from keract import keract`, `from keract.keract import ...`.
keract = sys.modules[f"{__name__}.keract"] = sys.modules[__name__]


def get_activations(
    model: Any,
    x: Any,
    layer_names: str | Iterable[str] | None = None,
    nodes_to_evaluate: Any = None,
    output_format: str = "simple",
    nested: bool = False,
    auto_compile: bool = True,
    *,
    layer_name: str | Iterable[str] | None = None,
) -> Activations:
    """Return the activations of layers for an input.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    x
        The model's input with its batch axis; a list of them for several inputs.
    layer_names
        A layer's name or several; None: all layers. Layers in nested models are named
        ``outer/inner``, and inputs by the names of their layers.
    nodes_to_evaluate
        Instead of layers: symbolic tensors such as ``model.layers[2].output``, and weights.
    output_format
        What the keys are: ``"simple"``, layers' names; ``"full"``, these with the TensorFlow
        operation that gives the output, such as ``"conv2d/Relu:0"``; ``"numbered"``, 0, 1, ...
    nested
        Whether the layers inside nested models are given instead of these models.
    auto_compile
        Without effect: no model needs to be compiled.
    layer_name
        What keract before version 4 called `layer_names`.

    Returns
    -------
    dict
        Key -> array: the inputs as they were given, then the layers in the order of
        ``model.layers``. A layer with several outputs has a list of arrays.

    Raises
    ------
    LayerError
        If there is no such layer, or a node is none of this model. Also a KeyError.
    OptionError
        If `nodes_to_evaluate` is empty or given with `layer_names`, or `output_format` is none of
        the three. Also a ValueError.
    ShapeError, ModelError
        If the model cannot be run on `x`. Both are ValueErrors.

    Notes
    -----
    Symbolic tensors of Keras 3 have no names by TensorFlow's operations, so keys of ``"full"`` are
    made of the layer's path and the type of the operation that runs today: it may be
    ``"fc1/AddV2:0"`` where there was ``"fc1/BiasAdd:0"``, and a nested model has its own path. A
    node's key is the name of its layer and the number of the output: ``"block1_conv1:0"``. The
    second call of a layer is ``name:1``.

    Examples
    --------
    >>> activations = get_activations(model, images, layer_names=["conv", "pool"])
    >>> [(name, array.shape) for name, array in activations.items()]
    [('conv', (1, 26, 26, 32)), ('pool', (1, 13, 13, 32))]
    """
    network: Any = load_model(model)
    if nodes_to_evaluate is not None:
        if layer_names is not None or layer_name is not None:
            raise OptionError("give layer_names or nodes_to_evaluate, not both")
        k = keras()
        alone = isinstance(nodes_to_evaluate, (k.KerasTensor, k.Variable))
        nodes = [nodes_to_evaluate] if alone else list(nodes_to_evaluate)
        return _evaluated(network, x, nodes)
    wanted = _Wanted.of(network, x, layer_names if layer_name is None else layer_name, nested)
    # Copies: what a script gets from keract it may write to.
    found = {
        path: np.array(tensor) for path, tensor in _run(network, x, wanted.layers, _itself).items()
    }
    return wanted.keyed(network, x, found, output_format)


def get_gradients_of_activations(
    model: Any,
    x: Any,
    y: Any,
    layer_names: str | Iterable[str] | None = None,
    output_format: str = "simple",
    nested: bool = False,
    *,
    layer_name: str | Iterable[str] | None = None,
) -> Activations:
    """Return the gradients of the loss with respect to the activations of layers.

    Parameters
    ----------
    model
        A model that was compiled with a loss.
    x, y
        Inputs and what the outputs should be, as for ``model.fit``.
    layer_names, output_format, nested, layer_name
        As for `get_activations`.

    Returns
    -------
    dict
        Like that of `get_activations` without the inputs. What is not of floating point has no
        gradient and is left out; what the loss does not depend on has zeros.

    Raises
    ------
    LayerError, OptionError, ShapeError, ModelError
        As for `get_activations`; OptionError also if the model was not compiled with a loss.
    """
    network: Any = load_model(model)
    wanted = _Wanted.of(network, x, layer_names if layer_name is None else layer_name, nested)
    if not wanted.nodes:
        raise LayerError("gradients are those of layers, and only inputs are named")
    found = gradients(network, x, y, loss=_TotalLoss.of(network), layers=wanted.layers)
    return replace(wanted, inputs={}).keyed(network, x, found.activations, output_format)


def get_gradients_of_trainable_weights(model: Any, x: Any, y: Any) -> dict[str, Array]:
    """Return the gradients of the loss with respect to the trainable weights.

    Parameters
    ----------
    model
        A model that was compiled with a loss.
    x, y
        Inputs and what the outputs should be, as for ``model.fit``.

    Returns
    -------
    dict
        Name of the weight, such as ``"conv2d/kernel:0"``, -> gradient, of the weight's shape.

    Raises
    ------
    OptionError
        If the model was not compiled with a loss. Also a ValueError.
    ShapeError, ModelError
        If the model cannot be run on `x`, or `y` does not fit. Both are ValueErrors.
    """
    network: Any = load_model(model)
    found = gradients(network, x, y, loss=_TotalLoss.of(network), layers=_any_layer)
    return {f"{path}:0": gradient for path, gradient in found.weights.items()}


def _itself(tensor: Any) -> Any:
    return tensor


def _operation(tensor: Any) -> Any:
    """Return which output of what kind of operation a symbolic tensor is."""
    return tensorflow().constant(f"{tensor.op.type}:{tensor.value_index}")


def _any_layer(layer: Any) -> bool:
    return True


@dataclass(frozen=True)
class _AnyOf:
    """Tells whether a layer is one of these. Equal ones share compiled functions."""

    layers: tuple[Any, ...]

    def __call__(self, layer: Any) -> bool:
        return any(layer is one for one in self.layers)


@dataclass(frozen=True)
class _Activations:
    """What a transform makes of the activations of layers, by layer path."""

    layers: _AnyOf
    transform: Callable[[Any], Any]

    def __call__(self, model: Any, inputs: Any) -> dict[str, Any]:
        calls = choose_calls(model, trace_model(model, inputs).calls, Selection(self.layers))
        return {call.info.path: self.transform(call.tensor) for call in calls}


def _taken(model: Any, x: Any) -> Any:
    """Return what a model takes as tensors; its layers and the names of its inputs are known then.

    Raises
    ------
    ShapeError, ModelError
        If the model does not take it.
    """
    inputs = prepare_inputs(model, x)
    build(model, inputs)
    return inputs


def _run(model: Any, x: Any, layers: _AnyOf, transform: Callable[[Any], Any]) -> dict[str, Any]:
    """Run a model, by a function that is kept: scripts ask for one image after the other."""
    inputs = _taken(model, x)
    if not layers.layers:
        return {}
    found: dict[str, Any] = compiled(model, _Activations(layers, transform))(inputs)
    return found


@dataclass(frozen=True)
class _TotalLoss:
    """The loss that a model was compiled with: of all its outputs, with regularization.

    Attributes
    ----------
    compiled
        Keras's own loss: another one once the model is compiled anew.
    """

    model: Any
    compiled: Any

    @classmethod
    def of(cls, model: Any) -> _TotalLoss:
        """Return that of a model.

        Raises
        ------
        OptionError
            If it has none.
        """
        if getattr(model, "loss", None) is None:
            raise OptionError(
                "gradients are those of the loss: compile the model first, as by "
                "model.compile(loss='mse', optimizer='adam')"
            )
        return cls(model, getattr(model, "_compile_loss", None))

    def __call__(self, truth: Any, outputs: Any) -> Any:
        """Return the loss as a symbolic scalar."""
        try:
            return self.model.compute_loss(y=truth, y_pred=outputs)
        except (ValueError, TypeError, KeyError) as error:
            shapes = map_tensors(lambda tensor: tuple(tensor.shape), truth)
            raise ShapeError(
                f"y of {shapes} does not fit the model's loss: {reason(error)}"
            ) from error


def _by_input(model: Any, x: Any) -> dict[str, Any]:
    """Return what is given for a model's inputs by the names of these."""
    if isinstance(x, Mapping):
        return dict(x)
    values = list(x) if isinstance(x, (list, tuple)) else [x]
    return dict(zip(input_names(model), values, strict=False))


@dataclass(frozen=True)
class _Wanted:
    """Which inputs, by name, and which layers, in the order of the model's."""

    inputs: dict[str, Any]
    nodes: list[Node]

    @classmethod
    def of(cls, model: Any, x: Any, names: str | Iterable[str] | None, nested: bool) -> _Wanted:
        """Return those that are named, or all.

        Raises
        ------
        LayerError
            If something is named that there is not.
        ShapeError, ModelError
            If the model does not take `x`.
        """
        _taken(model, x)
        inputs = _by_input(model, x)
        nodes = [node for node in model_layers(model) if not node.internal and not node.looped]
        if names is not None:
            several = isinstance(names, Iterable) and not isinstance(names, str)
            listed = list(names) if several else [names]
            known = [*inputs, *(node.path for node in nodes)]
            for name in listed:
                if name not in known:
                    raise LayerError(
                        f"no layer is called {name!r}{suggest(str(name), known)}; "
                        f"there are {', '.join(known)}"
                    )
            chosen = {name: value for name, value in inputs.items() if name in listed}
            return cls(chosen, [node for node in nodes if node.path in listed])
        if nested:
            outer = {path for node in nodes for path in _around(node.path)}
            return cls(inputs, [node for node in nodes if node.path not in outer])
        return cls(inputs, [node for node in nodes if "/" not in node.path])

    @property
    def layers(self) -> _AnyOf:
        """The layers themselves."""
        return _AnyOf(tuple(node.layer for node in self.nodes))

    def keyed(
        self,
        model: Any,
        x: Any,
        of_layers: Mapping[str, Array],
        output_format: str,
    ) -> Activations:
        """Return the inputs, and what was found of layers by layer path, in keract's dict.

        Raises
        ------
        OptionError
            If there is no such format.
        """
        if output_format not in OUTPUT_FORMATS:
            raise OptionError(
                f"output_format must be one of {', '.join(OUTPUT_FORMATS)}, not {output_format!r}"
            )
        full = output_format == "full"
        operations: dict[str, Any] = {}
        if full and of_layers:
            # Nothing is computed for these: they are known once the model is traced.
            operations = _run(model, x, self.layers, _operation)
        results: Activations = {
            f"{name}:0" if full else name: value for name, value in self.inputs.items()
        }
        order = {node.path: place for place, node in enumerate(self.nodes)}
        calls: dict[str, list[str]] = {}
        for path in sorted(of_layers, key=lambda path: order[_layer_of(path)]):
            calls.setdefault(_call_of(path), []).append(path)
        for call, paths in calls.items():
            key = call
            if full:
                key = "_".join(f"{call}/{operations[path].numpy().decode()}" for path in paths)
            arrays = [of_layers[path] for path in paths]
            results[key] = arrays[0] if len(arrays) == 1 else arrays
        return dict(enumerate(results.values())) if output_format == "numbered" else results


def _around(path: str) -> list[str]:
    """Return the paths of the layers that a layer is inside of."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _call_of(path: str) -> str:
    """Return a path without the number or key of a further output."""
    return re.sub(r"\[.*\]$", "", path)


def _layer_of(path: str) -> str:
    """Return a path without the number of a further call."""
    return re.sub(r":\d+$", "", _call_of(path))


def _evaluated(model: Any, x: Any, nodes: list[Any]) -> Activations:
    """Return the values of symbolic tensors, or lists of them, and of weights, by name."""
    k = keras()
    if not nodes:
        raise OptionError("nodes_to_evaluate is empty: give at least one, or leave it out")
    weights = {id(weight.variable): weight.path for weight in model_weights(model)}
    tensors = {str(place): node for place, node in enumerate(nodes) if id(node) not in weights}
    for node in tensors.values():
        parts = node if isinstance(node, (list, tuple)) else [node]
        if not all(isinstance(part, k.KerasTensor) for part in parts):
            raise LayerError(f"{node!r} is neither a symbolic tensor nor a weight of this model")
    values: dict[str, Any] = {}
    if tensors:
        inputs = _taken(model, x)
        try:
            outputs = partial_model(model, tensors)(inputs, training=False)
        except (ValueError, KeyError) as error:  # the latter in older versions of Keras
            raise LayerError(
                f"the nodes cannot be had from the model's inputs alone: {reason(error)}; layers "
                "in nested models are had by layer_names"
            ) from error
        values = map_tensors(np.array, outputs)
    results: Activations = {}
    for place, node in enumerate(nodes):
        if id(node) in weights:
            results[f"{weights[id(node)]}:0"] = node.numpy()
        else:
            value = values[str(place)]
            results[_node_name(node)] = list(value) if isinstance(value, tuple) else value
    return results


def _node_name(node: Any) -> str:
    if isinstance(node, (list, tuple)):
        return "_".join(map(_node_name, node))
    history = node._keras_history
    return f"{history.operation.name}:{history.tensor_index}"


def display_activations(
    activations: Mapping[Any, Any],
    cmap: str | None = None,
    save: bool = False,
    directory: str | Path = ".",
    data_format: str = "channels_last",
    fig_size: tuple[float, float] = (24, 24),
    reshape_1d_layers: bool = False,
) -> None:
    """Show or save a picture of each layer, with a tile for each channel, and print its shape.

    Parameters
    ----------
    activations
        What `get_activations` returned, for one sample; arrays of more are left out.
    cmap
        Name of a colormap; None: ``"viridis"``.
    save
        Whether to save ``0_name.png``, ``1_name.png``, ... instead of showing the pictures.
    directory
        The folder to save in; made if need be.
    data_format
        ``"channels_last"`` or ``"channels_first"``.
    fig_size
        Width and height in inches, of 100 pixels each: small tiles are enlarged as far as that.
        Pictures that are larger by themselves stay so, with a pixel for each value.
    reshape_1d_layers
        Whether values without a place, (1, C), fill a rectangle instead of a line.

    Raises
    ------
    OptionError, ShapeError, DtypeError
        If an option or an array cannot be used. Also ValueErrors, or a TypeError.
    OutputError
        If a file cannot be written. Also an OSError.

    Examples
    --------
    >>> display_activations(get_activations(model, image), save=True, directory="pictures")
    conv (1, 26, 26, 32)
    pool (1, 13, 13, 32)
    """
    if data_format not in DATA_FORMATS:
        raise OptionError(f"data_format must be one of {DATA_FORMATS}, not {data_format!r}")
    display = _Display(directory if save else None, fig_size)
    for name, array in _single(activations):
        tiles = np.atleast_1d(array[0])
        if data_format == "channels_first":
            tiles = np.moveaxis(tiles, 0, -1)
        if tiles.ndim == 1:
            tiles = _as_line(tiles, reshape_1d_layers)
        elif tiles.ndim == 2:
            tiles = tiles[None]  # a line for each channel
        channels = tiles.shape[-1]
        # Of volumes each channel is a row by itself.
        columns = _columns(channels) if tiles.ndim == 3 else None
        display.grid(
            name,
            tiles,
            normalize="minmax",
            columns=columns,
            cmap="viridis" if cmap is None else cmap,
        )


def display_heatmaps(
    activations: Mapping[Any, Any],
    input_image: Any,
    directory: str | Path = ".",
    save: bool = False,
    fix: bool = True,
) -> None:
    """Show or save each layer's channels as heatmaps over an image, and print its shape.

    Parameters
    ----------
    activations
        What `get_activations` returned, for one sample; arrays of more, and those without a
        place, (1, C), are left out.
    input_image
        The image, (H, W, 3) or (H, W), 0 to 255; values of 0 to 1, and preprocessed ones, are
        brought to that range.
    directory, save
        As for `display_activations`.
    fix
        Whether a batch axis, and the channel axis of a gray image, are taken off first.

    Raises
    ------
    ShapeError
        If `input_image` is no image, or a layer has more axes than one. Also a ValueError.
    OutputError
        If a file cannot be written. Also an OSError.

    Examples
    --------
    >>> display_heatmaps(get_activations(model, image, "block1_conv1"), photo, save=True)
    block1_conv1 (1, 224, 224, 64)
    """
    photo = _photo(input_image, fix)
    first = keras().config.image_data_format() == "channels_first"
    display = _Display(directory if save else None, _HEATMAPS_INCHES)
    for name, array in _single(activations, least=3):
        if array.ndim > 4:
            raise ShapeError(f"layer {name}: maps over an image have 3 or 4 axes, not {array.ndim}")
        maps = array[0] if first else np.moveaxis(array[0], -1, 0)
        maps = maps.reshape(*maps.shape[:2], -1)
        columns = _columns(len(maps))
        heatmap = Heatmap(maps, images=display.fitted(photo, columns), signed=False)
        display.put(name, heatmap.overlay(alpha=0.3, cmap="jet", clip=100, columns=columns))


def display_gradients_of_trainable_weights(
    gradients: Mapping[Any, Any], directory: str | Path = ".", save: bool = False
) -> None:
    """Show or save the gradients of each convolution's kernel, and print its shape.

    Parameters
    ----------
    gradients
        What `get_gradients_of_trainable_weights` returned; arrays that are not
        (height, width, channels in, channels out) are left out.
    directory, save
        As for `display_activations`.

    Raises
    ------
    OutputError
        If a file cannot be written. Also an OSError.
    """
    display = _Display(directory if save else None, _HEATMAPS_INCHES)
    for name, gradient in gradients.items():
        array = np.asarray(gradient)
        if array.ndim != 4:
            print(name, array.shape, "-> left out: not (height, width, channels in, channels out)")
            continue
        print(name, array.shape)
        display.grid(name, array, normalize="minmax", kind="kernel")


def persist_to_json_file(activations: Mapping[Any, Any], filename: str | Path) -> None:
    """Write activations to a JSON file: name -> nested lists.

    Outputs of a layer that has several are written as ``name``, ``name[1]``, ...

    Raises
    ------
    OutputError
        If it cannot be written. Also an OSError.
    """
    lists = {str(name): array.tolist() for name, array in _arrays(activations)}
    write_file(filename, json.dumps(lists, indent=2).encode())


def load_activations_from_json_file(filename: str | Path) -> dict[str, Array]:
    """Return the activations of a file that `persist_to_json_file`, or keract, has written.

    Raises
    ------
    MissingFileError
        If there is no such file. Also a FileNotFoundError.
    FormatError
        If it is no JSON of arrays by name. Also a ValueError.
    """
    try:
        loaded = json.loads(Path(filename).read_bytes())
        return {name: np.array(lists) for name, lists in loaded.items()}
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {filename}") from None
    except (ValueError, AttributeError) as error:
        raise FormatError(f"{filename} has no activations in JSON: {error}") from error


def _arrays(activations: Mapping[Any, Any]) -> Iterator[tuple[Any, Array]]:
    """Yield name and array of each output."""
    for name, found in activations.items():
        outputs = found if isinstance(found, (list, tuple)) else [found]
        for number, output in enumerate(outputs):
            yield (f"{name}[{number}]" if number else name), np.asarray(output)


def _single(activations: Mapping[Any, Any], least: int = 1) -> Iterator[tuple[Any, Array]]:
    """Yield those of one sample and so many axes; print the shape of each."""
    for name, array in _arrays(activations):
        if array.ndim < 1 or len(array) != 1:
            print(name, array.shape, "-> left out: not of one sample")
        elif array.ndim < least:
            print(name, array.shape, "-> left out: values without a place")
        else:
            print(name, array.shape)
            yield name, array


def _columns(count: int) -> int:
    """Return how many pictures a row has where there are about as many rows."""
    return -(-count // (math.isqrt(max(count - 1, 0)) + 1))


def _as_line(values: Array, fold: bool) -> Array:
    """Return values as one tile: a line that can be seen, or the rectangle nearest to square."""
    count = len(values)
    if not fold:
        return np.broadcast_to(values, (-(-count // 64), count))[..., None]
    width = next(side for side in range(math.isqrt(count), 0, -1) if count % side == 0)
    return values.reshape(-1, width, 1)


def _photo(image: Any, fix: bool) -> npt.NDArray[np.uint8]:
    """Return an image as pixels, (height, width, 3)."""
    pixels = np.asarray(image)
    if fix and pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim == 2 or (fix and pixels.ndim == 3 and pixels.shape[2] == 1):
        pixels = pixels.reshape(*pixels.shape[:2], 1)
    pictures = as_pictures(pixels[None].astype(np.float32)) if pixels.ndim == 3 else None
    if pictures is None:
        raise ShapeError(f"input_image must be (H, W, 3) or (H, W), not {np.shape(image)}")
    return np.array(np.broadcast_to(pictures[0], (*pixels.shape[:2], 3)))


class _Display:
    """Shows pictures, or saves them one after the other.

    Parameters
    ----------
    folder
        Where to save; None: they are shown.
    inches
        Width and height that they may have.
    """

    def __init__(self, folder: str | Path | None, inches: tuple[float, float]) -> None:
        self.folder = None if folder is None else writable_folder(folder)
        self.inches = inches
        self.width, self.height = (max(1, int(side * _PIXELS_IN_INCH)) for side in inches)
        self.count = 0

    def grid(self, name: Any, tiles: Array, **options: Any) -> None:
        """Draw tiles as large as there is room, and put the picture."""
        drawn = render(tiles, **options)
        height, width = drawn.levels.shape
        zoom = min(self.width // width, self.height // height)
        self.put(name, drawn if zoom < 2 else render(tiles, **options, zoom=zoom))

    def fitted(self, photo: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
        """Return an image as large, or as small, as so many in a row have room."""
        height, width = photo.shape[:2]
        if zoom := self.width // (columns * width):
            return photo.repeat(zoom, 0).repeat(zoom, 1)
        wide = max(1, min(width, 2 * self.width // columns))
        size = wide, max(1, height * wide // width)
        return np.asarray(Image.fromarray(photo).resize(size))

    def put(self, name: Any, picture: Grid | Picture) -> None:
        """Show a picture, or save it by the layer's name."""
        if self.folder is None:
            _show(picture, str(name), self.inches)
        else:
            picture.save(self.folder / f"{self.count}_{str(name).split('/')[0]}.png")
        self.count += 1


def _show(picture: Grid | Picture, title: str, inches: tuple[float, float]) -> None:
    """Show a picture in the notebook, in matplotlib's window, or in the system's viewer."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if ipython and hasattr(shell, "kernel"):
        ipython.display.display(picture)
        return
    try:
        from matplotlib import pyplot
    except ImportError:
        picture.to_image().show(title)
        return
    figure, axes = pyplot.subplots(figsize=inches)
    axes.imshow(picture.to_rgb())
    axes.axis("off")
    figure.suptitle(title)
    pyplot.show()
    pyplot.close(figure)
