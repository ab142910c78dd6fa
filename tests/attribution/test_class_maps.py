"""Class activation maps, against maps computed by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

from actgrid import explain
from actgrid.attribution import ZeroAttributionWarning
from actgrid.errors import LayerError, ModelError, OptionError, ShapeError

Array = npt.NDArray[Any]

CAMS = ["cam", "gradcam", "gradcam++", "layercam", "scorecam"]

# An image of four pixels.
X = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
POSITIVE, NEGATIVE = np.maximum(X, 0), np.maximum(-X, 0)
# Weights of the dense layer: two channels to two classes.
HEAD = np.array([[2.0, -1.0], [-3.0, 4.0]], np.float32)


def make_two_channel_model(activation: str | None = "softmax") -> Any:
    """Return a model whose channels are the positive and negative part of the image."""
    model = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.Conv2D(2, 1, use_bias=False, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, activation=activation, name="head"),
        ]
    )
    model.get_layer("conv").set_weights([np.array([1.0, -1.0]).reshape(1, 1, 1, 2)])
    model.get_layer("head").set_weights([HEAD, np.array([0.5, 0.25])])
    return model


def explain_by(method: str, target: int = 0, **options: Any) -> Array:
    """Return the map of `X` by a method."""
    heatmap = explain(make_two_channel_model(), X[None, ..., None], method, target, **options)
    assert heatmap.layer == "conv"
    assert heatmap.is_logit
    assert heatmap.values.shape == (1, 2, 2)
    value: Array = heatmap.values[0]
    return value


@pytest.mark.parametrize("target", [0, 1])
def test_cam_weights_channels_by_dense_layer(target: int) -> None:
    expected = HEAD[0, target] * POSITIVE + HEAD[1, target] * NEGATIVE
    np.testing.assert_allclose(explain_by("cam", target), expected)
    assert explain(make_two_channel_model(), X[None, ..., None], "cam").signed


@pytest.mark.parametrize("target", [0, 1])
def test_gradcam_weights_channels_by_mean_gradient(target: int) -> None:
    # The gradient of an average over four positions is a quarter everywhere.
    total = (HEAD[0, target] * POSITIVE + HEAD[1, target] * NEGATIVE) / 4
    np.testing.assert_allclose(explain_by("gradcam", target), np.maximum(total, 0))


@pytest.mark.parametrize("target", [0, 1])
def test_layercam_weights_each_activation(target: int) -> None:
    weights = np.maximum(HEAD[:, target] / 4, 0)
    expected = weights[0] * POSITIVE + weights[1] * NEGATIVE
    np.testing.assert_allclose(explain_by("layercam", target), expected)


@pytest.mark.parametrize("target", [0, 1])
def test_gradcam_plus_plus_matches_paper(target: int) -> None:
    expected = np.zeros((2, 2))
    for weight, channel in zip(HEAD[:, target] / 4, (POSITIVE, NEGATIVE), strict=True):
        alpha = weight**2 / (2 * weight**2 + channel.sum() * weight**3)
        expected += 4 * alpha * max(weight, 0) * channel
    np.testing.assert_allclose(explain_by("gradcam++", target), np.maximum(expected, 0), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-20, 1e18])
def test_gradcam_plus_plus_handles_tiny_and_huge_gradients(scale: float) -> None:
    # A saturated sigmoid has such a gradient, whose powers leave the range of float32.
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), layers.ReLU(name="conv"), layers.Flatten(), layers.Dense(1)]
    )
    model.layers[-1].set_weights([np.array([[scale], [0], [0], [0]]), np.zeros(1)])
    image = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    heatmap = explain(model, image, "gradcam++", layer="conv").values[0]
    np.testing.assert_allclose(heatmap, image[..., 0] * scale / (2 + 10 * scale), rtol=1e-5)


def test_guided_gradcam_is_product_of_both_maps(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    fine = explain(model, x, "guided_backprop").values
    coarse = explain(model, x, "gradcam").values
    resized = tf.image.resize(coarse[..., None], (12, 12))[..., 0]
    heatmap = explain(model, x, "guided_gradcam")
    np.testing.assert_allclose(heatmap.values, fine * resized, rtol=1e-4, atol=1e-6)
    assert heatmap.layer == "conv2"


def test_scorecam_matches_loop(cnn: tuple[Any, Any], cnn_logits: Any) -> None:
    model, x = cnn
    activations = keras.Model(model.inputs, model.get_layer("conv1").output).predict(x, verbose=0)
    expected = []
    for image, activation in zip(x, activations, strict=True):
        best = int(cnn_logits(image[None])[0].numpy().argmax())
        scores = []
        for channel in np.moveaxis(activation, -1, 0):
            resized = tf.image.resize(channel[..., None], image.shape[:2]).numpy()
            mask = (resized - resized.min()) / (resized.max() - resized.min())
            scores.append(cnn_logits((image * mask)[None])[0, best])
        weights = np.exp(scores) / np.exp(scores).sum()
        expected.append(np.maximum((activation * weights).sum(-1), 0))
    heatmap = explain(model, x, "scorecam", layer="conv1", batch_size=7)
    np.testing.assert_allclose(heatmap.values, expected, rtol=1e-4, atol=1e-5)
    # Only the two channels with the largest deviation.
    two = explain(model, x, "scorecam", layer="conv1", max_channels=2)
    assert two.values.shape == heatmap.values.shape
    assert not np.allclose(two.values, heatmap.values)
    all_four = explain(model, x, "scorecam", layer="conv1", max_channels=9)
    np.testing.assert_allclose(all_four.values, heatmap.values, rtol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("weighting", ["softmax", "probability"])
@pytest.mark.parametrize("baseline", [0.0, 2.0, [1.0, -2.0, 3.0], "mean"])
def test_scorecam_weighting_and_baseline(
    activation: str | None, weighting: str, baseline: Any
) -> None:
    keras.utils.set_random_seed(3)
    conv = layers.Conv2D(4, 3, activation="relu", name="conv")
    average, head = layers.GlobalAveragePooling2D(), layers.Dense(3)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), conv, average, head, layers.Activation(activation)]
    )
    # The second and fourth channel are constant: one is zero, the other is not.
    kernel, _ = conv.get_weights()
    conv.set_weights([kernel * [1, 0, 1, 0], np.array([0, 0, 0, 5.0])])
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    if weighting == "probability" and activation is None:
        with pytest.raises(OptionError, match="needs a model that ends in a softmax or sigmoid"):
            explain(model, x, "scorecam", 1, weighting=weighting, baseline=baseline)
        return
    expected = []
    for image in x:
        hidden = image.mean((0, 1)) if baseline == "mean" else np.array(baseline)
        maps, weights = [], []
        for channel in np.moveaxis(conv(image[None])[0].numpy(), -1, 0)[[0, 2]]:
            resized = tf.image.resize(channel[..., None], (8, 8)).numpy()
            mask = (resized - resized.min()) / (resized.max() - resized.min())
            masked = (hidden + mask * (image - hidden)).astype(np.float32)[None]
            scores = head(average(conv(masked)))
            outputs = scores if weighting == "softmax" else model(masked)
            maps.append(channel)
            weights.append(float(outputs[0, 1]))
        if weighting == "softmax":
            weights = list(np.exp(weights) / np.exp(weights).sum())
        expected.append(
            sum(weight * channel for weight, channel in zip(weights, maps, strict=True))
        )
    heatmap = explain(model, x, "scorecam", 1, weighting=weighting, baseline=baseline, batch_size=3)
    np.testing.assert_allclose(heatmap.values, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


def test_scorecam_probability_weighting_of_sigmoid_unit() -> None:
    keras.utils.set_random_seed(3)
    conv = layers.Conv2D(2, 3, activation="relu", name="conv")
    head = [layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential([keras.Input((8, 8, 3)), conv, *head])
    x = np.random.default_rng(1).normal(size=(1, 8, 8, 3)).astype(np.float32)
    activation = conv(x)[0].numpy()
    expected = 0
    for channel in np.moveaxis(activation, -1, 0):
        resized = tf.image.resize(channel[..., None], (8, 8)).numpy()
        mask = (resized - resized.min()) / (resized.max() - resized.min())
        expected = expected + channel * (1 - float(model(x * mask)[0, 0]))
    heatmap = explain(model, x, "scorecam", 0, weighting="probability")
    np.testing.assert_allclose(heatmap.values[0], expected, rtol=1e-4, atol=1e-5)


def test_scorecam_of_constant_channels_is_zero() -> None:
    conv = layers.Conv2D(2, 3, activation="relu", name="conv", bias_initializer="ones")
    head = [layers.GlobalAveragePooling2D(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((8, 8, 3)), conv, *head])
    conv.set_weights([np.zeros((3, 3, 3, 2)), np.ones(2)])
    for weighting in ("softmax", "probability"):
        activation = layers.Softmax()
        model = keras.Sequential([model, activation]) if weighting == "probability" else model
        with pytest.warns(ZeroAttributionWarning, match="no channel of the layer"):
            heatmap = explain(model, np.ones((1, 8, 8, 3)), "scorecam", 0, weighting=weighting)
        assert not heatmap.values.any()


@pytest.mark.parametrize("method", CAMS)
def test_default_layer_of_every_model_type(any_model: tuple[Any, Any], method: str) -> None:
    heatmap = explain(*any_model, method)
    assert heatmap.values.shape == (5, 4, 4)
    assert np.isfinite(heatmap.values).all()
    assert heatmap.values.any()
    names = {"conv2", "inner/conv2", "add", "inner"}
    assert heatmap.layer is not None
    assert heatmap.layer.split("_")[0] in names


def test_layer_by_path_index_glob_and_object(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    by_path = explain(model, x, layer="conv1")
    assert by_path.layer == "conv1"
    assert by_path.values.shape == (5, 10, 10)
    for layer in (0, -5, model.layers[0], "*v1"):
        np.testing.assert_array_equal(explain(model, x, layer=layer).values, by_path.values)


@pytest.mark.filterwarnings("ignore::actgrid.attribution.ZeroAttributionWarning")
def test_cam_rejects_head_of_several_layers() -> None:
    head = [layers.Flatten(), layers.Dense(4, activation="relu"), layers.Dense(2)]
    model = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(2, 3, name="conv"), *head])
    x = np.ones((1, 6, 6, 1), np.float32)
    with pytest.raises(
        ModelError, match=r"cam needs a model with only a global average.*layer conv.*gradcam"
    ):
        explain(model, x, "cam")
    assert explain(model, x, "scorecam").layer == "conv"


def test_cam_rejects_earlier_layer(cnn: tuple[Any, Any]) -> None:
    with pytest.raises(ModelError, match="cam needs a model with only a global average"):
        explain(*cnn, "cam", layer="conv1")


def test_invalid_layers_and_options_are_rejected(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    with pytest.raises(LayerError, match=r"no layer is called 'conv3' \(did you mean conv2"):
        explain(model, x, layer="conv3")
    with pytest.raises(LayerError, match="one layer, not 2: conv1, conv2"):
        explain(model, x, layer="conv*")
    several: Any
    for several in (["conv1"], {"conv1"}, ["conv1"] * 2):
        with pytest.raises(OptionError, match="layer must be one layer"):
            explain(model, x, layer=several)
    explain(model, x, layer=1)
    with pytest.raises(OptionError, match="not True"):
        explain(model, x, layer=True)
    with pytest.raises(ShapeError, match=r"layer dense.* has no height and width.*\(None, 3\)"):
        explain(model, x, layer=-1)
    with pytest.raises(OptionError, match="saliency: layer must be None"):
        explain(model, x, "saliency", layer="conv1")
    with pytest.raises(OptionError, match="max_channels must be at least 1"):
        explain(model, x, "scorecam", max_channels=0)
    with pytest.raises(OptionError, match="weighting must be one of softmax, probability, not 'in"):
        explain(model, x, "scorecam", weighting="increase")
    with pytest.raises(OptionError, match="needs a model that ends in a softmax or sigmoid, and a"):
        explain(model, x, "scorecam", lambda outputs: outputs[:, 0], weighting="probability")


def test_model_without_spatial_layers_is_rejected() -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)])
    x = np.ones((1, 4, 4, 1), np.float32)
    for method in ["cam", "gradcam", "gradcam++", "layercam", "scorecam", "guided_gradcam"]:
        with pytest.raises(LayerError, match=r"no layer with a spatial output.*needs no layer"):
            explain(model, x, method)


def test_layer_beside_the_score_is_rejected() -> None:
    inputs = keras.Input((6, 6, 1))
    used = layers.Conv2D(2, 3, name="used")(inputs)
    aside = layers.Conv2D(2, 3, name="aside")(inputs)
    outputs = [layers.GlobalAveragePooling2D()(branch) for branch in (used, aside)]
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype(np.float32)

    def first(outputs: Any) -> Any:
        return outputs[0][:, 0]

    with pytest.raises(LayerError, match="does not depend on the layer aside"):
        explain(model, x, target=first, layer="aside")
    assert explain(model, x, target=first).layer == "used"


def test_channels_first_layer() -> None:
    # Only the layer is channels first, as a CPU cannot run such convolutions.
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    first = layers.Permute((3, 1, 2), name="first")(x)
    pooled = layers.GlobalAveragePooling2D(data_format="channels_first")
    second = layers.UpSampling2D(2, data_format="channels_first", name="up")(first)
    model = keras.Model(inputs, layers.Dense(2)(pooled(second)))
    image = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    heatmap = explain(model, image, layer="up")
    assert heatmap.values.shape == (2, 8, 8)
    np.testing.assert_allclose(
        heatmap.values[:, ::2, ::2], explain(model, image, layer="conv").values / 4, atol=1e-6
    )


class Tokens(keras.Model):  # type: ignore[misc]
    """Small vision transformer: patches, a class token and a mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = layers.Conv2D(6, 4, 4, name="patches")
        self.flat = layers.Reshape((6, 6), name="flat")
        self.mixed = layers.Dense(6, activation="relu", name="mixed")
        self.head = layers.Dense(2, name="head")

    def call(self, x: Any) -> Any:
        tokens = self.flat(self.patches(x))
        tokens = tf.concat([tokens[:, :1] * 0, tokens], 1)
        return self.head(tf.reduce_mean(self.mixed(tokens), 1))


def test_token_grid_arranges_tokens() -> None:
    keras.utils.set_random_seed(0)
    model = Tokens()
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    heatmap = explain(model, x, layer="mixed", token_grid=(2, 3))
    assert heatmap.values.shape == (2, 2, 3)
    assert explain(model, x, token_grid=(2, 3)).layer == "mixed"
    tokens = model.flat(model.patches(x)).numpy()
    activation = model.mixed(tokens).numpy().reshape(2, 2, 3, 6)
    outputs = model(x).numpy()
    for value, tokens_of_image, scores in zip(heatmap.values, activation, outputs, strict=True):
        weights = model.head.get_weights()[0][:, scores.argmax()] / 7
        np.testing.assert_allclose(
            value, np.maximum((tokens_of_image * weights).sum(-1), 0), atol=1e-6
        )
    np.testing.assert_array_equal(explain(model, x, layer="mixed").values, heatmap.values)
    np.testing.assert_array_equal(explain(model, x).values, heatmap.values)
    with pytest.raises(
        ShapeError, match=r"7 tokens do not fill a grid of 3 x 3, which fill token_grid=\(2, 2\)"
    ):
        explain(model, x, layer="mixed", token_grid=(3, 3))


def test_tokens_without_a_known_grid_need_the_option() -> None:
    image = keras.Input((8, 12, 3))
    patches = layers.Reshape((6, 4), name="tokens")(layers.Conv2D(4, 4, 4)(image))
    mixed = layers.Dense(6, "relu", name="mixed")(layers.Dense(4)(patches[:, 2:]))
    outputs = layers.Dense(3)(layers.GlobalAveragePooling1D()(mixed))
    model = keras.Model(image, outputs)
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    # The last layer whose grid is known is the embedding of all patches.
    assert explain(model, x).layer == "tokens"
    with pytest.raises(ShapeError, match=r"no height and width.*pass token_grid"):
        explain(model, x, layer="mixed")
    assert explain(model, x, token_grid=(2, 2)).layer == "mixed"


@pytest.mark.parametrize("head", ["sigmoid", "sliced softmax"])
def test_cam_reads_logits_before_final_activation(head: str) -> None:
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(4, 3, activation="relu")(inputs)
    dense = layers.Dense(1 if head == "sigmoid" else 3)
    x = dense(layers.GlobalAveragePooling2D()(conv))
    outputs = keras.ops.sigmoid(x)
    if head == "sliced softmax":
        outputs = keras.ops.softmax(layers.Reshape((1, 1, 3))(x))[:, 0, 0]
    model = keras.Model(inputs, outputs)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    kernel = dense.get_weights()[0]
    activation = keras.Model(inputs, conv)(images).numpy()
    for target in (0, 1):
        weights = kernel[:, target] if head != "sigmoid" else kernel[:, 0] * (2 * target - 1)
        heatmap = explain(model, images, "cam", target)
        np.testing.assert_allclose(heatmap.values, activation @ weights, rtol=1e-4, atol=1e-5)
