"""The function `actgrid.view`, which shows the viewer in a notebook cell."""

from __future__ import annotations

import asyncio
import base64
import html
import io
import secrets
import threading
import uuid
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from functools import cached_property
from importlib.resources import files
from typing import Any, TypeVar, Unpack
from urllib.parse import unquote, urlsplit

from PIL import Image
from starlette.types import Message

from actgrid.errors import MissingDependencyError, OutputError
from actgrid.models.types import ModelLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import PageOptions, ViewOptions
from actgrid.web.app import make_app
from actgrid.web.serving import AppServer, format_url, make_viewer, open_socket
from actgrid.web.viewer import Viewer

__all__ = ["View", "view"]

T = TypeVar("T")

_LOOPBACK = "127.0.0.1"

# The view that each notebook cell shows, by the id of the cell.
_views_by_cell: dict[str, View] = {}


class View:
    """A running viewer that notebooks show in a cell, created by `actgrid.view`.

    The page and this process exchange messages of the notebook, so that no port is needed. A thread
    of this process computes the responses. A ``with`` block closes the viewer at its end.

    Parameters
    ----------
    viewer : Viewer
        The contents of the page.
    height : int
        Height of the cell in pixels.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> images = np.zeros((1, 8, 8, 3), np.uint8)
    >>> with actgrid.view(model, images, preprocess="unit") as view:
    ...     print(view.url)
    http://127.0.0.1:.../?token=...
    """

    def __init__(self, viewer: Viewer, height: int) -> None:
        self._viewer = viewer
        self._height = height
        self._name = str(viewer.get_model_info()["name"])
        self._token = secrets.token_urlsafe(24)
        self._app = make_app(viewer, token=self._token)
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._is_closed = False
        self._server: AppServer | None = None
        # The requests of the widget, by the number that the page gave them.
        self._requests: dict[Any, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._run(self._lifespan.__aenter__())
        except BaseException:
            self._stop_loop()
            raise

    def __repr__(self) -> str:
        return f"<View of {self._name}{', closed' if self._is_closed else ''}>"

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread of the viewer, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @cached_property
    def url(self) -> str:
        """Address of the page for a browser on this machine, including its token.

        The first use of the address starts a server at a free port of the loopback address.

        Raises
        ------
        OutputError
            If the view is closed. Also an OSError.
        """
        if self._is_closed:
            raise OutputError("the view is closed: call actgrid.view again")
        listener = open_socket(_LOOPBACK, 0)
        self._server = AppServer(self._app)
        serving = self._server.serve([listener])
        self._serving = asyncio.run_coroutine_threadsafe(serving, self._loop)
        return format_url(_LOOPBACK, listener.getsockname()[1], self._token)

    def close(self) -> None:
        """End the viewer, and release its model and results. An open page keeps its contents."""
        if self._is_closed:
            return
        self._is_closed = True
        if "widget" in self.__dict__:
            self.widget.send({"kind": "closed"})
            self.widget.close()
        if self._server is not None:
            self._server.should_exit = True
            self._serving.result()
        self._run(self._cancel_requests())
        self._run(self._lifespan.__aexit__(None, None, None))
        self._stop_loop()

    async def _cancel_requests(self) -> None:
        tasks = list(self._requests.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- notebooks ---

    @cached_property
    def widget(self) -> Any:
        """The page as a widget of anywidget, for notebooks that show widgets.

        Raises
        ------
        MissingDependencyError
            If anywidget is not installed. Also an ImportError.
        """
        try:
            import anywidget
            import traitlets
        except ImportError as error:
            raise MissingDependencyError(
                "a viewer in a notebook needs anywidget: pip install 'actgrid[notebook]'"
            ) from error

        class ViewerWidget(anywidget.AnyWidget):
            """The page, whose requests are messages of the notebook."""

            _esm = files("actgrid.web").joinpath("notebook.js").read_text("utf-8")
            height = traitlets.Int().tag(sync=True)
            picture_id = traitlets.Unicode().tag(sync=True)

        widget = ViewerWidget(height=self._height, picture_id=f"actgrid-{uuid.uuid4().hex}")
        widget.on_msg(self._receive)
        return widget

    def _display_(self) -> Any:
        """Return the object that marimo shows."""
        return self.widget

    def _ipython_display_(self) -> None:
        """Show the page in a cell, and end the view that the cell showed before.

        The first output is a picture, which remains in the saved notebook. The page hides the
        picture as long as the kernel runs.
        """
        from IPython.display import HTML, display

        if self._is_closed:
            print(self)
            return
        widget = self.widget
        cell = _get_cell_id()
        if cell is not None:
            previous = _views_by_cell.get(cell)
            _views_by_cell[cell] = self
            # A view that another cell shows, too, goes on.
            if previous is not None and previous not in _views_by_cell.values():
                previous.close()
        display(HTML(self._make_picture(widget.picture_id)))  # type: ignore[no-untyped-call]
        display(widget)  # type: ignore[no-untyped-call]

    def _make_picture(self, picture_id: str) -> str:
        """Return the thumbnails of all layers for the first image, in HTML."""
        images = self._viewer.images.list_images(0, 1)
        subject = self._name + "".join(f" for {image.name}" for image in images)
        text = html.escape(f"The layers of {subject}. To explore them, run this cell again.")
        if not images:
            return f'<p id="{picture_id}">{text}</p>'
        png = self._run(self._viewer.get_layers_sprite(images[0].id))
        file = io.BytesIO()
        with Image.open(io.BytesIO(png)) as sprite:
            sprite.save(file, "JPEG", quality=70)
        data = base64.b64encode(file.getvalue()).decode()
        return (
            f'<figure id="{picture_id}" style="margin: 0">'
            f'<img alt="{text}" style="max-width: 100%" src="data:image/jpeg;base64,{data}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def _receive(self, widget: Any, content: Mapping[str, Any], buffers: list[Any]) -> None:
        """Start to respond to a message of the page; called in the thread of the kernel."""
        if self._is_closed:
            return
        body = b"".join(map(bytes, buffers))
        self._loop.call_soon_threadsafe(self._accept, content, body)

    def _accept(self, content: Mapping[str, Any], body: bytes) -> None:
        number = content["id"]
        if content["kind"] == "cancel":
            if number in self._requests:
                self._requests[number].cancel()
            return
        task = self._loop.create_task(self._respond(content, body))
        self._requests[number] = task
        task.add_done_callback(lambda task: self._requests.pop(number, None))

    async def _respond(self, content: Mapping[str, Any], body: bytes) -> None:
        headers = {**content["headers"], "host": "localhost"}
        headers["authorization"] = f"Bearer {self._token}"
        with suppress(asyncio.CancelledError):
            status, received, data = await _request(
                self._app, content["method"], content["path"], headers, body
            )
            answer = {"kind": "response", "id": content["id"], "status": status}
            self.widget.send(answer | {"headers": received}, [data])


async def _request(
    app: Any, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    """Send a request to an ASGI application, and return status, headers and body."""
    address = urlsplit(path)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": unquote(address.path),
        "raw_path": address.path.encode(),
        "query_string": address.query.encode(),
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in {**headers, "content-length": str(len(body))}.items()
        ],
        "client": None,
        "server": ("localhost", 80),
    }
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    start: Message = {}
    parts: list[bytes] = []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()  # a cancelled request cancels the task
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    received = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    return int(start["status"]), received, b"".join(parts)


def _get_cell_id() -> str | None:
    """Return the id of the notebook cell that runs; None if the front end does not tell it."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None or not hasattr(shell, "get_parent"):
        return None
    metadata = shell.get_parent().get("metadata", {})
    cell = metadata.get("cellId")
    return None if cell is None else str(cell)


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
        The running viewer, which notebooks display. It runs until it is closed, until its cell
        shows another view, or until Python exits.

    Raises
    ------
    ActgridError
        Errors of `actgrid.serve`.

    Notes
    -----
    JupyterLab, Notebook, VS Code, Colab and marimo show the viewer as a widget; install
    ``actgrid[notebook]``. The saved notebook contains a picture of the layers, and no token. While
    the kernel runs another cell, the page waits.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> images = np.zeros((1, 8, 8, 3), np.uint8)
    >>> view = actgrid.view(model, images, preprocess="unit")
    >>> view
    <View of ...>
    >>> view.close()
    """
    viewer = make_viewer(model, images, **pick_options(options, PageOptions))
    return View(viewer, options["height"])
