"""Targets for segmentation, detection, sequences and reconstructions, against TensorFlow."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from actgrid import explain
from actgrid.errors import ActgridError, DtypeError, OptionError, ShapeError, TargetError
from actgrid.targets import detection, get_logits, mean_over_time, reconstruction, region

Array = npt.NDArray[Any]

X = np.random.default_rng(0).normal(size=(2, 8, 10, 3)).astype(np.float32)
SEQUENCES = np.random.default_rng(1).normal(size=(2, 12, 2)).astype(np.float32)
ANCHORS = np.array([(x, y, x + 4, y + 4) for y in (0, 4) for x in (0, 4)], np.float32)


def differentiate(model: Any, x: Array, score: Callable[[Any, Any], Any]) -> tuple[Array, Array]:
    """Return the scores and their gradients with respect to the input, without actgrid."""
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        scores = score(model(inputs), inputs)
    return scores.numpy(), tape.gradient(scores, inputs).numpy()


def check_target(model: Any, x: Array, target: Any, score: Callable[[Any, Any], Any]) -> None:
    """Check the score and the gradient of a target against those of a TensorFlow function."""
    scores, gradients = differentiate(model, x, score)
    result = explain(model, x, "saliency", target, reduce="sum")
    np.testing.assert_allclose(np.asarray(result.score), scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.values, gradients.sum(-1), rtol=1e-4, atol=1e-6)
    assert np.ptp(gradients) > 0


def make_segmenter(classes: int = 4, activation: str | None = None, size: int = 1) -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 10, 3)),
            layers.Conv2D(6, 3, strides=size, padding="same", activation="tanh"),
            layers.Conv2D(classes, 1, bias_initializer="random_normal"),
            *([layers.Activation(activation)] if activation else []),
        ]
    )


@pytest.fixture(scope="module")
def segmenter() -> Any:
    return make_segmenter()


@pytest.fixture(scope="module")
def softmax_segmenter() -> Any:
    return make_segmenter(activation="softmax")


def make_head_tensors(features: Any, activation: str) -> tuple[Any, Any]:
    """Return boxes (N, 20, 4), shifted from a grid, and scores of three classes."""
    grid = np.stack(np.meshgrid(np.arange(5) * 2, np.arange(4) * 2), -1).reshape(-1, 2)
    offsets = layers.Reshape((20, 4))(layers.Conv2D(4, 1, activation="sigmoid")(features))
    boxes = offsets + np.concatenate([grid, grid + 3], 1).astype(np.float32)[None]
    scores = layers.Reshape((20, 3))(layers.Conv2D(3, 1, activation=activation)(features))
    return boxes, scores


def make_detector(wrap: Callable[[Any, Any], Any], activation: str = "sigmoid") -> Any:
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 10, 3))
    features = layers.Conv2D(6, 3, strides=2, padding="same", activation="tanh")(image)
    return keras.Model(image, wrap(*make_head_tensors(features, activation)))


@pytest.fixture(scope="module")
def detector() -> Any:
    return make_detector(lambda boxes, scores: {"boxes": boxes, "classes": scores})


@pytest.fixture(scope="module")
def autoencoder() -> Any:
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input((8, 10, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="tanh"),
            layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
        ]
    )


# --- region ---


def test_region_is_the_mean_of_the_class_over_the_region(segmenter: Any) -> None:
    mask = np.zeros((8, 10), bool)
    mask[2:5, 1:9:2] = True
    check_target(segmenter, X, region(3), lambda out, x: tf.reduce_mean(out[..., 3], (1, 2)))
    check_target(
        segmenter,
        X,
        region(1, (2, 3, 7, 6)),
        lambda out, x: tf.reduce_mean(out[:, 2:7, 3:6, 1], (1, 2)),
    )
    check_target(
        segmenter,
        X,
        region(0, mask),
        lambda out, x: tf.reduce_mean(tf.boolean_mask(out[..., 0], mask, axis=1), 1),
    )
    weights = np.random.default_rng(2).random((8, 10))
    check_target(
        segmenter,
        X,
        region(2, weights),
        lambda out, x: tf.reduce_sum(out[..., 2] * weights.astype("f"), (1, 2)) / weights.sum(),
    )


def test_region_without_class_has_the_class_of_the_highest_mean(segmenter: Any) -> None:
    check_target(
        segmenter,
        X,
        region(None, (0, 0, 4, 4)),
        lambda out, x: tf.reduce_max(tf.reduce_mean(out[:, :4, :4], (1, 2)), 1),
    )


def test_region_reads_logits_unless_probabilities_are_requested(softmax_segmenter: Any) -> None:
    logits = keras.Model(softmax_segmenter.inputs[0], softmax_segmenter.layers[-2].output)

    def average(out: Any, x: Any) -> Any:
        return tf.reduce_mean(out[:, 1:3, :, 2], (1, 2))

    scores, gradients = differentiate(logits, X, average)
    result = explain(softmax_segmenter, X, "saliency", region(2, (1, 0, 3, 10)), reduce="sum")
    np.testing.assert_allclose(np.asarray(result.score), scores, rtol=1e-4)
    np.testing.assert_allclose(result.values, gradients.sum(-1), rtol=1e-4, atol=1e-6)
    check_target(softmax_segmenter, X, region(2, (1, 0, 3, 10), use_logits=False), average)


def test_get_logits_in_a_function_of_the_user(softmax_segmenter: Any) -> None:
    def score(output: Any) -> Any:
        return tf.reduce_mean(get_logits(output)[:, 1:3, :, 2], (1, 2))

    expected = explain(softmax_segmenter, X, "saliency", region(2, (1, 0, 3, 10)))
    result = explain(softmax_segmenter, X, "saliency", score)
    np.testing.assert_allclose(result.values, expected.values, rtol=1e-5, atol=1e-7)
    values = tf.nn.softmax(tf.constant([[1.0, 2.0]]))
    assert get_logits(values) is values


def test_scores_that_ignore_the_output_are_still_rejected(softmax_segmenter: Any) -> None:
    with pytest.raises(TargetError, match="do not depend on the model's output"):
        explain(softmax_segmenter, X, target=lambda out, x: tf.reduce_mean(x, (1, 2, 3)))


def test_region_of_one_sigmoid_has_two_classes() -> None:
    model = make_segmenter(1, "sigmoid")
    logits = keras.Model(model.inputs[0], model.layers[-2].output)
    box = (0, 0, 4, 5)
    expected = logits(X).numpy()[:, :4, :5].mean((1, 2, 3))
    for class_, sign in (1, 1), (0, -1), (None, 1):
        result = explain(model, X, "saliency", region(class_, box))
        np.testing.assert_allclose(np.asarray(result.score), sign * expected, rtol=1e-4)
    probabilities = model(X).numpy()[:, :4, :5].mean((1, 2, 3))
    result = explain(model, X, "saliency", region(0, box, use_logits=False))
    np.testing.assert_allclose(np.asarray(result.score), 1 - probabilities, rtol=1e-4)
    with pytest.raises(TargetError, match=r"there is no class 2: .* has 2 classes, 0 to 1"):
        explain(model, X, target=region(2))


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_region_of_a_channels_first_output(activation: str | None) -> None:
    model = make_segmenter(activation=activation)
    transposed = keras.Sequential([keras.Input((8, 10, 3)), model, layers.Permute((3, 1, 2))])
    box = (1, 2, 6, 9)
    expected = explain(model, X, "saliency", region(2, box))
    target = region(2, box, data_format="channels_first")
    result = explain(transposed, X, "saliency", target)
    np.testing.assert_allclose(result.values, expected.values, rtol=1e-5, atol=1e-7)


def test_region_of_sequences_and_volumes() -> None:
    sequences = keras.Sequential([keras.Input((12, 2)), layers.Conv1D(3, 3, padding="same")])
    check_target(
        sequences,
        SEQUENCES,
        region(1, (2, 7)),
        lambda out, x: tf.reduce_mean(out[:, 2:7, 1], 1),
    )
    volumes = keras.Sequential([keras.Input((4, 5, 6, 1)), layers.Conv3D(2, 3, padding="same")])
    x = np.random.default_rng(3).normal(size=(1, 4, 5, 6, 1)).astype(np.float32)
    box = (1, 0, 2, 3, 4, 6)
    mask = np.zeros((4, 5, 6))
    mask[1:3, 0:4, 2:6] = 1
    for target in (region(1, box), region(1, mask)):
        check_target(
            volumes,
            x,
            target,
            lambda out, x: tf.reduce_mean(out[:, 1:3, 0:4, 2:6, 1], (1, 2, 3)),
        )


@pytest.mark.parametrize("size", [(16, 20), (24, 10), (3, 4), (8, 7)])
def test_masks_are_resized_to_the_output(segmenter: Any, size: tuple[int, int]) -> None:
    mask = np.random.default_rng(4).random(size).astype(np.float32)
    # Each axis by area if it becomes shorter, and linearly if it becomes longer.
    weights = mask[None, ..., None]
    for axis, side in enumerate((8, 10)):
        sides = [side if axis == other else weights.shape[1 + other] for other in range(2)]
        kind = "area" if side < size[axis] else "bilinear"
        weights = tf.image.resize(weights, sides, kind).numpy()
    expected = (segmenter(X).numpy()[..., 1] * weights[..., 0]).sum((1, 2)) / weights.sum()
    outputs = segmenter(X)
    np.testing.assert_allclose(region(1, mask)(outputs), expected, rtol=1e-4, atol=1e-6)


@settings(max_examples=30)
@given(st.data())
def test_a_box_is_its_mask(segmenter: Any, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 9))
    bottom, right = data.draw(st.integers(top + 1, 8)), data.draw(st.integers(left + 1, 10))
    factor = data.draw(st.sampled_from([1, 2, 5]))  # masks of the size of a larger image
    mask = np.zeros((8 * factor, 10 * factor), data.draw(st.sampled_from(["bool", "uint8", "f8"])))
    mask[top * factor : bottom * factor, left * factor : right * factor] = 1
    outputs = segmenter(X)
    expected = outputs.numpy()[:, top:bottom, left:right, 2].mean((1, 2))
    for target in (region(2, (top, left, bottom, right)), region(2, mask)):
        np.testing.assert_allclose(target(outputs), expected, rtol=1e-4, atol=1e-5)


def test_region_of_one_of_several_outputs() -> None:
    model = make_detector(lambda boxes, scores: {"boxes": boxes, "classes": scores})
    result = explain(model, X, "saliency", {"classes": region(1, (3, 7), use_logits=False)})
    expected = model(X)["classes"].numpy()[:, 3:7, 1].mean(1)
    np.testing.assert_allclose(np.asarray(result.score), expected, rtol=1e-4)
    with pytest.raises(TargetError, match=r"region needs one output .* target=\{'boxes': region"):
        explain(model, X, target=region(1))


def test_region_with_class_activation_maps_and_perturbation() -> None:
    model = make_segmenter(size=2)
    target = region(1, (0, 0, 2, 2))

    def score(output: Any) -> Any:
        return tf.reduce_mean(output[:, :2, :2, 1], (1, 2))

    cases: dict[str, dict[str, Any]] = {
        "gradcam": {},
        "occlusion": {"patch": 4},
        "integrated_gradients": {"steps": 4},
    }
    for method, options in cases.items():
        expected = explain(model, X, method, score, **options).values
        result = explain(model, X, method, target, **options)
        np.testing.assert_allclose(result.values, expected, rtol=1e-4, atol=1e-6)


# --- mean_over_time ---


def test_mean_over_time() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 2))
    states = layers.LSTM(4, return_sequences=True)(inputs)
    logits = layers.Dense(3)(states)
    model = keras.Model(inputs, layers.Softmax()(logits))
    logit_model = keras.Model(inputs, logits)
    scores, gradients = differentiate(
        logit_model, SEQUENCES, lambda out, x: tf.reduce_mean(out[..., 2], 1)
    )
    result = explain(model, SEQUENCES, "saliency", mean_over_time(2), reduce="sum")
    np.testing.assert_allclose(np.asarray(result.score), scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.values, gradients.sum(-1), rtol=1e-3, atol=1e-6)
    check_target(
        model,
        SEQUENCES,
        mean_over_time(use_logits=False),
        lambda out, x: tf.reduce_max(tf.reduce_mean(out, 1), 1),
    )


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_mean_over_time_of_an_output_without_channels(activation: str | None) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 2))
    logits = layers.Reshape((12,))(layers.Conv1D(1, 3, padding="same")(inputs))
    model = keras.Model(inputs, layers.Activation(activation)(logits))
    scores, gradients = differentiate(
        keras.Model(inputs, logits), SEQUENCES, lambda out, x: tf.reduce_mean(out, 1)
    )
    for target in (mean_over_time(), mean_over_time(1 if activation else 0)):
        result = explain(model, SEQUENCES, "saliency", target, reduce="sum")
        np.testing.assert_allclose(np.asarray(result.score), scores, rtol=1e-4)
        np.testing.assert_allclose(result.values, gradients.sum(-1), rtol=1e-4, atol=1e-6)


def test_mean_over_time_rejects_images(segmenter: Any) -> None:
    with pytest.raises(ShapeError, match=r"needs an output \(N, T, K\) or \(N, T\): got .*, 4\)"):
        explain(segmenter, X, target=mean_over_time(1))


# --- detection ---


def compute_overlaps(boxes: Any, box: Any) -> Array:
    """Return the intersection over union of boxes (..., 4) with a box, both (l, t, r, b)."""
    boxes, box = np.asarray(boxes, np.float64), np.asarray(box, np.float64)
    width = np.minimum(boxes[..., 2], box[2]) - np.maximum(boxes[..., 0], box[0])
    height = np.minimum(boxes[..., 3], box[3]) - np.maximum(boxes[..., 1], box[1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    overlaps: Array = intersection / (areas + (box[2] - box[0]) * (box[3] - box[1]) - intersection)
    return overlaps


def test_detection_of_a_box_by_index(detector: Any) -> None:
    check_target(
        detector,
        X,
        detection(7, 2, use_logits=False),
        lambda out, x: out["classes"][:, 7, 2],
    )
    check_target(
        detector,
        X,
        detection(box_index=7, use_logits=False),
        lambda out, x: tf.reduce_max(out["classes"][:, 7], 1),
    )
    check_target(
        detector,
        X,
        detection(7, 2),
        lambda out, x: tf.math.log(out["classes"][:, 7, 2] / (1 - out["classes"][:, 7, 2])),
    )


@pytest.mark.parametrize("match", ["best", "weighted"])
def test_detection_of_a_box_by_overlap(detector: Any, match: Any) -> None:
    box = (1.5, 0.5, 6, 5)
    overlaps = compute_overlaps(detector(X)["boxes"], box)
    weights = overlaps / overlaps.sum(1, keepdims=True)
    if match == "best":
        weights = np.eye(20)[overlaps.argmax(1)]
    check_target(
        detector,
        X,
        detection(box=box, class_=1, match=match, use_logits=False),
        lambda out, x: tf.reduce_sum(out["classes"][..., 1] * weights.astype("f"), 1),
    )


def test_the_choice_of_a_box_has_no_gradient(detector: Any) -> None:
    # The boxes depend on the image; only the score has a gradient.
    target = detection(box=(1.5, 0.5, 6, 5), match="weighted")
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        boxes = detector(x)["boxes"]
        tape.watch(boxes)
        scores = target({"boxes": boxes, "classes": tf.ones((2, 20, 3))})
    assert tape.gradient(scores, boxes) is None


@pytest.mark.parametrize("box_format", ["yxyx", "xywh", "center_xywh"])
def test_detection_in_other_box_formats(box_format: Any) -> None:
    corners = np.random.default_rng(5).uniform(0, 6, (2, 9, 2))
    sides = np.random.default_rng(6).uniform(1, 4, (2, 9, 2))
    xyxy = np.concatenate([corners, corners + sides], -1).astype("f")
    boxes = {
        "yxyx": xyxy[..., [1, 0, 3, 2]],
        "xywh": np.concatenate([corners, sides], -1),
        "center_xywh": np.concatenate([corners + sides / 2, sides], -1),
    }[box_format]
    box = {"yxyx": (2, 1, 6, 4), "xywh": (1, 2, 3, 4), "center_xywh": (2.5, 4, 3, 4)}[box_format]
    scores = tf.random.stateless_normal((2, 9, 3), (0, 0))
    for match in ("best", "weighted"):
        expected = detection(box=(1, 2, 4, 6), class_=1, match=match)(
            {"boxes": tf.constant(xyxy), "scores": scores}
        )
        target = detection(box=box, class_=1, match=match, box_format=box_format)
        np.testing.assert_allclose(
            target({"boxes": tf.constant(boxes), "scores": scores}), expected, rtol=1e-4
        )


def test_detection_without_overlap_has_score_0() -> None:
    outputs = {"boxes": tf.constant(ANCHORS[None]), "scores": -tf.ones((1, 4, 2))}
    for match in ("best", "weighted"):
        assert detection(box=(50, 50, 60, 60), match=match)(outputs).numpy() == [0]
        assert detection(box=(0, 0, 4, 4), match=match)(outputs).numpy() == [-1]


def join(boxes: Any, scores: Any) -> Any:
    return layers.Concatenate()([boxes, scores])


def decode_boxes(outputs: Any) -> Any:
    return outputs["encoded"] + 0.0


@pytest.mark.parametrize(
    ("wrap", "options"),
    [
        (lambda boxes, scores: {"a": boxes, "b": scores}, {}),
        (lambda boxes, scores: [scores, boxes], {}),
        (lambda boxes, scores: [scores, boxes, boxes], {"boxes": 1, "scores": 0}),
        (
            lambda boxes, scores: {"bbox_regression": boxes, "cls_logits": scores},
            {"boxes": "bbox_regression"},
        ),
        (join, {}),
        (join, {"box_channels": 4}),
        (
            lambda boxes, scores: {"encoded": boxes, "scores": scores},
            {"boxes": decode_boxes, "scores": "scores"},
        ),
        (
            lambda boxes, scores: {
                "boxes": layers.Reshape((4, 5, 4))(boxes),
                "scores": layers.Reshape((4, 5, 3))(scores),
            },
            {},
        ),
    ],
    ids=["dict", "list", "positions", "keys", "joined", "channels", "decoded", "grid"],
)
def test_detection_finds_boxes_and_scores(
    detector: Any, wrap: Callable[[Any, Any], Any], options: dict[str, Any]
) -> None:
    target = detection(box=(1.5, 0.5, 6, 5), class_=1, use_logits=False)
    expected = target(detector(X))
    model = make_detector(wrap)
    other = detection(box=(1.5, 0.5, 6, 5), class_=1, use_logits=False, **options)
    result = explain(model, X, "saliency", other)
    np.testing.assert_allclose(np.asarray(result.score), expected, rtol=1e-4)


def test_detection_with_anchors_and_encoded_boxes() -> None:
    scores = tf.random.stateless_normal((1, 4, 7), (0, 0))
    outputs = {"bbox_regression": tf.zeros((1, 4, 4)), "cls_logits": scores}
    by_anchor = detection(box=(3, 1, 8, 4), class_=2, boxes=ANCHORS)
    assert by_anchor(outputs) == scores[:, 1, 2]
    assert by_anchor(scores) == scores[:, 1, 2]  # one output, of scores alone
    assert detection(3, 2)(outputs) == scores[:, 3, 2]
    with pytest.raises(TargetError, match="'bbox_regression' has offsets from anchors"):
        detection(box=(3, 1, 8, 4))(outputs)
    yolo = {"boxes": tf.zeros((1, 4, 64)), "classes": scores}
    assert detection(3, 2)(yolo) == scores[:, 3, 2]
    with pytest.raises(ShapeError, match=r"boxes must be \(N, A, 4\): got \(1, 4, 64\); pass a"):
        detection(box=(3, 1, 8, 4))(yolo)


def test_detection_of_one_class() -> None:
    outputs = {"boxes": tf.constant(ANCHORS[None]), "scores": tf.constant([[1.0, 2, 3, 4]])}
    assert detection(2)(outputs).numpy() == [3]
    assert detection(box=(0, 4, 4, 8), class_=0)(outputs).numpy() == [3]


def test_detection_with_occlusion(detector: Any) -> None:
    target = detection(box=(1.5, 0.5, 6, 5), class_=1)
    result = explain(detector, X, "occlusion", target, patch=4)
    assert result.values.shape == (2, 8, 10)
    assert result.values.any()


# --- reconstruction ---


def test_reconstruction_is_compared_with_the_input(autoencoder: Any) -> None:
    def compute_error(out: Any, x: Any) -> Any:
        return tf.reduce_mean((out - x) ** 2, (1, 2, 3))

    check_target(autoencoder, X, reconstruction(), lambda out, x: -compute_error(out, x))
    check_target(autoencoder, X, reconstruction(negate=False), compute_error)


def test_reconstruction_of_modified_inputs(autoencoder: Any) -> None:
    result = explain(autoencoder, X, "integrated_gradients", reconstruction(), steps=200)
    scores = -((autoencoder(X) - X).numpy() ** 2).mean((1, 2, 3))
    baseline = -(autoencoder(np.zeros_like(X[:1])).numpy() ** 2).mean()
    np.testing.assert_allclose(result.values.sum((1, 2)), scores - baseline, rtol=1e-3)
    # A patch as large as the image: each score is compared with that of an input of zeros.
    result = explain(autoencoder, X, "occlusion", reconstruction(), patch=(8, 10), baseline=0)
    np.testing.assert_allclose(result.values[:, 4, 5], scores - baseline, rtol=1e-3)


def test_reconstruction_of_an_array(autoencoder: Any) -> None:
    targets = [reconstruction(image) for image in X]
    result = explain(autoencoder, X, "saliency", targets, reduce="sum")
    check_target(
        autoencoder,
        X[:1],
        reconstruction(X[:1]),
        lambda out, x: -tf.reduce_mean((out - X[:1]) ** 2, (1, 2, 3)),
    )
    _, gradients = differentiate(
        autoencoder, X, lambda out, x: -tf.reduce_mean((out - X) ** 2, (1, 2, 3))
    )
    np.testing.assert_allclose(result.values, gradients.sum(-1), rtol=1e-4, atol=1e-7)


def test_reconstruction_of_one_of_several_inputs() -> None:
    first, second = keras.Input((8, 10, 3), name="first"), keras.Input((8, 10, 3), name="second")
    model = keras.Model({"first": first, "second": second}, layers.Conv2D(3, 1)(first + second))
    x = {"first": X, "second": X[::-1]}
    output = model.predict(x, verbose=0)
    result = explain(model, x, "saliency", reconstruction(input_key="second"))
    expected = -((output - X[::-1]) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(np.asarray(result.score), expected, rtol=1e-4)
    with pytest.raises(TargetError, match=r"got 2 among first .*; choose the input with input_key"):
        explain(model, x, target=reconstruction())
    with pytest.raises(TargetError, match=r"input_key='third' is not an input .*: first"):
        explain(model, x, target=reconstruction(input_key="third"))


def test_reconstruction_rejects_other_shapes(segmenter: Any, autoencoder: Any) -> None:
    with pytest.raises(ShapeError, match=r"the output \(None, 8, 10, 4\) and the input .*, 3\)"):
        explain(segmenter, X, target=reconstruction())
    with pytest.raises(ShapeError, match=r"one sample of the output, \(8, 10, 3\): got \(2, 8"):
        explain(autoencoder, X, target=reconstruction(X))


# --- all targets ---


@pytest.mark.parametrize(
    ("make", "make_other"),
    [
        (lambda: region(1), lambda: region(2)),
        (lambda: region(1, [1, 2, 3, 4]), lambda: region(1, (1, 2, 3, 5))),
        (lambda: region(1, np.eye(8)), lambda: region(1, np.eye(8)[::-1])),
        (lambda: region(1, np.eye(4)), lambda: region(1, np.eye(4, dtype=bool)[:2])),
        (lambda: mean_over_time(1), lambda: mean_over_time(1, use_logits=False)),
        (lambda: detection(1, 2), lambda: detection(2, 1)),
        (lambda: detection(box=[0, 1, 2, 3]), lambda: detection(box=[0, 1, 2, 4])),
        (lambda: detection(box=[0, 1, 2, 3], boxes=ANCHORS), lambda: detection(box=[0, 1, 2, 3])),
        (lambda: reconstruction(), lambda: reconstruction(negate=False)),
        (lambda: reconstruction(X[0]), lambda: reconstruction(X[1])),
    ],
)
def test_equal_arguments_give_equal_targets(
    make: Callable[[], Any], make_other: Callable[[], Any]
) -> None:
    assert make() == make()
    assert hash(make()) == hash(make())
    assert make() != make_other()
    assert pickle.loads(pickle.dumps(make())) == make()
    assert len(repr(make())) < 300


def test_the_type_of_an_argument_does_not_matter() -> None:
    class_: Any = np.int64(1)
    assert region(class_) == region(1)
    assert detection(class_) == detection(1)
    mask = np.eye(6) > 0
    assert region(1, mask) == region(1, mask.astype("f")) == region(1, mask.tolist())
    assert region(1, -mask.astype("f") * 0 + 1) == region(1, np.ones((6, 6)))


def test_an_equal_target_is_not_compiled_again() -> None:
    calls = []

    class Probe(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            calls.append(1)
            return x

    model = keras.Sequential([keras.Input((8, 10, 3)), layers.Conv2D(4, 1), Probe()])
    mask = np.eye(8, 10)
    expected = explain(model, X, "saliency", region(1, mask))
    calls.clear()
    result = explain(model, X, "saliency", region(1, mask.copy()))
    assert not calls
    np.testing.assert_array_equal(result.values, expected.values)
    explain(model, X, "saliency", region(2, mask))
    assert calls


def test_targets_label_maps() -> None:
    image = keras.Input((8, 10, 3))
    conv = layers.Conv2D(4, 1, name="mask")(image)
    kind = layers.Dense(2, name="kind")(layers.GlobalAveragePooling2D()(conv))
    model = keras.Model(image, {"kind": kind, "mask": conv})
    target: dict[str, Any] = {"kind": "cat", "mask": region(3)}
    result = explain(model, X[:1], "saliency", target, labels={"kind": ["cat", "dog"]})
    assert result.labels is not None
    assert list(result.labels) == ["cat", "region(3)"]
    for named, name in (
        (region(), "region()"),
        (mean_over_time(2), "mean_over_time(2)"),
        (detection(5), "detection(5)"),
        (detection(box=(0, 1.5, 2, 3), class_=4), "detection(0, 1.5, 2, 3, 4)"),
        (reconstruction(), "reconstruction"),
        (reconstruction(X[0], negate=False), "reconstruction error"),
    ):
        assert named.__name__ == name


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: region("cat"), OptionError, "class_ must be an integer, not 'cat'"),  # type: ignore[arg-type]
        (lambda: region(-1), OptionError, "class_ must be at least 0, not -1"),
        (lambda: region(1, np.zeros((4, 4))), OptionError, "mask is empty: got no weight above 0"),
        (lambda: region(1, -np.eye(4)), OptionError, "weights of 0 or more: got -1"),
        (lambda: region(1, np.full((4, 4), np.nan)), OptionError, "mask must be finite: got NaN"),
        (lambda: region(1, [["a"]]), DtypeError, "mask must be an array of real numbers"),
        (lambda: region(1, [[1], [1, 2]]), DtypeError, "mask must be an array of real numbers"),
        (lambda: region(1, np.ones((2, 4, 4, 1))), OptionError, r"mask must be \(T,\), \(H, W\)"),
        (lambda: region(1, (1, 2, 3)), OptionError, r"box must have 2, 4 or 6 limits: got \(1, 2"),
        (lambda: region(1, (3, 0, 3, 4)), OptionError, r"box is empty: got \(3, 0, 3, 4\)"),
        (lambda: region(1, (-1, 0, 3, 4)), OptionError, "box must not have negative limits"),
        (lambda: region(1, data_format="NCHW"), OptionError, "data_format must be 'channels_last'"),  # type: ignore[arg-type]
        (lambda: mean_over_time(1.5), OptionError, "class_ must be an integer, not 1.5"),  # type: ignore[arg-type]
        (lambda: detection(), OptionError, "needs box_index, .*: got neither"),
        (lambda: detection(1, box=(0, 0, 1, 1)), OptionError, "needs box_index, .*: got both"),
        (lambda: detection(-1), OptionError, "box_index must be at least 0, not -1"),
        (lambda: detection(box=(0, 0, 1)), OptionError, "box must have 4 coordinates, .left, top"),
        (lambda: detection(box=4), OptionError, "box must have 4 coordinates"),  # type: ignore[arg-type]
        (lambda: detection(box=(0, 0, 1, "a")), OptionError, "box must be a number"),  # type: ignore[arg-type]
        (lambda: detection(box=(2, 0, 1, 1)), OptionError, r"box is empty: got \(2, 0, 1, 1\)"),
        (
            lambda: detection(box=(2, 0, 1, 0), box_format="xywh"),
            OptionError,
            r"box is empty: .*; expected \(left, top, width, height\)",
        ),
        (lambda: detection(1, box_format="rel"), OptionError, "box_format must be one of 'xyxy'"),  # type: ignore[arg-type]
        (lambda: detection(1, match="all"), OptionError, "match must be 'best' or 'weighted'"),  # type: ignore[arg-type]
        (lambda: detection(1, boxes=np.ones((3, 5))), OptionError, r"\(A, 4\): got an array of"),
        (lambda: detection(1, scores=[]), OptionError, "scores must be an integer"),  # type: ignore[arg-type]
        (lambda: reconstruction(X, input_key=0), OptionError, "input_key=0 and original exclude"),
        (lambda: reconstruction(input_key=0.5), OptionError, "input_key must be the key or pos"),  # type: ignore[arg-type]
        (lambda: reconstruction("x"), DtypeError, "original must be an array of real numbers"),
    ],
)
def test_invalid_options(make: Callable[[], Any], kind: type[ActgridError], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_unhashable_functions_of_boxes_are_rejected() -> None:
    class Decoder:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, outputs: Any) -> Any:
            return outputs

    with pytest.raises(OptionError, match="boxes must be a hashable function"):
        detection(1, boxes=Decoder())


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        (region(4), TargetError, "there is no class 4: the output, .*, has 4 classes, 0 to 3"),
        (region(1, (0, 0, 9, 3)), ShapeError, r"box \(0, 0, 9, 3\) exceeds the output of size"),
        (
            region(1, (0, 4)),
            ShapeError,
            r"box must be \(top, left, bottom, right\) for this output",
        ),
        (region(1, np.ones(4)), ShapeError, r"mask must be \(H, W\) for this output: got shape"),
        (detection(1), TargetError, "pass box_channels=4 for an output of 4 coordinates"),
        (detection(1, box_channels=4), ShapeError, "must have more than 4 channels"),
        (detection(99, box_channels=0), TargetError, "box_index=99 is not a box .*: got 80 boxes"),
        (
            detection(1, scores="a"),
            TargetError,
            "scores='a' is not an output .*; the model has one",
        ),
    ],
)
def test_targets_that_do_not_fit_the_output(
    segmenter: Any, target: Any, kind: type[ActgridError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        explain(segmenter, X, target=target)


def test_detections_that_do_not_fit_the_outputs(detector: Any) -> None:
    for target, message in (
        (detection(1, scores="class"), "scores='class' is not an output of the model.*'classes'"),
        (detection(20), "box_index=20 is not a box of the model: got 20 boxes, 0 to 19"),
        (detection(0, 3), "there is no class 3: the output, .*, has 3 classes, 0 to 2"),
    ):
        with pytest.raises(TargetError, match=message):
            explain(detector, X, target=target)
    boxes = tf.constant(ANCHORS[None])
    with pytest.raises(ShapeError, match="same number of boxes: got 4 and 20"):
        explain(detector, X, target=detection(box=(0, 0, 1, 1), boxes=ANCHORS))
    with pytest.raises(TargetError, match="cannot tell which outputs have the boxes"):
        detection(0)([boxes, boxes])
    with pytest.raises(TargetError, match=r"scores=2 is not an output .*; positions: 0 to 1"):
        detection(0, scores=2)([boxes, boxes])
    with pytest.raises(ShapeError, match=re.escape("must be (N, A, C): got (1,)")):
        detection(0, scores="a")({"a": tf.zeros(1)})


def test_region_needs_positions() -> None:
    model = keras.Sequential([keras.Input((8, 10, 3)), layers.Flatten(), layers.Dense(4)])
    with pytest.raises(ShapeError, match=r"needs an output \(N, T, K\), .*: got \(None, 4\)"):
        explain(model, X, "saliency", region(1))


def test_first_argument_is_an_index_or_a_box() -> None:
    assert detection((0, 0, 1, 1), 2) == detection(box=(0, 0, 1, 1), class_=2)
    assert detection(3, 2) == detection(box_index=3, class_=2)
