"""Class activation maps of a nonlinear network, against a gradient tape and NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

from actgrid import explain

Array = npt.NDArray[Any]


class TapeCase:
    """Activations, gradients and scores of a layer of a small network, by a tape."""

    def __init__(self, model: Any, x: Array, layer: str, target: int) -> None:
        self.target = target
        index = [each.name for each in model.layers].index(layer)
        self.head = model.layers[index + 1 :]
        features = keras.Model(model.inputs[0], model.get_layer(layer).output)
        activation = tf.constant(features(x))
        with tf.GradientTape() as tape:
            tape.watch(activation)
            scores = self.run_head(activation)
        self.activation, self.scores = activation.numpy(), scores.numpy()
        self.gradient = tape.gradient(scores, activation).numpy()

    def run_head(self, activation: Any) -> Any:
        """Return the logits of the target for activations of the layer."""
        for layer in self.head[:-1]:
            activation = layer(activation)
        last = self.head[-1]
        return (activation @ last.kernel + last.bias)[:, self.target]


@pytest.fixture(scope="module")
def tape_case(cnn: tuple[Any, Any]) -> TapeCase:
    return TapeCase(*cnn, "conv1", 1)


def assert_maps_close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5)


def test_hirescam_is_the_sum_of_gradient_times_activation(
    cnn: tuple[Any, Any], tape_case: TapeCase
) -> None:
    expected = (tape_case.activation * tape_case.gradient).sum(-1)
    assert (expected < 0).any()
    heatmap = explain(*cnn, "hirescam", 1, layer="conv1")
    assert_maps_close(heatmap.values, np.maximum(expected, 0))


def test_xgradcam_weights_channels_by_normalized_activation(
    cnn: tuple[Any, Any], tape_case: TapeCase
) -> None:
    activation, gradient = tape_case.activation, tape_case.gradient
    weights = (gradient * activation).sum((1, 2)) / activation.sum((1, 2))
    expected = np.einsum("nhwc,nc->nhw", activation, weights)
    heatmap = explain(*cnn, "xgradcam", 1, layer="conv1")
    assert_maps_close(heatmap.values, np.maximum(expected, 0))


@pytest.mark.parametrize("method", ["eigencam", "eigengradcam"])
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_eigencam_projects_on_the_first_principal_component(
    cnn: tuple[Any, Any], method: str, layer: str
) -> None:
    model, x = cnn
    case = TapeCase(model, x, layer, 1)
    values = case.activation * (case.gradient if method == "eigengradcam" else 1)
    expected = []
    for image in values:
        matrix = image.reshape(-1, image.shape[-1])
        left, singular_values, _ = np.linalg.svd(matrix)
        projection = left[:, 0] * singular_values[0]
        sign = np.sign(projection @ matrix.sum(1))
        expected.append((sign * projection).reshape(image.shape[:2]))
    heatmap = explain(model, x, method, 1, layer=layer)
    assert heatmap.signed == (method == "eigengradcam")
    if method == "eigencam":
        expected = list(np.maximum(expected, 0))
        other = explain(model, x, method, 2, layer=layer)
        np.testing.assert_array_equal(other.values, heatmap.values)  # of no class
    assert_maps_close(heatmap.values, expected)


def test_eigencam_of_more_channels_than_positions() -> None:
    conv = layers.Conv2D(30, 3, activation="relu")
    model = keras.Sequential(
        [keras.Input((5, 5, 1)), conv, layers.GlobalAveragePooling2D(), layers.Dense(2)]
    )
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 1)).astype(np.float32)
    for activation, value in zip(
        conv(x).numpy(), explain(model, x, "eigencam").values, strict=True
    ):
        left, singular_values, _ = np.linalg.svd(activation.reshape(-1, 30))
        assert_maps_close(value.ravel(), np.abs(left[:, 0]) * singular_values[0])


def test_smooth_gradcam_plus_plus_averages_powers_of_gradients(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    samples, seed, noise = 4, 7, 0.2
    activation = TapeCase(model, x, "conv1", 1).activation
    powers: list[Any] = [[], [], []]
    for sample in range(samples):
        spans = np.ptp(x, axis=(1, 2, 3))[:, None, None, None]
        noisy = x + noise * spans * tf.random.stateless_normal(x.shape[1:], (seed, sample))
        gradient = TapeCase(model, noisy.numpy(), "conv1", 1).gradient
        for power, gradients in enumerate(powers, 1):
            gradients.append(gradient.astype(np.float64) ** power)
    first, second, third = (np.mean(gradients, 0) for gradients in powers)
    total = activation.sum((1, 2), keepdims=True)
    divisor = 2 * second + total * third
    alpha = np.divide(second, divisor, np.zeros_like(second), where=divisor != 0)
    weights = (alpha * np.maximum(first, 0)).sum((1, 2), keepdims=True)
    expected = np.maximum((activation * weights).sum(-1), 0)
    options: dict[str, Any] = {"samples": samples, "seed": seed, "noise": noise}
    heatmap = explain(model, x, "smooth_gradcam++", 1, layer="conv1", batch_size=3, **options)
    assert_maps_close(heatmap.values, expected)
    # Without noise, it is gradcam++.
    silent = explain(model, x, "smooth_gradcam++", 1, layer="conv1", noise=0, samples=2)
    assert_maps_close(silent.values, explain(model, x, "gradcam++", 1, layer="conv1").values)


def test_ablationcam_sets_channels_to_zero(cnn: tuple[Any, Any], tape_case: TapeCase) -> None:
    weights = []
    for channel in range(tape_case.activation.shape[-1]):
        ablated = tape_case.activation.copy()
        ablated[..., channel] = 0
        decrease = tape_case.scores - tape_case.run_head(ablated).numpy()
        weights.append(decrease / np.abs(tape_case.scores))
    expected = np.einsum("nhwc,cn->nhw", tape_case.activation, np.array(weights))
    model, x = cnn
    heatmap = explain(model, x, "ablationcam", 1, layer="conv1", batch_size=3)
    assert_maps_close(heatmap.values, np.maximum(expected, 0))
    two = explain(model, x, "ablationcam", 1, layer="conv1", max_channels=2)
    order = np.argsort(-tape_case.activation.std((1, 2)), 1, kind="stable")[:, :2]
    chosen = np.take_along_axis(tape_case.activation, order[:, None, None], 3)
    chosen_weights = np.take_along_axis(np.array(weights).T, order, 1)
    expected = np.einsum("nhwc,nc->nhw", chosen, chosen_weights)
    assert_maps_close(two.values, np.maximum(expected, 0))


def test_ablationcam_of_channels_first_layer() -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    first = layers.Permute((3, 1, 2), name="first")(x)
    up = layers.UpSampling2D(2, data_format="channels_first", name="up")(first)
    pooled = layers.GlobalAveragePooling2D(data_format="channels_first")(up)
    model = keras.Model(inputs, layers.Dense(2, bias_initializer="ones")(pooled))
    image = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    for method in ("ablationcam", "hirescam", "eigencam"):
        heatmap = explain(model, image, method, 0, layer="up")
        expected = explain(model, image, method, 0, layer="conv").values
        scale = {"ablationcam": 1, "hirescam": 0.25, "eigencam": 1}[method]
        assert_maps_close(heatmap.values[:, ::2, ::2], expected * scale)


class TwoOutputs(layers.Layer):  # type: ignore[misc]
    """Layer that returns two sequences."""

    def call(self, x: Any) -> Any:
        return tf.nn.relu(x), x * 2


def test_ablationcam_of_one_of_several_outputs() -> None:
    inputs = keras.Input((5, 3))
    positive, double = TwoOutputs(name="two")(layers.Conv1D(4, 2, name="conv")(inputs))
    model = keras.Model(
        inputs, layers.Dense(2, name="out")(layers.GlobalAveragePooling1D()(positive + double))
    )
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    assert explain(model, x, "hirescam", 0, layer="two").layer == "two[1]"
    heatmap = explain(model, x, "ablationcam", 0, layer="two")
    assert heatmap.layer == "two[1]"
    values = 2 * np.asarray(model.get_layer("conv")(x), np.float64)
    decreases = values.mean(1) * model.get_layer("out").get_weights()[0][:, 0]
    weights = decreases / np.abs(np.asarray(model(x))[:, :1])
    expected = np.maximum((values * weights[:, None]).sum(-1), 0)
    assert_maps_close(heatmap.values, expected)
    assert explain(model, x, "ablationcam", 0, layer="conv").layer == "conv"


def compute_masks(channel: Array) -> Array:
    """Return a channel resized to 12 x 12 and scaled to 0 to 1."""
    resized = tf.image.resize(channel[..., None], (12, 12)).numpy()
    mask: Array = (resized - resized.min()) / (resized.max() - resized.min())
    return mask


def weigh_by_softmax(activation: Array, scores: Any) -> Array:
    weights = np.exp(scores) / np.exp(scores).sum()
    maps: Array = np.maximum((activation * weights).sum(-1), 0)
    return maps


def test_iscam_averages_scores_over_growing_masks(
    cnn: tuple[Any, Any], cnn_logits: Any, tape_case: TapeCase
) -> None:
    model, x = cnn
    expected = []
    for image, activation in zip(x, tape_case.activation, strict=True):
        scores = []
        for channel in np.moveaxis(activation, -1, 0):
            masked = [image * compute_masks(channel) * step / 3 for step in (1, 2, 3)]
            scores.append(float(cnn_logits(np.stack(masked)).numpy()[:, 1].mean()))
        expected.append(weigh_by_softmax(activation, scores))
    heatmap = explain(model, x, "iscam", 1, layer="conv1", steps=3, batch_size=7)
    assert_maps_close(heatmap.values, expected)


def test_sscam_averages_scores_over_noisy_channels(
    cnn: tuple[Any, Any], cnn_logits: Any, tape_case: TapeCase
) -> None:
    model, x = cnn
    expected = []
    for image, activation in zip(x, tape_case.activation, strict=True):
        scores = []
        for index, channel in enumerate(np.moveaxis(activation, -1, 0)):
            noisy = [
                channel
                + 0.3 * np.ptp(channel) * tf.random.stateless_normal(channel.shape, (5, sample))
                for sample in (2 * index, 2 * index + 1)
            ]
            masked = [image * compute_masks(np.asarray(each)) for each in noisy]
            scores.append(float(cnn_logits(np.stack(masked)).numpy()[:, 1].mean()))
        expected.append(weigh_by_softmax(activation, scores))
    options: dict[str, Any] = {"samples": 2, "noise": 0.3, "seed": 5, "batch_size": 7}
    heatmap = explain(model, x, "sscam", 1, layer="conv1", **options)
    assert_maps_close(heatmap.values, expected)
    silent = explain(model, x, "sscam", 1, layer="conv1", samples=2, noise=0)
    assert_maps_close(silent.values, explain(model, x, "scorecam", 1, layer="conv1").values)
