"""Keras models as networks: layers, runs, gradients and weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from actgrid.models.calls import Trace
from actgrid.models.data_formats import input_data_format
from actgrid.models.fingerprint import fingerprint
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import names_of
from actgrid.models.keras_files import SUFFIXES, load_file, load_saved_model
from actgrid.models.keras_layer_function import KerasLayerFunction
from actgrid.models.layers import LayerInfo, Selection, Weight, model_weights
from actgrid.models.network import InputInfo, NetworkKind
from actgrid.models.tracing import known_specs, leaves, trace_inputs, trace_model

__all__ = ["KIND", "KerasNetwork"]


class KerasNetwork:
    """A Keras model as a network that is differentiable, editable and compiled."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.model.name)

    @property
    def inputs(self) -> list[InputInfo]:
        """The inputs, in the order of TensorFlow's nests; empty if they are not known."""
        specs = known_specs(self.model)
        if specs is None:
            return []
        names = names_of(self.model, specs)
        return [
            InputInfo(
                name, tuple(spec.shape), spec.dtype.name, input_data_format(self.model, position)
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
        """Return what every layer gives, in the order in which the layers run.

        Raises
        ------
        ModelError
            If the model's input is not known.
        """
        return self._trace_layers(x)[0]

    def _trace_layers(self, x: Any) -> tuple[list[LayerInfo], list[str]]:
        """Return every layer, and the paths of those whose outputs the model returns."""
        infos: list[LayerInfo] = []
        outputs: list[str] = []

        def trace(inputs: Any) -> None:
            found = self.trace(inputs)
            infos[:] = [call.info for call in found.calls]
            paths = {id(call.tensor): call.info.path for call in found.calls}
            outputs[:] = [paths[id(leaf)] for leaf in leaves(found.results) if id(leaf) in paths]

        GraphFunction(trace).trace(trace_inputs(self.model, x))
        return infos, outputs

    def run(self, x: Any, paths: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs of layers, by their paths."""
        return self.compile_layers(Selection(list(paths)))(x)

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that are the same for the same layers and weights."""
        return fingerprint(self.model)

    def trace(self, inputs: Any, training: bool = False) -> Trace:
        """Run the model on symbolic inputs, while a `tf.function` is traced."""
        return trace_model(self.model, inputs, training)

    def weights(self) -> list[Weight]:
        """Return every weight of the model, each once, in the order of ``model.weights``."""
        return model_weights(self.model)

    def compile_layers(self, selection: Selection, training: bool = False) -> KerasLayerFunction:
        """Return the compiled function of the layers that a selection asks for."""
        return KerasLayerFunction(self.model, selection, training)


def _wrap(model: object) -> KerasNetwork | None:
    return KerasNetwork(model) if isinstance(model, keras().layers.Layer) else None


def _takes(path: Path) -> bool:
    return path.is_dir() or path.suffix in SUFFIXES


def _load(path: Path, safe_mode: bool) -> Any:
    return (load_saved_model if path.is_dir() else load_file)(path, safe_mode)


KIND = NetworkKind(_wrap, _takes, _load, keeps_model=True)
