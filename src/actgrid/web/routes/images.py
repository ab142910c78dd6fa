"""Routes of the images: the list, uploads, and what the model sees."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response

from actgrid.errors import OptionError
from actgrid.web import schemas
from actgrid.web.images import StoredImage
from actgrid.web.routes.answers import BINARY, PNG, Image, describe_picture, json_response
from actgrid.web.uploads import read_upload
from actgrid.web.viewer import Viewer

__all__ = ["add_routes"]

# Uploads are held whole until they are decoded: so many at once, and each has to come in this time.
_UPLOADS = 8
_SECONDS = 120


def add_routes(app: FastAPI, viewer: Viewer) -> None:
    """Add the routes of the images to the application."""
    uploads = asyncio.Semaphore(_UPLOADS)

    @app.get("/api/images.json", response_model=schemas.Images, tags=["images"])
    async def images(
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Any:
        """List the images, some at a time."""
        listed = viewer.images.listed(offset, limit)
        return json_response({"total": len(viewer.images), "images": list(map(_listed, listed))})

    @app.post(
        "/api/images",
        status_code=201,
        response_model=schemas.Image,
        tags=["images"],
        responses={408: {"model": schemas.Problem, "description": "It came too slowly."}},
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
            Query(max_length=1000, description="What the image is called; that of a form's file."),
        ] = None,
    ) -> Any:
        """Add an image: PNG, JPEG, WebP, GIF or BMP, as the body or as the one file of a form."""
        # Of others no more is read than what is on its way.
        async with uploads:
            try:
                reading = read_upload(request, viewer.images.most_bytes)
                upload = await asyncio.wait_for(reading, _SECONDS)
            except asyncio.TimeoutError:
                return json_response(
                    {"detail": f"the image did not come in {_SECONDS} seconds"}, 408
                )
            called = name or upload.name or "image"
            image = await asyncio.to_thread(viewer.images.add, upload.data, called)
        return json_response(_listed(image), 201)

    @app.delete(
        "/api/images/{image}",
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

    @app.get(
        "/api/images/{image}/thumbnail.jpg",
        tags=["images"],
        **describe_picture("At most 128 pixels wide and high.", "image/jpeg"),
    )
    async def thumbnail(image: Image) -> Response:
        """Get a small picture of an image."""
        return Response(await viewer.thumbnail(image), media_type="image/jpeg")

    @app.get(
        "/api/images/{image}/picture.png",
        tags=["images"],
        **describe_picture("RGB."),
    )
    async def picture(image: Image) -> Response:
        """Get an image as the model sees it: cropped and resized."""
        return Response(await viewer.picture(image), media_type=PNG)

    @app.get("/api/images/{image}/classes.json", response_model=schemas.Classes, tags=["images"])
    async def classes(image: Image) -> Any:
        """Get the five classes that the model finds likeliest."""
        return json_response(await viewer.classes(image))


def _listed(image: StoredImage) -> dict[str, Any]:
    return {"id": image.id, "name": image.name, "uploaded": image.uploaded}
