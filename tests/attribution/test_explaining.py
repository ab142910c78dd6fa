"""`explain`: every method, targets, inputs and options."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image
from tests.attribution.packages import skip_without_packages

import actgrid
from actgrid import ActgridError, explain
from actgrid.attribution.methods import get_methods
from actgrid.attribution.requests import prepare_request
from actgrid.errors import (
    DtypeError,
    MissingFileError,
    ModelError,
    OptionError,
    ShapeError,
    TargetError,
)
from actgrid.models import model_cache
from actgrid.models.compiled import CompiledFunction
from actgrid.models.model_cache import get_model_cache

# Methods that explain networks without attention.
GENERAL_METHODS = [
    name for name, method in get_methods().items() if "attention" not in method.needs
]

Array = npt.NDArray[Any]


def segment_image(image: Array) -> Array:
    """Return the segment of each pixel of an image: diagonal stripes."""
    segments: Array = np.indices(image.shape[:2]).sum(0) // 6
    return segments


# Options that make the slower methods quick.
QUICK: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 4},
    "smoothgrad": {"samples": 3},
    "vargrad": {"samples": 3},
    "smoothgrad_squared": {"samples": 3},
    "gradient_shap": {"samples": 3},
    "expected_gradients": {"samples": 3},
    "smooth_gradcam++": {"samples": 3},
    "sscam": {"samples": 2},
    "iscam": {"steps": 2},
    "occlusion": {"patch": 4},
    "rise": {"samples": 20, "grid_size": 3},
    "lime": {"samples": 20, "segments": segment_image},
    "kernel_shap": {"samples": 20, "segments": segment_image},
    "sobol": {"samples": 4, "grid_size": 3},
    "hsic": {"samples": 20, "grid_size": 3},
}


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_results_do_not_depend_on_the_batch(cnn: tuple[Any, Any], method: str) -> None:
    skip_without_packages(method)
    model, x = cnn
    options = QUICK.get(method, {})
    together = explain(model, x, method, **options)
    assert together.values.dtype == np.float32
    assert len(together) == len(x)
    for batch_size in (1, 3):
        parts = explain(model, x, method, batch_size=batch_size, **options)
        np.testing.assert_allclose(parts.values, together.values, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(get_score(parts), get_score(together), rtol=1e-5)
    alone = explain(model, x[2], method, **options)  # without a batch axis
    np.testing.assert_allclose(alone.values[0], together.values[2], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_every_method_on_every_model_type(any_model: tuple[Any, Any], method: str) -> None:
    skip_without_packages(method)
    model, x = any_model
    heatmap = explain(model, x, method, **QUICK.get(method, {}))
    has_layer_size = get_methods()[method].takes_layer and method != "guided_gradcam"
    assert heatmap.values.shape == ((5, 4, 4) if has_layer_size else (5, 12, 12))
    assert np.isfinite(heatmap.values).all()
    assert heatmap.values.any(axis=(1, 2)).mean() > 0.5
    assert heatmap.is_logit
    assert heatmap.target is not None
    np.testing.assert_array_equal(heatmap.target, model.predict(x, verbose=0).argmax(1))


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_functions_are_traced_once_for_all_batch_sizes(method: str) -> None:
    skip_without_packages(method)
    keras.utils.set_random_seed(0)
    features = [layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((12, 12, 3)), *features, layers.Dense(3, "softmax")])
    random = np.random.default_rng(0)
    for images in (3, 1, 7, 3):
        x = random.normal(size=(images, 12, 12, 3)).astype(np.float32)
        explain(model, x, method, batch_size=4, target=1, **QUICK.get(method, {}))
    functions = [
        value for value in get_model_cache(model).values() if isinstance(value, CompiledFunction)
    ]
    assert 1 <= len(functions) <= 3
    assert [function.trace_count for function in functions] == [1] * len(functions)


def test_compiled_functions_do_not_keep_model_alive() -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)])
    explain(model, np.ones((1, 4, 4, 1)), "saliency")
    explain(model, np.ones((1, 4, 4, 1)), "occlusion", baseline=0)

    def score(outputs: Any, model: Any = model) -> Any:
        return outputs[:, model.count_params() % 2]

    explain(model, np.ones((1, 4, 4, 1)), "saliency", score)
    model_reference = weakref.ref(model)
    del model, score
    gc.collect()
    assert model_reference() is None


def test_explained_model_can_be_saved_and_copied(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)])
    x = np.ones((1, 4, 4, 1), np.float32)
    heatmap = explain(model, x, "saliency", 0)
    model.save(tmp_path / "model.keras")
    model_copy = copy.deepcopy(model)
    for other in (keras.models.load_model(tmp_path / "model.keras"), model_copy):
        assert not get_model_cache(other)
        np.testing.assert_array_equal(explain(other, x, "saliency", 0).values, heatmap.values)
    # A copy has functions of its own.
    model_copy.layers[-1].set_weights([np.full((16, 2), 7.0), np.zeros(2)])
    assert explain(model_copy, x, "saliency", 0).values.max() == 7
    np.testing.assert_array_equal(explain(model, x, "saliency", 0).values, heatmap.values)


def test_number_of_cached_functions_is_limited() -> None:
    model = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(2)])
    for _ in range(model_cache._MAX_VALUES + 3):
        explain(model, np.ones((1, 2, 2, 1)), "saliency", target=lambda outputs: outputs[:, 0])
    assert len(get_model_cache(model)) == model_cache._MAX_VALUES


def test_new_weights_are_used() -> None:
    model = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(2)])
    x = np.ones((1, 2, 2, 1))
    for scale in (1.0, 3.0):
        model.layers[-1].set_weights([np.full((4, 2), scale), np.zeros(2)])
        np.testing.assert_allclose(explain(model, x, "saliency", 0).values, scale)


def get_score(heatmap: actgrid.Heatmap) -> Array:
    assert heatmap.score is not None
    return heatmap.score


@pytest.mark.filterwarnings("ignore::actgrid.attribution.ZeroAttributionWarning")
def test_default_target_is_the_predicted_class(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    predicted = model.predict(x, verbose=0).argmax(1)
    heatmap = explain(model, x)
    assert heatmap.target is not None
    np.testing.assert_array_equal(heatmap.target, predicted)
    np.testing.assert_array_equal(heatmap.values, explain(model, x, target=predicted).values)
    np.testing.assert_array_equal(heatmap.values, explain(model, x, target=list(predicted)).values)
    assert heatmap.method == "gradcam"
    assert heatmap.is_logit
    # The score is the logit before the softmax.
    exponentials = [np.exp(get_score(explain(model, x, target=index))) for index in range(3)]
    probabilities = np.exp(get_score(heatmap)) / np.sum(exponentials, 0)
    np.testing.assert_allclose(probabilities, model.predict(x, verbose=0).max(1), rtol=1e-4)


@pytest.mark.filterwarnings("ignore::actgrid.attribution.ZeroAttributionWarning")
def test_target_by_class_name(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    labels = ["tabby", "tiger cat", "Egyptian cat"]
    heatmap = explain(model, x, target="TIGER cat", labels=labels)
    assert heatmap.labels == ("tiger cat",) * 5
    np.testing.assert_array_equal(heatmap.values, explain(model, x, target=1).values)
    mixed = explain(model, x, target=["tabby", 2, None, 1, "tabby"], labels=labels)
    assert mixed.labels is not None
    assert mixed.labels[:2] == ("tabby", "Egyptian cat")
    assert explain(model, x).labels is None


@pytest.mark.parametrize(
    "target",
    [[2] * 5, np.full(5, 2, np.uint8), iter([2] * 5), np.array(2), tf.constant(2), tf.fill([5], 2)],
)
def test_target_as_array_iterator_or_tensor(cnn: tuple[Any, Any], target: Any) -> None:
    heatmap = explain(*cnn, target=target)
    assert heatmap.target is not None
    assert heatmap.target.tolist() == [2] * 5


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "there is no class 3: the model has 3, 0 to 2"),
        ([0, 1, 2, 3, 0], "there is no class 3"),
        (-1, "0 or more, not -1"),
        ([0, 1], "got 2 targets for 5 images"),
        ("tabbi", r"no class is called 'tabbi' \(did you mean tabby\?\)"),
        ("twice", "2 classes are called 'twice': give an index, 1 or 2"),
        (1.5, "target must be a class, its name, a list of these, or a function"),
        (True, "target must be a class"),
        (b"tabby", "target must be a class"),
        (np.array(1.5), "target must be a class"),
        (tf.constant(1.5), "target must be a class"),
        ([None, "tabbi", 0, 0, 0], "no class is called 'tabbi'"),
    ],
)
@pytest.mark.parametrize("method", ["gradcam", "saliency", "occlusion"])
def test_invalid_targets_are_rejected(
    cnn: tuple[Any, Any], method: str, target: Any, message: str
) -> None:
    with pytest.raises(TargetError, match=message):
        explain(*cnn, method, target, labels=["tabby", "twice", "Twice"])


def test_unknown_class_names_and_invalid_labels_are_rejected(cnn: tuple[Any, Any]) -> None:
    with pytest.raises(TargetError, match="names of the model's classes are not known"):
        explain(*cnn, target="tabby")
    with pytest.raises(TargetError, match="labels must name the model's 3 classes, not 2"):
        explain(*cnn, target=0, labels=["a", "b"])
    with pytest.raises(MissingFileError, match="abc"):
        explain(*cnn, labels="abc")
    for labels in (3, [1, 2, 3], iter("abc")):
        with pytest.raises(TargetError, match="labels must be a list of names"):
            explain(*cnn, labels=labels)


def test_single_output_without_evidence_of_classes() -> None:
    model = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(1, "tanh")])
    heatmap = explain(model, np.ones((3, 2, 2, 1)), "saliency")
    np.testing.assert_array_equal(heatmap.target, [0, 0, 0])
    assert not heatmap.is_logit


def test_target_function_of_segmentation() -> None:
    keras.utils.set_random_seed(0)
    first = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")
    last = layers.Conv2D(2, 1, activation="softmax", name="last")
    model = keras.Sequential([keras.Input((6, 6, 3)), first, last])
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)

    def corner(outputs: Any) -> Any:
        return tf.reduce_mean(outputs[:, :2, :2, 1], (1, 2))

    heatmap = explain(model, x, "saliency", corner)
    assert heatmap.target is None
    assert heatmap.labels is None
    np.testing.assert_allclose(
        get_score(heatmap), model(x).numpy()[:, :2, :2, 1].mean((1, 2)), rtol=1e-5
    )
    # Pixels outside of the receptive field have no gradient.
    assert heatmap.values[:, :3, :3].all()
    assert not heatmap.values[:, 3:].any()
    assert explain(model, x, target=corner, layer="first").values.shape == (2, 6, 6)
    with pytest.raises(TargetError, match=r"\(None, 6, 6, 2\), is not one score.*pass a target"):
        explain(model, x)
    with pytest.raises(ShapeError, match=r"one score for each image, \(N,\), not \(None, 6, 6"):
        explain(model, x, target=lambda outputs: outputs)


def test_several_outputs_need_a_choice_or_a_function() -> None:
    inputs = keras.Input((4, 4, 3))
    x = layers.Flatten()(inputs)
    model = keras.Model(inputs, {"box": layers.Dense(4)(x), "score": layers.Dense(1)(x)})
    image = np.ones((2, 4, 4, 3))
    with pytest.raises(
        TargetError, match="the model has 2 outputs, 'box', 'score': pass a target of"
    ):
        explain(model, image, "saliency")
    heatmap = explain(model, image, "saliency", lambda outputs: outputs["score"], reduce="sum")
    weights = model.layers[-1].get_weights()[0].reshape(4, 4, 3)
    np.testing.assert_allclose(heatmap.values[0], weights.sum(-1), rtol=1e-5)


def make_two_image_model() -> Any:
    left, right = keras.Input((4, 4, 1), name="left"), keras.Input((4, 4, 1), name="right")
    joined = layers.Concatenate()([layers.Flatten()(left), layers.Flatten()(right)])
    return keras.Model([left, right], layers.Dense(1)(joined))


def test_image_input_selects_the_explained_input() -> None:
    model = make_two_image_model()
    x = [np.ones((2, 4, 4, 1), np.float32), np.zeros((2, 4, 4, 1), np.float32)]
    weights = np.abs(model.layers[-1].get_weights()[0].reshape(2, 4, 4))
    for image_input, expected in ((None, 0), (0, 0), ("left", 0), (1, 1), ("right", 1)):
        heatmap = explain(model, x, "saliency", image_input=image_input)
        np.testing.assert_allclose(heatmap.values[0], weights[expected], rtol=1e-5)
    with pytest.raises(OptionError, match=r"no input 'rigth' \(did you mean right\?\)"):
        explain(model, x, image_input="rigth")
    with pytest.raises(OptionError, match=r"image_input must be at most 1, not 2"):
        explain(model, x, image_input=2)


def test_optional_input_may_be_none() -> None:
    image = keras.Input((4, 4, 1), name="image")
    extra = keras.Input((2,), name="extra", optional=True)

    class Join(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any, extra: Any = None) -> Any:
            flat = tf.reshape(x, (-1, 16))
            return flat if extra is None else flat + extra[:, :1]

        def compute_output_shape(self, shape: Any, *rest: Any) -> Any:
            return (None, 16)

    model = keras.Model([image, extra], Join()(image, extra))
    heatmap = explain(model, [np.ones((3, 4, 4, 1), np.float32), None], "saliency", 5, batch_size=2)
    assert heatmap.values[:, 1, 1].tolist() == [1, 1, 1]
    assert heatmap.values.sum() == 3


def test_inputs_that_cannot_be_explained_are_rejected() -> None:
    model = keras.Sequential([keras.Input((2, 2, 2, 2, 1)), layers.Flatten()])
    with pytest.raises(ShapeError, match=r"must be \(N, C\).*\(1, 2, 2, 2, 2, 1\)"):
        explain(model, np.ones((1, 2, 2, 2, 2, 1)), "saliency")
    with pytest.raises(ShapeError, match="empty"):
        explain(make_two_image_model(), [np.ones((0, 4, 4, 1)), np.ones((0, 4, 4, 1))], "saliency")


def test_integer_images(make_linear: Any) -> None:
    weights = np.random.default_rng(0).normal(size=(4, 4, 3, 2)).astype(np.float32)
    x = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3), np.uint8)
    heatmap = explain(make_linear(weights), x, "gradient_x_input", 0)
    np.testing.assert_allclose(heatmap.values, (weights[..., 0] * x).sum(-1), rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(heatmap.images, x)


@pytest.mark.parametrize(
    ("low", "high", "levels"),
    [(0, 255, [0, 255]), (0, 1, [0, 255]), (-1, 1, [0, 255]), (0, 100, [0, 100]), (3, 3, [3, 3])],
)
def test_inputs_are_drawn_as_pictures(
    make_linear: Any, low: float, high: float, levels: list[int]
) -> None:
    x = np.full((1, 2, 2, 1), high, np.float32)
    x[0, 0, 0] = low
    heatmap = explain(make_linear(np.ones((2, 2, 1, 1), np.float32)), x, "saliency")
    assert heatmap.images is not None
    assert heatmap.images[0, :, :, 0].ravel().tolist() == [levels[0], *levels[1:] * 3]
    assert heatmap.images.shape == (1, 2, 2, 3)


def test_inputs_of_five_channels_have_no_pictures(make_linear: Any) -> None:
    heatmap = explain(
        make_linear(np.ones((2, 2, 5, 1), np.float32)), np.ones((1, 2, 2, 5)), "saliency"
    )
    assert heatmap.images is None
    assert heatmap.to_rgb().shape[2] == 3


def test_image_files_are_prepared_for_the_model(tmp_path: Path, cnn: tuple[Any, Any]) -> None:
    model, _ = cnn
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    for name in ("a", "b"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    heatmap = explain(model, tmp_path, "saliency")
    assert heatmap.images is not None
    np.testing.assert_array_equal(heatmap.images, [pixels, pixels])
    # `load_images` scales the pixels to 0 to 1 for this model.
    expected = explain(model, pixels[None] / np.float32(255), "saliency")
    np.testing.assert_allclose(heatmap.values, expected.values.repeat(2, 0), rtol=1e-4, atol=1e-6)
    single = explain(model, Image.fromarray(pixels), "saliency")
    np.testing.assert_allclose(single.values, expected.values, rtol=1e-4, atol=1e-6)
    with pytest.raises(MissingFileError):
        explain(model, tmp_path / "c.png")


def test_channels_first_image() -> None:
    inputs = keras.Input((3, 5, 6))
    flat = layers.Flatten(data_format="channels_first")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(flat))
    # Keras flattens channels-first inputs in channels-last order.
    weights = model.layers[-1].get_weights()[0].reshape(5, 6, 3, 2)[..., 1].transpose(2, 0, 1)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype(np.float32)
    heatmap = explain(model, x, "saliency", 1, reduce="sum")
    np.testing.assert_allclose(heatmap.values[0], weights.sum(0), rtol=1e-4, atol=1e-6)
    assert heatmap.images is not None
    assert heatmap.images.shape == (2, 5, 6, 3)
    hidden = explain(model, x, "occlusion", 1, patch=1, baseline=[1.0, 2.0, 3.0])
    colour = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(hidden.values, (weights * (x - colour)).sum(1), atol=1e-4)
    pytest.importorskip("sklearn")
    assert explain(model, x, "lime", 1, samples=20, segments=4).values.shape == (2, 5, 6)
    assert explain(model, x, "integrated_gradients", 1, steps=2, baseline="mean").values.any()


def test_mixed_precision() -> None:
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", dtype=policy, name="conv"),
            layers.GlobalAveragePooling2D(dtype=policy),
            layers.Dense(3, activation="softmax", dtype=policy),
        ]
    )
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    for method in ("saliency", "gradcam", "occlusion"):
        heatmap = explain(model, x, method)
        assert heatmap.values.dtype == np.float32
        assert heatmap.values.any()
        assert heatmap.is_logit


def test_invalid_arguments_are_rejected(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    with pytest.raises(
        OptionError, match=r"method must be one of saliency, .*did you mean gradcam"
    ):
        explain(model, x, "grad_cam")
    with pytest.raises(OptionError, match="method must be one of"):
        explain(model, x, 3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"unknown option 'step' \(did you mean steps"):
        explain(model, x, "integrated_gradients", step=3)  # type: ignore[call-overload]
    with pytest.raises(OptionError, match="saliency: unknown option 'steps'"):
        explain(model, x, "saliency", steps=3)
    with pytest.raises(OptionError, match="batch_size must be at least 1"):
        explain(model, x, batch_size=0)
    with pytest.raises(ShapeError, match="takes an input of"):
        explain(model, x[:, :5])
    with pytest.raises(ActgridError, match="is not a model"):
        explain("dmo", x)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["gradcam", "lime"])
def test_images_with_nan_or_infinity_are_rejected(
    cnn: tuple[Any, Any], method: str, value: float
) -> None:
    model, x = cnn
    x = x.copy()
    x[1, 2, 3, 0] = value
    with pytest.raises(OptionError, match="NaN or infinite"):
        explain(model, x, method)


def test_images_that_are_not_numeric_are_rejected(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    invalid: Any
    for invalid in (object(), x.astype(object), tf.RaggedTensor.from_tensor(x), {1}):
        with pytest.raises(DtypeError, match="input must be arrays of numbers, not"):
            explain(model, invalid)
    with pytest.raises(DtypeError, match="real numbers, not complex64"):
        explain(model, x.astype(np.complex64))


def test_inputs_of_different_lengths_are_rejected() -> None:
    with pytest.raises(ShapeError, match=r"the same number of samples: got \[3, 2\]"):
        explain(make_two_image_model(), [np.ones((3, 4, 4, 1)), np.ones((2, 4, 4, 1))], "saliency")


def test_target_function_must_return_one_score_for_each_image(cnn: tuple[Any, Any]) -> None:
    with pytest.raises(ShapeError, match="one score for each image: got 2 scores for 5 images"):
        explain(*cnn, "occlusion", lambda outputs: outputs[:2, 0])
    with pytest.raises(ShapeError, match="not None"):
        explain(*cnn, target=lambda outputs: None)


def test_error_of_model_names_the_input_shape() -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3)])
    with pytest.raises(
        ModelError, match=r"run on inputs of shape \(None, 1, 1, 3\): .*Negative dimension"
    ):
        explain(model, np.ones((2, 1, 1, 3)))
    stateful = keras.Sequential(
        [
            keras.Input(batch_shape=(2, 4, 4, 1)),
            layers.Reshape((4, 4)),
            layers.LSTM(2, stateful=True),
            layers.Dense(2),
        ]
    )
    with pytest.raises(
        ModelError, match=r"cannot be run on inputs of shape \(.*\): Incompatible shapes"
    ):
        explain(stateful, np.ones((2, 4, 4, 1)), "integrated_gradients", steps=3)


def test_model_that_is_not_built() -> None:
    # Random weights can give a map of zeros, which warns.
    conv = layers.Conv2D(2, 3, kernel_initializer="ones", name="conv")
    model = keras.Sequential([conv, layers.Flatten(), layers.Dense(2, kernel_initializer="ones")])
    assert explain(model, np.ones((1, 6, 6, 1), np.float32)).layer == "conv"


def test_demo_model_and_photo() -> None:
    heatmap = explain("demo", actgrid.demo.photo(), target="tabby")
    assert heatmap.labels == ("tabby",)
    assert heatmap.layer == "head_relu"
    assert heatmap.values.shape == (1, 7, 7)
    assert heatmap.images is not None
    assert heatmap.images.shape == (1, 300, 451, 3)


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_progress_is_called_before_each_run_and_may_raise(
    method: str, cnn: tuple[Any, Any]
) -> None:
    model, x = cnn
    skip_without_packages(method)
    runs: list[tuple[int, int]] = []

    def stop_at_second_run(done: int, total: int) -> None:
        runs.append((done, total))
        if len(runs) == 2:
            raise KeyboardInterrupt

    request = prepare_request(model, x[:2], batch_size=1, progress=stop_at_second_run)
    with pytest.raises(KeyboardInterrupt):
        request.explain(get_methods()[method], None, {})
    assert len(runs) == 2
    assert all(0 <= done < total for done, total in runs)


def test_progress_counts_samples_of_each_pass(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    reports: list[tuple[int, int]] = []
    request = prepare_request(
        model, x[:1], batch_size=4, progress=lambda done, total: reports.append((done, total))
    )
    request.explain(get_methods()["rise"], None, {"samples": 10})
    assert reports == [(0, 1), (0, 10), (4, 10), (8, 10), *[(10, 10)] * 3]
