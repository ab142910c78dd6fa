"""The extractor: any layers' activations, from one compiled function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from actgrid.models.inputs import prepare_inputs
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.listed_layers import ListedLayers
from actgrid.models.loading import load_model
from actgrid.models.network import LayerFunction, Network, is_compiled
from actgrid.models.networks import list_network_layers, network_of
from actgrid.models.types import LayersLike, ModelInput, ModelLike

__all__ = ["Extractor", "is_traceable", "list_layers", "run_transform", "trace_layers"]


class Extractor:
    """Runs a model and returns the activations of chosen layers.

    A Keras model runs in one compiled `tf.function`, in which each layer's output is captured as it
    is traced. TensorFlow leaves out whatever the chosen layers do not need. The model may be of
    any kind: Sequential, Functional, nested, subclassed. It is changed no more than by
    ``model.predict``: only the state of stateful layers moves on. Calls may come from several
    threads.

    Parameters
    ----------
    model
        A Keras model, or anything that `load_model` takes.
    layers
        Which layers: None for every layer with a spatial output; a layer path
        (``"block1_conv1"``, ``"outer/inner"``), a glob (``"*conv*"``), a layer, a layer class,
        an index into ``model.layers``, a predicate on layers, or a list of any of these. A path
        stands for all calls of a layer: ``"conv:0"`` is its first alone, ``"conv:1"`` its second.
        Operations of functional models (``keras.ops.relu(x)``, ``x * 2 + 1``) are chosen like
        layers, by the names that Keras gives them (``model.operations``), but not by an index or
        a predicate.
    training
        Whether the model runs as in training (dropout, batch statistics). What training would
        update, such as moving averages, stays as it is.

    Attributes
    ----------
    model
        The model.
    trace_count : int
        How often the model has been traced: once for one shape of input, and at most a few
        times for many.

    Raises
    ------
    LayerError
        If no layer matches an item of `layers`; the message lists close names. Also a KeyError.
    OptionError, ModelError
        If `layers` or `model` cannot be understood. Both are ValueErrors.

    Examples
    --------
    >>> extractor = actgrid.Extractor(model, "*conv*")
    >>> activations = extractor(images)  # (N, H, W, 3)
    >>> activations["block1_conv1"].shape
    (1, 224, 224, 64)
    """

    def __init__(
        self, model: ModelLike, layers: LayersLike = None, *, training: bool = False
    ) -> None:
        self.model: Any = load_model(model)
        self._function = _layer_function(network_of(self.model), Selection(layers), training)

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """Return the extracted layers by path; empty until the first call."""
        return self._function.layers

    @property
    def trace_count(self) -> int:
        """Return the number of times the model has been traced."""
        return self._function.trace_count

    def __call__(self, x: ModelInput) -> dict[str, npt.NDArray[Any]]:
        """Return the activations for a batch.

        Parameters
        ----------
        x
            The model's input, with its batch axis; a list or dict of them for several inputs.

        Returns
        -------
        dict
            Layer path -> array, in the order in which the layers run. The arrays share
            TensorFlow's memory where that is on the CPU, and are read-only.

        Raises
        ------
        ShapeError
            If `x` has not the shape of the model's input. Also a ValueError.
        LayerError
            If a chosen layer is not called by the model.
        ModelError
            If the model cannot be run on `x`, as where a layer needs a larger image; a DeviceError
            if this device cannot run it at all, as a CPU a channels-first convolution. ValueErrors.
        """
        return self._function(x)


def _layer_function(network: Network, selection: Selection, training: bool) -> LayerFunction:
    if is_compiled(network):
        return network.compile_layers(selection, training)
    return ListedLayers(network, selection, training)


def is_traceable(extractor: Extractor) -> bool:
    """Return whether an extractor's model is compiled, so that transforms can run inside."""
    return not isinstance(extractor._function, ListedLayers)


def trace_layers(
    extractor: Extractor, specs: Any, transform: Callable[..., Any] | None = None
) -> dict[str, LayerInfo]:
    """Return the layers that an extractor will give, without running its model.

    Parameters
    ----------
    specs
        The model's input as TensorSpecs, whose batch axis may be free: calls that fit them trace
        the model no more.
    transform
        The transform of later calls of `run_transform`; None: calls of the extractor itself.

    Raises
    ------
    ShapeError, LayerError, ModelError
        As for a call of the extractor.
    """
    return extractor._function.trace(specs, transform)


def run_transform(
    extractor: Extractor, x: ModelInput, transform: Callable[..., Any], *arguments: Any
) -> dict[str, Any]:
    """Return the result of a transform for each activation, computed in the compiled function.

    Only this result leaves the function, and the device. Equal transforms share one compiled
    function, which is kept.

    Parameters
    ----------
    extractor
        An extractor of a compiled model, see `is_traceable`.
    x
        The model's input, as for a call of the extractor.
    transform
        Hashable; takes a `LayerInfo`, the activation as a symbolic tensor, and `arguments`, and
        returns a structure of tensors.
    arguments
        Tensors, whose values may differ from call to call.

    Returns
    -------
    dict
        Layer path -> structure of TensorFlow's tensors.

    Raises
    ------
    ShapeError, LayerError, ModelError
        As for a call of the extractor.
    CapabilityError
        If the model is not compiled.
    """
    return extractor._function.run(x, transform, *arguments)


def list_layers(model: ModelLike, x: ModelInput | None = None) -> list[LayerInfo]:
    """Return what every layer of a model gives, in the order in which the layers run.

    Operations of functional models (``keras.ops.relu(x)``, ``x * 2 + 1``) are listed like layers.

    Parameters
    ----------
    model
        A Keras model, or anything that `load_model` takes.
    x
        An input, for a model that does not know the shape of its own: a subclassed one that has
        not been called.

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
    network = network_of(loaded)
    if x is not None and not is_compiled(network):
        return list_network_layers(network, prepare_inputs(loaded, x))
    return network.list_layers(x)
