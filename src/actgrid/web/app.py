"""The ASGI application of the page and the HTTP API, with its OpenAPI description."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from actgrid.errors import ActgridError, NotFoundError, TooLargeError
from actgrid.web import schemas
from actgrid.web.page_files import read_page_files
from actgrid.web.parameters import check_query, describe_problem
from actgrid.web.routes import heatmaps, images, layers, model
from actgrid.web.routes.responses import json_response
from actgrid.web.security import AccessControl, CancelOnDisconnect
from actgrid.web.viewer import Viewer

__all__ = ["make_app", "respond_to_error"]

_DESCRIPTION = """
Activations, statistics and heatmaps of a model's layers for images.

Upload an image with `POST`, or choose an image of `/api/images.json`. Layers are identified by
their index in `nodes` of `/api/model.json`. The model runs once for each image, for all of its
layers. If the server was started with a token, requests need `Authorization: Bearer TOKEN`. Error
responses contain the reason in `detail`.

`HEAD` responds like `GET`, without the body. Unknown and repeated query parameters are rejected. A
computation is cancelled when its last client closes the connection.
"""
_PROBLEMS = {
    400: "The host of the request is not allowed.",
    401: "The token is missing or wrong.",
    403: "Cross-origin requests are not allowed.",
    404: "The image, layer or channel does not exist.",
    413: "The upload has too many bytes or pixels.",
    422: "A parameter or an upload is invalid.",
}

_ROUTE_OPTIONS: dict[str, Any] = {
    "dependencies": [Depends(check_query)],
    "responses": {
        status: {"model": schemas.Problem, "description": description}
        for status, description in _PROBLEMS.items()
    },
}


def make_app(
    viewer: Viewer,
    *,
    hosts: Collection[str] | None = None,
    token: str | None = None,
    ready: Callable[[], None] | None = None,
) -> FastAPI:
    """Create the ASGI application that serves the page and the HTTP API of a viewer.

    Parameters
    ----------
    viewer
        Contents of the page. The application starts and closes the viewer.
    hosts, token
        Access control, see `AccessControl`.
    ready
        Function that is called once the viewer has started.
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
        description=_DESCRIPTION,
        version=metadata.version("actgrid"),
        lifespan=lifespan,
        openapi_url=None,  # FastAPI's own route would ignore unknown parameters
        # These pages load scripts from other sites.
        docs_url=None,
        redoc_url=None,
    )
    # The middleware that is added last is the outermost.
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(AccessControl, hosts=hosts, token=token)
    app.add_exception_handler(ActgridError, respond_to_error)
    app.add_exception_handler(RequestValidationError, _respond_to_invalid_request)
    app.add_exception_handler(HTTPException, _respond_to_http_error)
    _add_viewer(app, "/api", viewer)
    if viewer.other is not None:
        _add_viewer(app, "/api/other", viewer.other, has_list=False)
    _add_openapi(app)
    for name, content in read_page_files().items():
        _add_file(app, name, content)
    for route in app.routes:
        methods: set[str] = getattr(route, "methods", set())
        if "GET" in methods:
            methods.add("HEAD")  # the server omits the body
    return app


def _add_viewer(app: FastAPI, prefix: str, viewer: Viewer, has_list: bool = True) -> None:
    """Add the resources of a viewer to an application, and those of its list of images."""
    router = APIRouter(prefix=prefix, **_ROUTE_OPTIONS)
    if has_list:
        images.add_list_routes(router, viewer)
    for routes in (images, layers, heatmaps, model):
        routes.add_routes(router, viewer)
    app.router.routes.extend(router.routes)


async def respond_to_error(request: Request, error: Exception) -> Response:
    """Return the JSON response for an error of actgrid, with status 404, 413 or 422."""
    codes = {NotFoundError: 404, TooLargeError: 413}
    status = next((code for kind, code in codes.items() if isinstance(error, kind)), 422)
    return json_response({"detail": str(error)}, status)


async def _respond_to_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return json_response({"detail": "; ".join(map(describe_problem, error.errors()))}, 422)


async def _respond_to_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, headers = request.url.path, error.headers or {}
    detail = {
        404: f"there is no resource {path}; /api/openapi.json lists all resources",
        405: f"{path} does not support {request.method}; expected {headers.get('Allow')}",
    }.get(error.status_code, error.detail)
    return json_response({"detail": detail}, error.status_code, headers)


def _add_file(app: FastAPI, name: str, content: bytes) -> None:
    guessed_type, _ = mimetypes.guess_type(name)
    # The type of .js files in the tables of the system may be a type that browsers do not run.
    media_type = "text/javascript" if name.endswith(".js") else guessed_type

    async def get_file(request: Request) -> Response:
        return Response(content, media_type=media_type)

    # Not a route of the HTTP API: the page's scripts use query parameters such as the token.
    path = "/" if name == "index.html" else f"/{name}"
    app.add_route(path, get_file, include_in_schema=False)


def _add_openapi(app: FastAPI) -> None:
    description = app.openapi()
    for operations in description["paths"].values():
        if "get" not in operations:
            continue
        get = operations["get"]
        operations["head"] = get | {
            "summary": f"{get['summary']} Headers",
            "description": f"Return the headers of the response to GET. GET: {get['description']}",
            "operationId": f"{get['operationId']}_head",
            "responses": {
                status: {"description": response["description"]}
                for status, response in get["responses"].items()
            },
        }

    dependencies = _ROUTE_OPTIONS["dependencies"]

    @app.get("/api/openapi.json", include_in_schema=False, dependencies=dependencies)
    async def get_openapi() -> Any:
        return json_response(description)
