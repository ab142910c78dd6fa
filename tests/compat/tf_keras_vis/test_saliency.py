"""Saliency, against what TensorFlow's tape gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

from actgrid.compat.tf_keras_vis.saliency import Saliency
from actgrid.compat.tf_keras_vis.utils import normalize
from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore, InactiveScore
from actgrid.errors import OptionError, ShapeError, TargetError

Array = npt.NDArray[Any]
SpatialNetwork = Callable[[tuple[int, ...], str], tuple[Any, Array]]
# TensorFlow has no Conv1D of channels first on CPUs without oneDNN.
SPATIAL = [((11,), "channels_last"), ((5, 6, 7), "channels_last"), ((5, 6, 7), "channels_first")]


def gradient(score: Callable[[Any], Any], x: Array) -> Array:
    with tf.GradientTape() as tape:
        taken = tf.constant(x)
        tape.watch(taken)
        value = score(taken)
    return np.asarray(tape.gradient(value, taken))


def by_hand(output: Any) -> Any:
    return (output[0][1], output[1][0], output[2][3])


@pytest.mark.parametrize(
    "score",
    [
        CategoricalScore([1, 0, 3]),
        by_hand,
        lambda output: [output[0][1], output[1][0], output[2][3]],
        lambda output: tf.gather(output, [1, 0, 3], batch_dims=1),
    ],
)
def test_scores_as_tutorials_write_them(score: Any, network: Any, images: Array) -> None:
    truth = gradient(lambda x: tf.gather(network(x), [1, 0, 3], batch_dims=1), images)
    expected = normalize(np.abs(truth).max(-1))
    found = Saliency(network)(score, images)
    assert (found.shape, found.dtype) == ((3, 10, 10), np.float32)
    assert found.min() == 0
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_score_reads_its_variables_at_each_call(network: Any, images: Array) -> None:
    wanted = 1

    def score(output: Any) -> Any:
        return output[:, wanted]

    saliency = Saliency(network)
    found = []
    for wanted in (1, 2):
        found.append(saliency(score, images))
        np.testing.assert_array_equal(found[-1], saliency(CategoricalScore(wanted), images))
    assert not np.allclose(*found)


@pytest.mark.parametrize(
    "score",
    [
        lambda output: output[0, np.argmax(output[0])],
        lambda output: output.numpy()[:, 0],
        lambda output: output[:, 0] if output[0, 0] > 0 else output[:, 1],
        lambda output: output[7, 0],
        lambda output: None,
    ],
)
def test_scores_that_cannot_be_traced(score: Any, network: Any, images: Array) -> None:
    with pytest.raises(OptionError, match="a score is traced, and must be made of TensorFlow's"):
        Saliency(network)(score, images)


def test_scores_that_are_not_one_for_each_image(network: Any, images: Array) -> None:
    options: dict[str, Any] = {"normalize_map": False, "keepdims": True, "gradient_modifier": None}
    one = Saliency(network)(lambda output: output[1][2], images, **options)
    truth = gradient(lambda x: network(x)[1, 2], images)
    np.testing.assert_allclose(one, truth, rtol=1e-3, atol=1e-7)
    mean = Saliency(network)(lambda output: output, images, **options)
    truth = gradient(lambda x: tf.reduce_mean(network(x) ** 1, 1), images)
    np.testing.assert_allclose(mean, truth, atol=1e-7)


def test_options(network: Any, images: Array) -> None:
    truth = gradient(lambda x: network(x)[:, 2], images)

    def found(**options: Any) -> Any:
        return Saliency(network)(CategoricalScore(2), images, **options)

    raw = found(normalize_map=False, keepdims=True, gradient_modifier=None)
    np.testing.assert_allclose(raw, truth, rtol=1e-3, atol=1e-7)
    old = found(standardize_saliency=False, gradient_modifier=lambda grads: -grads)
    np.testing.assert_allclose(old, (-truth).max(-1), rtol=1e-3, atol=1e-7)
    with pytest.raises(OptionError, match="training must be False"):
        found(training=True)
    with pytest.raises(OptionError, match="smooth_samples must be at least 0"):
        found(smooth_samples=-1)


def test_smoothgrad_follows_numpys_seed(network: Any, images: Array) -> None:
    saliency = Saliency(network)

    def smooth(seed: int, samples: int = 3, noise: float = 0.2) -> Any:
        np.random.seed(seed)  # noqa: NPY002
        return saliency(by_hand, images, samples, noise, normalize_map=False)

    np.testing.assert_array_equal(smooth(1), smooth(1))
    assert np.abs(smooth(1) - smooth(2)).max() > 1e-4
    plain = saliency(by_hand, images, normalize_map=False)
    np.testing.assert_allclose(smooth(1, noise=0), plain, rtol=1e-4, atol=1e-8)
    # Absolute values are taken of each copy.
    signed = saliency(by_hand, images, 3, gradient_modifier=None, normalize_map=False)
    assert smooth(1).min() >= 0 > signed.min()


def test_one_image_without_a_batch_axis(network: Any, images: Array) -> None:
    found = Saliency(network)(CategoricalScore(1), images[0])
    np.testing.assert_array_equal(found, Saliency(network)(CategoricalScore(1), images[:1]))
    listed = Saliency(network)(CategoricalScore(1), [images])
    assert isinstance(listed, list)
    assert listed[0].shape == (3, 10, 10)
    with pytest.raises(ShapeError, match="the model takes 1 input, not 2"):
        Saliency(network)(CategoricalScore(1), [images, images])
    with pytest.raises(ShapeError, match=r"the model takes an input of .*, not \(10, 3\)"):
        Saliency(network)(CategoricalScore(1), images[0, 0])


def test_vectors_keep_their_channels() -> None:
    keras.utils.set_random_seed(21)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2, activation="tanh")])
    x = np.random.default_rng(22).random((3, 5), np.float32)
    truth = gradient(lambda x: model(x)[:, 1], x)
    options: dict[str, Any] = {"normalize_map": False, "gradient_modifier": None}
    found = Saliency(model)(CategoricalScore(1), x, keepdims=True, **options)
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-6)
    with pytest.raises(ShapeError, match=r"an input must have 3 axes or more, .* not \(3, 5\)"):
        Saliency(model)(CategoricalScore(1), x)


@pytest.mark.parametrize(("sides", "data_format"), SPATIAL)
def test_sequences_and_volumes(
    sides: tuple[int, ...], data_format: str, spatial_network: SpatialNetwork
) -> None:
    model, x = spatial_network(sides, data_format)
    channels = -1 if data_format == "channels_last" else 1
    truth = gradient(lambda x: tf.gather(model(x), [1, 0], batch_dims=1), x)
    saliency = Saliency(model)
    found = saliency(lambda output: (output[0][1], output[1][0]), x)
    assert (found.shape, found.dtype) == ((2, *sides), np.float32)
    np.testing.assert_allclose(found, normalize(np.abs(truth).max(channels)), atol=1e-4)
    first = saliency(CategoricalScore(1), x[0], normalize_map=False)
    np.testing.assert_allclose(first, np.abs(truth[:1]).max(channels), rtol=1e-3, atol=1e-6)
    # The gradient of a network without an activation is the same in every noisy copy.
    model.layers[1].activation = keras.activations.linear
    truth = gradient(lambda x: model(x)[:, 1], x)
    options: dict[str, Any] = {"keepdims": True, "gradient_modifier": None, "normalize_map": False}
    smooth = Saliency(model)(CategoricalScore(1), x, smooth_samples=3, **options)
    np.testing.assert_allclose(smooth, truth, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("sides", [(11,), (3, 4, 5)])
def test_noise_spans_the_whole_of_a_sample(sides: tuple[int, ...]) -> None:
    # Half of the square has the noisy input itself as its gradient.
    square = keras.Sequential([keras.Input((*sides, 2)), layers.Flatten()])
    x = np.random.default_rng(23).random((2, *sides, 2), np.float32)
    x[1] *= 3

    def score(output: Any) -> Any:
        return tf.reduce_sum(output**2, 1) / 2

    options: dict[str, Any] = {"keepdims": True, "gradient_modifier": None, "normalize_map": False}

    def noise_of(strength: float) -> Array:
        np.random.seed(3)  # noqa: NPY002
        found: Array = Saliency(square)(score, x, 1, strength, **options) - x
        return found

    few, many = noise_of(0.1), noise_of(0.2)
    np.testing.assert_allclose(many, 2 * few, atol=1e-5)
    # Both samples have the same draws, each by its own range.
    spans = [np.ptp(sample) for sample in x]
    np.testing.assert_allclose(few[1] / spans[1], few[0] / spans[0], atol=1e-5)
    assert np.std(few[0]) / spans[0] == pytest.approx(0.1, rel=0.35)


def test_several_inputs_and_outputs() -> None:
    keras.utils.set_random_seed(16)
    a, b = keras.Input((6, 6, 1)), keras.Input((4,))
    x = layers.Flatten()(layers.Conv2D(3, 3)(a))
    x = layers.Concatenate()([x, b])
    model = keras.Model([a, b], [layers.Dense(2)(x), layers.Dense(3)(x)])
    rng = np.random.default_rng(17)
    image, numbers = rng.random((2, 6, 6, 1), np.float32), rng.random((2, 4), np.float32)
    scores = [CategoricalScore(1), InactiveScore()]
    found, nothing = Saliency(model)(scores, [image, numbers], normalize_map=False)
    assert nothing is None
    truth = gradient(lambda x: model([x, tf.constant(numbers)])[0][:, 1], image)
    np.testing.assert_allclose(found, np.abs(truth)[..., 0], rtol=1e-4)
    both = Saliency(model)([scores[0], scores[0]], [image, numbers], normalize_map=False)[0]
    truth = truth + gradient(lambda x: model([x, tf.constant(numbers)])[1][:, 1], image)
    np.testing.assert_allclose(both, np.abs(truth)[..., 0], rtol=1e-4)
    with pytest.raises(OptionError, match="the model has 2 outputs, so there must be as many"):
        Saliency(model)(CategoricalScore(1), [image, numbers])


def test_a_score_that_is_none(network: Any, images: Array) -> None:
    with pytest.raises(OptionError, match="a score must be a function of the output, not 3"):
        Saliency(network)(3, images)
    with pytest.raises(TargetError, match="do not depend on the model's output"):
        Saliency(network)(lambda output: tf.ones(3), images)
