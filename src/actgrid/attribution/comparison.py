"""Compare attribution methods on the same samples, in one table of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack, cast

import numpy as np

from actgrid.attribution.method import Method
from actgrid.attribution.methods import check_needs, check_options, find_method
from actgrid.attribution.requests import prepare_request
from actgrid.errors import OptionError, ShapeError
from actgrid.models.types import LayerLike, ModelInput, ModelLike, TargetLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import CompareOptions, OverlayOptions, RequestOptions
from actgrid.rendering import Attribution, Sheet, lay_out_sheet
from actgrid.rendering.sheet import pad_pictures

__all__ = ["compare_methods", "format_targets"]

# Longest side of a picture in the table, in pixels.
_MAX_SIDE = 512
# One method of each family, as methods of a family give similar maps. These methods take seconds
# and need no optional packages.
_DEFAULT_METHODS = ("gradcam", "smoothgrad", "integrated_gradients", "occlusion")


@takes_options(CompareOptions, batch_size=32)
def compare_methods(
    model: ModelLike,
    x: ModelInput,
    methods: Iterable[str] | Mapping[str, Mapping[str, Any]] | None = None,
    target: TargetLike = None,
    layer: LayerLike | None = None,
    **options: Unpack[CompareOptions],
) -> Sheet:
    """Draw the attributions of several methods in a table: a row for each sample.

    Parameters
    ----------
    model : keras.Model or str
        The model to explain, or anything that `actgrid.load_model` takes.
    x : array_like, dict, list or image sources
        The model's input, image files or texts, as in `actgrid.explain`.
    methods : list of str or dict, optional
        Names of methods, see `actgrid.explain`; or a dict from the name of a method to a dict of
        its options. None: ``gradcam``, ``smoothgrad``, ``integrated_gradients`` and
        ``occlusion``.
    target : int, str, callable, list or dict, optional
        The class or function to explain, as in `actgrid.explain`. None: the class that the model
        predicts for the sample. All methods explain the same class of a sample.
    layer : str, int or keras.Layer, optional
        Layer for the methods that use a layer, as in `actgrid.explain`. None: the default layer.
    **options
        See `actgrid.options.CompareOptions`; `cmap` is that of all methods.

    Returns
    -------
    Sheet
        A table of labelled pictures. Each row shows the image, then its map by each method; the
        first caption of a row gives the explained class and its score. The column titles are the
        names of the methods. Images with a side longer than 512 pixels are shrunk. Sequences,
        volumes, tables and texts are in the place of the image.

    Raises
    ------
    OptionError
        If a method or an option is unknown or invalid. Also a ValueError.
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
    >>> sheet = actgrid.compare_methods(model, images, ["saliency", "occlusion"], target=1)
    >>> sheet.titles
    ('image', 'saliency', 'occlusion')
    >>> sheet.save("methods.png")

    Options of each method are given in a dict:

    >>> methods = {"occlusion": {"patch": 8}, "smoothgrad": {"samples": 10}}
    >>> sheet = actgrid.compare_methods(model, images, methods)
    """
    options_by_method = _parse_methods(methods)
    check_options(list(options_by_method), layer, {})
    for method, method_options in options_by_method.items():
        check_options([method], None, method_options)
    request = prepare_request(model, x, target, **pick_options(options, RequestOptions))
    check_needs(list(options_by_method), request.batch.model)
    is_image = request.batch.layout.names == ("height", "width")
    if is_image and request.backdrop is None:
        raise ShapeError(
            "images must have 1, 3 or 4 channels to be drawn: got shape "
            f"{tuple(request.batch.values.shape)}; use explain, which returns the maps alone"
        )
    request = request.with_predicted_classes()
    if request.backdrop is not None:
        request = request.with_backdrop(request.backdrop.shrink(_MAX_SIDE))
    attributions = [
        request.explain(method, layer, method_options)
        for method, method_options in options_by_method.items()
    ]
    overlay = cast(OverlayOptions, pick_options(options, OverlayOptions))
    columns = [
        attributions[0].draw_inputs().pictures,
        *(attribution.overlay(**overlay).pictures for attribution in attributions),
    ]
    captions = ([text, *[""] * (len(columns) - 1)] for text in format_targets(attributions[0]))
    rows = zip(*columns, strict=True)
    return lay_out_sheet(
        pad_pictures(picture for row in rows for picture in row),
        columns=len(columns),
        titles=["image" if is_image else "input", *(method.name for method in options_by_method)],
        captions=[text for row in captions for text in row],
    )


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
        names = _DEFAULT_METHODS if methods is None else methods if is_list else [methods]
        options_by_method = {find_method(name): {} for name in names}
    if not options_by_method:
        raise OptionError("methods must name at least one method")
    return options_by_method
