"""Saliency of tf-keras-vis, against `tf.GradientTape`."""

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


def compute_gradient(score: Callable[[Any], Any], x: Array) -> Array:
    with tf.GradientTape() as tape:
        tensor = tf.constant(x)
        tape.watch(tensor)
        value = score(tensor)
    return np.asarray(tape.gradient(value, tensor))


def select_scores(output: Any) -> Any:
    return (output[0][1], output[1][0], output[2][3])


@pytest.mark.parametrize(
    "score",
    [
        CategoricalScore([1, 0, 3]),
        select_scores,
        lambda output: [output[0][1], output[1][0], output[2][3]],
        lambda output: tf.gather(output, [1, 0, 3], batch_dims=1),
    ],
)
def test_scores_of_tutorials(score: Any, network: Any, images: Array) -> None:
    expected = compute_gradient(lambda x: tf.gather(network(x), [1, 0, 3], batch_dims=1), images)
    expected = normalize(np.abs(expected).max(-1))
    result = Saliency(network)(score, images)
    assert (result.shape, result.dtype) == ((3, 10, 10), np.float32)
    assert result.min() == 0
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_score_reads_variables_at_each_call(network: Any, images: Array) -> None:
    class_index = 1

    def score(output: Any) -> Any:
        return output[:, class_index]

    saliency = Saliency(network)
    maps = []
    for class_index in (1, 2):
        maps.append(saliency(score, images))
        expected = saliency(CategoricalScore(class_index), images)
        np.testing.assert_array_equal(maps[-1], expected)
    assert not np.allclose(*maps)


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
def test_scores_that_cannot_be_traced_are_rejected(score: Any, network: Any, images: Array) -> None:
    with pytest.raises(OptionError, match="a score is traced, and must consist of TensorFlow"):
        Saliency(network)(score, images)


def test_scores_of_other_shapes(network: Any, images: Array) -> None:
    options: dict[str, Any] = {"normalize_map": False, "keepdims": True, "gradient_modifier": None}
    single = Saliency(network)(lambda output: output[1][2], images, **options)
    expected = compute_gradient(lambda x: network(x)[1, 2], images)
    np.testing.assert_allclose(single, expected, rtol=1e-3, atol=1e-7)
    mean = Saliency(network)(lambda output: output, images, **options)
    expected = compute_gradient(lambda x: tf.reduce_mean(network(x) ** 1, 1), images)
    np.testing.assert_allclose(mean, expected, atol=1e-7)


def test_options(network: Any, images: Array) -> None:
    expected = compute_gradient(lambda x: network(x)[:, 2], images)

    def run(**options: Any) -> Any:
        return Saliency(network)(CategoricalScore(2), images, **options)

    raw = run(normalize_map=False, keepdims=True, gradient_modifier=None)
    np.testing.assert_allclose(raw, expected, rtol=1e-3, atol=1e-7)
    old = run(standardize_saliency=False, gradient_modifier=lambda grads: -grads)
    np.testing.assert_allclose(old, (-expected).max(-1), rtol=1e-3, atol=1e-7)
    with pytest.raises(OptionError, match="training must be False"):
        run(training=True)
    with pytest.raises(OptionError, match="smooth_samples must be at least 0"):
        run(smooth_samples=-1)


def test_smoothgrad_uses_numpy_seed(network: Any, images: Array) -> None:
    saliency = Saliency(network)

    def smooth(seed: int, samples: int = 3, noise: float = 0.2) -> Any:
        np.random.seed(seed)  # noqa: NPY002
        return saliency(select_scores, images, samples, noise, normalize_map=False)

    np.testing.assert_array_equal(smooth(1), smooth(1))
    assert np.abs(smooth(1) - smooth(2)).max() > 1e-4
    unsmoothed = saliency(select_scores, images, normalize_map=False)
    np.testing.assert_allclose(smooth(1, noise=0), unsmoothed, rtol=1e-4, atol=1e-8)
    # The absolute value of each copy is averaged.
    signed = saliency(select_scores, images, 3, gradient_modifier=None, normalize_map=False)
    assert smooth(1).min() >= 0 > signed.min()


def test_image_without_batch_axis(network: Any, images: Array) -> None:
    result = Saliency(network)(CategoricalScore(1), images[0])
    np.testing.assert_array_equal(result, Saliency(network)(CategoricalScore(1), images[:1]))
    listed = Saliency(network)(CategoricalScore(1), [images])
    assert isinstance(listed, list)
    assert listed[0].shape == (3, 10, 10)
    with pytest.raises(ShapeError, match="the model takes 1 input, not 2"):
        Saliency(network)(CategoricalScore(1), [images, images])
    with pytest.raises(ShapeError, match=r"the model takes an input of .*, not \(10, 3\)"):
        Saliency(network)(CategoricalScore(1), images[0, 0])


def test_vectors_need_keepdims() -> None:
    keras.utils.set_random_seed(21)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2, activation="tanh")])
    x = np.random.default_rng(22).random((3, 5), np.float32)
    expected = compute_gradient(lambda x: model(x)[:, 1], x)
    options: dict[str, Any] = {"normalize_map": False, "gradient_modifier": None}
    result = Saliency(model)(CategoricalScore(1), x, keepdims=True, **options)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ShapeError, match=r"an input must have 3 axes or more, .* not \(3, 5\)"):
        Saliency(model)(CategoricalScore(1), x)


@pytest.mark.parametrize(("sides", "data_format"), SPATIAL)
def test_sequences_and_volumes(
    sides: tuple[int, ...], data_format: str, spatial_network: SpatialNetwork
) -> None:
    model, x = spatial_network(sides, data_format)
    channels = -1 if data_format == "channels_last" else 1
    expected = compute_gradient(lambda x: tf.gather(model(x), [1, 0], batch_dims=1), x)
    saliency = Saliency(model)
    result = saliency(lambda output: (output[0][1], output[1][0]), x)
    assert (result.shape, result.dtype) == ((2, *sides), np.float32)
    np.testing.assert_allclose(result, normalize(np.abs(expected).max(channels)), atol=1e-4)
    first = saliency(CategoricalScore(1), x[0], normalize_map=False)
    np.testing.assert_allclose(first, np.abs(expected[:1]).max(channels), rtol=1e-3, atol=1e-6)
    # The gradient of a linear network does not depend on the noise.
    model.layers[1].activation = keras.activations.linear
    expected = compute_gradient(lambda x: model(x)[:, 1], x)
    options: dict[str, Any] = {"keepdims": True, "gradient_modifier": None, "normalize_map": False}
    smooth = Saliency(model)(CategoricalScore(1), x, smooth_samples=3, **options)
    np.testing.assert_allclose(smooth, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("sides", [(11,), (3, 4, 5)])
def test_noise_is_relative_to_the_range_of_each_sample(sides: tuple[int, ...]) -> None:
    # The gradient of half of the square is the noisy input.
    square = keras.Sequential([keras.Input((*sides, 2)), layers.Flatten()])
    x = np.random.default_rng(23).random((2, *sides, 2), np.float32)
    x[1] *= 3

    def score(output: Any) -> Any:
        return tf.reduce_sum(output**2, 1) / 2

    options: dict[str, Any] = {"keepdims": True, "gradient_modifier": None, "normalize_map": False}

    def measure_noise(deviation: float) -> Array:
        np.random.seed(3)  # noqa: NPY002
        noise: Array = Saliency(square)(score, x, 1, deviation, **options) - x
        return noise

    weak, strong = measure_noise(0.1), measure_noise(0.2)
    np.testing.assert_allclose(strong, 2 * weak, atol=1e-5)
    # Both samples have the same random numbers, scaled by the range of each sample.
    spans = [np.ptp(sample) for sample in x]
    np.testing.assert_allclose(weak[1] / spans[1], weak[0] / spans[0], atol=1e-5)
    assert np.std(weak[0]) / spans[0] == pytest.approx(0.1, rel=0.35)


def test_several_inputs_and_outputs() -> None:
    keras.utils.set_random_seed(16)
    a, b = keras.Input((6, 6, 1)), keras.Input((4,))
    x = layers.Flatten()(layers.Conv2D(3, 3)(a))
    x = layers.Concatenate()([x, b])
    model = keras.Model([a, b], [layers.Dense(2)(x), layers.Dense(3)(x)])
    rng = np.random.default_rng(17)
    image, numbers = rng.random((2, 6, 6, 1), np.float32), rng.random((2, 4), np.float32)
    scores = [CategoricalScore(1), InactiveScore()]
    result, vector_map = Saliency(model)(scores, [image, numbers], normalize_map=False)
    assert vector_map is None
    expected = compute_gradient(lambda x: model([x, tf.constant(numbers)])[0][:, 1], image)
    np.testing.assert_allclose(result, np.abs(expected)[..., 0], rtol=1e-4)
    both = Saliency(model)([scores[0], scores[0]], [image, numbers], normalize_map=False)[0]
    expected = expected + compute_gradient(
        lambda x: model([x, tf.constant(numbers)])[1][:, 1], image
    )
    np.testing.assert_allclose(both, np.abs(expected)[..., 0], rtol=1e-4)
    with pytest.raises(OptionError, match="one function for each of the 2 outputs"):
        Saliency(model)(CategoricalScore(1), [image, numbers])


def test_invalid_scores_are_rejected(network: Any, images: Array) -> None:
    with pytest.raises(OptionError, match="score must be a function of the output, not 3"):
        Saliency(network)(3, images)
    with pytest.raises(TargetError, match="do not depend on the model's output"):
        Saliency(network)(lambda output: tf.ones(3), images)
