"""The HTTP API, documented as OpenAPI at ``/api/openapi.json``, and the page."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from importlib import metadata
from importlib.resources import files
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from actgrid.errors import ActgridError, NotFoundError, TooLargeError
from actgrid.web import schemas
from actgrid.web.security import CancelWhenGone, Guard
from actgrid.web.viewer import Viewer

__all__ = ["make_app", "page_files"]

_ABOUT = """
Images in; layers, pictures and statistics out.

`POST` an image, or take one of `/api/images.json`, and ask for any layer of it: the number of a
layer is its place in `nodes` of `/api/model.json`. The model runs once for an image, however many
of its layers are asked for. Where the server was started with a token, requests need
`Authorization: Bearer TOKEN`. What is wrong is told in `detail`.
"""
_PNG = "image/png"
_PROBLEMS = {
    400: "The server is not addressed by this name.",
    401: "The token is missing or wrong.",
    403: "A page of another site may not ask.",
    404: "There is no such image, layer or channel.",
    413: "Too many bytes or pixels.",
    422: "Something that cannot be used.",
}
# Uploads are held whole until they are decoded: so many at once, and each has to come in this time.
_UPLOADS = 8
_SECONDS = 120

Image = Annotated[
    str, Path(pattern="^[0-9a-f]{1,64}$", description="Id of an image.", examples=["0f3c5a9b12d4"])
]
Layer = Annotated[int, Path(ge=0, le=1_000_000, description="Place in `nodes` of the model.")]
Channel = Annotated[int, Path(ge=0, le=100_000_000, description="Number of a channel, from 0.")]
Normalize = Annotated[
    str,
    Path(
        max_length=64,
        description="`standard`, `minmax`, `symmetric`, `percentile:1,99` or `range:0,6`.",
        examples=["standard"],
    ),
]
Scope = Annotated[str, Path(max_length=16, description="`channel` or `layer`.", examples=["layer"])]
Method = Annotated[
    str, Path(max_length=32, description="One of the model's `methods`.", examples=["gradcam"])
]
Target = Annotated[
    str,
    Path(
        pattern=r"^(predicted|\d{1,9})$",
        description="`predicted`, or the number of a class.",
        examples=["predicted"],
    ),
]
OfLayer = Annotated[
    int | None, Query(ge=0, le=1_000_000, description="For methods that look at a layer.")
]


def make_app(
    viewer: Viewer,
    *,
    hosts: Collection[str] | None = None,
    token: str | None = None,
    framed: bool = False,
    ready: Callable[[], None] | None = None,
) -> FastAPI:
    """Return the ASGI application.

    Parameters
    ----------
    viewer
        What it shows. It is started and closed with the application.
    hosts, token, framed
        Who may ask, see `Guard`.
    ready
        Called once the viewer has started.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await viewer.start()
            if ready is not None:
                ready()
            yield
        finally:
            await viewer.close()

    app = FastAPI(
        title="actgrid",
        description=_ABOUT,
        version=metadata.version("actgrid"),
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        responses={
            status: {"model": schemas.Problem, "description": description}
            for status, description in _PROBLEMS.items()
        },
    )
    # The last one added is the outermost.
    app.add_middleware(CancelWhenGone)
    app.add_middleware(Guard, hosts=hosts, token=token, framed=framed)
    app.add_exception_handler(ActgridError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    for name, content in page_files().items():
        _add_file(app, name, content)
    _add_images(app, viewer)
    _add_layers(app, viewer)
    _add_heatmaps(app, viewer)
    _add_model(app, viewer)
    return app


def page_files() -> dict[str, bytes]:
    """Return the files of the page, by name."""
    folder = files("actgrid.web").joinpath("page")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


async def _refused(request: Request, error: Exception) -> Response:
    kinds = {NotFoundError: 404, TooLargeError: 413}
    status = next((code for kind, code in kinds.items() if isinstance(error, kind)), 422)
    return _json({"detail": str(error)}, status)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = (f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
    return _json({"detail": "; ".join(problems)}, 422)


def _json(value: Any, status: int = 200) -> Response:
    # FastAPI's own way checks each number of long lists that are ours.
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")


def _picture(description: str, media_type: str = _PNG) -> dict[str, Any]:
    """Return what documents a route that answers with a picture."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {
        "response_class": Response,
        "responses": {200: {"description": description, "content": content}},
    }


def _add_file(app: FastAPI, name: str, content: bytes) -> None:
    kind, _ = mimetypes.guess_type(name)
    # What the machine's own tables say of .js may be something that browsers do not run.
    media_type = "text/javascript" if name.endswith(".js") else kind

    async def file() -> Response:
        return Response(content, media_type=media_type)

    path = "/" if name == "index.html" else f"/{name}"
    app.add_api_route(path, file, include_in_schema=False)


def _add_images(app: FastAPI, viewer: Viewer) -> None:
    uploads = asyncio.Semaphore(_UPLOADS)

    @app.get("/api/images.json", response_model=schemas.Images, tags=["images"])
    async def images(
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Any:
        """List the images, some at a time."""
        listed = viewer.images.listed(offset, limit)
        named = [{"id": image.id, "name": image.name} for image in listed]
        return _json({"total": len(viewer.images), "images": named})

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
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
                },
            }
        },
    )
    async def add_image(
        request: Request, name: Annotated[str, Query(max_length=1000)] = "image"
    ) -> Any:
        """Add an image: the body is the file, PNG, JPEG, WebP, GIF or BMP."""
        # Of others no more is read than what is on its way.
        async with uploads:
            try:
                body = _body(request, viewer.images.most_bytes)
                data = await asyncio.wait_for(body, _SECONDS)
            except asyncio.TimeoutError:
                return _json({"detail": f"the image did not come in {_SECONDS} seconds"}, 408)
            image = await asyncio.to_thread(viewer.images.add, data, name)
        return _json({"id": image.id, "name": image.name}, 201)

    @app.get(
        "/api/images/{image}/thumbnail.jpg",
        tags=["images"],
        **_picture("At most 128 pixels wide and high.", "image/jpeg"),
    )
    async def thumbnail(image: Image) -> Response:
        """Get a small picture of an image."""
        return Response(await viewer.thumbnail(image), media_type="image/jpeg")

    @app.get(
        "/api/images/{image}/picture.png",
        tags=["images"],
        **_picture("RGB."),
    )
    async def picture(image: Image) -> Response:
        """Get an image as the model sees it: cropped and resized."""
        return Response(await viewer.picture(image), media_type=_PNG)

    @app.get("/api/images/{image}/classes.json", response_model=schemas.Classes, tags=["images"])
    async def classes(image: Image) -> Any:
        """Get the five classes that the model finds likeliest."""
        return _json(await viewer.classes(image))


async def _body(request: Request, most: int) -> bytes:
    """Return the body of a request, unless it is longer than it may be."""
    pieces: list[bytes] = []
    length = 0
    too_large = TooLargeError(f"an image may have {most:,} bytes at most")
    if int(request.headers.get("content-length") or 0) > most:
        raise too_large
    async for piece in request.stream():
        length += len(piece)
        if length > most:
            raise too_large
        pieces.append(piece)
    return b"".join(pieces)


def _add_layers(app: FastAPI, viewer: Viewer) -> None:
    @app.get("/api/images/{image}/layers.json", response_model=schemas.Layers, tags=["activations"])
    async def layers(image: Image) -> Any:
        """Get how each layer fares: dead channels, extremes."""
        return _json(await viewer.layers(image))

    @app.get(
        "/api/images/{image}/layers.png",
        tags=["activations"],
        **_picture("Grayscale; see layers.json for where each layer is."),
    )
    async def layers_sprite(image: Image) -> Response:
        """Get a thumbnail of each layer, all in one picture."""
        return Response(await viewer.layers_sprite(image), media_type=_PNG)

    @app.get(
        "/api/images/{image}/layers/{layer}.json",
        response_model=schemas.Layer,
        tags=["activations"],
    )
    async def layer(image: Image, layer: Layer) -> Any:
        """Get the statistics of each channel, and where its tiles are in the levels."""
        return _json(await viewer.layer(image, layer))

    @app.get(
        "/api/images/{image}/layers/{layer}.png",
        tags=["activations"],
        **_picture("Indexed, or grayscale for `cmap=gray`."),
    )
    async def rendered(
        image: Image,
        layer: Layer,
        normalize: Annotated[str, Query(max_length=64)] = "standard",
        scope: Annotated[str, Query(max_length=16)] = "channel",
        columns: Annotated[int | None, Query(ge=1, le=100_000)] = None,
        padding: Annotated[int, Query(ge=0, le=64)] = 1,
        zoom: Annotated[int, Query(ge=1, le=64)] = 1,
        background: Annotated[int, Query(ge=0, le=255)] = 0,
        order: Annotated[str, Query(max_length=16)] = "index",
        cmap: Annotated[str, Query(max_length=64)] = "viridis",
        token_grid: Annotated[
            str | None,
            Query(pattern=r"^\d{1,4}x\d{1,4}$", description="HxW: sequences as tiles of tokens."),
        ] = None,
    ) -> Response:
        """Get a layer's picture, drawn as by `actgrid.render`."""
        sides = None if token_grid is None else tuple(map(int, token_grid.split("x")))
        png = await viewer.rendered(
            image,
            layer,
            normalize=normalize,
            scope=scope,
            columns=columns,
            padding=padding,
            zoom=zoom,
            background=background,
            order=order,
            cmap=cmap,
            token_grid=sides,
        )
        return Response(png, media_type=_PNG)

    @app.get(
        "/api/images/{image}/layers/{layer}/histograms.json",
        response_model=schemas.Histograms,
        tags=["activations"],
    )
    async def histograms(image: Image, layer: Layer) -> Any:
        """Get how the values of each channel are spread between its extremes."""
        return _json(await viewer.histograms(image, layer))

    @app.get(
        "/api/images/{image}/layers/{layer}/{normalize}/{scope}.png",
        tags=["activations"],
        **_picture("Grayscale: the levels; see the layer's `tiles` for where they are."),
    )
    async def levels(image: Image, layer: Layer, normalize: Normalize, scope: Scope) -> Response:
        """Get the levels of all channels, to be coloured by whoever shows them."""
        return Response(await viewer.levels(image, layer, normalize, scope), media_type=_PNG)


def _add_heatmaps(app: FastAPI, viewer: Viewer) -> None:
    def wanted(target: str) -> int | None:
        return None if target == "predicted" else int(target)

    @app.get(
        "/api/images/{image}/heatmaps/{method}/{target}.json",
        response_model=schemas.Heatmap,
        tags=["heatmaps"],
    )
    async def heatmap(image: Image, method: Method, target: Target, layer: OfLayer = None) -> Any:
        """Get what a heatmap is of: the class, its score, the layer."""
        return _json(await viewer.heatmap(image, method, wanted(target), layer))

    @app.get(
        "/api/images/{image}/heatmaps/{method}/{target}.png",
        tags=["heatmaps"],
        **_picture("Grayscale levels, as large as `picture.png`."),
    )
    async def heatmap_levels(
        image: Image, method: Method, target: Target, layer: OfLayer = None
    ) -> Response:
        """Get where in an image the model sees a class."""
        png = await viewer.heatmap_levels(image, method, wanted(target), layer)
        return Response(png, media_type=_PNG)


def _add_model(app: FastAPI, viewer: Viewer) -> None:
    @app.get("/api/model.json", response_model=schemas.Model, tags=["model"])
    async def model() -> Any:
        """Get the model's layers, how they feed each other, and what can be asked for."""
        return _json(viewer.about())

    @app.get("/api/layers/{layer}/kernel.json", response_model=schemas.Kernel, tags=["model"])
    async def kernel(layer: Layer) -> Any:
        """Get the shape and the extremes of a layer's kernel, and where its tiles are."""
        return _json(await viewer.kernel(layer))

    @app.get(
        "/api/layers/{layer}/kernel.png",
        tags=["model"],
        **_picture("Grayscale: zero is level 128."),
    )
    async def kernel_levels(layer: Layer) -> Response:
        """Get the levels of a layer's kernel, the tiles of each output channel together."""
        return Response(await viewer.kernel_levels(layer), media_type=_PNG)

    @app.get("/api/layers/{layer}/dataset.json", response_model=schemas.Dataset, tags=["model"])
    async def dataset(layer: Layer) -> Any:
        """Get the statistics of each channel over a dataset, and the images that excite it most."""
        return _json(await viewer.dataset(layer))

    @app.get(
        "/api/layers/{layer}/channels/{channel}/maximized.png",
        tags=["model"],
        **_picture("RGB, as large as the model's input."),
    )
    async def maximized(
        layer: Layer,
        channel: Channel,
        steps: Annotated[int, Query(ge=1, le=512)] = 64,
        seed: Annotated[int, Query(ge=0, le=2**31)] = 0,
    ) -> Response:
        """Draw an image that excites a channel the most: takes a while."""
        png = await viewer.maximized(layer, channel, steps, seed)
        return Response(png, media_type=_PNG)
