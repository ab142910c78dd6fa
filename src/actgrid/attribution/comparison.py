"""`actgrid.compare_methods`: what several methods say of the same images, on one sheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from actgrid.attribution.method import Method
from actgrid.attribution.methods import check_needs, check_options, find_method
from actgrid.attribution.requests import prepare_request
from actgrid.errors import OptionError, ShapeError
from actgrid.models.types import LayerLike, ModelInput, ModelLike, TargetLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import CompareOptions, OverlayOptions, RequestOptions
from actgrid.rendering import Heatmap, Sheet, lay_out_sheet

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["compare_methods", "target_texts"]

# The longest side of a picture on the sheet, in pixels.
_MAX_SIDE = 512
# One of each kind, as those of a kind look alike: they take seconds and need no extra.
_DEFAULT = ("gradcam", "smoothgrad", "integrated_gradients", "occlusion")


@takes_options(CompareOptions, batch_size=32)
def compare_methods(
    model: ModelLike,
    x: ModelInput,
    methods: Iterable[str] | Mapping[str, Mapping[str, Any]] | None = None,
    target: TargetLike = None,
    layer: LayerLike | None = None,
    **options: Unpack[CompareOptions],
) -> Sheet:
    """Draw what several methods say of the same images: images down, methods across.

    Parameters
    ----------
    model, x, target
        As in `actgrid.explain`. All methods explain the same class of an image: if `target` is
        None, the one that the model predicts.
    methods
        Names of methods, or a dict of each one's options by its name; None: ``gradcam``,
        ``smoothgrad``, ``integrated_gradients`` and ``occlusion``.
    layer
        For those of the methods that look at a layer, as in `actgrid.explain`.
    **options
        See `actgrid.options.CompareOptions`; `cmap` is that of all methods.

    Returns
    -------
    Sheet
        Each row begins with the image itself, over the class that is explained and its score.
        Columns are headed by the methods' names. Photos are made smaller where a side is longer
        than 512 pixels.

    Raises
    ------
    OptionError, ShapeError
        If there is no such method or option, or the images have too many channels to be seen.
        Both are ValueErrors.
    ActgridError
        Whatever else `explain` raises.

    Examples
    --------
    >>> sheet = actgrid.compare_methods("demo", ["cat.jpg", "rocket.jpg"])
    >>> sheet.save("methods.png")
    >>> patches = {"occlusion": {"patch": 16}, "scorecam": {"max_channels": 100}}
    >>> actgrid.compare_methods("demo", "cat.jpg", patches, target="tabby").save("tabby.png")
    """
    chosen = _chosen(methods)
    check_options(list(chosen), layer, {})
    for method, method_options in chosen.items():
        check_options([method], None, method_options)
    request = prepare_request(model, x, target, **pick_options(options, RequestOptions))
    check_needs(list(chosen), request.batch.model)
    if request.backdrop is None:
        raise ShapeError(
            f"images of shape {tuple(request.batch.image.shape)} have too many channels to be "
            "drawn: explain gives the maps alone"
        )
    backdrop = request.backdrop.reduced(_MAX_SIDE)
    pictures = backdrop.images
    request = replace(request.with_predicted_classes(), backdrop=backdrop)
    heatmaps = [
        request.explain(method, layer, method_options) for method, method_options in chosen.items()
    ]
    overlay = cast(OverlayOptions, pick_options(options, OverlayOptions))
    columns = [pictures, *(heatmap.overlay(**overlay).pictures for heatmap in heatmaps)]
    captions = ([text, *[""] * len(heatmaps)] for text in target_texts(heatmaps[0]))
    return lay_out_sheet(
        np.stack(columns, 1).reshape(-1, *pictures.shape[1:]),
        columns=len(columns),
        titles=["image", *(method.name for method in chosen)],
        captions=[text for row in captions for text in row],
    )


def target_texts(heatmap: Heatmap) -> list[str]:
    """Return what each map of `explain` is of, and its score: ``"Egyptian cat 8.9"``."""
    scores = [f"{score:.4g}" for score in np.asarray(heatmap.score)]
    if heatmap.target is None:
        return scores
    names = list(heatmap.labels or map(str, heatmap.target))
    if "output" in heatmap.details:
        names = [
            f"{output} {name}"
            for output, name in zip(heatmap.details["output"], names, strict=True)
        ]
    return [f"{name} {score}" for name, score in zip(names, scores, strict=True)]


def _chosen(methods: Any) -> dict[Method, dict[str, Any]]:
    """Return each method's options."""
    if isinstance(methods, Mapping):
        for name, options in methods.items():
            if not isinstance(options, Mapping):
                raise OptionError(f"the options of {name} must be a dict, not {options!r}")
        chosen = {find_method(name): dict(options) for name, options in methods.items()}
    else:
        several = isinstance(methods, Iterable) and not isinstance(methods, str)
        names = _DEFAULT if methods is None else methods if several else [methods]
        chosen = {find_method(name): {} for name in names}
    if not chosen:
        raise OptionError("methods must name at least one")
    return chosen
