"""Nodes, classes, kernels and statistics of the model in the viewer: `ViewedModel`."""

from __future__ import annotations

from collections.abc import Sequence

from actgrid.attribution.scores import find_binary_output
from actgrid.errors import LayerError, NotFoundError, suggest
from actgrid.models import LayerInfo
from actgrid.models.labels import resolve_labels
from actgrid.statistics import DatasetStats, LayerStats
from actgrid.web.engine import Engine
from actgrid.web.layers import kernels

__all__ = ["ViewedModel"]


class ViewedModel:
    """The nodes of a model and the names of its classes.

    Parameters
    ----------
    engine
        What runs the model.
    labels
        Names of the classes, as for `Viewer`.
    dataset
        Statistics over many images; layers are matched by path.

    Attributes
    ----------
    infos : sequence of LayerInfo
        The nodes.
    drawn : set of int
        Nodes whose activations can be drawn.
    kernels : dict
        The kernel of each node that has one.
    class_node : int or None
        The node whose values are the scores of the classes, if there is just one.
    class_count : int
        Number of classes.
    labels : tuple of str or None
        Names of the classes.
    binary : str or None
        If the model gives one value for two classes: what this value is.
    measured : dict
        Statistics over many images by node.

    Raises
    ------
    TargetError
        If the labels do not name the classes.
    """

    def __init__(
        self, engine: Engine, labels: Sequence[str] | str | None, dataset: DatasetStats | None
    ) -> None:
        self.infos = engine.graph.infos
        self.drawn = set(engine.drawn)
        self.kernels = kernels(engine.model, self.infos)
        self.class_node = self._find_class_node(engine)
        self.class_count = 0
        self.labels: tuple[str, ...] | None = None
        self.binary: str | None = None
        if self.class_node is not None:
            self.class_count = self.infos[self.class_node].channels or 0
            if self.class_count == 1:
                self.binary = find_binary_output(engine.model, engine.spec, labels)
                self.class_count = 1 if self.binary is None else 2
            self.labels = resolve_labels(engine.model, self.class_count, labels)
        self.measured = {} if dataset is None else self._match(dataset)

    def _find_class_node(self, engine: Engine) -> int | None:
        outputs = engine.graph.outputs
        if len(outputs) != 1 or outputs[0] not in self.drawn:
            return None
        (node,) = outputs
        info = self.infos[node]
        given = getattr(engine.model, "outputs", None)
        if given and tuple(given[0].shape) != info.shape:
            return None  # the model computes something else from it
        return node if info.kind == "dense" and info.channels else None

    def _match(self, dataset: DatasetStats) -> dict[int, LayerStats]:
        layers = dataset.layers
        return {
            node: layers[info.path]
            for node, info in enumerate(self.infos)
            if info.path in layers and layers[info.path].count.size == info.channels
        }

    def known_layer(self, layer: int) -> int:
        """Return the number of a node; raise NotFoundError if there is no such node."""
        if not 0 <= layer < len(self.infos):
            raise NotFoundError(f"there is no layer {layer}: there are 0 to {len(self.infos) - 1}")
        return layer

    def drawable_layer(self, layer: int) -> int:
        """Return the number of a node; raise NotFoundError if it cannot be drawn."""
        if self.known_layer(layer) not in self.drawn:
            raise NotFoundError(f"{self.infos[layer].path} gives nothing that can be drawn")
        return layer

    def layer_path(self, layer: int | str | None) -> str | None:
        """Return the path of a node that is given by its number or its path.

        Raises
        ------
        NotFoundError, LayerError
            If there is no node of this number or path.
        """
        if layer is None:
            return None
        if not isinstance(layer, str):
            return self.infos[self.known_layer(layer)].path
        paths = [info.path for info in self.infos]
        if layer not in paths:
            raise LayerError(f"no layer is called {layer!r}{suggest(layer, paths)}")
        return layer

    def __len__(self) -> int:
        return len(self.infos)

    def describe_nodes(self, groups: Sequence[int | None]) -> list[dict[str, object]]:
        """Return the nodes for JSON, each with the innermost of the `groups` that it is in."""
        return [
            self._describe(node, info, group)
            for (node, info), group in zip(enumerate(self.infos), groups, strict=True)
        ]

    def _describe(self, node: int, info: LayerInfo, group: int | None) -> dict[str, object]:
        return {
            "path": info.path,
            "name": info.path.rsplit("/", 1)[-1],
            "type": info.type,
            "shape": list(info.shape),
            "dtype": info.dtype,
            "kind": info.kind if 2 <= len(info.shape) <= 5 else None,
            "channels": info.channels,
            "parameters": info.parameters,
            "drawn": node in self.drawn,
            "kernel": node in self.kernels,
            "measured": node in self.measured,
            "group": group,
        }
