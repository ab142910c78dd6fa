"""The extractor: any layers' activations, from one compiled function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import LayerError, ModelError
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import input_specs, prepare_inputs
from actgrid.models.layers import LayerInfo, Selection, model_operations
from actgrid.models.loading import load_model
from actgrid.models.tracing import Call, build, trace_model, traced_specs

__all__ = [
    "Extractor",
    "choose_calls",
    "known_specs",
    "list_layers",
    "trace_inputs",
    "visible_calls",
]


# What becomes of a layer's activation inside the compiled function, see `Extractor.run`.
Transform = Callable[..., Any]


class Extractor:
    """Runs a model and returns the activations of chosen layers.

    The model runs in one compiled `tf.function`, in which each layer's output is captured as it
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
        times for many; likewise for each `transform` it was run with.

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

    def __init__(self, model: object, layers: object = None, *, training: bool = False) -> None:
        self.model: Any = load_model(model)
        self.trace_count = 0
        self._selection = Selection(layers)
        self._training = training
        self._infos: dict[str, LayerInfo] = {}
        self._functions: dict[Transform, GraphFunction] = {}
        if self.model.built:
            self._selection.check(self.model, model_operations(self.model))

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """What is extracted, by layer path: empty until the first call or `trace`."""
        return dict(self._infos)

    def __call__(self, x: Any) -> dict[str, npt.NDArray[Any]]:
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
        return {path: _as_output(tensor) for path, tensor in self.run(x, _activation).items()}

    def trace(self, specs: Any, transform: Transform | None = None) -> dict[str, LayerInfo]:
        """Return what a call will extract, without running the model.

        Parameters
        ----------
        specs
            The model's input as TensorSpecs, whose batch axis may be free: calls that fit them
            trace the model no more.
        transform
            That of the calls of `run` that are to come; None: calls of the extractor itself.

        Raises
        ------
        ShapeError, LayerError, ModelError
            As for a call.
        """
        inputs = prepare_inputs(self.model, specs)
        self._function(transform or _activation).trace(inputs)
        return self.layers

    def run(self, x: Any, transform: Transform, *arguments: Any) -> dict[str, Any]:
        """Return what a transform makes of each activation, inside the compiled function.

        Only that leaves the function, and the device. Equal transforms share one compiled
        function, which is kept.

        Parameters
        ----------
        x
            As for a call.
        transform
            Hashable; takes a `LayerInfo`, the activation as a symbolic tensor, and `arguments`,
            and returns a structure of tensors.
        arguments
            Tensors, whose values may differ from call to call.

        Returns
        -------
        dict
            Layer path -> structure of TensorFlow's tensors.

        Raises
        ------
        ShapeError, LayerError, ModelError
            As for a call.
        """
        inputs = prepare_inputs(self.model, x)
        build(self.model, inputs)
        outputs: dict[str, Any] = self._function(transform)(inputs, *arguments)
        return outputs

    def _function(self, transform: Transform) -> GraphFunction:
        if transform not in self._functions:
            self._functions.setdefault(transform, self._compiled(transform))
        return self._functions[transform]

    def _compiled(self, transform: Transform) -> GraphFunction:
        def trace(inputs: Any, *arguments: Any) -> dict[str, Any]:
            self.trace_count += 1
            calls = trace_model(self.model, inputs, self._training).calls
            calls = choose_calls(self.model, calls, self._selection)
            self._infos = {call.info.path: call.info for call in calls}
            return {call.info.path: transform(call.info, call.tensor, *arguments) for call in calls}

        # Relaxed shapes keep a last, smaller batch from being traced anew each time.
        return GraphFunction(trace, relax_shapes=True)


def choose_calls(model: Any, calls: list[Call], selection: Selection) -> list[Call]:
    """Return the calls of a trace of the model that are wanted.

    Raises
    ------
    LayerError
        If something that is wanted is not among them.
    """
    if selection.everything:
        return _spatial(calls)
    selection.check(model, model_operations(model))
    selection.check_found(model, ((call.node, call.info.path) for call in calls))
    return [call for call in calls if selection.wants(call.node, call.info.path, model)]


def _spatial(calls: list[Call]) -> list[Call]:
    chosen = [call for call in visible_calls(calls) if call.info.spatial]
    if not chosen:
        raise LayerError("the model has no layer with a spatial output; name the layers to extract")
    return chosen


def visible_calls(calls: list[Call]) -> list[Call]:
    """Return the calls that a user knows of, without the insides of Keras's own layers."""
    chosen: list[Call] = []
    for call in calls:
        places = [place for place, other in enumerate(chosen) if other.tensor is call.tensor]
        # The output of a nested model is mostly that of the last layer inside it.
        if not (call.node.composite and places):
            if not call.node.internal:
                chosen.append(call)
        elif getattr(call.node.layer, "layer", None) is chosen[places[-1]].node.layer:
            # A wrapper, such as TimeDistributed, stands for the one layer that it wraps.
            chosen[places[-1]] = call
    return chosen


def list_layers(model: object, x: Any = None) -> list[LayerInfo]:
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
    loaded: Any = load_model(model)
    infos: list[LayerInfo] = []

    def trace(inputs: Any) -> None:
        infos[:] = [call.info for call in trace_model(loaded, inputs).calls]

    GraphFunction(trace).trace(trace_inputs(loaded, x))
    return infos


def trace_inputs(model: Any, x: Any) -> Any:
    """Return what a model can be traced with: `x`, or if that is None what the model says it takes.

    Raises
    ------
    ModelError
        If it does not say, or cannot be run on `x`.
    """
    if x is not None:
        inputs = prepare_inputs(model, x)
        build(model, inputs)
        return inputs
    specs = known_specs(model)
    if specs is None:
        raise ModelError(_unknown_input(model))
    return specs


def known_specs(model: Any) -> Any:
    """Return what a model takes as TensorSpecs, as it says or was run on; None if not known."""
    specs = traced_specs(model)
    return input_specs(model) if specs is None else specs


def _unknown_input(model: Any) -> str:
    """Return why it is not known what a model takes, and the way on."""
    shapes = (model.get_build_config() or {}).get("shapes_dict")
    if shapes:
        arguments = ", ".join(name.removesuffix("_shape") for name in shapes)
        return (
            f"the model {model.name!r} takes several arguments ({arguments}), and actgrid, like "
            "model.predict, gives it one: write call(self, inputs) with a dict or list of them"
        )
    if model.built:
        return (
            f"the input of the model {model.name!r} is not known, as Keras keeps no shapes for "
            "its build(): pass an input, once"
        )
    return f"the input of the model {model.name!r} is not known: call it once, or pass an input"


def _activation(info: LayerInfo, tensor: Any) -> Any:
    """Take an activation as it is: the transform of a call."""
    return tensor


def _as_output(tensor: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.asarray(tensor)
    # Layers that pass their input on share its memory: writing to one would change the other.
    array.setflags(write=False)
    return array
