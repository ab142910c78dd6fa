"""Routes of the model: graph, kernels, dataset statistics and maximized images."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from actgrid.options import MaximizeOptions
from actgrid.web import schemas
from actgrid.web.parameters import takes_query
from actgrid.web.routes.responses import PNG, Channel, Layer, describe_picture, json_response
from actgrid.web.viewer import Viewer

__all__ = ["add_routes"]


def add_routes(router: APIRouter, viewer: Viewer) -> None:
    """Add the routes that describe the model and its layers to a router."""

    @router.get("/model.json", response_model=schemas.Model, tags=["model"])
    async def get_model() -> Any:
        """Return the model's graph, classes, attribution methods and options."""
        return json_response(viewer.get_model_info())

    @router.get("/layers/{layer}/kernel.json", response_model=schemas.Kernel, tags=["model"])
    async def get_kernel(layer: Layer) -> Any:
        """Return the shape, value range and tile layout of a layer's kernel."""
        return json_response(await viewer.get_kernel(layer))

    @router.get(
        "/layers/{layer}/kernel.png",
        tags=["model"],
        **describe_picture("A grayscale picture of the kernel; level 128 is zero."),
    )
    async def get_kernel_levels(layer: Layer) -> Response:
        """Return the tiles of a layer's kernel, ordered by output channel."""
        return Response(await viewer.get_kernel_levels(layer), media_type=PNG)

    @router.get("/layers/{layer}/dataset.json", response_model=schemas.Dataset, tags=["model"])
    async def get_dataset_statistics(layer: Layer) -> Any:
        """Return the statistics and top images of each channel over a dataset."""
        return json_response(await viewer.get_dataset_stats(layer))

    @router.get(
        "/layers/{layer}/channels/{channel}/maximized.png",
        tags=["model"],
        **describe_picture("An RGB picture in the size of the model's input."),
    )
    @takes_query(MaximizeOptions, "steps", "seed")
    async def get_maximized_image(layer: Layer, channel: Channel, options: Any) -> Response:
        """Synthesize an image that maximizes a channel; this takes several seconds."""
        png = await viewer.get_maximized_image(layer, channel, **options)
        return Response(png, media_type=PNG)

    @router.get(
        "/layers/{layer}/channels/{channel}/maximized/progress.json",
        response_model=schemas.Progress,
        tags=["model"],
    )
    @takes_query(MaximizeOptions, "steps", "seed")
    async def get_maximized_progress(layer: Layer, channel: Channel, options: Any) -> Any:
        """Return the progress of maximized.png, without starting the computation."""
        return json_response(viewer.get_maximized_progress(layer, channel, **options))
