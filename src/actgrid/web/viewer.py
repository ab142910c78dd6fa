"""The contents of the page and the HTTP API: `Viewer`."""

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
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from actgrid.encoding import encode, encode_png, make_blank_levels
from actgrid.errors import NotFoundError
from actgrid.models import LayerInfo
from actgrid.models.drawing import draw_layer
from actgrid.models.types import ModelLike
from actgrid.option_checks import read_normalize, resolve_thread_count
from actgrid.option_groups import check_option, complete_options, takes_options
from actgrid.options import GridOptions, ViewerImageOptions
from actgrid.rendering import palette
from actgrid.statistics import DatasetStats
from actgrid.web.cache import Cache
from actgrid.web.computations import Computations
from actgrid.web.controls import COLORMAPS, page_controls
from actgrid.web.engine import Engine
from actgrid.web.folding import fold
from actgrid.web.heatmaps import Heatmaps
from actgrid.web.images import ImageStore, thumbnail
from actgrid.web.layers import (
    check_size,
    draw_kernel,
    draw_levels,
    draw_summary,
    histograms,
    layer_facts,
    measured_facts,
    top_classes,
)
from actgrid.web.maximized import MaximizedImages
from actgrid.web.viewed import ViewedModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Viewer"]

T = TypeVar("T")
Array = npt.NDArray[Any]

# Thumbnails of layers: their side, and how many are in a row.
_SIDE, _COLUMNS = 96, 16
# Drawn at a time of what nobody waits for in particular, so that a click gets its turn.
_PIECE = 8


class Viewer:
    """What there is to see of a model and images, as JSON and pictures. The rest is the page.

    All that it says is a dict of what JSON has, or the bytes of a file; the methods are named
    after the resources that they are of. It belongs to one event loop; what takes time is done in
    threads. Results are kept, as are activations, and shared: they must not be changed. Whatever
    all who asked for it were cancelled for is not begun, or stopped where that can be.

    Parameters
    ----------
    model
        A Keras model that takes a batch of images and nothing else, or anything that
        `actgrid.load_model` takes.
    images
        What can be looked at.
    **options
        Options of the viewer, see `actgrid.options.ViewerImageOptions`. Without a `size`, images
        for a model whose size is not fixed keep theirs, made smaller where a side is longer than
        512 pixels. Layers are matched with `statistics` by path. A run of the model takes about as
        much memory again as `cache_bytes`.

    Raises
    ------
    ModelError, ShapeError, TargetError, OptionError
        If the model, labels or an option cannot be used. ValueErrors.

    Examples
    --------
    >>> viewer = Viewer("demo", ImageStore("photos"))
    >>> await viewer.start()
    >>> image = viewer.images.listed(0, 1)[0].id
    >>> (await viewer.classes(image))["top"][0]["name"]
    'Egyptian cat'
    """

    @takes_options(ViewerImageOptions)
    def __init__(
        self,
        model: ModelLike,
        images: ImageStore,
        **options: Unpack[ViewerImageOptions],
    ) -> None:
        statistics = options["statistics"]
        if isinstance(statistics, (str, Path)):
            statistics = DatasetStats.load(statistics)
        self.images = images
        self._cache = Cache(options["cache_bytes"], self._is_current)
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
        self._maximized = MaximizedImages(
            self._engine, self._viewed, self._computations, options["preprocess"]
        )
        self._statistics = statistics
        self._about = self._describe()

    # --- the model ---

    async def start(self) -> None:
        """Compile the model and run it once, so that the first image need not wait for that."""
        await self._engine.start()

    async def close(self) -> None:
        """Cancel what is asked for, and end the threads."""
        self._cache.close()
        await self._engine.close()
        self._computations.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def about(self) -> dict[str, Any]:
        """Return what the page knows of the model, its graph and what can be asked: model.json."""
        return self._about

    def _describe(self) -> dict[str, Any]:
        graph, model, viewed = self._engine.graph, self._engine.model, self._viewed
        folding = fold(graph)
        methods = self._heatmaps.methods
        return {
            "name": model.name,
            "version": version("actgrid"),
            "live": True,
            "parameters": model.count_params(),
            "nodes": viewed.describe_nodes(folding.group_of),
            "edges": [list(edge) for edge in graph.edges],
            "inputs": list(graph.inputs),
            "outputs": list(graph.outputs),
            "groups": [asdict(group) for group in folding.groups],
            "classes": None
            if viewed.class_node is None
            else {
                "node": viewed.class_node,
                "count": viewed.class_count,
                "labels": None if viewed.labels is None else list(viewed.labels),
            },
            "controls": page_controls(list(methods)),
            "methods": [
                {
                    "name": method.name,
                    "summary": method.summary,
                    "source": method.source,
                    "layer": method.takes_layer,
                }
                for method in methods.values()
            ],
            "targets": True,
            "dataset": None if self._statistics is None else {"images": self._statistics.images},
            "uploads": {"bytes": self.images.most_bytes, "pixels": self.images.most_pixels}
            if self.images.most_uploads
            else None,
            "maximize": True,
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
            If there is no such image. Also a LookupError.
        OptionError
            If the image was not uploaded. Also a ValueError.
        """
        self.images.remove(image)
        self._cache.forget(image)

    def _is_current(self, key: Any) -> bool:
        """Return whether the image of a cache key is still there; a key without an image is."""
        return not isinstance(key[1], str) or key[1] in self.images

    async def thumbnail(self, image: str) -> bytes:
        """Return a small picture of an image, a JPEG file of at most 128 x 128 pixels."""
        stored = self.images[image]
        make = partial(self._later, thumbnail, stored.source)
        return await self._cache.get(("thumbnail", image), make)

    async def picture(self, image: str) -> bytes:
        """Return an image as the model sees it, before it is preprocessed: an RGB PNG file."""
        stored = self.images[image]

        async def make() -> bytes:
            prepared = await self._engine.prepared(stored)
            return await self._work(_rgb_png, prepared.picture)

        return await self._cache.get(("picture", image), make)

    async def classes(self, image: str) -> dict[str, Any]:
        """Return the five classes that the model holds likeliest.

        Raises
        ------
        NotFoundError
            If there is no such image, or the model has no classes. Also a LookupError.
        """
        self.images[image]
        node, viewed = self._viewed.class_node, self._viewed
        if node is None:
            raise NotFoundError("the model gives no classes")

        def make(info: LayerInfo, activation: Array) -> dict[str, Any]:
            (scores,) = activation[:1]
            if viewed.binary is not None:
                other = 1 - scores if viewed.binary == "probability" else -scores
                scores = np.concatenate([other, scores])
            return top_classes(scores, viewed.labels)

        return await self._of_layer("classes", image, node, make)

    # --- all layers of an image ---

    async def layers(self, image: str) -> dict[str, Any]:
        """Return what each layer made of an image, in short, and how their thumbnails lie."""
        return (await self._overview(image))[0]

    async def layers_sprite(self, image: str) -> bytes:
        """Return the thumbnails of all layers in one grayscale PNG file."""
        return (await self._overview(image))[1]

    async def _overview(self, image: str) -> tuple[dict[str, Any], bytes]:
        stored = self.images[image]

        async def make() -> tuple[dict[str, Any], bytes]:
            count = len(self._viewed.infos)
            rows, columns = -(-count // _COLUMNS), min(count, _COLUMNS)
            sprite = make_blank_levels(rows * _SIDE, columns * _SIDE, 0)
            found: list[dict[str, Any] | None] = [None] * count

            def draw(activations: list[tuple[int, Array]]) -> None:
                for node, activation in activations:
                    row, column = divmod(node, _COLUMNS)
                    cell = sprite[row * _SIDE :, column * _SIDE :][:_SIDE, :_SIDE]
                    found[node] = draw_summary(self._viewed.infos[node], activation, cell)

            async with self._engine.everything(stored) as activations:
                items = list(activations.items())
                pieces = [items[i : i + _PIECE] for i in range(0, len(items), _PIECE)]
                await asyncio.gather(*(self._later(draw, piece) for piece in pieces))
            sides = {"side": _SIDE, "columns": _COLUMNS}
            return sides | {"layers": found}, await self._work(encode_png, sprite)

        return await self._cache.get(("overview", image), make)

    # --- a layer of an image ---

    async def layer(self, image: str, layer: int) -> dict[str, Any]:
        """Return the statistics of each channel of a layer, and how its tiles are laid out."""
        return await self._of_layer("layer", image, layer, layer_facts)

    async def levels(self, image: str, layer: int, normalize: str, scope: str) -> bytes:
        """Return the levels of all tiles of a layer, without padding, in a grayscale PNG file.

        Parameters
        ----------
        normalize, scope
            As for `actgrid.render`, whose levels these are.
        """
        name, limits = read_normalize(normalize)
        check_option(GridOptions, "scope", scope)

        def make(info: LayerInfo, activation: Array) -> bytes:
            return draw_levels(info, activation, (name, *limits), scope)

        return await self._of_layer(("levels", name, limits, scope), image, layer, make)

    async def histograms(self, image: str, layer: int) -> dict[str, Any]:
        """Return how the values of each channel are spread; of a dense layer, those of all."""
        return await self._of_layer("histograms", image, layer, histograms)

    async def rendered(self, image: str, layer: int, options: Mapping[str, Any]) -> bytes:
        """Return a layer drawn by `actgrid.render`, a PNG file.

        Parameters
        ----------
        options
            Some of `GridOptions`.

        Raises
        ------
        OptionError
            If an option cannot be used, or the picture would have more than 67 million pixels.
            Also a ValueError.
        """
        complete = complete_options(GridOptions, options)

        def make(info: LayerInfo, activation: Array) -> bytes:
            check_size(info, activation, complete)
            return draw_layer(info, activation, **complete).to_png()

        # Lists of channels may be long.
        key = "rendered", sha256(repr(sorted(complete.items())).encode()).digest()
        return await self._of_layer(key, image, layer, make)

    async def _of_layer(
        self, kind: Hashable, image: str, layer: int, make: Callable[[LayerInfo, Array], T]
    ) -> T:
        """Return what is made of a layer's activation."""
        stored, node = self.images[image], self._viewed.drawable_layer(layer)

        async def made() -> T:
            activation = await self._engine.activation(stored, node)
            return await self._work(make, self._viewed.infos[node], activation)

        return await self._cache.get((kind, image, node), made)

    # --- what made the score ---

    async def heatmap(
        self,
        image: str,
        method: str,
        target: int | str | None,
        layer: int | str | None = None,
    ) -> dict[str, Any]:
        """Return the class, the score and the layer that a heatmap explains.

        Parameters
        ----------
        method
            One of those of `actgrid.explain` that `about` lists.
        target
            Number or name of a class; None: the predicted class.
        layer
            Number or path of a layer, for methods that explain by a layer; None: as
            `actgrid.explain` chooses.
        """
        return (await self._heatmaps.get(self._heatmaps.key(image, method, target, layer)))[0]

    async def heatmap_levels(
        self,
        image: str,
        method: str,
        target: int | str | None,
        layer: int | str | None = None,
    ) -> bytes:
        """Return a heatmap's levels in the size of the picture, a grayscale PNG file."""
        return (await self._heatmaps.get(self._heatmaps.key(image, method, target, layer)))[1]

    def heatmap_progress(
        self,
        image: str,
        method: str,
        target: int | str | None,
        layer: int | str | None = None,
    ) -> dict[str, Any]:
        """Return how far the computation of a heatmap is; see `heatmap` for the parameters."""
        return self._heatmaps.progress(self._heatmaps.key(image, method, target, layer))

    # --- a layer of the network ---

    async def kernel(self, layer: int) -> dict[str, Any]:
        """Return what the kernel of a layer is, and how its tiles are laid out.

        Raises
        ------
        NotFoundError
            If there is no such layer, or it has no kernel. Also a LookupError.
        """
        return (await self._weight(layer))[0]

    async def kernel_levels(self, layer: int) -> bytes:
        """Return the levels of a layer's kernel, zero in the middle, in a grayscale PNG file."""
        return (await self._weight(layer))[1]

    async def _weight(self, layer: int) -> tuple[dict[str, Any], bytes]:
        weight = self._viewed.kernels.get(self._viewed.known_layer(layer))
        if weight is None:
            raise NotFoundError(f"{self._viewed.infos[layer].path} has no kernel")
        return await self._cache.get(("kernel", layer), partial(self._work, draw_kernel, weight))

    async def dataset(self, layer: int) -> dict[str, Any]:
        """Return the statistics of a layer's channels over many images, and those they like best.

        Raises
        ------
        NotFoundError
            If there is no such layer, or nothing was measured of it. Also a LookupError.
        """
        stats = self._viewed.measured.get(self._viewed.known_layer(layer))
        if stats is None:
            raise NotFoundError(f"no statistics are known of {self._viewed.infos[layer].path}")
        make = partial(self._work, measured_facts, stats, self.images)
        return await self._cache.get(("dataset", layer), make)

    async def maximized(self, layer: int, channel: int, steps: int, seed: int) -> bytes:
        """Return an image that maximizes a channel of a layer, an RGB PNG file.

        Parameters
        ----------
        steps, seed
            As for `actgrid.maximize`.

        Raises
        ------
        NotFoundError
            If there is no such layer or channel. Also a LookupError.
        ActgridError
            Whatever `actgrid.maximize` raises.
        """
        return await self._maximized.get(self._maximized.key(layer, channel, steps, seed))

    def maximized_progress(self, layer: int, channel: int, steps: int, seed: int) -> dict[str, Any]:
        """Return how far the computation of `maximized` is; it has the same parameters."""
        return self._maximized.progress(self._maximized.key(layer, channel, steps, seed))

    # --- threads ---

    async def _work(self, function: Callable[..., T], *arguments: Any) -> T:
        """Do what someone waits for."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    async def _later(self, function: Callable[..., T], *arguments: Any) -> T:
        """Do one of many things, which are not to keep what someone waits for from its turn."""
        async with self._background:
            return await self._work(function, *arguments)


def _rgb_png(picture: npt.NDArray[np.uint8]) -> bytes:
    return b"".join(encode("picture.png", picture))
