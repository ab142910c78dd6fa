"""DeepLIFT and LRP, against rules that are computed with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

from actgrid import explain
from actgrid.errors import ModelError, OptionError

Array = npt.NDArray[Any]


def make_normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def sum_maps(attribution: Any) -> Array:
    sums: Array = attribution.values.reshape(len(attribution.values), -1).sum(1)
    return sums


def make_dense_model() -> tuple[Any, list[Array], list[Array]]:
    """Return a multilayer perceptron with random weights, its kernels and its biases."""
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, "relu"),
            layers.Dense(4, "relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    kernels = [make_normal(5, 6), make_normal(6, 4, seed=1), make_normal(4, 3, seed=2)]
    biases = [abs(make_normal(kernel.shape[1], seed=9)) for kernel in kernels]
    for layer, kernel, bias in zip(model.layers, kernels, biases, strict=True):
        layer.set_weights([kernel, bias])
    return model, kernels, biases


def make_convolution_matrix(conv: Any, shape: tuple[int, ...]) -> Array:
    """Return the matrix (inputs, outputs) of a convolution without its bias."""
    size = int(np.prod(shape))
    unit = np.eye(size, dtype=np.float32).reshape(size, *shape)
    offset = conv(np.zeros((1, *shape), np.float32)).numpy()
    matrix: Array = (conv(unit).numpy() - offset).reshape(size, -1)
    return matrix


def make_conv_model() -> tuple[Any, list[Array], list[Array]]:
    """Return a model of two convolutions and a dense layer, as matrices and biases."""
    keras.utils.set_random_seed(3)
    first = layers.Conv2D(3, 3, activation="relu", bias_initializer="random_normal")
    second = layers.Conv2D(2, 2, 2, activation="relu", bias_initializer="random_normal")
    head = layers.Dense(2, bias_initializer="random_normal")
    model = keras.Sequential([keras.Input((6, 6, 2)), first, second, layers.Flatten(), head])
    linear = [
        keras.Sequential([keras.Input(shape), layers.Conv2D(**config)])
        for shape, config in (
            ((6, 6, 2), {"filters": 3, "kernel_size": 3}),
            ((4, 4, 3), {"filters": 2, "kernel_size": 2, "strides": 2}),
        )
    ]
    for copy, layer in zip(linear, (first, second), strict=True):
        copy.set_weights(layer.get_weights())
    matrices = [
        make_convolution_matrix(linear[0], (6, 6, 2)),
        make_convolution_matrix(linear[1], (4, 4, 3)),
        head.get_weights()[0],
    ]
    biases = [
        np.tile(first.get_weights()[1], 16),
        np.tile(second.get_weights()[1], 4),
        head.get_weights()[1],
    ]
    return model, matrices, biases


def run_layers(x: Array, kernels: list[Array], biases: list[Array]) -> tuple[Any, Any]:
    """Return the inputs and the outputs before ReLU of each layer of a perceptron."""
    inputs, outputs = [x], []
    for kernel, bias in zip(kernels, biases, strict=True):
        outputs.append(inputs[-1] @ kernel + bias)
        inputs.append(np.maximum(outputs[-1], 0))
    return inputs, outputs


def compute_deeplift(
    x: Array, baseline: Array, kernels: list[Array], biases: list[Array], target: int
) -> Array:
    """Compute DeepLIFT of a perceptron by the rescale rule."""
    _, outputs = run_layers(x, kernels, biases)
    _, references = run_layers(baseline, kernels, biases)
    multiplier = np.tile(kernels[-1][:, target], (len(x), 1))
    for kernel, output, reference in zip(
        kernels[-2::-1], outputs[-2::-1], references[-2::-1], strict=True
    ):
        change = np.maximum(output, 0) - np.maximum(reference, 0)
        multiplier = (multiplier * change / (output - reference)) @ kernel.T
    contributions: Array = multiplier * (x - baseline)
    return contributions


@pytest.mark.parametrize("target", [0, 1])
def test_deeplift_of_dense_and_convolutional_layers(target: int) -> None:
    x, baseline = make_normal(4, 5, seed=5), make_normal(4, 5, seed=6)
    model, kernels, biases = make_dense_model()
    result = explain(model, x, "deeplift", target, baseline=baseline)
    assert_close(result.values, compute_deeplift(x, baseline, kernels, biases, target))
    assert result.signed
    model, kernels, biases = make_conv_model()
    x = make_normal(3, 6, 6, 2, seed=5)
    result = explain(model, x, "deeplift", target, baseline=[0.5, -0.5], reduce="none")
    start = np.broadcast_to(np.array([0.5, -0.5], np.float32), x.shape)
    expected = compute_deeplift(x.reshape(3, -1), start.reshape(3, -1), kernels, biases, target)
    assert_close(result.values, expected.reshape(x.shape))


def make_skip_model(activation: str) -> Any:
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, activation=activation)(inputs)
    x = layers.BatchNormalization(
        beta_initializer="random_normal", moving_mean_initializer="random_normal"
    )(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation=activation)(x)
    x = layers.MaxPooling2D()(layers.Add()([x, layers.Multiply()([x, y])]))
    x = layers.AveragePooling2D(2)(layers.Maximum()([x, layers.Conv2D(4, 1)(x)]))
    x = layers.Conv2DTranspose(3, 2, 2)(x)
    x = layers.Concatenate()([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x)])
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


def make_attention_model(normalization: str) -> Any:
    inputs = keras.Input((7, 4))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = getattr(layers, normalization)()(x + inputs)
    x = layers.Dense(5, "gelu")(x) + layers.Dense(5, "silu")(x)
    x = x / (1 + keras.ops.abs(layers.Dense(5)(x))) + keras.ops.log_softmax(x)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


ACTIVATIONS = ["relu", "sigmoid", "tanh", "elu", "relu6", "hard_silu", "mish", "leaky_relu"]
MODELS: dict[str, Callable[[], Any]] = {
    **{name: partial(make_skip_model, name) for name in ACTIVATIONS},
    **{
        name: partial(make_attention_model, name)
        for name in ("LayerNormalization", "UnitNormalization")
    },
    "lstm": lambda: keras.Sequential(
        [keras.Input((5, 4)), layers.LSTM(3, unroll=True), layers.Dense(1, "sigmoid")]
    ),
    "grouped": lambda: keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(6, 3, groups=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    ),
    "conv1d": lambda: keras.Sequential(
        [
            keras.Input((9, 2)),
            layers.Conv1D(3, 3, dilation_rate=2, activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(2),
        ]
    ),
    "volume": lambda: keras.Sequential(
        [
            keras.Input((6, 6, 6, 2)),
            layers.Conv3D(3, 3, activation="relu"),
            layers.MaxPooling3D(2),
            layers.Flatten(),
            layers.Dense(2),
        ]
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_deeplift_sums_to_the_change_of_the_score(name: str) -> None:
    keras.utils.set_random_seed(1)
    model = MODELS[name]()
    x = make_normal(3, *model.input_shape[1:])
    result = explain(model, x, "deeplift", baseline=0.1, batch_size=2)
    change = result.score - np.array(result.details["baseline_score"])
    assert np.abs(change).max() > 1e-4
    assert_close(sum_maps(result), change)
    assert_close(np.array(result.details["convergence_delta"]), 0)


def test_deeplift_on_every_model_type(any_model: tuple[Any, Any]) -> None:
    result = explain(*any_model, "deeplift", baseline="mean")
    change = result.score - np.array(result.details["baseline_score"])
    assert_close(sum_maps(result), change)


def test_deeplift_of_equal_input_and_baseline_is_finite(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    baseline = x.copy()
    baseline[:, 3, 3] += 1
    result = explain(model, x, "deeplift", baseline=baseline)
    assert np.isfinite(result.values).all()
    rest = np.delete(result.values.reshape(len(x), -1), 3 * 12 + 3, 1)
    assert not rest.any()


def test_deeplift_of_a_target_function() -> None:
    model, _, _ = make_dense_model()
    x = make_normal(4, 5)
    result = explain(model, x, "deeplift", lambda y: tf.reduce_mean((y - 1) ** 2, 1))
    assert_close(np.array(result.details["convergence_delta"]), 0)


@pytest.mark.parametrize("method", ["deeplift", "lrp"])
def test_operation_without_a_rule_is_named(method: str) -> None:
    product = layers.Lambda(lambda x: tf.math.cumprod(x, 1), name="product")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), product, layers.Dense(2)])
    with pytest.raises(
        ModelError, match=f"{method} has no rule for the operation Cumprod of the layer product"
    ):
        explain(model, make_normal(2, 4), method)
    model = keras.Sequential([keras.Input((4, 2)), layers.LSTM(3, name="memory"), layers.Dense(2)])
    with pytest.raises(ModelError, match=r"of the layer memory: use a recurrent .*unroll=True"):
        explain(model, make_normal(2, 4, 2), method)


def compute_lrp(
    x: Array,
    kernels: list[Array],
    biases: list[Array],
    target: int,
    *,
    epsilon: float = 0,
    gamma: float = 0,
) -> Array:
    """Compute relevance by the epsilon rule or the generalized gamma rule."""
    inputs, outputs = run_layers(x, kernels, biases)
    relevance: Array = np.zeros_like(outputs[-1])
    relevance[:, target] = outputs[-1][:, target]
    for index in reversed(range(len(kernels))):
        shares = inputs[index][:, :, None] * kernels[index]
        output, bias = outputs[index], biases[index]
        if gamma:
            is_positive = output[:, None] > 0
            shares = shares + gamma * np.where(
                is_positive, np.maximum(shares, 0), np.minimum(shares, 0)
            )
            offset = bias + gamma * np.where(output > 0, np.maximum(bias, 0), np.minimum(bias, 0))
            total = shares.sum(1) + offset
        else:
            size = np.sqrt((output**2).mean(1, keepdims=True))
            total = output + epsilon * size * np.where(output < 0, -1, 1)
        relevance = (shares * (relevance / total)[:, None]).sum(2)
    return relevance


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("options", [{"epsilon": 0.2}, {"epsilon": 0.0}, {"gamma": 0.3}])
def test_lrp_of_dense_and_convolutional_layers(target: int, options: Any) -> None:
    rule = next(iter(options))
    x = make_normal(4, 5, seed=5)
    model, kernels, biases = make_dense_model()
    result = explain(model, x, "lrp", target, rule=rule, **options)
    assert_close(result.values, compute_lrp(x, kernels, biases, target, **options))
    assert result.signed
    model, kernels, biases = make_conv_model()
    x = make_normal(3, 6, 6, 2, seed=5)
    result = explain(model, x, "lrp", target, rule=rule, reduce="none", **options)
    expected = compute_lrp(x.reshape(3, -1), kernels, biases, target, **options)
    assert_close(result.values, expected.reshape(x.shape))


def test_composite_of_one_convolution_is_gamma_then_lrp_0() -> None:
    model, kernels, biases = make_conv_model()
    x = make_normal(3, 6, 6, 2, seed=5)
    inputs, outputs = run_layers(x.reshape(3, -1), kernels, biases)
    # LRP-0 of the dense layer, epsilon of the second convolution, gamma of the first.
    relevance = inputs[2] * kernels[2][:, 1]
    size = np.sqrt((outputs[1] ** 2).mean(1, keepdims=True))
    total = outputs[1] + 0.1 * size * np.where(outputs[1] < 0, -1, 1)
    relevance = (inputs[1][:, :, None] * kernels[1] * (relevance / total)[:, None]).sum(2)
    shares = inputs[0][:, :, None] * kernels[0]
    is_positive = outputs[0] > 0
    chosen = np.where(is_positive[:, None], np.maximum(shares, 0), np.minimum(shares, 0))
    bias = np.where(is_positive, np.maximum(biases[0], 0), np.minimum(biases[0], 0))
    shares = shares + 0.4 * chosen
    total = shares.sum(1) + biases[0] + 0.4 * bias
    expected = (shares * (relevance / total)[:, None]).sum(2)
    result = explain(model, x, "lrp", 1, epsilon=0.1, gamma=0.4, reduce="none")
    assert_close(result.values, expected.reshape(x.shape))


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "composite"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "elu", "leaky_relu", "softsign"])
def test_lrp_conserves_the_score_without_biases(rule: str, activation: str) -> None:
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(4, 3, activation=activation, use_bias=False),
            layers.MaxPooling2D(),
            layers.Conv2D(5, 2, activation=activation, use_bias=False),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(6, activation=activation, use_bias=False),
            layers.Dense(3, activation="softmax", use_bias=False),
        ]
    )
    x = make_normal(3, 12, 12, 3)
    result = explain(model, x, "lrp", rule=rule, epsilon=0)
    assert_close(sum_maps(result), result.score, 1e-3)


@pytest.mark.parametrize("rule", ["epsilon", "gamma"])
def test_lrp_of_batch_normalization_is_that_of_the_merged_layer(rule: str) -> None:
    random = np.random.default_rng(4)
    conv = layers.Conv2D(3, 3)
    norm = layers.BatchNormalization()
    head = [layers.ReLU(), layers.Flatten(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((6, 6, 2)), conv, norm, *head])
    conv.set_weights([random.normal(size=(3, 3, 2, 3)), random.normal(size=3)])
    gamma, beta, mean = random.normal(size=(3, 3))
    variance = random.random(3) + 0.5
    norm.set_weights([gamma, beta, mean, variance])
    scale = gamma / np.sqrt(variance + norm.epsilon)
    kernel, bias = conv.get_weights()
    merged = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    merged.layers[0].set_weights([kernel * scale, (bias - mean) * scale + beta])
    merged.layers[-1].set_weights(model.layers[-1].get_weights())
    x = make_normal(3, 6, 6, 2)
    actual = explain(model, x, "lrp", 0, rule=rule, epsilon=0.2)
    assert_close(actual.values, explain(merged, x, "lrp", 0, rule=rule, epsilon=0.2).values, 1e-3)


def test_lrp_of_gates_and_normalization_conserves_the_score() -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((7, 4))
    x = layers.Dense(5, "silu", use_bias=False)(layers.LayerNormalization()(inputs))
    x = layers.UnitNormalization()(x)
    x = layers.GlobalAveragePooling1D()(x) * layers.GlobalMaxPooling1D()(x)
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(x))
    result = explain(model, make_normal(3, 7, 4), "lrp", rule="epsilon", epsilon=0)
    assert_close(sum_maps(result), result.score)


def test_sigmoid_before_a_normalization_is_no_gate() -> None:
    keras.utils.set_random_seed(1)
    dense = layers.Dense(5, "sigmoid", use_bias=False)
    scaling = layers.Rescaling(2.0)
    model = keras.Sequential([keras.Input((4,)), dense, scaling, layers.Dense(2, use_bias=False)])
    x = make_normal(3, 4)
    result = explain(model, x, "lrp", 0, epsilon=0)
    assert_close(sum_maps(result), result.score)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "alpha"}, "rule must be one of epsilon, gamma, composite, not 'alpha'"),
        ({"epsilon": -1}, "epsilon must be a number of at least 0"),
        ({"gamma": "x"}, "gamma must be a number"),
    ],
)
def test_invalid_options_are_rejected(
    cnn: tuple[Any, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        explain(*cnn, "lrp", **options)
