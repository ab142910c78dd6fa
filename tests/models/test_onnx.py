"""ONNX models show their layers, and have the values of onnxruntime."""

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
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.models.exports import export_onnx, quantize_onnx

import actgrid
from actgrid.errors import MissingDependencyError, ModelError

Array = npt.NDArray[Any]
Save = Callable[..., Path]

_KERNEL = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
_IMAGE = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write an ONNX file of operations, inputs, outputs and constants."""

    def save(
        nodes: Sequence[Any],
        inputs: dict[str, Sequence[int | str]],
        outputs: Sequence[str],
        dtype: int = TensorProto.FLOAT,
        opset: int = 17,
        **constants: Array,
    ) -> Path:
        graph = helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return save


def _compute(path: Path, names: Sequence[str], inputs: dict[str, Array]) -> list[Array]:
    """Compute tensors with onnxruntime, as outputs that are added by hand."""
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    values: list[Array] = session.run(names, inputs)
    return values


def _describe(path: Path) -> dict[str, tuple[Any, ...]]:
    return {
        info.path: (info.type, info.shape, info.data_format) for info in actgrid.list_layers(path)
    }


def _make_convolution(**attributes: Any) -> list[Any]:
    return [
        helper.make_node("Conv", ["image", "kernel"], ["c"], name="conv/Conv", **attributes),
        helper.make_node("Relu", ["c"], ["r"], name="relu/Relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool/Pool"),
        helper.make_node("Flatten", ["p"], ["scores"], name="flatten/Flatten"),
    ]


def test_layers_of_a_convolutional_network(save: Save) -> None:
    path = save(_make_convolution(), {"image": ["batch", 3, 8, 8]}, ["scores"], kernel=_KERNEL)
    network = actgrid.load_model(path)
    assert _describe(path) == {
        "conv": ("Conv", (None, 4, 6, 6), "channels_first"),
        "relu": ("Relu", (None, 4, 6, 6), "channels_first"),
        "pool": ("GlobalAveragePool", (None, 4, 1, 1), "channels_first"),
        "flatten": ("Flatten", (None, 4), "channels_last"),
    }
    (info,) = network.inputs
    assert (info.name, info.shape, info.data_format) == (
        "image",
        (None, 3, 8, 8),
        "channels_first",
    )
    assert (network.name, list(network.outputs)) == ("model", ["flatten"])
    assert [layer.parameters for layer in actgrid.list_layers(path)] == [108, 0, 0, 0]
    assert network.list_edges() == [
        ("image", "conv"),
        ("conv", "relu"),
        ("relu", "pool"),
        ("pool", "flatten"),
    ]
    activations = actgrid.Extractor(path, layers="*")(_IMAGE)
    expected = _compute(path, ["c", "r", "p", "scores"], {"image": _IMAGE})
    for array, values in zip(activations.values(), expected, strict=True):
        np.testing.assert_array_equal(array, values)
    grid = actgrid.render_model(path, _IMAGE, layers="conv")["conv"]
    assert len(grid.channels) == 4


@pytest.mark.parametrize("batch", [1, 2])
def test_fixed_batch_size(save: Save, batch: int) -> None:
    path = save(_make_convolution(), {"image": [batch, 3, 8, 8]}, ["scores"], kernel=_KERNEL)
    images = np.concatenate([_IMAGE, _IMAGE[:1] + 1])
    activations = actgrid.Extractor(path, layers=["conv", "flatten"])(images)
    pairs = [images[:2], images[[2, 2]]] if batch == 2 else np.split(images, 3)
    for name, array in zip(("c", "scores"), activations.values(), strict=True):
        parts = [_compute(path, [name], {"image": part})[0] for part in pairs]
        np.testing.assert_array_equal(array, np.concatenate(parts)[:3])
    assert all(info.shape[0] is None for info in actgrid.list_layers(path))


@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_no_samples(save: Save, batch: int | str) -> None:
    path = save(_make_convolution(), {"image": [batch, 3, 8, 8]}, ["scores"], kernel=_KERNEL)
    for layers, shape in {"conv": (0, 4, 6, 6), "flatten": (0, 4)}.items():
        (found,) = actgrid.Extractor(path, layers)(_IMAGE[:0]).values()
        assert found.shape == shape


def test_transposed_blocks_of_keras_exports(save: Save) -> None:
    nodes = [
        helper.make_node("Mul", ["image", "two"], ["m"], name="scaling/Mul"),
        helper.make_node("Transpose", ["m"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "kernel"], ["c"], name="conv/Conv"),
        helper.make_node("Transpose", ["c"], ["back"], perm=[0, 2, 3, 1]),
        helper.make_node("Relu", ["back"], ["r"], name="relu/Relu"),
    ]
    path = save(nodes, {"image": ["n", 8, 8, 3]}, ["r"], kernel=_KERNEL, two=np.float32(2))
    formats = {name: description[2] for name, description in _describe(path).items()}
    assert formats == {
        "scaling": "channels_last",
        "conv": "channels_first",
        "relu": "channels_last",
    }
    assert actgrid.load_model(path).inputs[0].data_format == "channels_last"


@pytest.mark.parametrize("sides", [[9], [5, 6, 7]])
def test_convolutions_in_one_and_three_dimensions(save: Save, sides: list[int]) -> None:
    kernel = np.ones((2, 5, *[3] * len(sides)), np.float32)
    node = helper.make_node("Conv", ["x", "kernel"], ["conv"])
    path = save([node], {"x": ["n", 5, *sides]}, ["conv"], kernel=kernel)
    shape = (None, 2, *(side - 2 for side in sides))
    assert _describe(path) == {"conv": ("Conv", shape, "channels_first")}
    assert actgrid.load_model(path).inputs[0].data_format == "channels_first"


def test_constants_that_are_also_inputs_are_no_inputs(save: Save) -> None:
    path = save(
        _make_convolution(),
        {"image": ["n", 3, 8, 8], "kernel": [4, 3, 3, 3]},
        ["scores"],
        kernel=_KERNEL,
    )
    assert [info.name for info in actgrid.load_model(path).inputs] == ["image"]


def test_several_inputs_and_outputs(save: Save) -> None:
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Mul", ["sum", "b"], ["product"]),
        helper.make_node("ArgMax", ["product"], ["index"], axis=1, keepdims=0),
    ]
    path = save(nodes, {"a": ["n", 4], "b": ["n", 4]}, ["product", "index", "sum"])
    network = actgrid.load_model(path)
    assert list(network.outputs) == ["product", "index", "sum"]
    a, b = np.arange(8.0, dtype=np.float32).reshape(2, 4), np.full((2, 4), 2, np.float32)
    activations = actgrid.Extractor(path, layers="*")({"b": b, "a": a})
    np.testing.assert_array_equal(activations["sum"], a + b)
    np.testing.assert_array_equal(activations["product"], (a + b) * b)
    np.testing.assert_array_equal(activations["index"], [3, 3])


def test_several_inputs_and_a_shape_that_is_measured(save: Save) -> None:
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Reshape", ["sum", "shape"], ["pairs"]),
    ]
    path = save(nodes, {"a": ["n", 4], "b": ["n", 4]}, ["pairs"], shape=np.array([-1, 2, 2]))
    a, b = np.arange(8, dtype=np.float32).reshape(2, 4), np.ones((2, 4), np.float32)
    activations = actgrid.Extractor(path, layers="*")({"a": a, "b": b})
    np.testing.assert_array_equal(activations["pairs"], (a + b).reshape(2, 2, 2))
    assert actgrid.list_layers(path, [a, b])[1].shape == (None, 2, 2)


def test_layers_without_a_batch_axis_get_one(save: Save) -> None:
    nodes = [
        helper.make_node("Squeeze", ["x", "axis"], ["row"]),
        helper.make_node("Relu", ["row"], ["y"]),
    ]
    path = save(nodes, {"x": [1, 4]}, ["y"], axis=np.array([0]))
    x = np.array([[1, -1, 2, 0], [3, 3, -3, 1]], np.float32)
    assert _describe(path)["y"][1] == (None, 4)
    np.testing.assert_array_equal(actgrid.Extractor(path, layers="y")(x)["y"], np.maximum(x, 0))


def test_shapes_that_only_an_input_tells(save: Save) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Cast", ["where"], ["places"], to=TensorProto.FLOAT),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Mul", ["shape", "shape"], ["squares"]),
        helper.make_node("ConstantOfShape", ["squares"], ["ones"]),
        helper.make_node("ReduceMean", ["ones"], ["mean"]),
        helper.make_node("Add", ["x", "mean"], ["y"]),
    ]
    path = save(nodes, {"x": ["n", "side"]}, ["y"])
    x = np.ones((1, 3), np.float32)
    assert [info.path for info in actgrid.list_layers(path, x)] == ["y"]


def test_one_value_is_counted_if_it_is_called_a_weight(save: Save) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "m/dense/kernel"], ["product"], name="m/dense/MatMul"),
        helper.make_node("Add", ["product", "m/dense/BiasAdd"], ["y"], name="m/dense/Add"),
        helper.make_node("Add", ["y", "m/norm/epsilon"], ["z"], name="m/norm/Add"),
    ]
    constants = {"m/dense/kernel": np.ones((3, 1)), "m/dense/BiasAdd": [1], "m/norm/epsilon": [1]}
    values = {name: np.asarray(value, np.float32) for name, value in constants.items()}
    path = save(nodes, {"x": ["n", 3]}, ["z"], **values)
    assert [info.parameters for info in actgrid.list_layers(path)] == [4, 0]


def test_float16(save: Save) -> None:
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    path = save([node], {"x": ["n", 3]}, ["y"], TensorProto.FLOAT16, two=np.float16(2))
    (info,) = actgrid.list_layers(path)
    array = actgrid.Extractor(path, layers="y")(np.array([[1, 0.1, 3]]))["y"]
    assert info.dtype == array.dtype == "float16"
    np.testing.assert_array_equal(array, np.array([[1, 0.1, 3]], np.float16) * np.float16(2))


def test_quantized_values_are_real_values(save: Save) -> None:
    """The operations of ONNX, alone and around an operation on floats."""
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s0", "z0"], ["image_q"]),
        helper.make_node(
            "QLinearConv",
            ["image_q", "s0", "z0", "kernel_q", "s1", "z1", "s2", "z2"],
            ["conv_quantized"],
            name="conv_quant",
        ),
        helper.make_node("MaxPool", ["conv_quantized"], ["pool"], kernel_shape=[2, 2]),
        helper.make_node("DequantizeLinear", ["pool", "s2", "z2"], ["real"]),
        helper.make_node("Relu", ["real"], ["relu"]),
        helper.make_node("QuantizeLinear", ["relu", "s3"], ["relu_q"], axis=1),
        helper.make_node("DequantizeLinear", ["relu_q", "s3"], ["y"], axis=1),
    ]
    scale = np.abs(_KERNEL).max() / 127
    kernel = np.rint(_KERNEL / scale).astype(np.int8)
    constants = {
        "s0": np.float32(0.03),
        "z0": np.uint8(128),
        "kernel_q": kernel,
        "s1": np.float32(scale),
        "z1": np.int8(0),
        "s2": np.float32(0.1),
        "z2": np.uint8(100),
        "s3": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
    }
    path = save(nodes, {"image": ["n", 3, 8, 8]}, ["y"], **constants)
    assert {name: info[0] for name, info in _describe(path).items()} == {
        "conv": "QLinearConv",
        "pool": "MaxPool",
        "relu": "Relu",
    }
    assert {info.dtype for info in actgrid.list_layers(path)} == {"float32"}
    values = actgrid.Extractor(path, layers="*")(_IMAGE)
    conv, pool, relu = _compute(path, ["conv_quantized", "pool", "relu_q"], {"image": _IMAGE})
    assert conv.dtype == np.uint8
    np.testing.assert_allclose(values["conv"], (conv.astype(np.float32) - 100) * 0.1, rtol=1e-6)
    np.testing.assert_allclose(values["pool"], (pool.astype(np.float32) - 100) * 0.1, rtol=1e-6)
    steps = np.array([0.1, 0.2, 0.3, 0.4]).reshape(1, 4, 1, 1)
    np.testing.assert_allclose(values["relu"], relu * steps, rtol=1e-6)
    assert actgrid.list_layers(path)[0].parameters == 108
    low, high = actgrid.load_model(path).inputs[0].value_range
    assert (low, high) == pytest.approx((-128 * 0.03, 127 * 0.03))


def test_functions_and_control_flow(save: Save, tmp_path: Path) -> None:
    """Operations of functions are layers; those of branches are not."""
    branches = [
        helper.make_graph(
            [helper.make_node(operation, ["h"], ["out"])],
            operation,
            [],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        )
        for operation in ("Neg", "Abs")
    ]
    nodes = [
        helper.make_node("Twice", ["x"], ["h"], domain="local"),
        helper.make_node("ReduceSum", ["h"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["is_positive"]),
        helper.make_node(
            "If", ["is_positive"], ["y"], then_branch=branches[0], else_branch=branches[1]
        ),
    ]
    model = onnx.load(save(nodes, {"x": ["n", 3]}, ["y"], zero=np.float32(0)))
    model.opset_import.append(helper.make_opsetid("local", 1))
    body = [
        helper.make_node("Add", ["a", "a"], ["twice"]),
        helper.make_node("Relu", ["twice"], ["b"]),
    ]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, opsets))
    path = tmp_path / "functions.onnx"
    onnx.save(model, path)
    x = np.array([[1, -2, 3]], np.float32)
    infos = actgrid.list_layers(path)
    assert [info.type for info in infos if info.type not in ("Greater", "ReduceSum")] == [
        "Add",
        "Relu",
        "If",
    ]
    values = actgrid.Extractor(path, layers="*")(x)
    np.testing.assert_array_equal(values[infos[0].path], 2 * x)
    np.testing.assert_array_equal(values["y"], -np.maximum(2 * x, 0))


def test_probabilities_of_a_classifier_of_scikit_learn() -> None:
    path = Path(onnxruntime.__file__).parent / "datasets" / "logreg_iris.onnx"
    network = actgrid.load_model(path)
    x = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    session = onnxruntime.InferenceSession(path)
    labels, probabilities = session.run(None, {network.inputs[0].name: x})
    values = actgrid.Extractor(path, layers=list(network.outputs))(x)
    found_labels, found = values.values()
    np.testing.assert_array_equal(found_labels, labels)
    np.testing.assert_allclose(found, [list(row.values()) for row in probabilities], rtol=1e-6)


def _externalize(path: Path, location: str) -> None:
    """Move the kernel of a model to another file."""
    model = onnx.load(path)
    (tensor,) = model.graph.initializer
    entries = {"location": location, "offset": "0", "length": str(len(tensor.raw_data))}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def test_weights_in_another_file(save: Save, tmp_path: Path) -> None:
    path = save(_make_convolution(), {"image": ["n", 3, 8, 8]}, ["scores"], kernel=_KERNEL)
    expected = actgrid.Extractor(path, layers="*")(_IMAGE)
    _externalize(path, "weights.bin")
    with pytest.raises(ModelError, match=r"needs the file 'weights\.bin'"):
        actgrid.load_model(path)
    (tmp_path / "weights.bin").write_bytes(_KERNEL.tobytes())
    for name, values in actgrid.Extractor(path, layers="*")(_IMAGE).items():
        np.testing.assert_array_equal(values, expected[name])
    fingerprint = actgrid.load_model(path).fingerprint()
    (tmp_path / "weights.bin").write_bytes((_KERNEL + 1).tobytes())
    assert actgrid.load_model(path).fingerprint() != fingerprint


@pytest.mark.parametrize("location", ["../secret.bin", "{folder}/secret.bin", "link.bin"])
def test_weights_outside_the_folder_are_refused(save: Save, tmp_path: Path, location: str) -> None:
    secret = tmp_path.parent / "secret.bin"
    secret.write_bytes(_KERNEL.tobytes())
    (tmp_path / "link.bin").symlink_to(secret)
    path = save(_make_convolution(), {"image": ["n", 3, 8, 8]}, ["scores"], kernel=_KERNEL)
    _externalize(path, location.format(folder=tmp_path.parent))
    with pytest.raises(ModelError, match=r"outside the folder of the model; if you trust"):
        actgrid.load_model(path)


def test_memory_addresses_are_refused(save: Save) -> None:
    """A location that onnxruntime reads from the memory of the process."""
    path = save(_make_convolution(), {"image": ["n", 3, 8, 8]}, ["scores"], kernel=_KERNEL)
    _externalize(path, "*/_ORT_MEM_ADDR_/*")
    for safe_mode in (True, False):
        with pytest.raises(ModelError, match="needs the file"):
            actgrid.load_model(path, safe_mode=safe_mode)


def test_damaged_and_unknown_models(
    save: Save, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.onnx"
    for content, reason in [
        (b"", "it is empty"),
        (b"not a model", "is not an ONNX model"),
        (onnx.ModelProto().SerializeToString() or b"\x08\x08", "it has no operations"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ModelError, match=reason):
            actgrid.load_model(path)
    node = helper.make_node("Magic", ["x"], ["y"], domain="nobody")
    model = onnx.load(save([node], {"x": ["n", 3]}, ["y"]))
    model.opset_import.append(helper.make_opsetid("nobody", 1))
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"nobody.*Magic") as caught:
        actgrid.load_model(path)
    assert "\n" not in str(caught.value)
    node = helper.make_node("Identity", ["x"], ["y"])
    with pytest.raises(ModelError, match=r"input 'x'.*takes tensor\(string\)"):
        actgrid.load_model(save([node], {"x": ["n", 3]}, ["y"], TensorProto.STRING))
    assert capfd.readouterr().err == ""


def test_input_without_axes(save: Save) -> None:
    path = save([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 3]}, ["y"])
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    with pytest.raises(ModelError, match="does not tell the number of axes of its input 'x'; exp"):
        actgrid.load_model(path)


def test_shapes_that_depend_on_the_sample(save: Save) -> None:
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["r"], name="resize"),
        helper.make_node("NonZero", ["r"], ["found"], name="nonzero"),
    ]
    scales = np.array([1, 1, 2, 2], np.float32)
    path = save(nodes, {"x": ["n", 1, 2, 2]}, ["r", "found"], opset=18, scales=scales)
    x = np.array([[0, 1, 1, 0], [0, 0, 1, 0]], np.float32).reshape(2, 1, 2, 2)
    extractor = actgrid.Extractor(path, "found")
    assert [extractor(image[None])["found"].shape for image in x] == [(1, 4, 8), (1, 4, 4)]
    with pytest.raises(ModelError, match=r"shapes \(4, 8\) and \(4, 4\) for two samples, which"):
        extractor(x)
    assert [info.parameters for info in actgrid.list_layers(path)] == [0, 0]


def test_errors_of_a_run(save: Save, capfd: pytest.CaptureFixture[str]) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    path = save([node], {"x": ["n", "side"]}, ["y"], shape=np.array([-1, 4]))
    with pytest.raises(ModelError, match=r"cannot be run on inputs of shape \(1, 3\)") as caught:
        actgrid.Extractor(path, layers="y")(np.zeros((1, 3), np.float32))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_missing_package(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 3]}, ["y"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'actgrid\[onnx\]'"):
        actgrid.load_model(path)


def test_pickle(save: Save) -> None:
    path = save(_make_convolution(), {"image": ["n", 3, 8, 8]}, ["scores"], kernel=_KERNEL)
    network = actgrid.load_model(path)
    copy = pickle.loads(pickle.dumps(network))
    assert copy.fingerprint() == network.fingerprint()
    assert copy.list_layers() == network.list_layers()
    assert repr(copy) == f"<ONNXNetwork {path.stem!r} from image (None, 3, 8, 8) to flatten>"


@pytest.fixture(scope="module")
def demo_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the embedded network, exported to ONNX."""
    path = tmp_path_factory.mktemp("onnx") / "demo.onnx"
    return export_onnx(actgrid.load_model("demo"), path)


@pytest.fixture(scope="module")
def photo() -> Array:
    """Return the embedded photo, and a variant of it."""
    photo = actgrid.load_images([actgrid.demo.photo()], actgrid.load_model("demo"))
    return np.concatenate([photo, photo[:, :, ::-1] / 2])


def _put_channels_last(network: Any, activations: dict[str, Array]) -> dict[str, Array]:
    formats = {info.path: info.data_format for info in actgrid.list_layers(network)}
    return {
        path: np.moveaxis(array, 1, -1) if formats[path] == "channels_first" else array
        for path, array in activations.items()
    }


def test_layers_of_the_embedded_network(demo_path: Path, photo: Array) -> None:
    model, network = actgrid.load_model("demo"), actgrid.load_model(demo_path)
    expected = actgrid.Extractor(model, layers="*")(photo)
    activations = actgrid.Extractor(network, layers="*")(photo)
    assert len(activations) > 100
    assert list(network.outputs) == ["predictions"]
    for path, array in _put_channels_last(network, activations).items():
        scale = np.abs(expected[path]).max()
        np.testing.assert_allclose(array / scale, expected[path] / scale, atol=1e-4)
    # Outputs alone are computed with the optimizations of onnxruntime.
    (output,) = actgrid.Extractor(network, layers="predictions")(photo).values()
    np.testing.assert_allclose(output, activations["predictions"], atol=1e-5)


def test_explain_the_embedded_network(demo_path: Path) -> None:
    """The logits before the softmax are explained, as for the Keras model."""
    options: dict[str, Any] = {"method": "occlusion", "target": 285, "patch": 56, "stride": 56}
    found = actgrid.explain(demo_path, actgrid.demo.photo(), **options)
    expected = actgrid.explain("demo", actgrid.demo.photo(), **options)
    assert found.is_logit
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4)


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(
    ("opset", "axis", "has_logits"),
    [(17, 1, True), (17, -1, False), (17, 2, False), (11, 1, False)],
)
def test_softmax_of_the_classes_of_each_pixel(
    save: Save, kind: str, opset: int, axis: int, has_logits: bool
) -> None:
    """Logits are explained if the softmax is that of the channels, which are first."""
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["conv"]),
        helper.make_node(kind, ["conv"], ["mask"], axis=axis),
    ]
    path = save(nodes, {"image": ["n", 3, 8, 8]}, ["mask"], opset=opset, kernel=_KERNEL)
    assert actgrid.load_model(path).list_logits() == (
        {"mask": ("conv", kind.lower().replace("log", "log_"))} if has_logits else {}
    )
    heatmap: Any = actgrid.explain(
        path, _IMAGE, "occlusion", target=lambda mask: mask[:, 2, 4, 3] ** 2, patch=4
    )
    (mask,) = _compute(path, ["mask"], {"image": _IMAGE})
    np.testing.assert_allclose(heatmap.score, mask[:, 2, 4, 3] ** 2, rtol=1e-4)


def test_quantized_embedded_network(demo_path: Path, photo: Array, tmp_path: Path) -> None:
    float_path, path = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    quantize_onnx(demo_path, float_path, path, photo)
    model, network = actgrid.load_model("demo"), actgrid.load_model(path)
    expected = actgrid.Extractor(model, layers="*")(photo)
    activations = actgrid.Extractor(network, layers="*")(photo)
    assert len(activations) > 50
    stem = _put_channels_last(network, activations)["stem_relu"]
    assert np.corrcoef(stem.ravel(), expected["stem_relu"].ravel())[0, 1] > 0.99
    for name, array in activations.items():
        info = next(info for info in actgrid.list_layers(network) if info.path == name)
        assert (info.dtype, info.shape[1:]) == ("float32", array.shape[1:])
        assert len(np.unique(array)) <= 256


def test_real_network(basic_pitch: Path) -> None:
    """A network of sound. The file does not tell the shapes of its layers."""
    path = basic_pitch / "nmp.onnx"
    network = actgrid.load_model(path)
    (info,) = network.inputs
    assert (info.shape, info.data_format) == ((None, 43844, 1), "channels_last")
    x = np.random.default_rng(0).normal(size=(1, 43844, 1)).astype(np.float32)
    activations = actgrid.Extractor(path, layers="*")(x)
    infos = {info.path: info for info in actgrid.list_layers(path)}
    assert list(activations) == list(infos)
    assert len(infos) > 100
    for name, array in activations.items():
        assert infos[name].shape == (None, *array.shape[1:])
    names = [output.name for output in onnx.load(path).graph.output]
    expected = _compute(path, names, {info.name: x})
    for output, values in zip(network.outputs, expected, strict=True):
        np.testing.assert_array_equal(activations[output], values)
    outputs = network.run(x, network.outputs)
    for name, values in zip(network.outputs, outputs.values(), strict=True):
        np.testing.assert_allclose(values, activations[name], atol=1e-4)
    relu = next(info for info in infos.values() if info.type == "Relu")
    assert relu.data_format == "channels_first"
    grid = actgrid.render_model(path, x, layers=relu.path)[relu.path]
    assert len(grid.channels) == relu.channels == relu.shape[1]


def test_threads_share_a_network(save: Save) -> None:
    path = save(_make_convolution(), {"image": ["n", 3, 8, 8]}, ["scores"], kernel=_KERNEL)
    network: Any = actgrid.load_model(path)
    (expected,) = network.run(_IMAGE, ["conv"]).values()
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: network.run(_IMAGE, ["conv"])["conv"], range(20)):
            np.testing.assert_array_equal(result, expected)


def test_class_activation_maps_of_channels_first_layers(save: Save) -> None:
    path = save(_make_convolution(), {"image": ["n", 3, 8, 8]}, ["scores"], kernel=_KERNEL)
    heatmap = actgrid.explain(path, _IMAGE, "eigencam", layer="conv")
    (conv,) = _compute(path, ["c"], {"image": _IMAGE[:1]})
    projection = np.linalg.svd(conv[0].reshape(4, -1).T)[2][0]
    expected = np.abs(np.tensordot(projection, conv[0], 1))
    assert heatmap.values.shape == (2, 6, 6)
    found = np.abs(heatmap.values[0])
    mask = found > 0
    np.testing.assert_allclose(found[mask], expected[mask], rtol=1e-3)


def test_objects_of_onnx_are_refused_with_advice(save: Save) -> None:
    path = save([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 3]}, ["y"])
    objects: list[Any] = [onnx.load(path), onnxruntime.InferenceSession(path)]
    for value, advice in zip(objects, ["give that path", "path of its .onnx file"], strict=True):
        with pytest.raises(ModelError, match=advice):
            actgrid.load_model(value)


def test_other_suffixes_are_refused_with_advice(save: Save, tmp_path: Path) -> None:
    path = save([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 3]}, ["y"])
    upper = path.rename(tmp_path / "MODEL.ONNX")
    assert [info.path for info in actgrid.list_layers(upper)] == ["y"]
    with pytest.raises(ModelError, match=r"an ONNX model, whose name must end in \.onnx$"):
        actgrid.load_model(upper.rename(tmp_path / "model.bin"))


def test_calls_of_shared_layers_have_the_numbers_of_the_keras_model(tmp_path: Path) -> None:
    left, right = keras.Input((6, 3), name="left"), keras.Input((6, 3), name="right")
    part = keras.Sequential(
        [
            keras.Input((6, 3)),
            keras.layers.Dense(4, activation="relu", name="dense"),
            keras.layers.GlobalAveragePooling1D(name="pool"),
        ],
        name="part",
    )
    difference = keras.layers.Subtract(name="difference")([part(left), part(right)])
    model = keras.Model([left, right], difference)
    x = {"left": np.ones((2, 6, 3), np.float32), "right": np.zeros((2, 6, 3), np.float32)}
    activations = actgrid.Extractor(export_onnx(model, tmp_path / "pair.onnx"), "*")(x)
    truth = actgrid.Extractor(model, "*")(x)
    for path in ("part/pool", "part/pool:1"):
        np.testing.assert_allclose(activations[path], truth[path], atol=1e-5)
