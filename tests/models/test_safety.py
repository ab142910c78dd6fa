"""Tests of `actgrid.models.safety`."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from actgrid import Extractor, load_model
from actgrid.errors import ModelError
from actgrid.models.safety import REFUSED_OPERATIONS, find_unsafe_config, find_unsafe_operation

SPEC = tf.TensorSpec((None, 4))


def save_function(folder: Path, call: Callable[[Any], Any], **attributes: Any) -> Path:
    """Save a function as a SavedModel, with objects as attributes of its module."""
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    function = tf.function(call, input_signature=[SPEC])
    module.call = function
    tf.saved_model.save(module, str(folder), signatures=function.get_concrete_function())
    return folder


def make_writing_function(target: Path) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        tf.io.write_file(str(target), "written")
        return x

    return call


def read_a_file(x: Any) -> Any:
    return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


def call_python(x: Any) -> Any:
    return tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), (None, 4))


def read_in_a_branch(x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > 1e9, lambda: read_a_file(x), lambda: x)


def read_in_a_map(x: Any) -> Any:
    return tf.map_fn(lambda row: row + read_a_file(row), x)


def save_a_checkpoint(x: Any) -> Any:
    tf.raw_ops.SaveV2(
        prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], tensors=[tf.identity(x)]
    )
    return x


def restore_a_checkpoint(x: Any) -> Any:
    (restored,) = tf.raw_ops.RestoreV2(
        prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    )
    return x + tf.reduce_sum(restored)


def print_to_a_file(x: Any) -> Any:
    tf.print("text", output_stream="file:///tmp/x")
    return x


def end_the_process(x: Any) -> Any:
    tf.raw_ops.Abort(error_msg="end")
    return x


UNSAFE: dict[str, Callable[[Any], Any]] = {
    "ReadFile": read_a_file,
    "EagerPyFunc": call_python,
    "ReadFile in a branch": read_in_a_branch,
    "ReadFile in a map": read_in_a_map,
    "SaveV2": save_a_checkpoint,
    "RestoreV2": restore_a_checkpoint,
    "PrintV2": print_to_a_file,
    "Abort": end_the_process,
}


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_operations_raise_with_name(tmp_path: Path, name: str) -> None:
    folder = save_function(tmp_path / "saved", UNSAFE[name])
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    for part in (str(folder), f"the operation {name.split()[0]},", "--no-safe-mode"):
        assert part in str(caught.value)


def test_refused_saved_model_does_not_run(tmp_path: Path) -> None:
    folder = save_function(tmp_path / "saved", make_writing_function(tmp_path / "evil"))
    with pytest.raises(ModelError, match="WriteFile"):
        load_model(folder)
    assert not (tmp_path / "evil").exists()
    model = load_model(folder, safe_mode=False)
    Extractor(model, "*")(np.ones((1, 4), np.float32))
    assert (tmp_path / "evil").read_text() == "written"


def test_table_from_file_is_unsafe(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a\nb\n")
    file = tf.lookup.TextFileInitializer(
        str(tmp_path / "words.txt"), tf.string, 0, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    table = tf.lookup.StaticHashTable(file, -1)

    def call(x: Any) -> Any:
        return x + tf.cast(table.lookup(tf.constant("a")), tf.float32)

    assert "InitializeTableFromTextFileV2" in str(
        find_unsafe_operation(save_function(tmp_path / "saved", call, table=table))
    )


def test_text_graph_is_checked(tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    folder = save_function(tmp_path / "saved", read_a_file)
    binary = folder / "saved_model.pb"
    graph = saved_model_pb2.SavedModel.FromString(binary.read_bytes())
    (folder / "saved_model.pbtxt").write_text(text_format.MessageToString(graph))
    binary.unlink()
    assert "ReadFile" in str(find_unsafe_operation(folder))


def test_saver_that_writes_on_restore_is_unsafe(tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    def call(x: Any) -> Any:
        return x * weights

    weights = tf.Variable(np.ones(4, np.float32))
    folder = save_function(tmp_path / "saved", call, weights=weights)
    assert find_unsafe_operation(folder) is None
    binary = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(binary.read_bytes())
    saver = model.meta_graphs[0].saver_def
    saver.restore_op_name = saver.save_tensor_name.partition(":")[0]
    binary.write_bytes(model.SerializeToString())
    assert "SaveV2" in str(find_unsafe_operation(folder))


def save_harmless_models(tmp_path: Path) -> dict[str, Path]:
    """Save harmless SavedModels, and return their folders by name."""
    inputs = keras.Input((4,))
    outputs = keras.layers.Dropout(0.5)(keras.layers.Dense(3, activation="relu")(inputs))
    model = keras.Model(inputs, keras.layers.BatchNormalization()(outputs))
    model.export(tmp_path / "export", verbose=False)
    tf.saved_model.save(model, str(tmp_path / "save"))
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(["a"], tf.constant([1], tf.int64)), -1
    )

    def call(x: Any) -> Any:
        tf.print("text", tf.reduce_sum(x))
        tf.debugging.assert_all_finite(x, "finite")
        return x + tf.cast(table.lookup(tf.constant("a")), tf.float32)

    return {
        "export": tmp_path / "export",
        "save": tmp_path / "save",
        "table": save_function(tmp_path / "table", call, table=table),
    }


def test_genuine_saved_models_are_safe(tmp_path: Path) -> None:
    for folder in save_harmless_models(tmp_path).values():
        assert find_unsafe_operation(folder) is None
    load_model(tmp_path / "export")


def test_tensorflow_1_saved_model_is_safe(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        y = tf.matmul(x, v1.get_variable("v", (4, 3)))
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(tmp_path / "old"))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    assert find_unsafe_operation(tmp_path / "old") is None


# Operations with an argument whose name only resembles that of a file or a server.
HARMLESS_ARGUMENTS = {
    *("CTCBeamSearchDecoder", "ExperimentalSetStatsAggregatorDataset", "RegexFullMatch"),
    *("RegexReplace", "SetStatsAggregatorDataset", "StaticRegexFullMatch", "StaticRegexReplace"),
    "TensorSliceDataset",  # is_files
}
# Operations that are refused by the value of an attribute.
REFUSED_BY_ATTRIBUTE = {"DecodeProtoV2", "EncodeProto", "FixedUnigramCandidateSampler", "PrintV2"}
# Operations of the saver, see above.
CHECKPOINT_OPERATIONS = {
    *("DTensorRestoreV2", "MergeV2Checkpoints", "Restore", "RestoreSlice", "RestoreV2", "Save"),
    *("SaveSlices", "SaveV2"),
}


def test_every_file_or_network_operation_is_classified() -> None:
    """Detect operations of a later TensorFlow that are not classified yet."""
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session

    operations = op_def_pb2.OpList.FromString(
        pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())
    ).op
    assert len(operations) > 1000
    suspicious = re.compile(
        r"file|path|url|address|directory|prefix|server|pattern|descriptor_source|output_stream|"
        "memory_region"
    )
    accessing = {
        operation.name
        for operation in operations
        # Of the package tensorflow-text, which KerasHub imports. It reads no files.
        if operation.name != "RegexSplitWithOffsets"
        and (
            any(
                suspicious.search(argument.name)
                for argument in (*operation.attr, *operation.input_arg)
            )
            or re.search(r"PyFunc|^Rpc|CustomCall(V2)?$", operation.name)
        )
    }
    classified = (
        REFUSED_OPERATIONS | HARMLESS_ARGUMENTS | REFUSED_BY_ATTRIBUTE | CHECKPOINT_OPERATIONS
    )
    assert accessing - classified == set()
    assert len(accessing & REFUSED_OPERATIONS) > 50


# --- configurations of .keras and .h5 files


def make_layer_config(class_name: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": config}


def make_function_config(module: str, name: str) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layers": [make_layer_config("Lambda")]}, "Lambda layer"),
        ({"a": [{"b": make_layer_config("TFSMLayer", filepath="x")}]}, "TFSMLayer"),
        (make_layer_config("Dense", activation={"class_name": "__lambda__"}), "Lambda function"),
        (
            make_layer_config("StringLookup", vocabulary="/etc/passwd"),
            "would read the file '/etc/passwd'",
        ),
        (
            make_layer_config("Dense", activation=make_function_config("keras.utils", "get_file")),
            "keras.utils.get_file",
        ),
        (make_function_config("keras.config", "enable_unsafe_deserialization"), "enable_unsafe"),
    ],
)
def test_unsafe_configurations_raise(tmp_path: Path, config: Any, message: str) -> None:
    assert message in str(find_unsafe_config(config))
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    with pytest.raises(ModelError, match=r"model\.keras contains .*--no-safe-mode"):
        load_model(tmp_path / "model.keras")


def test_keras_configurations_are_safe(tmp_path: Path) -> None:
    layers = keras.layers
    lookup = layers.StringLookup(vocabulary=["a", "b"])
    model = keras.Sequential(
        [keras.Input((1,), dtype="string"), lookup, layers.Embedding(4, 2), layers.ReLU()]
    )
    model.save(tmp_path / "text.keras")
    assert load_model(tmp_path / "text.keras").layers[0].get_vocabulary() == ["[UNK]", "a", "b"]
    relu = make_function_config("keras.activations", "relu")
    assert (
        find_unsafe_config(
            [make_layer_config("Dense", activation=relu), make_function_config("builtins", "mine")]
        )
        is None
    )
    nested: Any = []
    for _ in range(10_000):
        nested = [nested]
    assert find_unsafe_config(nested) is None
