"""Tests of switching channels off through the HTTP API, compared with Keras."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import keras
import numpy as np
import pytest

import actgrid
from actgrid.models.compiled import compile_function
from actgrid.web.ablation import _MaskedOutput
from actgrid.web.serving import make_viewer

Client = httpx.Client
LABELS = ["cat", "dog", "bird"]


@pytest.fixture(scope="module")
def image(client: Client) -> str:
    return str(client.get("/api/images.json").json()["images"][0]["id"])


def compute_probabilities(model: Any, x: Any, channels: dict[str, list[int]]) -> Any:
    """Return the output of a copy of the model in which weights make channels zero."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for path, indices in channels.items():
        kernel, bias = copy.get_layer(path).get_weights()
        kernel[..., indices] = bias[indices] = 0
        copy.get_layer(path).set_weights([kernel, bias])
    return copy.predict(x, verbose=0)[0]


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("1:1", {"conv": [1]}),
        ("1:5,0,2", {"conv": [0, 2, 5]}),
        ("4:1,7;1:3", {"conv": [3], "last": [1, 7]}),
        ("1:3;1:4", {"conv": [3, 4]}),
        ("4:0,1,2,3,4,5,6,7,8", {"last": list(range(9))}),
    ],
)
def test_scores_equal_those_of_a_model_without_the_channels(
    client: Client,
    image: str,
    model: Any,
    photos: Path,
    text: str,
    channels: dict[str, list[int]],
) -> None:
    x = actgrid.load_images(photos / "photo0.png", model=model)
    before, after = model.predict(x, verbose=0)[0], compute_probabilities(model, x, channels)
    assert np.abs(before - after).max() > 1e-3
    response = client.get(f"/api/images/{image}/ablation.json", params={"channels": text}).json()
    assert response["kind"] == "probability"
    assert [entry["index"] for entry in response["top"]] == np.argsort(-after).tolist()
    for entry in response["top"]:
        index = entry["index"]
        assert entry["name"] == LABELS[index]
        assert entry["before"] == pytest.approx(before[index], abs=1e-4)
        assert entry["value"] == pytest.approx(after[index], abs=1e-4)


def test_other_channels_of_the_same_layers_need_no_new_trace(model: Any, photos: Path) -> None:
    viewer = make_viewer(model, photos)
    (image, *_) = viewer.images.list_images(0, 1)

    async def switch_off() -> None:
        for channels in ("1:0;4:1", "1:1,2;4:0,8", "4:3;1:5"):
            await viewer.get_ablation(image.id, channels)

    asyncio.run(switch_off())
    body = _MaskedOutput((("conv", 3), ("last", 3)))
    assert compile_function(model, body).trace_count == 1


def test_values_that_are_not_finite_become_zero(photos: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 1, name="conv")(inputs)
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))
    broken = keras.Model(inputs, outputs)
    broken.get_layer("conv").set_weights([np.zeros((1, 1, 3, 2)), np.array([np.nan, 3])])
    viewer = make_viewer(broken, photos)
    (image, *_) = viewer.images.list_images(0, 1)
    conv = [node["path"] for node in viewer.get_model_info()["nodes"]].index("conv")
    ablation = asyncio.run(viewer.get_ablation(image.id, f"{conv}:0"))
    kernel, _ = broken.layers[-1].get_weights()
    values = {entry["index"]: entry["value"] for entry in ablation["top"]}
    assert [values[0], values[1]] == pytest.approx(3 * kernel[1], rel=1e-4)
    assert {entry["before"] for entry in ablation["top"]} == {None}


@pytest.mark.parametrize(("units", "batch"), [(1, None), (3, 4)])
def test_without_all_channels_all_classes_are_equally_probable(
    photos: Path, units: int, batch: int | None
) -> None:
    """Check a binary classifier with one output, and a model with a fixed batch size."""
    inputs = keras.Input(batch_shape=(batch, 8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    activation = "sigmoid" if units == 1 else "softmax"
    viewer = make_viewer(
        keras.Model(inputs, keras.layers.Dense(units, activation=activation)(x)), photos
    )
    (image, *_) = viewer.images.list_images(0, 1)
    top = asyncio.run(viewer.get_ablation(image.id, "1:0,1,2,3"))["top"]
    assert [entry["value"] for entry in top] == pytest.approx([1 / len(top)] * max(units, 2))
    assert sum(entry["before"] for entry in top) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("channels", "status", "message"),
    [
        ("", 422, "channels must name a layer and its channels"),
        ("conv:1", 422, "got 'conv:1'; expected a form like '4:0,3;9:1'"),
        ("1:", 422, "expected a form like"),
        ("1:6", 404, "the layer conv has no channel 6: channels are 0 to 5"),
        ("99:0", 404, "there is no layer 99"),
        ("0:0", 404, "image has no activation that can be drawn"),
        ("1:" + "0," * 5000 + "0", 422, "channels must have at most 10000 characters"),
    ],
)
def test_invalid_channels_are_rejected(
    client: Client, image: str, channels: str, status: int, message: str
) -> None:
    response = client.get(f"/api/images/{image}/ablation.json", params={"channels": channels})
    assert response.status_code == status
    assert message in response.json()["detail"]
