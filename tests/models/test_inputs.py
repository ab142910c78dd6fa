"""What a model takes."""

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
    batch_shape,
    input_names,
    join_batches,
    names_of,
    partial_model,
    position_of,
    prepare_inputs,
)

Array = npt.NDArray[Any]

RGB = np.random.default_rng(0).random((2, 4, 5, 3), np.float32)
DEPTH = np.random.default_rng(1).random((2, 4, 5, 1), np.float32)


def test_names_are_those_of_the_input_layers() -> None:
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([b, a], layers.Concatenate()([a, b]))
    assert input_names(model) == ["b", "a"]
    sequential = keras.Sequential([keras.Input((2,), name="c"), layers.Dense(1)])
    assert input_names(sequential) == ["c"]
    assert input_names(keras.Sequential([layers.Dense(1)])) == []


def test_a_partial_model_takes_what_the_model_takes() -> None:
    model = keras.Sequential(
        [keras.Input((2,)), layers.Rescaling(2.0, name="two"), layers.Rescaling(3.0)]
    )
    partial = partial_model(model, model.get_layer("two").output)
    np.testing.assert_array_equal(partial(np.ones((1, 2))), [[2, 2]])
    a, b = keras.Input((2,)), keras.Input((2,))
    both = keras.Model([a, b], layers.Add()([a, b]))
    doubled = partial_model(both, layers.Rescaling(2.0)(both.outputs[0]))
    np.testing.assert_array_equal(doubled([np.ones((1, 2)), np.ones((1, 2))]), [[4, 4]])


# --- several inputs, by name


def two_inputs(structure: str) -> Any:
    """Return a model that weighs its inputs differently, in one of several structures."""
    # In the alphabet the names are in the other order than in lists.
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
        warnings.simplefilter("ignore")  # Keras wants keys to be the names of tensors
        return keras.Model(inputs[structure], merged)


STRUCTURES = ("list", "tuple", "dict", "nest", "deep dict")
EXPECTED = np.concatenate([2 * RGB, DEPTH], -1)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("names", [("rgb", "depth"), ("depth", "rgb")])
def test_inputs_in_a_dict_are_found_by_name(structure: str, names: tuple[str, str]) -> None:
    arrays = {"rgb": RGB, "depth": DEPTH}
    found = Extractor(two_inputs(structure), "merged")({name: arrays[name] for name in names})
    np.testing.assert_array_equal(found["merged"], EXPECTED)


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
def test_inputs_in_lists_and_nests_are_read_by_place(structure: str, x: Any) -> None:
    found = Extractor(two_inputs(structure), "merged")(x)
    np.testing.assert_array_equal(found["merged"], EXPECTED)


def test_the_same_inputs_in_any_form_are_one_trace() -> None:
    extractor = Extractor(two_inputs("list"), "merged")
    for x in ([RGB, DEPTH], (RGB, DEPTH), {"depth": DEPTH, "rgb": RGB}):
        extractor(x)
    assert extractor.trace_count == 1


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_name_that_the_model_does_not_take_is_refused(structure: str) -> None:
    with pytest.raises(OptionError, match=r"no input 'dept' \(did you mean depth\?\); inputs: "):
        prepare_inputs(two_inputs(structure), {"rgb": RGB, "dept": DEPTH})
    with pytest.raises(OptionError, match="no input 'mask'"):
        prepare_inputs(two_inputs(structure), {"rgb": RGB, "depth": DEPTH, "mask": DEPTH})


@pytest.mark.parametrize("structure", STRUCTURES)
def test_an_input_that_is_missing_is_named(structure: str) -> None:
    with pytest.raises(ShapeError, match="the model also takes the inputs 'depth'"):
        prepare_inputs(two_inputs(structure), {"rgb": RGB})


def test_an_input_is_not_given_twice() -> None:
    with pytest.raises(OptionError, match="'rgb' is given twice"):
        prepare_inputs(two_inputs("deep dict"), {"sight.rgb": RGB, "rgb": RGB, "depth": DEPTH})


@pytest.mark.parametrize(
    ("structure", "x", "message"),
    [
        ("list", [RGB], r"takes 2 inputs \('rgb', 'depth'\), not 1"),
        ("list", RGB, r"takes 2 inputs \('rgb', 'depth'\), not 1"),
        ("list", [RGB, DEPTH, DEPTH], r"takes 2 inputs \('rgb', 'depth'\), not 3"),
        # Keras would read these by the alphabet, which neither list nor dict shows.
        ("dict", [RGB, DEPTH], r"takes a dict of the inputs 'depth', 'rgb', not a list of 2"),
    ],
)
def test_another_number_of_inputs_is_refused(structure: str, x: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        prepare_inputs(two_inputs(structure), x)


def test_a_list_fills_a_dict_whose_keys_are_in_order() -> None:
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Subtract(name="minus")([a, b]))
    found = Extractor(model, "minus")([np.full((1, 2), 5.0), np.full((1, 2), 3.0)])
    np.testing.assert_array_equal(found["minus"], [[2, 2]])


def test_an_optional_input_may_be_left_out_of_a_dict() -> None:
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b", optional=True)

    class Given(layers.Layer):  # type: ignore[misc]
        def call(self, a: Any, b: Any) -> Any:
            return a if b is None else a + b

        def compute_output_spec(self, a: Any, b: Any) -> Any:
            return keras.KerasTensor(a.shape, a.dtype)

    model = keras.Model([a, b], Given(name="given")(a, b))
    extractor = Extractor(model, "given")
    np.testing.assert_array_equal(extractor({"a": np.ones((1, 2))})["given"], [[1, 1]])
    both = {"b": np.ones((1, 2)), "a": np.ones((1, 2))}
    np.testing.assert_array_equal(extractor(both)["given"], [[2, 2]])


def test_the_names_and_positions_of_inputs() -> None:
    model = two_inputs("deep dict")
    inputs = prepare_inputs(model, {"rgb": RGB, "depth": DEPTH})
    names = names_of(model, inputs)
    assert names == ["depth", "rgb"]
    assert position_of(model, inputs, "depth") == position_of(model, inputs, "range.0") == 0
    assert position_of(model, inputs, "sight.rgb") == position_of(model, inputs, "rgb") == 1
    with pytest.raises(OptionError, match="no input 'rbg'"):
        position_of(model, inputs, "rbg")


def test_inputs_of_a_model_that_names_none_are_called_by_their_keys() -> None:
    class Pair(keras.Model):  # type: ignore[misc]
        def call(self, inputs: Mapping[str, Any]) -> Any:
            return inputs["b"] - inputs["a"]

    x = {"b": np.full((1, 2), 5.0), "a": np.full((1, 2), 3.0)}
    inputs = prepare_inputs(Pair(), x)
    assert names_of(Pair(), inputs) == ["a", "b"]
    np.testing.assert_array_equal(Pair()(inputs), [[2, 2]])


# --- what Keras takes besides


def test_a_model_with_one_input_in_a_list_gets_a_list() -> None:
    inputs = keras.Input((4, 5, 3), name="rgb")
    model = keras.Model([inputs], layers.Rescaling(2.0, name="twice")(inputs))
    # Keras warns where the structure is another, and warnings are errors here.
    for x in (RGB, [RGB], {"rgb": RGB}):
        np.testing.assert_array_equal(Extractor(model, "twice")(x)["twice"], 2 * RGB)
    alone = keras.Model(inputs, layers.Rescaling(2.0, name="twice")(inputs))
    forms: list[Any] = [RGB, [RGB], (RGB,), {"rgb": RGB}]
    for x in forms:
        np.testing.assert_array_equal(Extractor(alone, "twice")(x)["twice"], 2 * RGB)


def gray(*shape: int | None) -> Any:
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.Rescaling(1.0, name="same")(inputs))


def test_a_channel_axis_of_length_1_may_be_missing_or_too_many() -> None:
    model = gray(4, 5, 1)
    np.testing.assert_array_equal(model.predict(DEPTH[..., 0], verbose=0), DEPTH)
    for x in (DEPTH, DEPTH[..., 0], DEPTH[..., None]):
        np.testing.assert_array_equal(Extractor(model, "same")(x)["same"], DEPTH)
    column = DEPTH[:, 0]
    assert column.shape == (2, 5, 1)
    np.testing.assert_array_equal(Extractor(gray(5), "same")(column)["same"], column[..., 0])
    numbers = gray(1)
    np.testing.assert_array_equal(Extractor(numbers, "same")(np.arange(3))["same"], [[0], [1], [2]])


def test_specs_may_lack_the_channel_axis_too() -> None:
    extractor = Extractor(gray(4, 5, 1), "same")
    infos = trace_layers(extractor, tf.TensorSpec((None, 4, 5), tf.float32))
    assert infos["same"].shape == (None, 4, 5, 1)


def test_numbers_in_lists_are_arrays() -> None:
    model = gray(2)
    np.testing.assert_array_equal(
        Extractor(model, "same")([[1, 2], [3, 4]])["same"], [[1, 2], [3, 4]]
    )
    np.testing.assert_array_equal(Extractor(model, "same")([[1, 2]])["same"], [[1, 2]])


def test_a_list_of_samples_is_a_batch_and_a_list_of_batches_one_of_inputs() -> None:
    model = gray(4, 5, 1)
    for x in (list(DEPTH), list(DEPTH[..., 0]), [DEPTH], [DEPTH[..., 0]]):
        np.testing.assert_array_equal(Extractor(model, "same")(x)["same"], DEPTH)
    with pytest.raises(ShapeError, match="the model takes 1 input, not 2"):
        prepare_inputs(model, [DEPTH, DEPTH])


def test_what_is_no_array_of_numbers_is_refused() -> None:
    with pytest.raises(DtypeError, match="must be arrays of numbers, not list"):
        prepare_inputs(gray(2), [[1, 2], [3]])
    with pytest.raises(DtypeError):
        prepare_inputs(gray(2), object())


@pytest.mark.parametrize(
    ("shape", "x", "message"),
    [
        ((4, 5, 3), (4, 5, 3), r"of \(None, 4, 5, 3\), not \(4, 5, 3\); add a batch axis"),
        ((4, 5, 3), (2, 4, 6, 3), r"of \(None, 4, 5, 3\), not \(2, 4, 6, 3\)$"),
        ((4, 5, 1), (2, 3, 5), r"of \(None, 4, 5, 1\), not \(2, 3, 5\)$"),
        ((50, 3), (5, 40, 3), r"of \(None, 50, 3\), not \(5, 40, 3\)$"),
    ],
)
def test_a_shape_that_does_not_fit_is_told_as_it_was_given(
    shape: tuple[int, ...], x: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        Extractor(gray(*shape), "same")(np.zeros(x, np.float32))


def test_the_input_of_which_the_shape_is_wrong_is_named() -> None:
    with pytest.raises(
        ShapeError, match=r"an input 'depth' of \(None, 4, 5, 1\), not \(2, 4, 5, 3\)"
    ):
        prepare_inputs(two_inputs("list"), {"rgb": RGB, "depth": RGB})


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
def test_one_sample_may_come_without_a_batch_axis(
    shape: tuple[int | None, ...], x: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    found = prepare_inputs(gray(*shape), np.zeros(x, np.float32), single=True)
    assert tuple(found.shape) == expected


def test_one_sample_of_several_inputs_may_come_without_a_batch_axis() -> None:
    model = two_inputs("dict")
    found = prepare_inputs(model, {"rgb": RGB[0], "depth": DEPTH[0, ..., 0]}, single=True)
    np.testing.assert_array_equal(found["rgb"], RGB[:1])
    np.testing.assert_array_equal(found["depth"], DEPTH[:1])


@given(
    batch=st.integers(1, 3),
    sides=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    channels=st.integers(1, 2),
)
def test_what_fits_stays_as_it_is(batch: int, sides: list[int], channels: int) -> None:
    x = np.arange(batch * int(np.prod(sides)) * channels, dtype=np.float32)
    x = x.reshape(batch, *sides, channels)
    np.testing.assert_array_equal(prepare_inputs(gray(*sides, channels), x), x)


def test_batches_are_joined_by_name() -> None:
    parts = [{"a": np.full((1, 2), n), "b": np.full((1, 3), -n)} for n in (1, 2)]
    joined = join_batches(parts)
    np.testing.assert_array_equal(joined["a"], [[1, 1], [2, 2]])
    np.testing.assert_array_equal(joined["b"], [[-1] * 3, [-2] * 3])
    assert batch_shape(joined) == {"a": (2, 2), "b": (2, 3)}
    np.testing.assert_array_equal(
        join_batches([np.ones((1, 2)), np.zeros((1, 2))]), [[1, 1], [0, 0]]
    )
    assert batch_shape(np.ones((3, 2))) == (3, 2)
