"""Tests of `actgrid.serve` and `actgrid.view`."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import keras
import numpy as np
import pytest
import tensorflow as tf

import actgrid
from actgrid.errors import ModelError, OptionError, OutputError
from actgrid.web.serving import make_viewer, open_socket
from actgrid.web.viewer import Viewer


def request_model(url: str) -> httpx.Response:
    """Request model.json from the viewer with the URL of a page."""
    address, _, token = url.partition("?token=")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"{address}api/model.json", headers=headers)


class ServerThread:
    """A call of `actgrid.serve` in a thread."""

    def __init__(self, model: Any, **options: Any) -> None:
        self.url = ""
        started = threading.Event()

        def ready(url: str) -> None:
            self.url = url
            started.set()

        def run() -> None:
            actgrid.serve(model, port=0, ready=ready, **options)

        threading.Thread(target=run, daemon=True).start()
        assert started.wait(60)


def test_loopback_address_needs_no_token(model: Any) -> None:
    server = ServerThread(model)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.url)
    assert request_model(server.url).json()["name"] == "small"
    host = {"host": "evil.example"}
    assert httpx.get(server.url, headers=host).status_code == 400


def test_other_addresses_need_a_token(model: Any) -> None:
    server = ServerThread(model, host="0.0.0.0")
    token = server.url.partition("?token=")[2]
    assert len(token) >= 32
    port = re.search(r":(\d+)/", server.url)
    assert port is not None
    local = f"http://127.0.0.1:{port[1]}/"
    assert request_model(local).status_code == 401
    assert request_model(f"{local}?token={token}").status_code == 200
    assert httpx.get(local).status_code == 200  # the page itself


def test_given_token_is_used(model: Any) -> None:
    server = ServerThread(model, token="open/sesame&")
    assert server.url.endswith("?token=open/sesame%26")
    address = server.url.partition("?")[0]
    assert request_model(address).status_code == 401
    assert request_model(f"{address}?token=open/sesame&").status_code == 200


def test_allowed_hosts_are_accepted(model: Any) -> None:
    server = ServerThread(model, allowed_hosts=["viewer.example"])
    host = {"host": "viewer.example"}
    assert httpx.get(f"{server.url}api/images.json", headers=host).status_code == 200


@pytest.fixture
def used_port() -> Iterator[int]:
    """Yield a port at which another socket listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_port_in_use_raises(model: Any, used_port: int) -> None:
    with pytest.raises(OutputError, match=f"port {used_port}: .*another port, or 0"):
        actgrid.serve(model, port=used_port)


def test_accepted_connections_send_without_delay() -> None:
    with open_socket("127.0.0.1", 0) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": -1}, "port must be at least 0"),
        ({"port": 1 << 16}, "port must be at most 65,535"),
        ({"port": "http"}, "port must be an integer"),
        ({"token": "schlüssel"}, "ASCII"),
        ({"token": ""}, "token must be a non-empty text"),
        ({"token": "open sesame"}, "without spaces"),
        ({"upload_bytes": 0}, "upload_bytes must be at least 1"),
        ({"fit": "shrink"}, "fit must be one of"),
        ({"preprocess": "VGG1"}, "did you mean VGG1"),
        ({"cache_bytes": -1}, "cache_bytes"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_invalid_options_raise(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        actgrid.serve(model, **options)


def test_unknown_host_raises(model: Any) -> None:
    with pytest.raises(OutputError, match=r"cannot listen at nowhere\.invalid"):
        actgrid.serve(model, host="nowhere.invalid", port=0)


def test_model_with_an_input_that_cannot_be_shown_raises() -> None:
    import keras

    model = keras.Sequential([keras.Input((2, 2, 2, 2, 2)), keras.layers.Dense(2)])
    with pytest.raises((ModelError, actgrid.errors.ShapeError), match="not a batch of images"):
        make_viewer(model)


def test_view_serves_the_page_at_its_address(model: Any, photos: Path) -> None:
    view = actgrid.view(model, photos / "photo0.png", height=500)
    try:
        assert request_model(view.url).json()["name"] == "small"
        assert request_model(view.url.partition("?")[0]).status_code == 401
        assert repr(view) == "<View of small>"
    finally:
        view.close()
    assert repr(view) == "<View of small, closed>"
    view.close()
    with pytest.raises(httpx.ConnectError):
        request_model(view.url)


class FailingLayer(keras.layers.Layer):  # type: ignore[misc]
    """A layer that can be traced, but raises when it runs."""

    def call(self, x: Any) -> Any:
        message = "it cannot be run"
        return tf.ensure_shape(tf.py_function(self.fail, [x, message], x.dtype), x.shape)

    def fail(self, x: Any, message: Any) -> Any:
        raise RuntimeError(message.numpy().decode())


@pytest.fixture
def failing_model() -> Any:
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Conv2D(2, 3)(FailingLayer()(image)))


@pytest.mark.parametrize(
    ("run", "arguments"),
    [(actgrid.serve, {"port": 0}), (actgrid.view, {}), (actgrid.export_site, {"output": "site"})],
)
def test_errors_of_the_model_are_raised(
    run: Callable[..., object],
    arguments: dict[str, Any],
    failing_model: Any,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = set(threading.enumerate())
    with pytest.raises(ModelError, match=r"cannot be run on .*RuntimeError: it cannot be run"):
        run(failing_model, photos, **arguments)
    assert "Application startup failed" not in capfd.readouterr().err
    for thread in set(threading.enumerate()) - threads:
        thread.join(60)
        assert not thread.is_alive()


def test_close_aborts_open_requests(
    model: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = threading.Event()
    cancelled = threading.Event()

    async def wait_forever(viewer: Viewer, image: str) -> bytes:
        requested.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    monkeypatch.setattr(Viewer, "get_picture", wait_forever)
    view = actgrid.view(model, photos)
    address, _, token = view.url.partition("?token=")
    server = ("127.0.0.1", urlsplit(address).port or 0)
    headers = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n".encode()
    with (
        socket.create_connection(server) as stalled,
        socket.create_connection(server) as waiting,
    ):
        stalled.sendall(
            b"POST /api/images HTTP/1.1\r\n" + headers + b"Content-Length: 9\r\n\r\nhalf"
        )
        waiting.sendall(b"GET /api/images/0/picture.png HTTP/1.1\r\n" + headers + b"\r\n")
        assert requested.wait(60)
        closing = threading.Thread(target=view.close, daemon=True)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()
        assert cancelled.is_set()


def test_view_keeps_logging_configuration(model: Any, tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "log", mode="w")
    logger = logging.getLogger("someone")
    logger.addHandler(handler)
    with actgrid.view(model):
        logger.warning("still here")
    logger.removeHandler(handler)
    handler.close()
    assert (tmp_path / "log").read_text() == "still here\n"


def test_view_of_arrays(model: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 30, 30, 3), np.uint8)
    with actgrid.view(model, pixels) as view:
        address, _, token = view.url.partition("?token=")
        headers = {"authorization": f"Bearer {token}"}
        response = httpx.get(f"{address}api/images.json", headers=headers).json()
        assert [image["name"] for image in response["images"]] == ["image", "image (2)"]


def test_dataset_statistics_are_matched_by_channel(
    model: Any, photos: Path, tmp_path: Path
) -> None:
    stats = actgrid.measure_images(model, photos, ["conv", "last"], output=tmp_path / "stats")
    for statistics in (stats, tmp_path / "stats", tmp_path / "stats" / "stats.npz"):
        viewer = make_viewer(model, photos, statistics=statistics)
        assert viewer.get_model_info()["dataset"] == {"images": 3}
        dataset = asyncio.run(viewer.get_dataset_stats(1))
        np.testing.assert_allclose(dataset["mean"], stats.layers["conv"].mean, 1e-5)
        ids = {image.name: image.id for image in viewer.images.list_images(0, 9)}
        top = dataset["top"][2][0]
        assert top["image"] == ids[Path(stats.layers["conv"].get_top_images(2)[0].name).name]


def test_missing_packages_raise_with_install_command() -> None:
    script = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "import actgrid\n"
        "try: actgrid.view\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.stdout.startswith("MissingDependencyError the viewer needs FastAPI")
    assert "pip install 'actgrid[web]'" in process.stdout


def test_widget_without_anywidget_names_the_extra(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with (
        actgrid.view(model) as view,
        pytest.raises(actgrid.errors.MissingDependencyError, match=r"actgrid\[notebook\]"),
    ):
        view._display_()
