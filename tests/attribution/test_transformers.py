"""Attributions of transformers, compared with computations by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers, ops

import actgrid
from actgrid import explain
from actgrid.errors import CapabilityError, LayerError, OptionError, ShapeError, TargetError

Array = npt.NDArray[Any]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
VOCABULARY = ["", "the", "cat", "sat", "down", "dog"]
TOKENS = np.array([[1, 2, 3, 4], [1, 5, 3, 4]])
DEPTH, HEADS, WIDTH = 2, 2, 8


class Transformer(keras.Model):  # type: ignore[misc]
    """Pre-norm transformer of which each step can be run and differentiated by hand."""

    def __init__(self, classes: int, read: str, causal: bool = False) -> None:
        super().__init__()
        self.read, self.causal = read, causal
        self.norms = [layers.LayerNormalization() for _ in range(2 * DEPTH + 1)]
        self.attend = [
            layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"attend{i}")
            for i in range(DEPTH)
        ]
        self.up = [layers.Dense(12, "gelu") for _ in range(DEPTH)]
        self.down = [layers.Dense(WIDTH) for _ in range(DEPTH)]
        self.head = layers.Dense(classes, name="head")

    def embed(self, x: Any) -> Any:
        raise NotImplementedError

    def run(self, tokens: Any) -> tuple[Any, list[Any]]:
        """Return the logits, and the attention scores of each layer."""
        scores = []
        for index in range(DEPTH):
            y = self.norms[2 * index](tokens)
            y, attention = self.attend[index](
                y, y, return_attention_scores=True, use_causal_mask=self.causal
            )
            scores.append(attention)
            tokens = tokens + y
            y = self.norms[2 * index + 1](tokens)
            tokens = tokens + self.down[index](self.up[index](y))
        tokens = self.norms[-1](tokens)
        if self.read == "class":
            tokens = tokens[:, 0]
        elif self.read == "mean":
            tokens = ops.mean(tokens, 1)
        return self.head(tokens), scores

    def call(self, x: Any) -> Any:
        return self.run(self.embed(x))[0]


class VisionTransformer(Transformer):
    """Vision transformer of images (8, 12, 3) with 2 x 3 patches."""

    def __init__(self, read: str) -> None:
        super().__init__(3, read)
        self.patches = layers.Conv2D(WIDTH, 4, 4, name="patches")
        self.token = self.add_weight(shape=(1, 1, WIDTH), name="token")

    def embed(self, x: Any) -> Any:
        tokens = ops.reshape(self.patches(x), (-1, 6, WIDTH))
        if self.read == "class":
            token = ops.tile(self.token, (ops.shape(x)[0], 1, 1))
            tokens = ops.concatenate([token, tokens], 1)
        return tokens


class LanguageModel(Transformer):
    """Causal language model with the vocabulary of this module."""

    def __init__(self) -> None:
        super().__init__(len(VOCABULARY), "all", causal=True)
        self.table = layers.Embedding(len(VOCABULARY), WIDTH, name="embedding")

    def embed(self, x: Any) -> Any:
        return self.table(x)


IMAGES = np.random.default_rng(0).normal(size=(3, 8, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=["class", "mean"])
def vision(request: pytest.FixtureRequest) -> Any:
    keras.utils.set_random_seed(3)
    model = VisionTransformer(request.param)
    model(IMAGES)
    return model


@pytest.fixture(scope="module")
def language() -> Any:
    keras.utils.set_random_seed(4)
    model = LanguageModel()
    model(TOKENS)
    return model


def roll_out(scores: list[Array], fuse: Any = np.mean) -> Array:
    """Return the attention rollout of Abnar and Zuidema, with loops."""
    samples, _, tokens, _ = scores[0].shape
    rollouts = np.zeros((samples, tokens, tokens))
    for sample in range(samples):
        result = np.eye(tokens)
        for layer in scores:
            matrix = fuse(layer[sample], axis=0) + np.eye(tokens)
            matrix /= matrix.sum(1, keepdims=True)
            result = matrix @ result
        rollouts[sample] = result
    return rollouts


def run_with_gradients(model: Any, tokens: Any, score: Any) -> tuple[list[Array], list[Array]]:
    """Return the attention scores of each layer, and the gradient of the score there."""
    with tf.GradientTape() as tape:
        outputs, scores = model.run(tf.convert_to_tensor(tokens))
        total = tf.reduce_sum(score(outputs))
    gradients = tape.gradient(total, scores, unconnected_gradients="zero")
    return [np.asarray(entry) for entry in scores], [np.asarray(entry) for entry in gradients]


# --- rollout and relevance


@pytest.mark.parametrize("head_fusion", ["mean", "max", "min"])
def test_rollout_of_images(vision: Any, head_fusion: str) -> None:
    heatmap = explain(vision, IMAGES, "attention_rollout", 1, head_fusion=head_fusion)
    scores = [np.asarray(entry) for entry in vision.run(vision.embed(IMAGES))[1]]
    rollout = roll_out(scores, getattr(np, head_fusion))
    row = rollout[:, 0, 1:] if vision.read == "class" else rollout.mean(1)
    assert isinstance(heatmap, actgrid.Heatmap)
    np.testing.assert_allclose(heatmap.values, row.reshape(3, 2, 3), rtol=1e-4, atol=1e-6)
    assert heatmap.images is not None


def test_rollout_of_a_next_token(language: Any) -> None:
    target: Any = {"token": "down", "position": 2}
    text = explain(language, TOKENS, "attention_rollout", target, tokens=VOCABULARY)
    scores = [np.asarray(entry) for entry in language.run(language.embed(TOKENS))[1]]
    np.testing.assert_allclose(text.values, roll_out(scores)[:, 2], rtol=1e-4, atol=1e-6)
    assert text.names == (("the", "cat", "sat", "down"), ("the", "dog", "sat", "down"))
    assert not text.values[:, 3].any()


def test_relevance_of_images(vision: Any) -> None:
    heatmap = explain(vision, IMAGES, "attention_relevance", 2)
    scores, gradients = run_with_gradients(vision, vision.embed(IMAGES), lambda y: y[:, 2])
    tokens = scores[0].shape[-1]
    expected = np.zeros((3, tokens, tokens))
    for sample in range(3):
        relevance = np.eye(tokens)
        for attention, gradient in zip(scores, gradients, strict=True):
            weighted = np.maximum(attention[sample] * gradient[sample], 0).mean(0)
            relevance = relevance + weighted @ relevance
        expected[sample] = relevance - np.eye(tokens)
    row = expected[:, 0, 1:] if vision.read == "class" else expected.mean(1)
    np.testing.assert_allclose(heatmap.values, row.reshape(3, 2, 3), rtol=1e-3, atol=1e-6)


def test_models_without_attention_are_refused() -> None:
    model = keras.Sequential([keras.Input((8, 12, 3)), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(CapabilityError, match="attention_rollout needs attention layers"):
        explain(model, IMAGES, "attention_rollout")


def test_attention_within_windows_is_refused() -> None:
    image = keras.Input((8, 12, 3))
    x = ops.transpose(ops.reshape(image, (-1, 2, 4, 3, 4, 3)), (0, 1, 3, 2, 4, 5))
    x = layers.MultiHeadAttention(1, 3)(*[ops.reshape(x, (-1, 16, 3))] * 2)
    x = layers.Flatten()(ops.reshape(x, (-1, 6, 48)))
    model = keras.Model(image, layers.Dense(2)(x))
    with pytest.raises(ShapeError, match="attention within windows"):
        explain(model, IMAGES, "attention_rollout")


def test_only_attention_to_the_explained_tokens_counts() -> None:
    query, image = keras.Input((4, 6), name="query"), keras.Input((4, 6), name="image")
    attended = layers.MultiHeadAttention(1, 6, name="self")(image, image)
    crossed = layers.MultiHeadAttention(1, 6, name="cross")(query, attended)
    crossed = layers.MultiHeadAttention(1, 6, name="later")(crossed, crossed)
    model = keras.Model([query, image], layers.Dense(2)(layers.Flatten()(crossed)))
    x = [np.random.default_rng(i).normal(size=(2, 4, 6)).astype(np.float32) for i in range(2)]
    rollout = explain(model, x, "attention_rollout", inputs="image")["image"]
    scores = actgrid.Extractor(model, "self/attention")(x)["self/attention"]
    np.testing.assert_allclose(rollout.values, roll_out([scores]).mean(1), rtol=1e-4, atol=1e-6)
    alone = keras.Model([query, image], layers.Dense(2)(layers.Flatten()(
        layers.MultiHeadAttention(1, 6)(query, image)
    )))  # fmt: skip
    with pytest.raises(LayerError, match="no attention of the explained tokens"):
        explain(alone, x, "attention_rollout", inputs="image")


# --- AttnLRP


def propagate(model: Any, tokens: Array, target: int) -> Array:
    """Return the relevance of tokens by the rules of AttnLRP, for one sample, with NumPy.

    The relevance is that of the values of the token embedding, (T, C).
    """
    weights = {id(v): np.asarray(v, np.float64) for v in model.variables}

    def get(variable: Any) -> Array:
        return weights[id(variable)]

    def normalize(x: Array, norm: Any) -> tuple[Array, Array]:
        scale = 1 / np.sqrt(x.var(-1, keepdims=True) + norm.epsilon)
        return (x - x.mean(-1, keepdims=True)) * scale * get(norm.gamma) + get(norm.beta), scale

    def denormalize(gradient: Array, norm: Any, scale: Array) -> Array:
        scaled: Array = gradient * get(norm.gamma) * scale
        centred: Array = scaled - scaled.mean(-1, keepdims=True)
        return centred

    def gelu_gate(x: Array) -> Array:
        gate: Array = np.asarray(tf.nn.gelu(x) / x)
        return gate

    x = tokens.astype(np.float64)
    tape = []
    for index in range(DEPTH):
        attend = model.attend[index]
        y, scale = normalize(x, model.norms[2 * index])
        q, k, v = (
            np.einsum("tc,chd->thd", y, get(dense.kernel)) + get(dense.bias)
            for dense in (attend.query_dense, attend.key_dense, attend.value_dense)
        )
        logits = np.einsum("thd,shd->hts", q, k) / np.sqrt(WIDTH // HEADS)
        scores = np.exp(logits - logits.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        joined = np.einsum("hts,shd->thd", scores, v)
        output = attend.output_dense
        x = x + np.einsum("thd,hdc->tc", joined, get(output.kernel)) + get(output.bias)
        y2, scale2 = normalize(x, model.norms[2 * index + 1])
        up, down = model.up[index], model.down[index]
        hidden = y2 @ get(up.kernel) + get(up.bias)
        x = x + (hidden * gelu_gate(hidden)) @ get(down.kernel) + get(down.bias)
        tape.append((scale, q, k, v, scores, scale2, hidden))
    _, scale = normalize(x, model.norms[-1])
    gradient = np.zeros_like(x)
    column = get(model.head.kernel)[:, target]
    gradient[0 if model.read == "class" else slice(None)] = (
        column if model.read == "class" else column / len(x)
    )
    gradient = denormalize(gradient, model.norms[-1], scale)
    for index in reversed(range(DEPTH)):
        attend = model.attend[index]
        scale, q, k, v, scores, scale2, hidden = tape[index]
        up, down = model.up[index], model.down[index]
        inner = (gradient @ get(down.kernel).T) * gelu_gate(hidden) @ get(up.kernel).T
        gradient = gradient + denormalize(inner, model.norms[2 * index + 1], scale2)
        joined = np.einsum("tc,hdc->thd", gradient, get(attend.output_dense.kernel)) / 2
        to_scores = np.einsum("thd,shd->hts", joined, v)
        to_values = np.einsum("thd,hts->shd", joined, scores)
        to_logits = scores * (to_scores - (scores * to_scores).sum(-1, keepdims=True))
        to_logits = to_logits / np.sqrt(WIDTH // HEADS) / 2
        to_queries = np.einsum("hts,shd->thd", to_logits, k)
        to_keys = np.einsum("hts,thd->shd", to_logits, q)
        inner = sum(
            np.einsum("thd,chd->tc", part, get(dense.kernel))
            for part, dense in (
                (to_queries, attend.query_dense),
                (to_keys, attend.key_dense),
                (to_values, attend.value_dense),
            )
        )
        gradient = gradient + denormalize(inner, model.norms[2 * index], scale)
    relevance: Array = gradient * tokens
    return relevance


def test_attnlrp_of_image_patches(vision: Any) -> None:
    heatmap = explain(vision, IMAGES, "attnlrp", 1, embedding="patches")
    leading = int(vision.read == "class")
    for image, values in zip(IMAGES, heatmap.values, strict=True):
        tokens = np.asarray(vision.embed(image[None]))[0]
        relevance = propagate(vision, tokens, 1)[leading:].sum(-1).reshape(2, 3)
        np.testing.assert_allclose(values, relevance, rtol=2e-3, atol=2e-5)
    assert heatmap.signed


class GatedUnit(keras.Model):  # type: ignore[misc]
    """Gated layer without biases, whose relevance must sum to the score."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.gate = layers.Dense(6, activation, use_bias=False)
        self.up, self.down = (layers.Dense(size, use_bias=False) for size in (6, 2))

    def call(self, x: Any) -> Any:
        y = self.gate(x) * self.up(x)
        y = y * tf.math.rsqrt(tf.reduce_mean(y**2, -1, keepdims=True) + 1e-6)
        return ops.sum(self.down(y), 1)


@pytest.mark.parametrize("activation", ["silu", "gelu", "relu", "tanh", "elu", "relu6"])
def test_attnlrp_sums_to_the_score_without_biases(activation: str) -> None:
    keras.utils.set_random_seed(5)
    model = GatedUnit(activation)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    model(x)
    attribution = explain(model, x, "attnlrp", 1)
    scores = np.asarray(model(x))[:, 1]
    np.testing.assert_allclose(attribution.values.sum(1), scores, rtol=1e-3)


def test_attnlrp_of_relu_networks_is_gradient_times_input() -> None:
    model = keras.Sequential(
        [keras.Input((8, 12, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(),
         layers.Dense(3)]
    )  # fmt: skip
    expected = explain(model, IMAGES, "gradient_x_input", 0)
    values = explain(model, IMAGES, "attnlrp", 0).values
    np.testing.assert_allclose(values, expected.values, rtol=1e-4, atol=1e-6)


# --- class activation maps and patch embeddings


def test_gradcam_of_the_last_block(vision: Any) -> None:
    heatmap = explain(vision, IMAGES, "gradcam", 1)
    tokens, leading = vision.embed(IMAGES), int(vision.read == "class")
    for index in range(DEPTH - 1):
        y = vision.norms[2 * index](tokens)
        tokens = tokens + vision.attend[index](y, y)
        y = vision.norms[2 * index + 1](tokens)
        tokens = tokens + vision.down[index](vision.up[index](y))
    with tf.GradientTape() as tape:
        if vision.read == "class":  # the last layer on which the class token depends
            activation = vision.norms[2 * DEPTH - 2](tokens)
            tape.watch(activation)
            state = tokens + vision.attend[-1](activation, activation)
            y = vision.norms[2 * DEPTH - 1](state)
            state = vision.norms[-1](state + vision.down[-1](vision.up[-1](y)))
            score = vision.head(state[:, 0])[:, 1]
        else:
            y = vision.norms[2 * DEPTH - 2](tokens)
            state = tokens + vision.attend[-1](y, y)
            y = vision.norms[2 * DEPTH - 1](state)
            activation = vision.norms[-1](state + vision.down[-1](vision.up[-1](y)))
            tape.watch(activation)
            score = vision.head(ops.mean(activation, 1))[:, 1]
    gradient = tape.gradient(score, activation)[:, leading:]
    weights = tf.reduce_mean(gradient, 1, keepdims=True)
    expected = tf.nn.relu(tf.reduce_sum(weights * activation[:, leading:], -1))
    np.testing.assert_allclose(
        heatmap.values, np.reshape(expected, (3, 2, 3)), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "occlusion"])
def test_patch_embeddings_are_explained(vision: Any, method: str) -> None:
    heatmap = explain(vision, IMAGES, method, 1, embedding="patches")
    assert isinstance(heatmap, actgrid.Heatmap)
    assert heatmap.values.shape == (3, 2, 3)
    if method == "saliency":
        patches = vision.patches(IMAGES)
        with tf.GradientTape() as tape:
            tape.watch(patches)
            tokens = ops.reshape(patches, (-1, 6, WIDTH))
            if vision.read == "class":
                tokens = ops.concatenate([ops.tile(vision.token, (3, 1, 1)), tokens], 1)
            score = vision.run(tokens)[0][:, 1]
        gradient = tape.gradient(score, patches)
        np.testing.assert_allclose(heatmap.values, np.abs(gradient).max(-1), rtol=1e-3, atol=1e-6)


# --- next tokens


def test_scores_of_next_tokens(language: Any) -> None:
    logits = language.predict(TOKENS, verbose=0)
    for target, expected in (
        ({"token": "dog"}, logits[:, -1, 5]),
        ({"token": 2, "position": 1}, logits[:, 1, 2]),
        ({"token": None, "position": -2}, logits[:, -2].max(-1)),
    ):
        text = explain(language, TOKENS, "saliency", target, tokens=VOCABULARY)
        np.testing.assert_allclose(np.asarray(text.score), expected, rtol=1e-5)
    several = explain(
        language, TOKENS[:1], "saliency", [{"token": "cat"}, {"token": "dog"}], tokens=VOCABULARY
    )
    np.testing.assert_allclose(np.asarray(several.score), logits[0, -1, [2, 5]], rtol=1e-5)


def test_later_tokens_have_no_gradient(language: Any) -> None:
    text = explain(language, TOKENS, "saliency", {"token": 3, "position": 1})
    assert (text.values[:, :2] > 0).all()
    assert not text.values[:, 2:].any()


def test_padding_is_not_the_last_token() -> None:
    ids = keras.Input((4,), dtype="int32", name="token_ids")
    mask = keras.Input((4,), dtype="int32", name="padding_mask")
    outputs = layers.Dense(6)(layers.Embedding(6, 4)(ids) * ops.cast(mask, "float32")[..., None])
    model = keras.Model({"token_ids": ids, "padding_mask": mask}, outputs)
    x = {"token_ids": TOKENS, "padding_mask": np.array([[1, 1, 0, 0], [1, 1, 1, 1]])}
    text = explain(model, x, "saliency", {"token": 3})
    logits = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        np.asarray(text.score), [logits[0, 1, 3], logits[1, 3, 3]], rtol=1e-5
    )


def test_invalid_next_tokens(language: Any) -> None:
    with pytest.raises(TargetError, match=r"no token 'dogs'.*did you mean dog"):
        explain(language, TOKENS, "saliency", {"token": "dogs"}, tokens=VOCABULARY)
    with pytest.raises(TargetError, match="'dog' needs tokens"):
        explain(language, TOKENS, "saliency", {"token": "dog"})
    with pytest.raises(TargetError, match="no token 9: the model has 6"):
        explain(language, TOKENS, "saliency", {"token": 9})
    with pytest.raises(OptionError, match="position is outside"):
        explain(language, TOKENS, "saliency", {"token": 1, "position": 4})


def test_output_called_token_is_an_output() -> None:
    inputs = keras.Input((4,))
    outputs = {name: layers.Dense(3, name=name)(inputs) for name in ("token", "other")}
    model = keras.Model(inputs, outputs)
    x = np.ones((1, 4), np.float32)
    table = explain(model, x, "saliency", {"token": 2})
    np.testing.assert_allclose(np.asarray(table.score), model(x)["token"][:, 2], rtol=1e-5)


# --- a trained network


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Array, Array]:
    """Return a network trained by examples/vit_mnist.py, and 20 digits of MNIST."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        from vit_mnist import make_network
    finally:
        sys.path.remove(str(EXAMPLES))
    with np.load(Path(__file__).parent / "data" / "mnist_vit.npz") as data:
        model = make_network()
        names = sorted(name for name in data.files if name.startswith("weight"))
        model.set_weights([data[name].astype(np.float32) for name in names])
        return model, data["digits"][..., None] / np.float32(255), data["labels"]


def test_trained_transformer_reads_digits(digits: tuple[Any, Array, Array]) -> None:
    model, x, labels = digits
    assert (model.predict(x, verbose=0).argmax(1) == labels).mean() >= 0.9


@pytest.mark.parametrize("method", ["attention_rollout", "attnlrp"])
def test_patches_with_ink_matter_most(digits: tuple[Any, Array, Array], method: str) -> None:
    model, x, labels = digits
    values = sum_patches(explain(model, x, method, labels.tolist()).values)
    pairs = list(zip(values, find_ink(x), strict=True))
    inside = np.array([value[ink].mean() for value, ink in pairs])
    outside = np.array([value[~ink].mean() for value, ink in pairs])
    assert (inside > outside).mean() > 0.8


def test_hiding_relevant_patches_lowers_the_score(digits: tuple[Any, Array, Array]) -> None:
    """Hide the eight patches of the highest relevance, or eight random patches with ink."""
    model, x, labels = digits
    logits = keras.Model(model.input, model.get_layer("digits").input)
    kernel, bias = model.get_layer("digits").get_weights()

    def score(order: Array) -> float:
        patches = x.reshape(20, 7, 4, 7, 4).transpose(0, 1, 3, 2, 4).reshape(20, 49, 16).copy()
        np.put_along_axis(patches, order[:, :8, None], 0, 1)
        pixels = patches.reshape(20, 7, 7, 4, 4).transpose(0, 1, 3, 2, 4).reshape(x.shape)
        scores = logits.predict(pixels, verbose=0) @ kernel + bias
        return float(scores[np.arange(20), labels].mean())

    relevance = sum_patches(explain(model, x, "attnlrp", labels.tolist()).values)
    random = np.random.default_rng(0)
    chance = []
    for _ in range(5):
        order = random.random((20, 49)) - find_ink(x).reshape(20, 49)
        chance.append(score(np.argsort(order, 1)))
    assert score(np.argsort(-relevance.reshape(20, 49), 1)) < min(chance) - 1


def sum_patches(values: Array) -> Array:
    """Return the sum over the pixels of each patch, (20, 7, 7)."""
    return values if values.shape[1] == 7 else values.reshape(20, 7, 4, 7, 4).sum((2, 4))


def find_ink(x: Array) -> Array:
    """Return whether each patch of the digits is partly white, (20, 7, 7)."""
    return np.asarray(x.reshape(20, 7, 4, 7, 4).mean((2, 4)) > 0.05)
