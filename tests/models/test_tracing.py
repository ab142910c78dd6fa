"""Tests of error messages for models that fail or return no output."""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

import actgrid
from actgrid import Extractor, gradients, list_layers
from actgrid.errors import ActgridError, ModelError, OptionError, UnusableModelError
from actgrid.models.graph import build_layer_graph

Array = npt.NDArray[Any]
Scores = namedtuple("Scores", "classes features")


class Custom(Exception):  # noqa: N818
    """An error whose constructor arguments Keras cannot copy."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class Head(keras.Model):  # type: ignore[misc]
    """A model that returns `result` of its scores and features."""

    def __init__(self, result: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.result = result
        self.conv = layers.Conv2D(2, 3, name="conv")
        self.dense = layers.Dense(3, name="dense")

    def call(self, x: Any) -> Any:
        features = self.conv(x)
        return self.result(self.dense(keras.ops.mean(features, (1, 2))), features)


@pytest.fixture
def x() -> Array:
    return np.random.default_rng(1).random((2, 6, 6, 3), np.float32)


def make_failing_result(error: BaseException) -> Callable[[Any, Any], Any]:
    def result(scores: Any, features: Any) -> Any:
        raise error

    return result


def branch_in_python(scores: Any, features: Any) -> Any:
    return scores if tf.reduce_sum(scores) > 0 else -scores


EAGER_ONLY_RESULTS = {
    "numpy": lambda scores, features: tf.constant(scores.numpy()),
    "bool": branch_in_python,
    "float": lambda scores, features: scores * float(scores[0, 0]),
    "array": lambda scores, features: tf.constant(np.asarray(scores)),
    "loop": lambda scores, features: tf.stack(list(scores)),
}
RUNS: dict[str, Callable[[Any, Array], Any]] = {
    "extract": lambda model, x: Extractor(model)(x),
    "list": lambda model, x: list_layers(model, x),
    "render": lambda model, x: actgrid.render_model(model, x),
    "measure": lambda model, x: actgrid.measure_images(model, x),  # which skips invalid images
    "diagram": lambda model, x: actgrid.diagram(model, x),
    "explain": lambda model, x: actgrid.explain(model, x, method="saliency", target=0),
    "gradients": lambda model, x: gradients(model, x, np.zeros((2, 3), np.float32), loss="mse"),
    "maximize": lambda model, x: actgrid.maximize(model, "conv", 0, steps=1, size=6),
}


@pytest.mark.parametrize("kind", EAGER_ONLY_RESULTS)
def test_eager_only_model_raises_with_remedy(kind: str, x: Array) -> None:
    model = Head(EAGER_ONLY_RESULTS[kind])
    model(x)  # succeeds eagerly
    for run in (Extractor(model, "conv"), lambda x: actgrid.measure_images(model, x)):
        message = r"runs only eagerly.*keras\.ops\.where.*py_function"
        with pytest.raises(UnusableModelError, match=message):
            run(x)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("error", [KeyError("depth"), Custom(1, 2), ZeroDivisionError()])
def test_error_in_model_code_becomes_model_error_with_cause(
    run: str, error: Exception, x: Array
) -> None:
    expected = {
        KeyError: "KeyError: depth",
        Custom: "RuntimeError: 1 and 2",
        ZeroDivisionError: "ZeroDivisionError",
    }[type(error)]
    if run == "maximize":
        x = x[:1]
    for model in (Head(make_failing_result(error)), Head(lambda scores, features: scores)):
        # The model fails either while it is built, or while it is traced.
        if model.result.__name__ == "<lambda>":
            model(x)
            model.result = make_failing_result(error)
        with pytest.raises(ModelError) as caught:
            RUNS[run](model, x)
        assert str(caught.value).startswith("the model cannot be run on inputs of shape ("), str(
            caught.value
        )
        assert str(caught.value).endswith(f": Head.call(): {expected}")
        cause = caught.value.__cause__
        assert isinstance(cause, (type(error), RuntimeError))


def test_error_messages_contain_no_terminal_codes(x: Array) -> None:
    codes = "\x1b[1;31mred\x1b[0m \x1b]8;;http://a\x07link\x1b]8;;\x1b\\ \x1b[2K\x1bMup"
    with pytest.raises(ModelError) as caught:
        Extractor(Head(make_failing_result(ValueError(codes))))(x)
    assert str(caught.value) == (
        "the model cannot be run on inputs of shape (2, 6, 6, 3): Head.call(): red link up"
    )
    assert str(ActgridError(codes)) == "red link up"


def test_system_exit_is_not_converted(x: Array) -> None:
    with pytest.raises(SystemExit):
        Extractor(Head(make_failing_result(SystemExit(3))))(x)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda scores, features: None, "the model returns None instead of an output"),
        (lambda scores, features: [None, None], "the model returns None instead"),
        (lambda scores, features: tf.strings.as_string(scores), "returns string; expected real"),
        (lambda scores, features: tf.cast(scores, "complex64"), "returns complex64; expected real"),
        (lambda scores, features: object(), "returns a object; expected a tensor"),
        (lambda scores, features: {1: scores, "a": scores}, "output cannot be read: '<' not"),
        (
            lambda scores, features: tf.RaggedTensor.from_tensor(scores),
            r"returns a RaggedTensor; .* return value\.to_tensor\(\)",
        ),
        (
            lambda scores, features: tf.sparse.from_dense(scores),
            r"returns a SparseTensor; .* return tf\.sparse\.to_dense\(value\)",
        ),
    ],
)
def test_invalid_output_raises_only_where_output_is_needed(
    result: Any, message: str, x: Array
) -> None:
    model = Head(result)
    np.testing.assert_array_equal(Extractor(model, "conv")(x)["conv"], model.conv(x))
    assert [info.path for info in list_layers(model, x)] == ["conv", "dense"]
    assert "conv" in actgrid.render_model(model, x)
    for run in (
        lambda: actgrid.explain(model, x, method="saliency", target=0),
        lambda: gradients(model, x, np.zeros((2, 3), np.float32), loss="mse"),
        lambda: gradients(model, x, 0, loss=lambda y, output: tf.reduce_sum(output)),
    ):
        with pytest.raises(ModelError, match=message):
            run()


def test_loss_receives_output_structure_unchanged(x: Array) -> None:
    for result in (
        lambda scores, features: Scores(scores, features),
        lambda scores, features: [scores, (features, None)],
    ):
        model = Head(result)
        result_gradients = gradients(
            model, x, 0, loss=lambda y, outputs: tf.reduce_sum(outputs[0]), layers="conv"
        )
        expected = model.dense.kernel.numpy().sum(1) / 16  # mean over 4 x 4 positions
        np.testing.assert_allclose(
            result_gradients.activations["conv"], np.broadcast_to(expected, (2, 4, 4, 2)), rtol=1e-5
        )


def test_python_number_is_valid_output() -> None:
    model = Head(lambda scores, features: 3.0)
    x = np.ones((1, 6, 6, 3), np.float32)
    assert gradients(model, x, 0, loss=lambda y, output: output * 2).loss == 6


def test_layer_accepts_any_input_structure(x: Array) -> None:
    class Mixed(layers.Layer):  # type: ignore[misc]
        def call(self, values: Any) -> Any:
            return {1: values[1] * 2, "a": values["a"]}

    class Model(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.mixed = Mixed(name="mixed")

        def call(self, x: Any) -> Any:
            return self.mixed({1: x, "a": x})[1]

    activations = Extractor(Model())(x)
    assert list(activations) == ["mixed[1]", "mixed[a]"]
    np.testing.assert_array_equal(activations["mixed[1]"], x * 2)
    graph = build_layer_graph(Model(), x)
    assert [info.path for info in graph.infos] == ["input", "mixed[1]", "mixed[a]"]


def test_loss_error_names_output_shapes(x: Array) -> None:
    model = Head(lambda scores, features: [scores, features])
    message = (
        r"loss failed on an output of shape \[\(None, 3\), \(None, 4, 4, 2\)\]: TypeError: .*list"
    )
    with pytest.raises(OptionError, match=message):
        gradients(model, x, 0, loss=lambda y, outputs: tf.reduce_mean(outputs[..., 3]))


def test_error_names_failing_inner_layer() -> None:
    class Deep(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = layers.Conv2D(2, 9, name="too_large")

        def call(self, x: Any) -> Any:
            return self.conv(x)

    deep = Deep()
    deep(np.zeros((1, 9, 9, 3), np.float32))
    with pytest.raises(ModelError) as caught:
        Extractor(deep)(np.zeros((1, 6, 6, 3), np.float32))
    assert re.match(
        r"the model cannot be run on inputs of shape \(1, 6, 6, 3\): Conv2D\.call\(\): .*",
        str(caught.value),
    )
    assert "Arguments received" not in str(caught.value)
