"""Tests of the viewer with two models: shared images, matched layers, differences."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers
from PIL import Image

import actgrid
from actgrid.errors import ModelError
from actgrid.web.serving import make_viewer

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def other() -> Any:
    """Return a model that scales its input itself, with some layers of the first model."""
    keras.utils.set_random_seed(4)
    image = layers.Input((16, 12, 3), name="picture")
    x = layers.Rescaling(1 / 255, name="rescaling")(image)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv")(x)
    x = layers.Conv2D(5, 3, name="last")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(2, activation="softmax", name="head")(x), name="other")


@pytest.fixture(scope="module")
def client(model: Any, other: Any, photos: Path) -> Iterator[httpx.Client]:
    labels = ["cat", "dog", "bird"]
    with actgrid.view(model, photos, labels=labels, compare_with=other) as view:
        address = urlsplit(view.url)
        headers = {"authorization": f"Bearer {parse_qs(address.query)['token'][0]}"}
        with httpx.Client(
            base_url=f"http://{address.netloc}", headers=headers, timeout=60
        ) as client:
            yield client


@pytest.fixture(scope="module")
def model_info(client: httpx.Client) -> dict[str, Any]:
    description: dict[str, Any] = client.get("/api/model.json").json()
    return description


@pytest.fixture(scope="module")
def image(client: httpx.Client) -> str:
    return str(client.get("/api/images.json").json()["images"][0]["id"])


def find_layer(model_info: dict[str, Any], path: str) -> int:
    return [node["path"] for node in model_info["nodes"]].index(path)


def predict_layer(model: Any, path: str, photo: Path) -> Array:
    inner = keras.Model(model.input, model.get_layer(path).output)
    values: Array = inner.predict(actgrid.load_images(photo, model=model), verbose=0)[0]
    return values


def decode_levels(response: httpx.Response) -> Array:
    assert response.status_code == 200, response.text
    return np.asarray(Image.open(io.BytesIO(response.content)))


def test_model_json_matches_layers_by_path(
    client: httpx.Client, model_info: dict[str, Any]
) -> None:
    other_info = client.get("/api/other/model.json").json()
    description = model_info["other"]
    assert description["name"] == other_info["name"] == "other"
    assert description["has_classes"]
    pairs = zip(model_info["nodes"], description["layers"], strict=True)
    matches = {
        node["path"]: other_info["nodes"][match]["path"]
        for node, match in pairs
        if match is not None
    }
    assert matches == {path: path for path in ("conv", "last", "pool", "head")}
    assert other_info["other"] is None


def test_second_model_has_its_own_activations_and_classes(
    client: httpx.Client, model_info: dict[str, Any], image: str, other: Any, photos: Path
) -> None:
    layer = model_info["other"]["layers"][find_layer(model_info, "conv")]
    stats = client.get(f"/api/other/images/{image}/layers/{layer}.json").json()["stats"]
    expected = predict_layer(other, "conv", photos / "photo0.png")
    np.testing.assert_allclose(stats["mean"], expected.mean((0, 1)), 1e-4, 1e-6)
    classes = client.get(f"/api/other/images/{image}/classes.json").json()["top"]
    scores = predict_layer(other, "head", photos / "photo0.png")
    assert [entry["index"] for entry in classes] == np.argsort(-scores).tolist()
    # The labels are those of three classes, and this model has two.
    assert {entry["name"] for entry in classes} == {None}


def test_difference_is_first_model_minus_second(
    client: httpx.Client,
    model_info: dict[str, Any],
    image: str,
    model: Any,
    other: Any,
    photos: Path,
) -> None:
    first, second = (predict_layer(net, "conv", photos / "photo0.png") for net in (model, other))
    expected = first - second
    url = f"/api/images/{image}/layers/{find_layer(model_info, 'conv')}/difference"
    difference = client.get(f"{url}.json").json()
    largest = np.abs(expected).max((0, 1))
    np.testing.assert_allclose(difference["largest"], largest, 1e-4)
    np.testing.assert_allclose(difference["stats"]["mean"], expected.mean((0, 1)), 1e-4, 1e-5)
    assert difference["limit"] == pytest.approx(largest.max(), rel=1e-4)
    levels = decode_levels(client.get(f"{url}.png"))
    tiles = difference["tiles"]
    for channel in range(6):
        row, column = divmod(channel, tiles["columns"])
        tile = levels[row * 16 : (row + 1) * 16, column * 12 : (column + 1) * 12]
        exact = expected[..., channel] / largest.max() * 127.5 + 128
        assert np.abs(tile - np.clip(exact, 0, 255)).max() < 1.01


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("add", 404, "the model 'other' has no layer add that can be drawn"),
        ("last", 422, "the layer last has different shapes: got (14, 10, 9) and (14, 10, 5)"),
    ],
)
def test_missing_difference_has_a_reason(
    client: httpx.Client,
    model_info: dict[str, Any],
    image: str,
    path: str,
    status: int,
    message: str,
) -> None:
    for suffix in ("json", "png"):
        url = f"/api/images/{image}/layers/{find_layer(model_info, path)}/difference.{suffix}"
        response = client.get(url)
        assert response.status_code == status
        assert response.json()["detail"].startswith(message)


def test_resources_of_the_second_model_check_parameters_and_answer_head(
    client: httpx.Client, image: str
) -> None:
    url = f"/api/other/images/{image}/classes.json"
    response = client.get(url, params={"bogus": 1})
    assert (response.status_code, client.head(url).status_code) == (422, 200)
    assert "unknown parameter 'bogus'" in response.json()["detail"]
    with httpx.Client(base_url=client.base_url) as stranger:
        assert stranger.get(url).status_code == 401
    # Images are uploaded to both models at once, and removed from both.
    data = io.BytesIO()
    Image.new("RGB", (20, 30), "teal").save(data, "PNG")
    added = client.post("/api/images", content=data.getvalue()).json()["id"]
    url = f"/api/other/images/{added}/classes.json"
    assert client.get(url).status_code == 200
    assert client.delete(f"/api/images/{added}").status_code == 204
    assert client.get(url).status_code == 404
    assert client.delete(f"/api/other/images/{image}").status_code in (404, 405)


def test_viewer_without_second_model_says_how_to_get_one(
    model: Any, photos: Path, send_request: Any
) -> None:
    viewer = make_viewer(model, photos)
    (image, *_) = viewer.images.list_images(0, 1)
    assert viewer.get_model_info()["other"] is None
    with pytest.raises(LookupError, match="start the viewer with the option compare_with"):
        asyncio.run(viewer.get_difference(image.id, 1))


def test_models_of_different_samples_are_rejected(model: Any, photos: Path) -> None:
    table = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ModelError, match="different samples: got image and table"):
        make_viewer(model, photos, compare_with=table)
