"""The viewer of a network outside TensorFlow, through the HTTP API and on the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import keras
import numpy as np
import pytest
from tests.models.exports import export_tflite

import actgrid


@pytest.fixture(scope="module")
def path(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tflite(model, tmp_path_factory.mktemp("exports") / "small.tflite", "float")


@pytest.fixture(scope="module")
def view(path: Path, photos: Path) -> Iterator[actgrid.web.View]:
    with actgrid.view(path, photos, labels=["cat", "dog", "bird"]) as view:
        yield view


@pytest.fixture(scope="module")
def image(client: httpx.Client) -> str:
    return str(client.get("/api/images.json").json()["images"][0]["id"])


def test_model_has_the_layers_and_usable_features(client: httpx.Client) -> None:
    model = client.get("/api/model.json").json()
    assert [(node["path"], node["type"]) for node in model["nodes"]] == [
        ("image", "Input"),
        ("conv", "CONV_2D"),
        ("depthwise", "DEPTHWISE_CONV_2D"),
        ("add", "ADD"),
        ("last", "CONV_2D"),
        ("pool", "MEAN"),
        ("head", "FULLY_CONNECTED"),
    ]
    assert model["edges"] == [[0, 1], [1, 2], [1, 3], [2, 3], [3, 4], [4, 5], [5, 6]]
    assert (model["inputs"], model["outputs"]) == ([0], [6])
    assert model["classes"]["labels"] == ["cat", "dog", "bird"]
    assert model["parameters"] > 0
    assert (model["maximize"], model["switches"]) == (False, False)
    assert "relevance" not in model["controls"]["layer"]["order"]["choices"]
    methods = [method["name"] for method in model["methods"]]
    assert methods[:5] == ["eigencam", "scorecam", "sscam", "iscam", "occlusion"]


def test_classes_and_pictures_equal_those_of_the_library(
    client: httpx.Client, image: str, path: Path, photos: Path
) -> None:
    x = actgrid.load_images(photos / "photo0.png", model=path)
    scores = actgrid.Extractor(path, "head")(x)["head"][0]
    top = client.get(f"/api/images/{image}/classes.json").json()["top"]
    assert [entry["index"] for entry in top] == np.argsort(-scores).tolist()
    assert [entry["value"] for entry in top] == pytest.approx(sorted(scores)[::-1], rel=1e-5)
    grid = actgrid.render_model(path, x, "last")["last"]
    layer = client.get(f"/api/images/{image}/layers/4.json").json()
    assert layer["stats"]["mean"] == pytest.approx(grid.stats.mean.tolist(), rel=1e-4)
    heatmap = actgrid.explain(path, x, "scorecam")
    response = client.get(f"/api/images/{image}/heatmaps/scorecam/predicted.json").json()
    assert (response["layer"], response["score"]) == (
        "last",
        pytest.approx(float(np.asarray(heatmap.score)[0]), rel=1e-4),
    )


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ablation.json?channels=1:0", "switching channels off needs layers that run inside"),
        ("layers/1/relevance/0.json", "the relevance of channels needs gradients"),
        ("heatmaps/gradcam/predicted.json", "gradcam needs gradients"),
    ],
)
def test_features_that_need_tensorflow_are_refused(
    client: httpx.Client, image: str, address: str, message: str
) -> None:
    response = client.get(f"/api/images/{image}/{address}")
    assert response.status_code == 422
    assert message in response.json()["detail"]


def test_outputs_without_channels(photos: Path, tmp_path: Path) -> None:
    """An output of one number for each sample is a node without pictures."""
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    highest = keras.ops.max(keras.ops.mean(features, (1, 2)), 1)
    path = export_tflite(keras.Model(inputs, highest), tmp_path / "highest.tflite", "float")
    with actgrid.view(path, photos) as view:
        base, _, token = view.url.partition("?token=")
        model = httpx.get(
            f"{base}api/model.json", headers={"authorization": f"Bearer {token}"}
        ).json()
    assert [node["kind"] for node in model["nodes"]] == ["image", "image", "dense", None]
