"""What is done to models before they are looked at."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

from actgrid.compat.tf_keras_vis import ModelVisualization
from actgrid.compat.tf_keras_vis.saliency import Saliency
from actgrid.compat.tf_keras_vis.utils.model_modifiers import (
    ExtractIntermediateLayer,
    ExtractIntermediateLayerForGradcam,
    GuidedBackpropagation,
    ModelModifier,
    ReplaceToLinear,
)
from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
from actgrid.errors import LayerError, OptionError

Array = npt.NDArray[Any]


def test_a_copy_is_modified_unless_told_otherwise(network: Any, images: Array) -> None:
    copied = Saliency(network, ReplaceToLinear())
    assert copied.model is not network
    np.testing.assert_allclose(network(images).numpy().sum(1), 1, rtol=1e-5)
    linear = copied.model(images).numpy()
    np.testing.assert_allclose(tf.nn.softmax(linear), network(images), rtol=1e-4)
    assert Saliency(network).model is network
    same = Saliency(network, ReplaceToLinear(), clone=False)
    assert same.model is network
    np.testing.assert_allclose(network(images), linear, rtol=1e-5)


def test_modifiers_come_one_after_the_other(network: Any, images: Array) -> None:
    modifiers = [ExtractIntermediateLayer("conv"), ReplaceToLinear()]
    model = Saliency(network, model_modifier=modifiers).model
    found = model(images).numpy()
    assert found.shape == (3, 6, 6, 5)
    assert found.min() < 0
    by_place = Saliency(network, ExtractIntermediateLayer(2)).model(images)
    np.testing.assert_allclose(by_place, np.maximum(found, 0), rtol=1e-5)
    with pytest.raises(LayerError, match="no layer 'cnv'"):
        Saliency(network, ExtractIntermediateLayer("cnv"))
    with pytest.raises(LayerError, match="no layer 99"):
        Saliency(network, ExtractIntermediateLayer(99))
    with pytest.raises(OptionError, match="index_or_name must be"):
        ExtractIntermediateLayer(1.5)  # type: ignore[arg-type]


def test_a_model_of_outputs_and_a_layer(network: Any, images: Array) -> None:
    conv = np.asarray(keras.Model(network.inputs[0], network.get_layer("conv").output)(images))
    outputs, found = ExtractIntermediateLayerForGradcam()(network)(images)
    np.testing.assert_allclose(outputs, network(images), rtol=1e-5)
    np.testing.assert_allclose(found, conv, rtol=1e-5, atol=1e-7)
    only = ExtractIntermediateLayerForGradcam("conv", include_model_outputs=False)(network)
    np.testing.assert_allclose(keras.tree.flatten(only(images))[0], conv, rtol=1e-5, atol=1e-7)
    with pytest.raises(LayerError, match="no layer of the model: 'cnv'"):
        ExtractIntermediateLayerForGradcam("cnv")(network)


def test_functions_are_modifiers_too(network: Any, images: Array) -> None:
    def to_linear(model: Any) -> None:
        model.layers[-1].activation = keras.activations.linear

    found = Saliency(network, model_modifier=to_linear).model(images)
    np.testing.assert_allclose(found, Saliency(network, ReplaceToLinear()).model(images))
    with pytest.raises(OptionError, match="model_modifier must be functions"):
        Saliency(network, "linear")
    with pytest.raises(TypeError, match="abstract"):
        ModelModifier()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="abstract"):
        ModelVisualization(network)  # type: ignore[abstract]


def test_what_was_compiled_before_a_change_is_not_used_again(network: Any, images: Array) -> None:
    score = CategoricalScore([0, 1, 2])
    before = Saliency(network)(score, images, normalize_map=False)
    linear = Saliency(network, ReplaceToLinear())(score, images, normalize_map=False)
    after = Saliency(network, ReplaceToLinear(), clone=False)(score, images, normalize_map=False)
    assert np.abs(before - linear).max() > 1e-3
    np.testing.assert_allclose(after, linear, rtol=1e-4, atol=1e-7)


def test_guided_backpropagation(network: Any, images: Array) -> None:
    def score(output: Any) -> Any:
        return output[:, 0]

    guided = [ReplaceToLinear(), GuidedBackpropagation()]
    options: dict[str, Any] = {"keepdims": True, "normalize_map": False, "gradient_modifier": None}
    found = Saliency(network, model_modifier=guided)(score, images, **options)
    first, conv = network.get_layer("first"), network.get_layer("conv")
    a, b = first(images), conv(first(images))
    with tf.GradientTape() as tape:
        tape.watch(b)
        flat = layers.Flatten()(network.get_layer("pool")(b))
        value = flat @ network.get_layer("out").kernel[:, :1]
    slope = tape.gradient(value, b)
    slope = tf.where((slope > 0) & (b > 0), slope, 0.0)
    slope = tf.nn.conv2d_transpose(slope, conv.kernel, a.shape, 1, "VALID")
    slope = tf.where((slope > 0) & (a > 0), slope, 0.0)
    slope = tf.nn.conv2d_transpose(slope, first.kernel, images.shape, 1, "VALID")
    np.testing.assert_allclose(found, slope, rtol=1e-3, atol=1e-6)


def test_a_model_that_cannot_be_copied() -> None:
    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self, width: Any) -> None:
            super().__init__()
            self.out = layers.Dense(width)

        def call(self, x: Any) -> Any:
            return self.out(x)

    model = Own(2)
    with pytest.raises(OptionError, match="cannot be copied: give clone=False"):
        Saliency(model, lambda model: None)
    assert Saliency(model, lambda model: None, clone=False).model is model
