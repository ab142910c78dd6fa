"""Many images through a model: loading, running, drawing and writing, all at once."""

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
    draw_file,
    numbered_files,
    picture_suffix,
    worker_threads,
)
from actgrid.models import Extractor
from actgrid.models.inputs import batch_shape, join_batches
from actgrid.options import DrawingOptions
from actgrid.runs.manifest import Record
from actgrid.runs.sinks import Sink
from actgrid.runs.sources import Item
from actgrid.runs.work import Meter, Shard, Work
from actgrid.statistics.dataset import DatasetStats, add_image, top_thresholds
from actgrid.statistics.measurements import MeasuredLayer, measure_batch, measure_sample

__all__ = ["process"]

T = TypeVar("T")
Image = npt.NDArray[Any]

_STATS = "stats.json"
# Batches that are loaded ahead of the model.
_AHEAD = 2


@dataclass
class _Entry:
    """An image on its way, as a batch of one: an array, or a dict of arrays by input.

    Without an `image` it has failed, by `error`.
    """

    item: Item
    image: Any
    error: Exception | None
    milliseconds: float
    # Returns what became of its layers, once it did.
    finish: Callable[[], tuple[list[DrawnLayer], list[MeasuredLayer]]] = field(
        default=lambda: ([], [])
    )


@contextmanager
def _ahead(values: Iterable[T], most: int) -> Iterator[Iterator[T]]:
    """Yield an iterator over values that a thread takes ahead, at most so many of them."""
    waiting: queue.Queue[Callable[[], T] | None] = queue.Queue(most)
    stop = threading.Event()

    def put(value: Callable[[], T] | None) -> None:
        while not stop.is_set():
            try:
                waiting.put(value, timeout=0.1)
                return
            except queue.Full:
                pass

    def fill() -> None:
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

    filler = threading.Thread(target=fill, name="actgrid-inputs", daemon=True)
    filler.start()
    try:
        yield (value() for value in iter(waiting.get, None))
    finally:
        stop.set()
        filler.join()


def process(
    extractor: Extractor,
    items: Iterable[Item],
    load: Callable[[Item], Any],
    sink: Sink,
    work: Work,
    *,
    recorded: Mapping[int, bool] | None = None,
    thresholds: Mapping[str, Any] | None = None,
    meter: Meter | None = None,
) -> Iterator[Record | Shard]:
    """Draw, measure and write image after image.

    While the model runs on a batch, threads load the next ones, and draw and write the last one:
    there are never the activations of more than two. What is written depends on the images and
    their order alone.

    Parameters
    ----------
    items
        The images, from the first of a shard on.
    load
        Returns an image as a batch of one for the model, an array or a dict of arrays; called by
        several threads.
    sink
        Where the pictures go.
    recorded
        By index, whether images failed that an earlier run has recorded. They are run again with
        the others of their batch, because a model's results may depend on its size, and for the
        statistics of their shard; nothing is written of them unless the sink takes whole shards.
        What failed has failed, whatever becomes of it now.
    thresholds
        By layer path, of the images before, see `top_thresholds`.
    meter
        Is told what goes on.

    Yields
    ------
    Record or Shard
        A record for each image that has none, in order, once all its files are complete; and a
        shard once all of its images are recorded.

    Raises
    ------
    OutputError
        If something cannot be written.
    Exception
        Whatever is wrong with an image, unless such are left out; those before it are yielded.

    However it ends, no files stay of an image whose record was not yielded.
    """
    flow = _Flow(extractor, load, sink, work, recorded or {}, thresholds or {}, meter or Meter())
    try:
        for event in _run_stages(flow, items, work):
            if isinstance(event, Record):
                flow.unrecorded.pop(event.index, None)
            yield event
    finally:
        flow.drop_unrecorded()


def _run_stages(flow: _Flow, items: Iterable[Item], work: Work) -> Iterator[Record | Shard]:
    with (
        worker_threads(work.threads, "draw") as flow.drawers,
        worker_threads(work.threads, "load") as loaders,
        worker_threads(1, "write") as writer,
    ):
        loading = (loaders.submit(flow.load, item) for item in items)
        waiting: deque[list[Future[list[Record | Shard]]]] = deque()
        number: int | None = None
        problem: Exception | None = None
        with _ahead(loading, _AHEAD * work.batch_size) as loaded:
            batches = flow.batches(future.result() for future in loaded)
            while True:
                try:
                    batch = next(batches, None)
                except Exception as error:
                    # The inputs broke off: what came before is finished.
                    batch, problem = None, error
                if batch is None:
                    break
                finishing = []
                last, number = number, batch[0].item.index // work.shard_size
                if last is not None and last != number:
                    finishing.append(writer.submit(flow.end_shard, last))
                flow.start(batch)
                finishing += [writer.submit(flow.finish, entry) for entry in batch]
                del batch
                waiting.append(finishing)
                if len(waiting) > 1:
                    yield from _results(waiting.popleft())
        if number is not None and problem is None:
            waiting.append([writer.submit(flow.end_shard, number)])
        for finishing in waiting:
            yield from _results(finishing)
        if problem is not None:
            raise problem


def _results(futures: Iterable[Future[list[T]]]) -> Iterator[T]:
    for future in futures:
        yield from future.result()


class _Flow:
    """What the stages of `process` do."""

    drawers: ThreadPoolExecutor

    def __init__(
        self,
        extractor: Extractor,
        load: Callable[[Item], Any],
        sink: Sink,
        work: Work,
        recorded: Mapping[int, bool],
        thresholds: Mapping[str, Any],
        meter: Meter,
    ) -> None:
        self._extractor = extractor
        self._load = load
        self._sink = sink
        self._work = work
        self._recorded = recorded
        self._meter = meter
        self._thresholds_before = thresholds
        # Of the shard that is being written.
        self._statistics = self._no_statistics()
        self._thresholds: Mapping[str, Any] = {}
        self._held: list[Record | Shard] = []
        # By index, images of which files may have been written, and whose records are to come.
        self.unrecorded: dict[int, Item] = {}

    def _no_statistics(self) -> DatasetStats | None:
        return None if self._work.top is None else DatasetStats(top=self._work.top)

    # --- load

    def load(self, item: Item) -> _Entry:
        image, problem, start = None, None, time.perf_counter()
        try:
            with self._meter.busy("load"):
                image = self._load(item)
        except Exception as error:
            problem = error
        return _Entry(item, image, problem, (time.perf_counter() - start) * 1e3)

    def batches(self, entries: Iterable[_Entry]) -> Iterator[list[_Entry]]:
        """Group images that follow each other: of one shard, and of one shape but for failed ones.

        These go along, so that they change no batch.
        """
        batch: list[_Entry] = []
        shape: Any = None
        images = 0
        try:
            for entry in entries:
                full = bool(batch) and entry.item.index % self._work.shard_size == 0
                if entry.image is not None:
                    fits = (
                        shape in (None, batch_shape(entry.image)) and images < self._work.batch_size
                    )
                    full = full or not fits
                if full:
                    yield batch
                    batch, shape, images = [], None, 0
                batch.append(entry)
                if entry.image is not None:
                    shape, images = batch_shape(entry.image), images + 1
        except Exception:
            if batch:
                yield batch
            raise
        if batch:
            yield batch

    # --- model

    def start(self, batch: list[_Entry]) -> None:
        """Run the model on a batch and let its images be drawn or measured."""
        images = [entry for entry in batch if entry.image is not None]
        if not any(map(self._matters, images)):
            return
        start = time.perf_counter()
        try:
            with self._meter.busy("model"):
                activations = self._extractor(join_batches([entry.image for entry in images]))
        except UnusableModelError:
            raise  # no image is to blame, and every other one would fail as well
        except (ModelError, ShapeError, DtypeError) as error:
            if len(images) == 1:
                images[0].image, images[0].error = None, error
            else:
                for entry in images:  # one may be to blame, and not the others
                    self.start([entry])
            return
        share = (time.perf_counter() - start) * 1e3 / len(images)
        for entry in images:
            entry.image = np.empty(0)  # has served
            entry.milliseconds += share
        if self._work.drawing is None:
            self._start_measuring(images, activations)
        else:
            self._start_drawing(images, activations, self._work.drawing)

    def _matters(self, entry: _Entry) -> bool:
        return (
            entry.item.index not in self._recorded
            or self._sink.whole_shards
            or self._work.top is not None
        )

    def _start_drawing(
        self, images: list[_Entry], activations: dict[str, Image], options: DrawingOptions
    ) -> None:
        infos, batch = self._extractor.layers, len(images)
        files = numbered_files(list(activations), picture_suffix(options))
        for sample, entry in enumerate(images):
            put = self._put_of(entry)
            if put is not None:
                self.unrecorded[entry.item.index] = entry.item

            def draw(
                path: str,
                activation: Image,
                file: str,
                sample: int = sample,
                put: Callable[..., None] | None = put,
            ) -> tuple[DrawnLayer, MeasuredLayer | None]:
                info, start, of_layer = infos[path], time.perf_counter(), None
                with self._meter.busy("draw"):
                    grid, pieces = draw_file(
                        info, activation, batch=batch, sample=sample, **options
                    )
                    if self._work.top is not None:
                        threshold = self._threshold_of(path)
                        of_layer = measure_sample(info, activation, sample, grid.stats, threshold)
                if put is not None:
                    with self._meter.busy("write"):
                        put(file, pieces)
                return DrawnLayer.of(info, activation, grid, file, start), of_layer

            drawing = [
                self.drawers.submit(draw, path, activation, file)
                for (path, activation), file in zip(activations.items(), files, strict=True)
            ]

            def finish(
                drawing: list[Future[tuple[DrawnLayer, MeasuredLayer | None]]] = drawing,
            ) -> tuple[list[DrawnLayer], list[MeasuredLayer]]:
                wait(drawing)  # so that nothing is written any more if one fails
                layers = [future.result() for future in drawing]
                return [drawn for drawn, _ in layers], [one for _, one in layers if one]

            entry.finish = finish

    def _put_of(self, entry: _Entry) -> Callable[..., None] | None:
        """Return what takes the files of an image; None if these are there, or are to be none."""
        failed = self._recorded.get(entry.item.index)
        if failed or (failed is not None and not self._sink.whole_shards):
            return None
        return lambda file, pieces: self._sink.put(entry.item, file, pieces)

    def _start_measuring(self, images: list[_Entry], activations: dict[str, Image]) -> None:
        infos, batch = self._extractor.layers, len(images)

        def measure(path: str, activation: Image) -> list[MeasuredLayer]:
            with self._meter.busy("draw"):
                threshold = self._threshold_of(path)
                return measure_batch(infos[path], activation, batch=batch, threshold=threshold)

        measuring = [
            self.drawers.submit(measure, path, activation)
            for path, activation in activations.items()
        ]
        for sample, entry in enumerate(images):

            def finish(sample: int = sample) -> tuple[list[DrawnLayer], list[MeasuredLayer]]:
                return [], [future.result()[sample] for future in measuring]

            entry.finish = finish

    def _threshold_of(self, path: str) -> Any:
        before, here = self._thresholds_before.get(path), self._thresholds.get(path)
        if before is None or here is None:
            return here if before is None else before
        return np.maximum(before, here)

    # --- write, by one thread in the order of the images

    def finish(self, entry: _Entry) -> list[Record | Shard]:
        """Return the record of an image whose files are complete; none if there is one already."""
        if self._recorded.get(entry.item.index):
            return []  # it failed, and was here to make the same batches again
        drawn: list[DrawnLayer] = []
        layers: list[MeasuredLayer] = []
        files: list[str] = []
        problem = entry.error
        if entry.image is not None:
            try:
                drawn, layers = entry.finish()
                files = self._write(entry, drawn)
            except (OutputError, OptionError):
                raise  # which is no fault of this image
            except ActgridError as error:
                problem = error
                if self._put_of(entry):
                    self._drop(entry.item)
        if problem is not None and not self._work.skip_errors:
            raise problem
        if problem is None and self._statistics is not None and entry.image is not None:
            add_image(self._statistics, entry.item.index, entry.item.name, layers)
            self._thresholds = top_thresholds(self._statistics, entry.item.index + 1)
        if entry.item.index in self._recorded:
            return []
        self._meter.images += 1
        dead = {one.info.path: int(one.stats.dead.sum()) for one in drawn or layers}
        milliseconds = entry.milliseconds + sum(layer.milliseconds for layer in drawn)
        record = Record.of(entry.item, files, dead, milliseconds, problem)
        if not self._sink.whole_shards:
            return [record]
        self._held.append(record)
        return []

    def _write(self, entry: _Entry, drawn: list[DrawnLayer]) -> list[str]:
        """Complete the files of an image and return their names."""
        if self._work.drawing is None or (put := self._put_of(entry)) is None:
            return []
        with self._meter.busy("write"):
            item = entry.item
            about = {"image": item.name, "model": self._extractor.model.name}
            if item.label is not None:
                about["label"] = item.label
            put(_STATS, [describe(drawn, about)])
            return self._sink.finish(item, [*(layer.file for layer in drawn), _STATS])

    def _drop(self, item: Item) -> None:
        if self._work.drawing is not None:
            suffix = picture_suffix(self._work.drawing)
            files = numbered_files(list(self._extractor.layers), suffix)
            self._sink.drop(item, [*files, _STATS])

    def drop_unrecorded(self) -> None:
        """Let nothing stay of images that a run which is stopped has not recorded."""
        for item in self.unrecorded.values():
            with suppress(OutputError):  # what stopped the run may be the reason
                self._drop(item)

    def end_shard(self, number: int) -> list[Record | Shard]:
        """Return what was held back until a shard is complete, and the shard."""
        with self._meter.busy("write"):
            self._sink.close_shard(number)
        ended = [*self._held, Shard(number, self._statistics)]
        self._thresholds_before = {path: self._threshold_of(path) for path in self._thresholds}
        self._statistics, self._held = self._no_statistics(), []
        return ended
