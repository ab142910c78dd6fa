"""The function `actgrid.serve`, which serves the viewer over HTTP."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Unpack
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI

from actgrid.errors import OptionError, OutputError
from actgrid.models import load_model
from actgrid.models.types import ModelLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import PageOptions, ServeOptions, ViewerImageOptions
from actgrid.web.app import make_app
from actgrid.web.images import ImageStore
from actgrid.web.samples import make_reader
from actgrid.web.viewer import Viewer

__all__ = ["AppServer", "format_url", "make_viewer", "open_socket", "serve"]

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@takes_options(ServeOptions)
def serve(
    model: ModelLike,
    images: Any = (),
    *,
    ready: Callable[[str], None] | None = None,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve a web page that shows the activations of a model, until interrupted.

    Parameters
    ----------
    model : keras.Model or str or pathlib.Path
        A Keras model with one input, or a model specification, see `actgrid.load_model`.
    images : str, pathlib.Path, PIL.Image.Image, array or iterable of these
        Image files, folders (searched recursively), globs, ``"demo"`` (the embedded photo), Pillow
        images, arrays (H, W), (H, W, C) or (N, H, W, C) with values from 0 to 255, or several of
        these. Users of the page can upload further images. For a model that takes sequences,
        volumes, tables or texts: files of these, arrays as the model takes them, or texts.
    ready : callable or None
        Function that is called with the URL of the page, including its token, once the server
        accepts requests.
    **options
        See `actgrid.options.ServeOptions`.

    Raises
    ------
    OptionError
        If an option is invalid. Also a ValueError.
    OutputError
        If the server cannot listen at the address. Also an OSError.
    MissingDependencyError
        If FastAPI is not installed: ``pip install 'actgrid[web]'``. Also an ImportError.
    ActgridError
        Errors of `load_model` and `load_images`.

    Examples
    --------
    >>> actgrid.serve("keras:VGG16", "photos/", ready=print)  # doctest: +SKIP
    http://127.0.0.1:8000/
    """
    host, token = options["host"], options["token"]
    if token is None and not _is_loopback(host):
        token = secrets.token_urlsafe(24)
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise OptionError(
            "token must consist of ASCII letters, digits and punctuation, without spaces"
        )
    viewer = make_viewer(model, images, **pick_options(options, PageOptions))
    with open_socket(host, options["port"]) as listener:
        url = format_url(host, listener.getsockname()[1], token)
        # With a token, DNS rebinding is harmless, because other sites do not know the token.
        hosts = None if token else [*_LOOPBACK_NAMES, host, *options["allowed_hosts"]]
        app = make_app(
            viewer, hosts=hosts, token=token, ready=None if ready is None else lambda: ready(url)
        )
        with suppress(KeyboardInterrupt):  # Ctrl-C ends the server without a traceback
            _Server(app).run(sockets=[listener])


@takes_options(PageOptions)
def make_viewer(model: ModelLike, images: Any = (), **options: Unpack[PageOptions]) -> Viewer:
    """Create the `Viewer` of a model and its images; see `serve` for the parameters."""
    model = load_model(model)
    compare_with = options["compare_with"]
    if compare_with is not None:
        compare_with = load_model(compare_with)
    store = ImageStore(
        images,
        max_bytes=options["upload_bytes"],
        max_pixels=options["upload_pixels"],
        reader=make_reader(model, options),
    )
    viewer_options = pick_options(options, ViewerImageOptions)
    return Viewer(model, store, compare_with, **viewer_options)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; port 0 selects a free port.

    Raises
    ------
    OutputError
        If the address is not available. Also an OSError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (")[0]
        raise OutputError(
            f"cannot listen at {host} port {port}: {reason}; choose another port, or 0 for any "
            "free port"
        ) from error
    # asyncio sets this only for sockets that name the protocol. Without it, the body of a response
    # waits up to 40 ms for the acknowledgement of the header.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def format_url(host: str, port: int, token: str | None) -> str:
    """Return the URL of the page of a server that listens at an address."""
    # An address of all network interfaces is not valid in a URL, so the host name is used.
    if host in ("", "0.0.0.0", "::"):
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={quote(token)}" if token else "")


class AppServer(uvicorn.Server):
    """Uvicorn server of an application that has started, which does not log."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_level="warning",
            log_config=None,  # a configuration would close the handlers of other loggers
            access_log=False,
            server_header=False,
        )
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the server without waiting for open requests."""
        # Connections are aborted; uvicorn would wait for slow uploads and long computations.
        for connection in self.server_state.connections:
            connection.transport.abort()
        await super().shutdown(sockets)


class _Server(AppServer):
    """Server that also starts and closes the application, whose errors it raises."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(app)
        self._lifespan = app.router.lifespan_context(app)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        # The application starts before uvicorn installs its signal handlers, which would ignore
        # Ctrl-C until the server has started.
        await self._lifespan.__aenter__()
        await super().serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        await self._lifespan.__aexit__(None, None, None)
