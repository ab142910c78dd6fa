"""Class activation maps of tf-keras-vis, against formulas of the papers and loops."""

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


def compute_activation_and_gradient(model: Any, images: Array) -> tuple[Array, Array]:
    gradient_model = keras.Model(
        model.inputs[0], [model.get_layer("conv").output, model.outputs[0]]
    )
    with tf.GradientTape() as tape:
        activation, output = gradient_model(images)
        value = tf.gather(output, CLASSES, batch_dims=1)
    return activation.numpy(), tape.gradient(value, activation).numpy()


def resize_maps(maps: Array, sides: tuple[int, ...] = (10, 10)) -> Array:
    """Resize maps linearly with aligned corners, like `scipy.ndimage.zoom` of order 1."""
    for axis, side in enumerate(sides, 1):
        count = maps.shape[axis]
        positions = np.arange(side) * (count - 1) / (side - 1)

        def interpolate(line: Array, positions: Array = positions, count: int = count) -> Array:
            return np.interp(positions, np.arange(count), line)

        maps = np.apply_along_axis(interpolate, axis, maps)
    return maps


def list_spatial_axes(values: Array) -> tuple[int, ...]:
    return tuple(range(1, values.ndim - 1))


def compute_gradcam_plus_plus(activation: Array, gradient: Array, positive: bool = True) -> Array:
    second, third = gradient**2, gradient**3
    axes = list_spatial_axes(gradient)
    denominator = 2 * second + third * activation.sum(axes, keepdims=True)
    alpha = np.where(second == 0, 0, second / np.where(second == 0, 1, denominator))
    total = alpha.sum(axes, keepdims=True)
    alpha = alpha / np.where(total == 0, 1, total)
    gradient = np.maximum(gradient, 0) if positive else gradient
    weights = (gradient * alpha).sum(axes, keepdims=True)
    return np.asarray((weights * activation).sum(-1))


FORMULAS: dict[Any, Any] = {
    Gradcam: lambda a, s: (a * s.mean(list_spatial_axes(s), keepdims=True)).sum(-1),
    GradcamPlusPlus: compute_gradcam_plus_plus,
    Layercam: lambda a, s: (a * np.maximum(s, 0)).sum(-1),
}


@pytest.mark.parametrize("method", list(FORMULAS))
def test_maps_match_formulas(method: Any, network: Any, images: Array) -> None:
    cam = method(network, model_modifier=ReplaceToLinear(), clone=True)
    maps = FORMULAS[method](*compute_activation_and_gradient(cam.model, images)).astype(np.float32)
    positive = np.maximum(maps, 0)
    for score_function in (score, CategoricalScore(CLASSES)):
        result = cam(score_function, images)
        assert (result.shape, result.dtype) == ((3, 10, 10), np.float32)
        np.testing.assert_allclose(result, normalize(resize_maps(positive)), atol=1e-3)
    small = cam(score, images, expand_cam=False, normalize_cam=False)
    np.testing.assert_allclose(small, positive, rtol=1e-3, atol=1e-5)
    if method is GradcamPlusPlus:
        maps = compute_gradcam_plus_plus(
            *compute_activation_and_gradient(cam.model, images), positive=False
        )
    signed = cam(score, images, activation_modifier=None, expand_cam=False, standardize_cam=False)
    np.testing.assert_allclose(signed, maps, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(cam(score, images, expand_cam=False), normalize(positive), atol=1e-3)


def test_gradient_modifier(network: Any, images: Array) -> None:
    cam = Layercam(network, ReplaceToLinear())
    activation, gradient = compute_activation_and_gradient(cam.model, images)
    result = cam(
        score,
        images,
        gradient_modifier=lambda gradient: gradient**2,
        expand_cam=False,
        normalize_cam=False,
    )
    np.testing.assert_allclose(result, (activation * gradient**2).sum(-1), rtol=1e-3, atol=1e-6)


def test_gradient_modifier_of_gradcam_plus_plus(network: Any, images: Array) -> None:
    cam = GradcamPlusPlus(network, ReplaceToLinear())
    activation, gradient = compute_activation_and_gradient(cam.model, images)
    options: dict[str, Any] = {"expand_cam": False, "normalize_cam": False}
    result = cam(score, images, gradient_modifier=lambda gradient: -gradient, **options)
    expected = np.maximum(compute_gradcam_plus_plus(activation, -gradient), 0)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)


def test_penultimate_layer(network: Any, images: Array) -> None:
    cam = Gradcam(network)
    conv = network.get_layer("conv")
    last = cam(score, images)
    for layer in ("conv", 2, -4, "out", -1, conv):
        np.testing.assert_array_equal(cam(score, images, layer), last)
    pooled = cam(score, images, "pool", seek_penultimate_conv_layer=False, expand_cam=False)
    assert pooled.shape == (3, 3, 3)
    assert cam(score, images, "first", expand_cam=False).shape == (3, 8, 8)
    for invalid in ("cnv", 99, 1.5):
        with pytest.raises(LayerError):
            cam(score, images, invalid)
    with pytest.raises(LayerError, match="no convolution up to the layer 0"):
        cam(score, images, 0)
    with pytest.raises(ShapeError, match="has no height and width"):
        cam(score, images, "flat", seek_penultimate_conv_layer=False)
    with pytest.raises(OptionError, match="training must be False"):
        cam(score, images, training=True)


def test_convolution_in_nested_model(network: Any, images: Array) -> None:
    inner = keras.Sequential(network.layers[1:4], name="inner")
    nested = keras.Sequential([keras.Input((10, 10, 3)), inner, *network.layers[4:]])
    np.testing.assert_allclose(
        Gradcam(nested)(score, images), Gradcam(network)(score, images), atol=1e-4
    )


def test_old_module_of_gradcam_plus_plus() -> None:
    from actgrid.compat.tf_keras_vis import gradcam

    assert gradcam.GradcamPlusPlus is GradcamPlusPlus
    with pytest.raises(AttributeError, match="no attribute 'GradcamPlus'"):
        gradcam.GradcamPlus  # type: ignore[attr-defined]  # noqa: B018


def compute_scorecam(model: Any, images: Array, channels: list[int]) -> Array:
    activation, _ = compute_activation_and_gradient(model, images)
    maps = np.zeros(activation.shape[:3])
    for channel in channels:
        mask = resize_maps(activation[..., channel])
        low, high = mask.min((1, 2), keepdims=True), mask.max((1, 2), keepdims=True)
        masked = images * ((mask - low) / (high - low + 1e-7))[..., None]
        probabilities = tf.nn.softmax(model(masked.astype(np.float32))).numpy()
        weights = probabilities[np.arange(3), CLASSES]
        maps += weights[:, None, None] * activation[..., channel]
    return np.maximum(maps, 0)


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_scorecam_matches_loops(network: Any, images: Array, batch_size: int) -> None:
    cam = Scorecam(network, model_modifier=ReplaceToLinear())
    expected = compute_scorecam(cam.model, images, list(range(5)))
    result = cam(score, images, batch_size=batch_size, expand_cam=False, normalize_cam=False)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)
    full = cam(CategoricalScore(CLASSES), images, batch_size=batch_size)
    np.testing.assert_allclose(full, normalize(resize_maps(expected)), atol=1e-3)


def test_faster_scorecam(network: Any, images: Array) -> None:
    cam = ScoreCAM(network)
    activation, _ = compute_activation_and_gradient(network, images)
    channels = np.unique(activation.std((1, 2)).argmax(1))
    expected = compute_scorecam(network, images, [int(channel) for channel in channels])
    result = cam(score, images, max_N=1, expand_cam=False, standardize_cam=False)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)
    all_channels = cam(score, images)
    for max_channels in (None, -1, 0, 5):
        maps = cam(score, images, max_N=max_channels)
        np.testing.assert_allclose(maps, all_channels, atol=1e-5)
    with pytest.raises(OptionError, match="max_N must be at most 5"):
        cam(score, images, max_N=6)
    with pytest.raises(ShapeError, match="score must return one value for each of 3 images"):
        cam(lambda output: output[0][1], images)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        pass  # an error inside of tf.map_fn would make a strategy scope impossible
    maps = cam(lambda output: output[0][1], images[:1])
    np.testing.assert_allclose(maps, cam(CategoricalScore(1), images[:1]), atol=1e-5)


def test_maps_of_several_inputs() -> None:
    keras.utils.set_random_seed(18)
    a, b = keras.Input((6, 6, 1)), keras.Input((12, 8, 1))
    c = layers.Conv2D(3, 3, activation="relu", name="conv")(a)
    x = layers.Concatenate()([layers.Flatten()(c), layers.Flatten()(b)])
    model = keras.Model([a, b], layers.Dense(2)(x))
    rng = np.random.default_rng(19)
    inputs = [rng.random((2, 6, 6, 1), np.float32), rng.random((2, 12, 8, 1), np.float32)]
    for cam in (Gradcam(model), Scorecam(model)):
        result = cam(CategoricalScore(1), inputs)
        assert [maps.shape for maps in result] == [(2, 6, 6), (2, 12, 8)]


def compute_spatial_activation_and_gradient(
    model: Any, x: Array, data_format: str
) -> tuple[Array, Array]:
    gradient_model = keras.Model(
        model.inputs[0], [model.get_layer("conv").output, model.outputs[0]]
    )
    with tf.GradientTape() as tape:
        activation, output = gradient_model(x)
        value = tf.gather(output, [2, 0], batch_dims=1)
    gradient = tape.gradient(value, activation)
    last = [np.asarray(tensor) for tensor in (activation, gradient)]
    if data_format == "channels_first":
        last = [np.moveaxis(values, 1, -1) for values in last]
    return last[0], last[1]


@pytest.mark.parametrize(("sides", "data_format"), SPATIAL)
@pytest.mark.parametrize("method", list(FORMULAS))
def test_maps_of_sequences_and_volumes(
    method: Any, sides: tuple[int, ...], data_format: str, spatial_network: SpatialNetwork
) -> None:
    model, x = spatial_network(sides, data_format)
    activation, gradient = compute_spatial_activation_and_gradient(model, x, data_format)
    expected = np.maximum(FORMULAS[method](activation, gradient), 0)
    assert expected.shape == (2, *(side - 2 for side in sides))
    assert expected.any(tuple(range(1, expected.ndim))).all()
    cam = method(model)
    small = cam(CategoricalScore([2, 0]), x, expand_cam=False, normalize_cam=False)
    np.testing.assert_allclose(small, expected, rtol=1e-3, atol=1e-5)
    large = cam(CategoricalScore([2, 0]), x)
    assert (large.shape, large.dtype) == ((2, *sides), np.float32)
    np.testing.assert_allclose(large, normalize(resize_maps(expected, sides)), atol=1e-3)


@pytest.mark.parametrize(("sides", "data_format"), SPATIAL)
def test_scorecam_of_sequences_and_volumes(
    sides: tuple[int, ...], data_format: str, spatial_network: SpatialNetwork
) -> None:
    model, x = spatial_network(sides, data_format)
    activation, _ = compute_spatial_activation_and_gradient(model, x, data_format)
    axes = tuple(range(1, len(sides) + 1))
    parts = []
    for channel in range(4):
        mask = resize_maps(activation[..., channel], sides)
        low, high = mask.min(axes, keepdims=True), mask.max(axes, keepdims=True)
        mask = (mask - low) / (high - low + 1e-7)
        mask = np.expand_dims(mask, -1 if data_format == "channels_last" else 1)
        probabilities = tf.nn.softmax(model((x * mask).astype(np.float32))).numpy()
        weights = probabilities[[0, 1], [2, 0]]
        parts.append(weights.reshape(2, *[1] * len(sides)) * activation[..., channel])
    expected = np.sum(parts, 0)
    cam = Scorecam(model)
    options: dict[str, Any] = {"expand_cam": False, "normalize_cam": False}
    result = cam(CategoricalScore([2, 0]), x, **options)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)
    large = cam(CategoricalScore([2, 0]), x)
    np.testing.assert_allclose(large, normalize(resize_maps(expected, sides)), atol=1e-3)
    channels = np.unique(activation.std(axes).argmax(1))
    faster = cam(CategoricalScore([2, 0]), x, max_N=1, **options)
    expected = np.sum([parts[channel] for channel in channels], 0)
    np.testing.assert_allclose(faster, expected, rtol=1e-3, atol=1e-5)


def test_maps_of_tokens() -> None:
    keras.utils.set_random_seed(26)
    inputs = keras.Input((9,), dtype="int32")
    x = layers.Embedding(20, 4, name="embedding")(inputs)
    x = layers.Conv1D(5, 2, activation="relu", name="conv")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))
    tokens = np.arange(18).reshape(2, 9)
    gradient_model = keras.Model(inputs, [model.get_layer("conv").output, model.outputs[0]])
    with tf.GradientTape() as tape:
        activation, output = gradient_model(tokens)
        value = output[:, 1]
    gradient = tape.gradient(value, activation).numpy().mean(1, keepdims=True)
    expected = np.maximum((activation.numpy() * gradient).sum(-1), 0)
    result = Gradcam(model)(CategoricalScore(1), tokens, normalize_cam=False)
    np.testing.assert_allclose(result, resize_maps(expected, (9,)), rtol=1e-3, atol=1e-5)
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
    inputs = [rng.random((2, 4, 6, 6, 1), np.float32), rng.random((2, 12, 8, 1), np.float32)]
    for cam in (Gradcam(model), Scorecam(model)):
        clip_maps = cam(CategoricalScore(1), inputs, "moving")
        assert (clip_maps[0].shape, clip_maps[1]) == ((2, 4, 6, 6), None)
        image_maps = cam(CategoricalScore(1), inputs, "still")
        assert (image_maps[0], image_maps[1].shape) == (None, (2, 12, 8))
        assert clip_maps[0].max() == pytest.approx(1, abs=1e-3)
        assert image_maps[1].max() == pytest.approx(1, abs=1e-3)


def test_layer_of_other_rank_than_the_input() -> None:
    inputs = keras.Input((4, 6, 6, 1))
    x = layers.Conv2D(2, 3, name="flat_conv")(layers.Reshape((6, 24, 1))(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    clips = np.random.default_rng(29).random((2, 4, 6, 6, 1), np.float32)
    with pytest.raises(ShapeError, match=r"has maps of \(4, 22\), and no input has as many axes"):
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
    inputs = [np.array([[1, 2], [3, 4]], np.int32), rng.random((2, 6, 6, 1), np.float32)]
    model(inputs)
    token_maps, maps = Gradcam(model)(CategoricalScore(1), inputs, "conv")
    assert token_maps is None
    assert maps.shape == (2, 6, 6)
