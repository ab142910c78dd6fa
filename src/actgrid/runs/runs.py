"""A run: a model over many images, to files, a manifest and statistics, begun or resumed."""

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
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import orjson
from PIL import Image

from actgrid.errors import OptionError, RunError
from actgrid.models import load_model
from actgrid.models.inputs import batch_size_of
from actgrid.models.networks import network_of
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_groups import check_option, complete_options, takes_options
from actgrid.options import DrawingOptions, RunOptions, StatisticsOptions
from actgrid.rendering.backends import first_backend, load_backend
from actgrid.runs.engines import Engine, local
from actgrid.runs.findings import REPORT, SUMMARY, TOP, write_findings
from actgrid.runs.jobs import Job, Loading
from actgrid.runs.manifest import (
    MANIFEST,
    Manifest,
    Record,
    check_same,
    read_run,
    write_run,
)
from actgrid.runs.ray import RayEngine
from actgrid.runs.sinks import shard_name
from actgrid.runs.sources import Items, find_items
from actgrid.runs.stores import Store, local_folder, open_store
from actgrid.runs.work import Meter, Shard, Work
from actgrid.statistics.dataset import (
    STATISTICS,
    DatasetStats,
    bytes_of,
    stats_from,
    top_thresholds,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Run", "Summary", "check_start"]

_PACKAGES = ("actgrid", "tensorflow", "keras", "numpy", "pillow")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What came of a run.

    Attributes
    ----------
    images
        How many are recorded, by this process or before it was resumed.
    failed
        How many of them failed.
    output
        Where everything is.
    seconds
        How long this process took.
    statistics
        Of all images, where they were taken.
    """

    images: int
    failed: int
    output: str
    seconds: float
    statistics: DatasetStats | None


@takes_options(RunOptions)
class Run:
    """A model over many images. To iterate over it does the work, and yields record after record.

    Where statistics are taken, `finish` then makes a report of them. The output is locked against
    other runs until the run has ended or failed, or is closed; a ``with`` block closes it.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    images
        See `find_items`.
    layers
        Which, see `actgrid.Extractor`.
    output
        A folder, or a URL that fsspec takes.
    drawing
        Options of the pictures, see `actgrid.options.DrawingOptions`; None: nothing is drawn.
    top
        Number of top images to keep for each channel in statistics; None: none are taken.
    **options
        See `actgrid.options.RunOptions`.

    Raises
    ------
    RunError
        If an earlier run would be lost, if the one to resume is of other options, or if another
        run is writing to the same output. Also a ValueError.
    ActgridError
        Whatever `find_items`, `load_model`, `Extractor` and `render` raise.
    """

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
        work = Work(
            drawing=None if drawing is None else _checked(drawing),
            top=None if top is None else check_option(StatisticsOptions, "top", top),
            batch_size=options["batch_size"],
            shard_size=options["shard_size"],
            threads=options["threads"],
        )
        loading = Loading(options["size"], options["preprocess"], options["fit"])
        self.items = (
            images if isinstance(images, Items) else find_items(images, local_folder(output))
        )
        usual = "raise" if self.items.single else "skip"
        work = replace(work, skip_errors=(options["on_error"] or usual) == "skip")
        self.meter = Meter()
        self.recorded = 0
        self.failed = 0
        self._engine = _engine(options["engine"])
        self._job = Job(layers, work, str(output), loading, options["sink"])
        self.store = open_store(output)
        self._manifest = Manifest(self.store)
        self._statistics = None if work.top is None else DatasetStats(top=work.top)
        self._first = 0
        self._before: dict[int, bool] = {}
        self._begun = False
        self._start = time.perf_counter()
        with ExitStack() as locked:
            locked.enter_context(self.store.lock())
            self._prepare(model, options["resume"], options["overwrite"])
            self._locked = locked.pop_all()

    def _prepare(self, model: ModelLike, resume: bool, overwrite: bool) -> None:
        """Load the model, and find out what an earlier run has done."""
        before = read_run(self.store)
        if before is not None and not resume and not overwrite:
            self._check_nothing_is_lost(before)
        network = load_model(model)
        self._job.loading.check(network, self.items.files)
        if (fixed := batch_size_of(network)) is not None:
            self._job = replace(self._job, work=replace(self._job.work, batch_size=fixed))
        self.extractor = self._job.extractor(network)
        self._run = self._describe()
        if before is not None and resume:
            finished = before.pop("finished", False)
            check_same(self.store, before, self._run)
            self._resume(finished)
            _log.info("%s: %d images are done already", self.store.place(), self.recorded)
            self._begun = True
        self._replaces = before is not None and not self._begun
        if before is not None and self._replaces and not before.get("finished"):
            self._job = replace(self._job, replaces_unfinished=True)
        if resume or overwrite:
            # What a process left that was killed; sinks look after the folders of images.
            self.store.clean(["", TOP])

    @property
    def doing(self) -> str:
        """What is done to the images, in a word."""
        return "measuring" if self._job.work.drawing is None else "drawing"

    @property
    def loading(self) -> Loading:
        """How images become input of the model."""
        return self._job.loading

    @property
    def total(self) -> int | None:
        """How many images there are; None: not known."""
        return self.items.total

    # --- begin or resume

    def _describe(self) -> dict[str, Any]:
        job, work = self._job, self._job.work
        model = self.extractor.model
        found = list(self.extractor.layers)
        options = {
            "draw": work.drawing and {name: _plain(value) for name, value in work.drawing.items()},
            "top": work.top,
            "size": _plain(job.loading.size),
            "preprocess": _plain(job.loading.preprocess),
            "fit": job.loading.fit,
            "sink": job.sink,
            "batch_size": work.batch_size,
            "shard_size": work.shard_size,
        }
        return {
            "model": {"name": model.name, "fingerprint": network_of(model).fingerprint()},
            "layers": found or _plain(job.layers),
            "options": options,
            "inputs": {"images": self.items.total, "digest": self.items.digest()},
            "versions": {name: metadata.version(name) for name in _PACKAGES},
        }

    def _check_nothing_is_lost(self, before: Mapping[str, Any]) -> None:
        count = len(self._manifest)
        if before.get("finished"):
            raise RunError(
                f"{self.store.place()} holds a finished run of {count} images: overwrite=True "
                "(--overwrite) replaces it and removes its files, or choose another folder"
            )
        if count:
            raise RunError(
                f"{self.store.place()} holds an unfinished run ({count} images are recorded): "
                "resume=True (--resume) goes on, overwrite=True (--overwrite) begins anew"
            )

    def _begin(self) -> None:
        """Replace what an earlier run wrote by an empty run of these options."""
        self._begun = True
        if self._replaces:
            for name in self._manifest.files():
                self.store.remove(name)
        self._manifest.reset()
        for name in (STATISTICS, SUMMARY, REPORT, *self.store.names(TOP)):
            self.store.remove(name)
        write_run(self.store, {**self._run, "finished": False})

    def _resume(self, finished: bool) -> None:
        """Find out where to go on: at the first shard of which something is missing."""
        size = self._job.work.shard_size
        self._manifest.repair()
        counted = None
        if self._statistics is not None:
            counted = 0
            if (saved := self.store.read(STATISTICS)) is not None:
                self._statistics = stats_from(saved)
                counted = self._statistics.images
        used = 0
        unsynced: list[Record] = []  # of the last shard: the next one begins after a sync
        for index, record in enumerate(self._manifest):
            if record.index != index:
                raise RunError(
                    f"{self.store.place(MANIFEST)} has image {record.index} in the place of {index}"
                )
            if index % size == 0:
                unsynced.clear()
            # The statistics that were saved are those of the shards up to here.
            if index % size == 0 and counted in (None, used):
                self._start_at(index)
            unsynced.append(record)
            self._before[index] = record.failed
            used += not record.failed
            self.failed += record.failed
            self.recorded += 1
        for record in () if finished else self._lost(unsynced):
            del self._before[record.index]
            used -= not record.failed
            self.failed -= record.failed
            self.recorded -= 1
        whole = self.recorded % size == 0 or self.recorded == self.total
        if counted == used or (counted is None and whole):
            self._start_at(self.recorded)
        if self._statistics is not None and self._first == 0:
            # Saved ones may know of more than is recorded.
            self._statistics = DatasetStats(top=self._statistics.top)

    def _lost(self, records: list[Record]) -> list[Record]:
        """Return, and remove from the manifest, the records whose files a power cut has lost.

        Files of the shards before are on the device. Of the last shard, each record with a file
        that is missing or truncated goes, and each record after it.
        """
        # A tar is on the device before its images are recorded.
        if not self.store.local or self._job.sink == "tar":
            return []
        for position, record in enumerate(records):
            if not all(_is_whole(self.store, name) for name in record.files):
                self._manifest.keep(record.index)
                return records[position:]
        return []

    def _start_at(self, index: int) -> None:
        self._first = index
        self._before.clear()

    # --- do the work

    def __iter__(self) -> Iterator[Record]:
        with ExitStack() as unlocking:
            unlocking.callback(self.close)
            yield from self._work()
            if self._statistics is not None:
                unlocking.pop_all()  # `finish` is still to come

    def _work(self) -> Iterator[Record]:
        def begin() -> None:
            # Before a picture takes the place of one that an earlier run records. Workers elsewhere
            # look for run.json, to know that they see the same place.
            if not self._begun and (self._replaces or self._engine is not local):
                self._begin()

        events = self._engine(
            self._job,
            self.extractor,
            self.items,
            first=self._first,
            begin=begin,
            recorded=self._before,
            thresholds=self._thresholds(),
            meter=self.meter,
        )
        with closing(events):  # type: ignore[type-var]
            for event in events:
                if not self._begun:
                    self._begin()
                if isinstance(event, Shard):
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
        if not self._begun:
            self._begin()
        self._manifest.close()
        self._remove_other_shards()
        if self._statistics is None:
            self.finish()

    def _thresholds(self) -> Mapping[str, Any]:
        if self._statistics is None:
            return {}
        return top_thresholds(self._statistics, self._first)

    def _remove_other_shards(self) -> None:
        """Remove what a longer run left here, which a reader of all tar files would take along."""
        if self._job.sink == "tar":
            count = -(-self.recorded // self._job.work.shard_size)
            others = set(self.store.names("shard-")) - set(map(shard_name, range(count)))
            for name in others:
                self.store.remove(name)

    def _end_shard(self, shard: Shard) -> None:
        self._manifest.end_shard(shard.number)
        if self._statistics is not None and shard.statistics is not None:
            self._statistics.merge(shard.statistics)
            self.store.write(STATISTICS, bytes_of(self._statistics))
        self.store.sync()

    def finish(self, top_channels: int | str = 8) -> None:
        """Write what is made of statistics, see `write_findings`: then the run is finished.

        To be called at the end of a run that takes statistics.

        Parameters
        ----------
        top_channels
            Number of channels of each layer that are shown with their top images; ``"all"``: all
            that are not dead.
        """
        if self._statistics is not None:
            drawing = self._job.work.drawing or {}
            write_findings(
                self.store,
                self._statistics,
                self.extractor,
                self._job.layers,
                self.items,
                self._job.loading,
                channels=None if top_channels == "all" else int(top_channels),
                drawing={name: drawing[name] for name in ("normalize", "scope", "cmap") if drawing},
            )
        write_run(self.store, {**self._run, "finished": True})
        self.store.sync()
        self.close()

    def close(self) -> None:
        """Unlock the output, if that has not been done."""
        self._locked.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def kept(self) -> int:
        """Return how many images a resumed run will find recorded.

        From the files: an interruption may come after an image was recorded, before it is counted.
        """
        return len(self._manifest) if self._begun else 0

    def summary(self) -> Summary:
        """Return what came of it so far."""
        return Summary(
            images=self.recorded,
            failed=self.failed,
            output=self.store.place(),
            seconds=time.perf_counter() - self._start,
            statistics=self._statistics,
        )


def check_start(options: Mapping[str, Any]) -> None:
    """Raise OptionError if a run is to be both resumed and overwritten."""
    if options["resume"] and options["overwrite"]:
        raise OptionError("a run is resumed or overwritten, not both")


def _engine(engine: Any) -> Engine:
    if callable(engine):
        return cast(Engine, engine)
    if engine not in ("local", "ray"):
        raise OptionError(f"engine must be local, ray or a RayEngine, not {engine!r}")
    return RayEngine() if engine == "ray" else local


def _is_whole(store: Store, name: str) -> bool:
    """Return whether a picture or JSON file of a run is there and not truncated."""
    data = store.read(name)
    if not data:
        return False
    try:
        if name.endswith(".json"):
            orjson.loads(data)
        else:
            with Image.open(io.BytesIO(data)) as image:
                # PNG has checksums, which take a tenth of the time of decoding.
                image.verify() if image.format == "PNG" else image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error):
        return False
    return True


def _checked(drawing: DrawingOptions) -> DrawingOptions:
    """Return all options of drawing, checked as far as they can be before there is a model.

    The backend is one, by its name: what another draws may differ by a level.
    """
    options = cast(DrawingOptions, complete_options(DrawingOptions, drawing))
    load_backend(options["backend"])
    if options["backend"] == "auto":
        options["backend"] = first_backend()
    return options


def _plain(value: Any) -> Any:
    """Return a value as JSON can tell it, the same whenever it is the same."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple, range, np.ndarray)):
        return [_plain(one) for one in value]
    named = getattr(value, "__qualname__", None) or getattr(value, "name", None)
    return str(named or type(value).__qualname__)
