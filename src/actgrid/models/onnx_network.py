"""Load ONNX models as networks: list layers and run.

Layers are computed without the optimizations of onnxruntime, which replace several operations by
one, so that the tensors between them are never computed. Outputs alone are computed with all
optimizations, as in production: on the embedded network this takes a quarter of the time. The
results differ in the last digits; those of quantized models by one quantization step.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import textwrap
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import ActgridError, ModelError, strip_terminal_codes
from actgrid.models.batch_parts import list_arrays, run_in_parts
from actgrid.models.graph_axes import find_data_formats
from actgrid.models.graph_layers import (
    find_layers,
    find_output_layer,
    find_output_logits,
    list_layer_edges,
)
from actgrid.models.graph_order import have_further_calls
from actgrid.models.layers import LayerInfo
from actgrid.models.network import InputInfo, NetworkKind, summarize_network
from actgrid.models.onnx_graph import (
    DTYPES,
    find_unsafe_data,
    import_onnx,
    infer_shapes,
    is_channel_softmax,
    list_axes_operations,
    list_data_files,
    read_graph,
    sort_nodes,
)
from actgrid.models.quantization import Scale
from actgrid.models.safety import raise_if_unsafe
from actgrid.option_checks import resolve_thread_count

__all__ = ["KIND", "ONNXNetwork"]

Array = npt.NDArray[Any]
_Shape = tuple[int | str | None, ...]

_SUFFIX = ".onnx"
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
_FATAL = 4  # severity of the messages that onnxruntime prints
# Other providers compute with less precision, or compile the model for minutes.
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
# The code of an error, and the place in the source of onnxruntime.
_ERROR_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |/\S+:\d+ .*?\)( const)?(\s|$)")


class _Tensor(NamedTuple):
    """Record of a tensor of an ONNX model.

    Attributes
    ----------
    shape
        Shape in the model; text or None for a side that is not fixed. None: the rank is not known.
    dtype
        Dtype in the model.
    scale
        Scale of quantized values; None if the values are not quantized.
    """

    name: str
    shape: _Shape | None
    dtype: np.dtype[Any]
    scale: Scale | None = None
    is_channels_first: bool = False

    @property
    def data_format(self) -> str:
        """Position of the channel axis."""
        return "channels_first" if self.is_channels_first else "channels_last"

    @property
    def real_dtype(self) -> str:
        """Name of the dtype of the real values."""
        return self.dtype.name if self.scale is None else "float32"

    def dequantize(self, values: Array) -> Array:
        """Return the real values of an array of the model."""
        return values if self.scale is None else self.scale.dequantize(values)


class ONNXNetwork:
    """Network in an ONNX file. Its layers are the operations of the main graph.

    Layers with quantized values return real values, as float32.

    Parameters
    ----------
    path : pathlib.Path
        The file. Files with its weights are in the same folder.
    safe_mode : bool, default True
        Whether to refuse files with weights outside this folder.

    Raises
    ------
    ModelError
        If the file is damaged, or has operations that onnxruntime lacks. Also a ValueError.
    MissingDependencyError
        If ``onnx`` or ``onnxruntime`` is not installed. Also an ImportError.
    """

    def __init__(self, path: Path, safe_mode: bool = True) -> None:
        self._path, self._safe_mode = path, safe_mode
        self._content = path.read_bytes()
        model = _parse(path, self._content)
        if safe_mode:
            raise_if_unsafe(path, find_unsafe_data(model, path.parent))
        self._data_files = list_data_files(model)
        for name in self._data_files:
            if not (path.parent / name).is_file():
                raise ModelError(f"{path} needs the file {name!r} with weights, which is missing")
        model = _inline_functions(model)
        extended = _set_outputs(model, _list_results(model.graph))
        self._session = self._open_session(extended, is_optimized=False)
        try:
            self._read_graph(model)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, ActgridError):
                raise
            raise ModelError(f"{path} is no valid ONNX model: {_describe_error(error)}") from error

    def _open_session(self, content: bytes, is_optimized: bool) -> Any:
        _, onnxruntime = import_onnx()
        levels = onnxruntime.GraphOptimizationLevel
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if is_optimized else levels.ORT_DISABLE_ALL
        )
        options.intra_op_num_threads = resolve_thread_count(None)
        options.log_severity_level = _FATAL
        if self._data_files:
            options.add_session_config_entry(_DATA_FOLDER, os.fspath(self._path.resolve().parent))
        available = onnxruntime.get_available_providers()
        providers = [provider for provider in _PROVIDERS if provider in available]
        try:
            return onnxruntime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # onnxruntime has classes of its own
            raise ModelError(
                f"onnxruntime cannot load {self._path}: {_describe_error(error)}"
            ) from error

    @cached_property
    def _output_session(self) -> Any:
        """Session that computes only the outputs and their logits, with all optimizations."""
        model = _inline_functions(_parse(self._path, self._content))
        return self._open_session(_set_outputs(model, self._output_names), is_optimized=True)

    def _read_graph(self, model: Any) -> None:
        inputs, tensors = self._session.get_inputs(), self._session.get_outputs()
        inferred = infer_shapes(model) if not all(value.shape for value in tensors) else {}
        has_rank = {
            value.name: value.type.tensor_type.HasField("shape") for value in model.graph.input
        }
        for value in inputs:
            if value.type not in DTYPES:
                raise ModelError(
                    f"input {value.name!r} of the network {self.name!r} takes {value.type}; "
                    "expected a tensor of numbers"
                )
            if not has_rank[value.name]:
                raise ModelError(
                    f"{self._path} does not tell the number of axes of its input {value.name!r}; "
                    "expected an input with a shape, in which sizes may be free"
                )
        # The shape of a tensor of unknown rank is empty, as that of a single number.
        shapes = {
            value.name: tuple(value.shape) or inferred.get(value.name, ())
            for value in (*inputs, *tensors)
            if value.type in DTYPES and (value.shape or inferred.get(value.name))
        }
        input_names = [value.name for value in inputs]
        types = {value.name: value.type for value in (*inputs, *tensors)}
        operations = list_axes_operations(model.graph, shapes)
        formats = find_data_formats(operations, shapes, images=input_names)
        content = read_graph(model, model.graph.node, input_names, types)
        self._layers = find_layers(content.records)
        if have_further_calls(self._layers):
            content = read_graph(model, sort_nodes(model.graph), input_names, types)
            self._layers = find_layers(content.records)

        def describe(name: str) -> _Tensor:
            shape = shapes.get(name)
            dtype = np.dtype(DTYPES[types[name]])
            return _Tensor(name, shape, dtype, content.scales.get(name), formats.get(name, False))

        self._input_ranges = content.ranges
        self._inputs = [describe(name) for name in input_names]
        names = [content.names[layer.position] for layer in self._layers]
        output_layers: dict[int, None] = {}
        for position, name in content.outputs:
            number = find_output_layer(content.records, self._layers, position)
            if number is not None and number not in output_layers:
                names[number] = name
                output_layers[number] = None
        if not output_layers:
            raise ModelError(
                f"no output of the network {self.name!r} is a tensor of numbers that depends on "
                "an input"
            )
        self._outputs = tuple(self._layers[number].path for number in output_layers)
        self._tensors = {
            layer.path: describe(name) for layer, name in zip(self._layers, names, strict=True)
        }
        self._logits: dict[str, tuple[str, str]] = {}
        for path, logits in find_output_logits(content.records, self._layers, output_layers):
            output = self._tensors[path]
            if logits.activation != "sigmoid" and not is_channel_softmax(
                model, logits.axis, output.shape, output.is_channels_first
            ):
                continue
            self._tensors.setdefault(logits.path, describe(content.names[logits.position]))
            self._logits[path] = logits.path, logits.activation
        ends = {*self._outputs, *(logits for logits, _ in self._logits.values())}
        self._output_names = sorted({self._tensors[path].name for path in ends})
        sides = {tensor.shape[0] for tensor in self._inputs if tensor.shape}
        free_sides = {side for side in sides if _get_fixed_side(side) is None}
        self._batch_sides = free_sides or (sides if len(sides) == 1 else {1})
        # Number of samples that the network takes; 0: any number.
        self._batch_size = 0 if free_sides else int(str(next(iter(self._batch_sides), 1)))

    @property
    def name(self) -> str:
        """Name of the file without its suffix."""
        return self._path.stem

    @property
    def inputs(self) -> Sequence[InputInfo]:
        """Description of each input of the network."""
        return tuple(
            InputInfo(
                tensor.name,
                self._get_shape(tensor),
                tensor.dtype.name,
                tensor.data_format,
                self._input_ranges.get(number),
            )
            for number, tensor in enumerate(self._inputs)
        )

    @property
    def outputs(self) -> Sequence[str]:
        """Paths of the layers whose outputs the network returns."""
        return self._outputs

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        """List every layer output of the network, in the order in which the layers run.

        Shapes that the file does not tell are measured on `x`, or on zeros if the shapes of the
        inputs are known.

        Returns
        -------
        list of LayerInfo
            A description of each layer output.

        Raises
        ------
        ModelError
            If the number of axes of a layer is not known without an input.
        """
        measured = self._zero_shapes if x is None else self._measure_shapes(x)
        infos = []
        for index, layer in enumerate(self._layers):
            tensor = self._tensors[layer.path]
            shape = measured.get(layer.path)
            if shape is None and tensor.shape is None:
                raise ModelError(
                    f"the shape of the layer {layer.path!r} of the network {self.name!r} depends "
                    "on the input: give an input x"
                )
            infos.append(
                LayerInfo(
                    layer.path,
                    layer.type,
                    self._get_shape(tensor) if shape is None else shape,
                    tensor.real_dtype,
                    tensor.data_format,
                    layer.parameters,
                    index,
                )
            )
        return infos

    def list_edges(self) -> list[tuple[str, str]]:
        """List which layers take which inputs and layer outputs.

        Returns
        -------
        list of tuple of str
            (name of an input, or path of a layer; path of a layer that takes it).
        """
        return list_layer_edges(self._layers, [tensor.name for tensor in self._inputs])

    def list_logits(self) -> dict[str, tuple[str, str]]:
        """List the outputs that are the softmax or sigmoid of other values.

        Returns
        -------
        dict
            Path of an output -> path with which `run` returns the logits, and the activation.
        """
        return self._logits

    def _is_batched(self, tensor: _Tensor) -> bool:
        """Return whether the first axis of a tensor is certainly that of the samples."""
        return tensor.shape is not None and tensor.shape[0] in self._batch_sides

    def _get_shape(self, tensor: _Tensor) -> tuple[int | None, ...]:
        """Return the shape of a tensor with a free batch axis, which is added if it has none."""
        sides = [_get_fixed_side(side) for side in tensor.shape or ()]
        has_batch_axis = self._is_batched(tensor) or sides[:1] in ([None], [1])
        return (None, *sides[1:]) if has_batch_axis else (None, *sides)

    @cached_property
    def _zero_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Uncertain shapes, measured on zeros; empty if this is not possible."""
        shapes = [self._get_shape(tensor)[1:] for tensor in self._inputs]
        if None in [side for shape in shapes for side in shape]:
            return {}
        pairs = zip(self._inputs, shapes, strict=True)
        try:
            return self._measure_shapes([np.zeros((1, *shape), t.dtype) for t, shape in pairs])
        except ValueError:  # the network computes only with other values
            return {}

    def _measure_shapes(self, x: Any) -> dict[str, tuple[int | None, ...]]:
        """Return the shapes of layers that the network tells only when it runs."""
        paths = [path for path, tensor in self._tensors.items() if not self._is_batched(tensor)]
        if not paths:
            return {}
        arrays = [np.asarray(array)[:1] for array in list_arrays(x)]
        return {path: (None, *array.shape[1:]) for path, array in self.run(arrays, paths).items()}

    def run(self, x: Any, paths: Sequence[str]) -> dict[str, Array]:
        """Compute the outputs of layers for a batch of inputs.

        The network takes the whole batch if its batch size is free, and else one sample at a time.

        Returns
        -------
        dict
            Layer path -> array.
        """
        arrays = [
            np.asarray(array).astype(tensor.dtype, copy=False)
            for tensor, array in zip(self._inputs, list_arrays(x), strict=True)
        ]
        tensors = [self._tensors[path] for path in paths]
        are_outputs = all(tensor.name in self._output_names for tensor in tensors)
        session = self._output_session if are_outputs else self._session
        results = self._run_batch(session, arrays, tensors)
        if results is None:
            results = self._run_parts(session, arrays, tensors)
        return {
            path: tensor.dequantize(result)
            for path, tensor, result in zip(paths, tensors, results, strict=True)
        }

    def _run_batch(
        self, session: Any, arrays: list[Array], tensors: list[_Tensor]
    ) -> list[Array] | None:
        """Run the network once on a whole batch; return None if the network cannot do this."""
        count = len(arrays[0])
        is_batched = all(self._is_batched(tensor) for tensor in (*self._inputs, *tensors))
        if self._batch_size or count < 2 or not is_batched:
            return None
        try:
            results = self._compute(session, arrays, tensors)
        except ValueError:
            return None  # operations inside the network may permit one sample only
        return results if all(result.shape[:1] == (count,) for result in results) else None

    def _run_parts(self, session: Any, arrays: list[Array], tensors: list[_Tensor]) -> list[Array]:
        """Run the network on parts of a batch, of as many samples as the network takes."""
        return run_in_parts(
            lambda inputs: self._compute(session, inputs, tensors),
            arrays,
            [self._takes_batch(tensor) for tensor in self._inputs],
            self._batch_size or 1,
        )

    def _takes_batch(self, tensor: _Tensor) -> bool:
        return self._is_batched(tensor) or (tensor.shape or ())[:1] == (1,)

    def _compute(self, session: Any, arrays: list[Array], tensors: list[_Tensor]) -> list[Array]:
        """Run a session, and return the values of tensors."""
        names = list(dict.fromkeys(tensor.name for tensor in tensors))
        feed = {
            tensor.name: np.ascontiguousarray(array)
            for tensor, array in zip(self._inputs, arrays, strict=True)
        }
        _, onnxruntime = import_onnx()
        options = onnxruntime.RunOptions()
        options.log_severity_level = _FATAL
        try:
            results = dict(zip(names, session.run(names, feed, options), strict=True))
        except Exception as error:  # onnxruntime has classes of its own
            raise ValueError(_describe_error(error)) from error
        return [results[tensor.name] for tensor in tensors]

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self._content)
        for name in self._data_files:
            with (self._path.parent / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:32]

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that identify the content of the files."""
        return self._fingerprint

    def __repr__(self) -> str:
        return summarize_network(self)

    def __reduce__(self) -> tuple[type[ONNXNetwork], tuple[Path, bool]]:
        return ONNXNetwork, (self._path, self._safe_mode)


def _get_fixed_side(side: int | str | None) -> int | None:
    """Return a side of a shape; None if it is not fixed."""
    return side if isinstance(side, int) and side >= 0 else None


def _parse(path: Path, content: bytes) -> Any:
    """Return the `onnx.ModelProto` in the content of a file."""
    onnx, _ = import_onnx()
    if not content:
        raise ModelError(f"{path} is not an ONNX model: it is empty")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # the exceptions of protobuf differ between its versions
        raise ModelError(
            f"{path} is not an ONNX model, or is damaged: it begins with {content[:16]!r}"
        ) from error
    if not model.graph.node:
        raise ModelError(f"{path} is not an ONNX model: it has no operations")
    return model


def _inline_functions(model: Any) -> Any:
    """Replace calls of functions that a model defines by their operations."""
    if not model.functions:
        return model
    inliner = importlib.import_module("onnx.inliner")
    try:
        return inliner.inline_local_functions(model)
    except Exception:
        return model  # onnxruntime knows best whether the model is valid


def _list_results(graph: Any) -> list[str]:
    """Return the names of the outputs of a graph, and of the results of its operations."""
    names = [output.name for output in graph.output]
    names += [name for node in graph.node if node.op_type != "Constant" for name in node.output]
    return list(filter(None, dict.fromkeys(names)))


def _set_outputs(model: Any, names: Sequence[str]) -> bytes:
    """Return the content of a model that returns the given tensors."""
    onnx, _ = import_onnx()
    known = {output.name: output for output in model.graph.output}
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    del extended.graph.output[:]
    extended.graph.output.extend(
        known.get(name) or onnx.ValueInfoProto(name=name) for name in names
    )
    content: bytes = extended.SerializeToString()
    return content


def _describe_error(error: Exception) -> str:
    """Return the message of an error of onnxruntime without its code."""
    text = _ERROR_CODE.sub("", strip_terminal_codes(str(error)).strip())
    return (
        textwrap.shorten(text.partition("\n")[0], 300, placeholder=" ...") or type(error).__name__
    )


def _wrap(model: object) -> None:
    return None  # the graph of a session of the user cannot be extended


def _accepts(path: Path) -> bool:
    return path.suffix.lower() == _SUFFIX and not path.is_dir()


KIND = NetworkKind(wrap=_wrap, accepts=_accepts, load=ONNXNetwork)
