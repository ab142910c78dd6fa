"""The layers of a model: where they are, what they give, and which are wanted."""

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

__all__ = [
    "NO_SPATIAL_LAYER",
    "LayerInfo",
    "Node",
    "Selection",
    "Weight",
    "model_layers",
    "model_operations",
    "model_weights",
]


# As in "name:0" and "name:0[1]", for the first call of a layer.
_FIRST_CALL = re.compile(r":0(?=$|\[)")
NO_SPATIAL_LAYER = "the model has no layer with a spatial output; name the layers to extract"
# What an output with a batch axis is drawn as, by its rank.
_KIND_OF_RANK = {2: "dense", 3: "sequence", 4: "image", 5: "volume"}


@dataclass(frozen=True)
class LayerInfo:
    """One output of one call of a layer, or of an operation of a functional model.

    Attributes
    ----------
    path
        The layer path: the layer's name; ``outer/inner`` inside nested models and layers;
        ``name:1`` for its second call; ``name[1]`` or ``name[key]`` for its further outputs. An
        operation (``keras.ops.relu(x)``, ``x * 2``) has the name that Keras gives it
        (``model.operations``).
    type
        Class of the layer or operation.
    shape
        Shape of the output; None where it is not fixed, as the batch mostly is not.
    dtype
        Name of the output's dtype.
    data_format
        ``"channels_last"`` or ``"channels_first"``.
    parameters
        How many weights the layer has.
    index
        Position in ``model.layers``; None inside nested layers.
    """

    path: str
    type: str
    shape: tuple[int | None, ...]
    dtype: str
    data_format: str
    parameters: int
    index: int | None

    @property
    def channels(self) -> int | None:
        """Length of the channel axis."""
        if len(self.shape) < 2:
            return None
        return self.shape[1 if self.data_format == "channels_first" else -1]

    @property
    def kind(self) -> str:
        """What the output is drawn as: ``"dense"``, ``"sequence"``, ``"image"``, ``"volume"``.

        Raises
        ------
        ShapeError
            If its rank is that of none of them.
        """
        try:
            return _KIND_OF_RANK[len(self.shape)]
        except KeyError:
            raise ShapeError(
                f"layer {self.path}: an output of {self.shape} cannot be drawn"
            ) from None

    @property
    def spatial(self) -> bool:
        """Whether there are axes between batch and channels: an image, a volume, a sequence."""
        return 3 <= len(self.shape) <= 5


@dataclass(frozen=True)
class Node:
    """A layer of a model, called or not, or an operation of a functional model.

    Operations are Keras's `keras.Operation` that are no layers: they have neither weights nor an
    `index`.

    `internal` layers are parts of Keras's own composite layers, such as the projections of an
    attention. `looped` ones run in a loop, whose values do not outlive it: the cells of recurrent
    layers. `call_order` has the numbers of a layer's calls in the order in which Keras runs them:
    functional models run calls of one depth in another order than they were made in.
    """

    layer: Any = field(repr=False)
    path: str
    index: int | None
    internal: bool
    looped: bool
    call_order: tuple[int, ...] = (0,)

    def call_number(self, run: int) -> int:
        """Return the number of the call that is the `run`-th to be run; both count from 0."""
        count = len(self.call_order)
        return run // count * count + self.call_order[run % count]

    @property
    def is_layer(self) -> bool:
        """Whether the node is a layer, and not an operation."""
        return isinstance(self.layer, keras().layers.Layer)

    @property
    def composite(self) -> bool:
        """Whether there are layers inside."""
        return self.is_layer and bool(sublayers(self.layer))

    @property
    def parameters(self) -> int:
        """Number of weight values of the layer."""
        return self.layer.count_params() if self.is_layer and self.layer.built else 0


def sublayers(layer: Any) -> list[Any]:
    """Return a layer's direct sublayers, but for the inputs of models, which compute nothing."""
    found = layer._flatten_layers(include_self=False, recursive=False)
    inputs = keras().layers.InputLayer
    return [sublayer for sublayer in found if not isinstance(sublayer, inputs)]


def _suboperations(layer: Any) -> list[Any]:
    """Return a layer's direct sublayers and, of a functional model, its operations."""
    layers = sublayers(layer)
    if not isinstance(layer, keras().Function):
        return layers
    kind = keras().layers.Layer
    return layers + [operation for operation in layer.operations if not isinstance(operation, kind)]


def model_layers(model: Any) -> list[Node]:
    """Return every layer inside a model, each once, outer before inner."""
    return [node for node in model_operations(model) if node.is_layer]


def model_operations(model: Any) -> list[Node]:
    """Return every layer and operation inside a model, each once, outer before inner."""
    k = keras()
    recurrent = k.layers.RNN
    # What is inside of these are layers of the user's, and no parts that Keras makes.
    holders = (k.Model, k.layers.Wrapper, k.layers.Pipeline)
    nodes: list[Node] = []
    seen = {id(model)}
    positions = {id(layer): index for index, layer in enumerate(getattr(model, "layers", []))}

    def descend(
        parent: Any, prefix: str, internal: bool, looped: bool, outer: tuple[int, ...]
    ) -> None:
        orders = _call_orders(parent)
        for layer in _suboperations(parent):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            path = prefix + layer.name
            own_order = orders.get(id(layer), (0,))
            order = tuple(
                block * len(own_order) + number for block in outer for number in own_order
            )
            node = Node(layer, path, positions.get(id(layer)), internal, looped, order)
            nodes.append(node)
            if not node.is_layer:
                continue
            loop = isinstance(layer, recurrent) and not layer.unroll
            own = type(layer).__module__.startswith("keras.") and not isinstance(layer, holders)
            descend(layer, path + "/", internal or own, looped or loop, order)

    descend(model, "", internal=False, looped=False, outer=(0,))
    return nodes


def _call_orders(model: Any) -> dict[int, tuple[int, ...]]:
    """Return of the operations of a functional model, by their ids, `Node.call_order`."""
    if not isinstance(model, keras().Function):
        return {}
    runs: dict[int, list[int]] = {}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            made = node.operation._inbound_nodes.index(node)
            runs.setdefault(id(node.operation), []).append(made)
    return {
        key: tuple(sorted(numbers).index(number) for number in numbers)
        for key, numbers in runs.items()
    }


@dataclass(frozen=True)
class Weight:
    """A weight of a model.

    Attributes
    ----------
    path
        Layer path and name: ``"block1_conv1/kernel"``; ``name:1`` for the second of a name.
    nodes
        The layers that have it, outer before inner: the last one made it. Empty for one that the
        model itself made.
    variable
        Keras's variable.
    """

    path: str
    nodes: tuple[Node, ...]
    variable: Any = field(repr=False)


def model_weights(model: Any) -> list[Weight]:
    """Return every weight of a model, each once, in the order of ``model.weights``.

    Raises
    ------
    ModelError
        If the model has not made its weights yet. Also a ValueError.
    """
    if not model.built:
        raise ModelError(
            f"the model {model.name!r} has no weights yet, which come with its first call"
        )
    holders: dict[int, list[Node]] = {}
    for node in model_layers(model):
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
    """The layers that an option `layers` asks for. Equal ones ask for the same.

    Parameters
    ----------
    layers
        None: every layer with a spatial output, but for internal ones and for composites whose
        output is that of a layer inside. Otherwise a layer path, a glob over layer paths, a
        layer or operation, a class of them, an index into ``model.layers``, a predicate on layers,
        or several of these. A layer's name stands for all its calls and outputs; ``name:0`` for
        the first call alone.

    Raises
    ------
    OptionError
        If it is none of these.
    """

    def __init__(self, layers: object) -> None:
        self.everything = layers is None
        self._items: list[Any] = []
        if layers is None:
            return
        single = isinstance(layers, (str, type)) or not isinstance(layers, Iterable)
        self._items = [layers] if single else list(layers)  # type: ignore[call-overload]
        if not self._items:
            raise OptionError("layers is empty: name at least one layer, or leave it out")
        for item in self._items:
            if not isinstance(item, str) and not callable(item) and not _is_index(item):
                raise OptionError(
                    "layers takes paths, globs, layers, layer classes, indices and predicates, "
                    f"not {item!r}"
                )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selection) and self._items == other._items

    def __hash__(self) -> int:
        return hash(tuple(self._items))

    def wants(self, node: Node, path: str, model: Any) -> bool:
        """Tell whether the call at `path` of a layer is wanted."""
        return any(self._matches(item, node, path, model) for item in self._items)

    def choose(self, infos: Sequence[LayerInfo]) -> list[LayerInfo]:
        """Return the layers that are wanted of a network that only lists its layers.

        A class stands for the layers of a type of its name. A predicate takes a `LayerInfo`.

        Raises
        ------
        LayerError
            If an item stands for none of the layers.
        """
        if self.everything:
            spatial = [info for info in infos if info.spatial]
            if not spatial:
                raise LayerError(NO_SPATIAL_LAYER)
            return spatial
        for item in self._items:
            if not any(_matches_info(item, info) for info in infos):
                raise self._nothing(item, [info.path for info in infos])
        return [info for info in infos if any(_matches_info(item, info) for item in self._items)]

    def check(self, model: Any, nodes: list[Node]) -> None:
        """Raise LayerError unless every item can stand for some layer of the model."""
        for item in self._items:
            if _is_index(item):
                count = len(getattr(model, "layers", []))
                if not -count <= item < count:
                    raise LayerError(f"the model has no layer {item}: it has {count}")
                if isinstance(model.layers[item], keras().layers.InputLayer):
                    raise LayerError(
                        f"layer {item} is an input of the model, which computes nothing"
                    )
            path = ""
            if isinstance(item, str):
                if re.search(r"[*?\[]", item) and re.search(r"[:\[]", item):
                    continue  # a glob that may be over calls and outputs, not known before a trace
                path = re.sub(r":\d+$", "", item)
            if not any(
                self._matches(item, node, node.path, model) or node.path == path for node in nodes
            ):
                raise self._nothing(item, [node.path for node in nodes])

    def choose_weights(self, model: Any) -> list[Weight]:
        """Return the weights of the layers that are wanted, and of the layers inside these.

        Raises
        ------
        LayerError
            If an item is no layer, or one without weights.
        """
        weights = model_weights(model)
        if self.everything:
            return weights
        self.check(model, model_operations(model))
        holders = {node.path: node for weight in weights for node in weight.nodes}.values()
        for item in self._items:
            if not any(self._matches(item, node, node.path, model) for node in holders):
                raise LayerError(f"the layers that {_shown(item)} stands for have no weights")
        return [
            weight
            for weight in weights
            if any(self.wants(node, node.path, model) for node in weight.nodes)
        ]

    def check_found(self, model: Any, found: Iterable[tuple[Node, str]]) -> None:
        """Raise LayerError unless every item stands for some call that was captured."""
        calls = list(found)
        for item in self._items:
            if not any(self._matches(item, node, path, model) for node, path in calls):
                error = self._nothing(item, [path for _, path in calls])
                raise LayerError(
                    f"{error}; layers that the model does not call, or calls in a loop only, "
                    "have no activations"
                )

    @staticmethod
    def _matches(item: Any, node: Node, path: str, model: Any) -> bool:
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
    def _nothing(item: Any, known: list[str]) -> LayerError:
        if isinstance(item, str):
            return LayerError(
                f"no layer is called {item!r}" + (suggest(item, known) or f" ({_some(known)})")
            )
        return LayerError(f"no layer matches {_shown(item)}")


def _matches_info(item: Any, info: LayerInfo) -> bool:
    if isinstance(item, str):
        return item == info.path or fnmatch.fnmatchcase(info.path, item)
    if isinstance(item, type):
        return info.type == item.__name__
    if _is_index(item):
        return info.index == operator.index(item)
    return bool(item(info))


def _shown(item: Any) -> str:
    return item.__name__ if isinstance(item, type) else repr(item)


def _some(known: list[str]) -> str:
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    return f"there are {shown}" if known else "there is none"


def _is_index(item: object) -> bool:
    return hasattr(item, "__index__") and not isinstance(item, bool)
