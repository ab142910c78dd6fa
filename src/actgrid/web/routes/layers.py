"""Routes of the activations of layers for an image: statistics, pictures and attention."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from actgrid.option_groups import get_options
from actgrid.options import GridOptions, LayerGridOptions
from actgrid.web import schemas
from actgrid.web.parameters import takes_path, takes_query
from actgrid.web.routes.responses import (
    BYTES,
    PNG,
    Image,
    Layer,
    Target,
    describe_picture,
    json_response,
    parse_target,
)
from actgrid.web.viewer import Viewer

__all__ = ["add_routes"]


def add_routes(router: APIRouter, viewer: Viewer) -> None:
    """Add the routes that serve activations of layers to a router."""

    @router.get("/images/{image}/layers.json", response_model=schemas.Layers, tags=["activations"])
    async def get_layers(image: Image) -> Any:
        """Return the number of dead channels, minimum, maximum and mean of each layer."""
        return json_response(await viewer.get_layers(image))

    @router.get(
        "/images/{image}/layers.png",
        tags=["activations"],
        **describe_picture("A grayscale picture; layers.json describes the layout."),
    )
    async def get_layers_sprite(image: Image) -> Response:
        """Return thumbnails of all layers in one picture."""
        return Response(await viewer.get_layers_sprite(image), media_type=PNG)

    @router.get(
        "/images/{image}/layers/{layer}.json",
        response_model=schemas.Layer,
        tags=["activations"],
    )
    async def get_layer(image: Image, layer: Layer) -> Any:
        """Return the statistics of each channel of a layer, and the layout of its tiles."""
        return json_response(await viewer.get_layer(image, layer))

    @router.get(
        "/images/{image}/layers/{layer}.png",
        tags=["activations"],
        **describe_picture("An indexed picture; a grayscale picture for `cmap=gray`."),
    )
    @takes_query(LayerGridOptions, *get_options(GridOptions), "target")
    async def render_layer(image: Image, layer: Layer, options: Any) -> Response:
        """Return a grid of a layer's channels, with the options of `actgrid.render_model`."""
        target = parse_target(options["target"] or "predicted")
        png = await viewer.render_layer(image, layer, options | {"target": target})
        return Response(png, media_type=PNG)

    # The target is a path parameter, because names of classes may contain slashes.
    @router.get(
        "/images/{image}/layers/{layer}/relevance/{target:path}.json",
        response_model=schemas.Relevance,
        tags=["activations"],
    )
    async def get_relevance(image: Image, layer: Layer, target: Target) -> Any:
        """Return the contribution of each channel of a layer to the score of a class."""
        return json_response(await viewer.get_relevance(image, layer, parse_target(target)))

    @router.get(
        "/images/{image}/layers/{layer}/histograms.json",
        response_model=schemas.Histograms,
        tags=["activations"],
    )
    async def get_histograms(image: Image, layer: Layer) -> Any:
        """Return a histogram of each channel of a layer."""
        return json_response(await viewer.get_histograms(image, layer))

    @router.get(
        "/images/{image}/layers/{layer}/difference.json",
        response_model=schemas.Difference,
        tags=["activations"],
    )
    async def get_difference(image: Image, layer: Layer) -> Any:
        """Return the largest difference between two models in each channel of a layer."""
        return json_response(await viewer.get_difference(image, layer))

    @router.get(
        "/images/{image}/layers/{layer}/difference.png",
        tags=["activations"],
        **describe_picture("A grayscale picture of the difference; level 128 is zero."),
    )
    async def get_difference_levels(image: Image, layer: Layer) -> Response:
        """Return the activation of the model minus that of the second model."""
        return Response(await viewer.get_difference_levels(image, layer), media_type=PNG)

    @router.get(
        "/images/{image}/layers/{layer}/attention.json",
        response_model=schemas.Attention,
        tags=["activations"],
    )
    async def get_attention(image: Image, layer: Layer) -> Any:
        """Return the heads, queries and keys of a layer's attention."""
        return json_response(await viewer.get_attention(image, layer))

    @router.get(
        "/images/{image}/layers/{layer}/attention.bin",
        tags=["activations"],
        **describe_picture(
            "A byte for each attention weight, in the order (heads, queries, keys). 255 is the "
            "largest weight of the head and query, see `maxima` of attention.json.",
            BYTES,
        ),
    )
    async def get_attention_levels(image: Image, layer: Layer) -> Response:
        """Return the attention weights of a layer, quantized to 8 bits."""
        return Response(await viewer.get_attention_levels(image, layer), media_type=BYTES)

    @router.get(
        "/images/{image}/layers/{layer}/{normalize}/{scope}.png",
        tags=["activations"],
        **describe_picture(
            "A grayscale picture of levels; `tiles` of the layer describes the layout."
        ),
    )
    @takes_path(GridOptions, "normalize", "scope")
    async def get_levels(image: Image, layer: Layer, options: Any) -> Response:
        """Return all channels of a layer without colours, for clients that colour them."""
        return Response(await viewer.get_levels(image, layer, **options), media_type=PNG)

    @router.get(
        "/images/{image}/layers/{layer}/{normalize}/{scope}.json",
        response_model=schemas.ColorRange,
        tags=["activations"],
    )
    @takes_path(GridOptions, "normalize", "scope")
    async def get_range(image: Image, layer: Layer, options: Any) -> Any:
        """Return the values that the lowest and the highest colour of each tile stand for."""
        return json_response(await viewer.get_range(image, layer, **options))
