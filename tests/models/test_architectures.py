"""Tests of `actgrid.models.architectures`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers
from tests.models.application_digests import FILE, iterate_digest_lines, make_demo_line

from actgrid import load_model
from actgrid.models.architectures import DEMO, Architecture, find_architecture
from actgrid.models.frameworks import list_applications


def test_every_application_has_a_digest() -> None:
    assert {line.split()[0] for line in FILE.read_text("utf-8").splitlines()} == {
        DEMO,
        *list_applications(),
    }


@pytest.mark.parametrize("name", ["VGG16", "MobileNetV3Small"])
def test_digests_match_installed_keras(name: str) -> None:
    lines = FILE.read_text("utf-8").splitlines()
    assert sorted(iterate_digest_lines(name)) == [line for line in lines if line.split()[0] == name]


def test_demo_is_recognized_after_saving(tmp_path: Path) -> None:
    assert make_demo_line() in FILE.read_text("utf-8").splitlines()
    model = load_model("demo")
    assert find_architecture(model) == Architecture(DEMO, True)
    model.save(tmp_path / "copy.keras")
    assert find_architecture(load_model(tmp_path / "copy.keras")) == Architecture(DEMO, True)


@pytest.fixture(scope="module")
def mobilenet() -> Any:
    return keras.applications.MobileNetV2(weights=None, alpha=0.35)


def test_only_network_with_its_head_is_complete(mobilenet: Any) -> None:
    assert find_architecture(mobilenet) == Architecture("MobileNetV2", True)
    features = mobilenet.layers[-2].output
    for model in (
        keras.Model(mobilenet.input, features),
        keras.Model(mobilenet.input, layers.Dense(1000, activation="softmax")(features[:, :9])),
        keras.Model(mobilenet.input, layers.Dense(3)(mobilenet.output)),
        keras.Model(mobilenet.input, layers.Dense(1000, activation="sigmoid")(features)),
        keras.Sequential([keras.Input((224, 224, 3)), mobilenet, layers.Dense(1000)]),
    ):
        assert find_architecture(model) == Architecture("MobileNetV2", False)
    wrapped = keras.Sequential([keras.Input((224, 224, 3)), mobilenet])
    assert find_architecture(wrapped) == Architecture("MobileNetV2", True)


def test_other_models_are_not_recognized(mobilenet: Any) -> None:
    custom_model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3)], name="vgg16")
    assert find_architecture(custom_model) is None
    assert find_architecture(keras.Sequential()) is None
    # With a kernel before it, the input of the network is not an image.
    prefixed = keras.Sequential(
        [keras.Input((224, 224, 1)), layers.Conv2D(3, 1), mobilenet], name="gray"
    )
    assert find_architecture(prefixed) is None
