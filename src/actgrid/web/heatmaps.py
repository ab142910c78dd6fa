"""Heatmaps of the viewer, which explain the score of a class for an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.method import Method
from actgrid.attribution.methods import (
    check_needs,
    check_options,
    find_method,
    find_usable_methods,
    get_methods,
)
from actgrid.attribution.packages import has_packages
from actgrid.attribution.requests import ExplanationRequest, prepare_request
from actgrid.encoding import encode_png
from actgrid.errors import NotFoundError
from actgrid.evaluation.comparison import COMPARED_METRICS
from actgrid.evaluation.evaluating import Candidate, evaluate_request
from actgrid.evaluation.metrics import parse_metrics
from actgrid.models.labels import find_class_index
from actgrid.models.network import is_compiled
from actgrid.models.networks import get_network
from actgrid.rendering import (
    Attribution,
    Heatmap,
    TextAttribution,
    VolumeAttribution,
    lay_out_sheet,
)
from actgrid.rendering.layout import choose_columns
from actgrid.web.cache import Cache
from actgrid.web.computations import Computations
from actgrid.web.engine import Engine
from actgrid.web.images import ImageStore, StoredImage
from actgrid.web.layers import round_for_json
from actgrid.web.scheduling import LongTask
from actgrid.web.viewed import ViewedModel

__all__ = ["Heatmaps"]

_Key = tuple[str, str, str, "int | None", "str | None"]
# Description of a heatmap, its PNG file, and the values of its map, (1, ...).
_Result = tuple[dict[str, Any], bytes, npt.NDArray[np.float32]]


class Heatmaps:
    """Computes and caches heatmaps for the classes of a model.

    Parameters
    ----------
    engine
        Engine that runs the model.
    viewed
        Nodes and classes of the model.
    images
        Images that can be explained.
    cache
        Cache for the heatmaps.
    computations
        Runs the attribution methods.
    batch_size
        Maximum number of samples in a batch.

    Attributes
    ----------
    methods : dict
        Available attribution methods by name; empty for a model without classes.
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
        has_classes = viewed.class_node is not None
        self.methods = _find_available_methods(engine.model) if has_classes else {}
        self._engine, self._viewed, self._images = engine, viewed, images
        self._cache, self._computations = cache, computations
        self._batch_size = batch_size

    def make_key(
        self, image: str, method: str, target: int | str | None, layer: int | str | None
    ) -> _Key:
        """Check the parameters of a heatmap, and return its cache key.

        Parameters
        ----------
        image
            Id of an image.
        method
            Name of an attribution method.
        target
            Index or name of a class; None: the predicted class.
        layer
            Index or path of a layer; None: the default layer of the method.

        Raises
        ------
        NotFoundError
            If the image, layer or method does not exist, or the model has no classes.
        ActgridError
            If the method, class or layer is invalid.
        """
        self._images[image]
        attribution_method = find_method(method)
        if self._viewed.class_node is None:
            raise NotFoundError("the model has no classes to explain")
        check_needs([attribution_method], self._engine.model)
        if method not in self.methods:
            raise NotFoundError(f"{method} needs packages that are not installed")
        path = self._viewed.find_layer_path(layer)
        check_options([attribution_method], path, {})
        if isinstance(target, str):
            target = find_class_index(target, self._viewed.labels)
        return "heatmap", image, method, target, path

    def get_progress(self, key: _Key) -> dict[str, Any]:
        """Return the progress of the computation of a heatmap, for JSON."""
        return self._computations.get_progress(key)

    async def get(self, key: _Key) -> _Result:
        """Return a heatmap as a description for JSON, and as a PNG file.

        The file has the levels of the map of an image; for other samples, the sample with its map
        in colour. The slices of a volume are tiles of the picture.
        """
        _, image, method, target, path = key
        stored = self._images[image]

        async def compute() -> _Result:
            prepared = await self._engine.get_prepared(stored)

            def explain(task: LongTask) -> _Result:
                request = self._prepare_request(stored, prepared, target, task)
                heatmap = request.explain(self.methods[method], path, {}, warn=False)
                description = {
                    "kind": self._engine.input.kind,
                    "method": method,
                    "target": None if heatmap.target is None else int(heatmap.target[0]),
                    "label": None if heatmap.labels is None else heatmap.labels[0],
                    "score": None if heatmap.score is None else round_for_json(heatmap.score)[0],
                    "is_logit": heatmap.is_logit,
                    "signed": heatmap.signed,
                    "layer": heatmap.layer,
                    "cmap": heatmap.cmap,
                    "zero_reason": heatmap.details.get("zero_reason", [None])[0],
                    "slices": None,
                    "tokens": None,
                }
                if isinstance(heatmap, Heatmap):
                    return description, encode_png(heatmap.levels()[0]), heatmap.values
                return *_draw_sample_map(description, heatmap), heatmap.values

            return await self._computations.run(key, explain)

        return await self._cache.get(key, compute)

    def make_scores_key(self, key: _Key) -> _Key:
        """Return the cache key of the scores of a heatmap."""
        return "scores", *key[1:]

    async def get_scores(self, key: _Key) -> dict[str, Any]:
        """Return the metrics of a heatmap, for JSON.

        Parameters
        ----------
        key
            Key of the heatmap.
        """
        _, image, method, target, _ = key
        stored = self._images[image]
        scores_key = self.make_scores_key(key)

        async def compute() -> dict[str, Any]:
            about, _, maps = await self.get(key)
            prepared = await self._engine.get_prepared(stored)

            def evaluate(task: LongTask) -> dict[str, Any]:
                request = self._prepare_request(stored, prepared, target, task)
                metrics = parse_metrics(COMPARED_METRICS, {})
                candidates = {method: Candidate(maps)}
                evaluation = evaluate_request(request.with_predicted_classes(), candidates, metrics)
                return {
                    "method": method,
                    "target": about["target"],
                    "scores": [
                        {
                            "metric": metric.name,
                            "value": round_for_json(evaluation.values[metric.name][0])[0],
                            "better": metric.direction,
                            "summary": metric.summary,
                        }
                        for metric in metrics
                    ],
                }

            return await self._computations.run(scores_key, evaluate)

        return await self._cache.get(scores_key, compute)

    def _prepare_request(
        self, stored: StoredImage, prepared: Any, target: int | None, task: LongTask
    ) -> ExplanationRequest:
        is_image = self._engine.input.kind == "image"
        return prepare_request(
            self._engine.model,
            prepared.x,
            target,
            self._viewed.labels,
            batch_size=self._batch_size,
            pixels=prepared.picture[None] if is_image else None,
            progress=task.report,
            tokens=None if is_image else stored.source.names,
            embedding=False if is_image else None,
            has_batch_axis=True,
        )


def _draw_sample_map(
    description: dict[str, Any], attribution: Attribution
) -> tuple[dict[str, Any], bytes]:
    """Return the description and the PNG file of a map that is drawn with its sample."""
    if isinstance(attribution, TextAttribution):
        description |= {"tokens": attribution.describe_tokens()[0]}
    if isinstance(attribution, VolumeAttribution):
        slices = attribution.slices()
        count, height, width, _ = slices.pictures.shape
        columns = choose_columns(count, height, width, 0)
        sheet = lay_out_sheet(slices.pictures, columns=columns, padding=0)
        description |= {
            "slices": {"count": count, "columns": columns, "height": height, "width": width}
        }
        return description, sheet.to_png()
    return description, attribution.to_png()


def _find_available_methods(model: Any) -> dict[str, Method]:
    """Return the attribution methods whose packages are installed, by name.

    For a network outside TensorFlow, they are the methods for which it has all capabilities.
    """
    network = get_network(model)
    methods = get_methods() if is_compiled(network) else find_usable_methods(network)
    return {name: method for name, method in methods.items() if has_packages(method)}
