"""Extract the activations of any layers of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from actgrid.errors import OptionError
from actgrid.models.inputs import prepare_inputs
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.listed_layers import ListedLayers
from actgrid.models.loading import load_model
from actgrid.models.model_cache import cache_with_model
from actgrid.models.network import LayerFunction, Network, is_compiled
from actgrid.models.networks import get_network, list_network_layers
from actgrid.models.types import LayersLike, ModelInput, ModelLike

__all__ = [
    "Extractor",
    "get_extractor",
    "is_traceable",
    "list_layers",
    "run_transform",
    "trace_layers",
]


class Extractor:
    """Callable that runs a model and returns the activations of selected layers.

    A Keras model runs in one compiled `tf.function`, in which the outputs of the layers are
    captured during tracing. TensorFlow skips every operation that the selected layers do not need.
    The model
    may be of any kind: Sequential, Functional, nested or subclassed. As with ``model.predict``,
    only the state of stateful layers changes. Calls from several threads are allowed.

    Parameters
    ----------
    model : keras.Model, Network, str or pathlib.Path
        A Keras model, or any other model that `load_model` accepts.
    layers : str, int, keras.Layer, type, callable or list of these, optional
        Layers to extract: a layer path (``"block1_conv1"``, ``"outer/inner"``), a glob
        (``"*conv*"``), a layer, a layer class, an index into ``model.layers``, a predicate on
        layers, or a list of these. None selects every layer with a spatial output. A path selects
        all calls
        of a layer: ``"conv:0"`` selects the first call only, ``"conv:1"`` the second. Operations of
        functional models (``keras.ops.relu(x)``, ``x * 2 + 1``) are selected like layers, by the
        names that Keras gives them (``model.operations``), but not by an index or a predicate.
    training : bool, default False
        Whether to run the model in training mode (dropout, batch statistics). Variables that
        training updates, such as moving averages, do not change.

    Attributes
    ----------
    model : keras.Model or Network
        The loaded model.

    Raises
    ------
    LayerError
        If an item of `layers` matches no layer; the message lists close names. Also a KeyError.
    OptionError, ModelError
        If `layers` or `model` is invalid. Both are ValueErrors.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> extractor = actgrid.Extractor(model, "conv*")
    >>> activations = extractor(np.zeros((2, 8, 8, 3)))
    >>> activations["conv"].shape
    (2, 6, 6, 4)
    """

    def __init__(
        self, model: ModelLike, layers: LayersLike = None, *, training: bool = False
    ) -> None:
        self.model: Any = load_model(model)
        self._function = _make_layer_function(get_network(self.model), Selection(layers), training)

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """Layer path -> `LayerInfo` of each extracted layer; empty until the first call."""
        return self._function.layers

    @property
    def trace_count(self) -> int:
        """Number of times that the model of the extractor has been traced.

        Inputs of one shape need one trace; inputs of many shapes need a few.
        """
        return self._function.trace_count

    def __call__(self, x: ModelInput) -> dict[str, npt.NDArray[Any]]:
        """Return the activations for a batch of inputs.

        Parameters
        ----------
        x : array_like, list or dict
            The model's input with its batch axis; a list or dict of arrays for several inputs.

        Returns
        -------
        dict of {str: numpy.ndarray}
            Layer path -> activation, in the order in which the layers run. The arrays are
            read-only; on the CPU they share TensorFlow's memory.

        Raises
        ------
        ShapeError
            If the shape of `x` does not fit the model's input. Also a ValueError.
        LayerError
            If the model does not call a selected layer.
        ModelError
            If the model cannot be run on `x`, for example because a layer needs a larger image. The
            subclass DeviceError if this device cannot run the model at all, for example
            channels-first convolutions on a CPU. Both are ValueErrors.
        """
        return self._function(x)


def get_extractor(model: ModelLike | Extractor, layers: LayersLike = None) -> Extractor:
    """Return an extractor that is cached with its model, for functions that take a model.

    Parameters
    ----------
    model
        A model, or an extractor, which is returned unchanged.
    layers
        As for `Extractor`.

    Returns
    -------
    Extractor
        The extractor. It is made anew if the model has changed.

    Raises
    ------
    LayerError, OptionError, ModelError
        As for `Extractor`.
    """
    if isinstance(model, Extractor):
        if layers is not None:
            raise OptionError("layers must be None for an extractor, which has its own layers")
        return model
    loaded = load_model(model)
    if not is_compiled(get_network(loaded)):
        return Extractor(loaded, layers)
    selection = Selection(layers).resolve_predicates(loaded)
    return cache_with_model(
        loaded, (Extractor, selection), lambda: Extractor(loaded, selection.layers)
    )


def _make_layer_function(network: Network, selection: Selection, training: bool) -> LayerFunction:
    if is_compiled(network):
        return network.compile_layers(selection, training)
    return ListedLayers(network, selection, training)


def is_traceable(extractor: Extractor) -> bool:
    """Return whether an extractor runs its model in a compiled TensorFlow function.

    False: the model is a network outside TensorFlow.
    """
    return not isinstance(extractor._function, ListedLayers)


def trace_layers(
    extractor: Extractor, specs: Any, transform: Callable[..., Any] | None = None
) -> dict[str, LayerInfo]:
    """Describe the layers that an extractor will extract, without running its model.

    Parameters
    ----------
    specs
        The model's input as TensorSpecs; the batch axis may be None. Later calls with inputs that
        fit these specs need no further trace.
    transform
        The transform of later calls of `run_transform`; None for calls of the extractor itself.

    Returns
    -------
    dict of {str: LayerInfo}
        Layer path -> description of the output.

    Raises
    ------
    ShapeError, LayerError, ModelError
        As for a call of the extractor.
    """
    return extractor._function.trace(specs, transform)


def run_transform(
    extractor: Extractor, x: ModelInput, transform: Callable[..., Any], *arguments: Any
) -> dict[str, Any]:
    """Apply a transform to each activation inside an extractor's compiled function.

    Only the results of the transform leave the device. Equal transforms share one compiled
    function, which is cached.

    Parameters
    ----------
    extractor
        An extractor of a compiled model; see `is_traceable`.
    x
        The model's input, as for a call of the extractor.
    transform
        Hashable function of a `LayerInfo`, the activation as a symbolic tensor, and `arguments`. It
        returns a structure of tensors.
    *arguments
        Tensors passed to `transform`. Their values may differ from call to call.

    Returns
    -------
    dict of {str: structure of tf.Tensor}
        Layer path -> result of the transform.

    Raises
    ------
    ShapeError, LayerError, ModelError
        As for a call of the extractor.
    CapabilityError
        If the model is not compiled.
    """
    return extractor._function.run(x, transform, *arguments)


def list_layers(model: ModelLike, x: ModelInput | None = None) -> list[LayerInfo]:
    """List every layer output of a model, in the order in which the layers run.

    Operations of functional models (``keras.ops.relu(x)``, ``x * 2 + 1``) are listed like layers.
    The list is kept with the model until the model changes.

    Parameters
    ----------
    model : keras.Model, Network, str or pathlib.Path
        A Keras model, or any other model that `load_model` accepts.
    x : array_like, list or dict, optional
        An input, for a model whose input shape is not known: a subclassed model that has not been
        called.

    Returns
    -------
    list of LayerInfo
        One entry for each output of each call of a layer.

    Raises
    ------
    ModelError
        If the model's input is not known. Also a ValueError.

    Examples
    --------
    >>> [layer.path for layer in actgrid.list_layers("demo")][:3]
    ['rescaling', 'stem_conv', 'stem_bn']
    """
    loaded = load_model(model)
    network = get_network(loaded)
    if x is not None and not is_compiled(network):
        return list_network_layers(network, prepare_inputs(loaded, x))
    return network.list_layers(x)
