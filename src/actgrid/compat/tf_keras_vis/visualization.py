"""What tf-keras-vis's methods share: a model, modifiers of it, scores and inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch
from actgrid.attribution.compiled import kept
from actgrid.attribution.requests import prepare_request
from actgrid.compat.tf_keras_vis.utils import listify, normalize
from actgrid.errors import ActgridError, OptionError, ShapeError
from actgrid.models import load_model
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import prepare_inputs
from actgrid.models.refusals import reason

__all__ = [
    "BatchScore",
    "ModelVisualization",
    "anew",
    "check_inference",
    "enlarged",
    "finished",
    "fitting",
]

Array = npt.NDArray[Any]


def anew(function: Any) -> Any:
    """Return a function that equals none of an earlier call, and so is traced, unless it is ours.

    Scripts change the variables that their functions read.
    """
    ours = str(getattr(function, "__module__", "")).startswith(f"{__package__}.")
    return function if ours or function is None else partial(function)


@dataclass(frozen=True)
class BatchScore:
    """Scores of a batch of images: one function for each output, which sees the whole batch.

    Functions may take images and classes out of the output by hand, so that the model must run on
    as many images as they are written for.
    """

    functions: tuple[Callable[[Any], Any], ...]
    count: int

    def values(self, outputs: Any) -> list[Any]:
        """Return of each output its scores as tensors: (N,), or whatever the function gives.

        Raises
        ------
        OptionError
            If there is not one function for each output, or one cannot be traced.
        """
        tf = tensorflow()
        tensors = tf.nest.flatten(outputs)
        if len(tensors) != len(self.functions):
            raise OptionError(
                f"the model has {len(tensors)} outputs, so there must be as many scores in a list, "
                f"not {len(self.functions)}"
            )
        found = []
        for function, tensor in zip(self.functions, tensors, strict=True):
            whole = tf.ensure_shape(tensor, [self.count, *tensor.shape[1:]])
            try:
                scores = tf.cast(tf.convert_to_tensor(function(whole)), tf.float32)
            except ActgridError:
                raise
            except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
                raise OptionError(
                    "a score is traced, and must be made of TensorFlow's operations: "
                    f"{reason(error)}"
                ) from error
            found.append(tf.reduce_mean(scores, list(range(1, scores.shape.rank))))
        return found

    def __call__(self, outputs: Any) -> Any:
        """Return (N,) scores, summed over the outputs.

        Of a function that gives fewer, such as that of one image of several, each image has an
        equal share: the gradients are the same.
        """
        tf = tensorflow()
        total = tf.zeros(self.count)
        for scores in self.values(outputs):
            if scores.shape.rank == 1 and scores.shape[0] in (None, self.count):
                total += scores
            else:
                total += tf.reduce_sum(scores) / self.count
        return total


class ModelVisualization(ABC):
    """A way to look at a model.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    model_modifier
        What is done to the model first: a function of it, or several in a list, that return
        another model or None. See `actgrid.compat.tf_keras_vis.utils.model_modifiers`.
    clone
        Whether a copy of the model is modified and not the model itself.

    Raises
    ------
    OptionError
        If a modifier is no function, or the model cannot be copied. Also a ValueError.
    """

    def __init__(self, model: Any, model_modifier: Any = None, clone: bool = True) -> None:
        self.model: Any = load_model(model)
        modifiers = listify(model_modifier)
        for modifier in modifiers:
            if not callable(modifier):
                raise OptionError(f"model_modifier must be functions of a model, not {modifier!r}")
        if modifiers and clone:
            self.model = _copied(self.model)
        original = self.model
        for modifier in modifiers:
            modified = modifier(self.model)
            self.model = self.model if modified is None else modified
        if modifiers:
            # Functions that were compiled before do not know of it.
            kept(original).clear()
            kept(self.model).clear()

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Look at the model."""

    def _batches(
        self, score: Any, seed_input: Any, min_rank: int = 3
    ) -> list[ExplainedBatch | None]:
        """Return the batch of each input, None for inputs of a lower rank.

        Raises
        ------
        OptionError, ShapeError
            If the scores or the inputs do not fit the model, or no input has the rank.
        """
        inputs = self._inputs(seed_input)
        given = inputs if len(inputs) > 1 else inputs[0]
        chosen = [array.ndim >= min_rank and array.dtype.kind in "biuf" for array in inputs]
        if not any(chosen):
            raise ShapeError(
                f"an input must have {min_rank} axes or more, such as (N, T, C) or (N, H, W, C), "
                "not " + ", ".join(str(array.shape) for array in inputs)
            )
        count = len(inputs[0])
        scores = self._scores(score, count)

        def batch(position: int) -> ExplainedBatch:
            request = prepare_request(
                self.model,
                given,
                scores,
                image_input=position,
                batch_size=count,
                any_rank=True,
            )
            return request.batch

        return [batch(position) if fits else None for position, fits in enumerate(chosen)]

    def _scores(self, score: Any, count: int) -> BatchScore:
        functions = tuple(listify(score))
        for function in functions:
            if not callable(function):
                raise OptionError(f"a score must be a function of the output, not {function!r}")
        return BatchScore(tuple(map(anew, functions)), count)

    def _inputs(self, seed_input: Any) -> list[Array]:
        """Return the inputs with their batch axes."""
        inputs = [np.asarray(one) for one in listify(seed_input)]
        shapes = [tuple(one.shape) for one in getattr(self.model, "inputs", None) or []]
        inputs = [
            one[None] if place < len(shapes) and one.ndim == len(shapes[place]) - 1 else one
            for place, one in enumerate(inputs)
        ]
        prepare_inputs(self.model, inputs)
        return inputs

    def _as_given(self, maps: list[Any], seed_input: Any) -> Any:
        """Return one array for an input that was not in a list."""
        return maps[0] if len(maps) == 1 and not isinstance(seed_input, list) else maps


def _copied(model: Any) -> Any:
    try:
        copy = keras().models.clone_model(model)
        copy.set_weights(model.get_weights())
    except (ValueError, NotImplementedError, TypeError) as error:
        raise OptionError(f"the model {model.name!r} cannot be copied: give clone=False") from error
    return copy


def check_inference(training: bool) -> None:
    """Raise OptionError unless the model runs as in inference: the gradients are those then."""
    if training:
        raise OptionError("training must be False: the model is explained as it predicts")


def enlarged(maps: Any, sides: Any) -> Any:
    """Return maps, (N, ...), with other sides: linear between corners that stay, as in scipy."""
    tf = tensorflow()
    rank = maps.shape.rank
    # One axis at a time, always the first one after the samples; it goes to the end.
    for axis in range(rank - 1):
        shape = tf.shape(maps)
        lines = tf.raw_ops.ResizeBilinear(
            images=tf.reshape(maps, (shape[0], shape[1], 1, tf.reduce_prod(shape[2:]))),
            size=tf.stack([sides[axis], 1]),
            align_corners=True,
        )
        maps = tf.reshape(lines, tf.concat([shape[:1], [sides[axis]], shape[2:]], 0))
        maps = tf.transpose(maps, (0, *range(2, rank), 1))
    return maps


def fitting(batches: list[ExplainedBatch | None], maps: Array) -> list[ExplainedBatch | None]:
    """Return the inputs whose axes are those of maps, (N, ...); None for the others.

    Raises
    ------
    ShapeError
        If there is none.
    """
    found = [
        batch if batch is not None and len(_sides(batch)) == maps.ndim - 1 else None
        for batch in batches
    ]
    if not any(batch is not None for batch in found):
        raise ShapeError(
            f"the layer gives maps of {maps.shape[1:]}, and no input has as many axes between "
            "samples and channels: name another layer"
        )
    return found


def _sides(batch: ExplainedBatch) -> tuple[int, ...]:
    """Return the lengths of the axes that a map of an input has."""
    # Tokens, (N, T), have no channels.
    return batch.sides or tuple(batch.image.shape[1:])


def finished(
    maps: Array,
    batches: list[ExplainedBatch | None],
    activation_modifier: Callable[[Any], Any] | None,
    expand: bool,
    normalized: bool,
) -> Any:
    """Return class activation maps as they are asked for: those of the layer, or for each input."""
    tf = tensorflow()
    if activation_modifier is not None:
        maps = np.asarray(activation_modifier(tf.constant(maps)), np.float32)
    if not expand:
        return normalize(maps) if normalized else maps
    found: list[Array | None] = []
    for batch in fitting(batches, maps):
        if batch is None:
            found.append(None)
            continue
        larger = np.asarray(enlarged(tf.constant(maps), _sides(batch)))
        found.append(normalize(larger) if normalized else larger)
    return found
