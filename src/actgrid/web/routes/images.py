"""Routes of the images: list, upload, removal, pictures and classes."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from actgrid.errors import OptionError
from actgrid.web import schemas
from actgrid.web.images import StoredImage
from actgrid.web.routes.responses import BINARY, PNG, Image, describe_picture, json_response
from actgrid.web.uploads import read_upload
from actgrid.web.viewer import Viewer

__all__ = ["add_list_routes", "add_routes"]

# Uploads are kept in memory until they are decoded, so their number and duration are limited.
_MAX_UPLOADS = 8
_MAX_UPLOAD_SECONDS = 120


def add_routes(router: APIRouter, viewer: Viewer) -> None:
    """Add the routes that serve pictures and classes of images to a router."""

    @router.get(
        "/images/{image}/thumbnail.jpg",
        tags=["images"],
        **describe_picture("A picture of at most 128 x 128 pixels.", "image/jpeg"),
    )
    async def get_thumbnail(image: Image) -> Response:
        """Return the thumbnail of an image."""
        return Response(await viewer.get_thumbnail(image), media_type="image/jpeg")

    @router.get(
        "/images/{image}/picture.png",
        tags=["images"],
        **describe_picture("An RGB picture in the size of the model's input."),
    )
    async def get_picture(image: Image) -> Response:
        """Return an image as the model receives it, cropped and resized."""
        return Response(await viewer.get_picture(image), media_type=PNG)

    @router.get("/images/{image}/classes.json", response_model=schemas.Classes, tags=["images"])
    async def get_classes(image: Image) -> Any:
        """Return the five classes with the highest scores for an image."""
        return json_response(await viewer.get_classes(image))

    @router.get("/images/{image}/ablation.json", response_model=schemas.Ablation, tags=["images"])
    async def get_ablation(
        image: Image,
        channels: Annotated[
            str,
            Query(
                max_length=10_000,
                description="Channels whose values become zero: the index of a layer and of its "
                "channels, for several layers joined by semicolons.",
                examples=["1:0,3"],
            ),
        ],
    ) -> Any:
        """Return scores of classes before and after channels are switched off."""
        return json_response(await viewer.get_ablation(image, channels))


def add_list_routes(router: APIRouter, viewer: Viewer) -> None:
    """Add the routes that list, upload and delete images to a router."""
    uploads = asyncio.Semaphore(_MAX_UPLOADS)

    @router.get("/images.json", response_model=schemas.Images, tags=["images"])
    async def list_images(
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Any:
        """Return `limit` images of the list, starting at index `offset`."""
        page = viewer.images.list_images(offset, limit)
        return json_response({"total": len(viewer.images), "images": list(map(_describe, page))})

    @router.post(
        "/images",
        status_code=201,
        response_model=schemas.Image,
        tags=["images"],
        responses={408: {"model": schemas.Problem, "description": "The upload took too long."}},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/octet-stream": {"schema": BINARY},
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "properties": {"file": BINARY},
                            "required": ["file"],
                            "additionalProperties": False,
                        }
                    },
                },
            }
        },
    )
    async def add_image(
        request: Request,
        name: Annotated[
            str | None,
            Query(
                max_length=1000,
                description="Name of the image. If omitted: the name of the file in the form.",
            ),
        ] = None,
    ) -> Any:
        """Upload a PNG, JPEG, WebP, GIF or BMP as the body or as the only file of a form."""
        # Bodies of further uploads are not read while they wait.
        async with uploads:
            try:
                reading = read_upload(request, viewer.images.max_bytes)
                upload = await asyncio.wait_for(reading, _MAX_UPLOAD_SECONDS)
            except TimeoutError:
                return json_response(
                    {"detail": f"the upload took more than {_MAX_UPLOAD_SECONDS} seconds"}, 408
                )
            image_name = name or upload.name or "image"
            image = await asyncio.to_thread(viewer.images.add, upload.data, image_name)
        return json_response(_describe(image), 201)

    @router.delete(
        "/images/{image}",
        status_code=204,
        response_class=Response,
        tags=["images"],
        responses={409: {"model": schemas.Problem, "description": "The image was not uploaded."}},
    )
    async def remove_image(image: Image) -> Response:
        """Remove an uploaded image and everything that was computed for it."""
        try:
            viewer.remove(image)
        except OptionError as error:
            return json_response({"detail": str(error)}, 409)
        return Response(status_code=204)


def _describe(image: StoredImage) -> dict[str, Any]:
    return {"id": image.id, "name": image.name, "uploaded": image.uploaded}
