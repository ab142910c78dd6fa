"""What the page and the HTTP API show, worked out: `Viewer`."""

from __future__ import annotations

import asyncio
import base64
import inspect
import math
import re
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.attribution import maximize
from actgrid.attribution.explaining import ask
from actgrid.attribution.lime import check_packages
from actgrid.attribution.methods import METHODS, Method, check_options, find_method
from actgrid.encoding import blank_levels, encode, encode_png
from actgrid.errors import ActgridError, MissingDependencyError, NotFoundError, OptionError
from actgrid.models import LayerInfo
from actgrid.models.drawing import draw_layer, draw_weight, filters
from actgrid.models.labels import labels_of
from actgrid.models.layers import Weight, model_weights
from actgrid.pipeline import DatasetStats, LayerStats
from actgrid.pipeline.statistics import image_stats
from actgrid.rendering import ORDERS, ChannelStats, Grid, palette, render
from actgrid.rendering import check_options as check_render_options
from actgrid.rendering.draw import lay_out
from actgrid.rendering.layout import integer_option, near_square, thread_count
from actgrid.rendering.normalize import SCOPES, parse_normalize
from actgrid.rendering.tiles import Tiling, tile
from actgrid.web.cache import Cache
from actgrid.web.engine import Engine
from actgrid.web.folding import fold
from actgrid.web.images import ImageStore, thumbnail

__all__ = ["Viewer", "plain_numbers"]

T = TypeVar("T")
Array = npt.NDArray[Any]

# Thumbnails of layers: their side, how many are in a row, and at most so many channels in each.
_SIDE, _COLUMNS, _SHOWN = 96, 16, 16
# Of one picture: a browser draws no larger one.
_MOST_PIXELS = 1 << 24
_LONGEST_SIDE = 1 << 14
# Of one that is drawn on request for whoever wants it as a file.
_MOST_DRAWN = 1 << 26
_MOST_STEPS = 1024
_BINS = 32
_TOP = 5
# Values that are turned into numbers of bins at once.
_BLOCK = 1 << 16
_COLORMAPS = (
    *("viridis", "gray", "magma", "inferno", "plasma", "cividis", "turbo"),
    *("RdBu_r", "coolwarm", "bone", "jet"),
)
_NORMALIZATIONS = ("standard", "minmax", "symmetric", "percentile:1,99")
# Where images are of no fixed size, those that a channel is excited by are of this one.
_MAXIMIZED_SIDE = 224
# Drawn at a time of what nobody waits for in particular, so that a click gets its turn.
_PIECE = 8
_DIGITS = 6

_RENDER_DEFAULTS = {
    one.name: one.default
    for one in inspect.signature(render).parameters.values()
    if one.kind is one.KEYWORD_ONLY
}
_CHECKED = tuple(inspect.signature(check_render_options).parameters)


@dataclass(frozen=True)
class _Tiles:
    """How tiles are laid out in a picture: tile t at row t // columns, column t % columns.

    Attributes
    ----------
    count, columns
        Tiles, and how many are in a row.
    height, width
        Of a tile in the picture.
    slices
        Tiles of each channel.
    joined
        Whether they are parts of one picture.
    step
        Every so manieth pixel of a tile, down and right, is in the picture.
    """

    count: int
    columns: int
    height: int
    width: int
    slices: int
    joined: bool
    step: int

    @classmethod
    def of(cls, tiling: Tiling) -> _Tiles:
        channels, slices, height, width = tiling.tiles.shape
        count = channels * slices
        if tiling.joined and tiling.columns:
            columns = count
        else:
            columns = near_square(channels, height, slices * width, 0) * slices
        rows = -(-count // columns)

        def sides(step: int) -> tuple[int, int]:
            return rows * -(-height // step), columns * -(-width // step)

        step = 1
        while step < max(height, width) and (
            math.prod(sides(step)) > _MOST_PIXELS or max(sides(step)) > _LONGEST_SIDE
        ):
            step += 1
        high, wide = -(-height // step), -(-width // step)
        return cls(count, columns, high, wide, slices, tiling.joined, step)

    def picked(self, grid: Grid, tiling: Tiling) -> npt.NDArray[np.uint8]:
        """Return the levels of a grid of these tiles, drawn without padding, as they are shown."""
        if self.step == 1:
            return grid.levels
        height, width = tiling.tiles.shape[2:]
        rows, step = -(-self.count // self.columns), self.step
        cells = grid.levels.reshape(rows, height, self.columns, width)[:, ::step, :, ::step]
        return cells.reshape(rows * self.height, self.columns * self.width)


class _Stopped(Exception):  # noqa: N818  (nobody is to catch it)
    """What was begun is not wanted any more."""


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
        Names of the classes; None: ImageNet's where there are 1000.
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
        model: object,
        images: ImageStore,
        *,
        labels: Sequence[str] | None = None,
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
        # What takes long has a thread of its own: nothing else waits for it.
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="actgrid-slow")
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
        self._kernels = dict(_kernels(self._engine.model, self._infos))
        self._classes = self._class_node()
        self._labels: tuple[str, ...] | None = None
        if self._classes is not None:
            self._labels = labels_of(self._infos[self._classes].channels or 0, labels)
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
        for pool in (self._threads, self._slow):
            pool.shutdown(wait=False, cancel_futures=True)

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
                "count": self._infos[classes].channels,
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
            "uploads": {"bytes": self.images.most_bytes} if self.images.most_uploads else None,
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

    async def thumbnail(self, image: str) -> bytes:
        """Return a small picture of an image, a JPEG file of at most 128 x 128 pixels."""
        stored = self.images[image]

        async def make() -> bytes:
            return await self._later(thumbnail, stored.source)

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
            return _top(activation[0], self._labels)

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
                    found[node] = _summary(self._infos[node], activation, cell)

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

        def make(info: LayerInfo, activation: Array) -> dict[str, Any]:
            stats = _stats(info, activation)
            return {
                "path": info.path,
                "shape": list(activation.shape[1:]),
                "stats": {
                    name: plain_numbers(getattr(stats, name))
                    for name in ("mean", "std", "min", "max", "zero_fraction", "nonfinite")
                }
                | {"dead": _dead(stats).tolist()},
                "tiles": asdict(_Tiles.of(_tiling(info, activation))),
            }

        return await self._of_layer("layer", image, layer, make)

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
            tiling = _tiling(info, activation)
            tiles = _Tiles.of(tiling)
            grid = draw_layer(
                info,
                activation,
                normalize=normalization,
                scope=scope,
                columns=tiles.columns,
                padding=0,
            )
            return encode_png(tiles.picked(grid, tiling), threads=thread_count(None))

        return await self._of_layer(("levels", normalization, scope), image, layer, make)

    async def histograms(self, image: str, layer: int) -> dict[str, Any]:
        """Return how the values of each channel are spread; of a dense layer, those of all."""
        return await self._of_layer("histograms", image, layer, _histograms)

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
            _check_size(info, activation, options)
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

    def _drawable(self, layer: int) -> int:
        if self._known(layer) not in self._drawn:
            raise NotFoundError(f"{self._infos[layer].path} gives nothing that can be drawn")
        return layer

    # --- what made the score ---

    async def heatmap(
        self, image: str, method: str, target: int | None, layer: int | None = None
    ) -> dict[str, Any]:
        """Return what a heatmap explains.

        Parameters
        ----------
        method
            One of those of `actgrid.explain` that `about` lists.
        target
            A class; None: the predicted one.
        layer
            For methods that look at one; None: as `actgrid.explain` chooses.
        """
        return (await self._explained(image, method, target, layer))[0]

    async def heatmap_levels(
        self, image: str, method: str, target: int | None, layer: int | None = None
    ) -> bytes:
        """Return a heatmap's levels in the size of the picture, a grayscale PNG file."""
        return (await self._explained(image, method, target, layer))[1]

    async def _explained(
        self, image: str, method: str, target: int | None, layer: int | None
    ) -> tuple[dict[str, Any], bytes]:
        stored = self.images[image]
        chosen = find_method(method)
        if self._classes is None:
            raise NotFoundError("the model gives no classes that could be explained")
        if method not in self._methods:
            raise NotFoundError(f"{method} needs packages that are not installed")
        path = None if layer is None else self._infos[self._known(layer)].path
        check_options([chosen], path, ())

        async def make() -> tuple[dict[str, Any], bytes]:
            prepared = await self._engine.prepared(stored)

            def explain(progress: Callable[[], None]) -> tuple[dict[str, Any], bytes]:
                question = ask(
                    self._engine.model,
                    prepared.x,
                    target,
                    self._labels,
                    batch_size=self._batch_size,
                    pixels=prepared.picture[None],
                    progress=progress,
                )
                heatmap = question.explain(chosen, path, {})
                about = {
                    "method": method,
                    "target": None if heatmap.target is None else int(heatmap.target[0]),
                    "label": None if heatmap.labels is None else heatmap.labels[0],
                    "score": None if heatmap.score is None else plain_numbers(heatmap.score)[0],
                    "before_softmax": heatmap.before_softmax,
                    "signed": heatmap.signed,
                    "layer": heatmap.layer,
                    "cmap": heatmap.cmap,
                }
                return about, encode_png(heatmap.levels()[0])

            return await self._long(explain)

        return await self._cache.get(("heatmap", image, method, target, path), make)

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

        def draw() -> tuple[dict[str, Any], bytes]:
            values = weight.variable.numpy()
            tiling = tile(filters(weight, values), kind="kernel")
            tiles = _Tiles.of(tiling)
            grid = draw_weight(weight, values, scope="layer", columns=tiles.columns, padding=0)
            pooled = grid.stats.pool()
            about = {
                "path": weight.path,
                "shape": list(values.shape),
                "min": plain_numbers(pooled.min)[0],
                "max": plain_numbers(pooled.max)[0],
                "tiles": asdict(tiles),
            }
            return about, encode_png(tiles.picked(grid, tiling), threads=thread_count(None))

        async def make() -> tuple[dict[str, Any], bytes]:
            return await self._work(draw)

        return await self._cache.get(("kernel", layer), make)

    def dataset(self, layer: int) -> dict[str, Any]:
        """Return the statistics of a layer's channels over many images, and those they like best.

        Raises
        ------
        NotFoundError
            If there is no such layer, or nothing was measured of it. Also a LookupError.
        """
        stats = self._measured.get(self._known(layer))
        if stats is None:
            raise NotFoundError(f"no statistics are known of {self._infos[layer].path}")
        names = stats.names()
        found = {name: self.images.find(name) for name in names.values()}
        ids = {name: stored and stored.id for name, stored in found.items()}
        return {
            "images": stats.images,
            **{
                name: plain_numbers(getattr(stats, name))
                for name in ("mean", "std", "min", "max", "zero_fraction", "activated")
            },
            "dead": np.flatnonzero(stats.dead).tolist(),
            "top": [
                [
                    {"name": names[index], "image": ids[names[index]], "maximum": maximum}
                    for index, maximum in zip(indices, maxima, strict=True)
                    if index >= 0
                ]
                for indices, maxima in zip(
                    stats.top_index.tolist(), plain_numbers(stats.top_max), strict=True
                )
            ],
        }

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
        info = self._infos[self._drawable(layer)]
        if not 0 <= channel < (info.channels or math.inf):
            raise NotFoundError(f"{info.path} has no channel {channel}: it has {info.channels}")
        if integer_option("steps", steps, 1) > _MOST_STEPS:
            raise OptionError(f"steps must be at most {_MOST_STEPS}, not {steps}")
        integer_option("seed", seed, 0)

        def climb(progress: Callable[[], None]) -> bytes:
            found = maximize(
                self._engine.model,
                info.path,
                channel,
                steps=steps,
                size=self._engine.size or _MAXIMIZED_SIDE,
                preprocess=self._preprocess,
                seed=seed,
                progress=progress,
            )
            return found.to_png()

        async def make() -> bytes:
            return await self._long(climb)

        return await self._cache.get(("maximized", layer, channel, steps, seed), make)

    # --- threads ---

    async def _work(self, function: Callable[..., T], *arguments: Any) -> T:
        """Do what someone waits for."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    async def _later(self, function: Callable[..., T], *arguments: Any) -> T:
        """Do one of many things, which are not to keep what someone waits for from its turn."""
        async with self._background:
            return await self._work(function, *arguments)

    async def _long(self, function: Callable[[Callable[[], None]], T]) -> T:
        """Do what takes long, given a function that it has to call now and then, which ends it."""
        stopped = threading.Event()

        def go_on() -> None:
            if stopped.is_set():
                raise _Stopped

        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._slow, function, go_on)
        finally:
            stopped.set()


def plain_numbers(values: Array) -> list[Any]:
    """Return numbers for JSON, to 6 digits; None stands for NaN and infinities.

    Examples
    --------
    >>> plain_numbers(np.array([2 / 3, np.nan]))
    [0.666667, None]
    """
    if values.dtype.kind in "iub":
        listed: list[Any] = values.tolist()
        return listed
    if values.ndim > 1:
        return [plain_numbers(row) for row in values]
    return [
        float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None
        for number in values.astype(np.float64).tolist()
    ]


def _methods() -> dict[str, Method]:
    """Return the methods whose packages are there."""
    try:
        check_packages()
    except MissingDependencyError:
        return {name: method for name, method in METHODS.items() if name != "lime"}
    return METHODS


def _kernels(model: Any, infos: Sequence[LayerInfo]) -> dict[int, Weight]:
    """Return the kernel of each node whose layer has one that makes its channels."""
    kernels: dict[str, list[Weight]] = {}
    for weight in model_weights(model):
        if weight.nodes and weight.variable.name.endswith("kernel"):
            kernels.setdefault(weight.nodes[-1].path, []).append(weight)
    found: dict[int, Weight] = {}
    for node, info in enumerate(infos):
        path = info.path if info.path in kernels else re.sub(r"(:\d+)?(\[.*\])?$", "", info.path)
        for weight in kernels.get(path, []):
            shape = tuple(weight.variable.shape)
            if 2 <= len(shape) <= 5:
                blank = np.broadcast_to(np.float32(0), shape)
                made = tile(filters(weight, blank), kind="kernel").tiles.shape[0]
                if made == info.channels:
                    found[node] = weight
                    break
    return found


def _tiling(info: LayerInfo, activation: Array) -> Tiling:
    return tile(activation, kind=info.kind, data_format=info.data_format)


def _stats(info: LayerInfo, activation: Array) -> ChannelStats:
    """Return the statistics of each channel."""
    return image_stats(info, activation[:1], batch=1).reshape(-1)


def _dead(stats: ChannelStats) -> npt.NDArray[np.intp]:
    """Return the dead channels. One that has a single value could be nothing else, and is not."""
    return np.flatnonzero(stats.dead) if stats.size > 1 else np.zeros(0, np.intp)


def _summary(
    info: LayerInfo, activation: Array, cell: npt.NDArray[np.uint8]
) -> dict[str, Any] | None:
    """Return what there is to say of a layer in short, and draw its thumbnail."""
    try:
        stats = _stats(info, activation)
        grid = _small_grid(info, activation, stats)
    except ActgridError:  # as where a layer gives nothing for a small image
        return None
    small = Image.fromarray(grid).resize(cell.shape[::-1], Image.Resampling.BOX)
    cell[:] = np.asarray(small)
    pooled = stats.pool()
    low, high, mean = plain_numbers(np.concatenate([pooled.min, pooled.max, pooled.mean]))
    return {
        "dead": len(_dead(stats)) if stats.size > 1 else None,
        "min": low,
        "max": high,
        "mean": mean,
        "nonfinite": int(stats.nonfinite.sum()),
    }


def _small_grid(info: LayerInfo, activation: Array, stats: ChannelStats) -> npt.NDArray[np.uint8]:
    """Return the levels of a layer's channels that vary most, or of its one picture."""
    if info.kind in ("dense", "sequence"):
        return draw_layer(info, activation, normalize="minmax", threads=1).levels
    order = np.argsort(np.where(np.isnan(stats.std), np.inf, -stats.std), kind="stable")[:_SHOWN]
    options: dict[str, Any] = {
        "normalize": "minmax",
        "columns": math.ceil(math.sqrt(len(order))),
        "padding": 0,
        "order": order,
        "threads": 1,
        "data_format": info.data_format,
    }
    if info.kind == "volume":
        depth = 2 if info.data_format == "channels_first" else 1
        middle = activation.take(activation.shape[depth] // 2, depth)
        return render(middle, kind="image", **options).levels
    return draw_layer(info, activation, **options).levels


def _top(scores: Array, labels: Sequence[str] | None) -> dict[str, Any]:
    """Return the classes of the highest scores."""
    values = scores.astype(np.float64)
    shares = bool((values >= 0).all()) and math.isclose(values.sum(), 1, abs_tol=1e-3)
    best = np.argsort(-values, kind="stable")[:_TOP]
    return {
        "kind": "probability" if shares else "score",
        "top": [
            {"index": index, "name": None if labels is None else labels[index], "value": value}
            for index, value in zip(best.tolist(), plain_numbers(values[best]), strict=True)
        ],
    }


def _histograms(info: LayerInfo, activation: Array) -> dict[str, Any]:
    """Return how many values of each channel are in each of equal bins of its range."""
    values = activation[0]
    if info.data_format == "channels_first":
        values = np.moveaxis(values, 0, -1)
    rows = values.reshape(-1, 1) if info.kind == "dense" else values.reshape(-1, values.shape[-1])
    stats = _stats(info, activation)
    if info.kind == "dense":
        stats = stats.pool()
    known = np.isfinite(stats.min)
    low, high = np.where(known, stats.min, 0), np.where(known, stats.max, 0)
    channels = rows.shape[1]
    counts = np.zeros(channels * _BINS, np.int64)
    # So few at once that they stay in the cache.
    block = max(1, _BLOCK // channels)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scale = np.where(high > low, _BINS / (high - low), 0)
        for start in range(0, len(rows), block):
            part = rows[start : start + block].astype(np.float64)
            finite = np.isfinite(part)
            part -= low
            part *= scale
            np.clip(part, 0, _BINS - 1, out=part)
            bins = part.astype(np.intp)
            bins += np.arange(channels) * _BINS
            counts += np.bincount(bins[finite], minlength=counts.size)
    return {
        "bins": _BINS,
        "low": plain_numbers(np.where(known, low, np.nan)),
        "high": plain_numbers(np.where(known, high, np.nan)),
        "counts": counts.reshape(channels, _BINS).tolist(),
    }


def _check_size(info: LayerInfo, activation: Array, options: dict[str, Any]) -> None:
    """Raise OptionError if a picture would be too large to be drawn for whoever asks."""
    token_grid = options["token_grid"] if info.kind == "sequence" else None
    tiling = tile(activation, kind=info.kind, data_format=info.data_format, token_grid=token_grid)
    order = options["order"]
    channels = tiling.tiles.shape[0] if isinstance(order, str) else len(order)
    layout = lay_out(tiling, channels, options["columns"], options["padding"])
    pixels = layout.height * layout.width * options["zoom"] ** 2
    if pixels > _MOST_DRAWN:
        raise OptionError(
            f"the picture would have {pixels} pixels; at most {_MOST_DRAWN} are drawn here: give "
            "another zoom, padding or columns"
        )


def _rgb_png(picture: npt.NDArray[np.uint8]) -> bytes:
    return b"".join(encode("picture.png", picture))
