"""Relevance of the channels of layers for a class, for an image of the viewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.channel_relevance import measure_sample_relevance
from actgrid.errors import NotFoundError
from actgrid.models.labels import find_class_index
from actgrid.web.computations import Computations
from actgrid.web.engine import Engine
from actgrid.web.images import ImageStore
from actgrid.web.scheduling import LongTask
from actgrid.web.viewed import ViewedModel

__all__ = ["ChannelRelevance"]


class ChannelRelevance:
    """Computes and caches the relevance of channels for the classes of a model.

    Parameters
    ----------
    engine
        Engine that runs the model.
    viewed
        Nodes and classes of the model.
    images
        Images of the viewer.
    computations
        Runs the model forward and backward.
    """

    def __init__(
        self, engine: Engine, viewed: ViewedModel, images: ImageStore, computations: Computations
    ) -> None:
        self._engine, self._viewed = engine, viewed
        self._images, self._computations = images, computations

    async def get(
        self, image: str, layer: int, target: int | str | None
    ) -> npt.NDArray[np.float32]:
        """Return the relevance of each channel of a layer; all layers are measured at once.

        Parameters
        ----------
        layer
            Index of a node.
        target
            Index or name of a class; None: the predicted class.

        Raises
        ------
        NotFoundError
            If the image or layer does not exist, or the model has no classes.
        TargetError
            If there is no such class.
        """
        stored, node = self._images[image], self._viewed.check_drawable(layer)
        if self._viewed.class_node is None:
            raise NotFoundError("the model has no classes to which channels contribute")
        if isinstance(target, str):
            target = find_class_index(target, self._viewed.labels)
        nodes = sorted(self._viewed.drawable_nodes)
        prepared: Any = await self._engine.get_prepared(stored)

        def measure(task: LongTask) -> list[npt.NDArray[np.float32]]:
            paths = [self._viewed.infos[node].path for node in nodes]
            relevance = measure_sample_relevance(
                self._engine.model, prepared.x, paths, target, self._viewed.labels
            )
            return [relevance[path][0] for path in paths]

        arrays = await self._computations.get(("relevance", image, target), measure)
        return arrays[nodes.index(node)]
