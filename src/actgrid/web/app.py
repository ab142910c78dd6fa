"""The HTTP API, documented as OpenAPI at ``/api/openapi.json``, and the page."""

from __future__ import annotations

import asyncio
import mimetypes
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from importlib import metadata
from importlib.resources import files
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from actgrid.errors import ActgridError, NotFoundError, OptionError, TooLargeError
from actgrid.web import schemas
from actgrid.web.images import StoredImage
from actgrid.web.parameters import IMAGE_ID, TOKEN_GRID, check_query, describe_problem
from actgrid.web.security import CancelWhenGone, Guard
from actgrid.web.uploads import read_upload
from actgrid.web.viewer import Viewer

__all__ = ["make_app", "page_files"]

_ABOUT = """
Images in; layers, pictures and statistics out.

`POST` an image, or take one of `/api/images.json`, and ask for any layer of it: the number of a
layer is its place in `nodes` of `/api/model.json`. The model runs once for an image, however many
of its layers are asked for. Where the server was started with a token, requests need
`Authorization: Bearer TOKEN`. What is wrong is told in `detail`.

`HEAD` answers as `GET` does, without the body. A query parameter that a resource does not have is
refused. A computation is cancelled when its last client closes the connection.
"""
_PNG = "image/png"
_BINARY = {"type": "string", "format": "binary"}
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
    str, Path(pattern=IMAGE_ID, description="Id of an image.", examples=["0f3c5a9b12d4"])
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
        min_length=1,
        max_length=200,
        description="`predicted`, the number of a class, or its name in any case.",
        examples=["predicted"],
    ),
]
OfLayer = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=1000,
        description="Number or path of the layer, for methods that explain by a layer.",
        examples=["1"],
    ),
]
Steps = Annotated[int, Query(ge=1, le=512, description="How often the image is changed.")]
Seed = Annotated[int, Query(ge=0, le=2**31, description="Seed of the noise that it starts from.")]


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
        dependencies=[Depends(check_query)],
        openapi_url=None,  # whose route would ignore unknown parameters
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
    app.add_exception_handler(HTTPException, _not_routed)
    _add_images(app, viewer)
    _add_layers(app, viewer)
    _add_heatmaps(app, viewer)
    _add_model(app, viewer)
    _add_description(app)
    for name, content in page_files().items():
        _add_file(app, name, content)
    for route in app.routes:
        methods: set[str] = getattr(route, "methods", set())
        if "GET" in methods:
            methods.add("HEAD")  # whose body the server leaves out
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
    return _json({"detail": "; ".join(map(describe_problem, error.errors()))}, 422)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, headers = request.url.path, error.headers or {}
    detail = {
        404: f"there is no resource {path}; /api/openapi.json lists those of the API",
        405: f"{request.method} cannot be used on {path}; methods are {headers.get('Allow')}",
    }.get(error.status_code, error.detail)
    return _json({"detail": detail}, error.status_code, headers)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    # FastAPI's own way checks each number of long lists that are ours.
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type="application/json")


def _picture(description: str, media_type: str = _PNG) -> dict[str, Any]:
    """Return what documents a route that answers with a picture."""
    content = {media_type: {"schema": _BINARY}}
    return {
        "response_class": Response,
        "responses": {200: {"description": description, "content": content}},
    }


def _add_file(app: FastAPI, name: str, content: bytes) -> None:
    kind, _ = mimetypes.guess_type(name)
    # What the machine's own tables say of .js may be something that browsers do not run.
    media_type = "text/javascript" if name.endswith(".js") else kind

    async def file(request: Request) -> Response:
        return Response(content, media_type=media_type)

    # No route of the API: parameters such as the page's token are for its scripts.
    path = "/" if name == "index.html" else f"/{name}"
    app.add_route(path, file, include_in_schema=False)


def _add_description(app: FastAPI) -> None:
    description = app.openapi()
    for operations in description["paths"].values():
        if "get" not in operations:
            continue
        get = operations["get"]
        operations["head"] = get | {
            "summary": f"{get['summary']} Headers",
            "description": f"Get the headers that GET has. GET: {get['description']}",
            "operationId": f"{get['operationId']}_head",
            "responses": {
                status: {"description": response["description"]}
                for status, response in get["responses"].items()
            },
        }

    @app.get("/api/openapi.json", include_in_schema=False)
    async def openapi() -> Any:
        return _json(description)


def _add_images(app: FastAPI, viewer: Viewer) -> None:
    uploads = asyncio.Semaphore(_UPLOADS)

    @app.get("/api/images.json", response_model=schemas.Images, tags=["images"])
    async def images(
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Any:
        """List the images, some at a time."""
        listed = viewer.images.listed(offset, limit)
        return _json({"total": len(viewer.images), "images": list(map(_listed, listed))})

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
                    "application/octet-stream": {"schema": _BINARY},
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "properties": {"file": _BINARY},
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
                return _json({"detail": f"the image did not come in {_SECONDS} seconds"}, 408)
            called = name or upload.name or "image"
            image = await asyncio.to_thread(viewer.images.add, upload.data, called)
        return _json(_listed(image), 201)

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
            return _json({"detail": str(error)}, 409)
        return Response(status_code=204)

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


def _listed(image: StoredImage) -> dict[str, Any]:
    return {"id": image.id, "name": image.name, "uploaded": image.uploaded}


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
            Query(pattern=TOKEN_GRID, description="HxW: sequences as tiles of tokens."),
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
        return _json(viewer.heatmap_progress(image, method, class_of(target), layer_of(layer)))

    @app.get(f"{place}.json", response_model=schemas.Heatmap, tags=["heatmaps"])
    async def heatmap(image: Image, method: Method, target: Target, layer: OfLayer = None) -> Any:
        """Get what a heatmap is of: the class, its score, the layer."""
        return _json(await viewer.heatmap(image, method, class_of(target), layer_of(layer)))

    @app.get(
        f"{place}.png",
        tags=["heatmaps"],
        **_picture("Grayscale levels, as large as `picture.png`."),
    )
    async def heatmap_levels(
        image: Image, method: Method, target: Target, layer: OfLayer = None
    ) -> Response:
        """Get where in an image the model sees a class."""
        png = await viewer.heatmap_levels(image, method, class_of(target), layer_of(layer))
        return Response(png, media_type=_PNG)


def _numbered(text: str) -> int | str:
    """Return a number if the text is one of up to nine digits, else the text, which is a name."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else text


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
        layer: Layer, channel: Channel, steps: Steps = 64, seed: Seed = 0
    ) -> Response:
        """Draw an image that excites a channel the most: takes a while."""
        png = await viewer.maximized(layer, channel, steps, seed)
        return Response(png, media_type=_PNG)

    @app.get(
        "/api/layers/{layer}/channels/{channel}/maximized/progress.json",
        response_model=schemas.Progress,
        tags=["model"],
    )
    async def maximized_progress(
        layer: Layer, channel: Channel, steps: Steps = 64, seed: Seed = 0
    ) -> Any:
        """Get how far the computation of maximized.png is. Asking starts nothing."""
        return _json(viewer.maximized_progress(layer, channel, steps, seed))
