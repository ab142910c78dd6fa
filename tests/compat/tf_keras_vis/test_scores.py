"""Scores and helper functions of tf-keras-vis."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from actgrid.compat.tf_keras_vis.utils import (
    find_layer,
    listify,
    normalize,
    num_of_gpus,
    standardize,
)
from actgrid.compat.tf_keras_vis.utils.scores import (
    BinaryScore,
    CategoricalScore,
    InactiveScore,
    Score,
)
from actgrid.errors import OptionError, ShapeError, TargetError


def test_categorical_scores() -> None:
    output = tf.constant(np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(CategoricalScore([1, 0, 3])(output), [1, 4, 11])
    np.testing.assert_array_equal(CategoricalScore(2)(output), [2, 6, 10])
    maps = tf.constant(np.arange(16.0).reshape(2, 2, 2, 2))
    np.testing.assert_array_equal(CategoricalScore([0, 1])(maps), [3, 12])
    assert CategoricalScore(1).indices == [1]
    with pytest.raises(TargetError, match="there is no class 4: the model has 4"):
        CategoricalScore(4)(output)
    with pytest.raises(
        OptionError, match="indices must have at most one value for each of 3 images: got 4"
    ):
        CategoricalScore([0, 1, 2, 3])(output)
    with pytest.raises(ShapeError, match="the output must be"):
        CategoricalScore(0)(output[0])
    for empty in (None, [], [None]):
        with pytest.raises(ValueError, match="indices must be a class or a list of them"):
            CategoricalScore(empty)  # type: ignore[arg-type]


def test_binary_scores() -> None:
    output = tf.constant([[1.0], [2.0], [3.0]])
    np.testing.assert_array_equal(BinaryScore(False)(output), [-1, -2, -3])
    np.testing.assert_array_equal(BinaryScore([True, False, True])(output), [1, -2, 3])
    with pytest.raises(ShapeError, match=r"the output must be \(N, 1\), not \(3, 2\)"):
        BinaryScore(True)(tf.ones((3, 2)))
    with pytest.raises(OptionError, match="target_values must be"):
        BinaryScore(None)


def test_inactive_score_is_zero() -> None:
    assert not np.any(InactiveScore()(tf.ones((2, 3))))


def test_scores_are_compared_by_value() -> None:
    assert CategoricalScore([1, 2]) == CategoricalScore((1, 2))
    assert len({CategoricalScore(1), CategoricalScore(1), CategoricalScore(2)}) == 2
    assert CategoricalScore(1) != BinaryScore(True)


def test_custom_score() -> None:
    class Mean(Score):
        def __call__(self, output: Any) -> Any:
            return tf.reduce_mean(output, 1)

    assert Mean("mean").name == "mean"
    with pytest.raises(TypeError, match="abstract"):
        Score()  # type: ignore[abstract]


def test_listify() -> None:
    assert [listify(None), listify(1), listify((1, 2)), listify([3])] == [[], [1], [1, 2], [3]]
    assert listify(None, return_empty_list_if_none=False) == [None]
    assert listify((1, 2), convert_tuple_to_list=False) == [(1, 2)]


def test_images_are_normalized_separately() -> None:
    array = np.array([[[0.0, 2.0], [4.0, 8.0]], [[1.0, 1.0], [1.0, 3.0]]])
    expected = np.array([[[0, 0.25], [0.5, 1]], [[0, 0], [0, 1]]])
    np.testing.assert_allclose(standardize(array), expected, atol=1e-6)
    np.testing.assert_allclose(normalize(array), expected, atol=1e-6)
    np.testing.assert_allclose(normalize(array, (255, 0))[0], [[0, 63.75], [127.5, 255]], atol=1e-4)
    np.testing.assert_array_equal(normalize(array, None), standardize(array))


def test_num_of_gpus() -> None:
    assert num_of_gpus()[0] == len(tf.config.list_physical_devices("GPU"))


def test_find_layer_starts_from_the_end(network: Any) -> None:
    def is_convolution(layer: Any) -> bool:
        return isinstance(layer, layers.Conv2D)

    assert find_layer(network, is_convolution).name == "conv"
    first = network.get_layer("first")
    assert find_layer(network, is_convolution, offset=first) is first
    assert find_layer(network, lambda layer: layer.name == "none") is None
    nested = keras.Sequential([network, layers.Rescaling(1.0)])
    assert find_layer(nested, is_convolution, offset=nested.layers[-1]).name == "conv"
