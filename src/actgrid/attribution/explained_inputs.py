"""Choose the inputs of a model that are explained, and find embeddings of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actgrid.attribution.explained_tensors import ExplainedTensor
from actgrid.errors import LayerError, OptionError, ShapeError
from actgrid.models.calls import Call, choose_calls
from actgrid.models.compiled import compile_function, trace_once
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import find_input_position, list_input_names
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.network import is_compiled
from actgrid.models.networks import get_network, trace_network
from actgrid.models.tracing import keep_state
from actgrid.option_checks import check_integer

__all__ = ["choose_explained_inputs", "choose_positions", "compute_embeddings"]

# Number of axes of inputs that can be explained, with the batch axis.
_RANKS = range(1, 6)
# Operations of which the result does not depend on the values of their input.
_SHAPE_OPERATIONS = frozenset(["OnesLike", "Rank", "Shape", "ShapeN", "Size", "ZerosLike"])
# Operations on the indices of a table; `AddV2` and `SelectV2` convert negative indices.
_INDEX_OPERATIONS = frozenset(
    ["AddV2", "Cast", "EnsureShape", "ExpandDims", "Identity", "Reshape", "SelectV2", "Squeeze"]
)
# Operations that look up values in a table, and the position of the indices among their inputs.
_INDEX_POSITIONS = {"GatherV2": 1, "OneHot": 0, "ResourceGather": 1}


def choose_positions(model: Any, inputs: Any, option: str, choice: Any) -> list[int]:
    """Return the positions of the inputs that an option selects.

    Parameters
    ----------
    inputs
        The model's inputs, as `prepare_inputs` returns them.
    option
        Name of the option, for error messages.
    choice
        ``"all"``, the name or position of an input, or a list of these.

    Raises
    ------
    OptionError
        If the model has no such input.
    """
    present = [
        position
        for position, tensor in enumerate(tensorflow().nest.flatten(inputs))
        if tensor is not None
    ]
    if isinstance(choice, str) and choice == "all":
        return present
    names = choice if isinstance(choice, (list, tuple)) else [choice]
    positions = []
    for name in names:
        if isinstance(name, str):
            position = find_input_position(model, inputs, name)
        else:
            position = check_integer(option, name, 0, len(tensorflow().nest.flatten(inputs)) - 1)
        if position not in present:
            raise OptionError(f"the input {name!r} was left out, so that it cannot be explained")
        positions.append(position)
    if not positions or len(set(positions)) < len(positions):
        raise OptionError(f"{option} must name different inputs of the model, not {choice!r}")
    return positions


def choose_explained_inputs(
    model: Any, inputs: Any, positions: Sequence[int] | None, embedding: Any = None
) -> list[ExplainedTensor]:
    """Return the explained tensors of a model.

    Parameters
    ----------
    inputs
        The model's inputs, as `prepare_inputs` returns them.
    positions
        Positions of the explained inputs; None: the first of the inputs with the most axes, but an
        image before a volume, and an input whose name has the word token before others.
    embedding
        Path of the layer whose output is explained for an input of tokens, or in place of an image,
        such as a patch embedding; or a dict of paths by input name. False: no input has tokens.
        None: the first layer that converts the tokens to floating-point numbers.

    Raises
    ------
    LayerError
        If there is no such layer.
    ShapeError
        If an input cannot be explained.
    """
    names = list_input_names(model, inputs)
    tensors = tensorflow().nest.flatten(inputs)
    candidates = (
        [position for position, tensor in enumerate(tensors) if tensor is not None]
        if positions is None
        else list(positions)
    )
    embeddings = {
        position: _find_embedding(model, inputs, position, names, embedding, candidates)
        for position in candidates
    }

    def get_rank(position: int) -> int:
        rank: int = tensors[position].shape.rank
        if embeddings[position] is None or rank > 2:
            return rank
        return max(rank + 1, 3)  # the output of an embedding has one axis more than the tokens

    if positions is None:
        images = [position for position in candidates if get_rank(position) == 4]
        # The models of keras-hub have further inputs of indices, such as "segment_ids".
        candidates = images[:1] or [
            max(candidates, key=lambda position: (get_rank(position), "token" in names[position]))
        ]
    for position in candidates:
        if get_rank(position) not in _RANKS:
            raise ShapeError(
                "an explained input must be (N, C), (N, T, C), (N, H, W, C) or (N, D, H, W, C), "
                f"not {tuple(tensors[position].shape)}"
            )
    explained = []
    for position in candidates:
        found = embeddings[position]
        if found is None:
            channels_first = find_input_data_format(model, position) == "channels_first"
            explained.append(ExplainedTensor(names[position], position, channels_first))
        else:
            grid = found.token_grid if found.kind == "sequence" else None
            channels_first = found.data_format == "channels_first" and found.kind != "sequence"
            explained.append(
                ExplainedTensor(names[position], position, channels_first, found.path, grid)
            )
    return explained


def compute_embeddings(model: Any, inputs: Any, paths: Sequence[str], batch_size: int) -> list[Any]:
    """Compute the outputs of embeddings, batch by batch, as float32 tensors."""
    tf = tensorflow()
    function = compile_function(model, _EmbeddingFunction(tuple(paths)))
    tensors = tf.nest.flatten(inputs)
    count = max(len(tensor) for tensor in tensors if tensor is not None)
    parts = []
    for start in range(0, count, batch_size):
        rows = [
            None if tensor is None else tensor[start : start + batch_size] for tensor in tensors
        ]
        parts.append(function(tf.nest.pack_sequence_as(inputs, rows)))
    with tf.device("CPU"):
        return [tf.concat(outputs, 0) for outputs in zip(*parts, strict=True)]


@dataclass(frozen=True)
class _EmbeddingFunction:
    """Function that returns the outputs of layers by their paths."""

    paths: tuple[str, ...]

    def __call__(self, model: Any, inputs: Any) -> list[Any]:
        with keep_state():
            calls = trace_network(model, inputs).calls
        tensors = {call.info.path: call.tensor for call in calls}
        return [tensorflow().cast(tensors[path], tensorflow().float32) for path in self.paths]


def _find_embedding(
    model: Any,
    inputs: Any,
    position: int,
    names: Sequence[str],
    embedding: Any,
    candidates: Sequence[int],
) -> LayerInfo | None:
    """Return the layer that embeds the tokens of an input; None: it has no tokens."""
    rank = tensorflow().nest.flatten(inputs)[position].shape.rank
    is_traced = is_compiled(get_network(model))
    if embedding is False or not is_traced or (embedding is None and rank > 2):
        return None
    layer = embedding.get(names[position]) if isinstance(embedding, Mapping) else embedding
    # One layer for several inputs belongs to the inputs on which it depends.
    is_required = layer is not None and len(candidates) == 1
    selection = None if layer is None else Selection(layer)
    search = _EmbeddingSearch(position, selection, is_required)
    info: LayerInfo | None = trace_once(model, search, inputs)
    return info


@dataclass(frozen=True)
class _EmbeddingSearch:
    """Function for `trace_once` that returns the layer that embeds an input.

    Attributes
    ----------
    position
        Position of the input.
    selection
        The layer; None: it is searched.
    is_required
        Whether to raise an error if the selected layer does not depend on the input.
    """

    position: int
    selection: Selection | None
    is_required: bool

    def __call__(self, model: Any, inputs: Any) -> LayerInfo | None:
        tensor = tensorflow().nest.flatten(inputs)[self.position]
        with keep_state():
            calls = trace_network(model, inputs).calls
        if self.selection is None:
            return self._search(tensor, calls)
        chosen = choose_calls(model, calls, self.selection)
        for call in chosen:
            if call.tensor.dtype.is_floating and _depends_on(call.tensor, tensor):
                return call.info
        if self.is_required:
            raise LayerError(
                f"embedding must be a layer that converts the tokens to floating-point numbers, "
                f"which {chosen[0].info.path} does not"
            )
        return None

    @staticmethod
    def _search(tensor: Any, calls: Sequence[Call]) -> LayerInfo | None:
        """Return the first layer that converts tokens to floating-point numbers."""
        # Strings are always tokens; numbers are tokens if they are indices into a table.
        sources = [tensor] if tensor.dtype == tensorflow().string else _find_lookups(tensor)
        for call in calls:
            if (
                call.tensor.dtype.is_floating
                and call.info.is_spatial
                and any(_depends_on(call.tensor, source) for source in sources)
            ):
                return call.info
        return None


def _find_lookups(tensor: Any) -> list[Any]:
    """Return the values that are looked up in tables by the values of a tensor."""
    lookups = []
    visited: set[str] = set()
    pending = [tensor]
    while pending:
        indices = pending.pop()
        for operation in indices.consumers():
            if _INDEX_POSITIONS.get(operation.type) in _find_positions(operation, indices):
                lookups += operation.outputs
            elif operation.type in _INDEX_OPERATIONS and operation.name not in visited:
                visited.add(operation.name)
                pending += operation.outputs
    return lookups


def _find_positions(operation: Any, tensor: Any) -> list[int]:
    """Return the positions of a tensor among the inputs of an operation."""
    return [index for index, value in enumerate(operation.inputs) if value.name == tensor.name]


def _depends_on(tensor: Any, source: Any) -> bool:
    """Return whether the values of a tensor depend on those of another tensor."""
    visited: set[str] = set()
    pending = [tensor]
    while pending:
        current = pending.pop()
        if current.name == source.name:
            return True
        if current.name not in visited:
            visited.add(current.name)
            if current.op.type not in _SHAPE_OPERATIONS:
                pending += current.op.inputs
    return False
