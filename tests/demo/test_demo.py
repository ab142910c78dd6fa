"""Tests of `actgrid.demo`."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import actgrid
from actgrid import demo


@pytest.fixture(scope="module")
def network() -> Any:
    return demo.model()


@pytest.fixture(scope="module")
def probabilities(network: Any) -> npt.NDArray[np.float32]:
    (row,) = network.predict(actgrid.load_images(demo.photo(), model=network), verbose=0)
    return np.asarray(row)


def test_model_recognizes_the_cat(probabilities: npt.NDArray[np.float32]) -> None:
    top_classes = demo.find_top_classes(probabilities)
    assert [name for name, _ in top_classes[:3]] == ["Egyptian cat", "tiger cat", "tabby"]
    assert 0.36 <= top_classes[0][1] <= 0.37


def test_probabilities_are_a_distribution(probabilities: npt.NDArray[np.float32]) -> None:
    assert probabilities.shape == (1000,)
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert (probabilities >= 0).all()


def test_find_top_classes_sorts_and_counts(probabilities: npt.NDArray[np.float32]) -> None:
    assert len(demo.find_top_classes(probabilities)) == 5
    top_classes = demo.find_top_classes(probabilities, 7)
    assert len(top_classes) == 7
    values = [value for _, value in top_classes]
    assert values == sorted(values, reverse=True)
    assert all(isinstance(value, float) for value in values)
    assert top_classes[0] == (
        demo.labels()[int(probabilities.argmax())],
        float(probabilities.max()),
    )


def test_ties_are_in_class_order() -> None:
    top_classes = demo.find_top_classes(np.full(1000, 1e-3, np.float32), 3)
    assert [name for name, _ in top_classes] == list(demo.labels()[:3])


def test_model_is_efficientnet_lite0(network: Any) -> None:
    assert network.name == "efficientnet_lite0"
    assert network.input_shape == (None, 224, 224, 3)
    assert network.output_shape == (None, 1000)
    assert network.count_params() == 4_694_024
    # The published number, without the statistics of batch normalization.
    assert sum(weight.shape.num_elements() for weight in network.trainable_weights) == 4_652_008


def test_every_array_of_the_archive_is_a_weight(network: Any) -> None:
    with (
        as_file(files("actgrid.demo") / "efficientnet_lite0_float16.npz") as path,
        np.load(path) as archive,
    ):
        arrays = dict(archive)
    weights = {
        f"{layer.name}/{number}": weight
        for layer in network.layers
        for number, weight in enumerate(layer.get_weights())
    }
    assert len(arrays) == 247
    assert set(arrays) == set(weights)
    for name, array in arrays.items():
        np.testing.assert_array_equal(weights[name], array.astype(np.float32), err_msg=name)
        assert np.isfinite(array).all(), name


def test_model_returns_a_new_model(network: Any) -> None:
    other = demo.model()
    assert other is not network
    weights = other.get_layer("predictions").get_weights()
    other.get_layer("predictions").set_weights([weight * 0 for weight in weights])
    assert network.get_layer("predictions").get_weights()[0].any()


def test_labels_are_imagenet_classes() -> None:
    labels = demo.labels()
    assert len(labels) == 1000
    assert labels[0] == "tench"
    assert labels[281:286] == ("tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat")
    assert labels[999] == "toilet tissue"
    assert all(label == label.strip() != "" for label in labels)


def test_photo_returns_a_new_image() -> None:
    photo = demo.photo()
    assert photo.size == (451, 300)
    assert photo.mode == "RGB"
    photo.putpixel((0, 0), (1, 2, 3))
    assert demo.photo().getpixel((0, 0)) != (1, 2, 3)
