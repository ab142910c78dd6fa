"""Routes of the heatmaps: what explains the score of a class."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Response

from actgrid.option_groups import get_options
from actgrid.options import TargetOptions
from actgrid.web import schemas
from actgrid.web.routes.answers import PNG, Image, describe_picture, json_response
from actgrid.web.viewer import Viewer

__all__ = ["add_routes"]

_OPTIONS = get_options(TargetOptions)

Method = Annotated[
    str,
    Path(
        max_length=32,
        description=f"{_OPTIONS['method'].help} One of the model's `methods`.",
        examples=["gradcam"],
    ),
]
Target = Annotated[
    str,
    Path(
        min_length=1,
        max_length=200,
        description=f"{_OPTIONS['target'].help} `predicted`: {_OPTIONS['target'].none}.",
        examples=["predicted"],
    ),
]
OfLayer = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=1000,
        description=f"{_OPTIONS['layer'].help} Here a number is the place in `nodes` of the "
        f"model. Left out: {_OPTIONS['layer'].none}.",
        examples=["1"],
    ),
]


def add_routes(app: FastAPI, viewer: Viewer) -> None:
    """Add the routes of the heatmaps to the application."""

    def class_of(target: str) -> int | str | None:
        return None if target == "predicted" else _numbered(target)

    def layer_of(layer: str | None) -> int | str | None:
        return None if layer is None else _numbered(layer)

    place = "/api/images/{image}/heatmaps/{method}/{target:path}"  # a name may have a slash

    @app.get(f"{place}/progress.json", response_model=schemas.Progress, tags=["heatmaps"])
    async def heatmap_progress(
        image: Image, method: Method, target: Target, layer: OfLayer = None
    ) -> Any:
        """Get how far the computation of a heatmap is. Asking starts nothing."""
        return json_response(
            viewer.heatmap_progress(image, method, class_of(target), layer_of(layer))
        )

    @app.get(f"{place}.json", response_model=schemas.Heatmap, tags=["heatmaps"])
    async def heatmap(image: Image, method: Method, target: Target, layer: OfLayer = None) -> Any:
        """Get what a heatmap is of: the class, its score, the layer."""
        return json_response(await viewer.heatmap(image, method, class_of(target), layer_of(layer)))

    @app.get(
        f"{place}.png",
        tags=["heatmaps"],
        **describe_picture("Grayscale levels, as large as `picture.png`."),
    )
    async def heatmap_levels(
        image: Image, method: Method, target: Target, layer: OfLayer = None
    ) -> Response:
        """Get where in an image the model sees a class."""
        png = await viewer.heatmap_levels(image, method, class_of(target), layer_of(layer))
        return Response(png, media_type=PNG)


def _numbered(text: str) -> int | str:
    """Return a number if the text is one of up to nine digits, else the text, which is a name."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else text
