"""Tests of the images of activation maximization: spectra, variants, opacity, transforms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import actgrid
from actgrid import maximize
from actgrid.attribution.ascent import measure_similarity
from actgrid.attribution.image_parametrization import ImageParametrization
from actgrid.attribution.random_transforms import RandomTransform
from actgrid.errors import OptionError

QUICK: dict[str, Any] = {"steps": 12, "jitter": 0.1, "rotate": 5, "scale": 0.1}


@pytest.fixture(autouse=True)
def _set_seed() -> None:
    keras.utils.set_random_seed(20)


def make_model(channels: int = 3) -> Any:
    return keras.Sequential(
        [
            keras.Input((16, 18, channels)),
            layers.Conv2D(6, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(4, activation="softmax", name="head"),
        ]
    )


def make_parametrization(
    basis: str, height: int = 16, width: int = 18, depth: int = 1
) -> ImageParametrization:
    return ImageParametrization(basis, height, width, depth, False, "none", None)


def compute_magnitudes(images: Any) -> Any:
    """Return the magnitudes of the spectra of images (N, H, W, C), before the sigmoid."""
    values = np.log(images / (1 - images)).astype(np.float64)
    return np.abs(np.fft.rfft2(values, axes=(1, 2)))


# --- parametrizations


@pytest.mark.parametrize("width", [17, 18])
def test_maco_images_have_the_contrast_of_photos_and_the_mean_gray(width: int) -> None:
    parametrization = make_parametrization("maco", 64, width, 3)
    planes = parametrization._to_planes(parametrization.make_noise(0, 4)).numpy()
    np.testing.assert_allclose(planes.std((2, 3)), 2.2, rtol=1e-4)
    np.testing.assert_allclose(planes.mean((2, 3)), 0, atol=1e-5)


def test_maco_keeps_the_magnitudes() -> None:
    model = make_model(1)
    parametrization = make_parametrization("maco")
    expected = parametrization.compute_magnitudes()
    result = maximize(model, "conv", [0, 3], parametrization="maco", **QUICK | {"steps": 30})
    assert (result.activations > result.initial_activations).all()
    magnitudes = compute_magnitudes(result.inputs)[..., 0]
    np.testing.assert_allclose(magnitudes, np.stack([expected] * 2), rtol=1e-3, atol=1e-2)


def test_magnitudes_follow_a_power_law() -> None:
    magnitudes = make_parametrization("maco", 64, 64).compute_magnitudes()
    assert magnitudes[0, 0] == 0
    np.testing.assert_allclose(magnitudes[1, 0], magnitudes[0, 1], rtol=1e-6)
    ratio = magnitudes[0, 4] / magnitudes[0, 8]
    np.testing.assert_allclose(ratio, 2**1.2, rtol=1e-5)


def test_initial_images_do_not_depend_on_the_number_of_variants() -> None:
    for basis in ("pixel", "fourier", "maco"):
        parametrization = make_parametrization(basis)
        several = parametrization.make_noise(3, 4).numpy()
        np.testing.assert_array_equal(several[:1], parametrization.make_noise(3).numpy())
        images = parametrization.to_unit_images(several).numpy()
        assert images.shape == (4, 16, 18, 1)
        assert images.min() > 0
        assert images.max() < 1


# --- opacity


def test_maco_images_are_drawn_on_white_by_the_importance_of_their_pixels() -> None:
    model = make_model()
    result = maximize(model, "conv", [1], parametrization="maco", **QUICK, padding=0)
    opacity = result.transparency
    assert opacity is not None
    assert opacity.shape == (1, 16, 18)
    assert opacity.min() >= 0
    assert (opacity == 1).mean() == pytest.approx(0.2, abs=0.02)
    expected = 255 - (255 - result.images[0]) * opacity[0, ..., None]
    np.testing.assert_allclose(result.to_rgb(), expected, atol=0.51)
    assert maximize(model, "conv", [1], **QUICK).transparency is None


def test_pixels_without_effect_are_transparent() -> None:
    inputs = keras.Input((16, 16, 3))
    outputs = layers.Conv2D(2, 3, name="conv")(layers.Cropping2D(((0, 0), (0, 8)))(inputs))
    options: dict[str, Any] = QUICK | {"jitter": 0, "rotate": 0, "scale": 0, "crop": 1}
    result = maximize(keras.Model(inputs, outputs), "conv", 0, parametrization="maco", **options)
    assert result.transparency is not None
    np.testing.assert_array_equal(result.transparency[0, :, 8:], 0)
    assert (result.transparency[0, 1:-1, 1:7] > 0).all()


# --- variants


def measure_numpy_similarity(features: Any) -> float:
    """Return the mean cosine similarity of the Gram matrices of activations (V, H, W, C)."""
    rows = features.reshape(len(features), -1, features.shape[-1])
    grams = np.array([row.T @ row for row in rows]).reshape(len(rows), -1)
    grams /= np.linalg.norm(grams, axis=1, keepdims=True)
    similarities = grams @ grams.T
    return float(similarities[~np.eye(len(rows), dtype=bool)].mean())


def test_similarity_is_that_of_numpy() -> None:
    features = np.random.default_rng(0).random((6, 5, 4, 3)).astype(np.float32)
    expected = [measure_numpy_similarity(features[:3]), measure_numpy_similarity(features[3:])]
    np.testing.assert_allclose(measure_similarity(tf.constant(features), 3, 3), expected, rtol=1e-5)
    first = tf.constant(np.moveaxis(features, -1, 1))
    np.testing.assert_allclose(measure_similarity(first, 1, 3), expected, rtol=1e-5)


@pytest.mark.parametrize(("layer", "margin"), [("conv", 1e-4), ("head", 0.02)])
def test_diversity_lowers_the_similarity_of_variants(layer: str, margin: float) -> None:
    model = make_model()
    options = QUICK | {"steps": 40, "variants": 3}

    def measure(diversity: float) -> float:
        result = maximize(model, layer, 2, diversity=diversity, **options)
        return measure_numpy_similarity(actgrid.Extractor(model, "conv")(result.inputs)["conv"])

    assert measure(2) < measure(0) - margin


def test_variants_of_a_channel_are_a_row(tmp_path: Path) -> None:
    model = make_model()
    result = maximize(model, "conv", [4, 1], variants=3, **QUICK)
    assert result.channels.tolist() == [4, 4, 4, 1, 1, 1]
    assert result.inputs.shape == (6, 16, 18, 3)
    assert result.activations.shape == result.initial_activations.shape == (6,)
    assert repr(result) == "<Maximization of conv: 2 channels in 3 variants, 18 x 16>"
    assert result.to_rgb().shape == (2 * 16 + 1, 3 * 18 + 2, 3)
    result.save(tmp_path / "variants.png")
    # Each variant starts from its own noise, and the batches do not change the result.
    assert len(np.unique(result.initial_activations)) == 6
    chunks = maximize(model, "conv", [4, 1], variants=3, batch_size=2, **QUICK)
    np.testing.assert_allclose(chunks.inputs, result.inputs, atol=1e-3)
    # Without diversity the first variant is the image that a single variant gives.
    single = maximize(model, "conv", [4, 1], **QUICK)
    independent = maximize(model, "conv", [4, 1], variants=3, diversity=0, **QUICK)
    np.testing.assert_allclose(independent.inputs[::3], single.inputs, atol=1e-3)


# --- transforms


def test_crops_lie_inside_the_image() -> None:
    height, width = np.meshgrid(np.arange(40.0), np.arange(40.0), indexing="ij")
    ramp = tf.constant(np.stack([height, width], axis=-1)[None], "float32")
    transform = RandomTransform(crop=0.6)
    ranges = []
    for seed in range(20):
        crop = transform(ramp, tf.constant([0, seed], "int64")).numpy()[0]
        assert crop.min() >= -0.01
        assert crop.max() <= 39.01
        # No edge is mirrored: rows and columns increase.
        assert (np.diff(crop[..., 0], axis=0) > -1e-3).all()
        assert (np.diff(crop[..., 1], axis=1) > -1e-3).all()
        ranges.append(np.ptp(crop[..., 0]) / 39)
    assert 0.45 < np.mean(ranges) < 0.75
    assert np.std(ranges) > 0.05


def test_noise_has_its_deviation_and_is_the_same_for_all_images() -> None:
    images = tf.zeros((2, 64, 64, 3))
    noise = RandomTransform(noise=0.2)(images, tf.constant([0, 5], "int64")).numpy()
    assert noise.std() == pytest.approx(0.2, rel=0.03)
    np.testing.assert_array_equal(noise[0], noise[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": 0}, "variants must be at least 1"),
        ({"diversity": -1}, "diversity"),
        ({"crop": 0}, "crop"),
        ({"noise": -0.1}, "noise"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        maximize(make_model(), "conv", 0, **options)
