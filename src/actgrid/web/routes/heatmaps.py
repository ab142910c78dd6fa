"""Routes of the heatmaps, which explain the score of a class for an image."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from actgrid.option_groups import get_options
from actgrid.options import TargetOptions
from actgrid.web import schemas
from actgrid.web.routes.responses import (
    PNG,
    Image,
    Target,
    describe_picture,
    json_response,
    parse_index,
    parse_target,
)
from actgrid.web.viewer import Viewer

__all__ = ["add_routes"]

_OPTIONS = get_options(TargetOptions)

Method = Annotated[
    str,
    Path(
        max_length=32,
        description=f"{_OPTIONS['method'].help} See `methods` of the model.",
        examples=["gradcam"],
    ),
]
LayerQuery = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=1000,
        description=f"{_OPTIONS['layer'].help} An integer is an index in `nodes` of the "
        f"model. If omitted: {_OPTIONS['layer'].none}.",
        examples=["1"],
    ),
]


def add_routes(router: APIRouter, viewer: Viewer) -> None:
    """Add the routes that compute and serve heatmaps to a router."""

    def parse_layer(layer: str | None) -> int | str | None:
        return None if layer is None else parse_index(layer)

    # The target is a path parameter, because names of classes may contain slashes.
    prefix = "/images/{image}/heatmaps/{method}/{target:path}"

    @router.get(f"{prefix}/progress.json", response_model=schemas.Progress, tags=["heatmaps"])
    async def get_heatmap_progress(
        image: Image, method: Method, target: Target, layer: LayerQuery = None
    ) -> Any:
        """Return the progress of a heatmap, without starting the computation."""
        return json_response(
            viewer.get_heatmap_progress(image, method, parse_target(target), parse_layer(layer))
        )

    scores_prefix = "/images/{image}/scores/{method}/{target:path}"

    @router.get(
        f"{scores_prefix}/progress.json", response_model=schemas.Progress, tags=["heatmaps"]
    )
    async def get_scores_progress(
        image: Image, method: Method, target: Target, layer: LayerQuery = None
    ) -> Any:
        """Return the progress of the metrics of a heatmap, without starting the computation."""
        return json_response(
            viewer.get_scores_progress(image, method, parse_target(target), parse_layer(layer))
        )

    @router.get(f"{scores_prefix}.json", response_model=schemas.Scores, tags=["heatmaps"])
    async def get_scores(
        image: Image, method: Method, target: Target, layer: LayerQuery = None
    ) -> Any:
        """Return metrics of a heatmap: how the score changes if its parts are hidden or shown."""
        return json_response(
            await viewer.get_scores(image, method, parse_target(target), parse_layer(layer))
        )

    @router.get(f"{prefix}.json", response_model=schemas.Heatmap, tags=["heatmaps"])
    async def get_heatmap(
        image: Image, method: Method, target: Target, layer: LayerQuery = None
    ) -> Any:
        """Return the class, score and layer of a heatmap."""
        return json_response(
            await viewer.get_heatmap(image, method, parse_target(target), parse_layer(layer))
        )

    @router.get(
        f"{prefix}.png",
        tags=["heatmaps"],
        **describe_picture("A grayscale picture in the size of `picture.png`."),
    )
    async def get_heatmap_levels(
        image: Image, method: Method, target: Target, layer: LayerQuery = None
    ) -> Response:
        """Return the attribution of each pixel of an image to the score of a class."""
        png = await viewer.get_heatmap_levels(
            image, method, parse_target(target), parse_layer(layer)
        )
        return Response(png, media_type=PNG)
