"""Known architectures, told by their layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers
from tests.models.application_digests import FILE, demo_line, digest_lines

from actgrid import load_model
from actgrid.models.architectures import DEMO, Architecture, find_architecture
from actgrid.models.frameworks import applications


def test_every_application_is_known() -> None:
    assert {line.split()[0] for line in FILE.read_text("utf-8").splitlines()} == {
        DEMO,
        *applications(),
    }


@pytest.mark.parametrize("name", ["VGG16", "MobileNetV3Small"])
def test_the_digests_are_those_of_the_installed_keras(name: str) -> None:
    known = FILE.read_text("utf-8").splitlines()
    assert sorted(digest_lines(name)) == [line for line in known if line.split()[0] == name]


def test_the_demo_is_known_from_a_file_too(tmp_path: Path) -> None:
    assert demo_line() in FILE.read_text("utf-8").splitlines()
    model = load_model("demo")
    assert find_architecture(model) == Architecture(DEMO, True)
    model.save(tmp_path / "copy.keras")
    assert find_architecture(load_model(tmp_path / "copy.keras")) == Architecture(DEMO, True)


@pytest.fixture(scope="module")
def mobilenet() -> Any:
    return keras.applications.MobileNetV2(weights=None, alpha=0.35)


def test_only_a_network_with_its_head_is_whole(mobilenet: Any) -> None:
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


def test_other_models_have_no_known_architecture(mobilenet: Any) -> None:
    own = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3)], name="vgg16")
    assert find_architecture(own) is None
    assert find_architecture(keras.Sequential()) is None
    # A layer with a kernel before it: what reaches the network is no image.
    before = keras.Sequential(
        [keras.Input((224, 224, 1)), layers.Conv2D(3, 1), mobilenet], name="gray"
    )
    assert find_architecture(before) is None
