"""The protocol of a network: what actgrid asks of a model of any kind.

A kind of network is one file in this folder, whose name ends in ``_network`` and which has a
`NetworkKind` called ``KIND``; see `actgrid.models.networks`. An object of any class that fulfils
`Network` is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import numpy.typing as npt

from actgrid.errors import CapabilityError
from actgrid.models.calls import Trace
from actgrid.models.layers import LayerInfo, Selection, Weight

__all__ = [
    "CompiledNetwork",
    "DifferentiableNetwork",
    "EditableNetwork",
    "InputInfo",
    "LayerFunction",
    "Network",
    "NetworkKind",
    "check_compiled",
    "check_editable",
    "describe_network",
    "is_compiled",
    "is_differentiable",
    "is_network",
]


@dataclass(frozen=True)
class InputInfo:
    """One input of a network.

    Attributes
    ----------
    name
        Name by which a dict of inputs gives it.
    shape
        Shape with the batch axis; None where a side is not fixed.
    dtype
        Name of the dtype that the network computes with. Inputs are cast to it.
    data_format
        ``"channels_last"`` or ``"channels_first"``.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    data_format: str = "channels_last"


class Network(Protocol):
    """A model of any kind that lists its layers and runs.

    Instances must be hashable, and allow attributes and weak references, as those of an ordinary
    class do: compiled functions are kept with them.
    """

    @property
    def name(self) -> str:
        """Name of the network, for messages and reports."""

    @property
    def inputs(self) -> Sequence[InputInfo]:
        """The inputs, in order; empty if they are not known."""

    @property
    def outputs(self) -> Sequence[str]:
        """Paths of the layers whose outputs the network returns."""

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        """Return what every layer gives, in the order in which the layers run.

        Parameters
        ----------
        x
            The input, for a network that cannot tell shapes before it has run.

        Raises
        ------
        ModelError
            If shapes are not known without an input.
        """

    def run(self, x: Any, paths: Sequence[str]) -> Mapping[str, npt.ArrayLike]:
        """Return the outputs of layers, by their paths.

        Parameters
        ----------
        x
            NumPy's array of the one input with its batch axis; a list of arrays, in the order of
            `inputs`, for several inputs.
        paths
            Paths of layers, as `list_layers` gives them.
        """

    def fingerprint(self) -> str:
        """Return a text that is the same for networks that compute the same."""


class DifferentiableNetwork(Network, Protocol):
    """A network whose operations TensorFlow can follow, and differentiate."""

    def trace(self, inputs: Any, training: bool = False) -> Trace:
        """Run on symbolic inputs, while a `tf.function` is traced."""


class EditableNetwork(Network, Protocol):
    """A network whose weights can be read and assigned."""

    def weights(self) -> list[Weight]:
        """Return every weight, each once."""


class LayerFunction(Protocol):
    """Runs a network and returns the outputs of chosen layers."""

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """Chosen layers by path; empty until they are known."""

    @property
    def trace_count(self) -> int:
        """Return the number of times the network has been traced."""

    def __call__(self, x: Any) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs for a batch, as read-only arrays."""

    def trace(
        self, specs: Any, transform: Callable[..., Any] | None = None
    ) -> dict[str, LayerInfo]:
        """Return the layers of calls on inputs like `specs`, TensorSpecs, without running."""

    def run(self, x: Any, transform: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Return what a transform makes of each output, see `extraction.run_transform`."""


class CompiledNetwork(Network, Protocol):
    """A network that gives the outputs of chosen layers from one compiled function."""

    def compile_layers(self, selection: Selection, training: bool) -> LayerFunction:
        """Return the function of the layers that a selection asks for."""


@dataclass(frozen=True)
class NetworkKind:
    """A kind of network: how models of this kind are recognized and loaded.

    Attributes
    ----------
    wrap
        Returns the network of a model object of this kind; None for any other object.
    takes
        Returns whether a file or folder that exists is a model of this kind, by its name.
    load
        Returns the model in a file or folder. The second argument is `safe_mode`: whether to
        refuse a file that holds code.
    keeps_model
        Whether `actgrid.load_model` returns the model object itself, as for Keras, and not the
        network that wraps it.
    """

    wrap: Callable[[object], Network | None]
    takes: Callable[[Path], bool]
    load: Callable[[Path, bool], Any]
    keeps_model: bool = False


def is_network(value: object) -> TypeGuard[Network]:
    """Return whether an object fulfils `Network` by the methods of its class."""
    # Not isinstance of a runtime protocol, which would evaluate the properties.
    return _has_methods(value, "list_layers", "run", "fingerprint")


def is_differentiable(network: Network) -> TypeGuard[DifferentiableNetwork]:
    """Return whether TensorFlow can differentiate a network."""
    return _has_methods(network, "trace")


def is_editable(network: Network) -> TypeGuard[EditableNetwork]:
    """Return whether the weights of a network can be read and assigned."""
    return _has_methods(network, "weights")


def is_compiled(network: Network) -> TypeGuard[CompiledNetwork]:
    """Return whether a network gives its layers from one compiled function."""
    return _has_methods(network, "compile_layers")


def _has_methods(value: object, *names: str) -> bool:
    return all(callable(getattr(type(value), name, None)) for name in names)


def check_compiled(network: Network, purpose: str) -> None:
    """Raise CapabilityError unless TensorFlow can follow the layers of a network.

    Parameters
    ----------
    purpose
        The function that needs the layers; the message begins with it.
    """
    if not is_compiled(network):
        raise CapabilityError(
            f"{purpose} follows the layers of a model through TensorFlow, which "
            f"{describe_network(network)} does not allow: give a Keras model"
        )


def check_editable(network: Network, purpose: str) -> None:
    """Raise CapabilityError unless the weights of a network can be read; see `check_compiled`."""
    if not is_editable(network):
        raise CapabilityError(
            f"{purpose} needs the weights of a model, which {describe_network(network)} does not "
            "give: give a Keras model"
        )


def describe_network(network: Network) -> str:
    """Return the name and the class of a network, for error messages."""
    return f"the network {network.name!r} of class {type(network).__name__}"
