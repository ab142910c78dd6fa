"""`actgrid.serve` and `actgrid.view`: the viewer, for a browser and for a notebook."""

from __future__ import annotations

import html
import ipaddress
import re
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI

from actgrid.errors import OptionError, OutputError
from actgrid.models.types import ModelLike
from actgrid.option_types import integer_option
from actgrid.statistics import DatasetStats
from actgrid.web.app import make_app
from actgrid.web.images import ImageStore
from actgrid.web.viewer import Viewer

__all__ = ["View", "make_viewer", "serve", "view"]

_LOOPBACK = "127.0.0.1"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def serve(
    model: ModelLike,
    images: Any = (),
    *,
    host: str = _LOOPBACK,
    port: int = 8000,
    token: str | None = None,
    allowed_hosts: Sequence[str] = (),
    ready: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Serve the viewer, a page to look around inside a network, until interrupted.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    images
        Those that can be looked at: files, folders (recursively), globs, Pillow images, arrays of
        pixels 0 to 255, or several of these. The page can add others.
    host
        The address to listen at. By any but a loopback address others can reach the server: it
        then wants a token.
    port
        0: any that is free.
    token
        What requests must bring; None: one is made up where it is needed.
    allowed_hosts
        Further names by which the server may be addressed, where there is no token.
    ready
        Called with the page's address, which holds the token, once it can be opened.
    options
        statistics
            What `actgrid.measure_images` returned, or the folder or ``stats.npz`` that it wrote:
            channels are then also shown over that dataset.
        labels
            Names of the classes; ``"imagenet"``; None: ImageNet's if the model is a network of
            `keras.applications` with its head, or the demo.
        size, preprocess, fit
            How images become the model's input, see `actgrid.load_images`. A model that takes
            any size gets images of at most 512 pixels.
        cache_bytes
            Activations that are kept for another look (512 MiB).
        batch_size
            Images in one run of the model, where several wait (8).
        upload_bytes, upload_pixels
            The largest image that may be added (32 MiB, 50 million pixels).

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
    if token is None and not _is_loopback(host):
        token = secrets.token_urlsafe(24)
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise OptionError("the token must be of ASCII letters, digits and signs, without spaces")
    viewer = make_viewer(model, images, **options)
    with _listening(host, port) as listener:
        url = _url(host, listener.getsockname()[1], token)
        # With a token no page of elsewhere can ask, whatever name it finds for the server.
        names = None if token else [*_LOOPBACK_NAMES, host, *allowed_hosts]
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


def view(
    model: ModelLike,
    images: Any = (),
    *,
    height: int = 800,
    address: str | None = None,
    **options: Any,
) -> View:
    """Show the viewer in a notebook cell.

    Parameters
    ----------
    model, images
        As for `actgrid.serve`.
    height
        Of the cell, in pixels.
    address
        Where the browser finds this machine's ports, if it is not on this machine:
        ``"/proxy/{port}/"`` with the package jupyter-server-proxy. None: at this machine.
    options
        As for `actgrid.serve`.

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
    integer_option("height", height, 1)
    return View(make_viewer(model, images, **options), height, address)


def make_viewer(
    model: ModelLike,
    images: Any = (),
    *,
    statistics: DatasetStats | str | Path | None = None,
    upload_bytes: int = 32 << 20,
    upload_pixels: int = 50_000_000,
    **options: Any,
) -> Viewer:
    """Return what `serve` and `view` show; see `serve` for the options."""
    if isinstance(statistics, (str, Path)):
        statistics = DatasetStats.load(statistics)
    store = ImageStore(
        images,
        most_bytes=integer_option("upload_bytes", upload_bytes, 1),
        most_pixels=integer_option("upload_pixels", upload_pixels, 1),
    )
    return Viewer(model, store, dataset=statistics, **options)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= integer_option("port", port) < 1 << 16:
        raise OptionError(f"port must be 0 to 65535, not {port}")
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
