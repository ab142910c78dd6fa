"""The names by which keract takes layers, and the layers that they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from actgrid.compat.keract.extraction import AnyOf, check_input, operation_of, run_layers
from actgrid.errors import (
    LayerError,
    OptionError,
    suggest,
)
from actgrid.models.inputs import (
    input_names,
)
from actgrid.models.layers import Node, model_layers

__all__ = ["RequestedLayers", "any_layer", "inputs_by_name"]

Array = npt.NDArray[Any]
Activations = dict[Any, Any]

OUTPUT_FORMATS = ("simple", "full", "numbered")


def any_layer(layer: Any) -> bool:
    """Choose every layer: a predicate for `Selection`."""
    return True


@dataclass(frozen=True)
class RequestedLayers:
    """Which inputs, by name, and which layers, in the order of the model's."""

    inputs: dict[str, Any]
    nodes: list[Node]

    @classmethod
    def of(
        cls, model: Any, x: Any, names: str | Iterable[str] | None, nested: bool
    ) -> RequestedLayers:
        """Return those that are named, or all.

        Raises
        ------
        LayerError
            If something is named that there is not.
        ShapeError, ModelError
            If the model does not take `x`.
        """
        check_input(model, x)
        inputs = inputs_by_name(model, x)
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
    def layers(self) -> AnyOf:
        """The layers themselves."""
        return AnyOf(tuple(node.layer for node in self.nodes))

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
            operations = run_layers(model, x, self.layers, operation_of)
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


def inputs_by_name(model: Any, x: Any) -> dict[str, Any]:
    """Return what is given for a model's inputs by the names of these."""
    if isinstance(x, Mapping):
        return dict(x)
    values = list(x) if isinstance(x, (list, tuple)) else [x]
    return dict(zip(input_names(model), values, strict=False))
