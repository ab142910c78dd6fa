"""Process runs with Ray: actors on this machine or on the machines of a cluster."""

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
from collections import Counter, deque
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
from actgrid.models.frameworks import load_tensorflow
from actgrid.models.networks import get_network
from actgrid.option_checks import check_integer, check_number, resolve_thread_count
from actgrid.progress import buffer_stderr
from actgrid.runs.manifest import RUN, Record
from actgrid.runs.processing import FinishedShard, StageMeter
from actgrid.runs.run_spec import RunSpec
from actgrid.runs.sources import Item, Items
from actgrid.runs.stores import open_store
from actgrid.statistics.dataset import (
    DatasetStats,
    get_top_thresholds,
    stats_from_bytes,
    stats_to_bytes,
)

__all__ = ["RayEngine"]

# Number of a shard, its images, and index -> whether the image failed, for recorded images.
_Shard = tuple[int, list[Item], dict[int, bool]]

_log = logging.getLogger(__name__)

# Attempts at a shard before the run stops: a shard may kill its workers.
_MAX_ATTEMPTS = 4
# Disable messages and usage statistics of a Ray instance that actgrid starts.
_ENVIRONMENT = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}
_CONNECT_SECONDS = 10
_STOP_SECONDS = 10
_MODEL_ADVICE = "pass RayEngine a function that returns the model, as model=..."


@dataclass(frozen=True)
class RayEngine:
    """Processes the shards of a run with Ray actors, each of which loads the model.

    The written files are those of the local engine. If Ray is already initialized, it is used.
    Otherwise a cluster is joined, or Ray is started on this machine for the duration of the run.

    Parameters
    ----------
    actors : int
        Number of worker processes.
    num_gpus : float
        Logical GPUs of each actor.
    num_cpus : float
        Logical CPUs of each actor.
    address : str or None
        Address of a cluster to join; ``"auto"``: the cluster that is already running; None: a new
        Ray instance on this machine.
    model : callable or None
        Returns the model on each worker; None: each worker receives a copy of the run's model.

    Raises
    ------
    OptionError
        If a number is not valid. In a run: if Ray has too few CPUs or GPUs, if the cluster cannot
        be reached, or if the images are not files. Also a ValueError.
    MissingDependencyError
        In a run: if Ray is not installed. Also an ImportError.
    ModelError
        In a run: if a worker cannot load the model. Also a ValueError.
    RunError
        In a run: if Ray stops, or a shard repeatedly kills workers. Also a ValueError.

    Examples
    --------
    >>> from actgrid.runs import RayEngine, Run
    >>> engine = RayEngine(actors=4)
    >>> run = Run("demo", "photos", output="out", drawing={}, engine=engine)  # doctest: +SKIP
    >>> records = list(run)  # doctest: +SKIP
    """

    actors: int = 2
    num_gpus: float = 0
    num_cpus: float = 1
    address: str | None = None
    model: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        check_integer("actors", self.actors, 1)
        check_number("num_gpus", self.num_gpus)
        check_number("num_cpus", self.num_cpus)

    def __call__(
        self,
        spec: RunSpec,
        extractor: Extractor,
        items: Items,
        *,
        first: int,
        begin: Callable[[], None],
        recorded: Mapping[int, bool],
        thresholds: Mapping[str, Any],
        meter: StageMeter,
    ) -> Iterator[Record | FinishedShard]:
        """Process images on Ray; yield records and finished shards as `Engine` describes.

        Each worker keeps its own thresholds of the top images.
        """
        if not items.are_files:
            raise OptionError(
                "engine='ray' requires image files, because the workers read the images"
            )
        ray = _import_ray()
        size = spec.options.shard_size
        assert items.total is not None
        shard_count = max(0, math.ceil((items.total - first) / size))
        if shard_count == 0:
            return
        with self._connect(ray):
            self._check_resources(ray.cluster_resources())
            # Ray ends the counter once this process holds no reference to it.
            attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(
                _AttemptCounter
            ).remote(_MAX_ATTEMPTS)
            workers = self._start_workers(ray, min(self.actors, shard_count), attempts)
            # With a reference, workers fetch a large model once, through shared memory.
            task = ray.put(_pickle_task(ray, spec, extractor, self.model))
            begin()
            shards = _iterate_shards(size, items, first, recorded)
            results = _iterate_results(ray, workers, task, shards, shard_count)
            with closing(results):  # type: ignore[type-var]
                for result in results:
                    if result.deaths:
                        _log.warning(
                            "%d Ray worker%s died %s and %s replaced; the run continues",
                            result.deaths,
                            "s" if result.deaths > 1 else "",
                            result.activity,
                            "were" if result.deaths > 1 else "was",
                        )
                    meter.add(result.images, result.seconds)
                    yield from result.records
                    if result.problem is not None:
                        raise result.problem from RuntimeError(f"in a worker:\n{result.trace}")
                    stats = result.statistics and stats_from_bytes(result.statistics)
                    yield FinishedShard(result.number, stats or None)
        # All workers have ended; remove incomplete tar files of killed workers.
        open_store(spec.output).clean()

    @contextmanager
    def _connect(self, ray: Any) -> Iterator[None]:
        if ray.is_initialized():
            yield
            return
        problem = f"Ray cannot be reached at {self.address}"
        options: dict[str, Any] = {"address": self.address}
        if self.address is None:
            problem = "Ray cannot be started"
            cpus = max(os.cpu_count() or 1, math.ceil(self._needed_cpus))
            options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        with _silence_ray():
            try:
                _check_reachable(self.address)
                with buffer_stderr(), _keep_sigterm_handler(), _protect_import_path():
                    ray.init(**options, log_to_driver=False, logging_level=logging.CRITICAL)
            except (OSError, ValueError, RuntimeError) as error:
                raise OptionError(f"{problem}: {error}") from error
            try:
                yield
            finally:
                ray.shutdown()

    @property
    def _needed_cpus(self) -> float:
        return self.actors * self.num_cpus + 1

    def _check_resources(self, resources: Mapping[str, float]) -> None:
        """Raise OptionError if Ray has too few CPUs or GPUs for the workers.

        Ray itself would wait forever.
        """
        for name, needed in (("CPU", self._needed_cpus), ("GPU", self.actors * self.num_gpus)):
            if needed > (available := resources.get(name, 0)):
                per_actor = self.num_cpus if name == "CPU" else self.num_gpus
                raise OptionError(
                    f"Ray has {available:g} logical {name}s, but {self.actors} actors with "
                    f"{per_actor:g} each{' and one more CPU' if name == 'CPU' else ''} need "
                    f"{needed:g}: use fewer actors, or start Ray with more, such as by "
                    f"ray.init(num_{name.lower()}s={math.ceil(needed)})"
                )

    def _start_workers(self, ray: Any, count: int, attempts: Any) -> list[Any]:
        """Start the workers, which import TensorFlow while this process prepares their task."""
        machines = sum(
            node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes()
        )
        # If a worker dies, Ray starts it again and repeats its shard.
        worker_class = ray.remote(
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy="SPREAD",
        )(_Worker)
        workers_per_machine = math.ceil(count / max(1, machines))
        return [worker_class.remote(attempts, workers_per_machine) for _ in range(count)]


def _iterate_results(
    ray: Any, workers: list[Any], task: Any, shards: Iterator[_Shard], shard_count: int
) -> Iterator[_ShardResult]:
    """Yield the results of the workers in the order of the shards.

    Each worker processes one shard at a time, so that few shards are distributed evenly.
    """
    # If a worker dies during the import, its first shard reports the death.
    busy = {
        worker.import_tensorflow.options(max_task_retries=0).remote(): worker for worker in workers
    }
    results: deque[Any] = deque()
    try:
        for _ in range(shard_count):
            is_ready = False
            while not is_ready:
                is_ready = bool(results) and results[0] not in busy
                done, _ = ray.wait(list(busy), timeout=0 if is_ready else None)
                for reference in done:
                    worker = busy.pop(reference)
                    if (shard := next(shards, None)) is not None:
                        results.append(worker.process.remote([task], *shard))
                        busy[results[-1]] = worker
            yield ray.get(results.popleft())
    except ray.exceptions.RayError as error:
        raise RunError(f"Ray stopped: {_get_first_line(error)}") from error
    finally:
        if ray.is_initialized():
            for worker in workers:
                ray.kill(worker)
            # A worker that is still busy must not write after the run.
            ray.wait(list(busy), num_returns=len(busy), timeout=_STOP_SECONDS)


@dataclass(frozen=True)
class _WorkerTask:
    """Data that a Ray worker needs: the run specification and the model or its loader."""

    spec: RunSpec
    model: Callable[[], Any] | bytes
    fingerprint: str
    folder: str

    def make_extractor(self) -> Extractor:
        """Load the model, check that it is that of the driver, and return its extractor."""
        with suppress(OSError):
            os.chdir(self.folder)  # paths may be relative
        store = open_store(self.spec.output)
        if store.read(RUN) is None:
            raise OutputError(
                f"{store.get_full_path()} is a different folder on {socket.gethostname()}, where a "
                "worker runs: write to a folder that all machines share, or to a URL"
            )
        try:
            model = pickle.loads(self.model) if isinstance(self.model, bytes) else self.model()
        except ActgridError:
            raise
        except Exception as error:
            raise ModelError(
                f"a worker cannot load the model: {type(error).__name__}: "
                f"{_get_first_line(error)}; {_MODEL_ADVICE}"
            ) from error
        if get_network(model).fingerprint() != self.fingerprint:
            raise ModelError(
                "a worker loads a model that differs from the model of this process, for example "
                "by random weights: save the model to a .keras file, and pass the file"
            )
        return self.spec.make_extractor(model)


@dataclass
class _ShardResult:
    """Result of processing one shard: records, statistics and the error that ended it."""

    number: int
    records: list[Record] = field(default_factory=list)
    statistics: bytes | None = None
    images: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    problem: Exception | None = None
    trace: str = ""
    # Number of workers that died at this shard before, and their activity.
    deaths: int = 0
    activity: str = ""

    def set_problem(self, error: Exception) -> None:
        """Store an exception and its traceback text in the result.

        Ray itself would not transmit the traceback.
        """
        self.trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        try:
            self.problem = pickle.loads(pickle.dumps(error))
        except Exception:
            self.problem = RuntimeError(f"{type(error).__name__}: {error}")


class _Worker:
    """Ray actor that loads the model once and then processes shards of images."""

    def __init__(self, attempts: Any, workers_per_machine: int) -> None:
        # The model is loaded with the first shard: Ray replaces a worker that dies in a task, but
        # waits for ever for a worker that dies in its constructor.
        self._ray = importlib.import_module("ray")
        self._attempts = attempts
        # Workers that each use all processors of their machine slow each other down.
        self._threads = max(1, resolve_thread_count(None) // workers_per_machine)
        self._extractor: Extractor | None = None
        self._problem: Exception | None = None

    def import_tensorflow(self) -> None:
        """Import TensorFlow and Keras, while the driver process prepares the task."""
        # TensorFlow reads these at import. Several workers may share a GPU.
        for name, value in {
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "TF_NUM_INTRAOP_THREADS": str(self._threads),
        }.items():
            os.environ.setdefault(name, value)
        load_tensorflow()

    def _load(self, task: Any, activity: str) -> int:
        """Load the model; return the number of earlier workers that died while loading it."""
        if self._problem is not None:
            raise self._problem
        try:
            actor_id = self._ray.get_runtime_context().get_actor_id()  # kept after a restart
            deaths = self._count_attempt(actor_id, activity) - 1
            # The driver process has already issued these warnings.
            warnings.simplefilter("ignore", AssumptionWarning)
            loaded: _WorkerTask = pickle.loads(self._ray.get(task))
            options = loaded.spec.options
            options = replace(options, threads=options.threads or self._threads)
            self._spec = replace(loaded.spec, options=options)
            self._extractor = loaded.make_extractor()
        except Exception as error:
            self._problem = error
            raise
        self._attempts.succeed.remote(actor_id)
        top = self._spec.options.top
        self._statistics = None if top is None else DatasetStats(top=top)
        self._last_number = -1
        return deaths

    def process(
        self, task: list[Any], number: int, items: list[Item], recorded: Mapping[int, bool]
    ) -> _ShardResult:
        """Process a shard; return its result, which also describes an error.

        Parameters
        ----------
        task
            List of one reference to a pickled `_WorkerTask`, which Ray does not resolve.
        number
            Number of the shard.
        items
            Images of the shard.
        recorded
            Index -> whether the image failed, for images that an earlier run recorded.
        """
        result, meter = _ShardResult(number), StageMeter()
        try:
            extractor = self._prepare(task[0], result, items)
            # Only statistics of earlier shards can raise the thresholds: these are merged first.
            statistics = self._statistics if number > self._last_number else None
            self._last_number = max(self._last_number, number)
            thresholds = (
                {} if statistics is None else get_top_thresholds(statistics, items[0].index)
            )
            for event in self._spec.process(
                extractor, items, recorded=recorded, thresholds=thresholds, meter=meter
            ):
                if isinstance(event, Record):
                    result.records.append(event)
                elif event.statistics is not None:
                    result.statistics = stats_to_bytes(event.statistics)
                    if statistics is not None:
                        statistics.merge(event.statistics)
        except Exception as error:
            result.set_problem(error)
        result.images, result.seconds = meter.images, meter.seconds
        return result

    def _prepare(self, task: Any, result: _ShardResult, items: list[Item]) -> Extractor:
        """Load the model if necessary, and count the attempt to process a shard.

        Return the extractor of the layers.
        """
        if self._extractor is None:
            result.activity = f"while loading the model on {socket.gethostname()}"
            result.deaths = self._load(task, result.activity)
        assert self._extractor is not None
        activity = f"at images {items[0].name} to {items[-1].name}"
        if deaths := self._count_attempt(result.number, activity) - 1:
            result.deaths, result.activity = deaths, activity
        return self._extractor

    def _count_attempt(self, key: object, activity: str) -> int:
        """Count an attempt to process a shard or load the model; return the new count.

        Raise RunError if the count exceeds the maximum.
        """
        count: int
        count, max_count = self._ray.get(self._attempts.begin.remote(key))
        if count > max_count:
            raise RunError(
                f"{max_count} workers died in succession {activity}: the machine may have too "
                "little memory for this number of workers"
            )
        return count


class _AttemptCounter:
    """Ray actor that counts how often workers tried to process each shard.

    Without a limit, Ray would retry forever a shard whose images kill its worker.
    """

    def __init__(self, max_attempts: int) -> None:
        self._max_attempts = max_attempts
        self._counts: Counter[object] = Counter()

    def begin(self, key: object) -> tuple[int, int]:
        """Count an attempt for a key; return the number of attempts and the maximum."""
        self._counts[key] += 1
        return self._counts[key], self._max_attempts

    def succeed(self, key: object) -> None:
        """Reset the number of attempts for a key after a success."""
        del self._counts[key]


def _iterate_shards(
    size: int, items: Items, first: int, recorded: Mapping[int, bool]
) -> Iterator[_Shard]:
    """Yield the shards from the image with index `first` on."""
    for number, group in groupby(items.start(first), lambda item: item.index // size):
        shard = list(group)
        yield (
            number,
            shard,
            {item.index: recorded[item.index] for item in shard if item.index in recorded},
        )


def _pickle_task(
    ray: Any, spec: RunSpec, extractor: Extractor, model: Callable[[], Any] | None
) -> bytes:
    # Paths select the layers, because layer objects are different objects on a worker.
    spec = replace(spec, layers=list(extractor.layers) or spec.layers)
    name = extractor.model.name
    try:
        source = model or pickle.dumps(extractor.model)
    except Exception as error:
        raise ModelError(
            f"the model {name!r} cannot be sent to workers: {type(error).__name__}: "
            f"{_get_first_line(error)}; {_MODEL_ADVICE}"
        ) from error
    fingerprint = get_network(extractor.model).fingerprint()
    task = _WorkerTask(spec, source, fingerprint, str(Path.cwd()))
    try:
        pickled: bytes = ray.cloudpickle.dumps(task)
    except Exception as error:
        raise OptionError(
            f"the options cannot be sent to workers: {type(error).__name__}: "
            f"{_get_first_line(error)}"
        ) from error
    return pickled


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore the SIGTERM handler, which Ray replaces when it starts."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    with suppress(ValueError):  # raised outside of the main thread
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _protect_import_path() -> Iterator[None]:
    """Keep workers from importing modules of the current folder instead of libraries.

    Ray puts the current folder of the driver first on the `sys.path` of its workers. A file there,
    such as a download named h5py.py, would be imported instead of the library. If this process
    itself searches that folder first, as a notebook does, nothing is changed.
    """
    folder, package = Path.cwd(), Path(__file__).parents[2]
    paths = (Path(entry).resolve() for entry in sys.path)
    if folder in takewhile(lambda path: path != package, paths):
        yield
        return
    os.chdir(package)  # already on the path of workers
    try:
        yield
    finally:
        os.chdir(folder)


def _check_reachable(address: str | None) -> None:
    """Raise OSError if HOST:PORT does not answer; Ray itself would wait many minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


def _get_first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def _import_ray() -> Any:
    try:
        module = importlib.import_module("ray")
    except ImportError as error:
        raise MissingDependencyError(
            f"engine='ray' needs Ray ({error}); install it with pip install 'actgrid[ray]'"
        ) from error
    return module


@contextmanager
def _silence_ray() -> Iterator[None]:
    """Suppress messages of Ray on the terminal; Ray also writes log files."""
    loggers = [logging.getLogger("ray")]
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
