"""Tests of `actgrid.models.loading` and `actgrid.models.keras_files`."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

from actgrid import ActgridError, Extractor, list_layers, load_model
from actgrid.errors import MissingFileError, ModelError

Array = npt.NDArray[Any]


def make_pixels(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def make_sequential_model() -> Any:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dropout(0.2, name="drop"),
            layers.Dense(3, activation="softmax", name="dense"),
        ],
        name="sequential",
    )
    model.get_layer("norm").moving_mean.assign([0.1, 0.2, 0.3, 0.4])
    return model


def make_functional_model() -> Any:
    inputs = keras.Input((8, 8, 3), name="image")
    left = layers.Conv2D(4, 3, padding="same", name="left")(inputs)
    right = layers.Conv2D(4, 1, name="right")(inputs)
    added = layers.Add(name="add")([left, right])
    pooled = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu")(added))
    return keras.Model(inputs, layers.Dense(3, name="dense")(pooled), name="functional")


def assert_same_model(loaded: Any, original: Any) -> None:
    x = make_pixels(2, 8, 8, 3)
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), original.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )


# --- models and files


def test_keras_model_is_returned_unchanged() -> None:
    model = make_sequential_model()
    assert load_model(model) is model
    layer = layers.Dense(2)
    assert load_model(layer) is layer


@pytest.mark.parametrize("make", [make_sequential_model, make_functional_model])
@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
@pytest.mark.parametrize("kind", [str, Path])
def test_files_are_loaded(
    tmp_path: Path, make: Callable[[], Any], suffix: str, kind: Callable[[Path], Any]
) -> None:
    model = make()
    path = tmp_path / f"model{suffix}"
    model.save(path)
    loaded = load_model(kind(path))
    assert_same_model(loaded, model)
    assert [info.path for info in list_layers(loaded)] == [info.path for info in list_layers(model)]


def unregistered_loss(truth: Any, found: Any) -> Any:
    return keras.ops.mean(truth - found)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_are_loaded_for_inference(tmp_path: Path, suffix: str) -> None:
    model = make_sequential_model()
    model.compile("sgd", loss=unregistered_loss)
    model.fit(make_pixels(2, 8, 8, 3), np.zeros((2, 3)), verbose=0)
    path = tmp_path / f"model{suffix}"
    model.save(path)
    loaded = load_model(path)
    assert not loaded.compiled
    assert_same_model(loaded, model)


def convert_to_keras_2(config: Any) -> Any:
    """Convert a model's configuration to the format of Keras 2."""
    if isinstance(config, list):
        return [convert_to_keras_2(value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return config["config"]["name"]
    new = {"module", "registered_name", "build_config", "compile_config", "quantization_config"}
    old = {key: convert_to_keras_2(value) for key, value in config.items() if key not in new}
    if "batch_shape" in old:
        old["batch_input_shape"] = old.pop("batch_shape")
        old.pop("optional", None)
    if old.get("class_name") == "BatchNormalization":
        old["config"]["axis"] = [3]
        for key in ("renorm", "virtual_batch_size", "synchronized"):
            old["config"].pop(key, None)
    return old


def convert_inbound_to_keras_2(nodes: list[Any]) -> list[Any]:
    old = []
    for node in nodes:
        arguments = node["args"][0]
        tensors = arguments if isinstance(arguments, list) else [arguments]
        old.append([[*tensor["config"]["keras_history"], {}] for tensor in tensors])
    return old


def rewrite_as_keras_2(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer.get("inbound_nodes"):
                layer["inbound_nodes"] = convert_inbound_to_keras_2(layer["inbound_nodes"])
        config = convert_to_keras_2(config)
        for key in ("input_layers", "output_layers"):
            ends = config["config"].get(key)
            if ends and not isinstance(ends[0], list):
                config["config"][key] = [ends]
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"
        weights = file["model_weights"]
        weights.attrs["keras_version"] = "2.15.0"
        for group in weights.values():
            names = list(group.attrs["weight_names"])
            for name in names:
                group.move(name, name + ":0")
            group.attrs["weight_names"] = [(name + ":0").encode() for name in names]


@pytest.mark.parametrize("make", [make_sequential_model, make_functional_model])
def test_keras_2_hdf5_files_are_loaded(tmp_path: Path, make: Callable[[], Any]) -> None:
    model = make()
    path = tmp_path / "model.h5"
    model.save(path)
    rewrite_as_keras_2(path)
    with h5py.File(path) as file:
        text = file.attrs["model_config"]
    assert "batch_input_shape" in text
    assert "DTypePolicy" not in text
    assert "registered_name" not in text
    loaded = load_model(path)
    assert_same_model(loaded, model)
    activations = Extractor(loaded)(make_pixels(1, 8, 8, 3))
    assert list(activations) == list(Extractor(model)(make_pixels(1, 8, 8, 3)))


def test_keras_2_depthwise_convolutions_are_loaded(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.DepthwiseConv2D(3, name="depthwise")])
    path = tmp_path / "model.h5"
    model.save(path)
    rewrite_as_keras_2(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"]["groups"] = (
            1  # written by Keras 2, unknown to Keras 3
        )
        file.attrs["model_config"] = json.dumps(config)
    assert_same_model(load_model(path), model)


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = make_functional_model()
    folder = tmp_path_factory.mktemp("export") / "saved"
    model.export(folder, verbose=False)
    return model, folder


# --- applications, functions


def test_application_with_random_weights() -> None:
    model = load_model("keras:MobileNet", weights="random")
    assert model.name == "mobilenet_1.00_224"
    assert model.input_shape == (None, 224, 224, 3)


def test_application_with_weights_file(tmp_path: Path) -> None:
    model = keras.applications.MobileNet(weights=None)
    path = tmp_path / "mobile.weights.h5"
    model.save_weights(path)
    loaded = load_model("keras:MobileNet", weights=path)
    for old, new in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_of_another_model_raise(tmp_path: Path) -> None:
    path = tmp_path / "other.weights.h5"
    make_sequential_model().save_weights(path)
    with pytest.raises(ModelError, match=r"keras:MobileNet with weights .*other\.weights\.h5"):
        load_model("keras:MobileNet", weights=path)


def test_demo_model() -> None:
    model = load_model("demo")
    assert model.name == "efficientnet_lite0"
    assert model.output_shape == (None, 1000)


MODULE = """
import keras
from keras import layers

def make():
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3)], name="made")

class Factory:
    @staticmethod
    def build():
        return make()

class Own(keras.Model):
    pass

MODEL = make()
COUNT = 3

def make_nothing():
    return None

def make_badly():
    return {}["weights"]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # A unique name, because Python caches imported modules.
    name = "actgrid_" + "".join(filter(str.isalnum, tmp_path.name))
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("target", ["make", "Factory.build", "MODEL"])
def test_function_spec(module: str, target: str) -> None:
    assert load_model(f"{module}:{target}").name == "made"


def test_class_spec(module: str) -> None:
    assert type(load_model(f"{module}:Own")).__name__ == "Own"


def test_module_in_package_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "actgrid_package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "nets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_model("actgrid_package.nets:make").name == "made"


# --- errors: files


@pytest.mark.parametrize(
    "spec", ["nothing.keras", "nothing.h5", "nothing.hdf5", "no/such/folder", Path("nothing")]
)
def test_missing_file_raises_file_not_found_error(spec: str | Path) -> None:
    with pytest.raises(MissingFileError, match=r"nothing|no/such/folder") as caught:
        load_model(spec)
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, ActgridError)


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"PK\x03\x04 but no archive"])
@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.txt", "model"])
def test_invalid_file_raises_value_error(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ActgridError)
    assert f"{path} is not a Keras model file" in str(caught.value)


def test_weights_file_is_not_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    make_sequential_model().save_weights(path)
    with pytest.raises(ModelError, match=r"is not a Keras model file: .*config"):
        load_model(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kept_fraction", [0.5, 0.99])
def test_truncated_file_raises(tmp_path: Path, suffix: str, kept_fraction: float) -> None:
    path = tmp_path / f"model{suffix}"
    make_sequential_model().save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept_fraction)])
    with pytest.raises(ModelError, match=r"is not a Keras model file: .*truncated"):
        load_model(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04 the rest is missing", "it is a zip archive that is truncated"),
        (b"version https://git-lfs.github.com/spec/v1", "it is a Git LFS pointer; git lfs pull"),
        (
            b"<!DOCTYPE html>",
            r"it is neither a zip archive \(.keras\) nor HDF5 .*b'<!DOCTYPE html>'",
        ),
    ],
)
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_invalid_file_error_describes_content(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} is not a Keras model file: {message}"):
        load_model(tmp_path / name)


@pytest.mark.parametrize(("kind", "other"), [(".keras", ".h5"), (".h5", ".keras")])
def test_wrong_suffix_error_names_expected_suffix(tmp_path: Path, kind: str, other: str) -> None:
    make_sequential_model().save(tmp_path / f"model{kind}")
    renamed = (tmp_path / f"model{kind}").rename(tmp_path / f"renamed{other}")
    with pytest.raises(ModelError, match=rf"so its name must end in \{kind}"):
        load_model(renamed)


def test_truncated_saved_model_raises(saved_model: tuple[Any, Path], tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    shutil.copytree(saved_model[1], folder)
    graph = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(graph[:-100])
    with pytest.raises(ModelError, match="cannot be loaded as a SavedModel: Cannot parse file"):
        load_model(folder)
    (folder / "saved_model.pb").write_bytes(graph)
    data = next((folder / "variables").glob("*.data*"))
    data.write_bytes(data.read_bytes()[:10])
    with pytest.raises(ModelError, match="cannot be loaded as a SavedModel"):
        load_model(folder)


def copy_with_edit(folder: Path, copy: Path, edit: Callable[[Any], None]) -> Path:
    """Copy a SavedModel, apply `edit` to its graph, and return the copy."""
    shutil.copytree(folder, copy)
    graph = saved_model_pb2.SavedModel()
    graph.ParseFromString((copy / "saved_model.pb").read_bytes())
    edit(graph.meta_graphs[0])
    (copy / "saved_model.pb").write_bytes(graph.SerializeToString())
    return copy


def rename_operation(graph: Any) -> None:
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == "Conv2D":
                node.op = "OwnConv"


def break_graph(graph: Any) -> None:
    graph.meta_info_def.tensorflow_version = "2.3.1"
    graph.object_graph_def.nodes[0].children[0].node_id = 10_000


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            rename_operation,
            "it needs the operation OwnConv, which is not part of TensorFlow: first import",
        ),
        (break_graph, r"cannot read what TensorFlow 2\.3\.1 wrote \(.*model\.export\(folder\)"),
    ],
)
def test_saved_model_error_explains_cause(
    saved_model: tuple[Any, Path], tmp_path: Path, edit: Callable[[Any], None], message: str
) -> None:
    folder = copy_with_edit(saved_model[1], tmp_path / "edited", edit)
    with pytest.raises(ModelError, match=f"cannot be loaded as a SavedModel: .*{message}"):
        load_model(folder)


def test_saved_model_error_names_damaged_part(
    saved_model: tuple[Any, Path], tmp_path: Path
) -> None:
    for name, message in (("no", r"there is no .*variables\.index"), ("few", "are damaged")):
        folder = tmp_path / name
        shutil.copytree(saved_model[1], folder)
        if name == "no":
            shutil.rmtree(folder / "variables")
        else:
            data = next((folder / "variables").glob("*.data*"))
            data.write_bytes(data.read_bytes()[:10])
        with pytest.raises(ModelError, match=f"its weights.* {message}"):
            load_model(folder)
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match=r"saved_model\.pb is empty"):
        load_model(folder)
    tf.saved_model.save(tf.Module(), str(tmp_path / "module"))
    with pytest.raises(ModelError, match=r"has no signatures, which define its inputs"):
        load_model(tmp_path / "module")


def test_other_zip_archive_raises(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(ModelError, match="is not a Keras model file"):
        load_model(path)


class Unknown(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x


def test_unknown_layer_class_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((8, 8, 3)), Unknown()]).save(path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["config.json"] = files["config.json"].replace(b"Unknown", b"Elsewhere")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    with pytest.raises(ModelError, match="Elsewhere"):
        load_model(path)


def save_model_with_lambda(path: Path) -> Any:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Lambda(lambda x: x * 2)])
    model.save(path)
    return model


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
def test_lambda_layer_raises_in_safe_mode(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    model = save_model_with_lambda(path)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    for part in (str(path), "Lambda", "safe_mode=False", "--no-safe-mode"):
        assert part in str(caught.value)
    assert_same_model(load_model(path, safe_mode=False), model)


@pytest.mark.parametrize("spelling", ["Lambda", "\\u004cambda"])
def test_lambda_layer_in_hdf5_raises_before_keras_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    path = tmp_path / "model.h5"
    save_model_with_lambda(path)
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"].replace('"Lambda"', f'"{spelling}"')
        assert json.loads(config) == json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = config

    # Older releases of Keras run the code.
    def runs_the_code(*args: object, **kwargs: object) -> None:
        pytest.fail("the file was given to Keras")

    monkeypatch.setattr(keras.models, "load_model", runs_the_code)
    with pytest.raises(ModelError, match="safe_mode=False"):
        load_model(path)


def test_other_folder_raises(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    with pytest.raises(ModelError, match=r"is a folder, but not a SavedModel: .*saved_model\.pb"):
        load_model(tmp_path)


def test_invalid_saved_model_raises(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(ModelError, match="cannot be loaded as a SavedModel"):
        load_model(tmp_path)


# --- errors: names


def test_unknown_application_error_suggests_names() -> None:
    with pytest.raises(ModelError, match=r"no model 'VGG61' \(did you mean .*VGG16"):
        load_model("keras:VGG61")


def test_missing_weights_file_raises() -> None:
    with pytest.raises(MissingFileError, match=r"no weights file nothing\.h5"):
        load_model("keras:MobileNet", weights="nothing.h5")


def test_failed_weights_download_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(weights: str) -> None:
        raise Exception("URL fetch failure on https://example.org/mobilenet.h5: None -- refused")

    monkeypatch.setattr(keras.applications, "MobileNet", offline)
    with pytest.raises(ModelError) as caught:
        load_model("keras:MobileNet")
    for part in ("keras:MobileNet", "weights 'imagenet'", "URL fetch failure", "random", "a file"):
        assert part in str(caught.value)
    assert "URL fetch failure" in str(caught.value.__cause__)


def test_unknown_module_raises() -> None:
    with pytest.raises(ModelError, match="there is no module 'actgrid_nowhere'"):
        load_model("actgrid_nowhere.nets:make")


def test_unknown_function_error_suggests_names(module: str) -> None:
    with pytest.raises(ModelError, match=rf"{module} has no 'mak' \(did you mean .*make"):
        load_model(f"{module}:mak")


def test_function_without_model_raises(module: str) -> None:
    with pytest.raises(ModelError, match="make_nothing must return a Keras model, not None"):
        load_model(f"{module}:make_nothing")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "os:rename",
            "os:rename requires 2 arguments; expected a function that takes no arguments",
        ),
        ("builtins:exit", "builtins:exit raised SystemExit"),
        ("sys:exit", "sys:exit raised SystemExit"),
        ("os:getcwd", "os:getcwd must return a Keras model, not '/"),
        ("math:pi", "math:pi must return a Keras model, not 3.14"),
    ],
)
def test_unsuitable_function_raises(spec: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(spec)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('no such net')", "raised ValueError: no such net"),
        ("raise SystemExit('bye')", "raised SystemExit: bye"),
        ("def", "raised SyntaxError"),
        (
            "import actgrid_nothing_of_this_name",
            "there is no module 'actgrid_nothing_of_this_name'",
        ),
    ],
)
def test_failing_import_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    name = f"actgrid_broken_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_model(f"{name}:make")


def test_error_in_model_function_is_reported(module: str) -> None:
    with pytest.raises(ModelError, match="make_badly raised KeyError: 'weights'"):
        load_model(f"{module}:make_badly")


def test_other_module_attribute_raises(module: str) -> None:
    with pytest.raises(ModelError, match="COUNT"):
        load_model(f"{module}:COUNT")


@pytest.mark.parametrize("spec", ["nonsense", "a:b:c", "vgg 16", "", "keras:", ".relative:make"])
def test_invalid_spec_raises(spec: str) -> None:
    with pytest.raises(ModelError):
        load_model(spec)


@pytest.mark.parametrize(("spec", "close"), [("VGG16", "keras:VGG16"), ("dem", "demo")])
def test_invalid_spec_error_suggests_names(spec: str, close: str) -> None:
    with pytest.raises(ModelError, match=rf"'{spec}' is not a model .*did you mean .*{close}"):
        load_model(spec)


@pytest.mark.parametrize("spec", [None, 42, object(), [], keras.Sequential, b"demo"])
def test_invalid_spec_type_raises(spec: Any) -> None:
    with pytest.raises(ModelError, match="a model must be a Keras model or"):
        load_model(spec)


def _function() -> None: ...


NON_MODELS = {
    "keras_2": (
        type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})(),
        r"not Sequential, a Keras 2 model \(tf_keras\): save it with model\.save\('model\.h5'\)",
    ),
    "torch": (
        type("Net", (type("Module", (), {"__module__": "torch.nn.modules.module"}),), {})(),
        "not Net, a PyTorch model",
    ),
    "flax": (
        type("Net", (type("Module", (), {"__module__": "flax.linen.module"}),), {})(),
        "not Net, a Flax model: export it as a SavedModel",
    ),
    "module": (tf.Module(), r"not Module, a tf\.Module: .*tf\.saved_model\.save"),
    "class": (layers.Dense, r"not the class Dense: give an instance of it, Dense\(\.\.\.\)"),
    "function": (_function, "not the function _function: give the model that it returns"),
    "compiled": (tf.function(_function), "not the function _function: give the model"),
    "tensor": (keras.KerasTensor((2, 3)), r"not a symbolic tensor: give keras\.Model"),
    "array": (np.zeros((1000, 1000)), r"not array\(.{5,40}$"),
}


@pytest.mark.parametrize("kind", NON_MODELS)
def test_non_model_error_explains_conversion(kind: str) -> None:
    value, message = NON_MODELS[kind]
    with pytest.raises(ModelError, match=message):
        load_model(value)


def test_keras_function_error_explains_conversion() -> None:
    inputs = keras.Input((3,))
    function = keras.Function(inputs, keras.ops.relu(inputs))
    with pytest.raises(ModelError, match=r"a keras\.Function: give keras\.Model\(function\.inputs"):
        load_model(function)
    assert load_model(keras.Model(function.inputs, function.outputs)).built


def test_any_path_like_object_is_accepted(tmp_path: Path) -> None:
    model = make_sequential_model()
    model.save(tmp_path / "model.keras")

    class Elsewhere(os.PathLike[str]):
        def __fspath__(self) -> str:
            return str(tmp_path / "model.keras")

    assert_same_model(load_model(Elsewhere()), model)


def test_unknown_layer_class_in_hdf5_is_named(tmp_path: Path) -> None:
    class Unheard(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    keras.Sequential([keras.Input((2,)), Unheard()]).save(tmp_path / "unheard.h5")
    with pytest.raises(ModelError, match=r"unheard\.h5 cannot be loaded: .*Unheard"):
        load_model(tmp_path / "unheard.h5")


def test_keras_loading_error_is_short(tmp_path: Path) -> None:
    dense = keras.layers.Dense(2, activation=lambda x: x * 2)
    with pytest.warns(UserWarning, match="lambda"):
        keras.Sequential([keras.Input((2,)), dense]).save(tmp_path / "code.keras")
    with pytest.raises(ModelError, match=r"code\.keras cannot be loaded: .*activation") as caught:
        load_model(tmp_path / "code.keras")
    assert len(str(caught.value)) < 500
