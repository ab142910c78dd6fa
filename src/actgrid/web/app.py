"""The HTTP API, documented as OpenAPI at ``/api/openapi.json``, and the page."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from actgrid.errors import ActgridError, NotFoundError, TooLargeError
from actgrid.web import schemas
from actgrid.web.page_files import page_files
from actgrid.web.parameters import check_query, describe_problem
from actgrid.web.routes import heatmaps, images, layers, model
from actgrid.web.routes.answers import json_response
from actgrid.web.security import CancelWhenGone, Guard
from actgrid.web.viewer import Viewer

__all__ = ["make_app", "refuse"]

_ABOUT = """
Images in; layers, pictures and statistics out.

`POST` an image, or take one of `/api/images.json`, and ask for any layer of it: the number of a
layer is its place in `nodes` of `/api/model.json`. The model runs once for an image, however many
of its layers are asked for. Where the server was started with a token, requests need
`Authorization: Bearer TOKEN`. What is wrong is told in `detail`.

`HEAD` answers as `GET` does, without the body. A query parameter that a resource does not have is
refused. A computation is cancelled when its last client closes the connection.
"""
_PROBLEMS = {
    400: "The server is not addressed by this name.",
    401: "The token is missing or wrong.",
    403: "A page of another site may not ask.",
    404: "There is no such image, layer or channel.",
    413: "Too many bytes or pixels.",
    422: "Something that cannot be used.",
}


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
    app.add_exception_handler(ActgridError, refuse)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _not_routed)
    for routes in (images, layers, heatmaps, model):
        routes.add_routes(app, viewer)
    _add_description(app)
    for name, content in page_files().items():
        _add_file(app, name, content)
    for route in app.routes:
        methods: set[str] = getattr(route, "methods", set())
        if "GET" in methods:
            methods.add("HEAD")  # whose body the server leaves out
    return app


async def refuse(request: Request, error: Exception) -> Response:
    """Answer with the message of an error of actgrid."""
    kinds = {NotFoundError: 404, TooLargeError: 413}
    status = next((code for kind, code in kinds.items() if isinstance(error, kind)), 422)
    return json_response({"detail": str(error)}, status)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return json_response({"detail": "; ".join(map(describe_problem, error.errors()))}, 422)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, headers = request.url.path, error.headers or {}
    detail = {
        404: f"there is no resource {path}; /api/openapi.json lists those of the API",
        405: f"{request.method} cannot be used on {path}; methods are {headers.get('Allow')}",
    }.get(error.status_code, error.detail)
    return json_response({"detail": detail}, error.status_code, headers)


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
        return json_response(description)
