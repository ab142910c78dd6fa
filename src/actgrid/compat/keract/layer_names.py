"""Resolve the layer names of keract to layers, and format results with its keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from actgrid.compat.keract.extraction import LayerSet, check_input, name_operation, run_layers
from actgrid.errors import (
    LayerError,
    OptionError,
    suggest,
)
from actgrid.models.inputs import (
    list_input_layer_names,
)
from actgrid.models.layers import Node, collect_layers

__all__ = ["RequestedLayers", "name_inputs", "select_any_layer"]

Array = npt.NDArray[Any]
Activations = dict[Any, Any]

OUTPUT_FORMATS = ("simple", "full", "numbered")


def select_any_layer(layer: Any) -> bool:
    """Return True for every layer.

    This is the predicate for `Selection` that selects all layers.
    """
    return True


@dataclass(frozen=True)
class RequestedLayers:
    """Record of the inputs and layers of a model that a function call requested.

    Attributes
    ----------
    inputs
        Requested inputs, name -> value.
    nodes
        Requested layers, in the order of the model.
    """

    inputs: dict[str, Any]
    nodes: list[Node]

    @classmethod
    def from_names(
        cls, model: Any, x: Any, names: str | Iterable[str] | None, nested: bool
    ) -> RequestedLayers:
        """Look up the inputs and layers of a model by name; None: all inputs and layers.

        Returns
        -------
        RequestedLayers
            The inputs and layers.

        Raises
        ------
        LayerError
            If the model has no layer or input of a name.
        ShapeError
            If `x` does not fit the model.
        ModelError
            If the model cannot be run.
        """
        check_input(model, x)
        inputs = name_inputs(model, x)
        nodes = [
            node for node in collect_layers(model) if not node.is_internal and not node.is_looped
        ]
        if names is not None:
            is_list = isinstance(names, Iterable) and not isinstance(names, str)
            requested = list(names) if is_list else [names]
            known_names = [*inputs, *(node.path for node in nodes)]
            for name in requested:
                if name not in known_names:
                    raise LayerError(
                        f"no layer is called {name!r}{suggest(str(name), known_names)}; "
                        f"names: {', '.join(known_names)}"
                    )
            requested_inputs = {name: inputs[name] for name in inputs if name in requested}
            return cls(requested_inputs, [node for node in nodes if node.path in requested])
        if nested:
            outer = {path for node in nodes for path in _list_outer_paths(node.path)}
            return cls(inputs, [node for node in nodes if node.path not in outer])
        return cls(inputs, [node for node in nodes if "/" not in node.path])

    @property
    def layers(self) -> LayerSet:
        """The requested layers as a `LayerSet`."""
        return LayerSet(tuple(node.layer for node in self.nodes))

    def format_results(
        self,
        model: Any,
        x: Any,
        arrays_by_path: Mapping[str, Array],
        output_format: str,
    ) -> Activations:
        """Return the inputs and the arrays of layers with the keys of keract.

        Parameters
        ----------
        arrays_by_path
            Layer path -> array.
        output_format
            See `get_activations`.

        Returns
        -------
        dict
            Key in the output format of keract -> array.

        Raises
        ------
        OptionError
            If the format is unknown.
        """
        if output_format not in OUTPUT_FORMATS:
            raise OptionError(
                f"output_format must be one of {', '.join(OUTPUT_FORMATS)}, not {output_format!r}"
            )
        is_full = output_format == "full"
        operations: dict[str, Any] = {}
        if is_full and arrays_by_path:
            # Operation names are constants of the trace: no layer is computed.
            operations = run_layers(model, x, self.layers, name_operation)
        results: Activations = {
            f"{name}:0" if is_full else name: value for name, value in self.inputs.items()
        }
        order = {node.path: index for index, node in enumerate(self.nodes)}
        calls: dict[str, list[str]] = {}
        for path in sorted(arrays_by_path, key=lambda path: order[_strip_call_index(path)]):
            calls.setdefault(_strip_output_key(path), []).append(path)
        for call, paths in calls.items():
            key = call
            if is_full:
                key = "_".join(f"{call}/{operations[path].numpy().decode()}" for path in paths)
            arrays = [arrays_by_path[path] for path in paths]
            results[key] = arrays[0] if len(arrays) == 1 else arrays
        return dict(enumerate(results.values())) if output_format == "numbered" else results


def _list_outer_paths(path: str) -> list[str]:
    """Return the paths of the nested models that contain the layer at a path."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _strip_output_key(path: str) -> str:
    """Remove the index or key of an output from a layer path: ``name[1]`` -> ``name``."""
    return re.sub(r"\[.*\]$", "", path)


def _strip_call_index(path: str) -> str:
    """Remove the index of a call and the key of an output: ``name:1[0]`` -> ``name``."""
    return re.sub(r":\d+$", "", _strip_output_key(path))


def name_inputs(model: Any, x: Any) -> dict[str, Any]:
    """Return the values of a model's inputs as a dict: input name -> value.

    Parameters
    ----------
    x
        The values as a dict, a list in the order of the inputs, or a single value.
    """
    if isinstance(x, Mapping):
        return dict(x)
    values = list(x) if isinstance(x, (list, tuple)) else [x]
    return dict(zip(list_input_layer_names(model), values, strict=False))
