"""Targets of `explain`: logits, outputs, several targets and functions."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

from actgrid import Heatmap, compare_methods, explain
from actgrid.attribution.scores import find_binary_output
from actgrid.errors import ShapeError, TargetError

Array = npt.NDArray[Any]

X = np.random.default_rng(0).normal(size=(3, 5, 6, 2)).astype(np.float32)


def make_weights(classes: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(5, 6, 2, classes)).astype(np.float32)


def make_dense(kernel: Array, activation: Any = None, **options: Any) -> Any:
    """Return a dense layer with weights `kernel` and biases 0.25, 0.5, ..."""
    classes = kernel.shape[-1]
    return layers.Dense(
        classes,
        activation,
        kernel_initializer=lambda shape, dtype: tf.constant(kernel.reshape(-1, classes)),
        bias_initializer=lambda shape, dtype: tf.range(1, classes + 1, dtype=dtype) / 4,
        **options,
    )


def compute_logits(kernel: Array, x: Array = X) -> Array:
    bias = np.arange(1, kernel.shape[-1] + 1) / 4
    result: Array = np.tensordot(x, kernel, 3) + bias
    return result


class Head(keras.Model):  # type: ignore[misc]
    """Subclassed model that applies a function to the output of its dense layer."""

    def __init__(self, kernel: Array, after: Callable[[Any], Any]) -> None:
        super().__init__()
        self.flat, self.dense, self.after = layers.Flatten(), make_dense(kernel), after

    def call(self, x: Any) -> Any:
        return self.after(self.dense(self.flat(x)))


def make_sequential(kernel: Array, *after: Any) -> Any:
    return keras.Sequential([keras.Input((5, 6, 2)), layers.Flatten(), make_dense(kernel), *after])


def get_scores(heatmap: Heatmap) -> Array:
    assert heatmap.score is not None
    return heatmap.score


def check_gradients(heatmap: Heatmap, expected: list[Array]) -> None:
    """Compare signed saliency maps with expected gradients, each (5, 6, 2)."""
    maps = np.stack(expected).sum(-1)
    np.testing.assert_allclose(heatmap.values, maps, rtol=1e-4, atol=1e-5)


# --- sigmoid and softmax ---

SIGMOIDS: dict[str, Callable[[Array], Any]] = {
    "layer": lambda kernel: make_sequential(kernel, layers.Activation("sigmoid")),
    "argument": lambda kernel: keras.Sequential(
        [keras.Input((5, 6, 2)), layers.Flatten(), make_dense(kernel, "sigmoid")]
    ),
    "activations": lambda kernel: Head(kernel, keras.activations.sigmoid),
    "ops": lambda kernel: Head(kernel, keras.ops.sigmoid),
    "tf.sigmoid": lambda kernel: Head(kernel, tf.sigmoid),
    "reshaped": lambda kernel: make_sequential(
        kernel, layers.Activation("sigmoid"), layers.Reshape((1, -1)), layers.Flatten()
    ),
    "cast": lambda kernel: Head(
        kernel, lambda x: tf.cast(tf.cast(tf.sigmoid(x), tf.float64), tf.float32)
    ),
    "identity": lambda kernel: Head(kernel, lambda x: tf.identity(tf.sigmoid(x))),
    "linear": lambda kernel: make_sequential(
        kernel, layers.Activation("sigmoid"), layers.Activation("linear", dtype="float32")
    ),
}
SQUEEZED: dict[str, Callable[[Array], Any]] = {
    "squeezed": lambda kernel: Head(kernel, lambda x: tf.squeeze(tf.sigmoid(x), 1)),
    "sliced": lambda kernel: Head(kernel, lambda x: tf.sigmoid(x)[:, 0]),
    "flat": lambda kernel: Head(kernel, lambda x: keras.ops.reshape(tf.sigmoid(x), (-1,))),
}


@pytest.mark.parametrize("kind", [*SIGMOIDS, *SQUEEZED])
def test_sigmoid_unit_has_two_classes(kind: str) -> None:
    kernel = make_weights(1)
    model = (SIGMOIDS | SQUEEZED)[kind](kernel)
    logit = compute_logits(kernel)[:, 0]
    assert (logit > 0).any() and (logit < 0).any()  # noqa: PT018
    heatmap = explain(model, X, "saliency", reduce="sum", labels=["cat", "dog"])
    assert heatmap.is_logit
    np.testing.assert_array_equal(heatmap.target, logit > 0)
    assert heatmap.labels == tuple("dog" if value > 0 else "cat" for value in logit)
    np.testing.assert_allclose(get_scores(heatmap), np.abs(logit), rtol=1e-4)
    check_gradients(heatmap, [kernel[..., 0] * np.sign(value) for value in logit])
    for target, sign in ((0, -1), ("cat", -1), (1, 1), ("DOG", 1)):
        heatmap = explain(model, X, "saliency", target, reduce="sum", labels=["cat", "dog"])
        check_gradients(heatmap, [sign * kernel[..., 0]] * 3)
        np.testing.assert_allclose(get_scores(heatmap), sign * logit, rtol=1e-4)
    with pytest.raises(TargetError, match="there is no class 2: the model has 2, 0 to 1"):
        explain(model, X, "saliency", 2)
    with pytest.raises(TargetError, match="labels must name the model's 2 classes, not 1"):
        explain(model, X, "saliency", labels=["cat"])


PROBABILITIES: dict[str, tuple[Any, Callable[[Array], Array]]] = {
    # Function of the logit, and the same function in NumPy.
    "hard_sigmoid": (
        layers.Activation("hard_sigmoid"),
        lambda logit: np.clip(logit / 6 + 0.5, 0, 1),
    ),
    "relu6 times a sixth": (
        lambda x: tf.nn.relu6(x + 3) * (1 / 6),
        lambda logit: np.clip(logit / 6 + 0.5, 0, 1),
    ),
    "clip": (lambda x: keras.ops.clip(x + 0.5, 0, 1), lambda logit: np.clip(logit + 0.5, 0, 1)),
    "raw clip": (
        lambda x: tf.raw_ops.ClipByValue(t=x, clip_value_min=0.0, clip_value_max=1.0),
        lambda logit: np.clip(logit, 0, 1),
    ),
    "clipped sigmoid": (
        lambda x: tf.clip_by_value(tf.sigmoid(x), 0.2, 0.8),
        lambda logit: np.clip(1 / (1 + np.exp(-logit)), 0.2, 0.8),
    ),
    "1 - clip": (
        lambda x: tf.squeeze(1 - tf.clip_by_value(x, 0, 1), 1),
        lambda logit: 1 - np.clip(logit, 0, 1),
    ),
    "scale_squared_error tanh": (
        lambda x: (tf.tanh(x) + 1) / 2,
        lambda logit: (np.tanh(logit) + 1) / 2,
    ),
}


@pytest.mark.filterwarnings("ignore::actgrid.attribution.ZeroAttributionWarning")
@pytest.mark.parametrize("kind", PROBABILITIES)
def test_output_between_0_and_1_is_a_probability(kind: str) -> None:
    kernel = make_weights(1)
    after, compute_expected = PROBABILITIES[kind]
    model = Head(kernel, after)
    probability = compute_expected(compute_logits(kernel)[:, 0])
    heatmap: Heatmap
    for labels in (None, ["cat", "dog"]):
        heatmap = explain(model, X, "saliency", labels=labels)
        assert not heatmap.is_logit
        np.testing.assert_array_equal(heatmap.target, probability >= 0.5)
        expected = np.maximum(probability, 1 - probability)
        np.testing.assert_allclose(get_scores(heatmap), expected, rtol=1e-4)
        if labels is not None:
            assert heatmap.labels == tuple(
                "dog" if value >= 0.5 else "cat" for value in probability
            )
    with tf.GradientTape() as tape:
        x = tf.constant(X)
        tape.watch(x)
        value = tf.reshape(model(x), (-1,))
    gradient = tape.gradient(value, x).numpy()
    for target, sign in ((0, -1), (1, 1)):
        heatmap = explain(model, X, "saliency", target, reduce="sum")
        check_gradients(heatmap, list(sign * gradient))


def test_probability_of_one_half_is_class_1() -> None:
    model = Head(make_weights(1), lambda x: tf.clip_by_value(2 * x, 0, 1))
    black = np.zeros((1, 5, 6, 2), np.float32)  # the logit is the bias, 0.25
    heatmap = explain(model, black, "saliency")
    assert get_scores(heatmap) == 0.5
    assert heatmap.target == [1]


@pytest.mark.parametrize("name", ["hard_sigmoid", "clip"])
def test_find_binary_output(name: str) -> None:
    spec = tf.TensorSpec((None, 5, 6, 2))
    assert find_binary_output(Head(make_weights(1), PROBABILITIES[name][0]), spec) == "probability"
    assert find_binary_output(Head(make_weights(1), tf.sigmoid), spec) == "probability"
    assert find_binary_output(Head(make_weights(1), tf.tanh), spec) is None
    assert find_binary_output(Head(make_weights(1), tf.tanh), spec, ["a", "b"]) == "sign"
    assert find_binary_output(Head(make_weights(1), tf.identity), spec, ["a", "b"]) == "logit"


@pytest.mark.parametrize(
    "loss",
    [
        "binary_crossentropy",
        "binary_focal_crossentropy",
        keras.losses.binary_crossentropy,
        keras.losses.BinaryCrossentropy(),
    ],
)
def test_loss_of_probabilities_makes_output_a_probability(loss: Any) -> None:
    kernel = make_weights(1)
    model = make_sequential(kernel)
    model.compile(loss=loss)
    value = compute_logits(kernel)[:, 0]
    for labels in (None, ["cat", "dog"]):
        heatmap = explain(model, X, "saliency", labels=labels, reduce="sum")
        assert not heatmap.is_logit
        np.testing.assert_array_equal(heatmap.target, value >= 0.5)
        np.testing.assert_allclose(get_scores(heatmap), np.maximum(value, 1 - value), rtol=1e-4)
        check_gradients(heatmap, [kernel[..., 0] * (1 if p >= 0.5 else -1) for p in value])


def test_bounded_output_with_two_labels_is_no_logit() -> None:
    kernel = make_weights(1)
    value = np.tanh(compute_logits(kernel)[:, 0])
    model = make_sequential(kernel, layers.Activation("tanh"))
    heatmap = explain(model, X, "saliency", labels=["cat", "dog"])
    assert not heatmap.is_logit
    np.testing.assert_array_equal(heatmap.target, value >= 0)
    np.testing.assert_allclose(get_scores(heatmap), np.abs(value), rtol=1e-4)
    # Without labels the output is a regression; an output that is never negative is no logit.
    np.testing.assert_allclose(get_scores(explain(model, X, "saliency")), value, rtol=1e-4)
    with pytest.raises(TargetError, match="labels must name the model's 1 classes, not 2"):
        explain(make_sequential(kernel, layers.ReLU()), X, "saliency", labels=["cat", "dog"])


CLIPPED_SIGMOIDS: dict[str, tuple[Callable[[Any], Any], int]] = {
    # Function of the logit, and the sign of the explained logit.
    "clip": (lambda x: keras.ops.clip(keras.ops.sigmoid(x), 1e-7, 1 - 1e-7), 1),
    "raw clip": (
        lambda x: tf.raw_ops.ClipByValue(
            t=tf.sigmoid(x), clip_value_min=1e-6, clip_value_max=0.999
        ),
        1,
    ),
    "1 - p": (lambda x: 1 - keras.ops.sigmoid(x), -1),
    "1 - (1 - p)": (lambda x: 1 - tf.reshape(1 - tf.sigmoid(x), (-1,)), 1),
}


@pytest.mark.parametrize("kind", CLIPPED_SIGMOIDS)
def test_logit_before_clipped_or_inverted_sigmoid(kind: str) -> None:
    kernel = make_weights(1)
    after, sign = CLIPPED_SIGMOIDS[kind]
    logit = sign * compute_logits(kernel)[:, 0]
    heatmap = explain(Head(kernel, after), X, "saliency", 1, reduce="sum")
    assert heatmap.is_logit
    check_gradients(heatmap, [sign * kernel[..., 0]] * 3)
    np.testing.assert_allclose(get_scores(heatmap), logit, rtol=1e-4)
    predicted = explain(Head(kernel, after), X, "saliency").target
    np.testing.assert_array_equal(predicted, logit > 0)


def test_saturated_sigmoid_is_explained_by_its_logit() -> None:
    # The gradient of the saturated sigmoid is zero in float32.
    kernel = np.full((5, 6, 2, 1), 5.0, np.float32)
    x = np.ones((1, 5, 6, 2), np.float32)
    model = SIGMOIDS["argument"](kernel)
    assert model.predict(x, verbose=0) == 1
    heatmap = explain(model, x, "gradient_x_input")
    np.testing.assert_allclose(heatmap.values, 10)
    assert heatmap.target is not None
    assert heatmap.target.tolist() == [1]


def test_single_output_without_sigmoid() -> None:
    kernel = make_weights(1)
    model = make_sequential(kernel)
    logit = compute_logits(kernel)[:, 0]
    # A regression has one score.
    heatmap = explain(model, X, "saliency", reduce="sum")
    assert not heatmap.is_logit
    np.testing.assert_array_equal(heatmap.target, 0)
    np.testing.assert_allclose(get_scores(heatmap), logit, rtol=1e-4)
    with pytest.raises(TargetError, match="there is no class 1: the model has 1"):
        explain(model, X, "saliency", 1)
    # Two labels make the output two classes, and so does a loss of logits.
    named = explain(model, X, "saliency", labels=["cat", "dog"], reduce="sum")
    model.compile(loss="binary_crossentropy")
    assert not explain(model, X, "saliency", reduce="sum").is_logit
    for loss in (
        keras.losses.BinaryCrossentropy(from_logits=True),
        keras.losses.BinaryFocalCrossentropy(from_logits=True),
    ):
        model.compile(loss=loss)
        heatmap = explain(model, X, "saliency", reduce="sum")
        np.testing.assert_array_equal(heatmap.values, named.values)
        for result in (heatmap, named):
            assert result.is_logit
            np.testing.assert_array_equal(result.target, logit > 0)
            np.testing.assert_allclose(get_scores(result), np.abs(logit), rtol=1e-4)


@pytest.mark.parametrize("kind", SIGMOIDS)
def test_each_of_several_sigmoids_has_its_own_logit(kind: str) -> None:
    kernel = make_weights(3)
    model = SIGMOIDS[kind](kernel)
    heatmap = explain(model, X, "saliency", [2, 0, None], reduce="sum")
    predicted = compute_logits(kernel)[2].argmax()
    assert heatmap.is_logit
    np.testing.assert_array_equal(heatmap.target, [2, 0, predicted])
    check_gradients(heatmap, [kernel[..., 2], kernel[..., 0], kernel[..., predicted]])
    np.testing.assert_allclose(
        get_scores(heatmap), compute_logits(kernel)[[0, 1, 2], [2, 0, predicted]], rtol=1e-4
    )


def make_joined_heads(join: Callable[[list[Any]], Any]) -> Any:
    """Return a model of three joined sigmoid heads, with weights `make_weights(3)`."""
    inputs = keras.Input((5, 6, 2))
    flat = layers.Flatten()(inputs)
    model = keras.Model(inputs, join([layers.Dense(1, "sigmoid")(flat) for _ in range(3)]))
    kernel = make_weights(3).reshape(-1, 3)
    biases = np.arange(1, 4) / 4
    model.set_weights(
        [value for i in range(3) for value in (kernel[:, i : i + 1], biases[i : i + 1])]
    )
    return model


JOINED: dict[str, Callable[[list[Any]], Any]] = {
    "layer": lambda heads: layers.Concatenate()(heads),
    "ops": lambda heads: keras.ops.concatenate(heads, axis=-1),
    "axis": lambda heads: layers.Flatten()(layers.Concatenate(axis=1)(heads)),
    "stack": lambda heads: keras.ops.squeeze(keras.ops.stack(heads, axis=1), -1),
    "nested": lambda heads: layers.Concatenate()([layers.Concatenate()(heads[:2]), heads[2]]),
}


@pytest.mark.parametrize("kind", JOINED)
def test_joined_sigmoid_heads_have_their_own_logits(kind: str) -> None:
    heatmap = explain(make_joined_heads(JOINED[kind]), X, "saliency", [2, 0, None], reduce="sum")
    kernel = make_weights(3)
    predicted = compute_logits(kernel)[2].argmax()
    assert heatmap.is_logit
    check_gradients(heatmap, [kernel[..., 2], kernel[..., 0], kernel[..., predicted]])
    np.testing.assert_allclose(
        get_scores(heatmap), compute_logits(kernel)[[0, 1, 2], [2, 0, predicted]], rtol=1e-4
    )


def test_sigmoids_joined_with_other_outputs_are_no_logits() -> None:
    model = make_joined_heads(
        lambda heads: layers.Concatenate()([*heads[:2], layers.ReLU()(heads[2])])
    )
    assert not explain(model, X, "saliency", 1).is_logit


SOFTMAXES: dict[str, Callable[[Array], Any]] = {
    "flatten": lambda kernel: make_sequential(
        kernel, layers.Reshape((1, 1, 3)), layers.Softmax(), layers.Flatten()
    ),
    "reshape": lambda kernel: make_sequential(
        kernel, layers.Reshape((1, 1, 3)), layers.Activation("softmax"), layers.Reshape((3,))
    ),
    "squeeze": lambda kernel: Head(
        kernel, lambda x: tf.squeeze(tf.nn.softmax(x[:, None, None]), (1, 2))
    ),
    "sliced": lambda kernel: Head(kernel, lambda x: tf.nn.softmax(x[:, None, None])[:, 0, 0]),
    "cut": lambda kernel: Head(
        kernel, lambda x: tf.squeeze(tf.slice(tf.nn.softmax(x[:, None]), (0, 0, 0), (-1, 1, 3)), 1)
    ),
    "permuted": lambda kernel: make_sequential(
        kernel,
        layers.Reshape((1, 1, 3)),
        layers.Softmax(),
        layers.Permute((2, 1, 3)),
        layers.Flatten(),
    ),
    "classes first": lambda kernel: make_sequential(
        kernel, layers.Reshape((1, 3)), layers.Softmax(), layers.Permute((2, 1)), layers.Flatten()
    ),
    "averaged": lambda kernel: make_sequential(
        kernel, layers.Reshape((1, 1, 3)), layers.Softmax(), layers.GlobalAveragePooling2D()
    ),
    "pooled": lambda kernel: make_sequential(
        kernel, layers.Reshape((1, 1, 3)), layers.Softmax(), layers.GlobalMaxPooling2D()
    ),
    "clipped": lambda kernel: Head(
        kernel, lambda x: keras.ops.clip(keras.ops.softmax(x), 1e-7, 1 - 1e-7)
    ),
    "log": lambda kernel: Head(kernel, lambda x: tf.identity(tf.nn.log_softmax(x))),
    "half": lambda kernel: Head(
        kernel, lambda x: tf.reshape(tf.cast(tf.nn.softmax(x), tf.float16), (-1, 3))
    ),
}


@pytest.mark.parametrize("kind", SOFTMAXES)
def test_logits_before_reshaped_softmax(kind: str) -> None:
    kernel = make_weights(3)
    heatmap = explain(SOFTMAXES[kind](kernel), X, "saliency", 1, reduce="sum")
    assert heatmap.is_logit
    check_gradients(heatmap, [kernel[..., 1]] * 3)
    np.testing.assert_allclose(get_scores(heatmap), compute_logits(kernel)[:, 1], rtol=1e-3)


def test_logits_before_one_of_several_softmaxes() -> None:
    kernel = make_weights(9)
    expected = compute_logits(kernel)
    case: tuple[Callable[[Any], Any], bool]
    for case in (
        (lambda x: tf.nn.softmax(tf.reshape(x, (-1, 3, 3)))[:, 1], True),
        # One class of each softmax: the values are not of one softmax and have no logits.
        (lambda x: tf.nn.softmax(tf.reshape(x, (-1, 3, 3)))[:, :, 1], False),
        (lambda x: tf.transpose(tf.nn.softmax(tf.reshape(x, (-1, 3, 3))), (0, 2, 1))[:, 1], False),
    ):
        after, is_logit = case
        model = Head(kernel, after)
        heatmap = explain(model, X, "saliency", 2)
        assert heatmap.is_logit == is_logit
        values = expected[:, 5] if is_logit else model(X)[:, 2]
        np.testing.assert_allclose(get_scores(heatmap), values, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::actgrid.attribution.ZeroAttributionWarning")
def test_operations_after_the_activation_hide_the_logits() -> None:
    kernel = make_weights(3)
    for after in (
        lambda x: 2 * tf.nn.softmax(x),
        lambda x: tf.nn.softmax(x)[:, :2],
        lambda x: x * tf.sigmoid(x),
        lambda x: tf.clip_by_value(tf.nn.softmax(x), 0.2, 0.8),
        lambda x: 1 - tf.nn.softmax(x),
        lambda x: tf.concat([tf.nn.softmax(x), tf.sigmoid(x)], 1),
        lambda x: tf.transpose(tf.nn.softmax(tf.transpose(x))),
    ):
        model = Head(kernel, after)
        heatmap = explain(model, X, "saliency", 1)
        assert not heatmap.is_logit
        np.testing.assert_allclose(get_scores(heatmap), model(X)[:, 1], rtol=1e-4)


# --- several outputs ---

BOX, KIND, CAT = make_weights(4, seed=5), make_weights(3, seed=6), make_weights(1, seed=7)


def make_functional(pack: Callable[..., Any]) -> Any:
    inputs = keras.Input((5, 6, 2))
    flat = layers.Flatten()(inputs)
    outputs = [
        make_dense(BOX, name="box")(flat),
        make_dense(KIND, "softmax", name="kind")(flat),
        make_dense(CAT, "sigmoid", name="is_cat")(flat),
    ]
    return keras.Model(inputs, pack(*outputs))


def pack_dict(box: Any, kind: Any, is_cat: Any) -> Any:
    return {"kind": kind, "box": box, "is_cat": is_cat}


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self, pack: Callable[..., Any]) -> None:
        super().__init__()
        self.pack = pack
        self.flat = layers.Flatten()
        self.heads = [
            make_dense(BOX),
            make_dense(KIND, "softmax"),
            make_dense(CAT, "sigmoid"),
        ]

    def call(self, x: Any) -> Any:
        flat = self.flat(x)
        return self.pack(*(head(flat) for head in self.heads))


def pack_list(*outputs: Any) -> list[Any]:
    return list(outputs)


OUTPUT_CASES: dict[str, tuple[Callable[[], Any], Any, Any]] = {
    # Model maker, and the names or indices of the outputs `kind` and `is_cat`.
    "dict": (lambda: make_functional(pack_dict), "kind", "is_cat"),
    "list": (lambda: make_functional(pack_list), "kind", "is_cat"),
    "position": (lambda: make_functional(pack_list), 1, 2),
    "subclassed dict": (lambda: Subclassed(pack_dict), "kind", "is_cat"),
    "subclassed list": (lambda: Subclassed(pack_list), 1, 2),
    "subclassed names": (lambda: Subclassed(pack_list), "1", "2"),
}


@pytest.mark.parametrize("kind", OUTPUT_CASES)
def test_target_selects_an_output(kind: str) -> None:
    make_model, name, cat = OUTPUT_CASES[kind]
    model = make_model()
    for target in ({name: 2}, (name, 2), {name: [2, 2, 2]}, [(name, 2)] * 3, [{name: 2}] * 3):
        heatmap = explain(model, X, "saliency", target, reduce="sum")
        check_gradients(heatmap, [KIND[..., 2]] * 3)
        assert heatmap.is_logit
        assert heatmap.target is not None
        assert heatmap.target.tolist() == [2, 2, 2]
        assert heatmap.details["output"] == [str(name) if kind != "position" else "kind"] * 3
    heatmap = explain(model, X, "saliency", {cat: 0}, reduce="sum")
    check_gradients(heatmap, [-CAT[..., 0]] * 3)
    heatmap = explain(model, X, "saliency", {name: None})
    np.testing.assert_array_equal(heatmap.target, compute_logits(KIND).argmax(1))


def test_labels_by_output() -> None:
    model = make_functional(pack_dict)
    labels = {"kind": ["tabby", "tiger", "lion"], "is_cat": ["dog", "cat"]}
    for target in ({"kind": "Lion"}, ("kind", "lion")):
        heatmap = explain(model, X, "saliency", target, labels=labels, reduce="sum")
        check_gradients(heatmap, [KIND[..., 2]] * 3)
        assert heatmap.labels == ("lion",) * 3
    heatmap = explain(model, X, "saliency", {"is_cat": "dog"}, labels=labels, reduce="sum")
    check_gradients(heatmap, [-CAT[..., 0]] * 3)
    # A list of labels applies to the only explained output.
    assert explain(model, X, "saliency", {"is_cat": "dog"}, labels=["dog", "cat"]).labels == (
        ("dog",) * 3
    )
    with pytest.raises(TargetError, match=r"no class is called 'lien' \(did you mean lion\?\)"):
        explain(model, X, "saliency", ("kind", "lien"), labels=labels)
    with pytest.raises(
        TargetError, match=r"no output 'knd' \(did you mean kind\?\); outputs: 'box"
    ):
        explain(model, X, "saliency", {"kind": 1}, labels={"knd": ["a"]})


def test_maps_of_several_outputs_are_ordered_by_image() -> None:
    model = make_functional(pack_dict)
    labels = {"kind": ["tabby", "tiger", "lion"], "is_cat": ["dog", "cat"]}
    target: Any = {"kind": ["lion", 0, 1], "is_cat": "dog"}
    heatmap = explain(model, X, "saliency", target, labels=labels, batch_size=2, reduce="sum")
    expected = [KIND[..., 2], -CAT[..., 0], KIND[..., 0], -CAT[..., 0], KIND[..., 1], -CAT[..., 0]]
    check_gradients(heatmap, expected)
    assert heatmap.labels == ("lion", "dog", "tabby", "dog", "tiger", "dog")
    assert heatmap.details["output"] == ["kind", "is_cat"] * 3
    assert heatmap.target is not None
    assert heatmap.target.tolist() == [2, 0, 0, 0, 1, 0]
    kinds, cats = compute_logits(KIND), compute_logits(CAT)[:, 0]
    scores = [kinds[0, 2], -cats[0], kinds[1, 0], -cats[1], kinds[2, 1], -cats[2]]
    np.testing.assert_allclose(get_scores(heatmap), scores, rtol=1e-4)
    assert heatmap[3].details["output"] == "is_cat" or heatmap[3].details["output"] == ["is_cat"]


@pytest.mark.parametrize("kind", OUTPUT_CASES)
@pytest.mark.parametrize("target", [None, 1, "cat", [0, 1, 2]])
def test_target_without_output_is_rejected(kind: str, target: Any) -> None:
    make_model, *_ = OUTPUT_CASES[kind]
    with pytest.raises(TargetError, match=r"the model has 3 outputs, '.*target=.*or target=lambda"):
        explain(make_model(), X, "saliency", target, labels=None if target != "cat" else ["cat"])


def test_unknown_outputs_are_rejected() -> None:
    model = make_functional(pack_list)
    target: Any
    for target in ({"knid": 1}, ("knid", 1)):
        with pytest.raises(TargetError, match=r"no output 'knid' \(did you mean kind\?\); outputs"):
            explain(model, X, "saliency", target)
    for target in ({3: 1}, {-1: 1}, {True: 1}, {1.5: 0}):
        with pytest.raises(TargetError, match="the model has no output"):
            explain(model, X, "saliency", target)


def test_unknown_classes_of_outputs_are_rejected() -> None:
    model = make_functional(pack_dict)
    target: Any
    for target, message in (
        ({"kind": 9}, "there is no class 9: output 'kind' has 3 classes, 0 to 2"),
        (("kind", 9), "there is no class 9: output 'kind' has 3 classes, 0 to 2"),
        ({"is_cat": 2}, "there is no class 2: output 'is_cat' has 2 classes, 0 to 1"),
        (("nope", 1), "the model has no output 'nope'; outputs: 'box', 'is_cat', 'kind'"),
        (("nope", "cat"), "the model has no output 'nope'; outputs"),
        ((9, 1), "the model has no output 9; outputs: 'box', 'is_cat', 'kind'"),
        ("kind", r"'kind' is the name of an output, not of a class: pass target=\{'kind': None\}"),
    ):
        with pytest.raises(TargetError, match=message):
            explain(model, X, "saliency", target)
        with pytest.raises(TargetError, match=message):
            explain(model, X[:1], "saliency", target)


@pytest.mark.parametrize("kind", OUTPUT_CASES)
def test_target_function_of_an_output(kind: str) -> None:
    make_model, name, cat = OUTPUT_CASES[kind]
    model = make_model()

    def second(output: Any) -> Any:
        return 3 * output[:, 1]

    with tf.GradientTape() as tape:
        x = tf.constant(X)
        tape.watch(x)
        outputs = model(x)
        values = 3 * (outputs["kind"] if isinstance(outputs, dict) else outputs[1])[:, 1]
    gradient = list(tape.gradient(values, x).numpy())
    for target in ({name: second}, (name, second), {name: [second] * 3}, [(name, second)] * 3):
        heatmap = explain(model, X, "saliency", target, reduce="sum")
        check_gradients(heatmap, gradient)
        np.testing.assert_allclose(get_scores(heatmap), values, rtol=1e-4)
        assert heatmap.target is None
        assert heatmap.labels is None
    # Together with a class of another output.
    heatmap = explain(
        model, X, "saliency", {name: second, cat: 1}, labels={cat: ["dog", "cat"]}, reduce="sum"
    )
    check_gradients(heatmap, [row for image in gradient for row in (image, CAT[..., 0])])
    assert heatmap.labels == ("second", "cat") * 3
    assert heatmap.target is not None
    assert heatmap.target.tolist() == [-1, 1] * 3


def test_target_function_of_an_output_and_the_input() -> None:
    _, decoder = make_autoencoder()
    inputs = keras.Input((5, 6, 2))
    kind = make_dense(KIND, "softmax", name="kind")(layers.Flatten()(inputs))
    model = keras.Model(inputs, {"kind": kind, "image": decoder(inputs)})
    heatmap = explain(model, X, "saliency", {"image": squared_error})
    expected = explain(decoder, X, "saliency", squared_error)
    np.testing.assert_allclose(heatmap.values, expected.values, rtol=1e-4, atol=1e-6)


def test_several_target_functions() -> None:
    kernel = make_weights(3)
    model = make_sequential(kernel)
    targets: Any = [lambda outputs: outputs[:, 1], 0, lambda outputs: outputs[:, 2]]
    heatmap = explain(model, X[:1], "saliency", targets, reduce="sum")
    check_gradients(heatmap, [kernel[..., 1], kernel[..., 0], kernel[..., 2]])


def test_labels_of_one_of_several_outputs() -> None:
    heatmap = explain(
        make_functional(pack_dict),
        X,
        "saliency",
        {"is_cat": 0, "kind": 2},
        labels={"is_cat": ["dog", "cat"]},
    )
    assert heatmap.labels == ("dog", "2") * 3


def test_error_of_output_without_classes_suggests_a_function() -> None:
    model = make_output_model(pack_all)
    for name in ("image", "volume", "sequence"):
        with pytest.raises(TargetError, match=rf"the output '{name}', .*pass target=") as caught:
            explain(model, X, "saliency", {name: 1})
        code = str(caught.value).partition("pass target=")[2]
        assert repr(name) in code
        heatmap = explain(model, X, "saliency", eval(code, {"tf": tf}))
        assert heatmap.details["output"] == [name] * 3
        assert heatmap.values.any()


def pack_all(image: Any, flat: Any, volume: Any, sequence: Any, dense: Any) -> Any:
    return {"image": image, "volume": volume, "sequence": sequence, "scores": dense}


def test_single_output_can_be_named() -> None:
    kernel = make_weights(3)
    model = keras.Sequential(
        [keras.Input((5, 6, 2)), layers.Flatten(), make_dense(kernel, "softmax", name="kind")]
    )
    for name in ("kind", 0):
        heatmap = explain(model, X, "saliency", {name: 2}, reduce="sum")
        check_gradients(heatmap, [kernel[..., 2]] * 3)
    # For two images, a pair is a target for each, not an output and a class.
    heatmap = explain(model, X[:2], "saliency", (0, 2), reduce="sum")
    check_gradients(heatmap, [kernel[..., 0], kernel[..., 2]])


def test_loss_of_logits_applies_to_its_own_output() -> None:
    inputs = keras.Input((5, 6, 2))
    flat = layers.Flatten()(inputs)
    logit = keras.losses.BinaryCrossentropy(from_logits=True)
    model = keras.Model(
        inputs, {"a": make_dense(CAT, name="a")(flat), "b": make_dense(CAT, name="b")(flat)}
    )
    model.compile(loss={"a": "mse", "b": logit})
    assert not explain(model, X, "saliency", {"a": 0}).is_logit
    assert explain(model, X, "saliency", {"b": 1}).is_logit
    listed = keras.Model(inputs, [make_dense(CAT)(flat), make_dense(CAT)(flat)])
    listed.compile(loss=[logit, "mse"])
    assert explain(listed, X, "saliency", {0: 1}).is_logit
    assert not explain(listed, X, "saliency", {1: 0}).is_logit


def test_maps_of_different_sizes_are_rejected() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    y = layers.Conv2D(4, 3, activation="relu", name="second")(x)
    heads = [layers.Dense(2)(layers.GlobalAveragePooling2D()(branch)) for branch in (x, y)]
    model = keras.Model(inputs, dict(zip("ab", heads, strict=True)))
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    with pytest.raises(ShapeError, match=r"one size: got first \(6, 6\), second \(4, 4\)"):
        explain(model, x, "scorecam", {"a": 1, "b": 0})
    heatmap = explain(model, x, "scorecam", {"a": 1, "b": 0}, layer="first")
    assert heatmap.values.shape == (2, 6, 6)
    assert explain(model, x, "scorecam", {"a": 1}).layer == "first"
    assert explain(model, x, "scorecam", {"b": 1}).layer == "second"


# --- several targets for an image ---


def test_several_targets_for_one_image() -> None:
    kernel = make_weights(3)
    model = make_sequential(kernel, layers.Softmax())
    labels = ["a", "b", "c"]
    target: Any
    for target in ([2, 0, "b"], [[2, 0, "b"]], np.array([2, 0, 1])):
        heatmap = explain(model, X[0], "saliency", target, labels=labels, reduce="sum")
        check_gradients(heatmap, [kernel[..., 2], kernel[..., 0], kernel[..., 1]])
        assert heatmap.labels == ("c", "a", "b")
        np.testing.assert_allclose(
            get_scores(heatmap), compute_logits(kernel)[0, [2, 0, 1]], rtol=1e-4
        )
        assert heatmap.images is None or len(heatmap.images) == 3


def test_several_targets_for_each_image() -> None:
    kernel = make_weights(3)
    model = make_sequential(kernel, layers.Softmax())
    for batch_size in (1, 4, 32):
        heatmap = explain(
            model, X, "gradient_x_input", [[0, 1], [2, None], [1, 1]], batch_size=batch_size
        )
        predicted = int(compute_logits(kernel)[1].argmax())
        targets = [0, 1, 2, predicted, 1, 1]
        expected = [kernel[..., target] * X[index // 2] for index, target in enumerate(targets)]
        check_gradients(heatmap, expected)
        assert heatmap.target is not None
        assert heatmap.target.tolist() == targets
    table = np.array([[0, 1], [2, 0], [1, 1]])
    assert explain(model, X, "saliency", table).target.tolist() == [0, 1, 2, 0, 1, 1]  # type: ignore[union-attr]


def test_pictures_are_repeated_for_several_targets() -> None:
    model = keras.Sequential([keras.Input((5, 6, 3)), layers.Flatten(), layers.Dense(4)])
    x = np.random.default_rng(3).integers(0, 256, (2, 5, 6, 3))
    heatmap = explain(model, x, "saliency", [[0, 1, 2], [3, 0, 1]])
    np.testing.assert_array_equal(heatmap.images, x[[0, 0, 0, 1, 1, 1]])
    sheet = compare_methods(model, x, {"saliency": {}, "occlusion": {"patch": 2}}, [[0, 1], [2, 3]])
    assert len(sheet.pictures) == 4 * 3


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([], "empty list"),
        ([[0, 1], [1]], "got 2 targets for 3 images; pass a list of lists"),
        ([[0], [], [1]], "empty list"),
        ([[0, 7], [0, 1], [0, 1]], "there is no class 7"),
        ({0: {"a": 1}}, "target of an output must be a class, not the output 'a'"),
    ],
)
def test_invalid_targets_are_rejected(target: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        explain(make_sequential(make_weights(3)), X, "saliency", target)


# --- functions ---


def make_autoencoder() -> Any:
    kernel = make_weights(3)
    return kernel, keras.Sequential(
        [
            keras.Input((5, 6, 2)),
            layers.Flatten(),
            layers.Dense(6, "tanh", name="code"),
            layers.Dense(60),
            layers.Reshape((5, 6, 2)),
        ]
    )


def squared_error(outputs: Any, inputs: Any) -> Any:
    return tf.reduce_mean((outputs - inputs) ** 2, (1, 2, 3))


class Errors:
    def method(self, outputs: Any, inputs: Any) -> Any:
        return squared_error(outputs, inputs)

    @staticmethod
    def static(outputs: Any, inputs: Any, power: int = 2) -> Any:
        return tf.reduce_mean(tf.abs(outputs - inputs) ** power, (1, 2, 3))

    def __call__(self, outputs: Any, inputs: Any, *rest: Any, scale: float = 1.0) -> Any:
        return scale * squared_error(outputs, inputs)


def scale_squared_error(scale: float, outputs: Any, inputs: Any) -> Any:
    return scale * squared_error(outputs, inputs)


def flat(values: Any) -> Any:
    return tf.reshape(values, (-1, 60))


INPUT_FUNCTIONS: dict[str, Any] = {
    "function": squared_error,
    "lambda": lambda outputs, inputs, axes=(1, 2, 3): tf.reduce_mean((outputs - inputs) ** 2, axes),
    "method": Errors().method,
    "static": Errors.static,
    "object": Errors(),
    "partial": functools.partial(scale_squared_error, 1.0),
    "tf.function": tf.function(squared_error),
    "keras": lambda outputs, inputs: keras.losses.mean_squared_error(flat(inputs), flat(outputs)),
}


@pytest.mark.parametrize("kind", INPUT_FUNCTIONS)
def test_target_function_of_outputs_and_inputs(kind: str) -> None:
    keras.utils.set_random_seed(4)
    _, model = make_autoencoder()
    with tf.GradientTape() as tape:
        x = tf.constant(X)
        tape.watch(x)
        losses = squared_error(model(x), x)
    gradient = tape.gradient(losses, x).numpy()
    heatmap = explain(model, X, "saliency", INPUT_FUNCTIONS[kind], reduce="sum", batch_size=2)
    check_gradients(heatmap, list(gradient))
    np.testing.assert_allclose(get_scores(heatmap), losses, rtol=1e-4)
    hidden = explain(model, X, "occlusion", INPUT_FUNCTIONS[kind], patch=4, baseline=0)
    np.testing.assert_allclose(get_scores(hidden), losses, rtol=1e-4)


def test_keras_losses_receive_outputs_and_inputs() -> None:
    inputs = keras.Input((5, 6, 2))
    model = keras.Model(inputs, 2 * layers.Flatten()(inputs))
    wide = keras.Model(inputs, layers.Reshape((5, 6, 2))(model.output))
    loss = keras.losses.MeanSquaredError(reduction=None)
    with pytest.raises(ShapeError, match=r"one score for each image, \(N,\), not \(None, 5, 6\)"):
        explain(wide, X, "saliency", loss)
    with pytest.raises(ShapeError, match=r"one score for each image, \(N,\), not \(\)"):
        explain(wide, X, "saliency", keras.losses.MeanSquaredError())


OUTPUT_FUNCTIONS: dict[str, Any] = {
    "lambda": lambda outputs, index=1: outputs[:, index],
    "several": lambda *outputs: outputs[0][:, 1],
    "keyword": lambda outputs, *, index=1: outputs[:, index],
    "partial": functools.partial(lambda index, outputs: outputs[:, index], 1),
    "keyword partial": functools.partial(lambda outputs, index: outputs[:, index], index=1),
    "tf.function": tf.function(lambda outputs: outputs[:, 1]),
}


@pytest.mark.parametrize("kind", OUTPUT_FUNCTIONS)
def test_target_function_of_the_output(kind: str) -> None:
    kernel = make_weights(3)
    heatmap = explain(make_sequential(kernel), X, "saliency", OUTPUT_FUNCTIONS[kind], reduce="sum")
    check_gradients(heatmap, [kernel[..., 1]] * 3)


def test_target_function_without_signature_receives_the_output() -> None:
    class Opaque:
        @property
        def __signature__(self) -> Any:
            raise ValueError("no signature")

        def __call__(self, outputs: Any) -> Any:
            return outputs[:, 1]

    kernel = make_weights(3)
    check_gradients(
        explain(make_sequential(kernel), X, "saliency", Opaque(), reduce="sum"),
        [kernel[..., 1]] * 3,
    )


FAILING: dict[str, tuple[Callable[..., Any], str]] = {
    "NumPy": (
        lambda outputs: np.mean(outputs, 1),
        r"\(None, 3\): Cannot convert a symbolic tf.Tensor .*use TensorFlow operations",
    ),
    "key": (lambda outputs: {"b": outputs}["a"], r"KeyError: a; use TensorFlow"),
    "index": (lambda outputs: outputs["a"], "TypeError: Only integers, slices"),
    "type": (lambda outputs: outputs + "a", "TypeError: "),
    "attribute": (lambda outputs: outputs.nothing, "AttributeError: .*nothing"),
    "result": (lambda outputs: {"a": 1}, "TypeError: "),
    "shape": (lambda outputs: tf.reshape(outputs, (3, 4, 5))[:, :, 7], "fails on the model's"),
    "constant": (lambda outputs: tf.zeros(3), "do not depend on the model's output"),
    "array": (lambda outputs: np.zeros(3), "do not depend on the model's output"),
    "input": (lambda outputs, inputs: inputs[:, 0, 0, 0], "do not depend on the model's output"),
}


@pytest.mark.parametrize("method", ["saliency", "gradcam", "occlusion"])
@pytest.mark.parametrize("kind", FAILING)
def test_failing_target_function_raises_target_error(kind: str, method: str) -> None:
    function, message = FAILING[kind]
    with pytest.raises(TargetError, match=message) as caught:
        explain(make_sequential(make_weights(3)), X, method, function)
    assert (caught.value.__cause__ is None) == (kind in ("constant", "array", "input"))


def test_target_function_must_be_hashable() -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, outputs: Any) -> Any:
            return outputs[:, 0]

    with pytest.raises(TargetError, match=r"target functions must be hashable.*Unhashable"):
        explain(make_sequential(make_weights(3)), X, "saliency", Unhashable())


def test_actgrid_error_of_target_function_is_not_wrapped() -> None:
    def refuse(outputs: Any) -> Any:
        raise ShapeError("the mask is too large")

    with pytest.raises(ShapeError, match=r"^the mask is too large$"):
        explain(make_sequential(make_weights(3)), X, "saliency", refuse)


# --- advice in error messages ---


def make_output_model(pack: Callable[..., Any]) -> Any:
    inputs = keras.Input((5, 6, 2))
    image = layers.Conv2D(3, 1, name="image")(inputs)
    flat = layers.Flatten()(image)
    volume = layers.Reshape((5, 2, 3, 3))(image)
    sequence = layers.Reshape((30, 3))(image)
    return keras.Model(inputs, pack(image, flat, volume, sequence, layers.Dense(2)(flat)))


STRUCTURES: dict[str, Callable[..., Any]] = {
    "image": lambda image, *rest: image,
    "volume": lambda image, flat, volume, *rest: volume,
    "sequence": lambda image, flat, volume, sequence, dense: sequence,
    "list": lambda *outputs: list(outputs),
    "images": lambda image, flat, volume, *rest: [image, volume],
    "single image in a list": lambda image, *rest: [image],
    "single image in a dict": lambda image, *rest: {"pixels": image},
    "dict": lambda image, flat, volume, sequence, dense: {"b c": dense, "a": volume},
    "nested": lambda image, flat, volume, sequence, dense: {
        "a": [image, sequence],
        "b": [dense],
    },
    "nested images": lambda image, flat, volume, *rest: {"x'y": [image, volume]},
}


@pytest.mark.parametrize("subclassed", [False, True])
@pytest.mark.parametrize("kind", STRUCTURES)
def test_suggested_targets_are_valid(kind: str, subclassed: bool) -> None:
    keras.utils.set_random_seed(1)
    model = make_output_model(STRUCTURES[kind])
    if subclassed:
        inner = model

        class Outer(keras.Model):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.inner = inner

            def call(self, x: Any) -> Any:
                return self.inner(x)

        model = Outer()
    with pytest.raises(TargetError) as caught:
        explain(model, X, "saliency")
    code_snippets = re.findall(r"target=(\{.*?\}|lambda outputs: .*$)", str(caught.value))
    assert code_snippets, caught.value
    assert any("lambda" in code for code in code_snippets)
    for code in code_snippets:
        target = eval(code.strip(), {"tf": tf})
        heatmap = explain(model, X, "saliency", target)
        assert heatmap.values.shape == (3, 5, 6)
        assert heatmap.values.any()
