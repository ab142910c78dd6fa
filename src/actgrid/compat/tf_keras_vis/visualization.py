"""Base class of the methods of tf-keras-vis, and helper functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch
from actgrid.attribution.requests import prepare_request
from actgrid.compat.tf_keras_vis.utils import listify, normalize
from actgrid.errors import ActgridError, ModelError, OptionError, ShapeError
from actgrid.models import load_model
from actgrid.models.copying import copy_model
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import prepare_inputs
from actgrid.models.model_errors import summarize_error

__all__ = [
    "BatchScore",
    "ModelVisualization",
    "check_inference",
    "finish_maps",
    "force_retrace",
    "match_rank",
    "resize_maps",
]

Array = npt.NDArray[Any]


def force_retrace(function: Any) -> Any:
    """Wrap a user's function so that TensorFlow traces it again at each call.

    Scripts may change variables that their functions read. Functions of this package, and None,
    are returned unchanged.

    Returns
    -------
    callable or None
        The wrapped function.
    """
    is_own = str(getattr(function, "__module__", "")).startswith(f"{__package__}.")
    return function if is_own or function is None else partial(function)


@dataclass(frozen=True)
class BatchScore:
    """Score function of a batch, composed of a function for each model output.

    Functions may index the images of the batch, so the model must always run on batches of `count`
    images.

    Attributes
    ----------
    functions
        A score function for each output.
    count
        Number of images in the batch.
    """

    functions: tuple[Callable[[Any], Any], ...]
    count: int

    def compute_scores(self, outputs: Any) -> list[Any]:
        """Compute the scores of each model output by its score function.

        Returns
        -------
        list of tensor
            Scores of each output, (N,) or a scalar.

        Raises
        ------
        OptionError
            If the number of functions is not the number of outputs, or a function cannot be traced.
        """
        tf = tensorflow()
        tensors = tf.nest.flatten(outputs)
        if len(tensors) != len(self.functions):
            raise OptionError(
                f"score must be a list of one function for each of the {len(tensors)} outputs: got "
                f"{len(self.functions)}"
            )
        scores_by_output = []
        for function, tensor in zip(self.functions, tensors, strict=True):
            output = tf.ensure_shape(tensor, [self.count, *tensor.shape[1:]])
            try:
                scores = tf.cast(tf.convert_to_tensor(function(output)), tf.float32)
            except ActgridError:
                raise
            except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
                raise OptionError(
                    "a score is traced, and must consist of TensorFlow operations: "
                    f"{summarize_error(error)}"
                ) from error
            means = tf.reduce_mean(scores, list(range(1, scores.shape.rank)))
            scores_by_output.append(means)
        return scores_by_output

    def __call__(self, outputs: Any) -> Any:
        """Compute the score of each image, summed over the outputs of the model.

        Fewer than N scores of a function are distributed equally over the images, which does not
        change the gradients.

        Returns
        -------
        tensor
            (N,).
        """
        tf = tensorflow()
        total = tf.zeros(self.count)
        for scores in self.compute_scores(outputs):
            if scores.shape.rank == 1 and scores.shape[0] in (None, self.count):
                total += scores
            else:
                total += tf.reduce_sum(scores) / self.count
        return total


class ModelVisualization(ABC):
    """Base class of the methods of tf-keras-vis.

    Parameters
    ----------
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes.
    model_modifier : callable or list of callable, optional
        Functions that change the model in place and return None, or return another model. See
        `actgrid.compat.tf_keras_vis.utils.model_modifiers`. None: the model is not modified.
    clone : bool, optional
        Whether to modify a copy of the model instead of the model.

    Raises
    ------
    OptionError
        If a modifier is not callable, or the model cannot be copied. Also a ValueError.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_keras_vis.saliency import Saliency
    >>> from actgrid.compat.tf_keras_vis.utils.model_modifiers import ReplaceToLinear
    >>> from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2, activation="softmax"),
    ... ])
    >>> saliency = Saliency(model, model_modifier=ReplaceToLinear())
    >>> saliency(CategoricalScore([0, 1]), np.random.rand(2, 8, 8, 3)).shape
    (2, 8, 8)
    """

    def __init__(self, model: Any, model_modifier: Any = None, clone: bool = True) -> None:
        self.model: Any = load_model(model)
        modifiers = listify(model_modifier)
        for modifier in modifiers:
            if not callable(modifier):
                raise OptionError(f"model_modifier must be a function of a model, not {modifier!r}")
        if modifiers and clone:
            self.model = _copy_model(self.model)
        for modifier in modifiers:
            modified = modifier(self.model)
            self.model = self.model if modified is None else modified

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the visualization method; the subclasses define the arguments."""

    def _batches(
        self, score: Any, seed_input: Any, min_rank: int = 3
    ) -> list[ExplainedBatch | None]:
        """Prepare a batch for an explanation with respect to each model input.

        Parameters
        ----------
        score
            Score functions.
        seed_input
            Inputs of the model.
        min_rank
            Lowest number of axes of an input that is explained.

        Returns
        -------
        list of ExplainedBatch or None
            One for each input. None: the input has fewer axes, or is not numeric.

        Raises
        ------
        OptionError
            If the scores are not functions. Also a ValueError.
        ShapeError
            If the inputs do not fit the model, or no input has `min_rank` axes. Also a ValueError.
        """
        inputs = self._prepare_inputs(seed_input)
        model_input = inputs if len(inputs) > 1 else inputs[0]
        is_explained = [array.ndim >= min_rank and array.dtype.kind in "biuf" for array in inputs]
        if not any(is_explained):
            raise ShapeError(
                f"an input must have {min_rank} axes or more, such as (N, T, C) or (N, H, W, C), "
                "not " + ", ".join(str(array.shape) for array in inputs)
            )
        count = len(inputs[0])
        batch_score = self._make_batch_score(score, count)

        def make_batch(index: int) -> ExplainedBatch:
            request = prepare_request(
                self.model,
                model_input,
                batch_score,
                image_input=index,
                batch_size=count,
                embedding=False,
                has_batch_axis=True,
            )
            return request.batch

        return [
            make_batch(index) if explained else None for index, explained in enumerate(is_explained)
        ]

    def _make_batch_score(self, score: Any, count: int) -> BatchScore:
        functions = tuple(listify(score))
        for function in functions:
            if not callable(function):
                raise OptionError(f"score must be a function of the output, not {function!r}")
        return BatchScore(tuple(map(force_retrace, functions)), count)

    def _prepare_inputs(self, seed_input: Any) -> list[Array]:
        """Return the model inputs as a list of arrays with batch axes."""
        inputs = [np.asarray(value) for value in listify(seed_input)]
        shapes = [tuple(tensor.shape) for tensor in getattr(self.model, "inputs", None) or []]
        inputs = [
            array[None] if index < len(shapes) and array.ndim == len(shapes[index]) - 1 else array
            for index, array in enumerate(inputs)
        ]
        prepare_inputs(self.model, inputs)
        return inputs

    def _unwrap(self, maps: list[Any], seed_input: Any) -> Any:
        """Return maps in the form of the input: an array, or a list of arrays.

        Parameters
        ----------
        maps
            One array for each input.
        seed_input
            Input of the model: a list, or a single array.
        """
        return maps[0] if len(maps) == 1 and not isinstance(seed_input, list) else maps


def _copy_model(model: Any) -> Any:
    try:
        return copy_model(model)
    except ModelError as error:
        raise OptionError(f"{error}: pass clone=False") from error


def check_inference(training: bool) -> None:
    """Raise OptionError if `training` is True.

    Models are explained in inference mode only.
    """
    if training:
        raise OptionError("training must be False: the model is explained in inference mode")


def resize_maps(maps: Any, sides: Any) -> Any:
    """Resize maps linearly with aligned corners, like `scipy.ndimage.zoom`.

    Parameters
    ----------
    maps
        (N, ...).
    sides
        Lengths of the axes after the first.

    Returns
    -------
    tensor
        (N, *sides).
    """
    tf = tensorflow()
    rank = maps.shape.rank
    # Each step resizes the first axis after the samples and moves the axis to the end.
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


def match_rank(batches: list[ExplainedBatch | None], maps: Array) -> list[ExplainedBatch | None]:
    """Select the inputs that have as many spatial axes as maps.

    Parameters
    ----------
    batches
        Batch that explains each input, or None.
    maps
        (N, ...).

    Returns
    -------
    list of ExplainedBatch or None
        None: the input has another number of spatial axes.

    Raises
    ------
    ShapeError
        If no input has the spatial rank of the maps.
    """
    matching = [
        batch if batch is not None and len(_get_map_sides(batch)) == maps.ndim - 1 else None
        for batch in batches
    ]
    if not any(batch is not None for batch in matching):
        raise ShapeError(
            f"the layer has maps of {maps.shape[1:]}, and no input has as many axes between "
            "samples and channels: choose another layer"
        )
    return matching


def _get_map_sides(batch: ExplainedBatch) -> tuple[int, ...]:
    """Return the spatial shape of a map that is as large as the explained input."""
    return batch.sides


def finish_maps(
    maps: Array,
    batches: list[ExplainedBatch | None],
    activation_modifier: Callable[[Any], Any] | None,
    expand: bool,
    normalize_maps: bool,
) -> Any:
    """Modify, resize and normalize class activation maps.

    Returns
    -------
    ndarray or list
        With `expand`, a list with the maps for each input, None for inputs of another rank;
        otherwise the maps in the size of the layer.
    """
    tf = tensorflow()
    if activation_modifier is not None:
        maps = np.asarray(activation_modifier(tf.constant(maps)), np.float32)
    if not expand:
        return normalize(maps) if normalize_maps else maps
    maps_by_input: list[Array | None] = []
    for batch in match_rank(batches, maps):
        if batch is None:
            maps_by_input.append(None)
            continue
        resized = np.asarray(resize_maps(tf.constant(maps), _get_map_sides(batch)))
        maps_by_input.append(normalize(resized) if normalize_maps else resized)
    return maps_by_input
