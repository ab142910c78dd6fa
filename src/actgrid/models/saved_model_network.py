"""Wrap SavedModels as networks: find layers in their graphs, run and differentiate them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from actgrid.errors import CapabilityError, LayerError, ModelError, suggest
from actgrid.models.calls import Call, Trace
from actgrid.models.compiled import trace_once
from actgrid.models.compiled_layers import CompiledLayers
from actgrid.models.frameworks import tensorflow
from actgrid.models.graph_layers import list_layer_edges
from actgrid.models.inlined_graph import InlinedGraph
from actgrid.models.layers import LayerInfo, Node, Selection
from actgrid.models.model_errors import raise_model_errors
from actgrid.models.network import InputInfo, NetworkKind, summarize_network
from actgrid.models.saved_model_files import load_signature
from actgrid.models.tracing import prepare_trace_inputs

__all__ = ["KIND", "SavedModelNetwork"]


class SavedModelNetwork:
    """Network that wraps a signature of a SavedModel. TensorFlow can differentiate it.

    The layers are the scopes of the operations in the graph; see `graph_layers.find_layers`.

    Parameters
    ----------
    folder : Path
        Folder of the SavedModel.
    safe_mode : bool, default True
        Whether to refuse operations that access files, the network or Python.

    Raises
    ------
    ModelError
        If the folder is no SavedModel, or is refused or damaged, or if its signature does not tell
        the axes of its inputs. Also a ValueError.

    Attributes
    ----------
    name
        Name of the folder.
    inputs
        Description of each input.
    outputs
        Paths of the layers that the signature returns.
    """

    def __init__(self, folder: Path, safe_mode: bool = True) -> None:
        self._folder, self._safe_mode = folder, safe_mode
        self.name = folder.resolve().name
        signature = load_signature(folder, safe_mode)
        self._signature = signature  # owns the variables
        self._graph = InlinedGraph(signature.function)
        function = signature.function
        # In `structured_input_signature`, names such as "rgb.image" are changed.
        inputs = list(zip(function._arg_keywords, function.inputs, strict=False))
        for name, tensor in inputs:
            if tensor.shape.rank is None:
                raise ModelError(
                    f"the SavedModel {folder} does not tell the number of axes of its input "
                    f"{name!r}; expected a signature with the shapes of its inputs, such as "
                    "tf.TensorSpec((None, 224, 224, 3))"
                )
        self.inputs = [
            InputInfo(name, tuple(tensor.shape), tensor.dtype.name, data_format)
            for (name, tensor), data_format in zip(inputs, self._graph.input_formats, strict=True)
        ]
        self.outputs = [
            self._graph.layers[number].path
            for number in self._graph.output_layers
            if number is not None
        ]
        if not self.outputs:
            raise ModelError(
                f"the SavedModel {folder} has no output that depends on an input; expected a "
                "signature that computes tensors from its inputs"
            )

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        """List every layer that was found in the graph, in the order of execution.

        Returns
        -------
        list of LayerInfo
            A description of each layer output.
        """
        infos: tuple[LayerInfo, ...] = trace_once(
            self, _describe_layers, prepare_trace_inputs(self, x)
        )
        return list(infos)

    def list_edges(self) -> list[tuple[str, str]]:
        """List which layers take which inputs and layer outputs.

        Returns
        -------
        list of tuple of str
            (name of an input, or path of a layer; path of a layer that takes it).
        """
        return list_layer_edges(self._graph.layers, [info.name for info in self.inputs])

    def run(self, x: Any, paths: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Run the network and return the outputs of the given layers: layer path -> array."""
        return self.compile_layers(Selection(list(paths)))(x)

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that identify the graph and its weights."""
        return self._graph.fingerprint()

    def __repr__(self) -> str:
        return summarize_network(self)

    def __reduce__(self) -> tuple[type[SavedModelNetwork], tuple[Path, bool]]:
        return SavedModelNetwork, (self._folder, self._safe_mode)

    def compile_layers(self, selection: Selection, training: bool = False) -> CompiledLayers:
        """Return a compiled function that computes the outputs of selected layers."""
        return CompiledLayers(self, selection, training)

    def trace(self, inputs: Any, training: bool = False) -> Trace:
        """Run the network on symbolic inputs and record its layers.

        The method must be called while a `tf.function` is traced.
        """
        if training:
            raise CapabilityError(
                f"training=True is not supported by the SavedModel {self.name!r}, which was "
                "exported for inference; expected False"
            )
        return self.trace_with_replacements(inputs, {})

    def trace_with_replacements(self, inputs: Any, replacements: Mapping[str, Any]) -> Trace:
        """Run the network on symbolic inputs with other outputs of some layers."""
        graph = self._graph
        names_by_path = {
            layer.path: name for layer, name in zip(graph.layers, graph.tensor_names, strict=True)
        }
        for path in replacements:
            if path not in names_by_path:
                raise LayerError(f"no layer is called {path!r}{suggest(path, list(names_by_path))}")
        flat_inputs = tensorflow().nest.flatten(inputs)
        replaced: dict[str, Any] = {}
        with raise_model_errors(inputs):
            # A function may need the output of a layer after another one has been replaced.
            for path, name in names_by_path.items():
                if path not in replacements:
                    continue
                replacement = replacements[path]
                if callable(replacement):
                    (tensor,) = graph.import_tensors(flat_inputs, [name], replaced)
                    replacement = replacement(tensor)
                replaced[name] = replacement
            tensors = graph.import_tensors(flat_inputs, graph.tensor_names, replaced)
        tensors = [
            replaced.get(name, tensor)
            for name, tensor in zip(graph.tensor_names, tensors, strict=True)
        ]
        # Shape inference finds less than the program that was exported.
        for number, spec in zip(graph.output_layers, self._signature.function.outputs, strict=True):
            if number is not None and spec.shape.is_compatible_with(tensors[number].shape):
                tensors[number].set_shape(spec.shape)
        calls = []
        for number, (layer, tensor) in enumerate(zip(graph.layers, tensors, strict=True)):
            if tensor.shape.rank is None:
                continue
            info = LayerInfo(
                layer.path,
                layer.type,
                tuple(tensor.shape),
                tensor.dtype.name,
                graph.data_formats[number],
                layer.parameters,
                number,
            )
            node = Node(layer, layer.path, number, is_internal=False, is_looped=False)
            sources = [
                flat_inputs[-1 - source] if source < 0 else tensors[source]
                for source in layer.sources
            ]
            calls.append(Call(node, info, tensor, sources))
        results = [tensors[number] for number in graph.output_layers if number is not None]
        return Trace(results if len(results) > 1 else results[0], calls)


def _describe_layers(network: Any, inputs: Any) -> tuple[LayerInfo, ...]:
    return tuple(call.info for call in network.trace(inputs).calls)


KIND = NetworkKind(
    wrap=lambda model: None,  # every SavedModelNetwork is a network already
    accepts=Path.is_dir,
    load=SavedModelNetwork,
)
