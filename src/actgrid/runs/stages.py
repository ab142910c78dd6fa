"""Process images in concurrent stages: load, run the model, draw, write."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from actgrid.attribution.channel_relevance import check_order_options, measure_sample_relevance
from actgrid.errors import (
    ActgridError,
    DtypeError,
    ModelError,
    OptionError,
    OutputError,
    ShapeError,
    UnusableModelError,
)
from actgrid.figures.files import (
    DrawnLayer,
    describe,
    draw_files,
    get_picture_suffix,
    group_layers,
    number_files,
    worker_threads,
)
from actgrid.models import Extractor
from actgrid.models.inputs import get_batch_shape, join_batches
from actgrid.option_groups import pick_options
from actgrid.options import DrawingOptions, RenderFileOptions
from actgrid.runs.manifest import Record
from actgrid.runs.processing import FinishedShard, ProcessingOptions, StageMeter
from actgrid.runs.sinks import Sink
from actgrid.runs.sources import Item
from actgrid.statistics.dataset import DatasetStats, add_image, get_top_thresholds
from actgrid.statistics.measurements import MeasuredLayer, measure_batch, measure_sample

__all__ = ["process_images"]

T = TypeVar("T")
Array = npt.NDArray[Any]

_STATS = "stats.json"
# Number of batches that are loaded ahead of the model.
_PREFETCHED_BATCHES = 2


@dataclass
class _LoadedImage:
    """Record of an image in the pipeline: a batch of size 1, or its loading error."""

    item: Item
    x: Any
    error: Exception | None
    milliseconds: float
    # Waits for the drawing and measuring of the layers, and returns the results.
    finish: Callable[[], tuple[list[DrawnLayer], list[MeasuredLayer]]] = field(
        default=lambda: ([], [])
    )


@contextmanager
def _prefetch(values: Iterable[T], max_values: int) -> Iterator[Iterator[T]]:
    """Yield an iterator over `values` for which a thread fetches values in advance.

    The thread holds at most `max_values` values, and ends when the context ends.
    """
    fetched: queue.Queue[Callable[[], T] | None] = queue.Queue(max_values)
    stop = threading.Event()

    def put(value: Callable[[], T] | None) -> None:
        while not stop.is_set():
            try:
                fetched.put(value, timeout=0.1)
                return
            except queue.Full:
                pass

    def fetch() -> None:
        def fail(error: BaseException) -> T:
            raise error

        try:
            for value in values:
                put(lambda value=value: value)  # type: ignore[misc]
                if stop.is_set():
                    return
        except BaseException as error:
            put(lambda error=error: fail(error))  # type: ignore[misc]
        put(None)

    thread = threading.Thread(target=fetch, name="actgrid-inputs", daemon=True)
    thread.start()
    try:
        yield (value() for value in iter(fetched.get, None))
    finally:
        stop.set()
        thread.join()


def process_images(
    extractor: Extractor,
    items: Iterable[Item],
    load: Callable[[Item], Any],
    sink: Sink,
    options: ProcessingOptions,
    *,
    recorded: Mapping[int, bool] | None = None,
    thresholds: Mapping[str, Any] | None = None,
    meter: StageMeter | None = None,
) -> Iterator[Record | FinishedShard]:
    """Draw, measure and write images in concurrent stages.

    While the model runs on a batch, threads load the next batch, and draw and write the previous
    one. The activations of at most two batches are in memory. The written files depend only on the
    images and their order.

    Whether the iteration ends, fails or is closed, no files remain of an image whose record was not
    yielded.

    Parameters
    ----------
    extractor : Extractor
        Extracts the activations.
    items
        The images, starting at the first image of a shard.
    load
        Loads an image as a batch of size 1, an array or a dict of arrays. Several threads call it.
    sink
        Receives the picture files.
    options
        Options for the processing.
    recorded
        Index -> whether the image failed, for images that an earlier run recorded. The model runs
        on them again, because its results can depend on the batch, and for the statistics of their
        shard. Their files are written again only if the sink writes whole shards. An image that
        failed stays failed.
    thresholds
        Layer path -> thresholds of the earlier images, see `get_top_thresholds`.
    meter
        Counts images and busy seconds.

    Yields
    ------
    Record or FinishedShard
        A record for each new image, in order, once all its files are complete; and a finished shard
        once all its images are recorded.

    Raises
    ------
    OutputError
        If a file cannot be written.
    Exception
        If an image cannot be used and errors are not skipped; earlier images are yielded before.
    """
    pipeline = _Pipeline(
        extractor, load, sink, options, recorded or {}, thresholds or {}, meter or StageMeter()
    )
    try:
        for event in _run_stages(pipeline, items, options):
            if isinstance(event, Record):
                pipeline.unrecorded.pop(event.index, None)
            yield event
    finally:
        pipeline.drop_unrecorded()


def _run_stages(
    pipeline: _Pipeline, items: Iterable[Item], options: ProcessingOptions
) -> Iterator[Record | FinishedShard]:
    with (
        worker_threads(options.threads, "draw") as pipeline.drawers,
        worker_threads(options.threads, "load") as loaders,
        worker_threads(1, "write") as writer,
    ):
        loading = (loaders.submit(pipeline.load, item) for item in items)
        pending: deque[list[Future[list[Record | FinishedShard]]]] = deque()
        number: int | None = None
        problem: Exception | None = None
        with _prefetch(loading, _PREFETCHED_BATCHES * options.batch_size) as prefetched:
            batches = pipeline.group_batches(future.result() for future in prefetched)
            while True:
                try:
                    batch = next(batches, None)
                except Exception as error:
                    # The input iterator failed: the images before the error are still finished.
                    batch, problem = None, error
                if batch is None:
                    break
                writes = []
                previous, number = number, batch[0].item.index // options.shard_size
                if previous is not None and previous != number:
                    writes.append(writer.submit(pipeline.end_shard, previous))
                pipeline.start(batch)
                writes += [writer.submit(pipeline.finish, image) for image in batch]
                del batch
                pending.append(writes)
                if len(pending) > 1:
                    yield from _iterate_results(pending.popleft())
        if number is not None and problem is None:
            pending.append([writer.submit(pipeline.end_shard, number)])
        for writes in pending:
            yield from _iterate_results(writes)
        if problem is not None:
            raise problem


def _iterate_results(futures: Iterable[Future[list[T]]]) -> Iterator[T]:
    for future in futures:
        yield from future.result()


class _Pipeline:
    """The stages of `process_images`, and the state that they share."""

    drawers: ThreadPoolExecutor

    def __init__(
        self,
        extractor: Extractor,
        load: Callable[[Item], Any],
        sink: Sink,
        options: ProcessingOptions,
        recorded: Mapping[int, bool],
        thresholds: Mapping[str, Any],
        meter: StageMeter,
    ) -> None:
        self._extractor = extractor
        self._load = load
        self._sink = sink
        self._options = options
        self._recorded = recorded
        self._meter = meter
        self._earlier_thresholds = thresholds
        # The state of the current shard.
        self._statistics = self._make_statistics()
        self._thresholds: Mapping[str, Any] = {}
        self._shard_records: list[Record | FinishedShard] = []
        # Index -> image whose files may have been written before its record was yielded.
        self.unrecorded: dict[int, Item] = {}

    def _make_statistics(self) -> DatasetStats | None:
        return None if self._options.top is None else DatasetStats(top=self._options.top)

    # --- load

    def load(self, item: Item) -> _LoadedImage:
        x, problem, start = None, None, time.perf_counter()
        try:
            with self._meter.time_stage("load"):
                x = self._load(item)
        except Exception as error:
            problem = error
        return _LoadedImage(item, x, problem, (time.perf_counter() - start) * 1e3)

    def group_batches(self, images: Iterable[_LoadedImage]) -> Iterator[list[_LoadedImage]]:
        """Group consecutive images of one shard and shape into batches.

        Failed images are added to the current batch and do not count.
        """
        batch: list[_LoadedImage] = []
        shape: Any = None
        count = 0
        try:
            for image in images:
                is_full = bool(batch) and image.item.index % self._options.shard_size == 0
                if image.x is not None:
                    fits = (
                        shape in (None, get_batch_shape(image.x))
                        and count < self._options.batch_size
                    )
                    is_full = is_full or not fits
                if is_full:
                    yield batch
                    batch, shape, count = [], None, 0
                batch.append(image)
                if image.x is not None:
                    shape, count = get_batch_shape(image.x), count + 1
        except Exception:
            if batch:
                yield batch
            raise
        if batch:
            yield batch

    # --- model

    def start(self, batch: list[_LoadedImage]) -> None:
        """Run the model on a batch of images, and start to draw or measure the images."""
        images = [image for image in batch if image.x is not None]
        if not any(map(self._is_needed, images)):
            return
        start = time.perf_counter()
        try:
            with self._meter.time_stage("model"):
                x = join_batches([image.x for image in images])
                activations = self._extractor(x)
                relevance = self._measure_relevance(x, list(activations))
        except UnusableModelError:
            raise  # the model fails on every image
        except (ModelError, ShapeError, DtypeError) as error:
            if len(images) == 1:
                images[0].x, images[0].error = None, error
            else:
                for image in images:  # a single image may have caused the error
                    self.start([image])
            return
        milliseconds = (time.perf_counter() - start) * 1e3 / len(images)
        for image in images:
            image.x = np.empty(0)  # frees the memory
            image.milliseconds += milliseconds
        if self._options.drawing is None:
            self._start_measuring(images, activations)
        else:
            self._start_drawing(images, activations, relevance, self._options.drawing)

    def _measure_relevance(self, x: Any, paths: list[str]) -> dict[str, Array] | None:
        """Return the relevance of the channels of layers for each image, if they are sorted by it.

        Returns
        -------
        dict or None
            Layer path -> (N, channels); None for another order of the channels.
        """
        drawing = self._options.drawing
        if drawing is None or not check_order_options(drawing):
            return None
        target, labels = drawing["target"], drawing["labels"]
        return measure_sample_relevance(self._extractor.model, x, paths, target, labels)

    def _is_needed(self, image: _LoadedImage) -> bool:
        return (
            image.item.index not in self._recorded
            or self._sink.writes_whole_shards
            or self._options.top is not None
        )

    def _start_drawing(
        self,
        images: list[_LoadedImage],
        activations: dict[str, Array],
        relevance: dict[str, Array] | None,
        drawing: DrawingOptions,
    ) -> None:
        options = pick_options(drawing, RenderFileOptions)
        infos, batch = self._extractor.layers, len(images)
        names = number_files(list(activations), get_picture_suffix(drawing))
        files = dict(zip(activations, names, strict=True))
        groups = group_layers(activations, self._options.threads)
        for sample, image in enumerate(images):
            put = self._get_writer(image)
            if put is not None:
                self.unrecorded[image.item.index] = image.item

            def draw(
                group: dict[str, Array],
                sample: int = sample,
                put: Callable[..., None] | None = put,
            ) -> list[tuple[DrawnLayer, MeasuredLayer | None]]:
                layers: list[tuple[DrawnLayer, MeasuredLayer | None]] = []
                rows = None
                if relevance is not None:
                    rows = {path: relevance[path][sample] for path in group}
                pictures = draw_files(
                    infos, group, batch=batch, sample=sample, relevance=rows, **options
                )
                while True:
                    with self._meter.time_stage("draw"):
                        drawn = next(pictures, None)
                        if drawn is None:
                            return layers
                        info, activation = infos[drawn.path], group[drawn.path]
                        measured = None
                        if self._options.top is not None:
                            threshold = self._get_threshold(drawn.path)
                            measured = measure_sample(
                                info, activation, sample, drawn.grid.stats, threshold
                            )
                    file, start = files[drawn.path], time.perf_counter()
                    if put is not None:
                        with self._meter.time_stage("write"):
                            put(file, drawn.pieces)
                    layer = DrawnLayer.create(info, activation, drawn, file, start)
                    layers.append((layer, measured))

            futures = [self.drawers.submit(draw, group) for group in groups]

            def finish(
                futures: list[Future[list[tuple[DrawnLayer, MeasuredLayer | None]]]] = futures,
            ) -> tuple[list[DrawnLayer], list[MeasuredLayer]]:
                wait(futures)  # after an error, no layer is written any more
                layers = [layer for future in futures for layer in future.result()]
                return (
                    [drawn for drawn, _ in layers],
                    [measured for _, measured in layers if measured],
                )

            image.finish = finish

    def _get_writer(self, image: _LoadedImage) -> Callable[..., None] | None:
        """Return a function (name, pieces) that writes an output file of an image.

        None: an earlier run has already written the files of the image.
        """
        has_failed = self._recorded.get(image.item.index)
        if has_failed or (has_failed is not None and not self._sink.writes_whole_shards):
            return None
        return lambda file, pieces: self._sink.put(image.item, file, pieces)

    def _start_measuring(self, images: list[_LoadedImage], activations: dict[str, Array]) -> None:
        infos, batch = self._extractor.layers, len(images)

        def measure(path: str, activation: Array) -> list[MeasuredLayer]:
            with self._meter.time_stage("draw"):
                threshold = self._get_threshold(path)
                return measure_batch(infos[path], activation, batch=batch, threshold=threshold)

        futures = [
            self.drawers.submit(measure, path, activation)
            for path, activation in activations.items()
        ]
        for sample, image in enumerate(images):

            def finish(sample: int = sample) -> tuple[list[DrawnLayer], list[MeasuredLayer]]:
                return [], [future.result()[sample] for future in futures]

            image.finish = finish

    def _get_threshold(self, path: str) -> Any:
        earlier, current = self._earlier_thresholds.get(path), self._thresholds.get(path)
        if earlier is None or current is None:
            return current if earlier is None else earlier
        return np.maximum(earlier, current)

    # --- write, in one thread and in the order of the images

    def finish(self, image: _LoadedImage) -> list[Record | FinishedShard]:
        """Finish writing the files of an image; return its record unless it is buffered."""
        if self._recorded.get(image.item.index):
            return []  # a recorded failure only completed the batch
        drawn: list[DrawnLayer] = []
        layers: list[MeasuredLayer] = []
        files: list[str] = []
        problem = image.error
        if image.x is not None:
            try:
                drawn, layers = image.finish()
                files = self._write(image, drawn)
            except (OutputError, OptionError):
                raise  # the image did not cause the error
            except ActgridError as error:
                problem = error
                if self._get_writer(image):
                    self._drop(image.item)
        if problem is not None and not self._options.skip_errors:
            raise problem
        if problem is None and self._statistics is not None and image.x is not None:
            add_image(self._statistics, image.item.index, image.item.name, layers)
            self._thresholds = get_top_thresholds(self._statistics, image.item.index + 1)
        if image.item.index in self._recorded:
            return []
        self._meter.images += 1
        dead = {layer.info.path: int(layer.stats.dead.sum()) for layer in drawn or layers}
        milliseconds = image.milliseconds + sum(layer.milliseconds for layer in drawn)
        record = Record.create(image.item, files, dead, milliseconds, problem)
        if not self._sink.writes_whole_shards:
            return [record]
        self._shard_records.append(record)
        return []

    def _write(self, image: _LoadedImage, drawn: list[DrawnLayer]) -> list[str]:
        """Finish writing the files of an image; return their names in the output folder."""
        if self._options.drawing is None or (put := self._get_writer(image)) is None:
            return []
        with self._meter.time_stage("write"):
            item, files = image.item, [layer.file for layer in drawn]
            if self._options.stats_files:
                about = {"image": item.name, "model": self._extractor.model.name}
                if item.label is not None:
                    about["label"] = item.label
                put(_STATS, [describe(drawn, about)])
                files.append(_STATS)
            return self._sink.finish(item, files)

    def _drop(self, item: Item) -> None:
        if self._options.drawing is not None:
            suffix = get_picture_suffix(self._options.drawing)
            files = number_files(list(self._extractor.layers), suffix)
            self._sink.drop(item, [*files, _STATS])

    def drop_unrecorded(self) -> None:
        """Remove the files of images whose records were not yielded."""
        for item in self.unrecorded.values():
            with suppress(OutputError):  # the same error may have stopped the run
                self._drop(item)

    def end_shard(self, number: int) -> list[Record | FinishedShard]:
        """Close a shard, and return its buffered records and the finished shard."""
        with self._meter.time_stage("write"):
            self._sink.close_shard(number)
        events = [*self._shard_records, FinishedShard(number, self._statistics)]
        self._earlier_thresholds = {path: self._get_threshold(path) for path in self._thresholds}
        self._statistics, self._shard_records = self._make_statistics(), []
        return events
