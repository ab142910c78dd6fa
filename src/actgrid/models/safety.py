"""Checks of model files for content that could access files, the network or Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["REFUSED_OPERATIONS", "unsafe_config", "unsafe_saved_model"]

# Parts of a Keras configuration that run Python code or load files of their own. Releases of Keras
# before 3.13 refuse only some of them in safe mode.
_CODE = {
    "Lambda": "a Lambda layer, code that would run here",
    "__lambda__": "a Lambda function, code that would run here",
    "TFSMLayer": "a TFSMLayer, which would load another model",
}
# Where Keras functions that a configuration may refer to live; others, such as
# keras.utils.get_file, are no operations of a model.
_FUNCTION_MODULES = (
    *("keras.activations", "keras.initializers", "keras.losses", "keras.metrics"),
    *("keras.ops", "keras.random", "keras.regularizers", "keras.constraints"),
)

# TensorFlow operations that read or write files, use the network, call Python or native callbacks,
# or run a graph that is data. Names are those of TensorFlow 2.16 to 2.21.
_FILES = """
    CSVDataset CSVDatasetV2 CacheDataset CacheDatasetV2
    CalibrationStatisticsSaver CloseSummaryWriter CreateSummaryDbWriter CreateSummaryFileWriter
    DatasetToTFRecord DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount
    DebugNumericSummary DebugNumericSummaryV2 DumpTensor ExperimentalCSVDataset
    ExperimentalDatasetToTFRecord ExperimentalLMDBDataset ExperimentalMatchingFilesDataset
    ExperimentalSqlDataset FileSystemSetConfiguration FixedLengthRecordDataset
    FixedLengthRecordDatasetV2 FixedLengthRecordReader FixedLengthRecordReaderV2 FlushSummaryWriter
    GenerateVocabRemapping ImmutableConst ImportEvent InitializeTableFromTextFile
    InitializeTableFromTextFileV2 LMDBDataset LMDBReader ListSnapshotChunksDataset
    LoadAndRemapMatrix LoadDataset MatchingFiles MatchingFilesDataset ReadFile RecordInput
    SaveDataset SaveDatasetV2 Skipgram SnapshotChunkDataset SnapshotDataset SnapshotDatasetReader
    SnapshotDatasetV2 SnapshotNestedDatasetReader SqlDataset StatsAggregatorSetSummaryWriter
    SummaryWriter TFRecordDataset TFRecordDatasetV2 TFRecordReader TFRecordReaderV2 TextLineDataset
    TextLineReader TextLineReaderV2 WholeFileReader WholeFileReaderV2 WriteAudioSummary WriteFile
    WriteGraphSummary WriteHistogramSummary WriteImageSummary WriteRawProtoSummary
    WriteScalarSummary WriteSummary
"""
_NETWORK = """
    CollectiveInitializeCommunicator ConfigureDistributedTPU DataServiceDataset DataServiceDatasetV2
    DataServiceDatasetV3 DataServiceDatasetV4 DeleteRpcFutureResource DistributedSave
    RegisterDataset RegisterDatasetV2 Rpc RpcCall RpcCheckStatus RpcClient RpcGetValue RpcServer
    RpcServerRegister RpcServerStart TryRpc
"""
_PYTHON = """
    DatasetFromGraph DeserializeIterator EagerPyFunc MlirPassthroughOp PyFunc PyFuncStateless
    XlaCustomCall XlaCustomCallV2 _XlaHostComputeMlir
"""
REFUSED_OPERATIONS = frozenset((_FILES + _NETWORK + _PYTHON).split())

# Operations of checkpoints, which every SavedModel has in the part that saves and restores it.
_SAVING = frozenset(["DTensorSaveV2", "MergeV2Checkpoints", "Save", "SaveSlices", "SaveV2"])
_RESTORING = frozenset(["DTensorRestoreV2", "Restore", "RestoreSlice", "RestoreV2"])


def _is_inline_descriptor(source: str) -> bool:
    return source in ("", "local://") or source.startswith("bytes://")


# Operations that access a file if an attribute names one: the attribute, and its harmless values.
_FILE_ATTRIBUTES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "DecodeProtoV2": ("descriptor_source", _is_inline_descriptor),
    "EncodeProto": ("descriptor_source", _is_inline_descriptor),
    "FixedUnigramCandidateSampler": ("vocab_file", lambda value: not value),
    "PrintV2": ("output_stream", lambda value: not value.startswith("file://")),
}


def unsafe_config(config: Any) -> str | None:
    """Return what in a Keras configuration could run code or load files, or None."""
    # A loop: a configuration may be nested more deeply than Python recurses.
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            if finding := _unsafe_object(value):
                return finding
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return None


def _unsafe_object(value: Mapping[str, Any]) -> str | None:
    name, module, config = value.get("class_name"), value.get("module"), value.get("config")
    if isinstance(name, str) and name in _CODE:
        return _CODE[name]
    if isinstance(config, Mapping) and isinstance(config.get("vocabulary"), str):
        return f"a {name} layer that would read the file {config['vocabulary']!r}"
    of_keras = name == "function" and isinstance(module, str) and module.split(".")[0] == "keras"
    if of_keras and not str(module).startswith(_FUNCTION_MODULES):
        return f"the function {module}.{config}, which is no operation of a model"
    return None


def unsafe_saved_model(folder: Path) -> str | None:
    """Return the operation of a SavedModel that is refused in safe mode, or None.

    Raises
    ------
    OSError
        If the graph cannot be read.
    """
    # What TensorFlow itself reads, whichever of its formats the file has.
    loader = import_module("tensorflow.python.saved_model.loader_impl")
    for graph in loader.parse_saved_model(os.fspath(folder)).meta_graphs:
        if (name := next(_unsafe_operations(graph), None)) is not None:
            return f"the operation {name}, which accesses files, the network or Python"
    return None


def _unsafe_operations(graph: Any) -> Iterator[str]:
    """Yield operations that are refused in a MetaGraphDef, wherever they are in it."""
    functions = {
        function.signature.name: list(function.node_def)
        for function in graph.graph_def.library.function
    }
    nodes = {node.name: node for node in graph.graph_def.node}
    for node in (*nodes.values(), *(node for body in functions.values() for node in body)):
        if node.op in REFUSED_OPERATIONS or _names_file(node):
            yield node.op
    # Checkpoints are read and written by the saver alone, never by what loading and calling run.
    saver = graph.saver_def
    called = _reachable(nodes, functions, _entry_nodes(graph), _entry_functions(graph))
    restored = _reachable(nodes, functions, [saver.restore_op_name], [])
    yield from (node.op for node in called if node.op in _SAVING | _RESTORING)
    yield from (node.op for node in restored if node.op in _SAVING)


def _names_file(node: Any) -> bool:
    if node.op not in _FILE_ATTRIBUTES:
        return False
    name, is_harmless = _FILE_ATTRIBUTES[node.op]
    return not is_harmless(node.attr[name].s.decode(errors="replace"))


def _entry_nodes(graph: Any) -> list[str]:
    """Return the nodes of the main graph that loading runs or that signatures return."""
    names = [
        info.name
        for signature in graph.signature_def.values()
        for info in (*signature.outputs.values(), *signature.inputs.values())
    ]
    for collection in graph.collection_def.values():
        names += collection.node_list.value
    return names


def _entry_functions(graph: Any) -> list[str]:
    """Return the functions that objects of the model can call."""
    return list(graph.object_graph_def.concrete_functions)


def _reachable(
    nodes: Mapping[str, Any],
    functions: Mapping[str, list[Any]],
    names: Iterable[str],
    called: Iterable[str],
) -> Iterator[Any]:
    """Yield every node that the given nodes depend on or that the functions contain."""
    pending_nodes = [_node_name(name) for name in names]
    pending_functions = list(called)
    visited: set[tuple[str, str]] = set()
    while pending_nodes or pending_functions:
        if pending_nodes:
            name = pending_nodes.pop()
            if ("node", name) in visited or name not in nodes:
                continue
            visited.add(("node", name))
            body = [nodes[name]]
            pending_nodes += map(_node_name, nodes[name].input)
        else:
            name = pending_functions.pop()
            if ("function", name) in visited:
                continue
            visited.add(("function", name))
            body = functions.get(name, [])
        for node in body:
            yield node
            pending_functions += _called_functions(node)


def _node_name(source: str) -> str:
    """Return the node of an input or output: ``name``, ``name:1`` or ``^name`` for control."""
    return source.lstrip("^").partition(":")[0]


def _called_functions(node: Any) -> list[str]:
    names = [node.op]  # a function may be called like an operation
    for value in node.attr.values():
        names += [value.func.name, *(function.name for function in value.list.func)]
    return names
