"""Attention of the viewer: what each query of a layer attends to, for an image or a text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from actgrid.attribution.tokens import name_tokens
from actgrid.errors import NotFoundError, ShapeError
from actgrid.models.inputs import prepare_inputs
from actgrid.rendering import AttentionMap
from actgrid.web.cache import Cache
from actgrid.web.engine import MAX_ATTENTION_VALUES, Engine, QuantizedAttention
from actgrid.web.images import ImageStore, StoredImage
from actgrid.web.layers import round_for_json
from actgrid.web.viewed import ViewedModel

__all__ = ["AttentionResources"]

_Result = tuple[dict[str, Any], bytes]


class AttentionResources:
    """Computes and caches the attention of layers for images and other samples.

    Parameters
    ----------
    engine
        Engine that runs the model.
    viewed
        Nodes of the model.
    images
        Images whose attention can be shown.
    cache
        Cache for the results.
    threads
        Threads that describe the results.
    """

    def __init__(
        self,
        engine: Engine,
        viewed: ViewedModel,
        images: ImageStore,
        cache: Cache,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._engine, self._viewed, self._images = engine, viewed, images
        self._cache, self._threads = cache, threads

    async def get(self, image: str, layer: int) -> _Result:
        """Return the description of a layer's attention for JSON, and its levels.

        Returns
        -------
        tuple of (dict, bytes)
            The levels are uint8 numbers in the order (heads, queries, keys). A level of 255 is the
            largest weight of its head and query, which is in ``"maxima"`` of the description.

        Raises
        ------
        NotFoundError
            If the image or layer does not exist, or the layer has no attention. Also a LookupError.
        ShapeError
            If there are more than 16,777,216 weights, or the attention is split into windows. Also
            a ValueError.
        """
        stored = self._images[image]
        node = self._viewed.attention.get(self._viewed.check_layer(layer))
        if node is None:
            raise NotFoundError(f"{self._viewed.infos[layer].path} has no attention")

        async def compute() -> _Result:
            attention = await self._engine.get_attention(stored, node)
            prepared = await self._engine.get_prepared(stored)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._threads, self._describe, stored, node, attention, prepared.x
            )

        return await self._cache.get(("attention map", image, node), compute)

    def _describe(
        self, stored: StoredImage, node: int, attention: QuantizedAttention, x: Any
    ) -> _Result:
        info = self._engine.attention_nodes[node]
        windows, heads, queries, keys = attention.shape
        if windows != 1:
            raise ShapeError(
                f"the attention of {info.path} is split into windows: got {windows} windows; "
                "expected attention over the whole sample"
            )
        if heads * queries * keys > MAX_ATTENTION_VALUES:
            raise ShapeError(
                f"the attention of {info.path} is too large: got {heads} heads x {queries} queries "
                f"x {keys} keys; expected at most {MAX_ATTENTION_VALUES} values"
            )
        query_grid, key_grid = (
            grid if grid is not None and grid.tokens == count else None
            for grid, count in zip(info.grids[2:] or (None, None), (queries, keys), strict=True)
        )
        named = AttentionMap(
            np.zeros((1, queries, keys)),
            queries=self._name_tokens(stored, queries, x),
            keys=self._name_tokens(stored, keys, x),
            query_grid=query_grid,
            key_grid=key_grid,
        )
        description = {
            "path": info.path,
            "heads": heads,
            "queries": list(named.queries),
            "keys": list(named.keys),
            "query_grid": None if query_grid is None else query_grid._asdict(),
            "key_grid": None if key_grid is None else key_grid._asdict(),
            "maxima": round_for_json(attention.maxima),
        }
        return description, attention.levels.tobytes()

    def _name_tokens(self, stored: StoredImage, count: int, x: Any) -> Sequence[str] | None:
        """Return the names of the tokens of a text; None if they are not known."""
        if self._engine.input.kind != "text":
            return None
        inputs = prepare_inputs(self._engine.model, x)
        names = name_tokens(self._engine.model, inputs, 0, count, stored.source.tokens)
        return names[0] if names and any(names[0]) else None
