"""Activation maximization, as in tf-keras-vis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_keras_vis.activation_maximization.input_modifiers import Jitter, Rotate2D
from actgrid.compat.tf_keras_vis.activation_maximization.regularizers import Norm, TotalVariation2D
from actgrid.compat.tf_keras_vis.utils import listify
from actgrid.compat.tf_keras_vis.visualization import (
    BatchScore,
    ModelVisualization,
    force_retrace,
)
from actgrid.errors import ModelError, OptionError
from actgrid.models.compiled import compile_function
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import list_input_layer_names
from actgrid.option_checks import check_integer

__all__ = ["ActivationMaximization"]

Array = npt.NDArray[Any]
Range = tuple[float | None, float | None]

_MODIFIERS = (Jitter(jitter=4), Rotate2D(degree=1))
_REGULARIZERS = (TotalVariation2D(weight=1.0), Norm(weight=0.3, p=1))


@dataclass(frozen=True)
class _LossGradient:
    """Function that returns gradients, scores, regularization terms and outputs.

    The loss is the sum of the regularization terms minus the sum of the scores.

    Attributes
    ----------
    score
        Score function of the batch.
    regularizers
        Regularizers of each input.
    training
        Whether the model runs in training mode.
    """

    score: BatchScore
    regularizers: tuple[tuple[Any, ...], ...]
    training: bool

    def __call__(self, model: Any, inputs: list[Any]) -> Any:
        tf = tensorflow()
        tensors = [
            tf.ensure_shape(tensor, [self.score.count, *tensor.shape[1:]]) for tensor in inputs
        ]
        outputs = model(tensors if len(tensors) > 1 else tensors[0], training=self.training)
        scores = self.score.compute_scores(outputs)
        terms = [
            regularizer(tensor)
            for tensor, regularizers in zip(tensors, self.regularizers, strict=True)
            for regularizer in regularizers
        ]
        loss = sum(map(tf.reduce_sum, terms)) - sum(map(tf.reduce_sum, scores))
        gradients = tf.gradients(loss, tensors)
        if any(gradient is None for gradient in gradients):
            raise ModelError("the score has no gradient with respect to every input")
        return gradients, scores, terms, tf.nest.flatten(outputs)


class ActivationMaximization(ModelVisualization):
    """Synthesizes inputs that maximize a score, by gradient ascent.

    `actgrid.maximize` does the same for channels and classes, in fewer steps and with natural
    colours.

    Parameters
    ----------
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes.
    model_modifier : callable or list of callable, optional
        Functions that change the model in place and return None, or return another model. None:
        the model is not modified.
    clone : bool, optional
        Whether to modify a copy of the model instead of the model.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_keras_vis.activation_maximization import ActivationMaximization
    >>> from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    >>> maximize = ActivationMaximization(model)
    >>> maximize(CategoricalScore(1), steps=3).shape
    (1, 8, 8, 3)
    """

    def __call__(
        self,
        score: Any,
        seed_input: Any = None,
        input_range: Any = (0, 255),
        input_modifiers: Any = _MODIFIERS,
        regularizers: Any = _REGULARIZERS,
        steps: int = 200,
        optimizer: Any = None,
        gradient_modifier: Callable[[Any], Any] | None = None,
        callbacks: Any = None,
        training: bool = False,
        unconnected_gradients: Any = None,
        activation_modifiers: Any = None,
        *,
        normalize_gradient: bool | None = None,
    ) -> Any:
        """Synthesize inputs that maximize the score.

        Parameters
        ----------
        score : callable or list of callable
            Function of the output that returns a score for each image, (N,), such as
            ``CategoricalScore([1, 294])``; a list with a function for each output of the model.
            Functions are traced.
        seed_input : array_like or list of array_like, optional
            Initial images, (N, H, W, C), or one image without N; a list for several inputs. None:
            a random image.
        input_range : tuple or list of tuple, optional
            (low, high) of the inputs, or a list with a range for each input. None: no bound.
        input_modifiers : callable, list or dict, optional
            Functions that modify an input before each step, by default ``Jitter(4)`` and
            ``Rotate2D(1)``. For several inputs, a dict by the names of inputs, or a list of lists.
        regularizers : callable, list or dict, optional
            Functions of an input that are minimized, by default ``TotalVariation2D(1.0)`` and
            ``Norm(0.3, p=1)``. For several inputs, as `input_modifiers`. Functions are traced.
        steps : int, optional
            Number of steps.
        optimizer : keras.optimizers.Optimizer, optional
            The optimizer, of which a copy is used. None: ``RMSprop(1.0, rho=0.999)``.
        gradient_modifier : callable, optional
            Function that modifies the gradients of each input. None: unchanged gradients.
        callbacks : callable or list of callable, optional
            See `actgrid.compat.tf_keras_vis.activation_maximization.callbacks`. None: no callbacks.
        training : bool, optional
            Whether the model runs in training mode.
        unconnected_gradients : object, optional
            Ignored.
        activation_modifiers : callable or dict, optional
            Function that modifies the result, or a dict of functions by the names of inputs. None:
            unchanged results.
        normalize_gradient : bool, optional
            Ignored.

        Returns
        -------
        ndarray or list
            Inputs with the shape of `seed_input`: int64 if the lower bound is an int, so that they
            can be shown as pixels, otherwise float32. A list for several inputs, or if `seed_input`
            is a list.

        Raises
        ------
        OptionError
            If an argument is invalid. Also a ValueError.
        ShapeError
            If the inputs do not fit the model. Also a ValueError.
        TargetError
            If the model has no such class. Also a ValueError.
        ModelError
            If the model cannot be run, or has no gradient. Also a ValueError.

        Examples
        --------
        >>> import keras
        >>> from actgrid.compat.tf_keras_vis.activation_maximization import ActivationMaximization
        >>> from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, activation="relu"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2),
        ... ])
        >>> images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
        >>> maximize = ActivationMaximization(model)
        >>> maximize(CategoricalScore(1), steps=3).shape
        (1, 8, 8, 3)
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        tf = tensorflow()
        steps = check_integer("steps", steps, 1)
        names = list_input_layer_names(self.model)
        if not names:
            raise ModelError(f"the inputs of the model {self.model.name!r} are not known")
        ranges = _parse_ranges(input_range, len(names))
        inputs = self._make_seeds(seed_input, ranges)
        modifiers = _list_by_input("input_modifiers", input_modifiers, names)
        regularizers_by_input = _list_by_input("regularizers", regularizers, names)
        result_modifiers = _list_result_modifiers(activation_modifiers, names)
        traced_regularizers = tuple(
            tuple(map(force_retrace, functions)) for functions in regularizers_by_input
        )
        batch_score = self._make_batch_score(score, len(inputs[0]))
        compute_gradients = compile_function(
            self.model, _LossGradient(batch_score, traced_regularizers, training)
        )
        labels = _make_labels(regularizers_by_input, names)
        variables = [keras().Variable(array, dtype="float32") for array in inputs]
        used_optimizer = _copy_optimizer(optimizer)

        def run_step() -> tuple[Any, ...]:
            for variable, functions in zip(variables, modifiers, strict=True):
                value = tf.convert_to_tensor(variable.value)
                for function in functions:
                    value = function(value)
                variable.assign(value)
            tensors = [tf.convert_to_tensor(variable.value) for variable in variables]
            gradients, scores, terms, outputs = compute_gradients(tensors)
            if gradient_modifier is not None:
                gradients = [gradient_modifier(gradient) for gradient in gradients]
            used_optimizer.apply(gradients, variables)
            return gradients, scores, terms, outputs

        callback_list = listify(callbacks)
        started_callbacks: list[Any] = []
        results: list[Array] = []
        try:
            for callback in callback_list:
                keywords = {k: v for k, v in arguments.items() if k != "callbacks"}
                # Callbacks of version 0.5 take no arguments.
                takes_keywords = bool(signature(callback.on_begin).parameters)
                callback.on_begin(**(keywords if takes_keywords else {}))
                started_callbacks.append(callback)
            for index in range(steps):
                gradients, scores, terms, outputs = run_step()
                if not callback_list and index < steps - 1:
                    continue
                results = [
                    _finish_result(variable.numpy(), bounds, modifier)
                    for variable, bounds, modifier in zip(
                        variables, ranges, result_modifiers, strict=True
                    )
                ]
                for callback in callback_list:
                    callback(
                        index,
                        results,
                        gradients,
                        scores,
                        outputs,
                        regularizations=list(zip(labels, terms, strict=True)),
                        overall_score=[*(-score for score in scores), *terms],
                    )
        finally:
            for callback in started_callbacks:
                callback.on_end()
        return self._unwrap(results, seed_input)

    def _make_seeds(self, seed_input: Any, ranges: list[Range]) -> list[Array]:
        """Return the inputs at which the optimization starts, as float32 arrays.

        Parameters
        ----------
        seed_input
            The inputs. None: random inputs.
        ranges
            Range (low, high) of the values of each input.
        """
        if seed_input is not None and not (isinstance(seed_input, list) and not seed_input):
            return [array.astype(np.float32) for array in self._prepare_inputs(seed_input)]
        tf = tensorflow()
        seeds = []
        for tensor, (low, high) in zip(self.model.inputs, ranges, strict=True):
            shape = tuple(tensor.shape[1:])
            if None in shape:
                raise OptionError(f"the model takes inputs of {shape}: pass seed_input")
            seeds.append(np.asarray(tf.random.uniform((1, *shape), *_choose_bounds(low, high))))
        return seeds


def _parse_ranges(input_range: Any, count: int) -> list[Range]:
    """Return the range (low, high) of the values of each model input.

    Parameters
    ----------
    input_range
        Value of the option `input_range`: one range for all inputs, or a list of ranges.
    count
        Number of inputs.

    Returns
    -------
    list of tuple
        None as a limit: no limit.
    """
    ranges = listify(input_range, return_empty_list_if_none=False, convert_tuple_to_list=False)
    if len(ranges) == 1:
        ranges = ranges * count
    ranges = [(None, None) if bounds is None else bounds for bounds in ranges]
    if len(ranges) != count or any(
        not isinstance(bounds, tuple) or len(bounds) != 2 for bounds in ranges
    ):
        raise OptionError(
            f"input_range must be (low, high), or {count} of these, not {input_range!r}"
        )
    return ranges


def _choose_bounds(low: float | None, high: float | None) -> tuple[float, float]:
    """Return the bounds of the values of a random initial input.

    Parameters
    ----------
    low, high
        Range of the input. None: no limit.

    Returns
    -------
    tuple of float
        Finite (low, high).
    """
    if low is not None:
        return float(low), float(low + abs(low * 2) if high is None else high)
    return (0.0, 1.0) if high is None else (float(high - abs(high / 2)), float(high))


def _list_by_input(option: str, value: Any, input_names: list[str]) -> list[list[Any]]:
    """Return a list of functions for each model input from the value of an option.

    Parameters
    ----------
    option
        Name of the option, for error messages.
    value
        Functions for the first input, a list of functions for each input, or a dict by input name.
    input_names
        Names of the inputs.

    Returns
    -------
    list of list
        The functions for each input.
    """
    if isinstance(value, Mapping):
        _check_names(option, value, input_names)
        return [listify(value.get(name)) for name in input_names]
    items = listify(value)
    lists = items if any(isinstance(item, list) for item in items) else [items]
    if len(lists) > len(input_names):
        raise OptionError(
            f"{option} must have at most one entry for each of {len(input_names)} inputs: got "
            f"{len(lists)}"
        )
    for function in (function for functions in lists for function in listify(functions)):
        if not callable(function):
            raise OptionError(f"{option} must be functions of an input, not {function!r}")
    return [listify(functions) for functions in lists] + [[] for _ in input_names[len(lists) :]]


def _check_names(option: str, value: Mapping[str, Any], input_names: list[str]) -> None:
    """Raise OptionError unless the keys of an option's value are names of inputs."""
    unknown = set(value) - set(input_names)
    if unknown:
        raise OptionError(
            f"{option}: the model has no input {', '.join(sorted(unknown))}; inputs: "
            f"{', '.join(input_names)}"
        )


def _list_result_modifiers(value: Any, input_names: list[str]) -> list[Any]:
    """Return for each model input the function that modifies its result, or None.

    Parameters
    ----------
    value
        Function for the first input, or a dict: input name -> function.
    """
    if isinstance(value, Mapping):
        _check_names("activation_modifiers", value, input_names)
        return [value.get(name) for name in input_names]
    return [value] + [None for _ in input_names[1:]]


def _make_labels(regularizers_by_input: list[list[Any]], input_names: list[str]) -> list[str]:
    """Return a label for each regularizer.

    It consists of its name, and of the name of its input if there are several.
    """
    return [
        getattr(regularizer, "name", f"regularizer-{index}")
        + (f"({name})" if len(input_names) > 1 else "")
        for name, regularizers in zip(input_names, regularizers_by_input, strict=True)
        for index, regularizer in enumerate(regularizers)
    ]


def _copy_optimizer(optimizer: Any) -> Any:
    """Return a new optimizer of the same configuration as an optimizer.

    Parameters
    ----------
    optimizer
        The optimizer. None: RMSprop.
    """
    optimizers = keras().optimizers
    if optimizer is None:
        return optimizers.RMSprop(1.0, rho=0.999)
    if not isinstance(optimizer, optimizers.Optimizer):
        raise OptionError(f"optimizer must be a keras.optimizers.Optimizer, not {optimizer!r}")
    return type(optimizer).from_config(optimizer.get_config())


def _finish_result(values: Array, bounds: Range, modifier: Callable[[Any], Any] | None) -> Any:
    low, high = bounds
    if low is not None or high is not None:
        values = np.clip(values, low, high)
    if isinstance(low, int):
        values = values.astype(np.int64)
    return values if modifier is None else modifier(values)
