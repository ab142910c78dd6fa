"""Tests of concept activation vectors (TCAV)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import actgrid
from actgrid.concepts.layer_outputs import find_layer, prepare_images
from actgrid.concepts.sensitivity import compute_gradients, fit_vector
from actgrid.errors import LayerError, OptionError, ShapeError, TargetError


def make_model() -> Any:
    """Class 0 increases with red and decreases with green; class 1 is the opposite."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 1, activation="relu", name="conv1"),
            layers.Conv2D(3, 1, activation="relu", name="conv2"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, activation="softmax", name="scores"),
        ]
    )
    kernel1 = np.concatenate([np.eye(3), np.eye(3)], axis=1)
    kernel2 = np.concatenate([np.eye(3), np.eye(3)])
    model.get_layer("conv1").set_weights([kernel1[None, None], np.full(6, 0.1)])
    model.get_layer("conv2").set_weights([kernel2[None, None], np.full(3, 0.1)])
    model.get_layer("scores").set_weights([np.array([[2, -2], [-2, 2], [0, 0]]), np.zeros(2)])
    return model


def make_images(count: int, seed: int, colour: int | None = None) -> Any:
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.5, (count, 8, 8, 3)).astype(np.float32)
    if colour is not None:
        images[..., colour] += 0.5
    return images


def measure(**arguments: Any) -> actgrid.ConceptSensitivity:
    concept_images = {
        "red": make_images(12, 1, 0),
        "green": make_images(12, 2, 1),
        "noise": make_images(150, 3),  # many, so that the vectors share few images
    }
    options: dict[str, Any] = {
        "images": make_images(20, 4),
        "concept_images": concept_images,
        "random_images": make_images(40, 5),
        "layers": ["conv1", "conv2"],
        "target": 0,
        "repeats": 16,
    } | arguments
    return actgrid.measure_concept_sensitivity(make_model(), **options)


@pytest.fixture(scope="module")
def sensitivity() -> actgrid.ConceptSensitivity:
    return measure()


def test_planted_concepts_are_significant_and_noise_is_not(
    sensitivity: actgrid.ConceptSensitivity,
) -> None:
    assert sensitivity.concepts == ("red", "green", "noise")
    assert sensitivity.layers == ("conv1", "conv2")
    assert sensitivity.scores.shape == sensitivity.accuracies.shape == (3, 2, 16)
    assert sensitivity.random_scores.shape == (2, 16)
    red, green, noise = sensitivity.mean_scores
    np.testing.assert_array_equal(red, 1)
    np.testing.assert_array_equal(green, 0)
    assert (np.abs(noise - 0.5) < 0.5).all()
    np.testing.assert_array_equal(
        sensitivity.is_significant, [[True, True], [True, True], [False, False]]
    )
    assert (sensitivity.p_values[:2] < 0.05 / 6).all()
    assert (sensitivity.accuracies[:2].mean(-1) > 0.95).all()
    assert (sensitivity.accuracies[2].mean(-1) < 0.8).all()


def test_gradients_equal_those_of_a_gradient_tape() -> None:
    model = make_model()
    images = make_images(5, 6)
    batch = prepare_images(model, images, 1, batch_size=2).batch
    gradients = compute_gradients(batch, find_layer(batch, "conv1"))
    rest = keras.Sequential(model.layers[1:])
    with tf.GradientTape() as tape:
        activations = model.layers[0](images)
        tape.watch(activations)
        pooled = rest.layers[1](rest.layers[0](activations))
        logits = pooled @ model.get_layer("scores").kernel
        score = tf.reduce_sum(logits[:, 1])
    expected = tape.gradient(score, activations).numpy().reshape(5, -1)
    np.testing.assert_allclose(gradients, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(expected).max() > 0


def test_vector_points_from_random_activations_to_those_of_the_concept() -> None:
    rng = np.random.default_rng(0)
    direction = np.array([0.6, -0.8, 0, 0])
    negatives = rng.normal(0, 0.1, (60, 4))
    positives = rng.normal(0, 0.1, (40, 4)) + direction
    vector, accuracy = fit_vector(positives, negatives, rng)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-5)
    assert vector @ direction > 0.99
    assert accuracy == 1
    opposite, _ = fit_vector(negatives, positives, rng)
    assert opposite @ direction < -0.99
    _, chance = fit_vector(negatives[:30], negatives[30:], rng)
    assert chance < 0.8


def test_result_depends_on_the_seed_only() -> None:
    options: dict[str, Any] = {
        "layers": "conv2",
        "concept_images": {"noise": make_images(12, 3)},
        "repeats": 4,
    }
    first, repeated, other = (measure(seed=seed, **options) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.scores, repeated.scores)
    np.testing.assert_array_equal(first.random_scores, repeated.random_scores)
    assert (first.accuracies != other.accuracies).any()


def test_default_layer_and_predicted_class() -> None:
    concept_images = {"red": make_images(8, 1, 0)}
    sensitivity = measure(
        images=make_images(6, 4, 0),
        concept_images=concept_images,
        layers=None,
        target=None,
        repeats=4,
    )
    assert sensitivity.layers == ("conv2",)
    np.testing.assert_array_equal(sensitivity.mean_scores, 1)


def test_picture_records_and_frame(sensitivity: actgrid.ConceptSensitivity, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    assert sensitivity.to_rgb().shape == (7 * 22, 640, 3)
    sensitivity.save(tmp_path / "sensitivity.png")
    with Image.open(tmp_path / "sensitivity.png") as picture:
        assert picture.size == (640, 154)
    assert repr(sensitivity) == "<ConceptSensitivity of 3 concepts in 2 layers, 4 significant>"
    records = sensitivity.to_records()
    assert [record["layer"] for record in records[:2]] == ["conv1", "conv2"]
    frame = sensitivity.to_frame()
    assert frame.loc[("green", "conv2"), "score"] == 0
    assert frame["p_value"].tolist() == [record["p_value"] for record in records]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layers": "conv3"}, LayerError, "conv2"),
        ({"layers": []}, OptionError, "layers is empty"),
        ({"target": 9}, TargetError, "9"),
        ({"repeats": 1}, OptionError, "repeats"),
        ({"random_images": make_images(7, 0)}, OptionError, "at least 8 images: got 7"),
        (
            {"concept_images": {"red": make_images(3, 0)}},
            OptionError,
            r"concept_images\['red'\] must have at least 4 images: got 3",
        ),
        ({"concept_images": make_images(3, 0)}, OptionError, "must be a dict"),
        ({"images": np.zeros((4, 9, 9, 1))}, ShapeError, "9, 9, 1"),
    ],
)
def test_invalid_arguments_are_rejected(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        measure(**arguments)
