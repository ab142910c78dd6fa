"""Model modifiers of tf-keras-vis."""

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


def test_copy_is_modified_by_default(network: Any, images: Array) -> None:
    modified_copy = Saliency(network, ReplaceToLinear())
    assert modified_copy.model is not network
    np.testing.assert_allclose(network(images).numpy().sum(1), 1, rtol=1e-5)
    linear = modified_copy.model(images).numpy()
    np.testing.assert_allclose(tf.nn.softmax(linear), network(images), rtol=1e-4)
    assert Saliency(network).model is network
    in_place = Saliency(network, ReplaceToLinear(), clone=False)
    assert in_place.model is network
    np.testing.assert_allclose(network(images), linear, rtol=1e-5)


def test_modifiers_are_applied_in_order(network: Any, images: Array) -> None:
    modifiers = [ExtractIntermediateLayer("conv"), ReplaceToLinear()]
    model = Saliency(network, model_modifier=modifiers).model
    result = model(images).numpy()
    assert result.shape == (3, 6, 6, 5)
    assert result.min() < 0
    by_place = Saliency(network, ExtractIntermediateLayer(2)).model(images)
    np.testing.assert_allclose(by_place, np.maximum(result, 0), rtol=1e-5)
    with pytest.raises(LayerError, match="no layer 'cnv'"):
        Saliency(network, ExtractIntermediateLayer("cnv"))
    with pytest.raises(LayerError, match="no layer 99"):
        Saliency(network, ExtractIntermediateLayer(99))
    with pytest.raises(OptionError, match="index_or_name must be"):
        ExtractIntermediateLayer(1.5)  # type: ignore[arg-type]


def test_extract_intermediate_layer_for_gradcam(network: Any, images: Array) -> None:
    conv = np.asarray(keras.Model(network.inputs[0], network.get_layer("conv").output)(images))
    outputs, result = ExtractIntermediateLayerForGradcam()(network)(images)
    np.testing.assert_allclose(outputs, network(images), rtol=1e-5)
    np.testing.assert_allclose(result, conv, rtol=1e-5, atol=1e-7)
    only = ExtractIntermediateLayerForGradcam("conv", include_model_outputs=False)(network)
    np.testing.assert_allclose(keras.tree.flatten(only(images))[0], conv, rtol=1e-5, atol=1e-7)
    with pytest.raises(LayerError, match="must be a layer of the model: got 'cnv'"):
        ExtractIntermediateLayerForGradcam("cnv")(network)


def test_functions_as_modifiers(network: Any, images: Array) -> None:
    def to_linear(model: Any) -> None:
        model.layers[-1].activation = keras.activations.linear

    result = Saliency(network, model_modifier=to_linear).model(images)
    np.testing.assert_allclose(result, Saliency(network, ReplaceToLinear()).model(images))
    with pytest.raises(OptionError, match="model_modifier must be a function"):
        Saliency(network, "linear")
    with pytest.raises(TypeError, match="abstract"):
        ModelModifier()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="abstract"):
        ModelVisualization(network)  # type: ignore[abstract]


def test_modified_model_is_compiled_again(network: Any, images: Array) -> None:
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
    result = Saliency(network, model_modifier=guided)(score, images, **options)
    first, conv = network.get_layer("first"), network.get_layer("conv")
    a, b = first(images), conv(first(images))
    with tf.GradientTape() as tape:
        tape.watch(b)
        flat = layers.Flatten()(network.get_layer("pool")(b))
        value = flat @ network.get_layer("out").kernel[:, :1]
    gradient = tape.gradient(value, b)
    gradient = tf.where((gradient > 0) & (b > 0), gradient, 0.0)
    gradient = tf.nn.conv2d_transpose(gradient, conv.kernel, a.shape, 1, "VALID")
    gradient = tf.where((gradient > 0) & (a > 0), gradient, 0.0)
    gradient = tf.nn.conv2d_transpose(gradient, first.kernel, images.shape, 1, "VALID")
    np.testing.assert_allclose(result, gradient, rtol=1e-3, atol=1e-6)


def test_model_that_cannot_be_copied_is_rejected() -> None:
    class CustomModel(keras.Model):  # type: ignore[misc]
        def __init__(self, width: Any) -> None:
            super().__init__()
            self.out = layers.Dense(width)

        def call(self, x: Any) -> Any:
            return self.out(x)

    model = CustomModel(2)
    with pytest.raises(OptionError, match="cannot be copied: pass clone=False"):
        Saliency(model, lambda model: None)
    assert Saliency(model, lambda model: None, clone=False).model is model
