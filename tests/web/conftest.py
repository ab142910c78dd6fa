"""Fixtures: a small model, photos, a running viewer and clients of its HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid

SendRequest = Callable[..., httpx.Response]


@pytest.fixture
def send_request() -> SendRequest:
    """Return a function that sends a request to an ASGI application without a server."""

    def send_request(
        app: Any,
        path: str,
        method: str = "GET",
        base: str = "http://localhost:8000",
        **options: Any,
    ) -> httpx.Response:
        async def main() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url=base
            ) as client:
                return await client.request(method, path, **options)

        return asyncio.run(main())

    return send_request


def make_model() -> Any:
    """Return a network with branches and a dense classifier of three classes."""
    keras.utils.set_random_seed(3)
    image = layers.Input((16, 12, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv")(image)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Add(name="add")([x, y])
    x = layers.Conv2D(9, 3, name="last")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="head")(x), name="small")


@pytest.fixture(scope="session")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three photos of different sizes."""
    folder: Path = tmp_path_factory.mktemp("photos")
    for index, side in enumerate((24, 40, 33)):
        pixels = np.random.default_rng(index).integers(0, 256, (side, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"photo{index}.png")
    return folder


@pytest.fixture(scope="module")
def view(model: Any, photos: Path) -> Iterator[actgrid.web.View]:
    with actgrid.view(model, photos, labels=["cat", "dog", "bird"]) as view:
        yield view


@pytest.fixture(scope="module")
def client(view: actgrid.web.View) -> Iterator[httpx.Client]:
    """Return an HTTP client of the running viewer, with its token."""
    address = urlsplit(view.url)
    (token,) = parse_qs(address.query)["token"]
    with httpx.Client(
        base_url=f"http://{address.netloc}",
        headers={"authorization": f"Bearer {token}"},
        timeout=60,
    ) as client:
        yield client
