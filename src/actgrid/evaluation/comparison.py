"""Compare attribution methods on the same samples, in one table of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Unpack, cast

import numpy as np
import numpy.typing as npt

from actgrid.attribution.default_methods import find_compared_methods
from actgrid.attribution.method import Method
from actgrid.attribution.methods import check_needs, check_options, find_method
from actgrid.attribution.requests import ExplanationRequest, prepare_request
from actgrid.errors import OptionError, ShapeError
from actgrid.evaluation.agreement import Agreement, measure_agreement
from actgrid.evaluation.evaluating import (
    Candidate,
    check_metric_needs,
    evaluate_request,
    explain_candidate,
)
from actgrid.evaluation.metric import Metric
from actgrid.evaluation.metrics import parse_metrics
from actgrid.evaluation.results import Evaluation
from actgrid.models.types import LayerLike, ModelInput, ModelLike, TargetLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import CompareOptions, OverlayOptions, RequestOptions
from actgrid.progress import show_progress
from actgrid.rendering import Attribution, Sheet, lay_out_sheet
from actgrid.rendering.color_bar import draw_color_bar
from actgrid.rendering.sheet import pad_pictures

__all__ = [
    "COMPARED_METRICS",
    "MethodComparison",
    "compare_methods",
    "compare_request",
    "format_targets",
]

# Longest side of a picture in the table, in pixels.
_MAX_SIDE = 512
# Fewer steps than `evaluate` takes: the scores of a sheet have three digits.
COMPARED_METRICS: Mapping[str, Mapping[str, Any]] = {
    "deletion": {"steps": 20},
    "insertion": {"steps": 20},
}


@dataclass(frozen=True, eq=False, repr=False)
class MethodComparison(Sheet):  # numpydoc ignore=PR01
    """Table of the maps of several attribution methods, with their scores.

    `actgrid.compare_methods` returns a comparison. It is a `Sheet`: each row shows a sample and its
    map by each method. A colour bar below is that of all maps.

    Parameters
    ----------
    attributions : dict of str to Attribution
        Name of each method -> its maps, in the order of the columns.
    evaluation : Evaluation or None
        Metrics of the maps; None if no metrics were computed.
    cmap : str
        Name of the colormap of all maps.
    signed : bool
        Whether zero is in the middle of the colormap.

    Examples
    --------
    >>> import keras
    >>> layers = [keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
    >>> model = keras.Sequential([keras.Input((16, 16, 3)), *layers])
    >>> images = np.random.default_rng(0).random((2, 16, 16, 3))
    >>> comparison = actgrid.compare_methods(model, images, ["gradcam", "saliency"], target=1)
    >>> comparison.evaluation
    <Evaluation of gradcam, saliency by deletion, insertion, 2 maps>
    >>> comparison.agreement.values.shape
    (2, 2)
    """

    attributions: Mapping[str, Attribution]
    evaluation: Evaluation | None
    cmap: str
    signed: bool

    def __repr__(self) -> str:
        return f"<MethodComparison of {', '.join(self.attributions)}, {len(self)} pictures>"

    @property
    def agreement(self) -> Agreement:
        """Rank correlation of the maps of each pair of methods, see `measure_agreement`."""
        return measure_agreement(self.attributions)

    @property
    def ranking(self) -> list[str]:
        """Names of the methods, best first by their mean rank over the metrics."""
        return list(self.attributions) if self.evaluation is None else self.evaluation.ranking

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the table, and the colour bar of its maps below.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        table = super().to_rgb()
        labels = ("negative", "0", "largest of each map")
        if not self.signed:
            labels = ("smallest", "", "largest of each map")
        font_size = max(12, self.pictures.shape[2] // 20)
        bar = draw_color_bar(self.cmap, table.shape[1], labels, font_size)
        return np.concatenate([table, bar])


@takes_options(CompareOptions, batch_size=32)
def compare_methods(
    model: ModelLike,
    x: ModelInput,
    methods: Iterable[str] | Mapping[str, Mapping[str, Any]] | None = None,
    target: TargetLike = None,
    layer: LayerLike | None = None,
    metrics: Iterable[str] | Mapping[str, Mapping[str, Any]] | None = None,
    **options: Unpack[CompareOptions],
) -> MethodComparison:
    """Draw the attributions of several methods in a table, and rank them by metrics.

    Parameters
    ----------
    model : keras.Model or str
        The model to explain, or anything that `actgrid.load_model` takes.
    x : array_like, dict, list or image sources
        The model's input, image files or texts, as in `actgrid.explain`.
    methods : list of str or dict, optional
        Names of methods, see `actgrid.explain`; or a dict from the name of a method to a dict of
        its options. None: ``gradcam``, ``smoothgrad``, ``integrated_gradients`` and
        ``occlusion``; for a network without gradients, those of ``scorecam``, ``eigencam``,
        ``occlusion`` and ``rise`` that work.
    target : int, str, callable, list or dict, optional
        The class or function to explain, as in `actgrid.explain`; several classes of an image have
        a row each. None: the class that the model predicts for the sample. All methods explain the
        same class of a sample.
    layer : str, int or keras.Layer, optional
        Layer for the methods that use a layer, as in `actgrid.explain`. None: the default layer.
    metrics : list of str or dict, optional
        Metrics that rank the methods, see `actgrid.evaluate`; or a dict from the name of a metric
        to a dict of its options. Empty: the methods are not ranked. None: ``deletion`` and
        ``insertion`` with 20 steps.
    **options
        See `actgrid.options.CompareOptions`; `cmap` is that of all methods.

    Returns
    -------
    MethodComparison
        A table of labelled pictures. Each row shows the sample, then its map by each method, best
        method first, with the values of the metrics beneath. The first caption of a row gives the
        explained class and its score. The column titles are the rank and the name of each method.
        Images with a side longer than 512 pixels are shrunk. All maps have one colour scale: if one
        of them has negative values, zero is in its middle.

    Raises
    ------
    OptionError
        If a method, a metric or an option is unknown or invalid. Also a ValueError.
    ShapeError
        If images do not have 1, 3 or 4 channels and cannot be drawn. Also a ValueError.
    ActgridError
        If `actgrid.explain` cannot explain the model or the target.

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
    >>> sheet = actgrid.compare_methods(
    ...     model, images, ["saliency", "occlusion"], target=1, metrics=[]
    ... )
    >>> sheet.titles
    ('image', 'saliency', 'occlusion')
    >>> sheet.save("methods.png")

    Options of each method are given in a dict, and those of metrics too:

    >>> methods = {"occlusion": {"patch": 8}, "smoothgrad": {"samples": 10}}
    >>> sheet = actgrid.compare_methods(
    ...     model, images, methods, metrics={"insertion": {"steps": 10}}
    ... )
    >>> sorted(sheet.ranking)
    ['occlusion', 'smoothgrad']
    """
    options_by_method = {} if methods is None else _parse_methods(methods)
    if methods is not None:
        check_options(list(options_by_method), layer, {})
    for method, method_options in options_by_method.items():
        check_options([method], None, method_options)
    options_by_metric = parse_metrics(COMPARED_METRICS if metrics is None else metrics, {})
    check_metric_needs(options_by_metric, (), has_regions=False)
    request = prepare_request(model, x, target, **pick_options(options, RequestOptions))
    if methods is None:
        compared = find_compared_methods(request.batch.model, layer)
        options_by_method = {method: {} for method in compared}
    overlay = cast(OverlayOptions, pick_options(options, OverlayOptions))
    return compare_request(
        request, options_by_method, layer, options_by_metric, overlay, options["progress"]
    )


def compare_request(
    request: ExplanationRequest,
    methods: Mapping[Method, Mapping[str, Any]],
    layer: LayerLike | None,
    metrics: Mapping[Metric, Mapping[str, Any]],
    overlay: OverlayOptions,
    progress: bool = False,
) -> MethodComparison:
    """Compare attribution methods for a prepared request, see `compare_methods`.

    Parameters
    ----------
    request
        Samples, model and targets.
    methods, metrics
        Method or metric -> its options.
    layer
        Layer for the methods that use one; None: the default layer.
    overlay
        Options for drawing the maps over the samples.
    progress
        Whether to show progress bars.
    """
    check_needs(methods, request.batch.model)
    is_image = request.batch.layout.names == ("height", "width")
    if is_image and request.backdrop is None:
        raise ShapeError(
            "images must have 1, 3 or 4 channels to be drawn: got shape "
            f"{tuple(request.batch.values.shape)}; use explain, which returns the maps alone"
        )
    request = request.with_predicted_classes()
    if request.backdrop is not None:
        request = request.with_backdrop(request.backdrop.shrink(_MAX_SIDE))
    attributions: dict[str, Attribution] = {}
    candidates: dict[str, Candidate] = {}
    with show_progress(len(methods), "explaining", progress) as advance:
        for method, options in methods.items():
            attributions[method.name], candidates[method.name] = explain_candidate(
                request, method, layer, options
            )
            advance()
    evaluation = None
    if metrics:
        evaluation = evaluate_request(request, candidates, metrics, progress=progress)
    if evaluation is not None:
        attributions = {name: attributions[name] for name in evaluation.ranking}
    # The maps have different units, but can share the meaning of a colour.
    signed = any(attribution.signed for attribution in attributions.values())
    drawn = [attribution.with_sign(signed) for attribution in attributions.values()]
    pictures = [
        drawn[0].draw_inputs().pictures,
        *(attribution.overlay(**overlay).pictures for attribution in drawn),
    ]
    captions = [
        format_targets(drawn[0]),
        *(_format_values(evaluation, name, len(drawn[0])) for name in attributions),
    ]
    names = list(attributions)
    if evaluation is not None and evaluation.ranks:
        names = [f"{rank}. {name}" for rank, name in enumerate(names, 1)]
    sheet = lay_out_sheet(
        pad_pictures(picture for row in zip(*pictures, strict=True) for picture in row),
        columns=len(pictures),
        titles=["image" if is_image else "input", *names],
        captions=[text for row in zip(*captions, strict=True) for text in row],
    )
    parts = {field.name: getattr(sheet, field.name) for field in fields(sheet)}
    cmap = overlay.get("cmap") or drawn[0].cmap
    return MethodComparison(
        **parts, attributions=attributions, evaluation=evaluation, cmap=cmap, signed=signed
    )


def _format_values(evaluation: Evaluation | None, name: str, count: int) -> list[str]:
    """Return the values of the metrics for each map of a method as text."""
    if evaluation is None:
        return [""] * count
    row = evaluation.names.index(name)
    return [
        "  ".join(
            f"{metric} {values[row, index]:.3g}" for metric, values in evaluation.values.items()
        )
        for index in range(count)
    ]


def format_targets(attribution: Attribution) -> list[str]:
    """Return the target and score of each map as text, such as ``"Egyptian cat 8.9"``."""
    scores = [f"{score:.4g}" for score in np.asarray(attribution.score)]
    if attribution.target is None:
        return scores
    names = list(attribution.labels or map(str, attribution.target))
    if "output" in attribution.details:
        names = [
            f"{output} {name}"
            for output, name in zip(attribution.details["output"], names, strict=True)
        ]
    return [f"{name} {score}" for name, score in zip(names, scores, strict=True)]


def _parse_methods(methods: Any) -> dict[Method, dict[str, Any]]:
    """Convert the option `methods` to a dict: attribution method -> its options."""
    if isinstance(methods, Mapping):
        for name, options in methods.items():
            if not isinstance(options, Mapping):
                raise OptionError(f"the options of {name} must be a dict, not {options!r}")
        options_by_method = {find_method(name): dict(options) for name, options in methods.items()}
    else:
        is_list = isinstance(methods, Iterable) and not isinstance(methods, str)
        names = methods if is_list else [methods]
        options_by_method = {find_method(name): {} for name in names}
    if not options_by_method:
        raise OptionError("methods must name at least one method")
    return options_by_method
