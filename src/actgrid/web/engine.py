"""The forward pass: activations by image and node, from as few runs of the model as can be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.errors import ModelError, ShapeError
from actgrid.models import Extractor, LayerInfo, load_model
from actgrid.models.extraction import run_transform, trace_layers
from actgrid.models.frameworks import tensorflow
from actgrid.models.graph import INPUT, build_layer_graph
from actgrid.models.image_inputs import find_fixed_sides, find_image_input
from actgrid.models.image_pixels import parse_image_size
from actgrid.models.images import load_with_pixels
from actgrid.models.inputs import as_tensors, get_fixed_batch_size, prepare_inputs, read_input_specs
from actgrid.models.network import check_compiled
from actgrid.models.networks import get_network
from actgrid.models.tracing import build_model
from actgrid.models.types import ModelLike
from actgrid.option_checks import check_integer
from actgrid.option_groups import check_option
from actgrid.options import InputOptions
from actgrid.rendering.tiles import DTYPES
from actgrid.web.cache import Cache
from actgrid.web.images import StoredImage, read_image, sides_within

__all__ = ["Engine", "Prepared"]

Array = npt.NDArray[Any]

# An image for a model of no fixed size is shown at its own, but for one that is larger.
_LONGEST_SIDE = 512
# Into so many parts the nodes are split, after each of which a run may stop.
_DEPTHS = 4
# What tells of which shape and dtype the model's inputs are.
_BLANK = Image.new("RGB", (64, 64))


class Prepared(NamedTuple):
    """An image as a model takes it.

    Attributes
    ----------
    picture
        (height, width, 3) uint8: before it was preprocessed.
    x
        The model's input, a batch of one.
    """

    picture: npt.NDArray[np.uint8]
    x: Array


@dataclass(frozen=True)
class _Prefix:
    """Take the activations of some nodes: no more of the model is run than these need."""

    paths: frozenset[str]

    def __call__(self, info: LayerInfo, tensor: Any) -> Any:
        return tensor if info.path in self.paths else ()


@dataclass(eq=False)
class _Request:
    """An image that waits for the model, or is in it, and those who wait for its activations."""

    image: str
    x: Array
    depth: int
    futures: list[asyncio.Future[dict[int, Array]]] = field(default_factory=list)


class Engine:
    """Runs a model on images and keeps the activations, by image and node.

    One run of an image gives the activations of many nodes: of all up to the end of the quarter of
    the network that a wanted one lies in. Images that are asked for while the model runs go into
    its next run together; one that nobody waits for any more by then does not. All methods are
    called in one event loop; the model runs in a thread of its own.

    Parameters
    ----------
    model
        A Keras model that takes a batch of images and nothing else, or anything that
        `actgrid.load_model` takes.
    cache
        What keeps the activations, and bounds how many are about at once.
    size, preprocess, fit
        As for `actgrid.load_images`. Images for a model whose size is not fixed keep theirs, made
        smaller where a side is longer than 512 pixels.
    batch_size
        How many images one run takes, at most: fewer where their activations would be more than
        half of what the cache holds.
    threads
        What images are loaded in; None: threads of its own.

    Attributes
    ----------
    model
        The model.
    graph : LayerGraph
        Its nodes.
    drawn : list of int
        The nodes whose activations can be drawn: those of two to five axes, but for inputs.
    size : tuple of int or None
        (height, width) of all images; None if each has its own.

    Raises
    ------
    ModelError, ShapeError
        If the model cannot be loaded, takes no images or several inputs, or if its size has to be
        given and is not. Both are ValueErrors.
    OptionError
        If an option cannot be used. Also a ValueError.

    Examples
    --------
    >>> engine = Engine("demo", Cache(512 << 20))
    >>> activation = await engine.activation(store["9f86d081884c7d65"], engine.drawn[0])
    """

    def __init__(
        self,
        model: ModelLike,
        cache: Cache,
        *,
        size: Any = None,
        preprocess: str | Callable[[Any], Any] = "auto",
        fit: str = "crop",
        batch_size: int = 8,
        threads: ThreadPoolExecutor | None = None,
    ) -> None:
        self.model: Any = load_model(model)
        check_compiled(get_network(self.model), "the viewer")
        self._cache = cache
        self._preprocess = preprocess
        self._fit = fit
        check_option(InputOptions, "fit", fit)
        _, channels_first, fixed = find_image_input(self.model)
        self.size = fixed if size is None else parse_image_size(size)
        self._spec = self._described(channels_first)
        self.graph = build_layer_graph(self.model, self._spec)
        self.drawn = [
            node
            for node, info in enumerate(self.graph.infos)
            if info.type != INPUT and 2 <= len(info.shape) <= 5 and info.dtype in DTYPES
        ]
        if not self.drawn:
            raise ModelError(f"the model {self.model.name!r} has no layer that can be drawn")
        self._ends = _ends(len(self.drawn))
        self._prefixes = [
            _Prefix(frozenset(self.graph.infos[node].path for node in self.drawn[:end]))
            for end in self._ends
        ]
        self._extractor = Extractor(self.model, "*")
        self._compiled: set[int] = set()
        self._batch_size = check_integer("batch_size", batch_size, 1)
        if self._spec.shape[0] is not None:
            self._batch_size = min(self._batch_size, self._spec.shape[0])
        # Of one image, by its shape and the depth: measured, as layers may be of any size.
        self._bytes: dict[tuple[tuple[int, ...], int], int] = {}
        self._held = 0
        self._waiting: list[_Request] = []
        self._running: list[_Request] = []
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="actgrid-model")
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="actgrid-compiler")
        self._threads = threads or ThreadPoolExecutor(thread_name_prefix="actgrid-images")

    @property
    def spec(self) -> Any:
        """The input that the model is traced with, a TensorSpec."""
        return self._spec

    def _described(self, channels_first: bool) -> Any:
        """Return the TensorSpec of what the model is given; make its weights if it has none."""
        known = read_input_specs(self.model)
        sides = slice(2, 4) if channels_first else slice(1, 3)
        if self.size is None:
            if known is None:
                raise ModelError(
                    f"the input of the model {self.model.name!r} is not known: give a size, or "
                    "call it once"
                )
            if any(find_fixed_sides(self.model)):
                (taken,) = (tuple(spec.shape) for spec in tensorflow().nest.flatten(known))
                raise ShapeError(f"the model takes {taken}: give a size")
        blank = as_tensors(self.prepare(_BLANK).x)
        shape: list[int | None] = [
            None if known is None else get_fixed_batch_size(self.model),
            *blank.shape[1:],
        ]
        if self.size is None:
            shape[sides] = None, None
        spec = tensorflow().TensorSpec(shape, blank.dtype)
        prepare_inputs(self.model, spec)
        build_model(self.model, blank)
        return spec

    async def start(self) -> None:
        """Compile the model and run it once, so that the first image need not wait for that.

        Shorter runs are compiled behind the scenes; until they are there, longer ones do.
        """
        *shorter, longest = range(len(self._ends))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._warm_up, longest)
        for depth in shorter:
            self._compiler.submit(self._warm_up, depth)

    def _warm_up(self, depth: int) -> None:
        self._compile(depth)
        if self.size is not None:
            self._activations([self.prepare(_BLANK).x], depth)

    async def close(self) -> None:
        """Cancel whoever waits; a run that has begun ends in its thread, for nobody."""
        for future in _unsettled([*self._running, *self._waiting]):
            future.cancel()
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for pool in (self._thread, self._compiler):
            pool.shutdown(wait=False, cancel_futures=True)

    def prepare(self, source: Any) -> Prepared:
        """Return an image, a path, a Pillow image or an array, as the model takes it.

        Raises
        ------
        ImageError
            If it cannot be read. Also an OSError.
        """
        image, size, fit = read_image(source), self.size, self._fit
        if size is None:
            size, fit = sides_within(image, _LONGEST_SIDE), "stretch"
        pixels, x = load_with_pixels(
            image, size=size, preprocess=self._preprocess, model=self.model, fit=fit
        )
        picture = np.rint(pixels[0, ..., :3]).astype(np.uint8)
        return Prepared(np.repeat(picture, 3 // picture.shape[2], axis=2), x)

    async def prepared(self, image: StoredImage) -> Prepared:
        """Return a stored image as the model takes it, which is kept."""

        async def make() -> Prepared:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self.prepare, image.source)

        return await self._cache.get(("prepared", image.id), make)

    async def activation(self, image: StoredImage, node: int) -> Array:
        """Return what a drawn node gives for an image, with the batch axis, read-only.

        Raises
        ------
        ImageError
            If the image cannot be read. Also an OSError.
        ModelError
            If the model cannot be run on it. Also a ValueError.
        """
        found: Array | None = self._cache.find(("activation", image.id, node))
        if found is None:
            place = self.drawn.index(node)
            depth = next(depth for depth, end in enumerate(self._ends) if place < end)
            found = (await self._asked(image, depth))[node]
        return found

    @asynccontextmanager
    async def everything(self, image: StoredImage) -> AsyncIterator[Mapping[int, Array]]:
        """Hold what all drawn nodes give for an image, by node.

        While more is held than half of what the cache holds, the model does not run: nothing else
        is to be asked for meanwhile.
        """
        kept = {node: self._cache.find(("activation", image.id, node)) for node in self.drawn}
        if any(activation is None for activation in kept.values()):
            kept = await self._asked(image, len(self._ends) - 1)
        held = sum(activation.nbytes for activation in kept.values())
        self._held += held
        try:
            yield kept
        finally:
            self._held -= held
            self._go_on()

    async def _asked(self, image: StoredImage, depth: int) -> dict[int, Array]:
        """Return what a run as deep as this gives for an image, shared with others who ask."""
        x = (await self.prepared(image)).x
        for request in (*self._running, *self._waiting):
            if request.image == image.id and (request in self._waiting or request.depth >= depth):
                request.depth = max(request.depth, depth)
                break
        else:
            request = _Request(image.id, x, depth)
            self._waiting.append(request)
        future: asyncio.Future[dict[int, Array]] = asyncio.get_running_loop().create_future()
        request.futures.append(future)
        self._go_on()
        return await future

    def _go_on(self) -> None:
        """Run the model on what waits, unless it runs or too much is held."""
        if self._task is None and self._waiting and 2 * self._held <= self._cache.most_bytes:
            self._task = asyncio.ensure_future(self._run_waiting())

    async def _run_waiting(self) -> None:
        try:
            # All who are about to ask have done so when this goes on.
            await asyncio.sleep(0)
            self._running = self._next_batch()
            if self._running:
                await self._run(self._running)
                # Those who were given something hold it when this goes on.
                await asyncio.sleep(0)
        finally:
            self._running = []
            self._task = None
            self._go_on()

    def _next_batch(self) -> list[_Request]:
        """Take what goes into the next run from what waits, without what nobody waits for."""
        self._waiting = [request for request in self._waiting if _unsettled([request])]
        if not self._waiting:
            return []
        shape = self._waiting[0].x.shape
        alike = [request for request in self._waiting if request.x.shape == shape]
        alike = alike[: self._batch_size]
        depth = self._ready(alike)
        half = self._cache.most_bytes // 2
        # One image, where it is not known yet what it takes.
        size = self._bytes.get((shape, depth), half)
        batch = alike[: max(1, half // max(1, size))]
        self._waiting = [request for request in self._waiting if request not in batch]
        return batch

    async def _run(self, batch: list[_Request]) -> None:
        """Run the model on images of one shape, and give each its activations."""
        depth = self._ready(batch)
        inputs = [request.x for request in batch]
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self._activations, inputs, depth)
        except Exception as error:
            for future in _unsettled(batch):
                future.set_exception(error)
            return
        for request, result in zip(batch, results, strict=True):
            for node, activation in result.items():
                self._cache.put(("activation", request.image, node), activation)
            for future in _unsettled([request]):
                future.set_result(result)

    def _ready(self, batch: list[_Request]) -> int:
        """Return how deep a run is to be: of those that are compiled, the shortest that will do."""
        depth = max(request.depth for request in batch)
        return min((ready for ready in self._compiled if ready >= depth), default=depth)

    def _compile(self, depth: int) -> None:
        if depth not in self._compiled:
            trace_layers(self._extractor, self._spec, self._prefixes[depth])
            self._compiled.add(depth)

    def _activations(self, inputs: Sequence[Array], depth: int) -> list[dict[int, Array]]:
        """Return for each of some inputs what the nodes up to a depth give."""
        count = self._spec.shape[0] or len(inputs)
        batch = np.concatenate([*inputs, *[inputs[-1]] * (count - len(inputs))])
        prefix = self._prefixes[depth]
        self._compile(depth)
        found = run_transform(self._extractor, batch, prefix)
        results: list[dict[int, Array]] = [{} for _ in inputs]
        for node in self.drawn[: self._ends[depth]]:
            # Taken out, so that no more than one is about beside its copies.
            activation = np.asarray(found.pop(self.graph.infos[node].path))
            for sample, result in enumerate(results):
                result[node] = self._of_sample(node, activation, sample, count)
        size = sum(activation.nbytes for activation in results[0].values())
        self._bytes[inputs[0].shape, depth] = size
        return results

    def _of_sample(self, node: int, activation: Array, sample: int, count: int) -> Array:
        """Return what a node gives for one of so many images, in memory of its own."""
        shape, batch = self.graph.infos[node].shape, self._spec.shape[0]
        # A layer may give several rows for each image, or the same for all of them.
        several = shape[0] is None if batch is None else (shape[0] or 0) % batch == 0
        rows, left = divmod(len(activation), count)
        if several and not left and count > 1:
            activation = activation[sample * rows : (sample + 1) * rows].copy()
        activation.setflags(write=False)
        return activation


def _unsettled(requests: list[_Request]) -> list[asyncio.Future[dict[int, Array]]]:
    """Return what those have who still wait."""
    return [future for request in requests for future in request.futures if not future.done()]


def _ends(count: int) -> list[int]:
    """Return where prefixes of so many nodes end, of which the last holds all."""
    return sorted({-(-count * part // _DEPTHS) for part in range(1, _DEPTHS + 1)} - {0})
