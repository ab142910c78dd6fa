"""Load TFLite models as networks: list layers and run.

The interpreter runs without the XNNPACK delegate, which computes faster but hides the tensors
inside the network. Results of the delegate can differ from these results in the last digits.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import re
import textwrap
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import MissingDependencyError, ModelError
from actgrid.models.batch_parts import list_arrays, run_in_parts
from actgrid.models.graph_layers import (
    GraphLayer,
    GraphTensor,
    find_layers,
    find_output_layer,
    find_output_logits,
    list_layer_edges,
)
from actgrid.models.layers import LayerInfo
from actgrid.models.network import InputInfo, NetworkKind, summarize_network
from actgrid.models.quantization import Scale
from actgrid.option_checks import resolve_thread_count

__all__ = ["KIND", "TFLiteNetwork"]

Array = npt.NDArray[Any]

_SUFFIX = ".tflite"
# Bytes 4 to 7 of every TFLite file.
_IDENTIFIER = b"TFL3"
# Operations that return the shape of a tensor and not its values.
_SHAPE_OPERATIONS = frozenset(["RANK", "SHAPE"])
# Names that converters give to outputs, and what they add to the names of tensors.
_GENERIC_OUTPUT = re.compile(r"output_\d+")
_INPUT_AFFIXES = re.compile(r"^serving_default_|:0$")
# Matches "Node number 1 (FlexTensorListReserve) failed to prepare." in a message.
_FAILED_OPERATION = re.compile(r"Node number \d+ \((\w+)\) failed")
_DTYPE_SUFFIX = re.compile(r"_int(8|16)$")


@dataclass(frozen=True)
class _Tensor:
    """Record of a tensor of the interpreter, with the scale of its quantized values.

    Attributes
    ----------
    index
        Number of the tensor in the interpreter.
    shape
        Shape in the file; -1 for a side that is not fixed.
    dtype
        Dtype in the interpreter.
    scale
        Scale of quantized values; None if the values are not quantized.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: Scale | None = None

    @property
    def real_dtype(self) -> str:
        """Name of the dtype of the real values."""
        return self.dtype.name if self.scale is None else "float32"

    @property
    def is_numeric(self) -> bool:
        """True for integers, floats and bools; False for text, complex numbers and references."""
        return self.dtype.kind in "biuf"

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Smallest and largest real value of a tensor of 8-bit integers; else None."""
        if self.dtype.kind not in "iu" or self.dtype.itemsize > 1:
            return None  # the range of 16-bit integers is symmetric, whatever the values are
        if self.scale is not None:
            return self.scale.get_range(self.dtype)
        limits = np.iinfo(self.dtype)
        return float(limits.min), float(limits.max)

    def dequantize(self, values: Array) -> Array:
        """Return the real values of an array of the interpreter."""
        return values if self.scale is None else self.scale.dequantize(values)

    def quantize(self, values: Array) -> Array:
        """Return an array for the interpreter: the nearest values that the tensor can have."""
        if self.scale is None:
            return values.astype(self.dtype, copy=False)
        return self.scale.quantize(values, self.dtype)


class TFLiteNetwork:
    """Network in a TFLite file. Its layers are the operations of the main subgraph.

    Quantized inputs, outputs and layers take and return real values, as float32.

    Parameters
    ----------
    content : bytes
        Content of the file.
    name : str
        Name of the network.

    Raises
    ------
    ModelError
        If the file is damaged, or has operations that the interpreter lacks. Also a ValueError.
    MissingDependencyError
        If ``ai-edge-litert`` is not installed. Also an ImportError.
    """

    def __init__(self, content: bytes, name: str) -> None:
        self._content = content
        self._name = name
        self._lock = threading.Lock()  # the interpreter does one thing at a time
        self._interpreter = _make_interpreter(content, name)
        try:
            self._read_graph()
            if all(side >= 0 for tensor in self._inputs for side in tensor.shape[1:]):
                self._interpreter.allocate_tensors()  # fails if there are unknown operations
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"the TFLite interpreter cannot run the network {name!r}: {_describe_error(error)}"
            ) from error

    def _read_graph(self) -> None:
        interpreter = self._interpreter
        self._inputs = [_read_tensor(details) for details in interpreter.get_input_details()]
        outputs = [_read_tensor(details) for details in interpreter.get_output_details()]
        ends = [*self._inputs, *outputs]
        input_names, output_names = self._read_signature({tensor.index for tensor in ends})
        outputs.sort(key=lambda tensor: _get_order(output_names.get(tensor.index, "")))
        if all(_INPUT_AFFIXES.match(tensor.name) for tensor in self._inputs):
            # The converter shuffles the inputs of a SavedModel.
            self._inputs.sort(key=lambda tensor: _get_order(input_names.get(tensor.index, "")))
        for tensor in self._inputs:
            if not tensor.is_numeric:
                raise ValueError(f"its input {tensor.name!r} is {tensor.dtype}; expected numbers")
        # -1: any batch size. A fixed size other than 1 is that of all inputs and outputs.
        sizes = {tensor.shape[0] if tensor.shape else 1 for tensor in ends}
        is_free = any(tensor.shape[:1] == (-1,) for tensor in self._inputs)
        self._batch_size = -1 if is_free else sizes.pop() if len(sizes) == 1 else 1
        positions, tensors, graph_tensors = self._read_operations()
        # A float input that is quantized first has the range of the quantized values.
        ranges = {
            graph_tensor.inputs[0]: tensor.value_range
            for tensor, graph_tensor in zip(tensors, graph_tensors, strict=True)
            if graph_tensor.type == "QUANTIZE" and graph_tensor.inputs
        }
        self._input_infos = tuple(
            InputInfo(
                input_names.get(tensor.index) or _INPUT_AFFIXES.sub("", tensor.name),
                self._get_shape(tensor),
                tensor.real_dtype,
                value_range=tensor.value_range or ranges.get(-1 - number),
            )
            for number, tensor in enumerate(self._inputs)
        )
        output_positions = [positions.get(tensor.index, -1) for tensor in outputs]
        for tensor, position in zip(outputs, output_positions, strict=True):
            if position >= 0 and tensor.is_numeric:
                graph_tensors[position] = graph_tensors[position]._replace(
                    output_name=output_names.get(tensor.index, ""), is_output=True
                )
        self._layers = find_layers(graph_tensors)
        self._tensors = {layer.path: tensors[layer.position] for layer in self._layers}
        numbers = [
            None if position < 0 else find_output_layer(graph_tensors, self._layers, position)
            for position in output_positions
        ]
        output_layers = [number for number in numbers if number is not None]
        if not output_layers:
            raise ValueError("no output is computed from an input")
        self._outputs = tuple(self._layers[number].path for number in output_layers)
        names = [
            output_names.get(tensor.index, "")
            for tensor, number in zip(outputs, numbers, strict=True)
            if number is not None
        ]
        self._output_names = tuple(
            path if not name or _GENERIC_OUTPUT.fullmatch(name) else name
            for path, name in zip(self._outputs, names, strict=True)
        )
        self._logits: dict[str, tuple[str, str]] = {}
        for path, logits in find_output_logits(graph_tensors, self._layers, output_layers):
            self._tensors.setdefault(logits.path, tensors[logits.position])
            self._logits[path] = logits.path, logits.activation

    def _read_signature(self, ends: set[int]) -> tuple[dict[int, str], dict[int, str]]:
        """Return the names of the inputs and of the outputs in the signature of the network.

        Parameters
        ----------
        ends
            Numbers of the tensors that are inputs and outputs of the main subgraph.

        Returns
        -------
        tuple of dict
            Number of the tensor -> name. Empty if the main subgraph has no signature.
        """
        for key in self._interpreter.get_signature_list():
            runner = self._interpreter.get_signature_runner(key)
            inputs, outputs = (
                {details["index"]: name for name, details in described.items()}
                for described in (runner.get_input_details(), runner.get_output_details())
            )
            if {*inputs, *outputs} == ends:
                return inputs, outputs
        return {}, {}

    def _read_operations(self) -> tuple[dict[int, int], list[_Tensor], list[GraphTensor]]:
        """Read the tensors that operations compute, in the order of execution.

        Returns
        -------
        tuple
            Number of a tensor in the interpreter -> its position, -1 - i for input i; the tensors;
            and their places in the graph.
        """
        details = {entry["index"]: entry for entry in self._interpreter.get_tensor_details()}
        positions = {tensor.index: -1 - number for number, tensor in enumerate(self._inputs)}
        tensors: list[_Tensor] = []
        graph_tensors: list[GraphTensor] = []
        shapes: set[int] = set()  # tensors that contain shapes, not values
        for operation in self._interpreter._get_ops_details():
            operands = [index for index in operation["inputs"] if index in details]
            sources = [index for index in operands if index in positions]
            constants = {
                details[index]["name"]: _count_trained_values(details[index])
                for index in operands
                if index not in positions
            }
            is_shape = operation["op_name"] in _SHAPE_OPERATIONS or (
                bool(sources) and shapes.issuperset(sources)
            )
            results = [index for index in operation["outputs"] if index in details]
            if operation["op_name"] == "DEQUANTIZE" and sources and positions[sources[0]] >= 0:
                # The real values of a tensor that is listed already.
                positions |= dict.fromkeys(results, positions[sources[0]])
                continue
            for index in results:
                tensor = _read_tensor(details[index])
                positions[index] = len(tensors)
                tensors.append(tensor)
                graph_tensors.append(
                    GraphTensor(
                        (_DTYPE_SUFFIX.sub("", tensor.name),),
                        operation["op_name"],
                        tuple(positions[source] for source in sources),
                        constants,
                        is_hidden=is_shape or not tensor.is_numeric,
                    )
                )
            if is_shape:
                shapes.update(results)
        return positions, tensors, graph_tensors

    @property
    def name(self) -> str:
        """Name of the file without its suffix."""
        return self._name

    @property
    def inputs(self) -> Sequence[InputInfo]:
        """Description of each input of the network."""
        return self._input_infos

    @property
    def outputs(self) -> Sequence[str]:
        """Paths of the layers whose outputs the network returns."""
        return self._outputs

    @property
    def output_names(self) -> Sequence[str]:
        """Name of each output in the signature; the path of its layer if the name is generated."""
        return self._output_names

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        """List every layer output of the network, in the order in which the layers run.

        Returns
        -------
        list of LayerInfo
            A description of each layer output.
        """
        return [self._describe_layer(index, layer) for index, layer in enumerate(self._layers)]

    def list_edges(self) -> list[tuple[str, str]]:
        """List which layers take which inputs and layer outputs.

        Returns
        -------
        list of tuple of str
            (name of an input, or path of a layer; path of a layer that takes it).
        """
        return list_layer_edges(self._layers, [info.name for info in self.inputs])

    def list_logits(self) -> dict[str, tuple[str, str]]:
        """List the outputs that are the softmax or sigmoid of other values.

        Returns
        -------
        dict
            Path of an output -> path with which `run` returns the logits, and the activation.
        """
        return self._logits

    def _describe_layer(self, index: int, layer: GraphLayer) -> LayerInfo:
        tensor = self._tensors[layer.path]
        return LayerInfo(
            layer.path,
            layer.type,
            self._get_shape(tensor),
            tensor.real_dtype,
            "channels_last",
            layer.parameters,
            index,
        )

    def _has_batch_axis(self, tensor: _Tensor) -> bool:
        return tensor.shape[:1] in ((self._batch_size,), (1,))

    def _get_shape(self, tensor: _Tensor) -> tuple[int | None, ...]:
        """Return the shape of a tensor with a free batch axis, which is added if it has none."""
        sides = tensor.shape[1:] if self._has_batch_axis(tensor) else tensor.shape
        return (None, *(None if side < 0 else side for side in sides))

    def run(self, x: Any, paths: Sequence[str]) -> dict[str, Array]:
        """Compute the outputs of layers for a batch of inputs.

        The network takes the whole batch if its batch size is free, and else one sample at a time.

        Returns
        -------
        dict
            Layer path -> array.
        """
        arrays = [
            tensor.quantize(np.asarray(array))
            for tensor, array in zip(self._inputs, list_arrays(x), strict=True)
        ]
        tensors = [self._tensors[path] for path in paths]
        with self._lock:
            results = self._run_batch(arrays, tensors) or self._run_parts(arrays, tensors)
        pairs = zip(paths, tensors, results, strict=True)
        return {path: tensor.dequantize(result) for path, tensor, result in pairs}

    def _run_batch(self, arrays: list[Array], tensors: list[_Tensor]) -> list[Array] | None:
        """Run the network once on a whole batch; return None if the network cannot do this."""
        if any(tensor.shape[:1] != (-1,) for tensor in (*self._inputs, *tensors)):
            return None
        batch_size = len(arrays[0])
        try:
            results = self._invoke(arrays, tensors)
        except ValueError:
            # Operations inside the network may permit one sample only.
            if batch_size == 1:
                raise
            return None
        return results if all(len(result) == batch_size for result in results) else None

    def _run_parts(self, arrays: list[Array], tensors: list[_Tensor]) -> list[Array]:
        """Run the network on parts of a batch, of as many samples as the network takes."""
        takes_batch = [self._has_batch_axis(tensor) for tensor in self._inputs]
        part_size = max(self._batch_size, 1)
        return run_in_parts(
            lambda inputs: self._invoke(inputs, tensors), arrays, takes_batch, part_size
        )

    def _invoke(self, arrays: list[Array], tensors: list[_Tensor]) -> list[Array]:
        """Run the interpreter, and return copies of the values of tensors."""
        interpreter = self._interpreter
        shapes = {entry["index"]: entry["shape"] for entry in interpreter.get_input_details()}
        try:
            for tensor, array in zip(self._inputs, arrays, strict=True):
                if tuple(shapes[tensor.index]) != array.shape:
                    interpreter.resize_tensor_input(tensor.index, array.shape, strict=True)
            interpreter.allocate_tensors()  # does nothing if no shape has changed
            interpreter.reset_all_variables()  # such as the state of a recurrent layer
            for tensor, array in zip(self._inputs, arrays, strict=True):
                interpreter.set_tensor(tensor.index, np.ascontiguousarray(array))
            interpreter.invoke()
            return [interpreter.get_tensor(tensor.index) for tensor in tensors]
        except RuntimeError as error:
            raise ValueError(_describe_error(error)) from error

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(self._content).hexdigest()[:32]

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that identify the content of the file."""
        return self._fingerprint

    def __repr__(self) -> str:
        return summarize_network(self)

    def __reduce__(self) -> tuple[type[TFLiteNetwork], tuple[bytes, str]]:
        return TFLiteNetwork, (self._content, self._name)


def _get_order(name: str) -> tuple[str, int]:
    """Return the key that sorts names of a signature: ``output_2`` comes before ``output_10``."""
    stem, separator, number = name.rpartition("_")
    return (stem, int(number)) if separator and number.isdecimal() else (name, -1)


def _make_interpreter(content: bytes, name: str) -> Any:
    """Return an interpreter of a model, which keeps the values of all tensors."""
    try:
        module = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise MissingDependencyError(
            f"TFLite models need ai-edge-litert ({error}); to install it, "
            "pip install 'actgrid[tflite]'"
        ) from error
    try:
        return module.Interpreter(
            model_content=content,
            num_threads=resolve_thread_count(None),
            experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the network {name!r} is no intact TFLite model: {_describe_error(error)}"
        ) from error


def _describe_error(error: Exception) -> str:
    """Return the first sentence of an error message, with the operation that failed."""
    message = str(error).strip() or type(error).__name__
    sentence = message.partition("\n")[0].partition(". ")[0].rstrip(".")
    line = textwrap.shorten(sentence, 300, placeholder=" ...")
    operation = _FAILED_OPERATION.search(message)
    if operation and operation[1] not in line:
        line += f" ({operation[1]})"
    is_missing = "custom op" in line or "TensorFlow op" in line
    return line + ("; expected built-in operations of TFLite" if is_missing else "")


def _read_tensor(details: Mapping[str, Any]) -> _Tensor:
    """Convert the details of a tensor that the interpreter returns."""
    shape = tuple(int(side) for side in details["shape_signature"])
    dtype = np.dtype(details["dtype"])
    quantization = details["quantization_parameters"]
    scales, zero_points = quantization["scales"], quantization["zero_points"]
    scale = None
    if dtype.kind in "iu" and np.any(scales):
        scale = Scale(scales, zero_points, quantization["quantized_dimension"])
    return _Tensor(details["index"], details["name"], shape, dtype, scale)


def _count_trained_values(details: Mapping[str, Any]) -> int:
    """Return the number of values of a constant; 0 for integers such as axes and shapes."""
    tensor = _read_tensor(details)
    is_trained = tensor.dtype.kind == "f" or tensor.scale is not None
    return math.prod(tensor.shape) if is_trained else 0


def _wrap(model: object) -> None:
    return None  # an interpreter of the user may not keep its tensors


def _accepts(path: Path) -> bool:
    return path.suffix.lower() == _SUFFIX and not path.is_dir()


def _load(path: Path, safe_mode: bool) -> TFLiteNetwork:
    content = path.read_bytes()
    if content[4:8] != _IDENTIFIER:
        start = f"it begins with {content[:16]!r}" if content else "it is empty"
        raise ModelError(f"{path} is not a TFLite model: {start}")
    return TFLiteNetwork(content, path.stem)


KIND = NetworkKind(_wrap, _accepts, _load)
