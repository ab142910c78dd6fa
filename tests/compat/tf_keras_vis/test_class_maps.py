"""Class activation maps, against the papers' formulas and plain loops."""

from __future__ import annotations

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
CLASSES = [1, 0, 3]


def score(output: Any) -> Any:
    return (output[0][1], output[1][0], output[2][3])


def activation_and_slope(model: Any, images: Array) -> tuple[Array, Array]:
    both = keras.Model(model.inputs[0], [model.get_layer("conv").output, model.outputs[0]])
    with tf.GradientTape() as tape:
        activation, output = both(images)
        value = tf.gather(output, CLASSES, batch_dims=1)
    return activation.numpy(), tape.gradient(value, activation).numpy()


def larger(maps: Array) -> Array:
    """Linear between corners, as `scipy.ndimage.zoom` of order 1."""
    places = np.linspace(0, 5, 10)
    below = np.minimum(places.astype(int), 4)
    share = places - below
    rows = maps[:, below] * (1 - share)[:, None] + maps[:, below + 1] * share[:, None]
    found: Array = rows[:, :, below] * (1 - share) + rows[:, :, below + 1] * share
    return found


def plus_plus(activation: Array, slope: Array, positive: bool = True) -> Array:
    second, third = slope**2, slope**3
    below = 2 * second + third * activation.sum((1, 2), keepdims=True)
    alpha = np.where(second == 0, 0, second / np.where(second == 0, 1, below))
    total = alpha.sum((1, 2), keepdims=True)
    alpha = alpha / np.where(total == 0, 1, total)
    counted = np.maximum(slope, 0) if positive else slope
    weights = (counted * alpha).sum((1, 2), keepdims=True)
    return np.asarray((weights * activation).sum(-1))


FORMULAS: dict[Any, Any] = {
    Gradcam: lambda a, s: (a * s.mean((1, 2), keepdims=True)).sum(-1),
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
        gradcam.GradcamPlus  # noqa: B018


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
