"""Residual streams and the logit lens, compared with the model's own layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers, ops

import actgrid
from actgrid.errors import LayerError, ModelError, OptionError

Array = npt.NDArray[Any]

VOCABULARY = ["", "the", "cat", "sat", "down"]
IDS = np.array([[1, 2, 3, 4], [4, 3, 0, 0]])


def make_language_model(post_norm: bool = False, activation: str = "softmax") -> Any:
    keras.utils.set_random_seed(1)
    ids = keras.Input((4,), dtype="int32", name="ids")
    x = layers.Embedding(5, 8, name="embedding")(ids)
    for block in range(2):
        for part in ("attention", "dense"):
            y = x if post_norm else layers.LayerNormalization(name=f"norm{block}{part}")(x)
            if part == "attention":
                y = layers.MultiHeadAttention(2, 4, name=f"mha{block}")(y, y)
            else:
                y = layers.Dense(8)(layers.Dense(8, "gelu")(y))
            x = layers.Add(name=f"{part}{block}")([x, layers.Dropout(0.1)(y)])
            if post_norm:
                x = layers.LayerNormalization(name=f"norm{block}{part}")(x)
    x = x if post_norm else layers.LayerNormalization(name="norm")(x)
    return keras.Model(ids, layers.Dense(5, activation, name="head")(x))


def extract(model: Any, paths: list[str], x: Any = IDS) -> list[Array]:
    activations = actgrid.Extractor(model, paths)(x)
    return [activations[path] for path in paths]


STATES = ["embedding", "attention0", "dense0", "attention1", "dense1"]
NORMALIZED = ["embedding", "norm0attention", "norm0dense", "norm1attention", "norm1dense"]


@pytest.mark.parametrize("post_norm", [False, True])
def test_norms_and_angles(post_norm: bool) -> None:
    model = make_language_model(post_norm)
    stream = actgrid.measure_residual_stream(model, IDS, sample=1, tokens=VOCABULARY)
    values = [state[1] for state in extract(model, NORMALIZED if post_norm else STATES)]
    np.testing.assert_allclose(stream.norms, np.linalg.norm(values, axis=-1), rtol=1e-4)
    assert np.isnan(stream.angles[0]).all()
    for number in range(1, 5):
        for token in range(4):
            before, after = values[number - 1][token], values[number][token]
            cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
            expected = np.degrees(np.arccos(cosine))
            assert stream.angles[number, token] == pytest.approx(expected, rel=1e-2, abs=0.1)
    assert stream.states == (
        *("embedding", "attention0: attention", "dense0: feed-forward"),
        *("attention1: attention", "dense1: feed-forward"),
    )
    assert stream.tokens == ("down", "sat", "", "")
    assert stream.to_rgb().ndim == 3


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_lens_runs_the_rest_of_the_model(activation: str | None) -> None:
    model = make_language_model(activation=activation)  # type: ignore[arg-type]
    lens = actgrid.compute_logit_lens(model, IDS, tokens=VOCABULARY, top_k=3)
    norm, head = model.get_layer("norm"), model.get_layer("head")
    kernel, bias = head.get_weights()
    for number, state in enumerate(extract(model, STATES)):
        logits = np.asarray(norm(state))[0] @ kernel + bias
        np.testing.assert_array_equal(lens.indices[number, :, 0], logits.argmax(-1))
        probabilities = np.sort(np.asarray(tf.nn.softmax(logits)), -1)[:, ::-1][:, :3]
        np.testing.assert_allclose(lens.probabilities[number], probabilities, rtol=1e-3)
    assert lens.tokens == ("the", "cat", "sat", "down")
    assert lens.labels[0][0][0] == VOCABULARY[lens.indices[0, 0, 0]]
    predicted = model.predict(IDS, verbose=0)[0].argmax(-1)
    np.testing.assert_array_equal(lens.indices[-1, :, 0], predicted)


def test_lens_of_a_post_norm_model() -> None:
    model = make_language_model(post_norm=True)
    lens = actgrid.compute_logit_lens(model, IDS)
    predicted = model.predict(IDS, verbose=0)[0].argmax(-1)
    np.testing.assert_array_equal(lens.indices[-1, :, 0], predicted)
    first = np.asarray(model.get_layer("head")(extract(model, ["embedding"])[0]))[0]
    np.testing.assert_array_equal(lens.indices[0, :, 0], first.argmax(-1))


def test_output_heads_that_are_given() -> None:
    model = make_language_model()
    norm = model.get_layer("norm")
    table = model.get_layer("embedding").get_weights()[0]
    states = extract(model, STATES)
    tied = actgrid.compute_logit_lens(model, IDS, output_head=["norm", "embedding"])
    for number, state in enumerate(states):
        logits = np.asarray(norm(state))[0] @ table.T
        np.testing.assert_array_equal(tied.indices[number, :, 0], logits.argmax(-1))
    function = actgrid.compute_logit_lens(model, IDS, output_head=lambda state: state[..., :3])
    np.testing.assert_array_equal(function.indices[2, :, 0], states[2][0, :, :3].argmax(-1))
    with pytest.raises(LayerError, match=r"not a layer of the model: got 'nrm'.*did you mean norm"):
        actgrid.compute_logit_lens(model, IDS, output_head="nrm")
    with pytest.raises(OptionError, match="output_head must be a layer path"):
        actgrid.compute_logit_lens(model, IDS, output_head=3)


def test_lens_of_a_classifier_has_one_position() -> None:
    keras.utils.set_random_seed(2)
    image = keras.Input((8, 12, 3))
    x = layers.Reshape((6, 8))(layers.Conv2D(8, 4, 4)(image))
    x = layers.Add(name="add")([x, layers.MultiHeadAttention(2, 4)(x, x)])
    model = keras.Model(image, layers.Dense(4, "softmax")(layers.GlobalAveragePooling1D()(x)))
    images = np.random.default_rng(0).random((2, 8, 12, 3)).astype(np.float32)
    lens = actgrid.compute_logit_lens(model, images, sample=1)
    assert lens.indices.shape == (2, 1, 4)
    predicted = model.predict(images, verbose=0)[1]
    np.testing.assert_array_equal(lens.indices[-1, 0], np.argsort(-predicted))
    np.testing.assert_allclose(lens.probabilities[-1, 0], np.sort(predicted)[::-1], rtol=1e-4)


class Block(layers.Layer):  # type: ignore[misc]
    """Block with its additions inside; `parallel`: attention and dense layer side by side."""

    def __init__(self, parallel: bool, **options: Any) -> None:
        super().__init__(**options)
        self.parallel = parallel
        self.mha = layers.MultiHeadAttention(2, 4)
        self.dense = layers.Dense(8, "gelu")

    def call(self, x: Any) -> Any:
        if self.parallel:
            return x + self.mha(x, x) + self.dense(x)
        x = x + self.mha(x, x)
        return x + self.dense(x)


@pytest.mark.parametrize("parallel", [False, True])
def test_additions_inside_layers(parallel: bool) -> None:
    ids = keras.Input((4,), dtype="int32")
    x = layers.Embedding(5, 8, name="embedding")(ids)
    for number in range(2):
        x = Block(parallel, name=f"block{number}")(x)
    model = keras.Model(ids, layers.Dense(5)(x))
    stream = actgrid.measure_residual_stream(model, IDS)
    assert len(stream) == (3 if parallel else 5)
    assert stream.states[-1].startswith("block1: ")
    embedding, first, second = extract(model, ["embedding", "block0", "block1"])
    norms = [np.linalg.norm(state[0], axis=-1) for state in (embedding, first, second)]
    np.testing.assert_allclose(stream.norms[:: 1 if parallel else 2], norms, rtol=1e-4)


def test_models_without_a_residual_stream_are_refused() -> None:
    dense = keras.Sequential([keras.Input((4, 3)), layers.Dense(2)])
    with pytest.raises(LayerError, match="the model has no residual stream"):
        actgrid.measure_residual_stream(dense, np.ones((1, 4, 3)))


def test_last_state_outside_of_layers_needs_an_output_head() -> None:
    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.mha, self.head = layers.MultiHeadAttention(1, 3), layers.Dense(2, name="head")

        def call(self, x: Any) -> Any:
            return self.head(ops.tanh(x + self.mha(x, x)))

    model = Net()
    x = np.random.default_rng(0).random((1, 4, 3)).astype(np.float32)
    model(x)
    with pytest.raises(ModelError, match="pass output_head"):
        actgrid.compute_logit_lens(model, x)
    assert actgrid.compute_logit_lens(model, x, output_head="head").indices.shape == (2, 4, 2)
