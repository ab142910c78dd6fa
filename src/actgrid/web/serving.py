"""`actgrid.serve` and `actgrid.view`: the viewer, for a browser and for a notebook."""

from __future__ import annotations

import html
import ipaddress
import re
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI

from actgrid.errors import OptionError, OutputError
from actgrid.models.types import ModelLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import PageOptions, ServeOptions, ViewerImageOptions, ViewOptions
from actgrid.web.app import make_app
from actgrid.web.images import ImageStore
from actgrid.web.viewer import Viewer

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["View", "make_viewer", "serve", "view"]

_LOOPBACK = "127.0.0.1"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@takes_options(ServeOptions)
def serve(
    model: ModelLike,
    images: Any = (),
    *,
    ready: Callable[[str], None] | None = None,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve the viewer, a page to look around inside a network, until interrupted.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    images
        Images that can be looked at: files, folders (recursively), globs, ``"demo"`` (the embedded
        photo), Pillow images, arrays of pixels 0 to 255, or several of these. The page can add
        others.
    ready
        Called with the page's address, which holds the token, once it can be opened.
    **options
        Options of the viewer and its server, see `actgrid.options.ServeOptions`.

    Raises
    ------
    OptionError
        If an option cannot be used. Also a ValueError.
    OutputError
        If the address cannot be listened at. Also an OSError.
    MissingDependencyError
        If FastAPI is not installed: ``pip install 'actgrid[web]'``. Also an ImportError.
    ActgridError
        Whatever `load_model` and `load_images` raise.

    Examples
    --------
    >>> actgrid.serve("keras:VGG16", "photos/", ready=print)
    http://127.0.0.1:8000/
    """
    host, token = options["host"], options["token"]
    if token is None and not _is_loopback(host):
        token = secrets.token_urlsafe(24)
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise OptionError("the token must be of ASCII letters, digits and signs, without spaces")
    viewer = make_viewer(model, images, **pick_options(options, PageOptions))
    with _listening(host, options["port"]) as listener:
        url = _url(host, listener.getsockname()[1], token)
        # With a token no page of elsewhere can ask, whatever name it finds for the server.
        names = None if token else [*_LOOPBACK_NAMES, host, *options["allowed_hosts"]]
        app = make_app(
            viewer, hosts=names, token=token, ready=None if ready is None else lambda: ready(url)
        )
        with suppress(KeyboardInterrupt):  # which is how it is meant to end
            _Server(app).run(sockets=[listener])


class View:
    """The viewer in a notebook cell, served by a thread of this process. Made by `view`.

    Attributes
    ----------
    url
        The page's address, which holds the token that it wants. Any browser on this machine may
        open it.

    Examples
    --------
    >>> with actgrid.view("demo", actgrid.demo.photo()) as view:
    ...     view.url
    'http://127.0.0.1:40571/?token=...'
    """

    def __init__(self, viewer: Viewer, height: int, address: str | None) -> None:
        self._height = height
        token = secrets.token_urlsafe(24)
        self._listener = _listening(_LOOPBACK, 0)
        port = self._listener.getsockname()[1]
        self.url = _url(_LOOPBACK, port, token)
        if address is not None:
            self.url = f"{address.format(port=port).rstrip('/')}/?token={token}"
        started = threading.Event()
        app = make_app(viewer, token=token, framed=True, ready=started.set)
        self._server = _Server(app)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        if self._failure is not None:
            self.close()
            raise self._failure

    def _run(self, started: threading.Event) -> None:
        try:
            self._server.run(sockets=[self._listener])
        except BaseException as error:
            self._failure = error
        finally:
            started.set()

    def __repr__(self) -> str:
        return f"<View {self.url}>"

    def _repr_html_(self) -> str:
        return (
            f'<iframe src="{html.escape(self.url)}" width="100%" height="{self._height}" '
            'allow="camera; clipboard-read" style="border: 0"></iframe>'
        )

    def close(self) -> None:
        """Stop serving. What the page shows stays until it asks for something else."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@takes_options(ViewOptions)
def view(model: ModelLike, images: Any = (), **options: Unpack[ViewOptions]) -> View:
    """Show the viewer in a notebook cell.

    Parameters
    ----------
    model, images
        As for `actgrid.serve`.
    **options
        Options of the viewer and the cell, see `actgrid.options.ViewOptions`.

    Returns
    -------
    View
        What the notebook shows. It is served until it is closed, or Python ends.

    Raises
    ------
    ActgridError
        Whatever `actgrid.serve` raises.

    Examples
    --------
    >>> actgrid.view(model, ["cat.jpg", "dog.jpg"])
    """
    viewer = make_viewer(model, images, **pick_options(options, PageOptions))
    return View(viewer, options["height"], options["address"])


@takes_options(PageOptions)
def make_viewer(model: ModelLike, images: Any = (), **options: Unpack[PageOptions]) -> Viewer:
    """Return what `serve` and `view` show; see `serve` for the parameters."""
    store = ImageStore(
        images, most_bytes=options["upload_bytes"], most_pixels=options["upload_pixels"]
    )
    return Viewer(model, store, **pick_options(options, ViewerImageOptions))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (")[0]
        raise OutputError(
            f"cannot listen at {host} port {port}: {reason}; another port, or 0 for any that is "
            "free, may do"
        ) from error


def _url(host: str, port: int, token: str | None) -> str:
    # Of all addresses at once, this machine's name is one that others may know.
    if host in ("", "0.0.0.0", "::"):
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={quote(token)}" if token else "")


class _Server(uvicorn.Server):
    """Starts and closes the application itself, whose errors reach whoever runs it as they are."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_level="warning",
            log_config=None,  # any would close the handlers of this process's other loggers
            access_log=False,
            server_header=False,
        )
        super().__init__(config)
        self._started = app.router.lifespan_context(app)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        # Before uvicorn takes over the signals, which it answers only when it has started.
        await self._started.__aenter__()
        await super().serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Nobody is waited for, neither who sends slowly nor who asked for what takes long.
        for connection in self.server_state.connections:
            connection.transport.abort()
        await super().shutdown(sockets)
        await self._started.__aexit__(None, None, None)
