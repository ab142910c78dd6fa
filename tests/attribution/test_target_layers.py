"""The default layer of class activation maps, for common architectures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from packaging.version import Version
from tests.attribution.packages import skip_without_packages

from actgrid import explain
from actgrid.attribution import ZeroAttributionWarning
from actgrid.attribution.methods import get_methods
from actgrid.errors import LayerError

# Methods that explain networks without attention.
GENERAL_METHODS = [
    name for name, method in get_methods().items() if "attention" not in method.needs
]

SIDE = 16
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)


def find_default_layer(model: Any, x: Any = X, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZeroAttributionWarning)
        return explain(model, x, **options).layer


def make_classifier(*features: Any, classes: int = 3, side: int = SIDE) -> Any:
    """Return a classifier of some layers, a global average and a dense layer."""
    keras.utils.set_random_seed(1)
    head = [layers.GlobalAveragePooling2D(), layers.Dense(classes)]
    return keras.Sequential([keras.Input((side, side, 3)), *features, *head])


def make_conv(name: str = "conv", filters: int = 4, **options: Any) -> Any:
    return layers.Conv2D(filters, 3, padding="same", name=name, **options)


@pytest.mark.parametrize(
    "after",
    [
        [],
        [layers.MaxPooling2D()],
        [layers.AveragePooling2D(2)],
        [layers.ZeroPadding2D(2), layers.Cropping2D(1)],
        [layers.UpSampling2D(2)],
        [layers.UpSampling2D(2, interpolation="bilinear"), layers.MaxPooling2D()],
        [layers.Resizing(9, 9)],
        [layers.Reshape((SIDE // 2, SIDE * 2, 4)), layers.Permute((2, 1, 3))],
        [layers.Dropout(0.5), layers.SpatialDropout2D(0.5), layers.Activation("linear")],
        [layers.GlobalMaxPooling2D(keepdims=True), make_conv("gate", activation="relu")],
        [layers.Lambda(lambda x: x[:, 1:-1, 1:-1])],
    ],
)
def test_layers_that_only_move_values_are_skipped(after: list[Any]) -> None:
    assert find_default_layer(make_classifier(make_conv(), *after)) == "conv"


@pytest.mark.parametrize(
    "last",
    [
        lambda: layers.ReLU(name="last"),
        lambda: layers.PReLU(shared_axes=[1, 2], name="last"),
        lambda: layers.BatchNormalization(name="last"),
        lambda: layers.GroupNormalization(2, name="last"),  # reshapes
        lambda: layers.LayerNormalization(name="last"),
        lambda: layers.Dense(5, activation="relu", name="last"),  # multiplies matrices
        lambda: layers.Dense(5, use_bias=False, name="last"),
        lambda: layers.EinsumDense("nhwc,cd->nhwd", (None, None, 5), name="last"),
        lambda: layers.DepthwiseConv2D(3, dilation_rate=2, name="last"),
        lambda: layers.SeparableConv2D(5, 3, name="last"),
        lambda: layers.Conv2DTranspose(5, 3, strides=2, name="last"),
    ],
)
def test_layers_that_compute_are_used(last: Callable[[], Any]) -> None:
    assert find_default_layer(make_classifier(make_conv(), last())) == "last"


def test_squeeze_and_excitation_uses_the_product() -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    x = make_conv()(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="sigmoid", name="gate")(gate)
    x = layers.Multiply(name="product")([x, gate])
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    assert find_default_layer(model) == "product"


class Shuffle(layers.Layer):  # type: ignore[misc]
    """Layer that shuffles groups of channels through five axes, as in ShuffleNet."""

    def call(self, x: Any) -> Any:
        split = tf.reshape(x, (-1, SIDE, SIDE, 2, 2))
        return tf.reshape(tf.transpose(split, (0, 1, 2, 4, 3)), (-1, SIDE, SIDE, 4))


def test_layer_after_shuffled_channels_is_used() -> None:
    assert find_default_layer(make_classifier(make_conv(), Shuffle(), make_conv("last"))) == "last"


PREPROCESSING_LAYERS = {
    "rescaling": lambda: layers.Rescaling(1 / 255),
    "normalization": lambda: layers.Normalization(mean=[1.0, 2, 3], variance=[1.0, 2, 3]),
    "batch": layers.BatchNormalization,
    "resizing": lambda: layers.Resizing(8, 8),
    "flip": layers.RandomFlip,
    "padding": layers.ZeroPadding2D,
    "pooling": lambda: layers.AveragePooling2D(2),
    "gray": lambda: layers.Lambda(lambda x: tf.image.rgb_to_grayscale(x)),
    "blur": lambda: layers.Lambda(
        lambda x: tf.nn.depthwise_conv2d(x, tf.ones((3, 3, 3, 1)), (1, 1, 1, 1), "SAME")
    ),
}


@pytest.mark.parametrize("preprocessing", PREPROCESSING_LAYERS)
@pytest.mark.parametrize("method", ["gradcam", "cam", "scorecam", "guided_gradcam"])
def test_preprocessing_layers_are_not_used(preprocessing: str, method: str) -> None:
    # The multilayer perceptron that follows has no spatial layer.
    head = [layers.Flatten(), layers.Dense(4, "relu"), layers.Dense(2)]
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), PREPROCESSING_LAYERS[preprocessing](), *head]
    )
    with pytest.raises(LayerError, match=r"no layer with a spatial output.*lime") as caught:
        explain(model, X, method)
    layerless = (
        "saliency, gradient_x_input, integrated_gradients, smoothgrad, guided_backprop, attnlrp, "
        "deeplift, lrp, gradient_shap, expected_gradients, square_grad, vargrad, "
        "smoothgrad_squared, occlusion, rise, lime, kernel_shap, sobol, hsic"
    )
    assert layerless in str(caught.value)


def make_two_branch_model() -> Any:
    keras.utils.set_random_seed(5)
    front, side = keras.Input((8, 8, 3), name="front"), keras.Input((8, 8, 3), name="side")
    pooled = [
        layers.GlobalAveragePooling2D()(make_conv(f"{name}_conv", activation="relu")(image))
        for name, image in (("side", side), ("front", front))
    ]
    head = layers.Dense(3, kernel_initializer="ones")
    return keras.Model([front, side], head(layers.Concatenate()(pooled)))


@pytest.mark.parametrize("name", ["front", "side"])
def test_default_layer_follows_the_chosen_input(name: str) -> None:
    model = make_two_branch_model()
    front, side = RANDOM.normal(size=(2, 2, 8, 8, 3)).astype(np.float32)
    heatmap = explain(model, [front, side], target=1, image_input=name)
    assert heatmap.layer == f"{name}_conv"
    outputs = [model.get_layer(f"{name}_conv").output, model.output]
    with tf.GradientTape() as tape:
        activation, scores = keras.Model(model.inputs, outputs)([front, side])
        score = scores[:, 1]
    weights = tf.reduce_mean(tape.gradient(score, activation), (1, 2), keepdims=True)
    expected = tf.nn.relu(tf.reduce_sum(weights * activation, -1))
    np.testing.assert_allclose(heatmap.values, expected, rtol=1e-4, atol=1e-6)


def test_spatially_joined_branches_share_the_default_layer() -> None:
    inputs = [keras.Input((8, 8, 3), name=name) for name in ("front", "side")]
    x = layers.Concatenate()([make_conv(f"{image.name}_conv")(image) for image in inputs])
    x = make_conv("joint")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    x = list(RANDOM.normal(size=(2, 2, 8, 8, 3)).astype(np.float32))
    for name in ("front", "side"):
        assert find_default_layer(model, x, image_input=name) == "joint"


def test_input_that_does_not_affect_the_score_is_rejected() -> None:
    inputs = [keras.Input((8, 8, 3), name=name) for name in ("front", "side")]
    outputs = [
        layers.GlobalAveragePooling2D()(make_conv(f"{image.name}_conv")(image)) for image in inputs
    ]
    model = keras.Model(inputs, outputs)
    x = list(RANDOM.normal(size=(2, 2, 8, 8, 3)).astype(np.float32))
    with pytest.raises(LayerError, match="no layer with a spatial output"):
        explain(model, x, target=lambda outputs: outputs[0][:, 0], image_input="side")


def make_encoder_decoder(upsampling: Callable[[], Any], skip: bool) -> Any:
    """Return a small U-Net, or an encoder-decoder without skip connections."""
    inputs = keras.Input((SIDE, SIDE, 3))
    first = make_conv("encoder", activation="relu")(layers.Rescaling(0.5)(inputs))
    x = make_conv("bottleneck", activation="relu")(layers.MaxPooling2D()(first))
    x = upsampling()(x)
    x = layers.Concatenate(name="joined")([x, first]) if skip else x
    x = make_conv("decoder", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(2, 1, activation="softmax", name="head")(x))


class PixelShuffle(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return tf.nn.depth_to_space(x, 2)


UPSAMPLING_LAYERS = {
    "nearest": lambda: layers.UpSampling2D(2),
    "bilinear": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
    "transposed": lambda: layers.Conv2DTranspose(4, 2, strides=2),
    "resizing": lambda: layers.Resizing(SIDE, SIDE),
    "shuffle": PixelShuffle,
    "reshape": lambda: layers.Reshape((SIDE, SIDE, 1)),
    "function": lambda: layers.Lambda(lambda x: tf.image.resize(x, (SIDE, SIDE))),
}


def corner(outputs: Any) -> Any:
    return tf.reduce_mean(outputs[:, :4, :4, 1], (1, 2))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("upsampling", UPSAMPLING_LAYERS)
def test_default_layer_of_encoder_decoder_is_its_bottleneck(upsampling: str, skip: bool) -> None:
    model = make_encoder_decoder(UPSAMPLING_LAYERS[upsampling], skip)
    assert find_default_layer(model, target=corner) == "bottleneck"
    assert find_default_layer(model, target=corner, layer="decoder") == "decoder"


def test_flattened_output_of_encoder_decoder_uses_bottleneck() -> None:
    model = make_encoder_decoder(UPSAMPLING_LAYERS["nearest"], True)
    flat = keras.Model(model.inputs, layers.Reshape((-1, 2))(model.output))
    assert find_default_layer(flat, target=lambda outputs: outputs[:, 5, 1]) == "bottleneck"


def test_classifier_with_upsampling_uses_its_last_layer() -> None:
    features = [make_conv("first"), layers.MaxPooling2D(), layers.UpSampling2D(), make_conv("last")]
    assert find_default_layer(make_classifier(*features)) == "last"


def test_dense_prediction_without_upsampling_skips_its_head() -> None:
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), make_conv("first"), make_conv("second")]
    )
    model.add(layers.BatchNormalization(name="normal"))
    model.add(layers.Conv2D(2, 1, name="head"))
    model.add(layers.Softmax())
    assert find_default_layer(model, target=corner) == "normal"


def test_single_convolution_is_the_head_and_is_rejected() -> None:
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.Rescaling(0.5), make_conv("head")]
    )
    with pytest.raises(
        LayerError, match="before its last trained operation and before the first upsampling"
    ):
        explain(model, X, target=corner)


def test_upsampled_pooling_branch_is_not_a_decoder() -> None:
    # DeepLab has such a branch.
    inputs = keras.Input((SIDE, SIDE, 3))
    x = make_conv("backbone", strides=2)(inputs)
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    pooled = layers.UpSampling2D(SIDE // 2)(layers.Conv2D(4, 1)(pooled))
    x = layers.Concatenate()([make_conv("atrous", dilation_rate=2)(x), pooled])
    x = layers.UpSampling2D(2)(layers.Conv2D(4, 1, activation="relu", name="projection")(x))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    assert find_default_layer(model, target=corner) == "projection"


def test_layers_after_dense_bottleneck_are_skipped() -> None:
    def make_decoder() -> list[Any]:
        dense = [layers.Flatten(), layers.Dense(8), layers.Dense(SIDE * SIDE * 3)]
        return [*dense, layers.Reshape((SIDE, SIDE, 3)), make_conv("decoder"), make_conv("head")]

    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), make_conv("encoder"), *make_decoder()])
    assert find_default_layer(model, target=corner) == "encoder"
    generator = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *make_decoder()])
    with pytest.raises(LayerError, match="no layer with a spatial output"):
        explain(generator, X, target=corner)


APPLICATIONS = {
    "VGG19": ("block5_conv4", (14, 14)),
    "ResNet50": ("conv5_block3_out", (7, 7)),
    "EfficientNetB0": ("top_activation", (7, 7)),
    "DenseNet121": ("relu", (7, 7)),
    "MobileNetV3Small": (None, (7, 7)),
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_default_layer_of_keras_applications(name: str) -> None:
    model = getattr(keras.applications, name)(weights=None, classes=5, input_shape=(224, 224, 3))
    layer, sides = APPLICATIONS[name]
    target = np.zeros((1, 224, 224, 3), np.float32)
    target[0, 60:150, 80:100] = 200
    heatmap = explain(model, target, "cam" if name == "ResNet50" else "layercam", 0)
    assert heatmap.values.shape == (1, *sides)
    assert layer in (None, heatmap.layer)


class Attention(layers.Layer):  # type: ignore[misc]
    """Transformer block: attention and a dense layer, with residual connections."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")
        self.mlp = layers.Dense(6, "relu", name="mlp")

    def call(self, x: Any) -> Any:
        x = x + self.attention(x, x)
        return x + self.mlp(x)


class VisionTransformer(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.patches = layers.Conv2D(6, 4, 4, name="patches")
        self.flat = layers.Reshape((16, 6), name="flat")
        self.blocks = [Attention("first"), Attention("second")]
        self.normal = layers.LayerNormalization(name="normal")
        self.head = layers.Dense(2, name="head")

    def embed(self, x: Any) -> Any:
        tokens = self.flat(self.patches(x))
        return tf.concat([tokens[:, :1] * 0 + 1, tokens], 1)

    def finish(self, tokens: Any) -> Any:
        return self.head(self.normal(self.blocks[1](tokens))[:, 0])

    def call(self, x: Any) -> Any:
        return self.finish(self.blocks[0](self.embed(x)))


@pytest.fixture(scope="module")
def transformer() -> Any:
    keras.utils.set_random_seed(2)
    model = VisionTransformer()
    model(X)
    return model


@pytest.mark.parametrize("method", ["gradcam", "layercam", "scorecam"])
def test_class_token_model_uses_layer_before_last_attention(transformer: Any, method: str) -> None:
    heatmap = explain(transformer, X, method, 1, token_grid=(4, 4))
    assert heatmap.layer == "first"
    assert heatmap.values.shape == (2, 4, 4)
    if method == "gradcam":
        tokens = transformer.blocks[0](transformer.embed(X))
        with tf.GradientTape() as tape:
            tape.watch(tokens)
            score = transformer.finish(tokens)[:, 1]
        gradient = tape.gradient(score, tokens)[:, 1:]
        weights = tf.reduce_mean(gradient, 1, keepdims=True)
        expected = tf.nn.relu(tf.reduce_sum(weights * tokens[:, 1:], -1))
        np.testing.assert_allclose(
            heatmap.values, np.reshape(expected, (2, 4, 4)), rtol=1e-3, atol=1e-6
        )


def test_layer_after_last_attention_warns(transformer: Any) -> None:
    with pytest.warns(ZeroAttributionWarning, match=r"gradcam: 2 of 2 maps are zero.*layer normal"):
        heatmap = explain(transformer, X, target=1, layer="normal", token_grid=(4, 4))
    assert not heatmap.values.any()


def test_token_grid_of_a_transformer_is_found(transformer: Any) -> None:
    found = explain(transformer, X, target=1)
    given = explain(transformer, X, target=1, token_grid=(4, 4))
    assert found.layer == given.layer == "first"
    np.testing.assert_array_equal(found.values, given.values)
    np.testing.assert_array_equal(
        explain(transformer, X, target=1, layer="first").values, given.values
    )
    heatmap = explain(transformer, X, layer="patches", target=1)
    assert heatmap.values.shape == (2, 4, 4)


def test_transformer_without_convolution_needs_token_grid() -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Reshape((16, SIDE * 3))(inputs)
    x = layers.Dense(4, "relu", name="mixed")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    with pytest.raises(LayerError, match=r"token_grid=\(h, w\)"):
        explain(model, X)
    assert find_default_layer(model, token_grid=(4, 4)) == "mixed"
    with pytest.raises(
        LayerError,
        match=r"no layer of 25 or more tokens, .*: it has at most 16, which fill "
        r"token_grid=\(4, 4\); leave token_grid out",
    ):
        explain(model, X, token_grid=(5, 5))


def test_error_counts_tokens_with_class_token(transformer: Any) -> None:
    with pytest.raises(LayerError, match=r"at most 17, which fill token_grid=\(4, 4\)"):
        explain(transformer, X, token_grid=(5, 5))


ATTENTION_LAYERS: dict[str, Callable[[Any], Any]] = {
    "both axes": lambda x: layers.MultiHeadAttention(2, 3, attention_axes=(1, 2))(x, x),
    "rows": lambda x: layers.MultiHeadAttention(2, 3, attention_axes=(1,))(x, x),
    "columns": lambda x: layers.MultiHeadAttention(2, 3, attention_axes=(2,))(x, x),
    "Attention": lambda x: layers.Attention()([x, x]),
    "AdditiveAttention": lambda x: layers.AdditiveAttention()([x, x]),
    "reshaped": lambda x: layers.Reshape((8, 8, 4))(
        layers.Attention()([layers.Reshape((64, 4))(x)] * 2)
    ),
    "einsum": lambda x: keras.ops.einsum(
        "nhwij,nijc->nhwc", keras.ops.einsum("nhwc,nijc->nhwij", x, x) / 64, x
    ),
    "grouped": lambda x: layers.Reshape((8, 8, 4))(
        layers.GroupQueryAttention(2, 2, 1)(*[layers.Reshape((64, 4))(x)] * 2)
    ),
}


@pytest.mark.parametrize("attention", ATTENTION_LAYERS)
@pytest.mark.parametrize("after", ["nothing", "residual", "convolution"])
def test_attention_between_pixels_is_skipped(attention: str, after: str) -> None:
    if attention == "Attention" and Version(keras.__version__) < Version("3.12"):
        pytest.skip("Attention of this version of Keras takes no images")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = make_conv("last", activation="relu")(make_conv("first", activation="relu")(inputs))
    y = ATTENTION_LAYERS[attention](x)
    if after == "residual":
        y = layers.Add(name="sum")([x, y])
    elif after == "convolution":
        y = make_conv("attended")(y)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))
    expected = "sum" if after == "residual" else "last"
    assert find_default_layer(model, X[:, :8, :8]) == expected


def test_convolutions_before_a_transformer_are_used() -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    x = make_conv("last", strides=4, activation="relu")(
        make_conv("first", activation="relu")(inputs)
    )
    x = layers.Reshape((16, 4))(x)
    x = layers.GlobalAveragePooling1D()(Attention("block")(layers.Dense(6)(x)))
    assert find_default_layer(keras.Model(inputs, layers.Dense(2)(x))) == "last"


QUICK: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 3},
    "smoothgrad": {"samples": 2},
    "vargrad": {"samples": 2},
    "smoothgrad_squared": {"samples": 2},
    "gradient_shap": {"samples": 2},
    "expected_gradients": {"samples": 2},
    "smooth_gradcam++": {"samples": 2},
    "sscam": {"samples": 2},
    "iscam": {"steps": 2},
    "occlusion": {"patch": 4},
    "rise": {"samples": 6, "grid_size": 3},
    "lime": {"samples": 10, "segments": 4},
    "kernel_shap": {"samples": 10, "segments": 4},
    "sobol": {"samples": 4, "grid_size": 2},
    "hsic": {"samples": 6, "grid_size": 2},
}


@pytest.mark.parametrize("method", [name for name in GENERAL_METHODS if name != "cam"])
def test_zero_map_warns(method: str) -> None:
    skip_without_packages(method)
    model = make_classifier(make_conv(activation="relu"), layers.ReLU(name="last"))
    weights = [np.zeros_like(weight) for weight in model.get_weights()]
    model.set_weights(weights)
    with pytest.warns(ZeroAttributionWarning, match=rf"{method.replace('+', '.')}: 2 of 2 maps"):
        heatmap = explain(model, X, method, 0, **QUICK.get(method, {}))
    assert not heatmap.values.any()


def test_warning_gives_the_reason_for_a_zero_map() -> None:
    model = make_classifier(make_conv(activation="relu"))
    model.layers[0].set_weights([np.ones((3, 3, 3, 4)), np.ones(4)])
    x = np.abs(X)
    model.layers[-1].set_weights([-np.ones((4, 3)), np.zeros(3)])
    with pytest.warns(ZeroAttributionWarning, match="no channel of the layer conv contributes pos"):
        explain(model, x, "gradcam", 0)
    model.layers[0].set_weights([-np.ones((3, 3, 3, 4)), np.zeros(4)])
    with pytest.warns(ZeroAttributionWarning, match="gradient of the score with respect to the in"):
        explain(model, x, "saliency", 0)
    with pytest.warns(ZeroAttributionWarning, match="score does not change where the input is hid"):
        explain(model, x, "occlusion", 0, patch=4)
    model.layers[-1].set_weights([np.zeros((4, 3)), np.zeros(3)])
    with pytest.warns(ZeroAttributionWarning, match="score is zero in the layer conv"):
        explain(model, x, "gradcam", 0)


@pytest.mark.parametrize("attention", ["output", "layer"])
def test_warning_of_saturated_output_does_not_advise_earlier_layer(attention: str) -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.GlobalAveragePooling2D()(make_conv(activation="relu")(inputs))
    if attention == "layer":
        x = layers.Dense(4, "sigmoid")(100 + x)
    x = layers.Dense(1)(x)
    model = keras.Model(inputs, x if attention == "layer" else keras.ops.clip(100 + x, 0, 1))
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    with pytest.warns(ZeroAttributionWarning, match="layer conv and in the input.*occl") as caught:
        explain(model, np.abs(X), "gradcam")
    assert "earlier layer" not in str(caught[0].message)


def test_warning_for_model_that_rounds_its_input() -> None:
    model = make_classifier(layers.Lambda(tf.round), make_conv(activation="relu"))
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    with pytest.warns(ZeroAttributionWarning, match="gradient of the score is zero in the layer"):
        explain(model, X, "gradcam")
