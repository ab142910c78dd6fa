"""Evaluate attribution maps by metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import BatchAttribution, ExplainedBatch
from actgrid.attribution.method import Method
from actgrid.attribution.methods import check_needs, check_options, find_method
from actgrid.attribution.requests import ExplanationRequest, prepare_request
from actgrid.errors import OptionError
from actgrid.evaluation.localization import read_regions
from actgrid.evaluation.map_values import align_maps, read_maps
from actgrid.evaluation.metric import EvaluatedMaps, Metric
from actgrid.evaluation.metrics import parse_metrics
from actgrid.evaluation.results import Evaluation, EvaluationCurve
from actgrid.models.types import LayerLike, ModelInput, ModelLike, TargetLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import EvaluateOptions, MetricOptions, RegionOptions, RequestOptions
from actgrid.progress import show_progress
from actgrid.rendering import Attribution

__all__ = [
    "DEFAULT_METRICS",
    "Candidate",
    "check_metric_needs",
    "evaluate",
    "evaluate_request",
    "explain_candidate",
]

DEFAULT_METRICS = ("deletion", "insertion")


class Candidate(NamedTuple):
    """An attribution that is evaluated.

    Attributes
    ----------
    maps
        (N, ...) float32.
    explain
        Function that returns the maps of a batch; None if the method is not known.
    """

    maps: npt.NDArray[np.float32]
    explain: Callable[[ExplainedBatch], npt.NDArray[np.float32]] | None = None


@takes_options(EvaluateOptions, batch_size=32)
def evaluate(
    model: ModelLike,
    x: ModelInput,
    attributions: Any,
    metrics: Iterable[str] | Mapping[str, Mapping[str, Any]] = DEFAULT_METRICS,
    target: TargetLike = None,
    layer: LayerLike | None = None,
    **options: Unpack[EvaluateOptions],
) -> Evaluation:
    """Compute metrics of attribution maps, such as deletion and insertion.

    Parameters
    ----------
    model : keras.Model or str
        The explained model, or anything that `actgrid.load_model` takes.
    x : array_like, dict, list or image sources
        The model's input, image files or texts, as in `actgrid.explain`: N samples.
    attributions : Attribution, array_like, str, list or dict
        The maps to evaluate: an `actgrid.Attribution`; an array, (N, ...), of the size of the input
        or another size, with or without a last axis of channels; or the name of a method of
        `actgrid.explain`, which computes them. A list of names, or a dict from names to any of
        these, evaluates several. In a dict, a name of a method can have a dict of its options.
    metrics : list of str or dict, optional
        Names of metrics, see Notes; or a dict from the name of a metric to a dict of its options.
    target : int, str, callable, list or dict, optional
        The explained class or function of each sample, as in `actgrid.explain`. None: the classes
        of the given attributions, or else the predicted class.
    layer : str, int or keras.Layer, optional
        Layer for the methods that use a layer, as in `actgrid.explain`. None: the default layer.
    **options
        See `actgrid.options.EvaluateOptions`. Notes list the options of each metric, which can also
        be given here for all metrics.

    Returns
    -------
    Evaluation
        The value of each metric for each attribution and map, and curves. ``to_frame()`` makes a
        table with a row for each image and a column for each metric. As a picture it is a table of
        the mean values, with the mean curves.

    Raises
    ------
    OptionError
        If a method, a metric or an option is unknown or invalid; if a metric needs the method of a
        map, or a region, that is not given. Also a ValueError.
    ShapeError
        If the maps do not fit the input. Also a ValueError.
    DtypeError
        If the maps are not real numbers. Also a TypeError.
    ActgridError
        If `actgrid.explain` cannot explain the model or the target.

    Notes
    -----
    **Metrics**

    ==================== ====== ==========================================================
    metric               better value
    ==================== ====== ==========================================================
    ``deletion``         lower  area under the score while the most important positions
                                are replaced by the baseline (Petsiuk 2018)
    ``insertion``        higher area under the score while the most important positions
                                appear on the baseline (Petsiuk 2018)
    ``road``             higher half the score without the least important positions minus
                                the score without the most important ones; removed values
                                are imputed from their neighbours (Rong 2022)
    ``mu_fidelity``      higher rank correlation of the attributions of random parts with
                                the decrease of the score if they are hidden (Bhatt 2020)
    ``infidelity``       lower  mean squared difference of the same two quantities, after
                                the attributions are scaled to fit best (Yeh 2019)
    ``average_drop``     lower  relative decrease of the score if the map masks the input
                                (Chattopadhyay 2017)
    ``average_increase`` higher 1 if the score increases then, else 0 (Chattopadhyay 2017)
    ``average_gain``     higher increase of the probability relative to its distance from
                                1 (Zhang 2023)
    ``sensitivity``      lower  largest relative change of the map for small changes of
                                the input (Yeh 2019)
    ``randomization``    lower  mean rank correlation with the maps of the model while its
                                layers are randomized from the output on (Adebayo 2018)
    ``complexity``       lower  entropy of the absolute attributions (Bhatt 2020)
    ``sparseness``       higher Gini index of the absolute attributions (Chalasani 2018)
    ``pointing_game``    higher 1 if the largest attribution lies in the object, else 0
                                (Zhang 2016)
    ``energy``           higher fraction of the positive attributions in the object
                                (Wang 2019)
    ==================== ====== ==========================================================

    **Options of the metrics**, with their defaults:

    deletion, insertion
        `steps` (50), `baseline` (``"mean"``, the mean over the positions of each sample),
        `score_type` (``"probability"``). Positions are ordered by the map, largest value first;
        equal values in the order of their positions. A position is hidden in all channels.
    road
        `fractions` (0.2, 0.4, 0.6, 0.8) of the positions that are removed, `score_type`, `seed`.
    mu_fidelity, infidelity
        `samples` (200) random sets of cells of a grid of `grid_size` (9) cells along each axis;
        `hidden_fraction` (0.2) of the cells are in each set; `baseline`; `score_type`
        (``"logit"``, to which attributions add up); `seed`.
    average_drop, average_increase, average_gain
        `baseline` (0), `score_type` (``"probability"``; not for average_gain). The mask is the
        absolute value of the map, scaled to the range 0 to 1.
    sensitivity
        `perturbations` (10) with uniform noise of up to `radius` (0.02) times the range of each
        sample; `seed`. Distances are Euclidean, relative to the norm of the map.
    randomization
        `randomizations` (8), the number of models, from one with a few randomized layers at the
        output to one without any learned layer; `seed`. The weights of a layer are permuted. During
        the computation, the weights of `model` are changed; they are restored at the end, also
        after an error.
    pointing_game
        `tolerance` (0): distance in positions up to which the maximum may lie outside the object.

    `masks` or `boxes` give the objects for pointing_game and energy, in the coordinates of the
    model's input. sensitivity and randomization need the name of a method in `attributions`, since
    they compute further maps. The score is the probability of the class, if the model ends in a
    softmax or sigmoid, and else the score itself. Metrics need no gradients: they also evaluate
    maps for models that are not Keras models. Values are comparable between maps of the same
    samples, and less so between models.

    References
    ----------
    Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, 2018,
    https://arxiv.org/abs/1806.07421.
    Adebayo et al., Sanity Checks for Saliency Maps, 2018, https://arxiv.org/abs/1810.03292.
    Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, 2022,
    https://arxiv.org/abs/2202.00449.

    Examples
    --------
    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(8, 3, activation="relu"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(4, activation="softmax"),
    ... ])
    >>> images = np.random.default_rng(0).random((2, 32, 32, 3))
    >>> heatmap = actgrid.explain(model, images, "gradcam")
    >>> evaluation = actgrid.evaluate(model, images, heatmap, ["deletion", "sparseness"])
    >>> evaluation.to_frame().round(3).columns.tolist()
    ['deletion', 'sparseness']

    Several methods, one of them with options, ranked by two metrics:

    >>> methods = {"gradcam": {}, "occlusion": {"patch": 8}, "random": np.random.rand(2, 32, 32)}
    >>> evaluation = actgrid.evaluate(model, images, methods, steps=10)
    >>> sorted(evaluation.ranking)
    ['gradcam', 'occlusion', 'random']
    >>> evaluation.curves["insertion"].values.shape
    (3, 2, 11)
    >>> evaluation.save("evaluation.png")
    """
    parsed_metrics = parse_metrics(metrics, pick_options(options, MetricOptions))
    if not parsed_metrics:
        raise OptionError("metrics must name at least one metric")
    entries = _parse_attributions(attributions)
    for entry in entries.values():
        if isinstance(entry, _MethodChoice):
            check_options([entry.method], None, entry.options)
    methods = [entry.method for entry in entries.values() if isinstance(entry, _MethodChoice)]
    if layer is not None:
        check_options(methods, layer, {})
    regions = pick_options(options, RegionOptions)
    check_metric_needs(
        parsed_metrics,
        [name for name, entry in entries.items() if not isinstance(entry, _MethodChoice)],
        has_regions=any(value is not None for value in regions.values()),
    )
    if target is None:
        target = _get_common_target(entries)
    request = prepare_request(model, x, target, **pick_options(options, RequestOptions))
    check_needs(methods, request.batch.model)
    request = request.with_predicted_classes()
    candidates = {}
    count = len(request.map_samples)
    for name, entry in entries.items():
        if isinstance(entry, _MethodChoice):
            _, candidates[name] = explain_candidate(request, entry.method, layer, entry.options)
        else:
            values = entry.values if isinstance(entry, Attribution) else entry
            candidates[name] = Candidate(read_maps(values, count, name))
    return evaluate_request(
        request, candidates, parsed_metrics, **regions, progress=options["progress"]
    )


class _MethodChoice(NamedTuple):
    """An attribution method and its options."""

    method: Method
    options: dict[str, Any]


def _parse_attributions(attributions: Any) -> dict[str, Any]:
    """Convert the option `attributions` to a dict: name -> method, attribution or array."""
    if isinstance(attributions, str):
        attributions = [attributions]
    is_names = isinstance(attributions, (list, tuple)) and all(
        isinstance(entry, str) for entry in attributions
    )
    if is_names:
        attributions = {name: {} for name in attributions}
    elif isinstance(attributions, (list, tuple)) and all(
        isinstance(entry, Attribution) for entry in attributions
    ):
        attributions = {
            entry.method or f"attribution {number}": entry
            for number, entry in enumerate(attributions, 1)
        }
    if not isinstance(attributions, Mapping):
        name = getattr(attributions, "method", None) or "attribution"
        return {name: attributions}
    if not attributions:
        raise OptionError("attributions must have at least one entry")
    entries: dict[str, Any] = {}
    for key, entry in attributions.items():
        if isinstance(entry, str):
            entries[str(key)] = _MethodChoice(find_method(entry), {})
        elif isinstance(entry, Mapping):
            entries[str(key)] = _MethodChoice(find_method(key), dict(entry))
        else:
            entries[str(key)] = entry
    return entries


def _get_common_target(entries: Mapping[str, Any]) -> TargetLike:
    """Return the classes that given attributions explain; None if they do not tell.

    Raises
    ------
    OptionError
        If the attributions explain different classes.
    """
    targets = {
        name: entry.target.tolist()
        for name, entry in entries.items()
        if isinstance(entry, Attribution)
        and entry.target is not None
        and "output" not in entry.details
        and (entry.target >= 0).all()
    }
    if not targets:
        return None
    target: list[int]
    (first, target), *others = targets.items()
    for name, classes in others:
        if classes != target:
            raise OptionError(
                f"attributions must explain the same classes: {first} explains {target}, and "
                f"{name} {classes}"
            )
    return target


def check_metric_needs(
    metrics: Iterable[Metric], names_without_method: Sequence[str], *, has_regions: bool
) -> None:
    """Raise OptionError if what a metric needs is not given.

    Parameters
    ----------
    names_without_method
        Names of attributions whose method is not known.
    has_regions
        Whether masks or boxes are given.
    """
    for metric in metrics:
        if "method" in metric.needs and names_without_method:
            raise OptionError(
                f"{metric.name} computes maps of other inputs or models: name the method of "
                f"{', '.join(names_without_method)} in place of its maps, such as "
                'attributions="gradcam", or a dict of the method and its options'
            )
        if "region" in metric.needs and not has_regions:
            raise OptionError(
                f"{metric.name} needs the explained objects: pass masks, (N, height, width), or "
                "boxes, (top, left, bottom, right)"
            )


def explain_candidate(
    request: ExplanationRequest,
    method: Method,
    layer: LayerLike | None,
    options: Mapping[str, Any],
) -> tuple[Attribution, Candidate]:
    """Compute the maps of a method for a request; return them also as a candidate.

    Parameters
    ----------
    layer
        Layer, if the method uses one; None: the default layer.
    options
        Options of the method, by name.
    """
    attribution = request.explain(method, layer, options)
    arguments = {**options, "layer": layer} if method.takes_layer else dict(options)

    def explain(batch: ExplainedBatch) -> npt.NDArray[np.float32]:
        result = method.run(batch, **arguments)
        first: BatchAttribution = result[0] if method.explains_several else result
        return align_maps(np.nan_to_num(first.values), batch, method.name)

    return attribution, Candidate(attribution.values, explain)


def evaluate_request(
    request: ExplanationRequest,
    candidates: Mapping[str, Candidate],
    metrics: Mapping[Metric, Mapping[str, Any]],
    masks: Any = None,
    boxes: Any = None,
    progress: bool = False,
) -> Evaluation:
    """Compute metrics of attribution maps for a prepared request.

    Parameters
    ----------
    request
        Samples, model and fixed target classes.
    candidates
        Name -> the maps, in the order of the maps of the request.
    metrics
        Metric -> its options.
    masks, boxes
        Regions of the explained objects, see `actgrid.evaluate`.
    progress
        Whether to show a progress bar.
    """
    count = len(request.map_samples)
    sides = request.batch.sides
    samples = max(request.map_samples) + 1
    regions = read_regions(masks, boxes, samples, sides)
    if regions is not None:
        regions = regions[list(request.map_samples)]
    values = {metric.name: np.full((len(candidates), count), np.nan) for metric in metrics}
    curves: dict[str, EvaluationCurve] = {}
    targets = [""] * count
    parts = [
        (output, part, list(indices))
        for output in request.output_requests
        for part, indices in output.split()
    ]
    steps = len(parts) * len(candidates) * len(metrics)
    with show_progress(steps, "evaluating", progress) as advance:
        for output, part, indices in parts:
            target_scores = part.compute_scores()
            for index, name in zip(indices, output.name_targets(target_scores), strict=True):
                targets[index] = name
            for row, (name, candidate) in enumerate(candidates.items()):
                maps = candidate.maps[indices]
                evaluated = EvaluatedMaps(
                    part,
                    target_scores,
                    align_maps(maps, part, name),
                    maps,
                    candidate.explain,
                    None if regions is None else regions[indices],
                )
                for metric, options in metrics.items():
                    result = metric.run(evaluated, **options)
                    values[metric.name][row, indices] = result.values
                    if result.curve is not None:
                        if metric.name not in curves:
                            x, shown, *labels = result.curve
                            shape = (len(candidates), count, shown.shape[1])
                            empty = np.full(shape, np.nan, np.float32)
                            curves[metric.name] = EvaluationCurve(x, empty, *labels)
                        curves[metric.name].values[row, indices] = result.curve.values
                    advance()
    return Evaluation(
        tuple(candidates),
        values,
        curves,
        np.array(request.map_samples, np.int64),
        tuple(targets),
    )
