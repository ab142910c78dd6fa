"""Routes of the model: graph, kernels, dataset statistics, maximized images."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response

from actgrid.options import MaximizeOptions
from actgrid.web import schemas
from actgrid.web.parameters import takes_query
from actgrid.web.routes.answers import PNG, Channel, Layer, describe_picture, json_response
from actgrid.web.viewer import Viewer

__all__ = ["add_routes"]


def add_routes(app: FastAPI, viewer: Viewer) -> None:
    """Add the routes of the model to the application."""

    @app.get("/api/model.json", response_model=schemas.Model, tags=["model"])
    async def model() -> Any:
        """Get the model's layers, how they feed each other, and what can be asked for."""
        return json_response(viewer.about())

    @app.get("/api/layers/{layer}/kernel.json", response_model=schemas.Kernel, tags=["model"])
    async def kernel(layer: Layer) -> Any:
        """Get the shape and the extremes of a layer's kernel, and where its tiles are."""
        return json_response(await viewer.kernel(layer))

    @app.get(
        "/api/layers/{layer}/kernel.png",
        tags=["model"],
        **describe_picture("Grayscale: zero is level 128."),
    )
    async def kernel_levels(layer: Layer) -> Response:
        """Get the levels of a layer's kernel, the tiles of each output channel together."""
        return Response(await viewer.kernel_levels(layer), media_type=PNG)

    @app.get("/api/layers/{layer}/dataset.json", response_model=schemas.Dataset, tags=["model"])
    async def dataset(layer: Layer) -> Any:
        """Get the statistics and the top images of each channel over a dataset."""
        return json_response(await viewer.dataset(layer))

    @app.get(
        "/api/layers/{layer}/channels/{channel}/maximized.png",
        tags=["model"],
        **describe_picture("RGB, as large as the model's input."),
    )
    @takes_query(MaximizeOptions, "steps", "seed")
    async def maximized(layer: Layer, channel: Channel, options: Any) -> Response:
        """Synthesize an image that maximizes a channel: takes a while."""
        png = await viewer.maximized(layer, channel, **options)
        return Response(png, media_type=PNG)

    @app.get(
        "/api/layers/{layer}/channels/{channel}/maximized/progress.json",
        response_model=schemas.Progress,
        tags=["model"],
    )
    @takes_query(MaximizeOptions, "steps", "seed")
    async def maximized_progress(layer: Layer, channel: Channel, options: Any) -> Any:
        """Get how far the computation of maximized.png is. Asking starts nothing."""
        return json_response(viewer.maximized_progress(layer, channel, **options))
