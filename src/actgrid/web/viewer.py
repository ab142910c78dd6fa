"""The contents of the page and the HTTP API: JSON values and pictures."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.attribution.channel_relevance import check_order_options
from actgrid.attribution.default_methods import COMPARED_METHODS
from actgrid.encoding import encode, encode_png, make_blank_levels
from actgrid.errors import ModelError, NotFoundError
from actgrid.models import LayerInfo, load_model
from actgrid.models.drawing import draw_layer
from actgrid.models.network import is_compiled, is_differentiable
from actgrid.models.networks import count_parameters, get_network
from actgrid.models.preprocessing import find_pair_preprocessing
from actgrid.models.types import ModelLike
from actgrid.option_checks import read_normalize, resolve_thread_count
from actgrid.option_groups import check_option, complete_options, pick_options, takes_options
from actgrid.options import GridOptions, LayerGridOptions, ViewerImageOptions
from actgrid.rendering import palette
from actgrid.rendering.draw import sort_channels
from actgrid.rendering.normalize import parse_normalize
from actgrid.statistics import DatasetStats
from actgrid.web.ablation import Ablation
from actgrid.web.attention import AttentionResources
from actgrid.web.cache import Cache
from actgrid.web.computations import Computations
from actgrid.web.controls import COLORMAPS, describe_controls
from actgrid.web.engine import Engine
from actgrid.web.heatmaps import Heatmaps
from actgrid.web.images import ImageStore, make_thumbnail
from actgrid.web.layers import (
    check_size,
    compute_histograms,
    describe_dataset,
    describe_layer,
    describe_range,
    draw_kernel,
    draw_levels,
    rank_classes,
    round_for_json,
    summarize_layer,
)
from actgrid.web.maximized import MaximizedImages
from actgrid.web.model_comparison import ModelComparison, describe_difference, draw_difference
from actgrid.web.relevance import ChannelRelevance
from actgrid.web.viewed import ViewedModel

__all__ = ["Viewer"]

T = TypeVar("T")
Array = npt.NDArray[Any]

# Height and width of the thumbnails of layers in pixels, and number of thumbnails in a row.
_SIDE, _COLUMNS = 96, 16
# Number of thumbnails that a background task draws at a time; other requests run in between.
_BATCH_SIZE = 8


class Viewer:
    """The contents of the page: computes the resources of the HTTP API for a model.

    Each resource is a dict for JSON or the bytes of a file. Images and layers are identified by the
    id of the image and the index of the node. All methods must be called in one event loop; long
    operations run in threads. Results are cached and shared, so callers must not modify them. A
    computation is cancelled when all of its callers are cancelled.

    Parameters
    ----------
    model
        A Keras model with one input, or a model specification, see `actgrid.load_model`.
    images
        Images that can be viewed.
    compare_with
        A second model, which is compared with the first. All options except `statistics` also apply
        to this model. `labels` apply to this model if it has as many classes.
    **options
        See `actgrid.options.ViewerImageOptions`. If the input size of the model is not fixed and
        `size` is None, images keep their size, except that larger images are reduced to at most
        512 pixels a side. `statistics` are matched with the layers by path. A run of the model
        takes about `cache_bytes` of memory in addition to the cache.

    Raises
    ------
    ModelError, ShapeError, TargetError, OptionError
        If the model, the labels or an option is invalid. All are ValueErrors.

    Examples
    --------
    >>> viewer = Viewer("demo", ImageStore(actgrid.demo.photo()))
    >>> (image,) = viewer.images.list_images(offset=0, limit=1)
    >>> asyncio.run(viewer.get_classes(image.id))["top"][0]["name"]
    'Egyptian cat'
    """

    @takes_options(ViewerImageOptions)
    def __init__(
        self,
        model: ModelLike,
        images: ImageStore,
        compare_with: ModelLike | None = None,
        **options: Unpack[ViewerImageOptions],
    ) -> None:
        if compare_with is not None:  # the models share the memory
            options["cache_bytes"] //= 2
        statistics = options["statistics"]
        if isinstance(statistics, (str, Path)):
            statistics = DatasetStats.load(statistics)
        self.images = images
        self._cache = Cache(options["cache_bytes"], self._can_store)
        workers = resolve_thread_count(None)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="actgrid-viewer")
        self._computations = Computations(self._cache)
        self._background = asyncio.Semaphore(workers)
        self._engine = Engine(
            model,
            self._cache,
            size=options["size"],
            preprocess=options["preprocess"],
            fit=options["fit"],
            batch_size=options["batch_size"],
            threads=self._threads,
            kind=images.kind,
        )
        self._viewed = ViewedModel(self._engine, options["labels"], statistics)
        self._heatmaps = Heatmaps(
            self._engine,
            self._viewed,
            images,
            self._cache,
            self._computations,
            options["batch_size"],
        )
        self._ablation = Ablation(self._engine, self._viewed)
        self._relevance = ChannelRelevance(self._engine, self._viewed, images, self._computations)
        self._attention = AttentionResources(
            self._engine, self._viewed, images, self._cache, self._threads
        )
        self._maximized = MaximizedImages(
            self._engine, self._viewed, self._computations, options["preprocess"]
        )
        self._statistics = statistics
        self.other = None if compare_with is None else self._make_other(compare_with, options)
        self._comparison = (
            None
            if self.other is None
            else ModelComparison(self._engine, self._viewed, self.other._engine, self.other._viewed)
        )
        self._model_info = self._describe_model()

    def _make_other(self, model: ModelLike, options: Any) -> Viewer:
        """Return the viewer of the second model, with the same images."""
        model, node = load_model(model), self._viewed.class_node
        # A subclassed model may have no shape.
        shape: Any = getattr(model, "output_shape", None) or (None,)
        has_same_classes = node is not None and shape[-1] == self._viewed.infos[node].channels
        labels = options["labels"] if has_same_classes else None
        preprocess = options["preprocess"]
        if self._engine.input.kind == "image":
            _, choice = find_pair_preprocessing(preprocess, (self._engine.model, model))
            preprocess = choice.function
        changed = {"statistics": None, "labels": labels, "preprocess": preprocess}
        other = Viewer(model, self.images, **options | changed)
        kinds = self._engine.input.kind, other._engine.input.kind
        if kinds[0] != kinds[1]:
            raise ModelError(
                f"the models take different samples: got {kinds[0]} and {kinds[1]}; expected a "
                "model for compare_with that takes the same samples as the first model"
            )
        return other

    # --- the model ---

    async def start(self) -> None:
        """Compile the model and run it once, so that the first image is not delayed."""
        await self._engine.start()
        if self.other is not None:
            await self.other.start()

    async def close(self) -> None:
        """Cancel all computations, and end the threads."""
        if self.other is not None:
            await self.other.close()
        self._cache.close()
        await self._engine.close()
        self._computations.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def get_model_info(self) -> dict[str, Any]:
        """Return the model's graph, classes, attribution methods and options for JSON."""
        return self._model_info

    def _describe_model(self) -> dict[str, Any]:
        graph, model, viewed = self._engine.graph, self._engine.model, self._viewed
        methods, network = self._heatmaps.methods, get_network(model)
        has_relevance = bool(methods) and is_differentiable(network)
        return {
            "name": model.name,
            "version": version("actgrid"),
            "is_live": True,
            "parameters": count_parameters(model),
            "input_kind": self._engine.input.kind,
            "nodes": viewed.describe_nodes(),
            "edges": [list(edge) for edge in graph.edges],
            "inputs": list(graph.inputs),
            "outputs": list(graph.outputs),
            "groups": [asdict(group) for group in viewed.folding.groups],
            "classes": None
            if viewed.class_node is None
            else {
                "node": viewed.class_node,
                "count": viewed.class_count,
                "labels": None if viewed.labels is None else list(viewed.labels),
            },
            "controls": describe_controls(list(methods), has_relevance),
            "methods": [
                {
                    "name": method.name,
                    "summary": method.summary,
                    "source": method.source,
                    "layer": method.takes_layer,
                    "is_compared": method.name in COMPARED_METHODS,
                }
                for method in methods.values()
            ],
            "targets": True,
            "dataset": None if self._statistics is None else {"images": self._statistics.images},
            "uploads": {
                "bytes": self.images.max_bytes,
                "pixels": self.images.max_pixels,
                "suffixes": list(self.images.suffixes),
            }
            if self.images.max_uploads
            else None,
            "other": None if self._comparison is None else self._comparison.describe(),
            "maximize": self._engine.input.kind == "image" and is_compiled(network),
            "switches": is_compiled(network),
            "colormaps": {
                name: base64.b64encode(palette(name).tobytes()).decode() for name in COLORMAPS
            },
        }

    # --- images ---

    def remove(self, image: str) -> None:
        """Remove an uploaded image and everything that was computed for it.

        Raises
        ------
        NotFoundError
            If the image does not exist. Also a LookupError.
        OptionError
            If the image was not uploaded. Also a ValueError.
        """
        self.images.remove(image)
        self._cache.remove(image)
        if self.other is not None:
            self.other._cache.remove(image)

    def _can_store(self, key: Any) -> bool:
        """Return whether a result may be cached: not if its image has been removed.

        Results that depend on no image can always be cached.
        """
        return not isinstance(key[1], str) or key[1] in self.images

    async def get_thumbnail(self, image: str) -> bytes:
        """Return the thumbnail of an image, a JPEG file of at most 128 x 128 pixels."""
        stored = self.images[image]
        compute = partial(self._run_in_background, make_thumbnail, stored.source)
        return await self._cache.get(("thumbnail", image), compute)

    async def get_picture(self, image: str) -> bytes:
        """Return an image, resized for the model but not preprocessed, as an RGB PNG file."""
        stored = self.images[image]

        async def compute() -> bytes:
            prepared = await self._engine.get_prepared(stored)
            return await self._run_in_thread(_encode_rgb_png, prepared.picture)

        return await self._cache.get(("picture", image), compute)

    async def get_classes(self, image: str) -> dict[str, Any]:
        """Return the five classes with the highest scores for an image, for JSON.

        Raises
        ------
        NotFoundError
            If the image does not exist, or the model has no classes. Also a LookupError.
        """
        self.images[image]
        node, viewed = self._get_class_node(), self._viewed

        def compute(info: LayerInfo, activation: Array) -> dict[str, Any]:
            return rank_classes(viewed.complete_scores(activation[0]), viewed.labels)

        return await self._compute_from_layer("classes", image, node, compute)

    def _get_class_node(self) -> int:
        if self._viewed.class_node is None:
            raise NotFoundError("the model has no classes")
        return self._viewed.class_node

    async def get_ablation(self, image: str, channels: str) -> dict[str, Any]:
        """Return the classes with the highest scores without some channels, for JSON.

        The values of these channels are zero. The result contains the scores before and after.

        Parameters
        ----------
        channels
            Channels of layers, such as ``"4:0,3;9:1"`` for channels 0 and 3 of layer 4 and channel
            1 of layer 9.

        Raises
        ------
        NotFoundError
            If the image, a layer or a channel does not exist, or the model has no classes. Also a
            LookupError.
        OptionError
            If `channels` has another form. Also a ValueError.
        LayerError
            If channels of a layer cannot be switched off. Also a KeyError.
        """
        stored, node = self.images[image], self._get_class_node()
        ablated = self._ablation.parse_channels(channels)

        async def compute() -> dict[str, Any]:
            before = (await self._engine.get_activation(stored, node))[0]
            x = (await self._engine.get_prepared(stored)).x
            after = await self._run_in_thread(self._ablation.compute_scores, x, ablated)
            return self._ablation.describe(before, after)

        return await self._cache.get(("ablation", image, tuple(ablated.items())), compute)

    # --- all layers of an image ---

    async def get_layers(self, image: str) -> dict[str, Any]:
        """Return summaries and thumbnail positions of all layers for an image, for JSON."""
        return (await self._compute_overview(image))[0]

    async def get_layers_sprite(self, image: str) -> bytes:
        """Return the thumbnails of all layers for an image as one grayscale PNG file."""
        return (await self._compute_overview(image))[1]

    async def _compute_overview(self, image: str) -> tuple[dict[str, Any], bytes]:
        stored = self.images[image]

        async def compute() -> tuple[dict[str, Any], bytes]:
            count = len(self._viewed.infos)
            rows, columns = -(-count // _COLUMNS), min(count, _COLUMNS)
            sprite = make_blank_levels(rows * _SIDE, columns * _SIDE, 0)
            summaries: list[dict[str, Any] | None] = [None] * count

            def draw(activations: list[tuple[int, Array]]) -> None:
                for node, activation in activations:
                    row, column = divmod(node, _COLUMNS)
                    cell = sprite[row * _SIDE :, column * _SIDE :][:_SIDE, :_SIDE]
                    summaries[node] = summarize_layer(self._viewed.infos[node], activation, cell)

            async with self._engine.hold_activations(stored) as activations:
                items = list(activations.items())
                batches = [items[i : i + _BATCH_SIZE] for i in range(0, len(items), _BATCH_SIZE)]
                await asyncio.gather(*(self._run_in_background(draw, batch) for batch in batches))
            layout = {"side": _SIDE, "columns": _COLUMNS}
            return layout | {"layers": summaries}, await self._run_in_thread(encode_png, sprite)

        return await self._cache.get(("overview", image), compute)

    # --- a layer of an image ---

    async def get_layer(self, image: str, layer: int) -> dict[str, Any]:
        """Return the channel statistics and tile layout of a layer for an image, for JSON."""
        return await self._compute_from_layer("layer", image, layer, describe_layer)

    async def get_levels(self, image: str, layer: int, normalize: str, scope: str) -> bytes:
        """Return all channels of a layer for an image as a grayscale PNG, without padding.

        Parameters
        ----------
        normalize, scope
            See `actgrid.render`.
        """
        name, limits = read_normalize(normalize)
        check_option(GridOptions, "scope", scope)

        def compute(info: LayerInfo, activation: Array) -> bytes:
            return draw_levels(info, activation, (name, *limits), scope)

        return await self._compute_from_layer(
            ("levels", name, limits, scope), image, layer, compute
        )

    async def get_range(self, image: str, layer: int, normalize: str, scope: str) -> dict[str, Any]:
        """Return the values of the lowest and highest colour of a layer's tiles, for JSON.

        For the parameters see `get_levels`.
        """
        normalization = parse_normalize(normalize)
        check_option(GridOptions, "scope", scope)

        def compute(info: LayerInfo, activation: Array) -> dict[str, Any]:
            return describe_range(info, activation, normalization, scope)

        return await self._compute_from_layer(
            ("range", normalization, scope), image, layer, compute
        )

    async def get_histograms(self, image: str, layer: int) -> dict[str, Any]:
        """Return a histogram of each channel of a layer for an image, for JSON."""
        return await self._compute_from_layer("histograms", image, layer, compute_histograms)

    async def get_relevance(
        self, image: str, layer: int, target: int | str | None
    ) -> dict[str, Any]:
        """Return the relevance of the channels of a layer for a class, for JSON.

        Parameters
        ----------
        target
            Index or name of a class; None: the predicted class.

        Raises
        ------
        NotFoundError
            If the image or layer does not exist, or the model has no classes. Also a LookupError.
        TargetError
            If there is no such class. Also a ValueError.
        """
        relevance = await self._relevance.get(image, layer, target)
        return {"path": self._viewed.infos[layer].path, "relevance": round_for_json(relevance)}

    async def render_layer(self, image: str, layer: int, options: Mapping[str, Any]) -> bytes:
        """Return the channels of a layer for an image, drawn as a grid, as a PNG file.

        Parameters
        ----------
        options
            Options of `actgrid.render_model`, see `actgrid.options.LayerGridOptions`.

        Raises
        ------
        OptionError
            If an option is invalid, or the picture would have more than 67,108,864 pixels. Also a
            ValueError.
        """
        checked = complete_options(LayerGridOptions, options)
        complete = pick_options(checked, GridOptions)
        if check_order_options(checked):
            relevance = await self._relevance.get(image, layer, checked["target"])
            complete["order"] = sort_channels(relevance).tolist()

        def compute(info: LayerInfo, activation: Array) -> bytes:
            check_size(info, activation, complete)
            return draw_layer(info, activation, **complete).to_png()

        # A hash, because lists of channels can be long.
        key = "rendered", sha256(repr(sorted(complete.items())).encode()).digest()
        return await self._compute_from_layer(key, image, layer, compute)

    async def _compute_from_layer(
        self, kind: Hashable, image: str, layer: int, compute: Callable[[LayerInfo, Array], T]
    ) -> T:
        """Return the cached result of a function of a layer's activation, run in a thread."""
        stored, node = self.images[image], self._viewed.check_drawable(layer)

        async def compute_in_thread() -> T:
            activation = await self._engine.get_activation(stored, node)
            return await self._run_in_thread(compute, self._viewed.infos[node], activation)

        return await self._cache.get((kind, image, node), compute_in_thread)

    # --- two models ---

    async def get_difference(self, image: str, layer: int) -> dict[str, Any]:
        """Return the differences between the two models in a layer for an image, for JSON.

        Raises
        ------
        NotFoundError
            If there is no second model, or it has no layer with this path. Also a LookupError.
        ShapeError
            If the activations have different shapes. Also a ValueError.
        """
        return await self._compute_from_difference(image, layer, describe_difference)

    async def get_difference_levels(self, image: str, layer: int) -> bytes:
        """Return the differences between the two models in a layer as a grayscale PNG.

        Level 128 is zero. See `get_difference` for the errors.
        """
        return await self._compute_from_difference(image, layer, draw_difference)

    async def _compute_from_difference(
        self, image: str, layer: int, compute: Callable[[LayerInfo, Array], T]
    ) -> T:
        stored, node = self.images[image], self._viewed.check_drawable(layer)
        comparison = self._comparison
        if comparison is None:
            raise NotFoundError(
                "there is no second model: start the viewer with the option compare_with"
            )

        async def compute_in_thread() -> T:
            difference = await comparison.compute_difference(stored, node)
            return await self._run_in_thread(compute, self._viewed.infos[node], difference)

        return await self._cache.get((compute.__name__, image, node), compute_in_thread)

    # --- attention ---

    async def get_attention(self, image: str, layer: int) -> dict[str, Any]:
        """Return the heads, queries and keys of a layer's attention for an image, for JSON.

        Raises
        ------
        NotFoundError
            If the layer does not exist or has no attention. Also a LookupError.
        ShapeError
            If there are more than 16,777,216 weights, or the attention is split into windows. Also
            a ValueError.
        """
        return (await self._attention.get(image, layer))[0]

    async def get_attention_levels(self, image: str, layer: int) -> bytes:
        """Return the attention weights of a layer for an image, a byte for each weight.

        The bytes are in the order (heads, queries, keys). A byte of 255 is the largest weight of
        its head and query; see ``"maxima"`` of `get_attention`, which also lists the errors.
        """
        return (await self._attention.get(image, layer))[1]

    # --- heatmaps ---

    async def get_heatmap(
        self,
        image: str,
        method: str,
        target: int | str | None,
        layer: int | str | None = None,
    ) -> dict[str, Any]:
        """Return the class, score and layer of a heatmap of an image, for JSON.

        Parameters
        ----------
        method
            Name of an attribution method, see `actgrid.explain`.
        target
            Index or name of a class; None: the predicted class.
        layer
            Index or path of a layer, for methods that use a layer; None: the default layer of the
            method.
        """
        return (await self._heatmaps.get(self._heatmaps.make_key(image, method, target, layer)))[0]

    async def get_heatmap_levels(
        self,
        image: str,
        method: str,
        target: int | str | None,
        layer: int | str | None = None,
    ) -> bytes:
        """Return a heatmap of an image as a grayscale PNG file, as large as the picture."""
        return (await self._heatmaps.get(self._heatmaps.make_key(image, method, target, layer)))[1]

    def get_heatmap_progress(
        self,
        image: str,
        method: str,
        target: int | str | None,
        layer: int | str | None = None,
    ) -> dict[str, Any]:
        """Return the progress of a heatmap for JSON; see `get_heatmap` for the parameters."""
        return self._heatmaps.get_progress(self._heatmaps.make_key(image, method, target, layer))

    async def get_scores(
        self,
        image: str,
        method: str,
        target: int | str | None,
        layer: int | str | None = None,
    ) -> dict[str, Any]:
        """Return metrics of a heatmap for JSON; see `get_heatmap` for the parameters."""
        return await self._heatmaps.get_scores(
            self._heatmaps.make_key(image, method, target, layer)
        )

    def get_scores_progress(
        self,
        image: str,
        method: str,
        target: int | str | None,
        layer: int | str | None = None,
    ) -> dict[str, Any]:
        """Return the progress of the metrics of a heatmap for JSON; see `get_heatmap`."""
        key = self._heatmaps.make_key(image, method, target, layer)
        return self._heatmaps.get_progress(self._heatmaps.make_scores_key(key))

    # --- kernels, dataset statistics and maximized images ---

    async def get_kernel(self, layer: int) -> dict[str, Any]:
        """Return the shape, value range and tile layout of a layer's kernel, for JSON.

        Raises
        ------
        NotFoundError
            If the layer does not exist or has no kernel. Also a LookupError.
        """
        return (await self._compute_kernel(layer))[0]

    async def get_kernel_levels(self, layer: int) -> bytes:
        """Return the tiles of a layer's kernel as a grayscale PNG file; level 128 is zero."""
        return (await self._compute_kernel(layer))[1]

    async def _compute_kernel(self, layer: int) -> tuple[dict[str, Any], bytes]:
        weight = self._viewed.kernels.get(self._viewed.check_layer(layer))
        if weight is None:
            raise NotFoundError(f"{self._viewed.infos[layer].path} has no kernel")
        return await self._cache.get(
            ("kernel", layer), partial(self._run_in_thread, draw_kernel, weight)
        )

    async def get_dataset_stats(self, layer: int) -> dict[str, Any]:
        """Return the dataset statistics and top images of a layer's channels, for JSON.

        Raises
        ------
        NotFoundError
            If the layer does not exist or has no statistics. Also a LookupError.
        """
        stats = self._viewed.dataset_stats.get(self._viewed.check_layer(layer))
        if stats is None:
            raise NotFoundError(f"{self._viewed.infos[layer].path} has no dataset statistics")
        compute = partial(self._run_in_thread, describe_dataset, stats, self.images)
        return await self._cache.get(("dataset", layer), compute)

    async def get_maximized_image(self, layer: int, channel: int, steps: int, seed: int) -> bytes:
        """Synthesize an image that maximizes a channel of a layer, as an RGB PNG file.

        Parameters
        ----------
        steps, seed
            See `actgrid.maximize`.

        Raises
        ------
        NotFoundError
            If the layer or channel does not exist. Also a LookupError.
        ActgridError
            Errors of `actgrid.maximize`.
        """
        return await self._maximized.get(self._maximized.make_key(layer, channel, steps, seed))

    def get_maximized_progress(
        self, layer: int, channel: int, steps: int, seed: int
    ) -> dict[str, Any]:
        """Return the progress of computing a maximized image, for JSON.

        For the parameters see `get_maximized_image`.
        """
        return self._maximized.get_progress(self._maximized.make_key(layer, channel, steps, seed))

    # --- threads ---

    async def _run_in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in a thread, and return its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    async def _run_in_background(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in a thread, without delaying calls of `_run_in_thread`."""
        async with self._background:
            return await self._run_in_thread(function, *arguments)


def _encode_rgb_png(picture: npt.NDArray[np.uint8]) -> bytes:
    return b"".join(encode("picture.png", picture))
