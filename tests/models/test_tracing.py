"""Errors in words for models whose own code fails or returns no output."""

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
from actgrid.models.graph import layer_graph

Array = npt.NDArray[Any]
Scores = namedtuple("Scores", "classes features")


class Custom(Exception):  # noqa: N818
    """An error with a constructor of its own, which Keras cannot copy."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class Head(keras.Model):  # type: ignore[misc]
    """A convolution, and scores of it, of which `result` makes what the model returns."""

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


def raises(error: BaseException) -> Callable[[Any, Any], Any]:
    def result(scores: Any, features: Any) -> Any:
        raise error

    return result


def by_python(scores: Any, features: Any) -> Any:
    return scores if tf.reduce_sum(scores) > 0 else -scores


EAGER_ONLY = {
    "numpy": lambda scores, features: tf.constant(scores.numpy()),
    "bool": by_python,
    "float": lambda scores, features: scores * float(scores[0, 0]),
    "array": lambda scores, features: tf.constant(np.asarray(scores)),
    "loop": lambda scores, features: tf.stack(list(scores)),
}
RUNS: dict[str, Callable[[Any, Array], Any]] = {
    "extract": lambda model, x: Extractor(model)(x),
    "list": lambda model, x: list_layers(model, x),
    "render": lambda model, x: actgrid.render_model(model, x),
    "measure": lambda model, x: actgrid.measure_images(model, x),  # which skips bad images
    "diagram": lambda model, x: actgrid.diagram(model, x),
    "explain": lambda model, x: actgrid.explain(model, x, method="saliency", target=0),
    "gradients": lambda model, x: gradients(model, x, np.zeros((2, 3), np.float32), loss="mse"),
    "maximize": lambda model, x: actgrid.maximize(model, "conv", 0, steps=1, size=6),
}


@pytest.mark.parametrize("kind", EAGER_ONLY)
def test_a_model_that_only_runs_eagerly_is_refused_with_what_would_do(kind: str, x: Array) -> None:
    model = Head(EAGER_ONLY[kind])
    model(x)  # which is no fault of the model's
    for run in (Extractor(model, "conv"), lambda x: actgrid.measure_images(model, x)):
        message = r"runs only eagerly.*keras\.ops\.where.*py_function"
        with pytest.raises(UnusableModelError, match=message):
            run(x)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("error", [KeyError("depth"), Custom(1, 2), ZeroDivisionError()])
def test_any_error_of_a_models_code_is_a_model_error_with_its_cause(
    run: str, error: Exception, x: Array
) -> None:
    expected = {
        KeyError: "KeyError: depth",
        Custom: "RuntimeError: 1 and 2",
        ZeroDivisionError: "ZeroDivisionError",
    }[type(error)]
    if run == "maximize":
        x = x[:1]
    for model in (Head(raises(error)), Head(lambda scores, features: scores)):
        # Whether the model fails as it is built, or as it is traced.
        if model.result.__name__ == "<lambda>":
            model(x)
            model.result = raises(error)
        with pytest.raises(ModelError) as caught:
            RUNS[run](model, x)
        assert str(caught.value).startswith("the model cannot be run on ("), str(caught.value)
        assert str(caught.value).endswith(f": Head.call(): {expected}")
        cause = caught.value.__cause__
        assert isinstance(cause, (type(error), RuntimeError))


def test_errors_hold_no_terminal_codes(x: Array) -> None:
    codes = "\x1b[1;31mred\x1b[0m \x1b]8;;http://a\x07link\x1b]8;;\x1b\\ \x1b[2K\x1bMup"
    with pytest.raises(ModelError) as caught:
        Extractor(Head(raises(ValueError(codes))))(x)
    assert str(caught.value) == (
        "the model cannot be run on (2, 6, 6, 3): Head.call(): red link up"
    )
    assert str(ActgridError(codes)) == "red link up"


def test_an_end_of_the_program_is_no_error_of_the_model(x: Array) -> None:
    with pytest.raises(SystemExit):
        Extractor(Head(raises(SystemExit(3))))(x)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda scores, features: None, "the model returns None instead of an output"),
        (lambda scores, features: [None, None], "the model returns None instead"),
        (lambda scores, features: tf.strings.as_string(scores), "returns string, expected real"),
        (lambda scores, features: tf.cast(scores, "complex64"), "returns complex64, expected real"),
        (lambda scores, features: object(), "returns a object, expected a tensor"),
        (lambda scores, features: {1: scores, "a": scores}, "output cannot be read: '<' not"),
        (
            lambda scores, features: tf.RaggedTensor.from_tensor(scores),
            r"returns a RaggedTensor, .* return value\.to_tensor\(\)",
        ),
        (
            lambda scores, features: tf.sparse.from_dense(scores),
            r"returns a SparseTensor, .* return tf\.sparse\.to_dense\(value\)",
        ),
    ],
)
def test_what_is_no_output_is_told_where_the_output_is_needed(
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


def test_structures_of_outputs_reach_a_loss_as_the_model_returns_them(x: Array) -> None:
    for result in (
        lambda scores, features: Scores(scores, features),
        lambda scores, features: [scores, (features, None)],
    ):
        model = Head(result)
        found = gradients(
            model, x, 0, loss=lambda y, outputs: tf.reduce_sum(outputs[0]), layers="conv"
        )
        expected = model.dense.kernel.numpy().sum(1) / 16  # of 4 x 4 places
        np.testing.assert_allclose(
            found.activations["conv"], np.broadcast_to(expected, (2, 4, 4, 2)), rtol=1e-5
        )


def test_a_number_of_python_is_an_output() -> None:
    model = Head(lambda scores, features: 3.0)
    x = np.ones((1, 6, 6, 3), np.float32)
    assert gradients(model, x, 0, loss=lambda y, output: output * 2).loss == 6


def test_a_layer_may_be_called_with_any_structure(x: Array) -> None:
    class Mixed(layers.Layer):  # type: ignore[misc]
        def call(self, values: Any) -> Any:
            return {1: values[1] * 2, "a": values["a"]}

    class Model(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.mixed = Mixed(name="mixed")

        def call(self, x: Any) -> Any:
            return self.mixed({1: x, "a": x})[1]

    found = Extractor(Model())(x)
    assert list(found) == ["mixed[1]", "mixed[a]"]
    np.testing.assert_array_equal(found["mixed[1]"], x * 2)
    graph = layer_graph(Model(), x)
    assert [info.path for info in graph.infos] == ["input", "mixed[1]", "mixed[a]"]


def test_the_error_of_a_loss_is_told_with_what_it_was_given(x: Array) -> None:
    model = Head(lambda scores, features: [scores, features])
    message = r"loss failed on an output of \[\(None, 3\), \(None, 4, 4, 2\)\]: TypeError: .*list"
    with pytest.raises(OptionError, match=message):
        gradients(model, x, 0, loss=lambda y, outputs: tf.reduce_mean(outputs[..., 3]))


def test_the_inner_layer_that_failed_is_named() -> None:
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
        r"the model cannot be run on \(1, 6, 6, 3\): Conv2D\.call\(\): .*", str(caught.value)
    )
    assert "Arguments received" not in str(caught.value)
