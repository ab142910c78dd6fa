"""The methods of tf-explain, against `tf.GradientTape` and loops."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import actgrid
from actgrid.compat.tf_explain.core import (
    ExtractActivations,
    GradCAM,
    GradientsInputs,
    IntegratedGradients,
    OcclusionSensitivity,
    SmoothGrad,
    VanillaGradients,
)
from actgrid.compat.tf_explain.core.vanilla_gradients import (
    ACTIVATION_LAYER_CLASSES,
    UNSUPPORTED_ARCHITECTURE_WARNING,
)
from actgrid.compat.tf_explain.utils.display import grid_display, heatmap_display
from actgrid.compat.tf_explain.utils.image import apply_grey_patch
from actgrid.errors import LayerError, ModelError, OptionError, ShapeError, TargetError

Array = npt.NDArray[Any]


def compute_gradient(score: Callable[[Any], Any], x: Array) -> Array:
    with tf.GradientTape() as tape:
        tensor = tf.constant(x)
        tape.watch(tensor)
        value = score(tensor)
    return np.asarray(tape.gradient(value, tensor))


def draw_gradients(gradients: Array) -> Array:
    sums = np.abs(gradients).sum(-1)
    standard = (sums - sums.mean()) / max(sums.std(), 1 / np.sqrt(sums.size))
    return grid_display(np.clip(255 * standard, 0, 255).astype(np.uint8))


def assert_levels_close(actual: Array, expected: Array) -> None:
    """Check that levels are equal, except for few that differ by rounding."""
    assert actual.dtype == np.uint8
    assert actual.shape == expected.shape
    difference = np.abs(actual.astype(int) - expected)
    assert difference.max() <= 2
    assert np.mean(difference > 0) < 0.02


def remove_softmax(network: Any) -> Any:
    return keras.Model(network.inputs[0], network.layers[-2].output)


def test_extract_activations(network: Any, images: Array) -> None:
    result = ExtractActivations().explain((images, None), network, ["conv"])
    partial = keras.Model(network.inputs[0], network.get_layer("conv").output)
    tiles = np.moveaxis(np.asarray(partial(images)), -1, 1).reshape(12, 8, 8)
    grid = grid_display(tiles)
    assert grid.shape == (32, 32)
    assert_levels_close(result, np.trunc((grid - grid.min()) / (grid.max() - grid.min()) * 255))
    by_two = ExtractActivations(batch_size=2).explain((images, None), network, ["conv"])
    assert_levels_close(by_two, result)


def test_extract_activations_rejects_invalid_layers(network: Any, images: Array) -> None:
    def draw(names: Any, data: Any = (images, None)) -> Array:
        return ExtractActivations().explain(data, network, names)

    assert draw(["conv", "conv"]).shape == draw("conv").shape == (32, 32)
    with pytest.raises(ShapeError, match="layers must have one size"):
        draw(["first", "pool"])
    with pytest.raises(ShapeError, match="layer scores must have 4 axes"):
        draw(["scores"])
    with pytest.raises(LayerError, match="no layer is called 'cnv'"):
        draw(["cnv"])
    with pytest.raises(OptionError, match="layers_name must name a layer"):
        draw([])
    with pytest.raises(OptionError, match="validation_data must be a pair"):
        draw(["conv"], images)
    dark = keras.Sequential([keras.Input((4, 4, 3)), layers.Rescaling(0.0, name="dark")])
    dead = ExtractActivations().explain((np.ones((1, 4, 4, 3)), None), dark, ["dark"])
    assert not dead.any()


def test_gradients_are_computed_before_the_softmax_layer(network: Any, images: Array) -> None:
    expected = compute_gradient(lambda x: remove_softmax(network)(x)[:, 2], images)
    assert_levels_close(
        VanillaGradients().explain((images, None), network, 2), draw_gradients(expected)
    )
    result = GradientsInputs().explain((images, None), network, 2)
    assert_levels_close(result, draw_gradients(expected * images))


def test_model_without_activation_layer_warns(images: Array) -> None:
    keras.utils.set_random_seed(6)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(4, 3, activation="tanh"),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(UNSUPPORTED_ARCHITECTURE_WARNING)}$"):
        result = VanillaGradients().explain((images, None), model, 1)
    assert not isinstance(model.layers[-1], ACTIVATION_LAYER_CLASSES)
    assert_levels_close(result, draw_gradients(compute_gradient(lambda x: model(x)[:, 1], images)))


def test_integrated_gradients(network: Any, images: Array) -> None:
    expected = np.mean(
        [
            compute_gradient(lambda x: network(x)[:, 3], images * np.float32(k / 6))
            for k in range(7)
        ],
        0,
    )
    result = IntegratedGradients().explain((images, None), network, 3, n_steps=7)
    assert_levels_close(result, draw_gradients(expected))
    with pytest.raises(OptionError, match="n_steps must be at least 2"):
        IntegratedGradients().explain((images, None), network, 3, n_steps=1)


def test_smoothgrad(network: Any, images: Array) -> None:
    np.random.seed(7)  # noqa: NPY002  (the generator of tf-explain)
    result = SmoothGrad().explain((images, None), network, 1, num_samples=4, noise=0.3)
    np.random.seed(7)  # noqa: NPY002
    noise = np.random.normal(0, 0.3, (12, 12, 12, 3)).astype(np.float32)  # noqa: NPY002
    copies = np.repeat(images, 4, 0) + noise
    expected = compute_gradient(lambda x: -tf.math.log(network(x)[:, 1]), copies)
    assert_levels_close(result, draw_gradients(expected.reshape(3, 4, 12, 12, 3).mean(1)))


@pytest.mark.parametrize("guided", [True, False])
def test_grad_cam(network: Any, images: Array, guided: bool) -> None:
    layer = network.get_layer("conv").output
    model = keras.Model(network.inputs[0], [layer, network.outputs[0]])
    with tf.GradientTape() as tape:
        activation, outputs = model(images)
        value = outputs[:, 2]
    gradient = tape.gradient(value, activation).numpy()
    activation = activation.numpy()
    if guided:
        gradient = gradient * (gradient > 0) * (activation > 0)
    maps = (gradient.mean((1, 2), keepdims=True) * activation).sum(-1)
    expected = grid_display(
        [
            heatmap_display(image_map, image, 2, 0.4)
            for image_map, image in zip(maps, images, strict=True)
        ]
    )
    result = GradCAM().explain(
        (list(images), None),
        network,
        2,
        layer_name="conv",
        use_guided_grads=guided,
        colormap=2,
        image_weight=0.4,
    )
    assert_levels_close(result, expected)
    assert result.shape == (24, 24, 3)


def test_grad_cam_infers_the_layer(network: Any, images: Array) -> None:
    assert GradCAM.infer_grad_cam_target_layer(network) == "pool"
    data = images[:1], None
    result = GradCAM().explain(data, network, 0)
    np.testing.assert_array_equal(result, GradCAM().explain(data, network, 0, "pool"))
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ModelError, match="no layer with an output of 4 axes"):
        GradCAM.infer_grad_cam_target_layer(dense)


def test_grad_cam_of_nested_model(network: Any, images: Array) -> None:
    inner = keras.Sequential(network.layers[:3], name="inner")
    nested = keras.Sequential([keras.Input((12, 12, 3)), inner, *network.layers[3:]])
    result = GradCAM().explain((images, None), nested, 1, "inner/conv")
    assert_levels_close(result, GradCAM().explain((images, None), network, 1, "conv"))


def test_occlusion(network: Any, images: Array) -> None:
    maps = np.zeros((3, 3, 3))
    for row in range(3):
        for column in range(3):
            hidden = images.copy()
            hidden[:, row * 5 : row * 5 + 5, column * 5 : column * 5 + 5] = 127.5
            maps[:, row, column] = 1 - np.asarray(network(hidden))[:, 2]
    expected = grid_display([heatmap_display(*pair) for pair in zip(maps, images, strict=True)])
    explainer = OcclusionSensitivity(batch_size=4)
    assert_levels_close(explainer.explain((images, None), network, 2, 5), expected)
    with pytest.raises(OptionError, match="patch_size must be at least 1"):
        explainer.explain((images, None), network, 2, 0)


# --- public methods for single steps


def test_methods_of_grad_cam(network: Any, images: Array) -> None:
    layer = network.get_layer("conv").output
    model = keras.Model(network.inputs[0], [layer, network.outputs[0]])
    with tf.GradientTape() as tape:
        activation, outputs = model(images)
        value = outputs[:, 2]
    gradient = tape.gradient(value, activation).numpy()
    guided = gradient * (gradient > 0) * (activation.numpy() > 0)
    for use_guided, expected in ((True, guided), (False, gradient)):
        result = GradCAM.get_gradients_and_filters(network, images, "conv", 2, use_guided)
        np.testing.assert_allclose(result[0].numpy(), activation, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(result[1].numpy(), expected, rtol=1e-4, atol=1e-7)
    maps = GradCAM.generate_ponderated_output(activation, tf.constant(guided))
    expected = (guided.mean((1, 2), keepdims=True) * activation.numpy()).sum(-1)
    np.testing.assert_allclose(
        [image_map.numpy() for image_map in maps], expected, rtol=1e-4, atol=1e-9
    )
    np.testing.assert_array_equal(GradCAM.ponderate_output(activation[1], guided[1]), maps[1])


def test_methods_of_smoothgrad(network: Any, images: Array) -> None:
    np.random.seed(7)  # noqa: NPY002
    noisy_images = SmoothGrad.generate_noisy_images(images, 4, 0.3)
    np.random.seed(7)  # noqa: NPY002
    noise = np.random.normal(0, 0.3, (12, 12, 12, 3)).astype(np.float32)  # noqa: NPY002
    np.testing.assert_array_equal(noisy_images, np.repeat(images, 4, 0) + noise)
    result = SmoothGrad.get_averaged_gradients(noisy_images, network, 1, 4)
    expected = compute_gradient(lambda x: -tf.math.log(network(x)[:, 1]), noisy_images)
    expected = expected.reshape(3, 4, 12, 12, 3).mean(1)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-6)


def test_methods_of_integrated_gradients(network: Any, images: Array) -> None:
    path = IntegratedGradients.generate_linear_path(np.zeros(2), np.array([4.0, 8.0]), 5)
    np.testing.assert_array_equal(path, [[0, 0], [1, 2], [2, 4], [3, 6], [4, 8]])
    interpolated = IntegratedGradients.generate_interpolations(images, 7)
    assert interpolated.shape == (21, 12, 12, 3)
    np.testing.assert_allclose(interpolated[7 + 3], images[1] / 2, rtol=1e-6)
    result = IntegratedGradients.get_integrated_gradients(interpolated, network, 3, 7)
    expected = (
        compute_gradient(lambda x: network(x)[:, 3], interpolated).reshape(3, 7, 12, 12, 3).mean(1)
    )
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-7)


def test_get_sensitivity_map(network: Any, images: Array) -> None:
    result = OcclusionSensitivity().get_sensitivity_map(network, images[1], 2, 6)
    assert result.shape == (12, 12)
    corners = []
    for left, top in ((0, 0), (6, 0), (0, 6), (6, 6)):
        hidden = apply_grey_patch(images[1], left, top, 6)[None]
        corners.append(1 - float(network(hidden)[0, 2]))
    np.testing.assert_allclose(result[[0, 0, -1, -1], [0, -1, 0, -1]], corners, rtol=1e-5)


def test_generate_activations_graph(network: Any, images: Array) -> None:
    model = ExtractActivations.generate_activations_graph(network, ["conv"])
    expected = actgrid.Extractor(network, "conv")(images)["conv"]
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-7)
    several = ExtractActivations.generate_activations_graph(network, ["first", "conv"])
    assert [output.shape[-1] for output in several.outputs] == [6, 4]
    with pytest.raises(LayerError, match="no layer 'cnv'"):
        ExtractActivations.generate_activations_graph(network, ["cnv"])


def test_invalid_classes_are_rejected(network: Any, images: Array) -> None:
    with pytest.raises(TargetError, match="there is no class 5: the model has 5, 0 to 4"):
        GradCAM().explain((images, None), network, 5)
    with pytest.raises(TargetError, match="class_index must be an integer, not 'cat'"):
        IntegratedGradients().explain((images, None), network, "cat")  # type: ignore[arg-type]
    two = keras.Model(network.inputs[0], [network.outputs[0], network.outputs[0]])
    with pytest.raises(TargetError, match="the model must have one output"):
        SmoothGrad().explain((images, None), two, 0)


@pytest.mark.parametrize(
    "explain",
    [
        lambda data, network: SmoothGrad().explain(data, network, 1),
        lambda data, network: VanillaGradients().explain(data, network, 1),
        lambda data, network: OcclusionSensitivity().explain(data, network, 1, 4),
    ],
)
def test_invalid_images_are_rejected(explain: Any, network: Any, images: Array) -> None:
    shape = images.shape[1:]
    with pytest.raises(ShapeError, match=rf"images must be \(N, .*not \({shape[0]}, {shape[1]},"):
        explain((images[0], None), network)
    with pytest.raises(ShapeError, match="images must have one size"):
        explain(([images[0], images[0, 1:]], None), network)


def test_extract_activations_rejects_empty_batch(network: Any, images: Array) -> None:
    with pytest.raises(ShapeError, match="must not be empty"):
        ExtractActivations().explain((images[:0], None), network, ["conv"])


def test_extract_activations_of_images_without_channel_axis() -> None:
    model = keras.Sequential(
        [keras.Input((6, 6)), layers.Reshape((6, 6, 1)), layers.Conv2D(4, 3, name="conv")]
    )
    x = np.random.default_rng(16).random((1, 6, 6), np.float32)
    assert ExtractActivations().explain((x, None), model, ["conv"]).shape == (8, 8)


CAT = """
import numpy as np
import tensorflow as tf
from actgrid.compat.tf_explain.core.{module} import {name}

img = tf.keras.preprocessing.image.load_img('cat.jpg', target_size=(32, 32))
img = tf.keras.preprocessing.image.img_to_array(img)
data = ([img], None)
explainer = {name}()
grid = explainer.explain(data, model, {arguments})
explainer.save(grid, '.', '{module}.png')
"""


@pytest.mark.parametrize(
    ("module", "name", "arguments", "mode"),
    [
        ("activations", "ExtractActivations", "['block1_conv2']", "L"),
        ("vanilla_gradients", "VanillaGradients", "281", "L"),
        ("gradients_inputs", "GradientsInputs", "281", "L"),
        ("integrated_gradients", "IntegratedGradients", "281, n_steps=15", "L"),
        ("smoothgrad", "SmoothGrad", "281, 20, 1.", "L"),
        ("grad_cam", "GradCAM", "class_index=281, layer_name='block5_conv3'", "RGB"),
        ("grad_cam", "GradCAM", "class_index=281", "RGB"),
        ("occlusion_sensitivity", "OcclusionSensitivity", "281, 10", "RGB"),
    ],
)
def test_examples_of_readme(
    module: str, name: str, arguments: str, mode: str, cat: Any, run_script: Callable[..., str]
) -> None:
    photo, model = cat
    photo.save("cat.jpg")
    run_script(CAT.format(module=module, name=name, arguments=arguments), model=model)
    with Image.open(f"{module}.png") as picture:
        assert picture.mode == mode
        assert picture.size == ((8 * 32, 8 * 32) if module == "activations" else (32, 32))
        spread = np.asarray(picture).std()
    # With random weights, gradients are nearly zero and drawn nearly constant.
    assert spread > 5 or "gradients" in module or module == "smoothgrad"


@pytest.fixture
def cat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vgg: Any) -> tuple[Image.Image, Any]:
    import actgrid

    monkeypatch.chdir(tmp_path)
    return actgrid.demo.photo(), vgg


@pytest.fixture(scope="module")
def vgg() -> Any:
    """Return VGG16 with random weights, for small images."""
    keras.utils.set_random_seed(8)
    return keras.applications.VGG16(weights=None, input_shape=(32, 32, 3))
