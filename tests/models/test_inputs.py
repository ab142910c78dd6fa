"""What a model takes."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from actgrid.models.inputs import input_names, partial_model


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
