"""Class activation maps, against the papers' formulas and plain loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

from actgrid.compat.tf_keras_vis.gradcam import Gradcam
from actgrid.compat.tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from actgrid.compat.tf_keras_vis.layercam import Layercam
from actgrid.compat.tf_keras_vis.scorecam import ScoreCAM, Scorecam
from actgrid.compat.tf_keras_vis.utils import normalize
from actgrid.compat.tf_keras_vis.utils.model_modifiers import ReplaceToLinear
from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
from actgrid.errors import LayerError, OptionError, ShapeError

Array = npt.NDArray[Any]
SpatialNetwork = Callable[[tuple[int, ...], str], tuple[Any, Array]]
# TensorFlow has no Conv1D of channels first on CPUs without oneDNN.
SPATIAL = [((11,), "channels_last"), ((5, 6, 7), "channels_last"), ((5, 6, 7), "channels_first")]
CLASSES = [1, 0, 3]


def score(output: Any) -> Any:
    return (output[0][1], output[1][0], output[2][3])


def activation_and_slope(model: Any, images: Array) -> tuple[Array, Array]:
    both = keras.Model(model.inputs[0], [model.get_layer("conv").output, model.outputs[0]])
    with tf.GradientTape() as tape:
        activation, output = both(images)
        value = tf.gather(output, CLASSES, batch_dims=1)
    return activation.numpy(), tape.gradient(value, activation).numpy()


def larger(maps: Array, sides: tuple[int, ...] = (10, 10)) -> Array:
    """Linear between corners, as `scipy.ndimage.zoom` of order 1."""
    for axis, side in enumerate(sides, 1):
        count = maps.shape[axis]
        places = np.arange(side) * (count - 1) / (side - 1)

        def along(line: Array, places: Array = places, count: int = count) -> Array:
            return np.interp(places, np.arange(count), line)

        maps = np.apply_along_axis(along, axis, maps)
    return maps


def spatial_axes(values: Array) -> tuple[int, ...]:
    return tuple(range(1, values.ndim - 1))


def plus_plus(activation: Array, slope: Array, positive: bool = True) -> Array:
    second, third = slope**2, slope**3
    axes = spatial_axes(slope)
    below = 2 * second + third * activation.sum(axes, keepdims=True)
    alpha = np.where(second == 0, 0, second / np.where(second == 0, 1, below))
    total = alpha.sum(axes, keepdims=True)
    alpha = alpha / np.where(total == 0, 1, total)
    counted = np.maximum(slope, 0) if positive else slope
    weights = (counted * alpha).sum(axes, keepdims=True)
    return np.asarray((weights * activation).sum(-1))


FORMULAS: dict[Any, Any] = {
    Gradcam: lambda a, s: (a * s.mean(spatial_axes(s), keepdims=True)).sum(-1),
    GradcamPlusPlus: plus_plus,
    Layercam: lambda a, s: (a * np.maximum(s, 0)).sum(-1),
}


@pytest.mark.parametrize("kind", list(FORMULAS))
def test_maps_are_those_of_the_formula(kind: Any, network: Any, images: Array) -> None:
    cam = kind(network, model_modifier=ReplaceToLinear(), clone=True)
    maps = FORMULAS[kind](*activation_and_slope(cam.model, images)).astype(np.float32)
    positive = np.maximum(maps, 0)
    for given in (score, CategoricalScore(CLASSES)):
        found = cam(given, images)
        assert (found.shape, found.dtype) == ((3, 10, 10), np.float32)
        np.testing.assert_allclose(found, normalize(larger(positive)), atol=1e-3)
    small = cam(score, images, expand_cam=False, normalize_cam=False)
    np.testing.assert_allclose(small, positive, rtol=1e-3, atol=1e-5)
    if kind is GradcamPlusPlus:
        maps = plus_plus(*activation_and_slope(cam.model, images), positive=False)
    signed = cam(score, images, activation_modifier=None, expand_cam=False, standardize_cam=False)
    np.testing.assert_allclose(signed, maps, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(cam(score, images, expand_cam=False), normalize(positive), atol=1e-3)


def test_gradients_may_be_modified(network: Any, images: Array) -> None:
    cam = Layercam(network, ReplaceToLinear())
    activation, slope = activation_and_slope(cam.model, images)
    found = cam(
        score,
        images,
        gradient_modifier=lambda slope: slope**2,
        expand_cam=False,
        normalize_cam=False,
    )
    np.testing.assert_allclose(found, (activation * slope**2).sum(-1), rtol=1e-3, atol=1e-6)


def test_gradients_of_gradcam_plus_plus_are_modified_first(network: Any, images: Array) -> None:
    cam = GradcamPlusPlus(network, ReplaceToLinear())
    activation, slope = activation_and_slope(cam.model, images)
    options: dict[str, Any] = {"expand_cam": False, "normalize_cam": False}
    found = cam(score, images, gradient_modifier=lambda slope: -slope, **options)
    expected = np.maximum(plus_plus(activation, -slope), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_layers_to_look_at(network: Any, images: Array) -> None:
    cam = Gradcam(network)
    conv = network.get_layer("conv")
    last = cam(score, images)
    for same in ("conv", 2, -4, "out", -1, conv):
        np.testing.assert_array_equal(cam(score, images, same), last)
    pooled = cam(score, images, "pool", seek_penultimate_conv_layer=False, expand_cam=False)
    assert pooled.shape == (3, 3, 3)
    assert cam(score, images, "first", expand_cam=False).shape == (3, 8, 8)
    for wrong in ("cnv", 99, 1.5):
        with pytest.raises(LayerError):
            cam(score, images, wrong)
    with pytest.raises(LayerError, match="no convolution up to the layer 0"):
        cam(score, images, 0)
    with pytest.raises(ShapeError, match="no picture for each channel"):
        cam(score, images, "flat", seek_penultimate_conv_layer=False)
    with pytest.raises(OptionError, match="training must be False"):
        cam(score, images, training=True)


def test_a_convolution_in_a_nested_model(network: Any, images: Array) -> None:
    inner = keras.Sequential(network.layers[1:4], name="inner")
    nested = keras.Sequential([keras.Input((10, 10, 3)), inner, *network.layers[4:]])
    np.testing.assert_allclose(
        Gradcam(nested)(score, images), Gradcam(network)(score, images), atol=1e-4
    )


def test_where_gradcam_plus_plus_was_before() -> None:
    from actgrid.compat.tf_keras_vis import gradcam

    assert gradcam.GradcamPlusPlus is GradcamPlusPlus
    with pytest.raises(AttributeError, match="no attribute 'GradcamPlus'"):
        gradcam.GradcamPlus  # type: ignore[attr-defined]  # noqa: B018


def scorecam_by_loops(model: Any, images: Array, channels: list[int]) -> Array:
    activation, _ = activation_and_slope(model, images)
    maps = np.zeros(activation.shape[:3])
    for channel in channels:
        one = larger(activation[..., channel])
        low, high = one.min((1, 2), keepdims=True), one.max((1, 2), keepdims=True)
        masked = images * ((one - low) / (high - low + 1e-7))[..., None]
        probabilities = tf.nn.softmax(model(masked.astype(np.float32))).numpy()
        weights = probabilities[np.arange(3), CLASSES]
        maps += weights[:, None, None] * activation[..., channel]
    return np.maximum(maps, 0)


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_scorecam_is_that_of_loops(network: Any, images: Array, batch_size: int) -> None:
    cam = Scorecam(network, model_modifier=ReplaceToLinear())
    expected = scorecam_by_loops(cam.model, images, list(range(5)))
    found = cam(score, images, batch_size=batch_size, expand_cam=False, normalize_cam=False)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    full = cam(CategoricalScore(CLASSES), images, batch_size=batch_size)
    np.testing.assert_allclose(full, normalize(larger(expected)), atol=1e-3)


def test_faster_scorecam(network: Any, images: Array) -> None:
    cam = ScoreCAM(network)
    activation, _ = activation_and_slope(network, images)
    most = np.unique(activation.std((1, 2)).argmax(1))
    expected = scorecam_by_loops(network, images, [int(channel) for channel in most])
    found = cam(score, images, max_N=1, expand_cam=False, standardize_cam=False)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    everything = cam(score, images)
    for all_of_them in (None, -1, 0, 5):
        np.testing.assert_allclose(cam(score, images, max_N=all_of_them), everything, atol=1e-5)
    with pytest.raises(OptionError, match="max_N must be at most 5"):
        cam(score, images, max_N=6)
    with pytest.raises(ShapeError, match="the score must be one for each of 3 images"):
        cam(lambda output: output[0][1], images)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        pass  # which an error in the middle of TensorFlow's own loops would make impossible
    one = cam(lambda output: output[0][1], images[:1])
    np.testing.assert_allclose(one, cam(CategoricalScore(1), images[:1]), atol=1e-5)


def test_maps_for_each_of_several_inputs() -> None:
    keras.utils.set_random_seed(18)
    a, b = keras.Input((6, 6, 1)), keras.Input((12, 8, 1))
    c = layers.Conv2D(3, 3, activation="relu", name="conv")(a)
    x = layers.Concatenate()([layers.Flatten()(c), layers.Flatten()(b)])
    model = keras.Model([a, b], layers.Dense(2)(x))
    rng = np.random.default_rng(19)
    given = [rng.random((2, 6, 6, 1), np.float32), rng.random((2, 12, 8, 1), np.float32)]
    for cam in (Gradcam(model), Scorecam(model)):
        found = cam(CategoricalScore(1), given)
        assert [one.shape for one in found] == [(2, 6, 6), (2, 12, 8)]


def spatial_activation_and_slope(model: Any, x: Array, data_format: str) -> tuple[Array, Array]:
    both = keras.Model(model.inputs[0], [model.get_layer("conv").output, model.outputs[0]])
    with tf.GradientTape() as tape:
        activation, output = both(x)
        value = tf.gather(output, [2, 0], batch_dims=1)
    slope = tape.gradient(value, activation)
    last = [np.asarray(tensor) for tensor in (activation, slope)]
    if data_format == "channels_first":
        last = [np.moveaxis(values, 1, -1) for values in last]
    return last[0], last[1]


@pytest.mark.parametrize(("sides", "data_format"), SPATIAL)
@pytest.mark.parametrize("kind", list(FORMULAS))
def test_maps_of_sequences_and_volumes(
    kind: Any, sides: tuple[int, ...], data_format: str, spatial_network: SpatialNetwork
) -> None:
    model, x = spatial_network(sides, data_format)
    activation, slope = spatial_activation_and_slope(model, x, data_format)
    expected = np.maximum(FORMULAS[kind](activation, slope), 0)
    assert expected.shape == (2, *(side - 2 for side in sides))
    assert expected.any(tuple(range(1, expected.ndim))).all()
    cam = kind(model)
    small = cam(CategoricalScore([2, 0]), x, expand_cam=False, normalize_cam=False)
    np.testing.assert_allclose(small, expected, rtol=1e-3, atol=1e-5)
    large = cam(CategoricalScore([2, 0]), x)
    assert (large.shape, large.dtype) == ((2, *sides), np.float32)
    np.testing.assert_allclose(large, normalize(larger(expected, sides)), atol=1e-3)


@pytest.mark.parametrize(("sides", "data_format"), SPATIAL)
def test_scorecam_of_sequences_and_volumes(
    sides: tuple[int, ...], data_format: str, spatial_network: SpatialNetwork
) -> None:
    model, x = spatial_network(sides, data_format)
    activation, _ = spatial_activation_and_slope(model, x, data_format)
    axes = tuple(range(1, len(sides) + 1))
    parts = []
    for channel in range(4):
        mask = larger(activation[..., channel], sides)
        low, high = mask.min(axes, keepdims=True), mask.max(axes, keepdims=True)
        mask = (mask - low) / (high - low + 1e-7)
        mask = np.expand_dims(mask, -1 if data_format == "channels_last" else 1)
        probabilities = tf.nn.softmax(model((x * mask).astype(np.float32))).numpy()
        weights = probabilities[[0, 1], [2, 0]]
        parts.append(weights.reshape(2, *[1] * len(sides)) * activation[..., channel])
    expected = np.sum(parts, 0)
    cam = Scorecam(model)
    options: dict[str, Any] = {"expand_cam": False, "normalize_cam": False}
    found = cam(CategoricalScore([2, 0]), x, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    large = cam(CategoricalScore([2, 0]), x)
    np.testing.assert_allclose(large, normalize(larger(expected, sides)), atol=1e-3)
    chosen = np.unique(activation.std(axes).argmax(1))
    faster = cam(CategoricalScore([2, 0]), x, max_N=1, **options)
    expected = np.sum([parts[channel] for channel in chosen], 0)
    np.testing.assert_allclose(faster, expected, rtol=1e-3, atol=1e-5)


def test_maps_of_the_tokens_of_texts() -> None:
    keras.utils.set_random_seed(26)
    inputs = keras.Input((9,), dtype="int32")
    x = layers.Embedding(20, 4, name="embedding")(inputs)
    x = layers.Conv1D(5, 2, activation="relu", name="conv")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))
    tokens = np.arange(18).reshape(2, 9)
    both = keras.Model(inputs, [model.get_layer("conv").output, model.outputs[0]])
    with tf.GradientTape() as tape:
        activation, output = both(tokens)
        value = output[:, 1]
    slope = tape.gradient(value, activation).numpy().mean(1, keepdims=True)
    expected = np.maximum((activation.numpy() * slope).sum(-1), 0)
    found = Gradcam(model)(CategoricalScore(1), tokens, normalize_cam=False)
    np.testing.assert_allclose(found, larger(expected, (9,)), rtol=1e-3, atol=1e-5)
    with pytest.raises(ShapeError, match=r"an input must have 3 axes or more, .* not \(2, 9\)"):
        Scorecam(model)(CategoricalScore(1), tokens)


def test_inputs_of_several_ranks() -> None:
    keras.utils.set_random_seed(27)
    clip, image = keras.Input((4, 6, 6, 1)), keras.Input((12, 8, 1))
    moving = layers.Conv3D(2, 3, activation="relu", name="moving")(clip)
    still = layers.Conv2D(3, 3, activation="relu", name="still")(image)
    x = layers.Concatenate()([layers.Flatten()(moving), layers.Flatten()(still)])
    positive = keras.initializers.RandomUniform(0, 0.3)
    model = keras.Model([clip, image], layers.Dense(2, kernel_initializer=positive)(x))
    rng = np.random.default_rng(28)
    given = [rng.random((2, 4, 6, 6, 1), np.float32), rng.random((2, 12, 8, 1), np.float32)]
    for cam in (Gradcam(model), Scorecam(model)):
        of_clip = cam(CategoricalScore(1), given, "moving")
        assert (of_clip[0].shape, of_clip[1]) == ((2, 4, 6, 6), None)
        of_image = cam(CategoricalScore(1), given, "still")
        assert (of_image[0], of_image[1].shape) == (None, (2, 12, 8))
        assert of_clip[0].max() == pytest.approx(1, abs=1e-3)
        assert of_image[1].max() == pytest.approx(1, abs=1e-3)


def test_a_layer_of_other_axes_than_the_input() -> None:
    inputs = keras.Input((4, 6, 6, 1))
    x = layers.Conv2D(2, 3, name="flat_conv")(layers.Reshape((6, 24, 1))(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    clips = np.random.default_rng(29).random((2, 4, 6, 6, 1), np.float32)
    with pytest.raises(ShapeError, match=r"gives maps of \(4, 22\), and no input has as many axes"):
        Gradcam(model)(CategoricalScore(1), clips)
    small = Gradcam(model)(CategoricalScore(1), clips, expand_cam=False)
    assert small.shape == (2, 4, 22)


class TokensAndImage(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(3, 3, activation="relu", name="conv")
        self.dense = layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        tokens, image = inputs
        hot = tf.reduce_sum(tf.one_hot(tokens, 7), 1)
        return self.dense(tf.concat([hot, tf.reduce_sum(self.conv(image), (1, 2))], 1))


def test_tokens_beside_an_image_stay_integers() -> None:
    keras.utils.set_random_seed(30)
    model = TokensAndImage()
    rng = np.random.default_rng(31)
    given = [np.array([[1, 2], [3, 4]], np.int32), rng.random((2, 6, 6, 1), np.float32)]
    model(given)
    nothing, maps = Gradcam(model)(CategoricalScore(1), given, "conv")
    assert nothing is None
    assert maps.shape == (2, 6, 6)
