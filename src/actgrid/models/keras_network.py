"""Wrap Keras models as networks: list layers, run, differentiate, read weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from actgrid.models.calls import Trace
from actgrid.models.compiled import trace_once
from actgrid.models.compiled_layers import CompiledLayers
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.fingerprint import compute_fingerprint
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import list_input_names
from actgrid.models.keras_files import SUFFIXES, load_file
from actgrid.models.layers import LayerInfo, Selection, Weight, collect_weights
from actgrid.models.model_cache import cache_with_model
from actgrid.models.network import InputInfo, NetworkKind
from actgrid.models.symbolic_layers import list_symbolic_layers
from actgrid.models.tracing import (
    find_input_specs,
    flatten_outputs,
    prepare_trace_inputs,
    trace_model,
)

__all__ = ["KIND", "KerasNetwork"]


class _Description(NamedTuple):
    """Record of every layer output of a model, and the paths of the outputs it returns."""

    infos: tuple[LayerInfo, ...]
    outputs: tuple[str, ...]


def _describe_layers(model: Any, inputs: Any) -> _Description:
    trace = trace_model(model, inputs)
    paths = {id(call.tensor): call.info.path for call in trace.calls}
    leaves = flatten_outputs(trace.results)
    return _Description(
        tuple(call.info for call in trace.calls),
        tuple(paths[id(leaf)] for leaf in leaves if id(leaf) in paths),
    )


class KerasNetwork:
    """Network that wraps a Keras model. It can be differentiated, edited and compiled."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def name(self) -> str:
        """Name of the Keras model."""
        return str(self.model.name)

    @property
    def inputs(self) -> list[InputInfo]:
        """Description of each model input, in the order of `tf.nest.flatten`.

        The list is empty if the inputs are not known.
        """
        specs = find_input_specs(self.model)
        if specs is None:
            return []
        names = list_input_names(self.model, specs)
        return [
            InputInfo(
                name,
                tuple(spec.shape),
                spec.dtype.name,
                find_input_data_format(self.model, position),
            )
            for position, (name, spec) in enumerate(
                zip(names, tensorflow().nest.flatten(specs), strict=True)
            )
        ]

    @property
    def outputs(self) -> list[str]:
        """Paths of the layers whose outputs the model returns."""
        return list(self._describe(None).outputs)

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        """List every layer output of the model, in the order in which the layers run.

        Returns
        -------
        list of LayerInfo
            A description of each layer output.

        Raises
        ------
        ModelError
            If the model's input is not known.
        """
        if x is None:
            infos = cache_with_model(
                self.model, list_symbolic_layers, lambda: list_symbolic_layers(self.model)
            )
            if infos is not None:
                return list(infos)
        return list(self._describe(x).infos)

    def _describe(self, x: Any) -> _Description:
        inputs = prepare_trace_inputs(self.model, x)
        description: _Description = trace_once(self.model, _describe_layers, inputs)
        return description

    def run(self, x: Any, paths: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Run the model and return the outputs of the given layers: layer path -> array."""
        return self.compile_layers(Selection(list(paths)))(x)

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that identify the layers and weights of the model.

        Models of equal layers and weights have equal fingerprints.
        """
        return compute_fingerprint(self.model)

    def trace(self, inputs: Any, training: bool = False) -> Trace:
        """Run the model on symbolic inputs and record its layer calls.

        The method must be called while a `tf.function` is traced.
        """
        return trace_model(self.model, inputs, training)

    def trace_with_replacements(self, inputs: Any, replacements: Mapping[str, Any]) -> Trace:
        """Run the model on symbolic inputs with other outputs of some layers."""
        return trace_model(self.model, inputs, replacements=replacements)

    def weights(self) -> list[Weight]:
        """Return every weight of the model once, in the order of ``model.weights``."""
        return collect_weights(self.model)

    def compile_layers(self, selection: Selection, training: bool = False) -> CompiledLayers:
        """Return a compiled function that computes the outputs of selected layers."""
        return CompiledLayers(self.model, selection, training)


def _wrap(model: object) -> KerasNetwork | None:
    return KerasNetwork(model) if isinstance(model, keras().layers.Layer) else None


def _accepts(path: Path) -> bool:
    return path.suffix in SUFFIXES


KIND = NetworkKind(_wrap, _accepts, load_file, returns_model=True)
