"""Relevance of each channel of a layer for a score: activation times gradient, summed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch, ScoreReader
from actgrid.attribution.requests import (
    Labels,
    OutputRequest,
    load_model_inputs,
    prepare_model_inputs,
    prepare_targets,
)
from actgrid.attribution.scores import TargetScores
from actgrid.errors import CapabilityError, OptionError
from actgrid.models.extraction import get_extractor, trace_layers
from actgrid.models.frameworks import tensorflow
from actgrid.models.graph import describe_inputs
from actgrid.models.inputs import free_batch_axis, get_fixed_batch_size, map_tensors
from actgrid.models.layers import LayerInfo
from actgrid.models.loading import load_model
from actgrid.models.network import describe_network, is_differentiable
from actgrid.models.networks import get_network
from actgrid.models.types import LayersLike, ModelInput, ModelLike, TargetLike
from actgrid.option_checks import check_sample
from actgrid.option_groups import takes_options
from actgrid.options import ChannelRelevanceOptions

__all__ = [
    "check_gradients",
    "check_order_options",
    "measure_channel_relevance",
    "measure_sample_relevance",
    "measure_target_relevance",
]

Array = npt.NDArray[np.float32]


@takes_options(ChannelRelevanceOptions, batch_size=32)
def measure_channel_relevance(
    model: ModelLike,
    x: ModelInput,
    layers: LayersLike = None,
    target: TargetLike = None,
    **options: Unpack[ChannelRelevanceOptions],
) -> dict[str, Array]:
    """Measure how much each channel of a model's layers contributes to a score.

    The relevance of a channel is the sum over its positions of the activation times the gradient of
    the score with respect to the activation. It estimates by how much the score would decrease if
    the channel were zero.

    Parameters
    ----------
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes.
    x : array_like, dict, list or image sources
        The model's input, as in `actgrid.explain`.
    layers : str, int, type, callable, list or None, optional
        The layers, see `actgrid.Extractor`. None: all layers with a spatial output.
    target : int, str, callable, list or dict, optional
        The class or function whose score is used, as in `actgrid.explain`. None: the class that the
        model predicts. If the model ends in a softmax or sigmoid, the score is the logit.
    **options
        See `actgrid.options.ChannelRelevanceOptions`.

    Returns
    -------
    dict of {str: numpy.ndarray}
        Layer path -> relevance, (N, channels) float32, in the order in which the layers run. There
        is a row for each target, ordered by sample. The channels of attention scores are the heads.
        The relevance is zero in a layer that the score does not depend on, such as a layer after
        the logits, and in a layer of integers.

    Raises
    ------
    CapabilityError
        If TensorFlow cannot differentiate the model. Also a ValueError.
    TargetError
        If the model has no such class or output, or the target function fails. Also a ValueError.
    LayerError
        If an item of `layers` matches no layer. Also a KeyError.
    ActgridError
        If the model cannot be loaded or run on `x`.

    Notes
    -----
    All layers are measured in one pass: the model runs once on each batch, forward and backward.
    `actgrid.render_model` sorts the channels of each layer by this measure with
    ``order="relevance"``.

    References
    ----------
    Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2016,
    https://arxiv.org/abs/1611.06440. The criterion there is the absolute value of the mean over the
    positions.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2, activation="softmax"),
    ... ])
    >>> x = np.random.default_rng(0).random((2, 8, 8, 3))
    >>> relevance = actgrid.measure_channel_relevance(model, x, "conv", target=1)
    >>> relevance["conv"].shape
    (2, 4)
    """
    extractor = get_extractor(model, layers)
    loaded = extractor.model
    check_gradients(loaded)
    tokens = options["tokens"]
    inputs = load_model_inputs(loaded, x, tokens)
    infos = extractor.layers or trace_layers(extractor, map_tensors(free_batch_axis, inputs))
    requests, samples = prepare_targets(
        loaded, inputs, target, options["labels"], options["batch_size"], tokens
    )
    return measure_target_relevance(requests, len(samples), list(infos))


def measure_sample_relevance(
    model: ModelLike,
    x: Any,
    paths: Sequence[str],
    target: TargetLike = None,
    labels: Labels = None,
    sample: int | None = None,
) -> dict[str, Array]:
    """Measure the relevance of channels for one score of each sample of a batch.

    Parameters
    ----------
    x
        The model's input with its batch axis.
    paths
        Paths of the layers.
    target, labels
        See `measure_channel_relevance`. The target must be one class or function for each sample.
    sample
        Position of the only sample to measure; None: all samples.

    Returns
    -------
    dict of {str: numpy.ndarray}
        Layer path -> (N, channels), with one row if `sample` is given.

    Raises
    ------
    OptionError
        If the target has several classes for a sample.
    """
    loaded = load_model(model)
    check_gradients(loaded)
    inputs = prepare_model_inputs(loaded, x, has_batch_axis=True)
    requests, samples = prepare_targets(loaded, inputs, target, labels)
    if len(set(samples)) < len(samples):
        raise OptionError(
            "target must be one class or function for each sample with order='relevance': got "
            f"{len(samples)} targets for {len(set(samples))} samples"
        )
    if sample is None:
        return measure_target_relevance(requests, len(samples), paths)
    row = samples.index(check_sample(sample, len(samples)))
    if get_fixed_batch_size(loaded) is not None:
        relevance = measure_target_relevance(requests, len(samples), paths)
        return {path: values[row : row + 1] for path, values in relevance.items()}
    (request,) = (request for request in requests if row in request.map_indices)
    position = list(request.map_indices).index(row)
    classes = request.batch.target_classes[position : position + 1]
    batch = request.batch.select([position], classes)
    return measure_target_relevance([replace(request, batch=batch, map_indices=[0])], 1, paths)


def measure_target_relevance(
    requests: Sequence[OutputRequest], count: int, paths: Sequence[str]
) -> dict[str, Array]:
    """Measure the relevance of channels for prepared targets.

    Parameters
    ----------
    requests
        The samples and targets, from `prepare_targets`.
    count
        Number of targets.
    paths
        Paths of the layers or inputs of the model.

    Returns
    -------
    dict of {str: numpy.ndarray}
        Path -> (count, channels), in the order of the targets.
    """
    parts: list[list[Array]] = [[] for _ in paths]
    indices: list[int] = []
    for request in requests:
        for part, map_indices in request.split():
            indices += map_indices
            for values, rows in zip(parts, _measure(part, tuple(paths)), strict=True):
                values.append(rows)
    order = np.argsort(indices)
    return {path: np.concatenate(values)[order] for path, values in zip(paths, parts, strict=True)}


def _measure(batch: ExplainedBatch, paths: tuple[str, ...]) -> list[Array]:
    """Return the relevance of the channels of each layer for a batch, (N, channels)."""
    values, target_scores = batch.run(_RelevanceFunction(batch.reader, paths))
    batch.check_scores(target_scores)
    arrays = [np.asarray(array) for array in values]
    if all(len(array) == len(batch) for array in arrays):
        return arrays
    # A layer may have one output for the whole batch, or several windows of each sample.
    if len(batch) == 1:
        return [array.sum(0, keepdims=True) for array in arrays]
    samples = [_measure(sample, paths) for sample in replace(batch, batch_size=1).split()]
    return [np.concatenate(rows) for rows in zip(*samples, strict=True)]


@dataclass(frozen=True)
class _RelevanceFunction:
    """Function that computes the relevance of the channels of layers, and the target scores."""

    reader: ScoreReader
    paths: tuple[str, ...]

    def __call__(
        self, model: Any, inputs: Any, target_classes: Any
    ) -> tuple[list[Any], TargetScores]:
        tf = tensorflow()
        run = self.reader.run(model, inputs, target_classes)
        outputs = {
            info.path: _LayerOutput(info, tensor, tensor)
            for info, tensor in describe_inputs(model, inputs)
        }
        for call in run.calls:
            if call.scores is None:
                output = _LayerOutput(call.info, call.tensor, call.tensor)
            else:
                scores = call.scores
                output = _LayerOutput(call.info, call.tensor, scores.tensor, scores.arrange)
            outputs[call.info.path] = output
        selected = [outputs[path] for path in self.paths]
        # Tensors of integers have no gradient.
        sources = [output.source for output in selected if output.source.dtype.is_floating]
        gradients = tf.gradients(run.target_scores.scores, sources)
        gradient_by_name = {
            source.name: gradient for source, gradient in zip(sources, gradients, strict=True)
        }
        values = [
            output.sum_product(gradient_by_name.get(output.source.name)) for output in selected
        ]
        return values, run.target_scores


class _LayerOutput(NamedTuple):
    """Record of a layer output whose channels are measured.

    Attributes
    ----------
    info
        Description of the output.
    tensor
        The output.
    source
        The tensor from which the score is computed: the output, or for attention the scores as the
        model computes them.
    arrange
        Function that gives the gradient at `source` the axes of the output; None: it has them.
    """

    info: LayerInfo
    tensor: Any
    source: Any
    arrange: Callable[[Any], Any] | None = None

    def sum_product(self, gradient: Any) -> Any:
        """Return the sum of activation times gradient for each channel, (N, channels).

        Parameters
        ----------
        gradient
            Gradient at `source`; None: the score does not depend on it.
        """
        tf = tensorflow()
        product = tf.cast(self.tensor, tf.float32)
        if gradient is None:
            product = tf.zeros_like(product)
        else:
            arranged = gradient if self.arrange is None else self.arrange(gradient)
            product *= tf.cast(arranged, tf.float32)
        rank = product.shape.rank
        if rank == 1:
            return product[:, None]
        axes = [axis for axis in range(1, rank) if axis != self.info.channel_axis]
        return tf.reduce_sum(product, axes)


def check_gradients(model: Any) -> None:
    """Raise CapabilityError if TensorFlow cannot differentiate a model."""
    network = get_network(model)
    if not is_differentiable(network):
        raise CapabilityError(
            f"the relevance of channels needs gradients, which {describe_network(network)} does "
            "not provide; expected a Keras model or a SavedModel"
        )


def check_order_options(options: Mapping[str, Any]) -> bool:
    """Check the options of drawing that belong to ``order="relevance"``.

    Returns
    -------
    bool
        Whether the channels are sorted by relevance.

    Raises
    ------
    OptionError
        If `target` or `labels` is given with another order, or an option that changes the channels
        with this order.
    """
    order = options.get("order", "index")
    is_by_relevance = isinstance(order, str) and order == "relevance"
    given = [
        name
        for name in (("kind", "data_format") if is_by_relevance else ("target", "labels"))
        if options.get(name) is not None
    ]
    if given and is_by_relevance:
        raise OptionError(
            f"{given[0]} must be None with order='relevance', which uses the channels of the layer"
        )
    if given:
        raise OptionError(
            f"{given[0]} is only used with order='relevance': got order={order!r}; pass "
            f"order='relevance', or leave {given[0]} out"
        )
    return is_by_relevance
