"""The work of a run on Ray: actors on this machine or on the machines of a cluster.

Ray Data would read images too, but decode them otherwise than the local engine, and stop at the
first that is broken. So its rows are shards of the run, and workers read the images themselves.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import pickle
import signal
import socket
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

from actgrid.errors import (
    ActgridError,
    AssumptionWarning,
    MissingDependencyError,
    ModelError,
    OptionError,
    OutputError,
    RunError,
)
from actgrid.models import Extractor
from actgrid.models.networks import network_of
from actgrid.option_checks import integer_option, number_option
from actgrid.progress import held_back
from actgrid.runs.jobs import Job
from actgrid.runs.manifest import RUN, Record
from actgrid.runs.sources import Item, Items
from actgrid.runs.stores import open_store
from actgrid.runs.work import Meter, Shard
from actgrid.statistics.dataset import DatasetStats, bytes_of, stats_from, top_thresholds

__all__ = ["RayEngine"]

_log = logging.getLogger(__name__)

# Workers die of what they do, or of what befalls their machines.
_MOST_ATTEMPTS = 4
# While a worker is at a shard, the next one waits beside it.
_SHARDS_IN_FLIGHT = 2
# For Ray where it is started: it would tell of itself, here and to its makers.
_ENVIRONMENT = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}
_PATIENCE = 10  # seconds
_GIVE_MODEL = "give RayEngine a function that returns it, as model=..."


@dataclass(frozen=True)
class RayEngine:
    """Does the work of a run by actors of Ray's, each with a model, shard by shard.

    What is written is what the local engine writes. Where Ray runs already it is used as it is;
    otherwise a cluster is joined, or Ray is started on this machine for the time of the run.

    Parameters
    ----------
    actors
        How many processes work.
    num_gpus, num_cpus
        How many logical GPUs and CPUs of Ray's each of them takes.
    address
        Of a cluster to join, ``"auto"`` for the one at hand; None: Ray on this machine.
    model
        Returns the model, on each worker. None: each is sent a copy of the run's model.

    Raises
    ------
    OptionError
        If a number cannot be used; in a run also if Ray has too few CPUs or GPUs, if there is no
        cluster at the address, or if images are not files. Also a ValueError.
    MissingDependencyError
        In a run, if Ray is not installed. Also an ImportError.
    ModelError
        In a run, if workers cannot have its model. Also a ValueError.
    RunError
        In a run, if Ray stops, or workers die of a shard. Also a ValueError.

    Examples
    --------
    >>> run = Run("demo", "photos", "activations", drawing={}, engine=RayEngine(actors=4))
    >>> records = list(run)
    """

    actors: int = 2
    num_gpus: float = 0
    num_cpus: float = 1
    address: str | None = None
    model: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        integer_option("actors", self.actors, 1)
        number_option("num_gpus", self.num_gpus)
        number_option("num_cpus", self.num_cpus)

    def __call__(
        self,
        job: Job,
        extractor: Extractor,
        items: Items,
        *,
        first: int,
        begin: Callable[[], None],
        recorded: Mapping[int, bool],
        thresholds: Mapping[str, Any],
        meter: Meter,
    ) -> Iterator[Record | Shard]:
        """Yield what `process` does, see `Engine`; workers have thresholds of their own."""
        if not items.files:
            raise OptionError(
                "with Ray the workers read the images themselves: give files, not arrays"
            )
        ray = _ray()
        shards = list(_packed_shards(job, items, first, recorded))
        if not shards:
            return
        with self._connected(ray):
            self._check_resources(ray.cluster_resources())
            # A reference, so that workers fetch a large model once, by shared memory.
            plan = ray.put(_packed_plan(ray, job, extractor, self.model))
            begin()
            results = self._results(ray, shards, plan)
            with closing(results):  # type: ignore[type-var]
                for done in results:
                    if done.deaths:
                        _log.warning(
                            "%d Ray worker%s died %s and %s replaced; the run goes on",
                            done.deaths,
                            "s" if done.deaths > 1 else "",
                            done.place,
                            "were" if done.deaths > 1 else "was",
                        )
                    meter.add(done.images, done.seconds)
                    yield from done.records
                    if done.problem is not None:
                        raise done.problem from RuntimeError(f"in a worker:\n{done.trace}")
                    stats = done.statistics and stats_from(done.statistics)
                    yield Shard(done.number, stats or None)
        # Nobody writes there any more, and of tar shards this is where killed workers did.
        open_store(job.output).clean()

    @contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        if ray.is_initialized():
            yield
            return
        problem = f"Ray cannot be reached at {self.address}"
        options: dict[str, Any] = {"address": self.address}
        if self.address is None:
            problem = "Ray cannot be started"
            cpus = max(os.cpu_count() or 1, math.ceil(self._cpus))
            options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        with _quiet():
            try:
                _knock(self.address)
                with held_back(), _own_end(), _own_path():
                    ray.init(**options, log_to_driver=False, logging_level=logging.CRITICAL)
            except (OSError, ValueError, RuntimeError) as error:
                raise OptionError(f"{problem}: {error}") from error
            try:
                yield
            finally:
                ray.shutdown()

    @property
    def _cpus(self) -> float:
        return self.actors * self.num_cpus + 1

    def _check_resources(self, there: Mapping[str, float]) -> None:
        """Raise OptionError where Ray would wait for ever for what it does not have."""
        for name, needed in (("CPU", self._cpus), ("GPU", self.actors * self.num_gpus)):
            if needed > (found := there.get(name, 0)):
                share = self.num_cpus if name == "CPU" else self.num_gpus
                raise OptionError(
                    f"Ray has {found:g} logical {name}s, and {self.actors} actors with {share:g} "
                    f"each{' and one beside them' if name == 'CPU' else ''} need {needed:g}: take "
                    f"fewer actors, or start Ray with more, as by "
                    f"ray.init(num_{name.lower()}s={math.ceil(needed)})"
                )

    def _results(self, ray: Any, shards: list[bytes], plan: Any) -> Iterator[_Done]:
        """Yield what workers return, in the order of the shards."""
        data = importlib.import_module("ray.data")
        counter = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Attempts)
        attempts = counter.remote(_MOST_ATTEMPTS)
        actors = min(self.actors, len(shards))
        # Where a worker dies Ray begins its block again: one shard.
        dataset = data.from_items(
            [{"shard": shard} for shard in shards], override_num_blocks=len(shards)
        )
        shards.clear()  # Ray has them: of a million images they are large
        dataset.context.execution_options.preserve_order = True
        dataset.context.execution_no_progress_timeout_s = -1  # a shard may take long
        dataset.context.enable_progress_bars = False
        dataset.context.print_on_execution_start = False
        dataset = dataset.map_batches(
            _Worker,
            batch_size=1,
            fn_constructor_args=(plan, attempts),
            compute=data.ActorPoolStrategy(
                size=actors,
                max_tasks_in_flight_per_actor=_SHARDS_IN_FLIGHT,
            ),
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
        )
        try:
            with closing(iter(dataset.iter_batches(batch_size=None, prefetch_batches=0))) as done:
                for batch in done:
                    yield from map(pickle.loads, batch["done"])
        except ray.exceptions.RayError as error:
            raise RunError(f"Ray stopped: {_first_line(error)}") from error


@dataclass(frozen=True)
class _Plan:
    """What a worker is to do; its model is a function that returns it, or a pickled one."""

    job: Job
    model: Callable[[], Any] | bytes
    fingerprint: str
    folder: str

    def extractor(self) -> Extractor:
        """Return the extractor, of the same model as the driver's."""
        # Before TensorFlow is loaded. Several workers may share a GPU.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        with suppress(OSError):
            os.chdir(self.folder)  # paths may be relative
        store = open_store(self.job.output)
        if store.read(RUN) is None:
            raise OutputError(
                f"{store.place()} is another place on {socket.gethostname()}, where a worker runs: "
                "write to a folder that all machines share, or to a URL"
            )
        try:
            model = pickle.loads(self.model) if isinstance(self.model, bytes) else self.model()
        except ActgridError:
            raise
        except Exception as error:
            raise ModelError(
                f"a worker cannot load the model: {type(error).__name__}: {_first_line(error)}; "
                f"{_GIVE_MODEL}"
            ) from error
        if network_of(model).fingerprint() != self.fingerprint:
            raise ModelError(
                "a worker loads another model than this process, of random weights perhaps: save "
                "the model to a .keras file, and give that"
            )
        return self.job.extractor(model)


@dataclass
class _Done:
    """What a worker has done of a shard, and the problem that stopped it, if any."""

    number: int
    records: list[Record] = field(default_factory=list)
    statistics: bytes | None = None
    images: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    problem: Exception | None = None
    trace: str = ""
    # Workers that died before this one did it, and what they were doing.
    deaths: int = 0
    place: str = ""

    def fail(self, error: Exception) -> None:
        """Note a problem. Ray would raise one of its own that only tells of it."""
        self.trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        try:
            self.problem = pickle.loads(pickle.dumps(error))
        except Exception:
            self.problem = RuntimeError(f"{type(error).__name__}: {error}")


class _Worker:
    """Holds model and extractor, and does shard after shard."""

    def __init__(self, plan: Any, attempts: Any) -> None:
        # The model is loaded with the first shard: Ray replaces a worker that dies of a task, but
        # waits for ever for one that dies here.
        self._ray = importlib.import_module("ray")
        self._plan, self._attempts = plan, attempts
        self._extractor: Extractor | None = None
        self._problem: Exception | None = None

    def _load(self, place: str) -> int:
        """Load the model; return how many workers died of that in this one's place."""
        if self._problem is not None:
            raise self._problem
        try:
            me = self._ray.get_runtime_context().get_actor_id()  # the same once it is begun again
            deaths = self._attempt(me, place) - 1
            # The process that began the run has said what it assumes.
            warnings.simplefilter("ignore", AssumptionWarning)
            plan: _Plan = pickle.loads(self._ray.get(self._plan))
            self._job, self._extractor = plan.job, plan.extractor()
        except Exception as error:
            self._problem = error
            raise
        self._attempts.succeed.remote(me)
        top = self._job.work.top
        self._seen = None if top is None else DatasetStats(top=top)
        self._last = -1
        return deaths

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was done of shards."""
        return {"done": [pickle.dumps(self._do(*pickle.loads(one))) for one in batch["shard"]]}

    def _do(self, number: int, items: list[Item], recorded: Mapping[int, bool]) -> _Done:
        done, meter = _Done(number), Meter()
        try:
            extractor = self._begin(done, items)
            # Those that it did before are there when this one is merged, if they come before it.
            seen = self._seen if number > self._last else None
            self._last = max(self._last, number)
            thresholds = {} if seen is None else top_thresholds(seen, items[0].index)
            for event in self._job.run(
                extractor, items, recorded=recorded, thresholds=thresholds, meter=meter
            ):
                if isinstance(event, Record):
                    done.records.append(event)
                elif event.statistics is not None:
                    done.statistics = bytes_of(event.statistics)
                    if seen is not None:
                        seen.merge(event.statistics)
        except Exception as error:
            done.fail(error)
        done.images, done.seconds = meter.images, meter.seconds
        return done

    def _begin(self, done: _Done, items: list[Item]) -> Extractor:
        if self._extractor is None:
            done.place = f"while loading the model on {socket.gethostname()}"
            done.deaths = self._load(done.place)
        assert self._extractor is not None
        place = f"at images {items[0].name} to {items[-1].name}"
        if deaths := self._attempt(done.number, place) - 1:
            done.deaths, done.place = deaths, place
        return self._extractor

    def _attempt(self, what: object, place: str) -> int:
        """Return how often something has been begun, with this time."""
        count: int
        count, max_count = self._ray.get(self._attempts.begin.remote(what))
        if count > max_count:
            raise RunError(
                f"{max_count} workers died, one after the other, {place}: is there too little "
                "memory for so many workers?"
            )
        return count


class _Attempts:
    """Counts how often something is begun that kills workers, as Ray would do for ever."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun: Counter[object] = Counter()

    def begin(self, what: object) -> tuple[int, int]:
        """Return how often it has been begun, with this time, and how often it may be."""
        self._begun[what] += 1
        return self._begun[what], self._most

    def succeed(self, what: object) -> None:
        """Forget how often it was begun."""
        del self._begun[what]


def _packed_shards(
    job: Job, items: Items, first: int, recorded: Mapping[int, bool]
) -> Iterator[bytes]:
    """Yield each shard: its number, its items, and what is recorded of them."""
    size = job.work.shard_size
    for number, group in groupby(items.start(first), lambda item: item.index // size):
        shard = list(group)
        known = {item.index: recorded[item.index] for item in shard if item.index in recorded}
        yield pickle.dumps((number, shard, known))


def _packed_plan(
    ray: Any, job: Job, extractor: Extractor, model: Callable[[], Any] | None
) -> bytes:
    # Layers may be chosen by objects, which are others on a worker.
    job = replace(job, layers=list(extractor.layers) or job.layers)
    name = extractor.model.name
    try:
        source = model or pickle.dumps(extractor.model)
    except Exception as error:
        raise ModelError(
            f"the model {name!r} cannot be sent to workers: {type(error).__name__}: "
            f"{_first_line(error)}; {_GIVE_MODEL}"
        ) from error
    plan = _Plan(job, source, network_of(extractor.model).fingerprint(), str(Path.cwd()))
    try:
        packed: bytes = ray.cloudpickle.dumps(plan)
    except Exception as error:
        raise OptionError(
            f"what workers are to do cannot be sent to them: {type(error).__name__}: "
            f"{_first_line(error)}"
        ) from error
    return packed


@contextmanager
def _own_end() -> Iterator[None]:
    """Let SIGTERM do what it did before, instead of telling where C++ stood."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    with suppress(ValueError):  # in another thread than the main one
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _own_path() -> Iterator[None]:
    """Keep Ray from importing modules of the current folder before those of libraries.

    Ray puts the driver's current folder first on its workers' `sys.path`: a file there, such as a
    download called h5py.py, would be imported in the place of a library. Nothing is done where this
    process itself looks there first, as a notebook does.
    """
    folder, package = Path.cwd(), Path(__file__).parents[2]
    before = takewhile(lambda path: path != package, (Path(entry).resolve() for entry in sys.path))
    if folder in before:
        yield
        return
    os.chdir(package)  # where workers look anyway
    try:
        yield
    finally:
        os.chdir(folder)


def _knock(address: str | None) -> None:
    """Raise OSError where nobody answers at HOST:PORT, for whom Ray waits many minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def _ray() -> Any:
    try:
        module = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise MissingDependencyError(
            f"the engine ray needs Ray ({error}); to get it, pip install 'actgrid[ray]'"
        ) from error
    return module


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Ray tells of itself from the terminal; its folder has logs."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
    levels = [logger.level for logger in loggers]
    added = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    try:
        os.environ.update(added)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for name in added:
            del os.environ[name]
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
