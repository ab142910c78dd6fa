"""Tests of `actgrid.models.inputs`: names, structures and shapes of model inputs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from actgrid import Extractor
from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.models.extraction import trace_layers
from actgrid.models.inputs import (
    build_submodel,
    find_input_position,
    get_batch_shape,
    join_batches,
    list_input_layer_names,
    list_input_names,
    prepare_inputs,
)

Array = npt.NDArray[Any]

RGB = np.random.default_rng(0).random((2, 4, 5, 3), np.float32)
DEPTH = np.random.default_rng(1).random((2, 4, 5, 1), np.float32)


def test_list_input_layer_names() -> None:
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([b, a], layers.Concatenate()([a, b]))
    assert list_input_layer_names(model) == ["b", "a"]
    sequential = keras.Sequential([keras.Input((2,), name="c"), layers.Dense(1)])
    assert list_input_layer_names(sequential) == ["c"]
    assert list_input_layer_names(keras.Sequential([layers.Dense(1)])) == []


def test_build_submodel_keeps_inputs() -> None:
    model = keras.Sequential(
        [keras.Input((2,)), layers.Rescaling(2.0, name="two"), layers.Rescaling(3.0)]
    )
    submodel = build_submodel(model, model.get_layer("two").output)
    np.testing.assert_array_equal(submodel(np.ones((1, 2))), [[2, 2]])
    a, b = keras.Input((2,)), keras.Input((2,))
    two_input_model = keras.Model([a, b], layers.Add()([a, b]))
    doubled = build_submodel(two_input_model, layers.Rescaling(2.0)(two_input_model.outputs[0]))
    np.testing.assert_array_equal(doubled([np.ones((1, 2)), np.ones((1, 2))]), [[4, 4]])


# --- several inputs, by name


def make_two_input_model(structure: str) -> Any:
    """Return a model with two inputs in one of several structures."""
    # The alphabetical order of the names differs from their order in lists.
    rgb, depth = keras.Input((4, 5, 3), name="rgb"), keras.Input((4, 5, 1), name="depth")
    merged = layers.Concatenate(name="merged")([layers.Rescaling(2.0)(rgb), depth])
    inputs: dict[str, Any] = {
        "list": [rgb, depth],
        "tuple": (rgb, depth),
        "dict": {"rgb": rgb, "depth": depth},
        "nest": [[rgb], {"depth": depth}],
        "deep dict": {"sight": {"rgb": rgb}, "range": [depth]},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns about keys that are not tensor names
        return keras.Model(inputs[structure], merged)


STRUCTURES = ("list", "tuple", "dict", "nest", "deep dict")
EXPECTED = np.concatenate([2 * RGB, DEPTH], -1)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("names", [("rgb", "depth"), ("depth", "rgb")])
def test_dict_inputs_are_matched_by_name(structure: str, names: tuple[str, str]) -> None:
    arrays = {"rgb": RGB, "depth": DEPTH}
    result = Extractor(make_two_input_model(structure), "merged")(
        {name: arrays[name] for name in names}
    )
    np.testing.assert_array_equal(result["merged"], EXPECTED)


@pytest.mark.parametrize(
    ("structure", "x"),
    [
        ("list", [RGB, DEPTH]),
        ("list", (RGB, DEPTH)),
        ("tuple", [RGB, DEPTH]),
        ("nest", [[RGB], {"depth": DEPTH}]),
        ("nest", [RGB, DEPTH]),
        ("nest", [[RGB], DEPTH]),
        ("deep dict", {"sight": {"rgb": RGB}, "range": [DEPTH]}),
        ("deep dict", {"sight": RGB, "depth": DEPTH}),
        ("deep dict", {"range": DEPTH, "sight.rgb": RGB}),
    ],
)
def test_list_and_nested_inputs_are_matched_by_position(structure: str, x: Any) -> None:
    result = Extractor(make_two_input_model(structure), "merged")(x)
    np.testing.assert_array_equal(result["merged"], EXPECTED)


def test_input_forms_share_one_trace() -> None:
    extractor = Extractor(make_two_input_model("list"), "merged")
    for x in ([RGB, DEPTH], (RGB, DEPTH), {"depth": DEPTH, "rgb": RGB}):
        extractor(x)
    assert extractor.trace_count == 1


@pytest.mark.parametrize("structure", STRUCTURES)
def test_unknown_input_name_raises(structure: str) -> None:
    with pytest.raises(OptionError, match=r"no input 'dept' \(did you mean depth\?\); inputs: "):
        prepare_inputs(make_two_input_model(structure), {"rgb": RGB, "dept": DEPTH})
    with pytest.raises(OptionError, match="no input 'mask'"):
        prepare_inputs(make_two_input_model(structure), {"rgb": RGB, "depth": DEPTH, "mask": DEPTH})


@pytest.mark.parametrize("structure", STRUCTURES)
def test_missing_input_raises(structure: str) -> None:
    with pytest.raises(ShapeError, match="the model also takes the inputs 'depth'"):
        prepare_inputs(make_two_input_model(structure), {"rgb": RGB})


def test_duplicate_input_raises() -> None:
    with pytest.raises(OptionError, match="'rgb' is given twice"):
        prepare_inputs(
            make_two_input_model("deep dict"), {"sight.rgb": RGB, "rgb": RGB, "depth": DEPTH}
        )


@pytest.mark.parametrize(
    ("structure", "x", "message"),
    [
        ("list", [RGB], r"takes 2 inputs \('rgb', 'depth'\), not 1"),
        ("list", RGB, r"takes 2 inputs \('rgb', 'depth'\), not 1"),
        ("list", [RGB, DEPTH, DEPTH], r"takes 2 inputs \('rgb', 'depth'\), not 3"),
        # Keras would read this list in alphabetical order, which neither list nor dict shows.
        ("dict", [RGB, DEPTH], r"takes a dict of the inputs 'depth', 'rgb', not a list of 2"),
    ],
)
def test_wrong_number_of_inputs_raises(structure: str, x: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        prepare_inputs(make_two_input_model(structure), x)


def test_list_fills_dict_with_sorted_keys() -> None:
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Subtract(name="minus")([a, b]))
    result = Extractor(model, "minus")([np.full((1, 2), 5.0), np.full((1, 2), 3.0)])
    np.testing.assert_array_equal(result["minus"], [[2, 2]])


def test_optional_input_may_be_omitted() -> None:
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b", optional=True)

    class Given(layers.Layer):  # type: ignore[misc]
        def call(self, a: Any, b: Any) -> Any:
            return a if b is None else a + b

        def compute_output_spec(self, a: Any, b: Any) -> Any:
            return keras.KerasTensor(a.shape, a.dtype)

    model = keras.Model([a, b], Given(name="given")(a, b))
    extractor = Extractor(model, "given")
    np.testing.assert_array_equal(extractor({"a": np.ones((1, 2))})["given"], [[1, 1]])
    both_inputs = {"b": np.ones((1, 2)), "a": np.ones((1, 2))}
    np.testing.assert_array_equal(extractor(both_inputs)["given"], [[2, 2]])


def test_list_input_names_and_find_input_position() -> None:
    model = make_two_input_model("deep dict")
    inputs = prepare_inputs(model, {"rgb": RGB, "depth": DEPTH})
    names = list_input_names(model, inputs)
    assert names == ["depth", "rgb"]
    assert (
        find_input_position(model, inputs, "depth")
        == find_input_position(model, inputs, "range.0")
        == 0
    )
    assert (
        find_input_position(model, inputs, "sight.rgb")
        == find_input_position(model, inputs, "rgb")
        == 1
    )
    with pytest.raises(OptionError, match="no input 'rbg'"):
        find_input_position(model, inputs, "rbg")


def test_undeclared_inputs_are_named_by_dict_keys() -> None:
    class Pair(keras.Model):  # type: ignore[misc]
        def call(self, inputs: Mapping[str, Any]) -> Any:
            return inputs["b"] - inputs["a"]

    x = {"b": np.full((1, 2), 5.0), "a": np.full((1, 2), 3.0)}
    inputs = prepare_inputs(Pair(), x)
    assert list_input_names(Pair(), inputs) == ["a", "b"]
    np.testing.assert_array_equal(Pair()(inputs), [[2, 2]])


# --- other forms that Keras accepts


def test_single_input_in_list_keeps_structure() -> None:
    inputs = keras.Input((4, 5, 3), name="rgb")
    model = keras.Model([inputs], layers.Rescaling(2.0, name="twice")(inputs))
    # Keras warns about another structure, and warnings are errors in these tests.
    for x in (RGB, [RGB], {"rgb": RGB}):
        np.testing.assert_array_equal(Extractor(model, "twice")(x)["twice"], 2 * RGB)
    unlisted_model = keras.Model(inputs, layers.Rescaling(2.0, name="twice")(inputs))
    forms: list[Any] = [RGB, [RGB], (RGB,), {"rgb": RGB}]
    for x in forms:
        np.testing.assert_array_equal(Extractor(unlisted_model, "twice")(x)["twice"], 2 * RGB)


def make_identity_model(*shape: int | None) -> Any:
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.Rescaling(1.0, name="same")(inputs))


def test_channel_axis_of_length_1_may_be_missing_or_extra() -> None:
    model = make_identity_model(4, 5, 1)
    np.testing.assert_array_equal(model.predict(DEPTH[..., 0], verbose=0), DEPTH)
    for x in (DEPTH, DEPTH[..., 0], DEPTH[..., None]):
        np.testing.assert_array_equal(Extractor(model, "same")(x)["same"], DEPTH)
    column = DEPTH[:, 0]
    assert column.shape == (2, 5, 1)
    np.testing.assert_array_equal(
        Extractor(make_identity_model(5), "same")(column)["same"], column[..., 0]
    )
    numbers = make_identity_model(1)
    np.testing.assert_array_equal(Extractor(numbers, "same")(np.arange(3))["same"], [[0], [1], [2]])


def test_specs_may_lack_channel_axis() -> None:
    extractor = Extractor(make_identity_model(4, 5, 1), "same")
    infos = trace_layers(extractor, tf.TensorSpec((None, 4, 5), tf.float32))
    assert infos["same"].shape == (None, 4, 5, 1)


def test_nested_lists_of_numbers_are_arrays() -> None:
    model = make_identity_model(2)
    np.testing.assert_array_equal(
        Extractor(model, "same")([[1, 2], [3, 4]])["same"], [[1, 2], [3, 4]]
    )
    np.testing.assert_array_equal(Extractor(model, "same")([[1, 2]])["same"], [[1, 2]])


def test_list_of_samples_is_batch_and_list_of_batches_is_inputs() -> None:
    model = make_identity_model(4, 5, 1)
    for x in (list(DEPTH), list(DEPTH[..., 0]), [DEPTH], [DEPTH[..., 0]]):
        np.testing.assert_array_equal(Extractor(model, "same")(x)["same"], DEPTH)
    with pytest.raises(ShapeError, match="the model takes 1 input, not 2"):
        prepare_inputs(model, [DEPTH, DEPTH])


def test_non_numeric_input_raises() -> None:
    with pytest.raises(DtypeError, match="must be arrays of numbers, not list"):
        prepare_inputs(make_identity_model(2), [[1, 2], [3]])
    with pytest.raises(DtypeError):
        prepare_inputs(make_identity_model(2), object())


@pytest.mark.parametrize(
    ("shape", "x", "message"),
    [
        ((4, 5, 3), (4, 5, 3), r"of \(None, 4, 5, 3\), not \(4, 5, 3\); add a batch axis"),
        ((4, 5, 3), (2, 4, 6, 3), r"of \(None, 4, 5, 3\), not \(2, 4, 6, 3\)$"),
        ((4, 5, 1), (2, 3, 5), r"of \(None, 4, 5, 1\), not \(2, 3, 5\)$"),
        ((50, 3), (5, 40, 3), r"of \(None, 50, 3\), not \(5, 40, 3\)$"),
    ],
)
def test_wrong_shape_error_shows_given_shape(
    shape: tuple[int, ...], x: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        Extractor(make_identity_model(*shape), "same")(np.zeros(x, np.float32))


def test_wrong_shape_error_names_input() -> None:
    with pytest.raises(
        ShapeError, match=r"an input 'depth' of \(None, 4, 5, 1\), not \(2, 4, 5, 3\)"
    ):
        prepare_inputs(make_two_input_model("list"), {"rgb": RGB, "depth": RGB})


@pytest.mark.parametrize(
    ("shape", "x", "expected"),
    [
        ((4, 5, 3), (4, 5, 3), (1, 4, 5, 3)),
        ((4, 5, 3), (2, 4, 5, 3), (2, 4, 5, 3)),
        ((4, 5, 1), (4, 5), (1, 4, 5, 1)),
        ((4, 5, 1), (4, 5, 1), (1, 4, 5, 1)),
        ((4, 5, 1), (7, 4, 5), (7, 4, 5, 1)),
        ((4, 4, 1), (4, 4, 4), (4, 4, 4, 1)),
        ((None, None, 1), (4, 5, 1), (1, 4, 5, 1)),
        ((None, None, 1), (7, 4, 5), (7, 4, 5, 1)),
        ((50, 3), (5, 50, 3), (5, 50, 3)),
        ((50, 3), (50, 3), (1, 50, 3)),
    ],
)
def test_single_sample_gets_batch_axis(
    shape: tuple[int | None, ...], x: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    result = prepare_inputs(make_identity_model(*shape), np.zeros(x, np.float32), single=True)
    assert tuple(result.shape) == expected


def test_single_sample_of_several_inputs_gets_batch_axis() -> None:
    model = make_two_input_model("dict")
    result = prepare_inputs(model, {"rgb": RGB[0], "depth": DEPTH[0, ..., 0]}, single=True)
    np.testing.assert_array_equal(result["rgb"], RGB[:1])
    np.testing.assert_array_equal(result["depth"], DEPTH[:1])


@given(
    batch=st.integers(1, 3),
    sides=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    channels=st.integers(1, 2),
)
def test_fitting_input_is_unchanged(batch: int, sides: list[int], channels: int) -> None:
    x = np.arange(batch * int(np.prod(sides)) * channels, dtype=np.float32)
    x = x.reshape(batch, *sides, channels)
    np.testing.assert_array_equal(prepare_inputs(make_identity_model(*sides, channels), x), x)


def test_join_batches_by_name() -> None:
    parts = [{"a": np.full((1, 2), n), "b": np.full((1, 3), -n)} for n in (1, 2)]
    joined = join_batches(parts)
    np.testing.assert_array_equal(joined["a"], [[1, 1], [2, 2]])
    np.testing.assert_array_equal(joined["b"], [[-1] * 3, [-2] * 3])
    assert get_batch_shape(joined) == {"a": (2, 2), "b": (2, 3)}
    np.testing.assert_array_equal(
        join_batches([np.ones((1, 2)), np.zeros((1, 2))]), [[1, 1], [0, 0]]
    )
    assert get_batch_shape(np.ones((3, 2))) == (3, 2)
