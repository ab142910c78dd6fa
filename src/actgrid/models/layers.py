"""Describe, enumerate and select the layers and weights of a model."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actgrid.errors import LayerError, ModelError, OptionError, ShapeError, suggest
from actgrid.models.frameworks import keras
from actgrid.rendering import TokenGrid

__all__ = [
    "NO_SPATIAL_LAYER",
    "AttentionScores",
    "LayerInfo",
    "Node",
    "Selection",
    "Weight",
    "collect_layers",
    "collect_operations",
    "collect_weights",
    "join_attention_path",
]


# Matches the suffix of "name:0" and "name:0[1]", which name the first call of a layer.
_FIRST_CALL = re.compile(r":0(?=$|\[)")
NO_SPATIAL_LAYER = "the model has no layer with a spatial output; name the layers to extract"
# Kind of picture that an output with a batch axis is drawn as, by rank.
_KIND_OF_RANK = {2: "dense", 3: "sequence", 4: "image", 5: "volume"}
# Names of the axes between batch and channels, by the number of these axes.
_POSITION_AXES = {1: ("time",), 2: ("height", "width"), 3: ("depth", "height", "width")}
_ATTENTION_AXES = ("batch", "head", "query", "key")
_HEAD_AXES = {"batch", "token", "head", "channel"}


@dataclass(frozen=True)
class LayerInfo:
    """Record of one output of one call of a layer: path, type, shape and dtype.

    Parameters
    ----------
    path : str
        The layer path: the layer's name; ``outer/inner`` inside nested models and layers;
        ``name:1`` for the second call of a layer; ``name[1]`` or ``name[key]`` for further outputs.
        An operation
        (``keras.ops.relu(x)``, ``x * 2``) has the name that Keras gives it (``model.operations``).
    type : str
        Class name of the layer or operation.
    shape : tuple of (int or None)
        Shape of the output; None for a side that is not fixed, such as the batch axis.
    dtype : str
        Name of the output's dtype.
    data_format : {"channels_last", "channels_first"}
        Position of the channel axis.
    parameters : int
        Number of weight values of the layer.
    index : int or None
        Position in ``model.layers``; None for layers inside other layers.
    axes : tuple of str, optional
        Name of each axis of the output, such as ``("batch", "height", "width", "channel")``, or
        ``("batch", "head", "query", "key")`` for attention scores. Empty: by `shape` and
        `data_format`.
    grids : tuple of (TokenGrid or None), optional
        For each axis of `axes` whose positions are patches of an image: their grid. Empty: there
        are none.
    lacks_grid : bool, default False
        Whether the output has tokens of an image whose grid is not known, for example because the
        height and width of the input are not fixed.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> info = actgrid.list_layers(model)[0]
    >>> info.path, info.type, info.shape, info.channels
    ('conv', 'Conv2D', (None, 6, 6, 4), 4)
    """

    path: str
    type: str
    shape: tuple[int | None, ...]
    dtype: str
    data_format: str
    parameters: int
    index: int | None
    axes: tuple[str, ...] = ()
    grids: tuple[TokenGrid | None, ...] = ()
    lacks_grid: bool = False

    def __post_init__(self) -> None:
        if not self.axes:
            object.__setattr__(self, "axes", self._name_axes())
        if not self.grids:
            object.__setattr__(self, "grids", (None,) * len(self.axes))

    def _name_axes(self) -> tuple[str, ...]:
        """Return the names of the axes by convention."""
        rank = len(self.shape)
        positions = _POSITION_AXES.get(rank - 2, ("other",) * (rank - 2))
        if self.data_format == "channels_first":
            return ("batch", "channel", *positions)[:rank]
        return ("batch", *positions, "channel")[:rank] if rank > 1 else ("batch",) * rank

    @property
    def channel_axis(self) -> int:
        """Index of the axis of which each entry is a tile: channels, or attention heads."""
        if "head" in self.axes and self.kind in ("attention", "heads"):
            return self.axes.index("head")
        return 1 if self.data_format == "channels_first" else len(self.shape) - 1

    @property
    def channels(self) -> int | None:
        """Number of channels, or of attention heads; None if this number is not fixed."""
        if len(self.shape) < 2:
            return None
        return self.shape[self.channel_axis]

    @property
    def token_grid(self) -> TokenGrid | None:
        """Grid of the patches of an image, for an output with tokens of an image; else None.

        For attention scores this is the grid of the keys.
        """
        return next(filter(None, reversed(self.grids)), None)

    @property
    def kind(self) -> str:
        """Kind of layer output, which determines how it is drawn.

        ``"dense"``, ``"sequence"``, ``"image"`` or ``"volume"``; ``"attention"`` for attention
        scores (N, heads, queries, keys); ``"heads"`` for values that are split into attention
        heads, such as queries: (N, tokens, heads, channels) or (N, heads, tokens, channels).

        Raises
        ------
        ShapeError
            If the output has another rank than 2 to 5.
        """
        if self.axes == _ATTENTION_AXES:
            return "attention"
        if set(self.axes) == _HEAD_AXES and self.axes.index("head") < 3:
            return "heads"
        try:
            return _KIND_OF_RANK[len(self.shape)]
        except KeyError:
            raise ShapeError(
                f"layer {self.path}: an output of shape {self.shape} cannot be drawn"
            ) from None

    @property
    def is_spatial(self) -> bool:
        """True if the output has axes between batch and channels: sequence, image, volume."""
        return 3 <= len(self.shape) <= 5 and 0 not in self.shape


@dataclass(frozen=True)
class AttentionScores:
    """The attention scores that a layer computes, which are selected like a layer.

    Attributes
    ----------
    layer
        The layer that computes the scores; None: the model itself.
    """

    layer: Any = field(repr=False)


@dataclass(frozen=True)
class Node:
    """Record of a layer of a model, called or not, or of an operation of the model.

    An operation is a `keras.Operation` that is not a layer. Operations have no weights and no
    `index`.

    Attributes
    ----------
    layer
        The Keras layer or operation.
    path
        Layer path, without the number of a call.
    index
        Position in ``model.layers``; None for layers inside other layers.
    is_internal
        Whether the layer is part of one of Keras's own composite layers, such as a projection of an
        attention layer.
    is_looped
        Whether the layer runs in a loop, such as the cell of a recurrent layer. Its values do not
        exist outside the loop.
    call_order
        Numbers of the layer's calls in the order in which Keras runs the calls. Functional models
        do not run calls of equal depth in the order of creation.
    """

    layer: Any = field(repr=False)
    path: str
    index: int | None
    is_internal: bool
    is_looped: bool
    call_order: tuple[int, ...] = (0,)

    def call_number(self, run_index: int) -> int:
        """Return the creation number of a layer's call from its run number.

        Both numbers count the calls of the layer from 0. Keras may run the calls in another order
        than that of their creation.
        """
        count = len(self.call_order)
        return run_index // count * count + self.call_order[run_index % count]

    @property
    def is_attention(self) -> bool:
        """True for the attention scores of a layer, False for a layer or an operation."""
        return isinstance(self.layer, AttentionScores)

    @property
    def is_layer(self) -> bool:
        """True for a Keras layer, False for an operation that is not a layer."""
        return isinstance(self.layer, keras().layers.Layer)

    @property
    def is_composite(self) -> bool:
        """True if the layer contains other layers; False for an operation."""
        return self.is_layer and bool(list_sublayers(self.layer))

    @property
    def parameters(self) -> int:
        """Number of weight values of the layer; 0 before the layer is built."""
        return self.layer.count_params() if self.is_layer and self.layer.built else 0


def join_attention_path(path: str) -> str:
    """Return the path of the attention scores of the layer at a path; ``""`` is the model."""
    return f"{path}/attention".removeprefix("/")


def list_sublayers(layer: Any) -> list[Any]:
    """Return the direct sublayers of a layer, without the input layers of models."""
    layers = layer._flatten_layers(include_self=False, recursive=False)
    input_layer = keras().layers.InputLayer
    return [sublayer for sublayer in layers if not isinstance(sublayer, input_layer)]


def _list_suboperations(layer: Any) -> list[Any]:
    """Return the direct sublayers of a layer.

    For a functional model, its operations that are not layers follow.
    """
    layers = list_sublayers(layer)
    if not isinstance(layer, keras().Function):
        return layers
    layer_class = keras().layers.Layer
    return layers + [
        operation for operation in layer.operations if not isinstance(operation, layer_class)
    ]


def collect_layers(model: Any) -> list[Node]:
    """Return a `Node` for every layer inside a model, outer layers before inner.

    A layer that the model uses several times is listed once.
    """
    return [node for node in collect_operations(model) if node.is_layer]


def collect_operations(model: Any) -> list[Node]:
    """Return a `Node` for every layer and operation inside a model.

    Outer layers come before the layers inside them. A layer that the model uses several times is
    listed once.
    """
    k = keras()
    recurrent_class = k.layers.RNN
    # Layers inside these classes are created by the user, not by Keras.
    container_classes = (k.Model, k.layers.Wrapper, k.layers.Pipeline)
    nodes: list[Node] = []
    visited = {id(model)}
    positions = {id(layer): index for index, layer in enumerate(getattr(model, "layers", []))}

    def descend(
        parent: Any, prefix: str, is_internal: bool, is_looped: bool, outer_order: tuple[int, ...]
    ) -> None:
        orders = _find_call_orders(parent)
        for layer in _list_suboperations(parent):
            if id(layer) in visited:
                continue
            visited.add(id(layer))
            path = prefix + layer.name
            own_order = orders.get(id(layer), (0,))
            order = tuple(
                outer_number * len(own_order) + number
                for outer_number in outer_order
                for number in own_order
            )
            node = Node(layer, path, positions.get(id(layer)), is_internal, is_looped, order)
            nodes.append(node)
            if not node.is_layer:
                continue
            is_loop = isinstance(layer, recurrent_class) and not layer.unroll
            is_keras_layer = type(layer).__module__.startswith("keras.") and not isinstance(
                layer, container_classes
            )
            descend(layer, path + "/", is_internal or is_keras_layer, is_looped or is_loop, order)

    descend(model, "", is_internal=False, is_looped=False, outer_order=(0,))
    return nodes


def _find_call_orders(model: Any) -> dict[int, tuple[int, ...]]:
    """Return the order in which a functional model runs the calls of each operation.

    Returns
    -------
    dict
        `id` of the operation -> numbers of its calls in the order in which they run. Calls are
        numbered in the order in which they were created. Empty for models that are not functional.
    """
    if not isinstance(model, keras().Function):
        return {}
    runs: dict[int, list[int]] = {}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            creation_number = node.operation._inbound_nodes.index(node)
            runs.setdefault(id(node.operation), []).append(creation_number)
    return {
        operation_id: tuple(sorted(numbers).index(number) for number in numbers)
        for operation_id, numbers in runs.items()
    }


@dataclass(frozen=True)
class Weight:
    """Record of a weight variable of a model: its path and the layers that hold it.

    Attributes
    ----------
    path
        Layer path and name, such as ``"block1_conv1/kernel"``; ``name:1`` for the second weight of
        the same name.
    nodes
        Layers that hold the weight, outer before inner; the last layer created it. Empty for a
        weight that the model itself created.
    variable
        The Keras variable.
    """

    path: str
    nodes: tuple[Node, ...]
    variable: Any = field(repr=False)


def collect_weights(model: Any) -> list[Weight]:
    """Return every weight of a model once, in the order of ``model.weights``.

    Returns
    -------
    list of Weight
        The weights and the layers that use them.

    Raises
    ------
    ModelError
        If the model has not created its weights yet. Also a ValueError.
    """
    if not model.built:
        raise ModelError(
            f"the model {model.name!r} has no weights yet: call it once to create them"
        )
    holders: dict[int, list[Node]] = {}
    for node in collect_layers(model):
        for variable in node.layer.weights:
            holders.setdefault(id(variable), []).append(node)
    weights: list[Weight] = []
    counts: Counter[str] = Counter()
    for variable in model.weights:
        nodes = tuple(holders.get(id(variable), ()))
        path = f"{nodes[-1].path}/{variable.name}" if nodes else variable.name
        repeat = counts[path]
        counts[path] += 1
        weights.append(Weight(path + (f":{repeat}" if repeat else ""), nodes, variable))
    return weights


class Selection:
    """A selection of layers, as given by an option `layers`.

    Equal options make equal selections.

    Parameters
    ----------
    layers
        None selects every layer with a spatial output, except internal layers and composite layers
        that return the output of a layer inside. Otherwise a layer path, a glob over layer paths, a
        layer or operation, a class of layers, an index into ``model.layers``, a predicate on
        layers, or a list of these. The name of a layer selects all its calls and outputs;
        ``name:0`` selects
        the first call only.

    Raises
    ------
    OptionError
        If `layers` has another type or is an empty list.
    """

    def __init__(self, layers: object) -> None:
        self.selects_all = layers is None
        self._items: list[Any] = []
        if layers is None:
            return
        is_single = isinstance(layers, (str, type)) or not isinstance(layers, Iterable)
        self._items = [layers] if is_single else list(layers)  # type: ignore[call-overload]
        if not self._items:
            raise OptionError("layers is empty: name at least one layer, or leave it out")
        for item in self._items:
            if not isinstance(item, str) and not callable(item) and not _is_index(item):
                raise OptionError(
                    "layers takes paths, globs, layers, layer classes, indices and predicates, "
                    f"not {item!r}"
                )

    @property
    def layers(self) -> list[Any] | None:
        """The option `layers` of this selection, as a list; None if all layers are selected."""
        return None if self.selects_all else list(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selection) and self._items == other._items

    def __hash__(self) -> int:
        return hash(tuple(self._items))

    def resolve_predicates(self, model: Any) -> Selection:
        """Return the selection with each predicate replaced by the layers that it selects.

        Predicates that select the same layers become equal, although they are different functions.
        A predicate that selects no layer is kept, and so are all predicates if the layers of the
        model are not known yet.
        """
        if not getattr(model, "built", False) or not any(map(_is_predicate, self._items)):
            return self
        nodes = collect_operations(model)

        def resolve(item: Any) -> Any:
            if not _is_predicate(item):
                return item
            layers = tuple(
                node.layer for node in nodes if self._matches_item(item, node, node.path, model)
            )
            return _IsAmong(layers, item) if layers else item

        return Selection([resolve(item) for item in self._items])

    def matches(self, node: Node, path: str, model: Any) -> bool:
        """Return whether a layer call is selected.

        Parameters
        ----------
        node
            The layer.
        path
            Layer path of the call.
        """
        return any(self._matches_item(item, node, path, model) for item in self._items)

    def select(self, infos: Sequence[LayerInfo]) -> list[LayerInfo]:
        """Return the selected layers of a network that can only list its layers.

        A class, or the name of a type, selects the layers of this type. An index is that of
        `LayerInfo.index`, or counts from the end if it is negative. A predicate receives a
        `LayerInfo`.

        Returns
        -------
        list of LayerInfo
            The selected layers, in the order of the network.

        Raises
        ------
        LayerError
            If an item matches no layer.
        """
        if self.selects_all:
            spatial_infos = [info for info in infos if info.is_spatial]
            if not spatial_infos:
                raise LayerError(NO_SPATIAL_LAYER)
            return spatial_infos
        count = 1 + max((info.index for info in infos if info.index is not None), default=-1)
        items = [_resolve_index(item, count) if _is_index(item) else item for item in self._items]
        for item in items:
            if not any(_matches_info(item, info) for info in infos):
                raise self._make_no_match_error(item, [info.path for info in infos])
        return [info for info in infos if any(_matches_info(item, info) for item in items)]

    def check_model(self, model: Any, nodes: list[Node]) -> None:
        """Raise LayerError unless every item of the selection matches a layer of a model."""
        for item in self._items:
            if _is_index(item):
                _resolve_index(item, len(getattr(model, "layers", [])))
                if isinstance(model.layers[item], keras().layers.InputLayer):
                    raise LayerError(
                        f"layer {item} is an input of the model, which has no activation"
                    )
            path = ""
            if isinstance(item, str):
                if re.search(r"[*?\[]", item) and re.search(r"[:\[]", item):
                    # A glob over calls or outputs, which are known only after a trace.
                    continue
                path = re.sub(r":\d+$", "", item)
            if not any(
                self._matches_item(item, node, node.path, model)
                or node.path == path
                or (path and fnmatch.fnmatchcase(join_attention_path(node.path), path))
                for node in nodes
            ):
                if path and fnmatch.fnmatchcase(join_attention_path(""), path):
                    continue  # attention scores that the model computes outside of layers
                raise self._make_no_match_error(item, [node.path for node in nodes])

    def select_weights(self, model: Any) -> list[Weight]:
        """Return the weights of the selected layers and of the layers inside them.

        Returns
        -------
        list of Weight
            In the order of the model's weights.

        Raises
        ------
        LayerError
            If an item matches no layer, or only layers without weights.
        """
        weights = collect_weights(model)
        if self.selects_all:
            return weights
        self.check_model(model, collect_operations(model))
        weighted_nodes = {node.path: node for weight in weights for node in weight.nodes}.values()
        for item in self._items:
            if not any(self._matches_item(item, node, node.path, model) for node in weighted_nodes):
                raise LayerError(f"the layers that match {_describe_item(item)} have no weights")
        return [
            weight
            for weight in weights
            if any(self.matches(node, node.path, model) for node in weight.nodes)
        ]

    def check_calls(self, model: Any, captured: Iterable[tuple[Node, str]]) -> None:
        """Raise LayerError unless every item of the selection matches a layer call.

        Parameters
        ----------
        captured
            (layer, layer path) of each call that was recorded.
        """
        calls = list(captured)
        for item in self._items:
            if not any(self._matches_item(item, node, path, model) for node, path in calls):
                error = self._make_no_match_error(item, [path for _, path in calls])
                raise LayerError(
                    f"{error}; layers that the model never calls, or calls only in a loop, "
                    "have no activations"
                )

    @staticmethod
    def _matches_item(item: Any, node: Node, path: str, model: Any) -> bool:
        if isinstance(item, str):
            if item in (node.path, path):
                return True
            if (first_call := _FIRST_CALL.sub("", item)) != item:
                return fnmatch.fnmatchcase(path, first_call)
            return any(fnmatch.fnmatchcase(candidate, item) for candidate in (node.path, path))
        if isinstance(item, type):
            return isinstance(node.layer, item)
        if _is_index(item):
            return node.index == operator.index(item) % len(model.layers)
        if isinstance(item, keras().Operation):
            return node.layer is item
        predicate: Callable[[Any], Any] = item
        return node.is_layer and bool(predicate(node.layer))

    @staticmethod
    def _make_no_match_error(item: Any, paths: list[str]) -> LayerError:
        if isinstance(item, str):
            return LayerError(
                f"no layer is called {item!r}"
                + (suggest(item, paths) or f" ({_list_examples(paths)})")
            )
        return LayerError(f"no layer matches {_describe_item(item)}")


@dataclass(frozen=True)
class _IsAmong:
    """Predicate that selects the layers that another predicate selected."""

    layers: tuple[Any, ...]
    predicate: Callable[[Any], Any] = field(compare=False)

    def __call__(self, layer: Any) -> bool:
        return any(layer is selected for selected in self.layers)

    def __repr__(self) -> str:
        return repr(self.predicate)


def _is_predicate(item: Any) -> bool:
    return (
        callable(item)
        and not isinstance(item, (str, type, keras().Operation))
        and not _is_index(item)
    )


def _matches_info(item: Any, info: LayerInfo) -> bool:
    if isinstance(item, str):
        return item in (info.path, info.type) or fnmatch.fnmatchcase(info.path, item)
    if isinstance(item, type):
        return info.type == item.__name__
    if _is_index(item):
        return info.index == operator.index(item)
    return bool(item(info))


def _describe_item(item: Any) -> str:
    return item.__name__ if isinstance(item, type) else repr(item)


def _list_examples(paths: list[str]) -> str:
    examples = ", ".join(paths[:8]) + (", ..." if len(paths) > 8 else "")
    return f"layers: {examples}" if paths else "the model has no layers"


def _resolve_index(item: Any, count: int) -> int:
    """Return a layer index that may be negative as a position among all layers of a model."""
    index = operator.index(item)
    if not -count <= index < count:
        raise LayerError(f"layer index out of range: got {index}; the model has {count} layers")
    return index % count


def _is_index(item: object) -> bool:
    return hasattr(item, "__index__") and not isinstance(item, bool)
