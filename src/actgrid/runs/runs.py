"""Runs: process many images with a model, to files, a manifest and statistics."""

from __future__ import annotations

import io
import logging
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import orjson
from PIL import Image

from actgrid.attribution.channel_relevance import check_gradients, check_order_options
from actgrid.errors import OptionError, RunError
from actgrid.models import load_model
from actgrid.models.inputs import get_fixed_batch_size
from actgrid.models.networks import get_network
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_groups import check_option, complete_options, takes_options
from actgrid.options import DrawingOptions, RunOptions, StatisticsOptions
from actgrid.rendering.backends import find_first_backend, load_backend
from actgrid.runs.engines import Engine, run_locally
from actgrid.runs.manifest import (
    MANIFEST,
    Manifest,
    Record,
    check_same_run,
    read_run,
    write_run,
)
from actgrid.runs.processing import FinishedShard, ProcessingOptions, StageMeter
from actgrid.runs.ray import RayEngine
from actgrid.runs.results import REPORT, SUMMARY, TOP, write_results
from actgrid.runs.run_spec import ImageLoader, RunSpec
from actgrid.runs.sample_items import SampleItems, find_run_items
from actgrid.runs.sinks import format_shard_name
from actgrid.runs.sources import Items
from actgrid.runs.stores import Store, find_local_folder, open_store
from actgrid.statistics.dataset import (
    STATISTICS,
    DatasetStats,
    get_top_thresholds,
    stats_from_bytes,
    stats_to_bytes,
)

__all__ = ["Run", "Summary", "check_start"]

_PACKAGES = ("actgrid", "tensorflow", "keras", "numpy", "pillow")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """The result of a run: numbers of images, output and statistics.

    Parameters
    ----------
    images : int
        Number of recorded images, including those before the run was resumed.
    failed : int
        Number of failed images among them.
    output : str
        Path or URL of the output.
    seconds : float
        Duration of the run in this process.
    statistics : DatasetStats or None
        Statistics over all images; None if they were not measured.

    Examples
    --------
    >>> from actgrid.runs import Summary
    >>> Summary(images=10, failed=1, output="out", seconds=2.5, statistics=None).failed
    1
    """

    images: int
    failed: int
    output: str
    seconds: float
    statistics: DatasetStats | None


@takes_options(RunOptions)
class Run:
    """Processes many images with a model; iteration yields a record for each image.

    With statistics, call `finish` after the iteration to write the report. The output is locked
    against other runs until this run ends, fails or is closed. A ``with`` block closes the run.

    Parameters
    ----------
    model : keras.Model or str or pathlib.Path
        A Keras model, or a model specification, see `actgrid.load_model`.
    images : str, pathlib.Path, PIL.Image.Image, array, tf.data.Dataset or iterable
        The images, see `actgrid.render_images`.
    layers : str, int, type, callable or sequence of these, optional
        The layers, see `actgrid.Extractor`; None: all layers with a spatial output.
    output : str or pathlib.Path
        A folder, or an fsspec URL.
    drawing : dict or None
        Options of the pictures, see `actgrid.options.DrawingOptions`; None: nothing is drawn.
    top : int or None
        Number of top images per channel in the statistics; None: no statistics.
    **options
        See `actgrid.options.RunOptions`.

    Raises
    ------
    RunError
        If `output` contains a run and neither `resume` nor `overwrite` is given, if the run to
        resume has different options, or if another run is writing to `output`. Also a ValueError.
    ActgridError
        Errors of `actgrid.load_model`, `actgrid.Extractor` and `actgrid.render`, or of the images.

    Examples
    --------
    >>> import keras
    >>> from actgrid.runs import Run
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> images = np.zeros((2, 8, 8, 3), np.uint8)
    >>> with Run(model, images, output="out", drawing={}, preprocess="unit") as run:
    ...     records = list(run)
    >>> records[0].files
    ['000000/00_conv.png', '000000/stats.json']
    """

    _loader_class = ImageLoader

    def __init__(
        self,
        model: ModelLike,
        images: Any,
        layers: LayersLike = None,
        *,
        output: str | Path,
        drawing: DrawingOptions | None = None,
        top: int | None = None,
        **options: Unpack[RunOptions],
    ) -> None:
        check_start(options)
        processing = ProcessingOptions(
            drawing=None if drawing is None else _check_drawing(drawing),
            top=None if top is None else check_option(StatisticsOptions, "top", top),
            batch_size=options["batch_size"],
            shard_size=options["shard_size"],
            threads=options["threads"],
            stats_files=options["stats_files"],
        )
        loader = self._loader_class(options["size"], options["preprocess"], options["fit"])
        if isinstance(images, Items):
            self.items = images
        else:

            def get_model() -> Any:
                nonlocal model
                model = load_model(model)
                return model

            folder = find_local_folder(output)
            self.items = find_run_items(images, folder, get_model, options)
        if isinstance(self.items, SampleItems):
            loader = self._loader_class(preprocess="prepared")
        default = "raise" if self.items.are_named_files else "skip"
        on_error = options["on_error"] or default
        processing = replace(processing, skip_errors=on_error == "skip")
        self.meter = StageMeter()
        self.recorded = 0
        self.failed = 0
        self._engine = _get_engine(options["engine"])
        self._spec = RunSpec(layers, processing, str(output), loader, options["sink"])
        self.store = open_store(output)
        self._manifest = Manifest(self.store)
        self._statistics = None if processing.top is None else DatasetStats(top=processing.top)
        self._first = 0
        self._recorded_before: dict[int, bool] = {}  # index -> whether the image failed
        self._has_begun = False
        self._start = time.perf_counter()
        with ExitStack() as lock:
            lock.enter_context(self.store.lock())
            self._prepare(model, options["resume"], options["overwrite"])
            self._lock = lock.pop_all()

    def _prepare(self, model: ModelLike, resume: bool, overwrite: bool) -> None:
        """Load the model, and decide how to resume or overwrite an earlier run."""
        earlier_run = read_run(self.store)
        if earlier_run is not None and not resume and not overwrite:
            self._check_can_replace(earlier_run)
        network = load_model(model)
        self.loader.check(network, self.items.are_files)
        if (fixed_size := get_fixed_batch_size(network)) is not None:
            processing = replace(self._spec.options, batch_size=fixed_size)
            self._spec = replace(self._spec, options=processing)
        drawing = self._spec.options.drawing
        if drawing is not None and check_order_options(drawing):
            check_gradients(network)
        self.extractor = self._spec.make_extractor(network)
        self._description = self._describe()
        if earlier_run is not None and resume:
            is_finished = earlier_run.pop("finished", False)
            check_same_run(self.store, earlier_run, self._description)
            self._resume(is_finished)
            _log.info(
                "%s: %d images are already recorded", self.store.get_full_path(), self.recorded
            )
            self._has_begun = True
        self._replaces = earlier_run is not None and not self._has_begun
        if earlier_run is not None and self._replaces and not earlier_run.get("finished"):
            self._spec = replace(self._spec, replaces_unfinished=True)
        if resume or overwrite:
            # Temporary files of a killed process; the sinks clean the folders of images.
            self.store.clean(["", TOP])

    @property
    def activity(self) -> str:
        """The activity of the run: ``"drawing"`` or ``"measuring"``."""
        return "measuring" if self._spec.options.drawing is None else "drawing"

    @property
    def model(self) -> Any:
        """The model that the images are preprocessed for."""
        return self.extractor.model

    @property
    def loader(self) -> ImageLoader:
        """The loader of the images."""
        return self._spec.loader

    @property
    def total(self) -> int | None:
        """Number of images; None if it is not known."""
        return self.items.total

    # --- start or resume

    def _describe(self) -> dict[str, Any]:
        """Return the description of the run for ``run.json``."""
        spec, processing, loader = self._spec, self._spec.options, self._spec.loader
        drawing = processing.drawing
        model = self.extractor.model
        layers = list(self.extractor.layers)
        options = {
            "draw": drawing and {name: _to_json(value) for name, value in drawing.items()},
            "top": processing.top,
            "size": _to_json(loader.size),
            "preprocess": _to_json(loader.preprocess),
            "fit": loader.fit,
            "sink": spec.sink,
            "stats_files": processing.stats_files,
            "batch_size": processing.batch_size,
            "shard_size": processing.shard_size,
        }
        return {
            "model": {"name": model.name, "fingerprint": get_network(model).fingerprint()},
            "layers": layers or _to_json(spec.layers),
            "options": options,
            "inputs": {"images": self.items.total, "digest": self.items.digest()},
            "versions": {name: metadata.version(name) for name in _PACKAGES},
        }

    def _check_can_replace(self, earlier_run: Mapping[str, Any]) -> None:
        """Raise RunError if the output contains recorded images of an earlier run."""
        count = len(self._manifest)
        if earlier_run.get("finished"):
            raise RunError(
                f"{self.store.get_full_path()} contains a finished run of {count} images: "
                "overwrite=True (--overwrite) replaces it and removes its files; or choose another "
                "folder"
            )
        if count:
            raise RunError(
                f"{self.store.get_full_path()} contains an unfinished run of {count} images: "
                "resume=True (--resume) continues it, overwrite=True (--overwrite) replaces it"
            )

    def _begin(self) -> None:
        """Remove the files of an earlier run, and write the description of this run."""
        self._has_begun = True
        if self._replaces:
            for name in self._manifest.files():
                self.store.remove(name)
        self._manifest.reset()
        for name in (STATISTICS, SUMMARY, REPORT, *self.store.list_names(TOP)):
            self.store.remove(name)
        write_run(self.store, {**self._description, "finished": False})

    def _resume(self, is_finished: bool) -> None:
        """Read the records of an interrupted run, and set the image at which to continue.

        The run continues at the first image of the first incomplete shard.
        """
        size = self._spec.options.shard_size
        self._manifest.repair()
        measured_images = None
        if self._statistics is not None:
            measured_images = 0
            if (data := self.store.read(STATISTICS)) is not None:
                self._statistics = stats_from_bytes(data)
                measured_images = self._statistics.images
        done_images = 0
        unsynced: list[Record] = []  # records of the last shard: files are synced after a shard
        for index, record in enumerate(self._manifest):
            if record.index != index:
                raise RunError(
                    f"{self.store.get_full_path(MANIFEST)} contains image {record.index} "
                    f"instead of {index}"
                )
            if index % size == 0:
                unsynced.clear()
            # The saved statistics include exactly the shards before this image.
            if index % size == 0 and measured_images in (None, done_images):
                self._start_at(index)
            unsynced.append(record)
            self._recorded_before[index] = record.failed
            done_images += not record.failed
            self.failed += record.failed
            self.recorded += 1
        for record in () if is_finished else self._remove_lost_records(unsynced):
            del self._recorded_before[record.index]
            done_images -= not record.failed
            self.failed -= record.failed
            self.recorded -= 1
        is_complete = self.recorded % size == 0 or self.recorded == self.total
        if measured_images == done_images or (measured_images is None and is_complete):
            self._start_at(self.recorded)
        if self._statistics is not None and self._first == 0:
            # The saved statistics may include images that are not recorded.
            self._statistics = DatasetStats(top=self._statistics.top)

    def _remove_lost_records(self, records: list[Record]) -> list[Record]:
        """Remove records from the manifest whose files a power failure has lost.

        Files of earlier shards are on the storage device. In the last shard, the first record with
        a missing or truncated file and all later records are removed and returned.
        """
        # A tar file is on the storage device before its images are recorded.
        if not self.store.is_local or self._spec.sink == "tar":
            return []
        for position, record in enumerate(records):
            if not all(_is_complete(self.store, name) for name in record.files):
                self._manifest.keep(record.index)
                return records[position:]
        return []

    def _start_at(self, index: int) -> None:
        self._first = index
        self._recorded_before.clear()

    # --- process the images

    def __iter__(self) -> Iterator[Record]:
        with ExitStack() as stack:
            stack.callback(self.close)
            yield from self._process()
            if self._statistics is not None:
                stack.pop_all()  # `finish` closes the run

    def _process(self) -> Iterator[Record]:
        def begin() -> None:
            # The files of an earlier run are removed before the first picture is written. Workers
            # on other machines check by run.json that they have access to the same folder.
            if not self._has_begun and (self._replaces or self._engine is not run_locally):
                self._begin()

        events = self._engine(
            self._spec,
            self.extractor,
            self.items,
            first=self._first,
            begin=begin,
            recorded=self._recorded_before,
            thresholds=self._get_thresholds(),
            meter=self.meter,
        )
        with closing(events):  # type: ignore[type-var]
            for event in events:
                if not self._has_begun:
                    self._begin()
                if isinstance(event, FinishedShard):
                    self._end_shard(event)
                    continue
                self._manifest.append(event)
                self.recorded += 1
                self.failed += event.failed
                if event.failed:
                    _log.warning("%s failed: %s", event.image, event.error)
                else:
                    _log.debug("%s is done", event.image)
                yield event
        if not self._has_begun:
            self._begin()
        self._manifest.close()
        self._remove_other_shards()
        if self._statistics is None:
            self.finish()

    def _get_thresholds(self) -> Mapping[str, Any]:
        if self._statistics is None:
            return {}
        return get_top_thresholds(self._statistics, self._first)

    def _remove_other_shards(self) -> None:
        """Remove tar shards of an earlier, longer run."""
        if self._spec.sink == "tar":
            count = -(-self.recorded // self._spec.options.shard_size)
            others = set(self.store.list_names("shard-")) - set(
                map(format_shard_name, range(count))
            )
            for name in others:
                self.store.remove(name)

    def _end_shard(self, shard: FinishedShard) -> None:
        self._manifest.end_shard(shard.number)
        if self._statistics is not None and shard.statistics is not None:
            self._statistics.merge(shard.statistics)
            self.store.write(STATISTICS, stats_to_bytes(self._statistics))
        self.store.sync()

    def finish(self, top_channels: int | str = 8) -> None:
        """Write the summary, report and top images of the statistics, and finish the run.

        Call this method after the iteration over a run with statistics.

        Parameters
        ----------
        top_channels : int or "all"
            Number of channels of each layer that are shown with their top images; ``"all"``: all
            channels that are not dead.
        """
        if self._statistics is not None:
            channels = None if top_channels == "all" else int(top_channels)
            self._write_results(self._statistics, channels)
        write_run(self.store, {**self._description, "finished": True})
        self.store.sync()
        self.close()

    def _write_results(self, statistics: DatasetStats, channels: int | None) -> None:
        """Write the results of the statistics.

        Parameters
        ----------
        channels
            Number of channels of each layer that are shown; None: all channels.
        """
        drawing = self._spec.options.drawing or {}
        write_results(
            self.store,
            statistics,
            self.extractor,
            self._spec.layers,
            self.items,
            self.loader,
            channels=channels,
            drawing={name: drawing[name] for name in ("normalize", "scope", "cmap") if drawing},
        )

    def close(self) -> None:
        """Unlock the output folder, so that other runs can write to it."""
        self._lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def count_recorded(self) -> int:
        """Return the number of images in the manifest, after which a run can be resumed.

        After an interruption, this number can exceed the attribute `recorded`, which is increased
        only after the record of an image has been written.

        Returns
        -------
        int
            Number of recorded images.
        """
        return len(self._manifest) if self._has_begun else 0

    def summary(self) -> Summary:
        """Return a summary of the images that the run has processed so far.

        Returns
        -------
        Summary
            Numbers of recorded and failed images, the output folder, and the statistics.
        """
        return Summary(
            images=self.recorded,
            failed=self.failed,
            output=self.store.get_full_path(),
            seconds=time.perf_counter() - self._start,
            statistics=self._statistics,
        )


def check_start(options: Mapping[str, Any]) -> None:
    """Raise OptionError if both options `resume` and `overwrite` are set."""
    if options["resume"] and options["overwrite"]:
        raise OptionError("resume and overwrite exclude each other: give only one of them")


def _get_engine(engine: Any) -> Engine:
    if callable(engine):
        return cast(Engine, engine)
    if engine not in ("local", "ray"):
        raise OptionError(f"engine must be local, ray or a RayEngine, not {engine!r}")
    return RayEngine() if engine == "ray" else run_locally


def _is_complete(store: Store, name: str) -> bool:
    """Return whether a picture or JSON file exists and is not truncated."""
    data = store.read(name)
    if not data:
        return False
    try:
        if name.endswith(".json"):
            orjson.loads(data)
        else:
            with Image.open(io.BytesIO(data)) as image:
                # Verifying the checksums of a PNG takes a tenth of the time of decoding.
                image.verify() if image.format == "PNG" else image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error):
        return False
    return True


def _check_drawing(drawing: DrawingOptions) -> DrawingOptions:
    """Check and complete the drawing options, as far as possible without a model.

    The backend ``"auto"`` is replaced by a name: pictures of backends can differ by a level.
    """
    options = cast(DrawingOptions, complete_options(DrawingOptions, drawing))
    check_order_options(options)
    load_backend(options["backend"])
    if options["backend"] == "auto":
        options["backend"] = find_first_backend()
    return options


def _to_json(value: Any) -> Any:
    """Convert an option value to JSON types. Equal values give equal results."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple, range, np.ndarray)):
        return [_to_json(item) for item in value]
    name = getattr(value, "__qualname__", None) or getattr(value, "name", None)
    return str(name or type(value).__qualname__)
