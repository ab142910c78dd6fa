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

from actgrid import load_model
from actgrid.errors import ModelError
from actgrid.models.safety import REFUSED_OPERATIONS, unsafe_config, unsafe_saved_model

SPEC = tf.TensorSpec((None, 4))


def save(folder: Path, call: Callable[[Any], Any], **attributes: Any) -> Path:
    """Write a SavedModel of a function, with objects that it holds."""
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    function = tf.function(call, input_signature=[SPEC])
    module.call = function
    tf.saved_model.save(module, str(folder), signatures=function.get_concrete_function())
    return folder


def writes(target: Path) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        tf.io.write_file(str(target), "written")
        return x

    return call


def reads(x: Any) -> Any:
    return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


def calls_python(x: Any) -> Any:
    return tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), (None, 4))


def in_a_branch(x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > 1e9, lambda: reads(x), lambda: x)


def in_a_map(x: Any) -> Any:
    return tf.map_fn(lambda row: row + reads(row), x)


def saves_a_checkpoint(x: Any) -> Any:
    tf.raw_ops.SaveV2(
        prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], tensors=[tf.identity(x)]
    )
    return x


def restores_a_checkpoint(x: Any) -> Any:
    (found,) = tf.raw_ops.RestoreV2(
        prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    )
    return x + tf.reduce_sum(found)


def prints_to_a_file(x: Any) -> Any:
    tf.print("text", output_stream="file:///tmp/x")
    return x


UNSAFE: dict[str, Callable[[Any], Any]] = {
    "ReadFile": reads,
    "EagerPyFunc": calls_python,
    "ReadFile in a branch": in_a_branch,
    "ReadFile in a map": in_a_map,
    "SaveV2": saves_a_checkpoint,
    "RestoreV2": restores_a_checkpoint,
    "PrintV2": prints_to_a_file,
}


@pytest.mark.parametrize("name", UNSAFE)
def test_operations_that_access_files_or_python_are_named_and_refused(
    tmp_path: Path, name: str
) -> None:
    folder = save(tmp_path / "saved", UNSAFE[name])
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    for part in (str(folder), f"the operation {name.split()[0]},", "--no-safe-mode"):
        assert part in str(caught.value)


def test_nothing_of_a_refused_saved_model_has_run(tmp_path: Path) -> None:
    folder = save(tmp_path / "saved", writes(tmp_path / "evil"))
    with pytest.raises(ModelError, match="WriteFile"):
        load_model(folder)
    assert not (tmp_path / "evil").exists()
    model = load_model(folder, safe_mode=False)
    np.asarray(model(np.ones((1, 4), np.float32)))
    assert (tmp_path / "evil").read_text() == "written"


def test_a_table_that_is_read_from_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a\nb\n")
    file = tf.lookup.TextFileInitializer(
        str(tmp_path / "words.txt"), tf.string, 0, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    table = tf.lookup.StaticHashTable(file, -1)

    def call(x: Any) -> Any:
        return x + tf.cast(table.lookup(tf.constant("a")), tf.float32)

    assert "InitializeTableFromTextFileV2" in str(
        unsafe_saved_model(save(tmp_path / "saved", call, table=table))
    )


def test_a_graph_as_text_is_checked_as_well(tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    folder = save(tmp_path / "saved", reads)
    binary = folder / "saved_model.pb"
    graph = saved_model_pb2.SavedModel.FromString(binary.read_bytes())
    (folder / "saved_model.pbtxt").write_text(text_format.MessageToString(graph))
    binary.unlink()
    assert "ReadFile" in str(unsafe_saved_model(folder))


def test_a_saver_that_writes_while_it_restores_is_refused(tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    def call(x: Any) -> Any:
        return x * weights

    weights = tf.Variable(np.ones(4, np.float32))
    folder = save(tmp_path / "saved", call, weights=weights)
    assert unsafe_saved_model(folder) is None
    binary = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(binary.read_bytes())
    saver = model.meta_graphs[0].saver_def
    saver.restore_op_name = saver.save_tensor_name.partition(":")[0]
    binary.write_bytes(model.SerializeToString())
    assert "SaveV2" in str(unsafe_saved_model(folder))


def harmless(tmp_path: Path) -> dict[str, Path]:
    """Return SavedModels as Keras and TensorFlow write them."""
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
        "table": save(tmp_path / "table", call, table=table),
    }


def test_saved_models_as_keras_writes_them_are_loaded(tmp_path: Path) -> None:
    for folder in harmless(tmp_path).values():
        assert unsafe_saved_model(folder) is None
    load_model(tmp_path / "export")


def test_a_saved_model_of_tensorflow_1_is_loaded(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        y = tf.matmul(x, v1.get_variable("v", (4, 3)))
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(tmp_path / "old"))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    assert unsafe_saved_model(tmp_path / "old") is None


# Operations of which an argument only looks like the name of a file or a server.
HARMLESS_ARGUMENTS = {
    *("CTCBeamSearchDecoder", "ExperimentalSetStatsAggregatorDataset", "RegexFullMatch"),
    *("RegexReplace", "SetStatsAggregatorDataset", "StaticRegexFullMatch", "StaticRegexReplace"),
    "TensorSliceDataset",  # is_files
}
# These are refused by the value of their attribute.
BY_ATTRIBUTE = {"DecodeProtoV2", "EncodeProto", "FixedUnigramCandidateSampler", "PrintV2"}
# The saver's, see above.
CHECKPOINTS = {
    *("DTensorRestoreV2", "MergeV2Checkpoints", "Restore", "RestoreSlice", "RestoreV2", "Save"),
    *("SaveSlices", "SaveV2"),
}


def test_every_operation_that_takes_a_file_or_an_address_is_decided() -> None:
    """Name operations of a later TensorFlow that nobody has looked at."""
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
        if any(suspicious.search(each.name) for each in (*operation.attr, *operation.input_arg))
        or re.search(r"PyFunc|^Rpc|CustomCall(V2)?$", operation.name)
    }
    decided = REFUSED_OPERATIONS | HARMLESS_ARGUMENTS | BY_ATTRIBUTE | CHECKPOINTS
    assert accessing - decided == set()
    assert len(accessing & REFUSED_OPERATIONS) > 50


# --- configurations of .keras and .h5 files


def layer(class_name: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": config}


def function(module: str, name: str) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layers": [layer("Lambda")]}, "Lambda layer"),
        ({"a": [{"b": layer("TFSMLayer", filepath="x")}]}, "TFSMLayer"),
        (layer("Dense", activation={"class_name": "__lambda__"}), "Lambda function"),
        (layer("StringLookup", vocabulary="/etc/passwd"), "would read the file '/etc/passwd'"),
        (layer("Dense", activation=function("keras.utils", "get_file")), "keras.utils.get_file"),
        (function("keras.config", "enable_unsafe_deserialization"), "enable_unsafe"),
    ],
)
def test_configurations_that_run_code_or_load_files_are_refused(
    tmp_path: Path, config: Any, message: str
) -> None:
    assert message in str(unsafe_config(config))
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    with pytest.raises(ModelError, match=r"model\.keras holds .*--no-safe-mode"):
        load_model(tmp_path / "model.keras")


def test_configurations_of_keras_layers_pass(tmp_path: Path) -> None:
    layers = keras.layers
    lookup = layers.StringLookup(vocabulary=["a", "b"])
    model = keras.Sequential(
        [keras.Input((1,), dtype="string"), lookup, layers.Embedding(4, 2), layers.ReLU()]
    )
    model.save(tmp_path / "text.keras")
    assert load_model(tmp_path / "text.keras").layers[0].get_vocabulary() == ["[UNK]", "a", "b"]
    relu = function("keras.activations", "relu")
    assert unsafe_config([layer("Dense", activation=relu), function("builtins", "mine")]) is None
    nested: Any = []
    for _ in range(10_000):
        nested = [nested]
    assert unsafe_config(nested) is None
