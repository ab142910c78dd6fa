"""Load the signature of a SavedModel folder."""

from __future__ import annotations

import importlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from actgrid.errors import ModelError
from actgrid.models.frameworks import tensorflow
from actgrid.models.model_errors import extract_error_line
from actgrid.models.safety import find_unsafe_operation, raise_if_unsafe

__all__ = ["Signature", "load_signature"]

_DEFAULT = "serving_default"
# Attribute of functions that XLA compiles, and of calls of these.
_COMPILED = "_XlaMustCompile"


class Signature(NamedTuple):
    """Function that a SavedModel serves, and the object that owns its variables.

    Attributes
    ----------
    function
        The `ConcreteFunction`, which has only weak references to its variables.
    owner
        The object of the SavedModel.
    """

    function: Any
    owner: Any


def load_signature(path: Path, safe_mode: bool) -> Signature:
    """Load the function that a SavedModel serves.

    With `safe_mode`, the graph is checked for unsafe operations first.

    Returns
    -------
    Signature
        The signature ``serving_default``, or else the first one.

    Raises
    ------
    ModelError
        If the folder is no SavedModel, has no signature, or is refused or damaged.
    """
    if not any((path / f"saved_model.{suffix}").exists() for suffix in ("pb", "pbtxt")):
        raise ModelError(f"{path} is a folder, but not a SavedModel: it has no saved_model.pb")
    try:
        if safe_mode:
            raise_if_unsafe(path, find_unsafe_operation(path))
        owner = _load_object(path)
        signatures = owner.signatures
        if not signatures:
            raise ModelError(
                f"the SavedModel {path} has no signatures, which define its inputs: save it with "
                "model.export(folder), or tf.saved_model.save(module, folder, signatures=...)"
            )
        name = _DEFAULT if _DEFAULT in signatures else next(iter(signatures))
        return Signature(signatures[name], owner)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path} cannot be loaded as a SavedModel: {_explain_load_failure(path, error)}"
        ) from error


def _load_object(path: Path) -> Any:
    load = tensorflow().saved_model.load
    try:
        owner = load(os.fspath(path))
        if not _has_compiled_functions(owner):
            return owner
    except AttributeError as error:
        # Only Keras 2 has the class of the optimizers that Keras 2 saves.
        if "add_slot" not in str(error):
            raise
    with tempfile.TemporaryDirectory() as folder:
        _copy_simplified(path, Path(folder))
        return load(folder)


def _has_compiled_functions(owner: Any) -> bool:
    """Return whether XLA compiles functions that a SavedModel calls, which are not inlined."""
    definitions = [
        definition
        for signature in owner.signatures.values()
        for definition in signature.graph.as_graph_def().library.function
    ]
    return any(definition.attr[_COMPILED].b for definition in definitions)


def _copy_simplified(path: Path, folder: Path) -> None:
    """Copy the graph of a SavedModel for interpretation, and link its variables.

    The copy has no state of optimizers, and XLA compiles none of its functions.
    """
    saved_model = _parse(path)
    for graph in saved_model.meta_graphs:
        for node in graph.object_graph_def.nodes:
            del node.slot_variables[:]
        library = graph.graph_def.library.function
        for part in (
            *library,
            *graph.graph_def.node,
            *(node for definition in library for node in definition.node_def),
        ):
            part.attr.pop(_COMPILED, None)
    (folder / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    for name in ("variables", "assets"):
        if (path / name).exists():
            (folder / name).symlink_to((path / name).absolute(), target_is_directory=True)


def _parse(path: Path) -> Any:
    # TensorFlow's own parser reads every format of the file.
    loader = importlib.import_module("tensorflow.python.saved_model.loader_impl")
    return loader.parse_saved_model(os.fspath(path))


def _explain_load_failure(path: Path, error: Exception) -> str:
    """Return a phrase that says why a SavedModel cannot be loaded, and what to do."""
    text = str(error)
    if unknown := re.search(r"Op type not registered '([^']*)'", text):
        return (
            f"it needs the operation {unknown[1]}, which is not part of TensorFlow: first import "
            "the package that defines it, such as tensorflow_text"
        )
    if "Failed to find any matching files" in text:
        return f"its weights are missing: there is no {path / 'variables' / 'variables.index'}"
    if "Read less bytes" in text or isinstance(error, tensorflow().errors.DataLossError):
        return f"its weights, in {path / 'variables'}, are damaged"
    if not any(file.stat().st_size for file in path.glob("saved_model.pb*")):
        return "saved_model.pb is empty"
    problem = extract_error_line(error)
    if isinstance(error, (OSError, ValueError, tensorflow().errors.OpError)):
        return problem
    # Messages of internal TensorFlow errors say little.
    return (
        f"TensorFlow {tensorflow().__version__} cannot read what TensorFlow "
        f"{_read_tensorflow_version(path)} wrote ({type(error).__name__}: {problem}): load it "
        "there and save it with model.export(folder)"
    )


def _read_tensorflow_version(path: Path) -> str:
    """Return the version of TensorFlow that wrote a SavedModel, as text."""
    graphs = _parse(path).meta_graphs
    return next(iter(graphs)).meta_info_def.tensorflow_version or "of unknown version"
