"""Routes of an image's layers: statistics, pictures and levels."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response

from actgrid.options import GridOptions
from actgrid.web import schemas
from actgrid.web.parameters import takes_path, takes_query
from actgrid.web.routes.answers import PNG, Image, Layer, describe_picture, json_response
from actgrid.web.viewer import Viewer

__all__ = ["add_routes"]


def add_routes(app: FastAPI, viewer: Viewer) -> None:
    """Add the routes of the layers to the application."""

    @app.get("/api/images/{image}/layers.json", response_model=schemas.Layers, tags=["activations"])
    async def layers(image: Image) -> Any:
        """Get how each layer fares: dead channels, extremes."""
        return json_response(await viewer.layers(image))

    @app.get(
        "/api/images/{image}/layers.png",
        tags=["activations"],
        **describe_picture("Grayscale; see layers.json for where each layer is."),
    )
    async def layers_sprite(image: Image) -> Response:
        """Get a thumbnail of each layer, all in one picture."""
        return Response(await viewer.layers_sprite(image), media_type=PNG)

    @app.get(
        "/api/images/{image}/layers/{layer}.json",
        response_model=schemas.Layer,
        tags=["activations"],
    )
    async def layer(image: Image, layer: Layer) -> Any:
        """Get the statistics of each channel, and where its tiles are in the levels."""
        return json_response(await viewer.layer(image, layer))

    @app.get(
        "/api/images/{image}/layers/{layer}.png",
        tags=["activations"],
        **describe_picture("Indexed, or grayscale for `cmap=gray`."),
    )
    @takes_query(GridOptions)
    async def rendered(image: Image, layer: Layer, options: Any) -> Response:
        """Get a layer's picture, drawn as by `actgrid.render`."""
        return Response(await viewer.rendered(image, layer, options), media_type=PNG)

    @app.get(
        "/api/images/{image}/layers/{layer}/histograms.json",
        response_model=schemas.Histograms,
        tags=["activations"],
    )
    async def histograms(image: Image, layer: Layer) -> Any:
        """Get how the values of each channel are spread between its extremes."""
        return json_response(await viewer.histograms(image, layer))

    @app.get(
        "/api/images/{image}/layers/{layer}/{normalize}/{scope}.png",
        tags=["activations"],
        **describe_picture("Grayscale: the levels; see the layer's `tiles` for where they are."),
    )
    @takes_path(GridOptions, "normalize", "scope")
    async def levels(image: Image, layer: Layer, options: Any) -> Response:
        """Get the levels of all channels, to be coloured by whoever shows them."""
        return Response(await viewer.levels(image, layer, **options), media_type=PNG)
