"""Use any function of a batch as a network, whose only layers are its outputs."""

from __future__ import annotations

import functools
import hashlib
import inspect
import textwrap
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import ActgridError, ModelError, ShapeError
from actgrid.models.layers import LayerInfo
from actgrid.models.network import InputInfo, NetworkKind

__all__ = [
    "KIND",
    "FunctionNetwork",
    "count_required_arguments",
    "describe_function",
    "takes_any_arguments",
]

Array = npt.NDArray[Any]

# Packages whose callable objects are models, which other kinds of networks wrap, or for which
# `load_model` says how to convert them.
_MODEL_PACKAGES = frozenset(
    ["flax", "keras", "onnx", "onnxruntime", "tensorflow", "tf_keras", "torch"]
)


class FunctionNetwork:
    """Network that wraps a function from a batch to scores. Its outputs are its only layers.

    Parameters
    ----------
    function : callable
        Function of a NumPy array (N, ...) that returns an array (N, ...) of numbers, or a list,
        tuple or dict of these. Tensors of other packages are converted to NumPy arrays.
    """

    def __init__(self, function: Callable[[Array], Any]) -> None:
        self._function = function
        self._dtype: np.dtype[Any] | None = None
        self._infos: list[LayerInfo] | None = None
        self._sample_shape: tuple[int, ...] | None = None
        # Whether a list that the function returns has an array for each output, not each sample.
        self._returns_outputs = True
        self._unique = uuid.uuid4().hex

    @property
    def name(self) -> str:
        """Name of the function."""
        return describe_function(self._function)

    @property
    def inputs(self) -> Sequence[InputInfo]:
        """Empty: a function does not declare its input."""
        return ()

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs, which are known after the first run."""
        return [info.path for info in self._infos or ()]

    def build_from(self, x: Array) -> None:
        """Run the function on one sample to find its outputs.

        Explanations compute changed inputs as float32. The function receives them with the dtype of
        `x`, and integers are rounded.

        Raises
        ------
        ModelError
            If the function fails, or returns anything but numbers for each sample.
        """
        self._dtype = np.asarray(x).dtype
        self._infos = None
        self.list_layers(x)

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        """List the outputs of the function.

        Returns
        -------
        list of LayerInfo
            A description of each output.

        Raises
        ------
        ModelError
            If the function has not run yet, and there is no `x`.
        """
        if x is None:
            if self._infos is None:
                raise ModelError(
                    f"the outputs of the function {self.name} are not known before it has run; "
                    "in Python, list_layers(function, x) runs it"
                )
            return self._infos
        sample = self._get_array(x)[:1]
        result = self._call(sample)
        self._returns_outputs = True
        if isinstance(result, (list, tuple)):
            # An entry may be an output, or the values of the sample: two samples tell which.
            self._returns_outputs = _has_batch_axes(result, 1) and (
                len(result) > 1 or _has_batch_axes(self._call(sample.repeat(2, axis=0)), 2)
            )
        outputs = self._read_outputs(result, 1)
        self._sample_shape = sample.shape[1:]
        self._infos = [
            LayerInfo(
                path,
                "Function",
                (None, *array.shape[1:]),
                array.dtype.name,
                "channels_last",
                0,
                index,
            )
            for index, (path, array) in enumerate(outputs.items())
        ]
        return self._infos

    def run(self, x: Array, paths: Sequence[str]) -> dict[str, Array]:
        """Run the function on a batch, and return its outputs by name."""
        array = self._get_array(x)
        if self._infos is None:
            self.list_layers(array)
        outputs = self._read_outputs(self._call(array), len(array))
        self._check_outputs(outputs, array)
        return {path: outputs[path] for path in paths}

    def fingerprint(self) -> str:
        """Return a text that identifies the code of the function.

        Functions with values of their own, such as methods and closures, are equal to no other.
        """
        function = self._function
        code = getattr(function, "__code__", None)
        if code is None or code.co_freevars or "<" in function.__qualname__:
            return self._unique
        content = f"{function.__module__}.{function.__qualname__} {code.co_consts}".encode()
        return hashlib.sha256(content + code.co_code).hexdigest()[:32]

    def _get_array(self, x: Any) -> Array:
        if isinstance(x, (Mapping, list, tuple)):
            raise ShapeError(
                f"the function {self.name} takes one array: got a {type(x).__name__} of "
                f"{len(x)} arrays"
            )
        return np.asarray(x)

    def _call(self, x: Array) -> Any:
        """Run the function on a copy of a batch, which the function may change."""
        dtype = self._dtype or x.dtype
        if dtype.kind in "iu" and x.dtype != dtype:
            limits = np.iinfo(dtype)
            x = np.clip(np.rint(x), limits.min, limits.max)
        batch = np.array(x, dtype)
        try:
            return self._function(batch)
        except ActgridError:
            raise
        except Exception as error:  # the function may raise any exception
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
            raise ModelError(
                f"the function {self.name} cannot be run on an array {x.shape} of {dtype}: {reason}"
            ) from error

    def _read_outputs(self, result: Any, count: int) -> dict[str, Array]:
        """Return the outputs in a result by name, each with one entry for each sample."""
        try:
            outputs = self._name_outputs(result)
        except Exception as error:  # the conversion of foreign objects may raise any exception
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
            raise ModelError(
                f"the function {self.name} must return numbers: got a {type(result).__name__}, "
                f"which is no array: {reason}"
            ) from error
        if not outputs:
            raise ModelError(
                f"the function {self.name} must return at least one array: got an empty "
                f"{type(result).__name__}"
            )
        for array in outputs.values():
            if array.dtype.kind not in "biuf":
                raise ModelError(
                    f"the function {self.name} must return numbers: got an array of {array.dtype}"
                )
            if array.shape[:1] != (count,):
                raise ModelError(
                    f"the function {self.name} must return values for each sample: got shape "
                    f"{array.shape} for {count} samples"
                )
        return outputs

    def _check_outputs(self, outputs: Mapping[str, Array], x: Array) -> None:
        """Raise ModelError if outputs are not those of the first run."""
        expected = {info.path: info.shape[1:] for info in self._infos or ()}
        if list(outputs) != list(expected):
            raise ModelError(
                f"the function {self.name} must always return the same outputs: got "
                f"{', '.join(outputs)} for {len(x)} samples, and {', '.join(expected)} for one"
            )
        for path, array in outputs.items():
            if x.shape[1:] == self._sample_shape and array.shape[1:] != expected[path]:
                raise ModelError(
                    f"the function {self.name} must return values of one shape for each sample: "
                    f"got shape {array.shape} for {len(x)} samples, and {(1, *expected[path])} "
                    "for one"
                )

    def _name_outputs(self, result: Any) -> dict[str, Array]:
        if isinstance(result, Mapping):
            return {str(key): _to_array(value) for key, value in result.items()}
        if isinstance(result, (list, tuple)) and (self._returns_outputs or not result):
            names = ["output"] if len(result) == 1 else [f"output_{i}" for i in range(len(result))]
            return dict(zip(names, map(_to_array, result), strict=True))
        return {"output": _to_array(result)}


def _has_batch_axes(values: Any, count: int) -> bool:
    """Return whether all values of a list are arrays with an entry for each sample."""
    return isinstance(values, (list, tuple)) and all(
        len(getattr(value, "shape", ())) and value.shape[0] == count for value in values
    )


def _to_array(value: Any) -> Array:
    """Convert an array or a tensor of any package to a NumPy array."""
    if callable(getattr(value, "detach", None)):  # PyTorch converts only such tensors
        value = value.detach().cpu()
    if not hasattr(value, "__array__") and callable(getattr(value, "numpy", None)):
        value = value.numpy()
    array = np.asarray(value)
    # TensorFlow has no longer floats.
    return array.astype(np.float64) if array.dtype == np.longdouble else array


def describe_function(function: object) -> str:
    """Return the name of a function, or of the class of a callable object, for messages."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", None) or type(function).__name__)


def count_required_arguments(function: Callable[..., Any]) -> int | None:
    """Return the number of arguments that a function requires.

    Returns
    -------
    int or None
        None: the function does not tell its arguments, or requires arguments by keyword.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions that are written in C
        return None
    required = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    is_keyword = any(parameter.kind is parameter.KEYWORD_ONLY for parameter in required)
    return None if is_keyword else len(required)


def takes_any_arguments(function: Callable[..., Any]) -> bool:
    """Return whether a function takes ``*args`` alone, such as one that a decorator returns."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = {parameter.kind for parameter in parameters}
    return inspect.Parameter.VAR_POSITIONAL in kinds and count_required_arguments(function) == 0


def _wrap(model: object) -> FunctionNetwork | None:
    """Wrap a function with one required argument or ``*args``, or an object with such a call."""
    if isinstance(model, type) or not callable(model):
        return None
    is_function = inspect.isroutine(model) or hasattr(model, "__wrapped__")  # tf.function, jax.jit
    if not is_function and not isinstance(model, functools.partial):
        packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
        if packages & _MODEL_PACKAGES or hasattr(model, "predict"):
            return None
    takes_batch = count_required_arguments(model) == 1 or takes_any_arguments(model)
    return FunctionNetwork(model) if takes_batch else None


KIND = NetworkKind(wrap=_wrap, accepts=lambda path: False, load=lambda path, safe_mode: None)
