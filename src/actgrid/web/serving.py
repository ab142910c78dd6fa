"""The functions `actgrid.serve` and `actgrid.view`, which start the viewer."""

from __future__ import annotations

import html
import ipaddress
import re
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Unpack
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
    """Serve a web page that shows the activations of a model, until interrupted.

    Parameters
    ----------
    model : keras.Model or str or pathlib.Path
        A Keras model whose only input is a batch of images, or a model specification, see
        `actgrid.load_model`.
    images : str, pathlib.Path, PIL.Image.Image, array or iterable of these
        Image files, folders (searched recursively), globs, ``"demo"`` (the embedded photo), Pillow
        images, arrays (H, W), (H, W, C) or (N, H, W, C) with values from 0 to 255, or several of
        these. Users of the page can upload further images.
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
    with _open_socket(host, options["port"]) as listener:
        url = _format_url(host, listener.getsockname()[1], token)
        # With a token, DNS rebinding is harmless, because other sites do not know the token.
        hosts = None if token else [*_LOOPBACK_NAMES, host, *options["allowed_hosts"]]
        app = make_app(
            viewer, hosts=hosts, token=token, ready=None if ready is None else lambda: ready(url)
        )
        with suppress(KeyboardInterrupt):  # Ctrl-C ends the server without a traceback
            _Server(app).run(sockets=[listener])


class View:
    """A running viewer that notebooks show in a cell, created by `actgrid.view`.

    A thread of this process serves the page. A ``with`` block closes the viewer at its end.

    Parameters
    ----------
    viewer : Viewer
        The contents of the page.
    height : int
        Height of the cell in pixels.
    address : str or None
        URL at which the browser reaches this machine, with ``{port}`` for the port; None: the
        browser runs on this machine.

    Attributes
    ----------
    url : str
        URL of the page, including its token. Any browser on this machine can open the page.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> images = np.zeros((1, 8, 8, 3), np.uint8)
    >>> with actgrid.view(model, images, preprocess="unit") as view:
    ...     print(view.url)
    http://127.0.0.1:.../?token=...
    """

    def __init__(self, viewer: Viewer, height: int, address: str | None) -> None:
        self._height = height
        token = secrets.token_urlsafe(24)
        self._listener = _open_socket(_LOOPBACK, 0)
        port = self._listener.getsockname()[1]
        self.url = _format_url(_LOOPBACK, port, token)
        if address is not None:
            self.url = f"{address.format(port=port).rstrip('/')}/?token={token}"
        started = threading.Event()
        app = make_app(viewer, token=token, allow_frames=True, ready=started.set)
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
        """Stop the server. An open page keeps its contents, but cannot load more."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@takes_options(ViewOptions)
def view(model: ModelLike, images: Any = (), **options: Unpack[ViewOptions]) -> View:
    """Show the viewer, a web page with the activations of a model, in a notebook cell.

    Parameters
    ----------
    model : keras.Model or str or pathlib.Path
        A Keras model whose only input is a batch of images, or a model specification, see
        `actgrid.load_model`.
    images : str, pathlib.Path, PIL.Image.Image, array or iterable of these
        The images, see `actgrid.serve`.
    **options
        See `actgrid.options.ViewOptions`.

    Returns
    -------
    View
        The running viewer, which notebooks display. Its server runs until the viewer is closed or
        Python exits.

    Raises
    ------
    ActgridError
        Errors of `actgrid.serve`.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> images = np.zeros((1, 8, 8, 3), np.uint8)
    >>> view = actgrid.view(model, images, preprocess="unit")
    >>> view
    <View http://127.0.0.1:.../?token=...>
    >>> view.close()
    """
    viewer = make_viewer(model, images, **pick_options(options, PageOptions))
    return View(viewer, options["height"], options["address"])


@takes_options(PageOptions)
def make_viewer(model: ModelLike, images: Any = (), **options: Unpack[PageOptions]) -> Viewer:
    """Create the `Viewer` of a model and its images; see `serve` for the parameters."""
    store = ImageStore(
        images, max_bytes=options["upload_bytes"], max_pixels=options["upload_pixels"]
    )
    return Viewer(model, store, **pick_options(options, ViewerImageOptions))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _open_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (")[0]
        raise OutputError(
            f"cannot listen at {host} port {port}: {reason}; choose another port, or 0 for any "
            "free port"
        ) from error


def _format_url(host: str, port: int, token: str | None) -> str:
    # An address of all network interfaces is not valid in a URL, so the host name is used.
    if host in ("", "0.0.0.0", "::"):
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={quote(token)}" if token else "")


class _Server(uvicorn.Server):
    """Uvicorn server that raises startup errors of the application, and does not log."""

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
        self._lifespan = app.router.lifespan_context(app)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        # The application starts before uvicorn installs its signal handlers, which would ignore
        # Ctrl-C until the server has started.
        await self._lifespan.__aenter__()
        await super().serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Connections are aborted; uvicorn would wait for slow uploads and long computations.
        for connection in self.server_state.connections:
            connection.transport.abort()
        await super().shutdown(sockets)
        await self._lifespan.__aexit__(None, None, None)
