"""Activation patching: insert the activations of another input, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import (
    ExplainedBatch,
    ScoreReader,
    expand_to_rank,
    gather_baseline,
    gather_rows,
)
from actgrid.errors import ShapeError
from actgrid.interventions.ablation import (
    check_channels,
    check_replaceable,
    prepare_scores,
    score_channels,
    score_samples,
)
from actgrid.interventions.patching import extract_in_batches
from actgrid.interventions.results import ActivationPatching
from actgrid.models import Extractor
from actgrid.models.extraction import get_extractor
from actgrid.models.frameworks import tensorflow
from actgrid.models.types import LayersLike, ModelInput, ModelLike, TargetLike
from actgrid.option_groups import takes_options
from actgrid.options import ActivationPatchingOptions
from actgrid.progress import show_progress

__all__ = ["patch_activations"]

Array = npt.NDArray[Any]


@takes_options(ActivationPatchingOptions, batch_size=32)
def patch_activations(
    model: ModelLike,
    x: ModelInput,
    source: ModelInput,
    layers: LayersLike = None,
    target: TargetLike = None,
    **options: Unpack[ActivationPatchingOptions],
) -> ActivationPatching:
    """Measure the effect of inserting the activations of another input (activation patching).

    The model runs on `x`, but one layer, or one channel of it, gets the values that it has for
    `source`. If the score becomes that of `source`, the layer or channel carries what
    distinguishes the two inputs.

    Parameters
    ----------
    model : keras.Model or str
        A Keras model, or anything that `actgrid.load_model` loads as a Keras model.
    x : array_like, dict, list or image sources
        The input that the model runs on, as in `actgrid.explain`: N samples.
    source : array_like, dict, list or image sources
        The input whose activations are inserted: one sample, or N.
    layers : str, int, type, callable, list or None, optional
        The layers whose activations are inserted, see `actgrid.Extractor`. None: all layers with a
        spatial output.
    target : int, str, callable or list, optional
        The class or function whose score is measured, as in `actgrid.explain`. None: the class that
        the model predicts for `source`.
    **options
        See `actgrid.options.ActivationPatchingOptions`.

    Returns
    -------
    ActivationPatching
        Scores with the activations of each layer or channel inserted, and their effects: 0 if the
        score stays that of `x`, 1 if it becomes that of `source`.

    Raises
    ------
    ShapeError
        If the inputs differ in size, or `source` has neither one sample nor as many as `x`. Also a
        ValueError.
    LayerError
        If an item of `layers` matches no layer, or the score does not depend on a layer whose
        channels are inserted. Also a KeyError.
    CapabilityError
        If the model is not a Keras model. Also a ValueError.
    ActgridError
        If `actgrid.explain` cannot explain the model or the target.

    References
    ----------
    Vig et al., Investigating Gender Bias in Language Models Using Causal Mediation Analysis, 2020,
    https://arxiv.org/abs/2004.12265.
    Meng et al., Locating and Editing Factual Associations in GPT, 2022,
    https://arxiv.org/abs/2202.05262.

    Examples
    --------
    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(name="mean"),
    ...     keras.layers.Dense(2),
    ... ])
    >>> dark, bright = np.zeros((1, 8, 8, 3)), np.ones((1, 8, 8, 3))
    >>> actgrid.patch_activations(model, dark, bright, ["conv", "mean"]).effects
    array([[1., 1.]])
    >>> actgrid.patch_activations(model, dark, bright, "conv", unit="channel")
    <ActivationPatching of 4 channels, 1 samples>
    """
    source_output = prepare_scores(
        model, source, target, "patch_activations", options
    ).get_only_output()
    source_scores, classes, targets, is_logit = score_samples(source_output)
    model = source_output.batch.model
    output = prepare_scores(model, x, target, "patch_activations", options).get_only_output()
    batch, count = output.batch, len(output.batch)
    if len(classes) not in (1, count):
        raise ShapeError(
            f"source must have one sample, or as many as x: got {len(classes)} samples, and "
            f"{count} in x"
        )
    for values, others in zip(
        batch.explained_values, source_output.batch.explained_values, strict=True
    ):
        if values.shape[1:] != others.shape[1:]:
            raise ShapeError(
                f"x and source must have samples of one shape: got {tuple(values.shape[1:])} and "
                f"{tuple(others.shape[1:])}"
            )
    if target is None:
        batch = batch.select(range(count), np.broadcast_to(classes, count))
        output = replace(output, batch=batch)
    scores, classes, _, _ = score_samples(output)
    batch = batch.select(range(count), classes)
    extractor = get_extractor(model, layers)
    sources = _extract(extractor, source_output.batch)
    infos = extractor.layers
    if layers is None:
        infos = {path: info for path, info in infos.items() if info.kind != "attention"}
        sources = {path: sources[path] for path in infos}
    for info in infos.values():
        check_replaceable(info)
    layer_paths, channels, columns = list(infos), None, []
    if options["unit"] == "layer":
        total = -(-count * len(infos) // options["batch_size"])
        runs = _score_layers(batch, sources)
    else:
        channels_by_path = {path: check_channels(info, None) for path, info in infos.items()}
        channels = np.concatenate(list(channels_by_path.values()))
        layer_paths = [path for path, rows in channels_by_path.items() for _ in rows]
        total = sum(
            -(-count * len(rows) // options["batch_size"]) for rows in channels_by_path.values()
        )
        activations = _extract(extractor, batch)
        runs = (
            run
            for path, rows in channels_by_path.items()
            for run in score_channels(batch, infos[path], activations[path], sources[path], rows)
        )
    with show_progress(total, "patching", options["progress"]) as advance:
        for run in runs:
            columns.append(run)
            advance()
    return ActivationPatching(
        tuple(layer_paths),
        channels,
        tuple(np.broadcast_to(np.array(targets, object), count).tolist()),
        scores,
        np.broadcast_to(source_scores, count),
        _arrange_scores(np.concatenate(columns), layer_paths, count),
        is_logit,
    )


def _extract(extractor: Extractor, batch: ExplainedBatch) -> dict[str, Array]:
    """Return the activations of the layers of an extractor for all samples of a batch."""
    inputs = batch.reader.get_model_inputs(batch.inputs)
    return extract_in_batches(extractor, inputs, batch.batch_size)


def _arrange_scores(
    scores: npt.NDArray[np.float32], layer_paths: Sequence[str], count: int
) -> npt.NDArray[np.float32]:
    """Return the scores of all runs as an array (samples, layers or channels)."""
    if len(set(layer_paths)) == len(layer_paths):
        return scores.reshape(count, -1)
    # The channels of a layer follow each other; so do the runs of a layer.
    parts, start = [], 0
    for _, group in groupby(layer_paths):
        size = len(list(group)) * count
        parts.append(scores[start : start + size].reshape(count, -1))
        start += size
    return np.concatenate(parts, 1)


@dataclass(frozen=True)
class _LayerInsertionFunction:
    """Function that returns the scores with the output of one layer taken from another input.

    Attributes
    ----------
    paths
        Paths of the layers. The sample index of a row selects its layer, so that one compiled
        function serves all layers.
    """

    reader: ScoreReader
    paths: tuple[str, ...]

    def __call__(
        self,
        model: Any,
        inputs: Any,
        target_classes: Any,
        image: Any,
        sample: Any,
        *sources: Any,
    ) -> Any:
        tf = tensorflow()
        inputs, target_classes = gather_rows((inputs, target_classes), image)

        def insert(index: int, output: Any) -> Any:
            source = gather_baseline(sources[index], image)
            return tf.where(expand_to_rank(sample == index, output), source, output)

        replacements = {path: partial(insert, index) for index, path in enumerate(self.paths)}
        run = self.reader.run(model, inputs, target_classes, replacements)
        return run.target_scores.scores


def _score_layers(
    batch: ExplainedBatch, sources: Mapping[str, Array]
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the scores of all samples with the output of each layer taken from other inputs."""
    tf = tensorflow()
    body = _LayerInsertionFunction(batch.reader, tuple(sources))
    arguments = [tf.constant(array) for array in sources.values()]
    for run in batch.run_samples(body, len(sources), *arguments):
        yield np.asarray(run)
