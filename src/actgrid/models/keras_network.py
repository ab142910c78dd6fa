"""Wrap Keras models as networks: list layers, run, differentiate, read weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from actgrid.models.calls import Trace
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.fingerprint import compute_fingerprint
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import list_input_names
from actgrid.models.keras_files import SUFFIXES, load_file, load_saved_model
from actgrid.models.keras_layer_function import KerasLayerFunction
from actgrid.models.layers import LayerInfo, Selection, Weight, collect_weights
from actgrid.models.network import InputInfo, NetworkKind
from actgrid.models.tracing import (
    find_input_specs,
    flatten_outputs,
    prepare_trace_inputs,
    trace_model,
)

__all__ = ["KIND", "KerasNetwork"]


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
        return self._trace_layers(None)[1]

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
        return self._trace_layers(x)[0]

    def _trace_layers(self, x: Any) -> tuple[list[LayerInfo], list[str]]:
        """Trace the model, and describe its layer outputs.

        Returns
        -------
        tuple
            The `LayerInfo` of every layer output, and the paths of the layers whose outputs the
            model returns.
        """
        infos: list[LayerInfo] = []
        outputs: list[str] = []

        def trace(inputs: Any) -> None:
            traced = self.trace(inputs)
            infos[:] = [call.info for call in traced.calls]
            paths = {id(call.tensor): call.info.path for call in traced.calls}
            outputs[:] = [
                paths[id(leaf)] for leaf in flatten_outputs(traced.results) if id(leaf) in paths
            ]

        GraphFunction(trace).trace(prepare_trace_inputs(self.model, x))
        return infos, outputs

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

    def weights(self) -> list[Weight]:
        """Return every weight of the model once, in the order of ``model.weights``."""
        return collect_weights(self.model)

    def compile_layers(self, selection: Selection, training: bool = False) -> KerasLayerFunction:
        """Return a compiled function that computes the outputs of selected layers."""
        return KerasLayerFunction(self.model, selection, training)


def _wrap(model: object) -> KerasNetwork | None:
    return KerasNetwork(model) if isinstance(model, keras().layers.Layer) else None


def _accepts(path: Path) -> bool:
    return path.is_dir() or path.suffix in SUFFIXES


def _load(path: Path, safe_mode: bool) -> Any:
    return (load_saved_model if path.is_dir() else load_file)(path, safe_mode)


KIND = NetworkKind(_wrap, _accepts, _load, returns_model=True)
