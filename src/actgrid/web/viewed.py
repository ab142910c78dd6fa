"""The nodes, classes, kernels and dataset statistics of the viewer's model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.scores import find_binary_output
from actgrid.errors import LayerError, NotFoundError, suggest
from actgrid.models import LayerInfo
from actgrid.models.labels import resolve_labels
from actgrid.models.network import is_network
from actgrid.statistics import DatasetStats, LayerStats
from actgrid.web.engine import Engine
from actgrid.web.folding import assign_attention, fold
from actgrid.web.layers import find_kernels

__all__ = ["ViewedModel"]


class ViewedModel:
    """The nodes, classes, kernels and dataset statistics of a model.

    Parameters
    ----------
    engine
        Engine that runs the model.
    labels
        Names of the classes, see `Viewer`.
    dataset
        Statistics over a dataset, matched with the layers by path; None: no statistics.

    Attributes
    ----------
    infos : sequence of LayerInfo
        Descriptions of the nodes: inputs, and calls of layers.
    drawable_nodes : set of int
        Indices of the nodes whose activations can be drawn.
    folding : Folding
        Groups of nodes that the page folds into cards.
    attention : dict of {int: int}
        Node -> node that computes the attention that the page shows for it.
    kernels : dict
        Kernels by node.
    class_node : int or None
        Node whose values are the scores of the classes; None for a model without classes.
    class_count : int
        Number of classes; 0 for a model without classes.
    labels : tuple of str or None
        Names of the classes.
    binary_output : str or None
        Kind of the single output value of a binary classifier: ``"probability"``, ``"logit"`` or
        ``"sign"``; None for other models.
    dataset_stats : dict
        Statistics over a dataset by node.

    Raises
    ------
    TargetError
        If the labels do not match the classes.
    """

    def __init__(
        self, engine: Engine, labels: Sequence[str] | str | None, dataset: DatasetStats | None
    ) -> None:
        self.infos = engine.graph.infos
        self.drawable_nodes = set(engine.drawable_nodes)
        self.folding = fold(engine.graph)
        self.attention = assign_attention(
            engine.attention_nodes, self.folding, engine.drawable_nodes
        )
        self._attention_nodes = engine.attention_nodes
        self.kernels = find_kernels(engine.model, self.infos)
        self.class_node = self._find_class_node(engine)
        self.class_count = 0
        self.labels: tuple[str, ...] | None = None
        self.binary_output: str | None = None
        if self.class_node is not None:
            self.class_count = self.infos[self.class_node].channels or 0
            if self.class_count == 1:
                self.binary_output = find_binary_output(engine.model, engine.input.spec, labels)
                self.class_count = 1 if self.binary_output is None else 2
            self.labels = resolve_labels(engine.model, self.class_count, labels)
        self.dataset_stats = {} if dataset is None else self._match_layers(dataset)

    def _find_class_node(self, engine: Engine) -> int | None:
        outputs = engine.graph.outputs
        if len(outputs) != 1 or outputs[0] not in self.drawable_nodes:
            return None
        (node,) = outputs
        info = self.infos[node]
        model = engine.model
        model_outputs = None if is_network(model) else getattr(model, "outputs", None)
        if model_outputs and tuple(model_outputs[0].shape) != info.shape:
            return None  # another operation computes the output from the node's values
        return node if len(info.shape) == 2 and info.channels else None

    def _match_layers(self, dataset: DatasetStats) -> dict[int, LayerStats]:
        layers = dataset.layers
        return {
            node: layers[info.path]
            for node, info in enumerate(self.infos)
            if info.path in layers and layers[info.path].count.size == info.channels
        }

    def complete_scores(self, scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the score of each class for the output of the model, which may have one value."""
        if self.binary_output is None:
            return scores
        first = 1 - scores if self.binary_output == "probability" else -scores
        return np.concatenate([first, scores])

    def check_layer(self, layer: int) -> int:
        """Check and return a node index; raise NotFoundError if there is no such node."""
        if not 0 <= layer < len(self.infos):
            raise NotFoundError(f"there is no layer {layer}: layers are 0 to {len(self.infos) - 1}")
        return layer

    def check_drawable(self, layer: int) -> int:
        """Check and return a node index; raise NotFoundError if it cannot be drawn."""
        if self.check_layer(layer) not in self.drawable_nodes:
            raise NotFoundError(f"{self.infos[layer].path} has no activation that can be drawn")
        return layer

    def find_layer_path(self, layer: int | str | None) -> str | None:
        """Return the path of the node with an index or path; return None for None.

        Raises
        ------
        NotFoundError
            If no node has the index.
        LayerError
            If no node has the path.
        """
        if layer is None:
            return None
        if not isinstance(layer, str):
            return self.infos[self.check_layer(layer)].path
        paths = [info.path for info in self.infos]
        if layer not in paths:
            raise LayerError(f"no layer is called {layer!r}{suggest(layer, paths)}")
        return layer

    def __len__(self) -> int:
        return len(self.infos)

    def describe_nodes(self) -> list[dict[str, object]]:
        """Return a JSON description of each node of the model's graph."""
        return [
            self._describe_node(node, info, group)
            for (node, info), group in zip(
                enumerate(self.infos), self.folding.innermost_groups, strict=True
            )
        ]

    def _describe_attention(self, node: int) -> dict[str, object] | None:
        """Return a JSON description of the attention of a node; None if it has no attention."""
        if node not in self.attention:
            return None
        source = self.attention[node]
        info = self._attention_nodes[source]
        return {"layer": source, "path": info.path, "heads": info.shape[1]}

    def _describe_node(self, node: int, info: LayerInfo, group: int | None) -> dict[str, object]:
        return {
            "path": info.path,
            "name": info.path.rsplit("/", 1)[-1],
            "type": info.type,
            "shape": list(info.shape),
            "dtype": info.dtype,
            "kind": info.kind if 2 <= len(info.shape) <= 5 else None,
            "channels": info.channels,
            "parameters": info.parameters,
            "is_drawable": node in self.drawable_nodes,
            "kernel": node in self.kernels,
            "has_statistics": node in self.dataset_stats,
            "attention": self._describe_attention(node),
            "group": group,
        }
