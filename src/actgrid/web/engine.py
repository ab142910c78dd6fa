"""Runs the model on images and caches the activations of all its layers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import ModelError
from actgrid.models import Extractor, LayerInfo, load_model
from actgrid.models.extraction import run_transform, trace_layers
from actgrid.models.frameworks import tensorflow
from actgrid.models.graph import INPUT, build_layer_graph
from actgrid.models.network import check_connected
from actgrid.models.networks import get_network
from actgrid.models.types import ModelLike
from actgrid.option_checks import check_integer
from actgrid.rendering.tiles import DTYPES
from actgrid.web.attention_nodes import find_attention_nodes
from actgrid.web.cache import Cache
from actgrid.web.images import StoredImage
from actgrid.web.inputs import PreparedImage, make_converter

__all__ = ["MAX_ATTENTION_VALUES", "Engine", "QuantizedAttention"]

Array = npt.NDArray[Any]

# Maximum number of attention weights of a layer for an image that are computed for the page.
MAX_ATTENTION_VALUES = 1 << 24
# Number of prefixes of the network that are compiled separately. Activations of an early layer then
# need no run of the whole network.
_PREFIXES = 4


@dataclass(frozen=True)
class _OutputFilter:
    """Extractor transform that keeps only the outputs of some layers.

    TensorFlow then prunes the operations of the other layers.
    """

    paths: frozenset[str]

    def __call__(self, info: LayerInfo, tensor: Any) -> Any:
        return tensor if info.path in self.paths else ()


class QuantizedAttention(NamedTuple):
    """Attention weights of a layer for an image, quantized to 8 bits.

    Parameters
    ----------
    shape
        Number of windows, heads, queries and keys. More than one window: the layer computes
        attention inside parts of the image.
    maxima
        (heads, queries) float32: largest weight of each query, at least 0.
    levels
        (heads, queries, keys) uint8: weights, where 255 is the largest weight of the query. NaN and
        infinities are 0. Without keys if there are more than `MAX_ATTENTION_VALUES` weights.
    """

    shape: tuple[int, ...]
    maxima: npt.NDArray[np.float32]
    levels: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _AttentionQuantizer:
    """Extractor transform that quantizes the attention scores of the first sample of a batch.

    The transform returns the values of `QuantizedAttention`.

    Parameters
    ----------
    paths
        Paths of the scores.
    batch
        Number of samples in a batch.
    """

    paths: frozenset[str]
    batch: int

    def __call__(self, info: LayerInfo, tensor: Any) -> Any:
        if info.path not in self.paths:
            return ()
        tf = tensorflow()
        # Windows are rows of the batch.
        windows = tf.maximum(1, tf.shape(tensor)[0] // self.batch)
        shape = tf.concat([[windows], tf.shape(tensor)[1:]], 0)
        is_small = tf.reduce_prod(tf.cast(shape[1:], tf.int64)) <= MAX_ATTENTION_VALUES
        keys = tf.where(is_small, shape[3], 0)
        scores = tf.cast(tensor[0, :, :, :keys], tf.float32)
        scores = tf.where(tf.math.is_finite(scores), tf.maximum(scores, 0), 0)
        maxima = tf.maximum(tf.reduce_max(scores, -1), 0)
        levels = tf.math.divide_no_nan(scores, maxima[..., None]) * 255
        return shape, maxima, tf.cast(tf.round(levels), tf.uint8)


@dataclass(eq=False)
class _ActivationRequest:
    """A request for the activations of an image, which several callers can share.

    Parameters
    ----------
    image
        Id of the image.
    x
        Input of the model, a batch of one image.
    prefix
        Index of the prefix of the network to run: its first nodes in topological order.
    futures
        Futures of the callers, which receive the activations.
    """

    image: str
    x: Array
    prefix: int
    futures: list[asyncio.Future[dict[int, Array]]] = field(default_factory=list)


class Engine:
    """Runs a model on images in batches, and caches the activations of each layer.

    The nodes of the network are split into quarters. A run computes all nodes up to the end of the
    quarter that contains the requested node. Images that are requested while the model runs form
    the next batch, unless their requests are cancelled before it starts. All methods must be called
    in one event loop; the model runs in its own thread.

    Parameters
    ----------
    model
        A Keras model, or a network that lists its connections, with one input; or a model
        specification, see `actgrid.load_model`.
    cache
        Cache for the activations. Its size also limits the memory of a batch.
    size, preprocess, fit
        See `actgrid.load_images`. If the input size of the model is not fixed and `size` is None,
        images keep their size, except that larger images are reduced to at most 512 pixels a side.
    batch_size
        Maximum number of images in a batch. Batches are smaller if their activations would take
        more than half of the cache.
    threads
        Threads that load images; None: own threads.
    kind
        Kind of the samples, see `find_sample_kind`; None: found by the model's input.

    Attributes
    ----------
    model
        The Keras model.
    graph : LayerGraph
        Nodes of the model: its inputs, and each call of its layers.
    drawable_nodes : list of int
        Indices of the nodes whose activations can be drawn: outputs of layers with 2 to 5 axes.
    attention_nodes : dict of {int: LayerInfo}
        Nodes whose layers compute attention, and descriptions of their attention scores.
    input : InputConverter
        Conversion of images or other samples to the input of the model.

    Raises
    ------
    ModelError, ShapeError
        If the model cannot be loaded, has no image input or several inputs, or needs a `size`. Both
        are ValueErrors.
    OptionError
        If an option cannot be used. Also a ValueError.

    Examples
    --------
    >>> engine = Engine("demo", Cache(max_bytes=512 << 20))
    >>> image = StoredImage("0", "cat", actgrid.demo.photo())
    >>> asyncio.run(engine.get_activation(image, engine.drawable_nodes[-1])).shape
    (1, 1000)
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
        kind: str | None = None,
    ) -> None:
        self.model: Any = load_model(model)
        check_connected(get_network(self.model), "the viewer")
        self._cache = cache
        self.input = make_converter(self.model, size, preprocess, fit, kind)
        self._spec = self.input.spec
        self.graph = build_layer_graph(self.model, self._spec)
        self.drawable_nodes = [
            node
            for node, info in enumerate(self.graph.infos)
            if info.type != INPUT and 2 <= len(info.shape) <= 5 and info.dtype in DTYPES
        ]
        if not self.drawable_nodes:
            raise ModelError(f"the model {self.model.name!r} has no layer that can be drawn")
        self._prefix_ends = _compute_prefix_ends(len(self.drawable_nodes))
        self._output_filters = [
            _OutputFilter(
                frozenset(self.graph.infos[node].path for node in self.drawable_nodes[:end])
            )
            for end in self._prefix_ends
        ]
        self.attention_nodes = find_attention_nodes(self.graph)
        self._attention_quantizer = _AttentionQuantizer(
            frozenset(info.path for info in self.attention_nodes.values()),
            self._spec.shape[0] or 1,
        )
        self._extractor = Extractor(self.model, "*")
        self._compiled_prefixes: set[int] = set()
        self._is_attention_compiled = False
        self._batch_size = check_integer("batch_size", batch_size, 1)
        if self._spec.shape[0] is not None:
            self._batch_size = min(self._batch_size, self._spec.shape[0])
        # Measured memory of the activations of an image, by the shape of the input and the prefix.
        self._bytes_per_image: dict[tuple[tuple[int, ...], int], int] = {}
        self._held_bytes = 0
        self._waiting_requests: list[_ActivationRequest] = []
        self._running_requests: list[_ActivationRequest] = []
        self._task: asyncio.Task[None] | None = None
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="actgrid-model")
        self._compile_thread = ThreadPoolExecutor(1, thread_name_prefix="actgrid-compiler")
        self._image_threads = threads or ThreadPoolExecutor(thread_name_prefix="actgrid-images")

    async def start(self) -> None:
        """Compile the model and run it once, so that the first image is not delayed.

        The whole network is compiled first, and shorter prefixes afterwards in the background.
        """
        *shorter, longest = range(len(self._prefix_ends))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._model_thread, self._warm_up, longest)
        for prefix in shorter:
            self._compile_thread.submit(self._warm_up, prefix)
        if self.attention_nodes:
            self._compile_thread.submit(self._compile_attention)

    def _warm_up(self, prefix: int) -> None:
        self._compile(prefix)
        blank = self.input.make_blank()
        if blank is not None:
            self._run_model([blank], prefix)

    async def close(self) -> None:
        """Cancel all requests; drop the results of a run that has already started."""
        for future in _get_unfinished_futures([*self._running_requests, *self._waiting_requests]):
            future.cancel()
        self._waiting_requests.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for pool in (self._model_thread, self._compile_thread):
            pool.shutdown(wait=False, cancel_futures=True)

    async def get_prepared(self, image: StoredImage) -> PreparedImage:
        """Return a stored image, resized and preprocessed; the result is cached."""

        async def compute() -> PreparedImage:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._image_threads, self.input.prepare, image.source)

        return await self._cache.get(("prepared", image.id), compute)

    async def get_activation(self, image: StoredImage, node: int) -> Array:
        """Return the activation of a drawable node for an image as a read-only batch of 1.

        Raises
        ------
        ImageError
            If the image cannot be read. Also an OSError.
        ModelError
            If the model cannot be run on the image. Also a ValueError.
        """
        activation: Array | None = self._cache.find(("activation", image.id, node))
        if activation is None:
            position = self.drawable_nodes.index(node)
            prefix = next(prefix for prefix, end in enumerate(self._prefix_ends) if position < end)
            activation = (await self._request_activations(image, prefix))[node]
        return activation

    async def get_attention(self, image: StoredImage, node: int) -> QuantizedAttention:
        """Return the attention that the layer of a node computes for an image.

        One run of the model computes and caches the attention of all layers.

        Parameters
        ----------
        node
            A node of `attention_nodes`.

        Raises
        ------
        ImageError
            If the image cannot be read. Also an OSError.
        ModelError
            If the model cannot be run on the image. Also a ValueError.
        """

        async def compute() -> dict[str, QuantizedAttention]:
            x = (await self.get_prepared(image)).x
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._model_thread, self._run_attention, x)

        attention = await self._cache.get(("attention", image.id), compute)
        return attention[self.attention_nodes[node].path]

    def _compile_attention(self) -> None:
        # A trace for the shape of one image could find other axes, because its batch size is 1.
        if not self._is_attention_compiled:
            trace_layers(self._extractor, self._spec, self._attention_quantizer)
            self._is_attention_compiled = True

    def _run_attention(self, x: Array) -> dict[str, QuantizedAttention]:
        """Run the model on an input, and return the attention scores by path."""
        self._compile_attention()
        quantizer = self._attention_quantizer
        batch = np.concatenate([x] * quantizer.batch)
        outputs = run_transform(self._extractor, batch, quantizer)
        results = {path: outputs[path] for path in quantizer.paths}
        return {
            path: QuantizedAttention(
                tuple(np.asarray(shape).tolist()), np.asarray(maxima), np.asarray(levels)
            )
            for path, (shape, maxima, levels) in results.items()
        }

    @asynccontextmanager
    async def hold_activations(self, image: StoredImage) -> AsyncIterator[Mapping[int, Array]]:
        """Yield the activations of all drawable nodes for an image, by node.

        While the held activations take more than half of the cache size, the model does not run.
        The caller must therefore not request other activations inside the ``with`` block.
        """
        activations = {
            node: self._cache.find(("activation", image.id, node)) for node in self.drawable_nodes
        }
        if any(activation is None for activation in activations.values()):
            activations = await self._request_activations(image, len(self._prefix_ends) - 1)
        size = sum(activation.nbytes for activation in activations.values())
        self._held_bytes += size
        try:
            yield activations
        finally:
            self._held_bytes -= size
            self._start_next_run()

    async def _request_activations(self, image: StoredImage, prefix: int) -> dict[int, Array]:
        """Return the activations of a prefix of the network for an image, by node."""
        x = (await self.get_prepared(image)).x
        for request in (*self._running_requests, *self._waiting_requests):
            if request.image == image.id and (
                request in self._waiting_requests or request.prefix >= prefix
            ):
                request.prefix = max(request.prefix, prefix)
                break
        else:
            request = _ActivationRequest(image.id, x, prefix)
            self._waiting_requests.append(request)
        future: asyncio.Future[dict[int, Array]] = asyncio.get_running_loop().create_future()
        request.futures.append(future)
        self._start_next_run()
        return await future

    def _start_next_run(self) -> None:
        """Start the model on waiting images, unless it is running or memory is short."""
        if (
            self._task is None
            and self._waiting_requests
            and 2 * self._held_bytes <= self._cache.max_bytes
        ):
            self._task = asyncio.ensure_future(self._run_waiting())

    async def _run_waiting(self) -> None:
        try:
            # Tasks that are ready can add their requests before the batch is chosen.
            await asyncio.sleep(0)
            self._running_requests = self._take_batch()
            if self._running_requests:
                await self._run_batch(self._running_requests)
                # Callers of `hold_activations` can count their memory before the next run.
                await asyncio.sleep(0)
        finally:
            self._running_requests = []
            self._task = None
            self._start_next_run()

    def _take_batch(self) -> list[_ActivationRequest]:
        """Remove the next batch of waiting requests from the queue, and return the batch."""
        self._waiting_requests = [
            request for request in self._waiting_requests if _get_unfinished_futures([request])
        ]
        if not self._waiting_requests:
            return []
        shape = self._waiting_requests[0].x.shape
        candidates = [request for request in self._waiting_requests if request.x.shape == shape]
        candidates = candidates[: self._batch_size]
        prefix = self._choose_prefix(candidates)
        half = self._cache.max_bytes // 2
        # A single image while the memory of its activations is unknown.
        size = self._bytes_per_image.get((shape, prefix), half)
        batch = candidates[: max(1, half // max(1, size))]
        self._waiting_requests = [
            request for request in self._waiting_requests if request not in batch
        ]
        return batch

    async def _run_batch(self, batch: list[_ActivationRequest]) -> None:
        """Run the model on requests with the same input shape, and set their futures."""
        prefix = self._choose_prefix(batch)
        inputs = [request.x for request in batch]
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(
                self._model_thread, self._run_model, inputs, prefix
            )
        except Exception as error:
            for future in _get_unfinished_futures(batch):
                future.set_exception(error)
            return
        for request, result in zip(batch, results, strict=True):
            for node, activation in result.items():
                self._cache.put(("activation", request.image, node), activation)
            for future in _get_unfinished_futures([request]):
                future.set_result(result)

    def _choose_prefix(self, batch: list[_ActivationRequest]) -> int:
        """Return the shortest compiled prefix that suffices for all requests of a batch."""
        prefix = max(request.prefix for request in batch)
        return min(
            (compiled for compiled in self._compiled_prefixes if compiled >= prefix), default=prefix
        )

    def _compile(self, prefix: int) -> None:
        if prefix not in self._compiled_prefixes:
            trace_layers(self._extractor, self._spec, self._output_filters[prefix])
            self._compiled_prefixes.add(prefix)

    def _run_model(self, inputs: Sequence[Array], prefix: int) -> list[dict[int, Array]]:
        """Run a prefix of the network on inputs, and return the activations of each input."""
        count = self._spec.shape[0] or len(inputs)
        batch = np.concatenate([*inputs, *[inputs[-1]] * (count - len(inputs))])
        self._compile(prefix)
        outputs = run_transform(self._extractor, batch, self._output_filters[prefix])
        results: list[dict[int, Array]] = [{} for _ in inputs]
        for node in self.drawable_nodes[: self._prefix_ends[prefix]]:
            # Removed from the dict, so that only one batch activation exists besides its copies.
            activation = np.asarray(outputs.pop(self.graph.infos[node].path))
            for sample, result in enumerate(results):
                result[node] = self._extract_sample(node, activation, sample, count)
        size = sum(activation.nbytes for activation in results[0].values())
        self._bytes_per_image[inputs[0].shape, prefix] = size
        return results

    def _extract_sample(self, node: int, activation: Array, sample: int, count: int) -> Array:
        """Return the rows of a node's activation that belong to one sample, read-only."""
        shape, batch = self.graph.infos[node].shape, self._spec.shape[0]
        # A layer may return several rows for each image, or a constant number of rows.
        scales_with_batch = shape[0] is None if batch is None else (shape[0] or 0) % batch == 0
        rows, remainder = divmod(len(activation), count)
        if scales_with_batch and not remainder and count > 1:
            activation = activation[sample * rows : (sample + 1) * rows].copy()
        activation.setflags(write=False)
        return activation


def _get_unfinished_futures(
    requests: list[_ActivationRequest],
) -> list[asyncio.Future[dict[int, Array]]]:
    """Return the unfinished futures of requests."""
    return [future for request in requests for future in request.futures if not future.done()]


def _compute_prefix_ends(count: int) -> list[int]:
    """Return the lengths, in nodes, of the compiled prefixes of a network."""
    return sorted({-(-count * part // _PREFIXES) for part in range(1, _PREFIXES + 1)} - {0})
