"""Metrics of how maps change with the input and with the weights of the model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import ModelError
from actgrid.evaluation.correlation import correlate_ranks
from actgrid.evaluation.metric import EvaluatedMaps, MetricCurve, MetricResult, metric
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import Weight
from actgrid.models.network import check_editable, is_editable
from actgrid.models.networks import get_network

__all__ = ["randomization", "sensitivity"]

Array = npt.NDArray[Any]


@metric(
    "sensitivity",
    "Yeh 2019, https://arxiv.org/abs/1901.09392",
    is_higher_better=False,
    needs=["model", "method"],
)
def sensitivity(
    maps: EvaluatedMaps, *, perturbations: int = 10, radius: float = 0.02, seed: int = 0
) -> MetricResult:
    """Largest relative change of the map for small random changes of the input."""
    assert maps.explain is not None
    random = np.random.default_rng(seed)
    batch = maps.batch
    values = [np.asarray(value) for value in batch.explained_values]
    reference = maps.values.reshape(len(batch), -1).astype(np.float64)
    norm = np.linalg.norm(reference, axis=1)
    largest = np.zeros(len(batch))
    for _ in range(perturbations):
        changed = []
        for value in values:
            axes = tuple(range(1, value.ndim))
            span = np.ptp(value, axes, keepdims=True)
            noise = random.uniform(-radius, radius, value.shape[1:])
            changed.append(tensorflow().constant(value + span * noise, "float32"))
        other = maps.explain(batch.with_values(*changed)).reshape(len(batch), -1)
        largest = np.maximum(largest, np.linalg.norm(other - reference, axis=1))
    return MetricResult(np.divide(largest, norm, np.full_like(norm, np.nan), where=norm > 0))


@metric(
    "randomization",
    "Adebayo 2018, https://arxiv.org/abs/1810.03292",
    is_higher_better=False,
    needs=["model", "method"],
)
def randomization(maps: EvaluatedMaps, *, randomizations: int = 8, seed: int = 0) -> MetricResult:
    """Mean rank correlation with the maps of the model while layers are randomized."""
    assert maps.explain is not None
    batch = maps.batch
    layers = _group_weights_by_layer(batch.model)
    steps = np.unique(np.linspace(0, len(layers), min(randomizations, len(layers)) + 1).astype(int))
    random = np.random.default_rng(seed)
    reference = maps.values.reshape(len(batch), -1)
    similarities = [np.ones(len(batch))]
    with _restore_weights([weight for weights in layers for weight in weights]):
        for start, stop in itertools.pairwise(steps):
            for weights in layers[start:stop]:
                _permute(weights, random)
            other = maps.explain(batch).reshape(len(batch), -1)
            similarities.append(np.nan_to_num(correlate_ranks(reference, other)))
    values = np.stack(similarities, 1)
    curve = MetricCurve(
        steps.astype(np.float32),
        values.astype(np.float32),
        "randomized layers, from the output",
        "rank correlation",
    )
    return MetricResult(values[:, 1:].mean(1), curve)


def _group_weights_by_layer(model: Any) -> list[list[Weight]]:
    """Return the weights of each layer, from the output of the model to its input.

    Weights of one value, and of integers such as the state of random numbers, are left out.
    """
    network = get_network(model)
    check_editable(network, "randomization")
    assert is_editable(network)
    order = {info.path: index for index, info in enumerate(network.list_layers())}
    groups: dict[str, list[Weight]] = {}
    for weight in network.weights():
        shape = tuple(weight.variable.shape)
        if np.prod(shape) > 1 and "float" in str(weight.variable.dtype):
            path = weight.nodes[-1].path if weight.nodes else ""
            groups.setdefault(path, []).append(weight)
    if not groups:
        raise ModelError("randomization needs a model with weights, and this model has none")
    # Weights of a part of a layer that is not listed belong to the place of the listed layer.
    positions = {
        path: max(
            (index for name, index in order.items() if f"{path}/".startswith(f"{name}/")),
            default=-1,
        )
        for path in groups
    }
    return [groups[path] for path in sorted(groups, key=lambda path: -positions[path])]


def _permute(weights: Sequence[Weight], random: np.random.Generator) -> None:
    """Permute the values of weights: their mean and deviation stay, what was learned is lost."""
    for weight in weights:
        values = np.array(weight.variable)
        weight.variable.assign(random.permutation(values.ravel()).reshape(values.shape))


@contextmanager
def _restore_weights(weights: Sequence[Weight]) -> Iterator[None]:
    """Assign the original values of weights at the end of the ``with`` block."""
    originals = [np.array(weight.variable) for weight in weights]
    try:
        yield
    finally:
        for weight, values in zip(weights, originals, strict=True):
            weight.variable.assign(values)
