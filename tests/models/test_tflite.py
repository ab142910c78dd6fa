"""Tests of `actgrid.models.tflite_network`."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers
from tests.models.exports import Quantization, export_tflite

import actgrid
from actgrid.errors import MissingDependencyError, MissingFileError, ModelError
from actgrid.models import InputInfo
from actgrid.models.preprocessing import find_preprocessing
from actgrid.option_checks import resolve_thread_count

Array = npt.NDArray[Any]

KERNEL = np.random.default_rng(3).normal(size=(3, 3, 3, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def photo() -> Array:
    """Return an input of the embedded network."""
    return np.asarray(actgrid.load_images([actgrid.demo.photo()], "demo"))


@pytest.fixture(scope="module")
def keras_activations(photo: Array) -> dict[str, Array]:
    """Return the output of every layer of the embedded network for the photo."""
    return actgrid.Extractor("demo", "*")(photo)


def make_pixels(*shape: int) -> Array:
    return np.random.default_rng(8).uniform(-1, 1, shape).astype(np.float32)


@pytest.fixture(scope="module")
def small_model() -> Any:
    keras.utils.set_random_seed(4)
    inputs = keras.Input((12, 10, 3), name="image")
    left = layers.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    right = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(inputs)
    added = layers.Add(name="add")([left, right])
    pooled = layers.GlobalAveragePooling2D(name="pool")(added)
    outputs = layers.Dense(5, name="scores")(pooled)
    return keras.Model(inputs, outputs, name="small")


@pytest.fixture(scope="module")
def export_small(
    small_model: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Quantization], Path]:
    folder = tmp_path_factory.mktemp("small")
    samples = make_pixels(4, 12, 10, 3)

    def export(quantization: Quantization) -> Path:
        path = folder / f"{quantization}.tflite"
        if not path.exists():
            export_tflite(small_model, path, quantization, samples)
        return path

    return export


def run_interpreter(path: Path, x: Array) -> list[Array]:
    """Return the dequantized values of every tensor that the interpreter computes."""
    interpreter = Interpreter(
        str(path),
        num_threads=resolve_thread_count(None),  # sums of several threads have other last digits
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    (details,) = interpreter.get_input_details()
    interpreter.set_tensor(details["index"], x.astype(details["dtype"]))
    interpreter.invoke()
    values = []
    names = {entry["index"]: entry for entry in interpreter.get_tensor_details()}
    for operation in interpreter._get_ops_details():
        for index in operation["outputs"]:
            array = interpreter.get_tensor(index)
            scale, zero_point = names[index]["quantization"]
            if scale:
                array = ((array.astype(np.float64) - zero_point) * scale).astype(np.float32)
            values.append(array)
    return values


def assert_same_as_interpreter(path: Path, x: Array, levels: Array | None = None) -> None:
    """Compare every layer for an input with a tensor of the interpreter.

    `levels` are the quantized values of `x`, for a network with a quantized input.
    """
    activations = actgrid.Extractor(path, "*")(x)
    tensors = iter(run_interpreter(path, x if levels is None else levels))
    assert activations
    for layer, activation in activations.items():
        assert activation.dtype == np.float32
        # Both are in the order of execution, which the search does not restart.
        assert any(
            activation.shape == tensor.shape and np.allclose(activation, tensor, rtol=1e-6, atol=0)
            for tensor in tensors
        ), layer


# --- the embedded network


def test_float_export_has_the_layers_of_the_keras_model(
    export_demo: Callable[[Quantization], Path],
    photo: Array,
    keras_activations: dict[str, Array],
) -> None:
    path = export_demo("float")
    network: Any = actgrid.load_model(path)
    assert network.name == "float"
    assert network.inputs == (InputInfo("image", (None, 224, 224, 3)),)
    assert network.outputs == ("predictions",)
    infos = {info.path: info for info in network.list_layers()}
    keras_infos = {info.path: info for info in actgrid.list_layers("demo")}
    # Batch normalization and activations are fused into the convolutions.
    assert len(infos) == 61
    for layer, info in infos.items():
        assert info.shape == keras_infos[layer].shape
        assert (info.dtype, info.data_format) == ("float32", "channels_last")
    assert infos["stem_relu"].type == "CONV_2D"
    assert infos["stem_relu"].parameters == 3 * 3 * 3 * 32 + 32
    assert [info.index for info in infos.values()] == list(range(61))
    for layer, activation in actgrid.Extractor(path, "*")(photo).items():
        expected = keras_activations[layer]
        atol = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(activation, expected, rtol=0, atol=atol)
    assert_same_as_interpreter(path, photo)
    edges = network.list_edges()
    assert edges[:2] == [("image", "rescaling"), ("rescaling", "stem_relu")]
    assert [edge for edge in edges if edge[1] == "block2_add"] == [
        ("block1_project_bn", "block2_add"),
        ("block2_project_bn", "block2_add"),
    ]


@pytest.mark.parametrize("quantization", ["float16", "full_int8"])
def test_quantized_exports_have_real_values(
    export_demo: Callable[[Quantization], Path],
    photo: Array,
    keras_activations: dict[str, Array],
    quantization: Quantization,
) -> None:
    path = export_demo(quantization)
    network: Any = actgrid.load_model(path)
    paths = [info.path for info in actgrid.list_layers(export_demo("float"))]
    assert [info.path for info in network.list_layers()] == paths
    levels = photo
    if quantization == "full_int8":
        (details,) = Interpreter(str(path)).get_input_details()
        scale, zero_point = details["quantization"]
        levels = np.clip(np.rint(photo / np.float64(scale)) + zero_point, -128, 127)
        assert network.inputs[0].dtype == "float32"
        assert network.inputs[0].value_range == pytest.approx((0, scale * 255))
        chosen = find_preprocessing("auto", network)
        assert (chosen.name, chosen.is_assumed) == ("none", False)
    assert_same_as_interpreter(path, photo, levels)
    x = np.concatenate([photo / 2, photo])
    batch, single = network.run(x, paths), network.run(photo, paths)
    for layer in paths:
        np.testing.assert_allclose(batch[layer][1:], single[layer], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(
        single["predictions"],
        keras_activations["predictions"],
        atol=2e-3 if quantization == "float16" else 0.3,
    )
    assert single["predictions"].argmax() == keras_activations["predictions"].argmax()


def test_class_activation_maps_equal_those_of_the_keras_model(
    export_demo: Callable[[Quantization], Path], photo: Array
) -> None:
    path = export_demo("float")
    cases: dict[str, Any] = {"eigencam": {}, "scorecam": {"max_channels": 16}}
    for method, options in cases.items():
        expected = actgrid.explain("demo", photo, method, **options)
        heatmap = actgrid.explain(path, photo, method, **options)
        assert heatmap.layer == expected.layer == "head_relu"
        np.testing.assert_allclose(heatmap.score, expected.score, rtol=1e-4)  # the same logit
        correlation = np.corrcoef(heatmap.values.ravel(), expected.values.ravel())[0, 1]
        assert correlation > 0.9999


# --- quantizations


@pytest.mark.parametrize("quantization", ["dynamic", "int8", "int16"])
def test_weights_and_activations_are_dequantized(
    small_model: Any, export_small: Callable[[Quantization], Path], quantization: Quantization
) -> None:
    path, x = export_small(quantization), make_pixels(3, 12, 10, 3)
    assert_same_as_interpreter(path, x[:1])
    activations = actgrid.Extractor(path, "*")(x)
    expected = actgrid.Extractor(small_model, "*")(x)
    assert list(activations) == ["conv", "depthwise", "add", "pool", "scores"]
    for layer, activation in activations.items():
        np.testing.assert_allclose(activation, expected[layer], atol=0.05)


def test_input_and_output_are_quantized_and_clipped(
    export_small: Callable[[Quantization], Path],
) -> None:
    path = export_small("full_int8")
    network: Any = actgrid.load_model(path)
    low, high = network.inputs[0].value_range
    x = make_pixels(1, 12, 10, 3)
    x[0, :3, 0, 0] = -5, 5, np.nan
    clipped = np.clip(x, low, high)
    clipped[0, 2, 0, 0] = 0
    results, expected = network.run(x, ["conv"]), network.run(clipped, ["conv"])
    np.testing.assert_array_equal(results["conv"][0, 1:], expected["conv"][0, 1:])
    chosen = find_preprocessing("auto", network)
    assert (chosen.name, chosen.is_assumed) == ("x / 127.5 - 1", False)
    np.testing.assert_allclose(chosen.function(np.array([0, 255], np.float32)), [-1, 1])


# --- batches, shapes, inputs and outputs


def convert(path: Path, function: Any, **inputs: tuple[Sequence[int | None], Any]) -> Path:
    """Write a TFLite file of a TensorFlow function; inputs: name -> (shape, dtype)."""
    specs = [tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in inputs.items()]
    concrete = tf.function(function).get_concrete_function(*specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    path.write_bytes(converter.convert())
    return path


def convolve(image: Any) -> Any:
    return tf.nn.conv2d(image, KERNEL, 1, "VALID")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_fixed_batch_size_accepts_any_batch(tmp_path: Path, batch_size: int) -> None:
    path = convert(
        tmp_path / "fixed.tflite",
        lambda image: tf.reduce_mean(tf.nn.relu(convolve(image)), (1, 2)),
        image=((batch_size, 6, 5, 3), tf.float32),
    )
    x = make_pixels(6, 6, 5, 3)
    network: Any = actgrid.load_model(path)
    assert network.inputs[0].shape == (None, 6, 5, 3)
    assert [info.shape for info in network.list_layers()] == [(None, 4, 3, 4), (None, 4)]
    maps, means = actgrid.Extractor(network, "*")(x).values()
    expected = tf.nn.relu(convolve(x)).numpy()
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(means, expected.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_network_that_permits_one_sample_inside_runs_sample_by_sample(tmp_path: Path) -> None:
    path = convert(
        tmp_path / "inside.tflite",
        lambda image: tf.reshape(convolve(image), (1, 48)),
        image=((None, 6, 5, 3), tf.float32),
    )
    x = make_pixels(3, 6, 5, 3)
    network: Any = actgrid.load_model(path)
    (scores,) = network.run(x, network.outputs).values()
    expected = convolve(x).numpy().reshape(3, 48)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_values_without_batch_axis_get_one(tmp_path: Path) -> None:
    path = convert(
        tmp_path / "sums.tflite",
        lambda x: tf.reduce_max(tf.transpose(x, (1, 0, 2)) * 2, 2),
        x=((1, 4, 3), tf.float32),
    )
    x = make_pixels(2, 4, 3)
    network: Any = actgrid.load_model(path)
    (scores,) = network.run(x, network.outputs).values()
    assert network.list_layers()[-1].shape == (None, 4, 1)
    np.testing.assert_allclose(scores, 2 * x.max(2)[..., None], rtol=1e-6)


def test_free_sides(tmp_path: Path) -> None:
    path = convert(tmp_path / "free.tflite", convolve, image=((None, None, None, 3), tf.float32))
    extractor = actgrid.Extractor(path)
    for x in (make_pixels(2, 9, 7, 3), make_pixels(1, 5, 12, 3)):
        (activation,) = extractor(x).values()
        np.testing.assert_allclose(activation, convolve(x), rtol=1e-5, atol=1e-5)
    assert [info.shape for info in extractor.layers.values()] == [(None, None, None, 4)]


class TwoInputs(tf.Module):  # type: ignore[misc]
    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec((None, 4), tf.int32, "factors"),
            tf.TensorSpec((None, 5, 6, 4), tf.float32, "image"),
        ]
    )
    def __call__(self, factors: Any, image: Any) -> dict[str, Any]:
        products = image * tf.cast(factors, tf.float32)[:, None, None]
        return {"sums": tf.reduce_sum(products, (1, 2)), "large": products > 1}


def test_several_inputs_and_outputs_have_the_names_of_the_signature(tmp_path: Path) -> None:
    module = TwoInputs()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.__call__.get_concrete_function()], module
    )
    path = tmp_path / "two.tflite"
    path.write_bytes(converter.convert())
    network: Any = actgrid.load_model(path)
    infos = {info.name: info for info in network.inputs}
    assert {name: info.dtype for name, info in infos.items()} == {
        "factors": "int32",
        "image": "float32",
    }
    factors, image = np.arange(8, dtype=np.int32).reshape(2, 4), make_pixels(2, 5, 6, 4)
    activations = actgrid.Extractor(network, "*")({"image": image, "factors": factors})
    products = image * factors[:, None, None]
    by_dtype = {activations[path].dtype.name: activations[path] for path in network.outputs}
    np.testing.assert_allclose(by_dtype["float32"], products.sum((1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(by_dtype["bool"], products > 1)


def test_constant_outputs_are_left_out(tmp_path: Path) -> None:
    path = convert(
        tmp_path / "constant.tflite",
        lambda x: (x * 2, tf.constant([[3.0, 4.0]])),
        x=((None, 5), tf.float32),
    )
    network: Any = actgrid.load_model(path)
    (output,) = network.outputs
    x = make_pixels(2, 5)
    np.testing.assert_allclose(actgrid.Extractor(path, output)(x)[output], 2 * x)
    convert(path, tf.identity, x=((None, 5), tf.float32))
    with pytest.raises(ModelError, match="network 'constant': no output is computed from an inp"):
        actgrid.load_model(path)


def test_unquantized_uint8_input_takes_pixels(tmp_path: Path) -> None:
    path = convert(
        tmp_path / "pixels.tflite",
        lambda image: convolve(tf.cast(image, tf.float32) / 255),
        image=((None, 6, 5, 3), tf.uint8),
    )
    network: Any = actgrid.load_model(path)
    assert (network.inputs[0].dtype, network.inputs[0].value_range) == ("uint8", (0, 255))
    pixels = np.random.default_rng(1).integers(0, 256, (1, 6, 5, 3), np.uint8)
    (activation,) = actgrid.Extractor(network, network.outputs[0])(pixels).values()
    np.testing.assert_allclose(activation, convolve(pixels / np.float32(255)), rtol=1e-4, atol=1e-5)
    assert find_preprocessing("auto", network).name == "none"


def test_states_of_recurrent_layers_start_anew(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((6, 3), batch_size=1), layers.LSTM(4, return_sequences=True, name="lstm")]
    )
    path = export_tflite(model, tmp_path / "lstm.tflite", "float")
    x = make_pixels(3, 6, 3)
    expected = np.concatenate([model.predict(x[[i]], verbose=0) for i in range(3)])
    network: Any = actgrid.load_model(path)
    assert network.outputs == ("lstm",)
    for _ in range(2):
        np.testing.assert_allclose(network.run(x, ["lstm"])["lstm"], expected, atol=1e-6)


# --- real models


def test_real_network(basic_pitch: Path) -> None:
    path = basic_pitch / "nmp.tflite"
    network: Any = actgrid.load_model(path)
    assert network.inputs == (InputInfo("input_2", (None, 43844, 1)),)
    assert network.outputs == ("contour", "note", "onset")
    x = make_pixels(1, 43844, 1)
    paths = ["batch_normalization", "contour", "note", "onset"]
    results = network.run(x, paths)
    shapes = {info.path: info.shape for info in network.list_layers()}
    assert {layer: result.shape[1:] for layer, result in results.items()} == {
        layer: shapes[layer][1:] for layer in paths
    }
    runner = Interpreter(str(path)).get_signature_runner()
    for name, expected in runner(input_2=x).items():
        np.testing.assert_allclose(results[name], expected, atol=1e-4)


def make_model_with_two_inputs(outputs: Any) -> Any:
    """Return a Keras model whose outputs a function computes from an image and a table."""
    keras.utils.set_random_seed(7)
    image, table = keras.Input((4, 4, 3), name="image"), keras.Input((5,), name="meta")
    merged = layers.Concatenate(name="merge")([layers.Flatten(name="flat")(image), table])
    return keras.Model([image, table], outputs(merged))


def test_named_outputs_are_layers_of_the_keras_model(tmp_path: Path) -> None:
    model = make_model_with_two_inputs(
        lambda merged: {
            "probs": layers.Dense(3, "softmax", name="probs")(merged),
            "cls": layers.Dense(4, "softmax", name="head")(merged),
        }
    )
    network: Any = actgrid.load_model(export_tflite(model, tmp_path / "m.tflite", "float"))
    assert network.outputs == ("head", "probs")
    assert list(network.output_names) == ["cls", "probs"]
    x = [make_pixels(2, 4, 4, 3), make_pixels(2, 5)]
    activations, expected = actgrid.Extractor(network, "*")(x), actgrid.Extractor(model, "*")(x)
    for path in ("head", "probs"):
        np.testing.assert_allclose(activations[path], expected[path], atol=1e-5)
    options: Any = {"target": {"cls": 1}, "inputs": "meta", "patch": 2}
    maps = actgrid.explain(network, x, "occlusion", **options)["meta"]
    expected_maps = actgrid.explain(model, x, "occlusion", **options)["meta"]
    np.testing.assert_allclose(maps.values, expected_maps.values, atol=1e-5)
    assert maps.details["output"] == expected_maps.details["output"]


def test_inputs_and_outputs_have_the_order_of_the_signature(tmp_path: Path) -> None:
    names = [f"{letter}_head" for letter in "zxacbdefghij"]  # more than ten
    model = make_model_with_two_inputs(
        lambda merged: [layers.Dense(2, name=name)(merged) for name in names]
    )
    network: Any = actgrid.load_model(export_tflite(model, tmp_path / "m.tflite", "float"))
    assert list(network.outputs) == list(network.output_names) == names
    assert [info.name for info in network.inputs] == ["image", "meta"]


def test_name_of_the_output_is_a_scope_of_the_graph(tmp_path: Path) -> None:
    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, 3), name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> dict[str, Any]:
            with tf.name_scope("dense"):
                logits = tf.matmul(x, tf.constant(KERNEL[0, 0, :3]))
            return {"dense": tf.nn.softmax(logits)}

    module = Module()
    tf.saved_model.save(module, tmp_path / "saved", signatures=module.__call__)
    network: Any = actgrid.load_model(
        export_tflite(tmp_path / "saved", tmp_path / "m.tflite", "float")
    )
    assert network.list_logits() == {"dense": ("dense/logits", "softmax")}
    assert [info.path for info in network.list_layers()] == ["dense"]


# --- use in the rest of actgrid


def test_functions_take_the_path(
    export_small: Callable[[Quantization], Path], tmp_path: Path, small_model: Any
) -> None:
    path, x = export_small("float"), make_pixels(2, 12, 10, 3)
    grids, expected = actgrid.render_model(path, x), actgrid.render_model(small_model, x)
    assert list(grids) == list(expected) == ["conv", "depthwise", "add"]
    for layer, grid in grids.items():
        difference = np.abs(grid.levels.astype(int) - expected[layer].levels)
        assert difference.max() <= 1
    stats = actgrid.measure_images(path, x, preprocess="prepared")
    reference = actgrid.measure_images(small_model, x, preprocess="prepared")
    np.testing.assert_allclose(
        stats.layers["conv"].mean, reference.layers["conv"].mean, rtol=1e-4, atol=1e-6
    )
    for method in ("occlusion", "rise"):
        heatmap = actgrid.explain(path, x, method, 2)
        np.testing.assert_allclose(
            heatmap.values, actgrid.explain(small_model, x, method, 2).values, atol=1e-4
        )


def test_threads_share_a_network(export_small: Callable[[Quantization], Path]) -> None:
    network: Any = actgrid.load_model(export_small("float"))
    batches = [make_pixels(1 + number % 3, 12, 10, 3) * number for number in range(12)]
    expected = [network.run(x, ["conv"])["conv"] for x in batches]
    with ThreadPoolExecutor(4) as threads:
        results = threads.map(lambda x: network.run(x, ["conv"])["conv"], batches)
        for result, values in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, values)


def test_fingerprint_and_pickle(export_small: Callable[[Quantization], Path]) -> None:
    network: Any = actgrid.load_model(export_small("float"))
    restored = pickle.loads(pickle.dumps(network))
    x = make_pixels(2, 12, 10, 3)
    np.testing.assert_array_equal(
        restored.run(x, ["scores"])["scores"], network.run(x, ["scores"])["scores"]
    )
    assert restored.fingerprint() == network.fingerprint()
    assert len(network.fingerprint()) == 32
    assert repr(network).startswith("<TFLiteNetwork 'float' from ")
    assert repr(network).endswith(" to scores>")
    other: Any = actgrid.load_model(export_small("dynamic"))
    assert other.fingerprint() != network.fingerprint()


# --- errors


def test_damaged_and_other_files_are_refused(
    export_small: Callable[[Quantization], Path], tmp_path: Path
) -> None:
    content = export_small("float").read_bytes()
    path = tmp_path / "damaged.tflite"
    for start in (b"", b"PK\3\4" + bytes(100)):
        path.write_bytes(start)
        with pytest.raises(ModelError, match=r"damaged\.tflite is not a TFLite model: it "):
            actgrid.load_model(path)
    for part in (content[:100], content[: len(content) // 2], content[:8] + bytes(3000)):
        path.write_bytes(part)
        with pytest.raises(ModelError, match="'damaged' is no intact TFLite model: "):
            actgrid.load_model(path)
    with pytest.raises(MissingFileError, match=r"there is no model file no\.tflite"):
        actgrid.load_model("no.tflite")
    other = tmp_path / "model.keras"
    other.write_bytes(content)
    with pytest.raises(ModelError, match=r"TFLite model, whose name must end in \.tflite"):
        actgrid.load_model(other)
    with pytest.raises(ModelError, match=r"LiteRT: give the path of its \.tflite file$"):
        actgrid.load_model(Interpreter(model_content=content))


def test_unknown_operations_are_named(tmp_path: Path) -> None:
    specs = [tf.TensorSpec((1, 4, 4), tf.float32)]
    concrete = tf.function(tf.linalg.inv).get_concrete_function(*specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    path = tmp_path / "inverse.tflite"
    path.write_bytes(converter.convert())
    with pytest.raises(ModelError, match=r"'inverse': .* \(FlexMatrixInverse\); expected built-in"):
        actgrid.load_model(path)


def test_missing_package(
    export_small: Callable[[Quantization], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'actgrid\[tflite\]'"):
        actgrid.load_model(export_small("float"))
