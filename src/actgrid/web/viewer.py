"""What the page and the HTTP API show, worked out: `Viewer`."""

from __future__ import annotations

import asyncio
import base64
import inspect
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from actgrid.attribution import maximize
from actgrid.attribution.lime import check_packages
from actgrid.attribution.method import Method
from actgrid.attribution.methods import all_methods, check_options, find_method
from actgrid.attribution.requests import prepare_request
from actgrid.attribution.scores import binary_output
from actgrid.encoding import blank_levels, encode, encode_png
from actgrid.errors import LayerError, MissingDependencyError, NotFoundError, OptionError, suggest
from actgrid.models import LayerInfo
from actgrid.models.drawing import draw_layer
from actgrid.models.labels import class_index, labels_of
from actgrid.models.types import ModelLike
from actgrid.option_types import integer_option, thread_count
from actgrid.rendering import ORDERS, palette, render
from actgrid.rendering import check_options as check_render_options
from actgrid.rendering.normalize import SCOPES, parse_normalize
from actgrid.statistics import DatasetStats, LayerStats
from actgrid.web.cache import Cache
from actgrid.web.engine import Engine
from actgrid.web.folding import fold
from actgrid.web.images import ImageStore, thumbnail
from actgrid.web.layers import (
    check_size,
    draw_kernel,
    draw_levels,
    draw_summary,
    histograms,
    kernels,
    layer_facts,
    measured_facts,
    plain_numbers,
    top_classes,
)
from actgrid.web.scheduling import LongTask, Scheduler

__all__ = ["Viewer"]

T = TypeVar("T")
Array = npt.NDArray[Any]

# Thumbnails of layers: their side, and how many are in a row.
_SIDE, _COLUMNS = 96, 16
_MOST_STEPS = 1024
_COLORMAPS = (
    *("viridis", "gray", "magma", "inferno", "plasma", "cividis", "turbo"),
    *("RdBu_r", "coolwarm", "bone", "jet"),
)
_NORMALIZATIONS = ("standard", "minmax", "symmetric", "percentile:1,99")
# Where images are of no fixed size, those that a channel is excited by are of this one.
_MAXIMIZED_SIDE = 224
# Drawn at a time of what nobody waits for in particular, so that a click gets its turn.
_PIECE = 8

_RENDER_DEFAULTS = {
    one.name: one.default
    for one in inspect.signature(render).parameters.values()
    if one.kind is one.KEYWORD_ONLY
}
_CHECKED = tuple(inspect.signature(check_render_options).parameters)


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
    labels
        Names of the classes; ``"imagenet"``; None: ImageNet's if the model is a network of
        `keras.applications` with its head, or the demo.
    dataset
        Statistics of many images, as `actgrid stats` gathers them; layers are matched by path.
    size, preprocess, fit
        As for `actgrid.load_images`. Without a `size`, images for a model whose size is not fixed
        keep theirs, made smaller where a side is longer than 512 pixels.
    cache_bytes
        How much is kept of what was worked out. A run of the model and what is made of it at once
        take about as much again.
    batch_size
        How many images the model runs on at once, at most.

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

    def __init__(
        self,
        model: ModelLike,
        images: ImageStore,
        *,
        labels: Sequence[str] | str | None = None,
        dataset: DatasetStats | None = None,
        size: Any = None,
        preprocess: str | Callable[[Any], Any] = "auto",
        fit: str = "crop",
        cache_bytes: int = 512 << 20,
        batch_size: int = 8,
    ) -> None:
        self.images = images
        self._cache = Cache(integer_option("cache_bytes", cache_bytes, 1))
        workers = thread_count(None)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="actgrid-viewer")
        self._scheduler = Scheduler()
        self._background = asyncio.Semaphore(workers)
        self._engine = Engine(
            model,
            self._cache,
            size=size,
            preprocess=preprocess,
            fit=fit,
            batch_size=batch_size,
            threads=self._threads,
        )
        self._preprocess = preprocess
        self._batch_size = batch_size
        self._infos = self._engine.graph.infos
        self._drawn = set(self._engine.drawn)
        self._kernels = kernels(self._engine.model, self._infos)
        self._classes = self._class_node()
        self._labels: tuple[str, ...] | None = None
        # Of a model that gives one value for two classes: what this value is.
        self._binary: str | None = None
        self._class_count = 0
        if self._classes is not None:
            self._class_count = self._infos[self._classes].channels or 0
            if self._class_count == 1:
                self._binary = binary_output(self._engine.model, self._engine.spec, labels)
                self._class_count = 1 if self._binary is None else 2
            self._labels = labels_of(self._engine.model, self._class_count, labels)
        self._methods = _methods() if self._classes is not None else {}
        self._dataset = dataset
        self._measured = {} if dataset is None else self._matching(dataset)
        self._about = self._described()

    # --- the model ---

    async def start(self) -> None:
        """Compile the model and run it once, so that the first image need not wait for that."""
        await self._engine.start()

    async def close(self) -> None:
        """Cancel what is asked for, and end the threads."""
        self._cache.close()
        await self._engine.close()
        self._scheduler.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def about(self) -> dict[str, Any]:
        """Return what the page knows of the model, its graph and what can be asked: model.json."""
        return self._about

    def _described(self) -> dict[str, Any]:
        graph, model = self._engine.graph, self._engine.model
        folding = fold(graph)
        classes = self._classes
        return {
            "name": model.name,
            "version": version("actgrid"),
            "live": True,
            "parameters": model.count_params(),
            "nodes": [
                self._node(node, info, folding.group_of[node])
                for node, info in enumerate(self._infos)
            ],
            "edges": [list(edge) for edge in graph.edges],
            "inputs": list(graph.inputs),
            "outputs": list(graph.outputs),
            "groups": [asdict(group) for group in folding.groups],
            "classes": None
            if classes is None
            else {
                "node": classes,
                "count": self._class_count,
                "labels": None if self._labels is None else list(self._labels),
            },
            "normalizations": list(_NORMALIZATIONS),
            "scopes": list(SCOPES),
            "orders": list(ORDERS),
            "methods": [
                {
                    "name": method.name,
                    "summary": method.summary,
                    "source": method.source,
                    "layer": method.takes_layer,
                }
                for method in self._methods.values()
            ],
            "targets": True,
            "dataset": None if self._dataset is None else {"images": self._dataset.images},
            "uploads": {"bytes": self.images.most_bytes, "pixels": self.images.most_pixels}
            if self.images.most_uploads
            else None,
            "maximize": True,
            "colormaps": {
                name: base64.b64encode(palette(name).tobytes()).decode() for name in _COLORMAPS
            },
        }

    def _node(self, node: int, info: LayerInfo, group: int | None) -> dict[str, Any]:
        return {
            "path": info.path,
            "name": info.path.rsplit("/", 1)[-1],
            "type": info.type,
            "shape": list(info.shape),
            "dtype": info.dtype,
            "kind": info.kind if 2 <= len(info.shape) <= 5 else None,
            "channels": info.channels,
            "parameters": info.parameters,
            "drawn": node in self._drawn,
            "kernel": node in self._kernels,
            "measured": node in self._measured,
            "group": group,
        }

    def _class_node(self) -> int | None:
        """Return the node that says how likely each class is, if there is just one."""
        outputs = self._engine.graph.outputs
        if len(outputs) != 1 or outputs[0] not in self._drawn:
            return None
        (node,) = outputs
        info = self._infos[node]
        given = getattr(self._engine.model, "outputs", None)
        if given and tuple(given[0].shape) != info.shape:
            return None  # the model makes something else of it
        return node if info.kind == "dense" and info.channels else None

    def _matching(self, dataset: DatasetStats) -> dict[int, LayerStats]:
        """Return the statistics of each node that has some."""
        layers = dataset.layers
        return {
            node: layers[info.path]
            for node, info in enumerate(self._infos)
            if info.path in layers and layers[info.path].count.size == info.channels
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
        self._engine.forget(image)
        self._cache.forget(image)

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
        if self._classes is None:
            raise NotFoundError("the model gives no classes")

        def make(info: LayerInfo, activation: Array) -> dict[str, Any]:
            (scores,) = activation[:1]
            if self._binary is not None:
                other = 1 - scores if self._binary == "probability" else -scores
                scores = np.concatenate([other, scores])
            return top_classes(scores, self._labels)

        return await self._of_layer("classes", image, self._classes, make)

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
            count = len(self._infos)
            rows, columns = -(-count // _COLUMNS), min(count, _COLUMNS)
            sprite = blank_levels(rows * _SIDE, columns * _SIDE, 0)
            found: list[dict[str, Any] | None] = [None] * count

            def draw(activations: list[tuple[int, Array]]) -> None:
                for node, activation in activations:
                    row, column = divmod(node, _COLUMNS)
                    cell = sprite[row * _SIDE :, column * _SIDE :][:_SIDE, :_SIDE]
                    found[node] = draw_summary(self._infos[node], activation, cell)

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
        normalization = parse_normalize(normalize)
        if scope not in SCOPES:
            raise OptionError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")

        def make(info: LayerInfo, activation: Array) -> bytes:
            return draw_levels(info, activation, normalization, scope)

        return await self._of_layer(("levels", normalization, scope), image, layer, make)

    async def histograms(self, image: str, layer: int) -> dict[str, Any]:
        """Return how the values of each channel are spread; of a dense layer, those of all."""
        return await self._of_layer("histograms", image, layer, histograms)

    async def rendered(self, image: str, layer: int, **render_options: Any) -> bytes:
        """Return a layer drawn by `actgrid.render`, a PNG file.

        Parameters
        ----------
        render_options
            Those of `actgrid.render`.

        Raises
        ------
        OptionError
            If an option cannot be used, or the picture would have more than 67 million pixels.
            Also a ValueError.
        """
        options = _RENDER_DEFAULTS | render_options
        check_render_options(**{name: options[name] for name in _CHECKED})

        def make(info: LayerInfo, activation: Array) -> bytes:
            check_size(info, activation, options)
            return draw_layer(info, activation, **render_options).to_png()

        key = "rendered", repr(sorted(render_options.items()))
        return await self._of_layer(key, image, layer, make)

    async def _of_layer(
        self, kind: Hashable, image: str, layer: int, make: Callable[[LayerInfo, Array], T]
    ) -> T:
        """Return what is made of a layer's activation."""
        stored, node = self.images[image], self._drawable(layer)

        async def made() -> T:
            activation = await self._engine.activation(stored, node)
            return await self._work(make, self._infos[node], activation)

        return await self._cache.get((kind, image, node), made)

    def _known(self, layer: int) -> int:
        if not 0 <= layer < len(self._infos):
            raise NotFoundError(f"there is no layer {layer}: there are 0 to {len(self._infos) - 1}")
        return layer

    def _numbered(self, layer: int | str) -> int:
        """Return the number of a layer that is given by its number or its path."""
        if not isinstance(layer, str):
            return self._known(layer)
        paths = [info.path for info in self._infos]
        if layer not in paths:
            raise LayerError(f"no layer is called {layer!r}{suggest(layer, paths)}")
        return paths.index(layer)

    def _drawable(self, layer: int) -> int:
        if self._known(layer) not in self._drawn:
            raise NotFoundError(f"{self._infos[layer].path} gives nothing that can be drawn")
        return layer

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
        return (await self._explained(image, method, target, layer))[0]

    async def heatmap_levels(
        self,
        image: str,
        method: str,
        target: int | str | None,
        layer: int | str | None = None,
    ) -> bytes:
        """Return a heatmap's levels in the size of the picture, a grayscale PNG file."""
        return (await self._explained(image, method, target, layer))[1]

    def heatmap_progress(
        self,
        image: str,
        method: str,
        target: int | str | None,
        layer: int | str | None = None,
    ) -> dict[str, Any]:
        """Return how far the computation of a heatmap is; see `heatmap` for the parameters."""
        return self._progress(self._heatmap_key(image, method, target, layer))

    def _heatmap_key(
        self, image: str, method: str, target: int | str | None, layer: int | str | None
    ) -> tuple[str, str, str, int | None, str | None]:
        """Return what a heatmap is kept by: all that it depends on, checked."""
        self.images[image]
        chosen = find_method(method)
        if self._classes is None:
            raise NotFoundError("the model gives no classes that could be explained")
        if method not in self._methods:
            raise NotFoundError(f"{method} needs packages that are not installed")
        path = None if layer is None else self._infos[self._numbered(layer)].path
        check_options([chosen], path, ())
        if isinstance(target, str):
            target = class_index(target, self._labels)
        return "heatmap", image, method, target, path

    async def _explained(
        self, image: str, method: str, target: int | str | None, layer: int | str | None
    ) -> tuple[dict[str, Any], bytes]:
        key = self._heatmap_key(image, method, target, layer)
        _, _, _, index, path = key
        stored = self.images[image]

        async def make() -> tuple[dict[str, Any], bytes]:
            prepared = await self._engine.prepared(stored)

            def explain(task: LongTask) -> tuple[dict[str, Any], bytes]:
                request = prepare_request(
                    self._engine.model,
                    prepared.x,
                    index,
                    self._labels,
                    batch_size=self._batch_size,
                    pixels=prepared.picture[None],
                    progress=task.report,
                )
                heatmap = request.explain(self._methods[method], path, {}, warn=False)
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

            return await self._scheduler.run(key, explain)

        return await self._cache.get(key, make)

    def _progress(self, key: Hashable) -> dict[str, Any]:
        """Return how far the computation of a value is that is kept by a key."""
        task = self._scheduler.find(key)
        if task is not None:
            state = "running" if task.started else "waiting"
            return {"state": state, "done": task.done, "total": task.total}
        if key in self._cache:
            return {"state": "ready", "done": 0, "total": 0}
        state = "waiting" if self._cache.is_pending(key) else "none"
        return {"state": state, "done": 0, "total": 0}

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
        weight = self._kernels.get(self._known(layer))
        if weight is None:
            raise NotFoundError(f"{self._infos[layer].path} has no kernel")
        return await self._cache.get(("kernel", layer), partial(self._work, draw_kernel, weight))

    async def dataset(self, layer: int) -> dict[str, Any]:
        """Return the statistics of a layer's channels over many images, and those they like best.

        Raises
        ------
        NotFoundError
            If there is no such layer, or nothing was measured of it. Also a LookupError.
        """
        stats = self._measured.get(self._known(layer))
        if stats is None:
            raise NotFoundError(f"no statistics are known of {self._infos[layer].path}")
        make = partial(self._work, measured_facts, stats, self.images)
        return await self._cache.get(("dataset", layer), make)

    async def maximized(self, layer: int, channel: int, steps: int = 64, seed: int = 0) -> bytes:
        """Return an image that excites a channel of a layer, an RGB PNG file.

        Parameters
        ----------
        steps, seed
            As for `actgrid.maximize`; at most 1024 steps.

        Raises
        ------
        NotFoundError
            If there is no such layer or channel. Also a LookupError.
        ActgridError
            Whatever `actgrid.maximize` raises.
        """
        key = self._maximized_key(layer, channel, steps, seed)

        def climb(task: LongTask) -> bytes:
            finished = itertools.count(1)
            found = maximize(
                self._engine.model,
                self._infos[layer].path,
                channel,
                steps=steps,
                size=self._engine.size or _MAXIMIZED_SIDE,
                preprocess=self._preprocess,
                seed=seed,
                progress=lambda: task.report(next(finished), steps),
            )
            return found.to_png()

        return await self._cache.get(key, partial(self._scheduler.run, key, climb))

    def maximized_progress(
        self, layer: int, channel: int, steps: int = 64, seed: int = 0
    ) -> dict[str, Any]:
        """Return how far the computation of `maximized` is; it has the same parameters."""
        return self._progress(self._maximized_key(layer, channel, steps, seed))

    def _maximized_key(self, layer: int, channel: int, steps: int, seed: int) -> Hashable:
        """Return what a maximizing image is kept by: all that it depends on, checked."""
        info = self._infos[self._drawable(layer)]
        if not 0 <= channel < (info.channels or math.inf):
            raise NotFoundError(f"{info.path} has no channel {channel}: it has {info.channels}")
        if integer_option("steps", steps, 1) > _MOST_STEPS:
            raise OptionError(f"steps must be at most {_MOST_STEPS}, not {steps}")
        return "maximized", layer, channel, steps, integer_option("seed", seed, 0)

    # --- threads ---

    async def _work(self, function: Callable[..., T], *arguments: Any) -> T:
        """Do what someone waits for."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    async def _later(self, function: Callable[..., T], *arguments: Any) -> T:
        """Do one of many things, which are not to keep what someone waits for from its turn."""
        async with self._background:
            return await self._work(function, *arguments)


def _methods() -> dict[str, Method]:
    """Return the methods whose packages are there."""
    try:
        check_packages()
    except MissingDependencyError:
        return {name: method for name, method in all_methods().items() if name != "lime"}
    return all_methods()


def _rgb_png(picture: npt.NDArray[np.uint8]) -> bytes:
    return b"".join(encode("picture.png", picture))
