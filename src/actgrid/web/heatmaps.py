"""Heatmaps of the viewer: which methods there are, and what each gives for an image."""

from __future__ import annotations

from typing import Any

from actgrid.attribution.lime import check_packages
from actgrid.attribution.method import Method
from actgrid.attribution.methods import all_methods, check_options, find_method
from actgrid.attribution.requests import prepare_request
from actgrid.encoding import encode_png
from actgrid.errors import MissingDependencyError, NotFoundError
from actgrid.models.labels import find_class_index
from actgrid.web.cache import Cache
from actgrid.web.computations import Computations
from actgrid.web.engine import Engine
from actgrid.web.images import ImageStore
from actgrid.web.layers import plain_numbers
from actgrid.web.scheduling import LongTask
from actgrid.web.viewed import ViewedModel

__all__ = ["Heatmaps"]

_Key = tuple[str, str, str, "int | None", "str | None"]
_Result = tuple[dict[str, Any], bytes]


class Heatmaps:
    """Explains classes of a model for images.

    Attributes
    ----------
    methods : dict
        The methods that can be used, by name; none for a model without classes.
    """

    def __init__(
        self,
        engine: Engine,
        viewed: ViewedModel,
        images: ImageStore,
        cache: Cache,
        computations: Computations,
        batch_size: int,
    ) -> None:
        self.methods = {} if viewed.class_node is None else _usable_methods()
        self._engine, self._viewed, self._images = engine, viewed, images
        self._cache, self._computations = cache, computations
        self._batch_size = batch_size

    def key(
        self, image: str, method: str, target: int | str | None, layer: int | str | None
    ) -> _Key:
        """Return what a heatmap is kept by: all that it depends on, checked.

        Raises
        ------
        NotFoundError
            If there is no such image, layer, or method for this model.
        ActgridError
            If the method, class or layer cannot be used.
        """
        self._images[image]
        chosen = find_method(method)
        if self._viewed.class_node is None:
            raise NotFoundError("the model gives no classes that could be explained")
        if method not in self.methods:
            raise NotFoundError(f"{method} needs packages that are not installed")
        path = self._viewed.layer_path(layer)
        check_options([chosen], path, {})
        if isinstance(target, str):
            target = find_class_index(target, self._viewed.labels)
        return "heatmap", image, method, target, path

    def progress(self, key: _Key) -> dict[str, Any]:
        """Return how far the computation of a heatmap is."""
        return self._computations.progress(key)

    async def get(self, key: _Key) -> _Result:
        """Return the description of a heatmap, and its levels as a grayscale PNG file."""
        _, image, method, target, path = key
        stored = self._images[image]

        async def make() -> _Result:
            prepared = await self._engine.prepared(stored)

            def explain(task: LongTask) -> _Result:
                request = prepare_request(
                    self._engine.model,
                    prepared.x,
                    target,
                    self._viewed.labels,
                    batch_size=self._batch_size,
                    pixels=prepared.picture[None],
                    progress=task.report,
                )
                heatmap = request.explain(self.methods[method], path, {}, warn=False)
                about = {
                    "method": method,
                    "target": None if heatmap.target is None else int(heatmap.target[0]),
                    "label": None if heatmap.labels is None else heatmap.labels[0],
                    "score": None if heatmap.score is None else plain_numbers(heatmap.score)[0],
                    "is_logit": heatmap.is_logit,
                    "signed": heatmap.signed,
                    "layer": heatmap.layer,
                    "cmap": heatmap.cmap,
                    "zero_reason": heatmap.details.get("zero_reason", [None])[0],
                }
                return about, encode_png(heatmap.levels()[0])

            return await self._computations.run(key, explain)

        return await self._cache.get(key, make)


def _usable_methods() -> dict[str, Method]:
    """Return the methods whose packages are installed."""
    try:
        check_packages()
    except MissingDependencyError:
        return {name: method for name, method in all_methods().items() if name != "lime"}
    return all_methods()
