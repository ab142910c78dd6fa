"""Activation maximisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.compiled import compiled
from actgrid.compat.tf_keras_vis.activation_maximization.input_modifiers import Jitter, Rotate2D
from actgrid.compat.tf_keras_vis.activation_maximization.regularizers import Norm, TotalVariation2D
from actgrid.compat.tf_keras_vis.utils import listify
from actgrid.compat.tf_keras_vis.visualization import BatchScore, ModelVisualization, anew
from actgrid.errors import ModelError, OptionError
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import input_names
from actgrid.option_checks import integer_option

__all__ = ["ActivationMaximization"]

Array = npt.NDArray[Any]
Range = tuple[float | None, float | None]

_MODIFIERS = (Jitter(jitter=4), Rotate2D(degree=1))
_REGULARIZERS = (TotalVariation2D(weight=1.0), Norm(weight=0.3, p=1))


@dataclass(frozen=True)
class _Slope:
    """Gradients of what is to be small, with the scores and regularizations that it is made of."""

    score: BatchScore
    # Of each input.
    regularizers: tuple[tuple[Any, ...], ...]
    training: bool

    def __call__(self, model: Any, inputs: list[Any]) -> Any:
        tf = tensorflow()
        taken = [tf.ensure_shape(one, [self.score.count, *one.shape[1:]]) for one in inputs]
        outputs = model(taken if len(taken) > 1 else taken[0], training=self.training)
        scores = self.score.values(outputs)
        terms = [
            regularizer(one)
            for one, regularizers in zip(taken, self.regularizers, strict=True)
            for regularizer in regularizers
        ]
        total = sum(map(tf.reduce_sum, terms)) - sum(map(tf.reduce_sum, scores))
        slopes = tf.gradients(total, taken)
        if any(slope is None for slope in slopes):
            raise ModelError("the score does not depend on every input, or not smoothly")
        return slopes, scores, terms, tf.nest.flatten(outputs)


class ActivationMaximization(ModelVisualization):
    """Finds inputs that excite a model, by gradient ascent.

    `actgrid.maximize` does so for channels and classes in fewer steps and in natural colours.
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
        """Return inputs that make the score large.

        Parameters
        ----------
        score
            A function of the output, such as ``CategoricalScore([1, 294])``; a list of them for
            several outputs. It is traced.
        seed_input
            What to begin with, (N, H, W, C) or one without N; a list for several inputs. None:
            one at random.
        input_range
            (low, high) of the inputs, or a list of these; None for no bound.
        input_modifiers
            Functions of an input, done before each step, by default ``Jitter(4)`` and
            ``Rotate2D(1)``; of several inputs a dict by the inputs' names, or a list of lists.
        regularizers
            Functions of an input that are to be small, likewise, by default
            ``TotalVariation2D(1.0)`` and ``Norm(0.3, p=1)``. They are traced.
        steps
            How many.
        optimizer
            One of Keras's; None: ``RMSprop(1.0, rho=0.999)``. A copy of it is used, so that one may
            be given time and again.
        gradient_modifier
            What is done to the gradients of each input.
        callbacks
            See `actgrid.compat.tf_keras_vis.activation_maximization.callbacks`.
        training
            Whether the model runs as in training.
        unconnected_gradients, normalize_gradient
            Without effect.
        activation_modifiers
            What is done to the result: a function, or a dict of them by the inputs' names.

        Returns
        -------
        numpy.ndarray or list
            Of the input's shape: int64 where the low end of the range is an int, so that it can be
            shown as pixels, and float32 otherwise. A list for several inputs, or if `seed_input`
            was one.

        Raises
        ------
        OptionError, ShapeError, TargetError, ModelError
            If an argument cannot be used. ValueErrors.

        Examples
        --------
        >>> maximize = ActivationMaximization(model, model_modifier=ReplaceToLinear())
        >>> maximize(CategoricalScore(20), callbacks=[Progress()]).shape
        (1, 224, 224, 3)
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        tf = tensorflow()
        steps = integer_option("steps", steps, 1)
        names = input_names(self.model)
        if not names:
            raise ModelError(f"the inputs of the model {self.model.name!r} are not known")
        ranges = _ranges(input_range, len(names))
        inputs = self._seeds(seed_input, ranges)
        modifiers = _of_each_input("input_modifiers", input_modifiers, names)
        penalties = _of_each_input("regularizers", regularizers, names)
        last = _last_modifiers(activation_modifiers, names)
        regularizing = tuple(tuple(map(anew, listed)) for listed in penalties)
        scores_of = self._scores(score, len(inputs[0]))
        slope = compiled(self.model, _Slope(scores_of, regularizing, training))
        labels = _labels(penalties, names)
        variables = [keras().Variable(one, dtype="float32") for one in inputs]
        ascent = _copied(optimizer)

        def step() -> tuple[Any, ...]:
            for variable, functions in zip(variables, modifiers, strict=True):
                value = tf.convert_to_tensor(variable.value)
                for function in functions:
                    value = function(value)
                variable.assign(value)
            taken = [tf.convert_to_tensor(variable.value) for variable in variables]
            slopes, scores, terms, outputs = slope(taken)
            if gradient_modifier is not None:
                slopes = [gradient_modifier(one) for one in slopes]
            ascent.apply(slopes, variables)
            return slopes, scores, terms, outputs

        watchers = listify(callbacks)
        begun: list[Any] = []
        results: list[Array] = []
        try:
            for watcher in watchers:
                told = {k: v for k, v in arguments.items() if k != "callbacks"}
                # Those of version 0.5 are told nothing.
                watcher.on_begin(**(told if signature(watcher.on_begin).parameters else {}))
                begun.append(watcher)
            for number in range(steps):
                slopes, scores, terms, outputs = step()
                if not watchers and number < steps - 1:
                    continue
                results = [
                    _clipped(variable.numpy(), bounds, modifier)
                    for variable, bounds, modifier in zip(variables, ranges, last, strict=True)
                ]
                for watcher in watchers:
                    watcher(
                        number,
                        results,
                        slopes,
                        scores,
                        outputs,
                        regularizations=list(zip(labels, terms, strict=True)),
                        overall_score=[*(-score for score in scores), *terms],
                    )
        finally:
            for watcher in begun:
                watcher.on_end()
        return self._as_given(results, seed_input)

    def _seeds(self, seed_input: Any, ranges: list[Range]) -> list[Array]:
        """Return what to begin with."""
        if seed_input is not None and not (isinstance(seed_input, list) and not seed_input):
            return [one.astype(np.float32) for one in self._inputs(seed_input)]
        tf = tensorflow()
        seeds = []
        for tensor, (low, high) in zip(self.model.inputs, ranges, strict=True):
            shape = tuple(tensor.shape[1:])
            if None in shape:
                raise OptionError(f"the model takes inputs of {shape}: give a seed_input")
            seeds.append(np.asarray(tf.random.uniform((1, *shape), *_bounds(low, high))))
        return seeds


def _ranges(given: Any, count: int) -> list[Range]:
    ranges = listify(given, return_empty_list_if_none=False, convert_tuple_to_list=False)
    if len(ranges) == 1:
        ranges = ranges * count
    ranges = [(None, None) if one is None else one for one in ranges]
    if len(ranges) != count or any(not isinstance(one, tuple) or len(one) != 2 for one in ranges):
        raise OptionError(f"input_range must be (low, high), or {count} of these, not {given!r}")
    return ranges


def _bounds(low: float | None, high: float | None) -> tuple[float, float]:
    """Return where to begin between bounds of which some are open."""
    if low is not None:
        return float(low), float(low + abs(low * 2) if high is None else high)
    return (0.0, 1.0) if high is None else (float(high - abs(high / 2)), float(high))


def _of_each_input(name: str, given: Any, names: list[str]) -> list[list[Any]]:
    """Return the functions for each input."""
    if isinstance(given, Mapping):
        _check_names(name, given, names)
        return [listify(given.get(one)) for one in names]
    functions = listify(given)
    lists = functions if any(isinstance(one, list) for one in functions) else [functions]
    if len(lists) > len(names):
        raise OptionError(f"{name} are for {len(lists)} inputs, but the model has {len(names)}")
    for function in (one for listed in lists for one in listify(listed)):
        if not callable(function):
            raise OptionError(f"{name} must be functions of an input, not {function!r}")
    return [listify(one) for one in lists] + [[] for _ in names[len(lists) :]]


def _check_names(name: str, given: Mapping[str, Any], names: list[str]) -> None:
    unknown = set(given) - set(names)
    if unknown:
        raise OptionError(
            f"{name}: the model has no input {', '.join(sorted(unknown))}, but {', '.join(names)}"
        )


def _last_modifiers(given: Any, names: list[str]) -> list[Any]:
    if isinstance(given, Mapping):
        _check_names("activation_modifiers", given, names)
        return [given.get(name) for name in names]
    return [given] + [None for _ in names[1:]]


def _labels(regularizers: list[list[Any]], names: list[str]) -> list[str]:
    """Return the names of all regularizers, with that of the input if there are several."""
    return [
        getattr(regularizer, "name", f"regularizer-{number}")
        + (f"({name})" if len(names) > 1 else "")
        for name, listed in zip(names, regularizers, strict=True)
        for number, regularizer in enumerate(listed)
    ]


def _copied(optimizer: Any) -> Any:
    """Return an optimizer that has not seen any variables yet."""
    optimizers = keras().optimizers
    if optimizer is None:
        return optimizers.RMSprop(1.0, rho=0.999)
    if not isinstance(optimizer, optimizers.Optimizer):
        raise OptionError(f"optimizer must be one of keras.optimizers, not {optimizer!r}")
    return type(optimizer).from_config(optimizer.get_config())


def _clipped(values: Array, bounds: Range, modifier: Callable[[Any], Any] | None) -> Any:
    low, high = bounds
    if low is not None or high is not None:
        values = np.clip(values, low, high)
    if isinstance(low, int):
        values = values.astype(np.int64)
    return values if modifier is None else modifier(values)
