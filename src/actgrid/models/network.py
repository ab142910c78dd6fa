"""Protocols of a network: methods that actgrid calls on a model of any kind.

Each kind of network is one file in this folder, whose name ends in ``_network`` and which defines
a `NetworkKind` called ``KIND``; see `actgrid.models.networks`. An object of any class that fulfils
`Network` is used without a wrapper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy.typing as npt

from actgrid.errors import CapabilityError
from actgrid.models.layers import LayerInfo, Selection, Weight

if TYPE_CHECKING:
    from actgrid.models.calls import Trace

__all__ = [
    "BuildableNetwork",
    "CompiledNetwork",
    "ConnectedNetwork",
    "DifferentiableNetwork",
    "EditableNetwork",
    "InputInfo",
    "LayerFunction",
    "LogitsNetwork",
    "Network",
    "NetworkKind",
    "check_compiled",
    "check_connected",
    "check_editable",
    "describe_network",
    "has_edges",
    "has_logits",
    "is_buildable",
    "is_compiled",
    "is_differentiable",
    "is_network",
    "summarize_network",
]


@dataclass(frozen=True)
class InputInfo:
    """Record of one input of a network: its name, shape, dtype and data format.

    Parameters
    ----------
    name : str
        Name of the input, used as the key in a dict of inputs.
    shape : tuple of (int or None)
        Shape with the batch axis; None for a side that is not fixed.
    dtype : str, default "float32"
        Name of the dtype that the network computes with. Inputs are cast to this dtype.
    data_format : {"channels_last", "channels_first"}, default "channels_last"
        Position of the channel axis.
    value_range : tuple of float, optional
        Smallest and largest value that the network can take, for example because it quantizes its
        input. None: the range is not known. Pixels of images are scaled to this range.

    Examples
    --------
    >>> from actgrid.models import InputInfo
    >>> InputInfo("image", (None, 64, 64, 3)).dtype
    'float32'
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    data_format: str = "channels_last"
    value_range: tuple[float, float] | None = None


class Network(Protocol):  # numpydoc ignore=PR01
    """Protocol of a model of any kind that lists its layers and computes outputs.

    Instances must be hashable and must allow attributes and weak references, as instances of an
    ordinary class do: compiled functions are cached with them.

    Examples
    --------
    A network that computes the differences of neighbouring rows and returns mean scores:

    >>> from actgrid.models import InputInfo, LayerInfo
    >>> class Edges:
    ...     name = "edges"
    ...     inputs = (InputInfo("image", (None, 8, 8, 3)),)
    ...     outputs = ("scores",)
    ...     def list_layers(self, x=None):
    ...         return [
    ...             LayerInfo("rows", "Diff", (None, 7, 8, 3), "float32", "channels_last", 0, 0),
    ...             LayerInfo("scores", "Mean", (None, 3), "float32", "channels_last", 0, 1),
    ...         ]
    ...     def run(self, x, paths):
    ...         return {"rows": x[:, 1:] - x[:, :-1], "scores": x.mean((1, 2))}
    ...     def fingerprint(self):
    ...         return "edges-1"
    >>> actgrid.Extractor(Edges())(np.zeros((1, 8, 8, 3)))["rows"].shape
    (1, 7, 8, 3)
    """

    @property
    def name(self) -> str:
        """Name of the network, for messages and reports."""

    @property
    def inputs(self) -> Sequence[InputInfo]:
        """Description of each input of the network; empty if the inputs are not known."""

    @property
    def outputs(self) -> Sequence[str]:
        """Paths of the layers whose outputs the network returns."""

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        """List every layer output of the network, in the order in which the layers run.

        Parameters
        ----------
        x : array_like, optional
            An input, for a network that does not know its shapes before it has run.

        Returns
        -------
        list of LayerInfo
            One entry for each layer output.

        Raises
        ------
        ModelError
            If shapes are not known without an input.
        """

    def run(self, x: Any, paths: Sequence[str]) -> Mapping[str, npt.ArrayLike]:
        """Compute the outputs of layers for a batch of inputs.

        Parameters
        ----------
        x : numpy.ndarray or list of numpy.ndarray
            The input with its batch axis; for several inputs, a list in the order of `inputs`. The
            arrays are read-only.
        paths : sequence of str
            Paths of layers, as listed by `list_layers`.

        Returns
        -------
        dict of {str: array_like}
            Layer path -> output.
        """

    def fingerprint(self) -> str:
        """Return a text that is the same for networks that compute the same function.

        Returns
        -------
        str
            Any text. A run is resumed only by a network with the fingerprint of the run.
        """


class ConnectedNetwork(Network, Protocol):
    """Protocol of a network that lists the connections of its layers."""

    def list_edges(self) -> list[tuple[str, str]]:
        """List which layers take which inputs and layer outputs.

        Returns
        -------
        list of tuple of str
            (name of an input, or path of a layer; path of a layer that takes it).
        """


class LogitsNetwork(Network, Protocol):
    """Protocol of a network outside TensorFlow that knows the logits before its outputs."""

    def list_logits(self) -> dict[str, tuple[str, str]]:
        """List the outputs that are the softmax or sigmoid of other values.

        Returns
        -------
        dict
            Path of an output -> path with which `run` returns the logits, and the activation:
            ``"softmax"`` or ``"log_softmax"`` of the channel axis, or ``"sigmoid"``.
        """


class BuildableNetwork(Network, Protocol):
    """Protocol of a network outside TensorFlow that knows its outputs only after a run."""

    def build_from(self, x: npt.NDArray[Any]) -> None:
        """Find the outputs with an input of the user, before anything else is computed.

        Parameters
        ----------
        x
            The input with its batch axis, in the dtype that the user gave.
        """


class DifferentiableNetwork(Network, Protocol):
    """Protocol of a network that TensorFlow can trace and differentiate."""

    def trace(self, inputs: Any, training: bool = False) -> Trace:
        """Run the network on symbolic inputs and record its layer calls.

        The method must be called while a `tf.function` is traced.

        Returns
        -------
        Trace
            The symbolic outputs of the network, and its layer calls in order.
        """


class EditableNetwork(Network, Protocol):
    """Protocol of a network whose weights can be read and assigned."""

    def weights(self) -> list[Weight]:
        """Return every weight of the network once."""


class LayerFunction(Protocol):
    """Protocol of a callable that runs a network and returns outputs of some layers."""

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """Description of each selected layer: layer path -> `LayerInfo`.

        The dict is empty until the first call or trace.
        """

    @property
    def trace_count(self) -> int:
        """Number of times that the network has been traced."""

    def __call__(self, x: Any) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs of the selected layers for a batch.

        Returns
        -------
        dict
            Layer path -> read-only array.
        """

    def trace(
        self, specs: Any, transform: Callable[..., Any] | None = None
    ) -> dict[str, LayerInfo]:
        """Trace the network on TensorSpecs and describe the selected layers.

        Returns
        -------
        dict
            Layer path -> `LayerInfo`.
        """

    def run(self, x: Any, transform: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Run the network and apply a transform to the output of each selected layer.

        The arguments and the result are those of `extraction.run_transform`.
        """


class CompiledNetwork(Network, Protocol):
    """Protocol of a network that computes selected layers in one compiled function."""

    def compile_layers(self, selection: Selection, training: bool) -> LayerFunction:
        """Return a compiled function that computes the outputs of selected layers."""

    def trace_with_replacements(self, inputs: Any, replacements: Mapping[str, Any]) -> Trace:
        """Run the network on symbolic inputs with other outputs of some layers.

        Parameters
        ----------
        replacements
            Layer path -> tensor that replaces this output of a layer call, or function of the
            output that returns this tensor.

        Returns
        -------
        Trace
            As for `DifferentiableNetwork.trace`.
        """


@dataclass(frozen=True)
class NetworkKind:
    """Record of a kind of network: how to recognize and load its models.

    Attributes
    ----------
    wrap
        Function that wraps a model object as a `Network`; returns None for an object of another
        kind.
    accepts
        Function that returns whether an existing file or folder is a model of this kind, judged by
        its name.
    load
        Function that loads the model in a file or folder. Its second argument is `safe_mode`:
        whether to refuse files that contain code.
    returns_model
        Whether `actgrid.load_model` returns the model object itself, as for Keras, and not the
        network that wraps it.
    """

    wrap: Callable[[object], Network | None]
    accepts: Callable[[Path], bool]
    load: Callable[[Path, bool], Any]
    returns_model: bool = False


def is_network(value: object) -> TypeGuard[Network]:
    """Return whether the class of an object has the methods of the protocol `Network`."""
    # isinstance() with a runtime-checkable protocol would evaluate the properties.
    return _has_methods(value, "list_layers", "run", "fingerprint")


def has_edges(network: Network) -> TypeGuard[ConnectedNetwork]:
    """Return whether a network lists the connections of its layers.

    Such networks have the method `list_edges`.
    """
    return _has_methods(network, "list_edges")


def has_logits(network: Network) -> TypeGuard[LogitsNetwork]:
    """Return whether a network knows the logits before its outputs.

    Such networks have the method `list_logits`.
    """
    return _has_methods(network, "list_logits")


def is_buildable(network: Network) -> TypeGuard[BuildableNetwork]:
    """Return whether a network knows its outputs only after a run.

    Such networks have the method `build_from`.
    """
    return _has_methods(network, "build_from")


def is_differentiable(network: Network) -> TypeGuard[DifferentiableNetwork]:
    """Return whether TensorFlow can differentiate a network.

    Such networks have the method `trace`.
    """
    return _has_methods(network, "trace")


def is_editable(network: Network) -> TypeGuard[EditableNetwork]:
    """Return whether the weights of a network can be read and assigned.

    Such networks have the method `weights`.
    """
    return _has_methods(network, "weights")


def is_compiled(network: Network) -> TypeGuard[CompiledNetwork]:
    """Return whether a network can compute its layers in one compiled function.

    Such networks have the method `compile_layers`.
    """
    return _has_methods(network, "compile_layers")


def _has_methods(value: object, *names: str) -> bool:
    return all(callable(getattr(type(value), name, None)) for name in names)


def check_compiled(network: Network, purpose: str) -> None:
    """Raise CapabilityError unless a network's layers run inside TensorFlow.

    Parameters
    ----------
    purpose
        Name of the function that needs the layers; the error message starts with this name.
    """
    if not is_compiled(network):
        raise CapabilityError(
            f"{purpose} needs layers that run inside TensorFlow, which "
            f"{describe_network(network)} does not have; expected a Keras model or a SavedModel"
        )


def check_connected(network: Network, purpose: str) -> None:
    """Raise CapabilityError unless the connections of a network's layers are known.

    Parameters
    ----------
    purpose
        Name of the function that needs the connections; the error message starts with this name.
    """
    if not (is_compiled(network) or has_edges(network)):
        raise CapabilityError(
            f"{purpose} needs layers and their connections, which {describe_network(network)} does "
            "not list; expected a Keras model, an exported model, or a network with the method "
            "list_edges"
        )


def check_editable(network: Network, purpose: str) -> None:
    """Raise CapabilityError unless the weights of a network can be read.

    Parameters
    ----------
    purpose
        Name of the operation that needs the weights, for the message.
    """
    if not is_editable(network):
        raise CapabilityError(
            f"{purpose} needs the weights of a model, which {describe_network(network)} does not "
            "have; expected a Keras model"
        )


def describe_network(network: Network) -> str:
    """Return the name and the class of a network as a phrase for error messages."""
    return f"the network {network.name!r} of class {type(network).__name__}"


def summarize_network(network: Network) -> str:
    """Return the text that stands for a network where Python shows an object."""
    inputs = ", ".join(f"{info.name} {info.shape}" for info in network.inputs)
    outputs = ", ".join(network.outputs)
    return f"<{type(network).__name__} {network.name!r} from {inputs} to {outputs}>"
