"""Find content of model files that could access files, the network or Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from actgrid.errors import ModelError

__all__ = [
    "REFUSED_OPERATIONS",
    "find_unsafe_config",
    "find_unsafe_operation",
    "raise_if_unsafe",
]

# Parts of a Keras configuration that run Python code or load files of their own. Releases of Keras
# before 3.13 refuse only some of them in safe mode.
_UNSAFE_CLASSES = {
    "Lambda": "a Lambda layer, code that would run here",
    "__lambda__": "a Lambda function, code that would run here",
    "TFSMLayer": "a TFSMLayer, which would load another model",
}
# Modules of the Keras functions that a configuration may refer to. Other functions, such as
# keras.utils.get_file, are not operations of a model.
_FUNCTION_MODULES = (
    *("keras.activations", "keras.initializers", "keras.losses", "keras.metrics"),
    *("keras.ops", "keras.random", "keras.regularizers", "keras.constraints"),
)

# TensorFlow operations that read or write files, use the network, call Python or native callbacks,
# run a graph that is data, or end the process. Names are those of TensorFlow 2.16 to 2.21.
_FILE_OPERATIONS = """
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
_NETWORK_OPERATIONS = """
    CollectiveInitializeCommunicator ConfigureDistributedTPU DataServiceDataset DataServiceDatasetV2
    DataServiceDatasetV3 DataServiceDatasetV4 DeleteRpcFutureResource DistributedSave
    RegisterDataset RegisterDatasetV2 Rpc RpcCall RpcCheckStatus RpcClient RpcGetValue RpcServer
    RpcServerRegister RpcServerStart TryRpc
"""
_PYTHON_OPERATIONS = """
    Abort DatasetFromGraph DeserializeIterator EagerPyFunc MlirPassthroughOp PyFunc PyFuncStateless
    XlaCustomCall XlaCustomCallV2 _XlaHostComputeMlir
    InitializeTRTResource SerializeTRTResource TRTEngineOp
"""
REFUSED_OPERATIONS = frozenset(
    (_FILE_OPERATIONS + _NETWORK_OPERATIONS + _PYTHON_OPERATIONS).split()
)

# Checkpoint operations, which every SavedModel contains in its saver.
_SAVE_OPERATIONS = frozenset(
    ["DTensorSaveV2", "MergeV2Checkpoints", "Save", "SaveSlices", "SaveV2"]
)
_RESTORE_OPERATIONS = frozenset(["DTensorRestoreV2", "Restore", "RestoreSlice", "RestoreV2"])


def _is_inline_descriptor(source: str) -> bool:
    return source in ("", "local://") or source.startswith("bytes://")


# Operations that access a file if an attribute names a file: the attribute, and a test for harmless
# values.
_FILE_ATTRIBUTES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "DecodeProtoV2": ("descriptor_source", _is_inline_descriptor),
    "EncodeProto": ("descriptor_source", _is_inline_descriptor),
    "FixedUnigramCandidateSampler": ("vocab_file", lambda value: not value),
    "PrintV2": ("output_stream", lambda value: not value.startswith("file://")),
}


def raise_if_unsafe(path: Path, finding: str | None) -> None:
    """Raise ModelError if unsafe content was found in a model file.

    Parameters
    ----------
    finding
        Description of the unsafe content. None: the file is safe.
    """
    if finding is not None:
        raise ModelError(
            f"{path} contains {finding}; if you trust the model, load it with safe_mode=False "
            "(--no-safe-mode)"
        )


def find_unsafe_config(config: Any) -> str | None:
    """Describe the first unsafe part of a Keras configuration; None if it is safe."""
    # A loop, because a configuration may be nested more deeply than the recursion limit.
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            if finding := _describe_unsafe_object(value):
                return finding
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return None


def _describe_unsafe_object(value: Mapping[str, Any]) -> str | None:
    name, module, config = value.get("class_name"), value.get("module"), value.get("config")
    if isinstance(name, str) and name in _UNSAFE_CLASSES:
        return _UNSAFE_CLASSES[name]
    if isinstance(config, Mapping) and isinstance(config.get("vocabulary"), str):
        return f"a {name} layer that would read the file {config['vocabulary']!r}"
    is_keras_function = (
        name == "function" and isinstance(module, str) and module.split(".")[0] == "keras"
    )
    if is_keras_function and not str(module).startswith(_FUNCTION_MODULES):
        return f"the function {module}.{config}, which is not an operation of a model"
    return None


def find_unsafe_operation(folder: Path) -> str | None:
    """Describe the first unsafe operation in the graphs of a SavedModel.

    Returns
    -------
    str or None
        Phrase for an error message. None: no operation is unsafe.

    Raises
    ------
    OSError
        If the graph cannot be read.
    """
    # TensorFlow's own parser reads every format of the file.
    loader = import_module("tensorflow.python.saved_model.loader_impl")
    for graph in loader.parse_saved_model(os.fspath(folder)).meta_graphs:
        if (name := next(_iterate_unsafe_operations(graph), None)) is not None:
            return f"the operation {name}, which accesses files, the network or the Python process"
    return None


def _iterate_unsafe_operations(graph: Any) -> Iterator[str]:
    """Yield the types of the unsafe operations in a SavedModel graph (MetaGraphDef).

    Operations inside functions of the graph are included.
    """
    functions = {
        function.signature.name: list(function.node_def)
        for function in graph.graph_def.library.function
    }
    nodes = {node.name: node for node in graph.graph_def.node}
    for node in (*nodes.values(), *(node for body in functions.values() for node in body)):
        if node.op in REFUSED_OPERATIONS or _names_file(node):
            yield node.op
    # Only the saver may read and write checkpoints, not the code that loading and calls run.
    saver = graph.saver_def
    callable_nodes = _iterate_reachable_nodes(
        nodes, functions, _list_entry_nodes(graph), _list_entry_functions(graph)
    )
    restore_nodes = _iterate_reachable_nodes(nodes, functions, [saver.restore_op_name], [])
    yield from (
        node.op for node in callable_nodes if node.op in _SAVE_OPERATIONS | _RESTORE_OPERATIONS
    )
    yield from (node.op for node in restore_nodes if node.op in _SAVE_OPERATIONS)


def _names_file(node: Any) -> bool:
    if node.op not in _FILE_ATTRIBUTES:
        return False
    name, is_harmless = _FILE_ATTRIBUTES[node.op]
    return not is_harmless(node.attr[name].s.decode(errors="replace"))


def _list_entry_nodes(graph: Any) -> list[str]:
    """Return the names of the nodes where the execution of a SavedModel graph starts.

    These are the nodes in collections, which loading runs, and the inputs and outputs of
    signatures.
    """
    names = [
        info.name
        for signature in graph.signature_def.values()
        for info in (*signature.outputs.values(), *signature.inputs.values())
    ]
    for collection in graph.collection_def.values():
        names += collection.node_list.value
    return names


def _list_entry_functions(graph: Any) -> list[str]:
    """Return the names of the graph functions that objects of a SavedModel can call."""
    return list(graph.object_graph_def.concrete_functions)


def _iterate_reachable_nodes(
    nodes: Mapping[str, Any],
    functions: Mapping[str, list[Any]],
    names: Iterable[str],
    called: Iterable[str],
) -> Iterator[Any]:
    """Yield every graph node that can run when given nodes or functions run.

    Parameters
    ----------
    nodes
        Node name -> node of the main graph.
    functions
        Function name -> nodes of the function.
    names
        Names of the nodes to start from.
    called
        Names of the functions to start from.

    Yields
    ------
    NodeDef
        A node that a start node depends on or that a called function contains.
    """
    pending_nodes = [_parse_node_name(name) for name in names]
    pending_functions = list(called)
    visited: set[tuple[str, str]] = set()
    while pending_nodes or pending_functions:
        if pending_nodes:
            name = pending_nodes.pop()
            if ("node", name) in visited or name not in nodes:
                continue
            visited.add(("node", name))
            body = [nodes[name]]
            pending_nodes += map(_parse_node_name, nodes[name].input)
        else:
            name = pending_functions.pop()
            if ("function", name) in visited:
                continue
            visited.add(("function", name))
            body = functions.get(name, [])
        for node in body:
            yield node
            pending_functions += _list_called_functions(node)


def _parse_node_name(source: str) -> str:
    """Return the name of the node in a graph input ``name``, ``name:1`` or ``^name``."""
    return source.lstrip("^").partition(":")[0]


def _list_called_functions(node: Any) -> list[str]:
    names = [node.op]  # a function may be called like an operation
    for value in node.attr.values():
        names += [value.func.name, *(function.name for function in value.list.func)]
    return names
