from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from actgrid.errors import MissingDependencyError, ModelError, OptionError, OutputError, RunError
from actgrid.runs.ray import RayEngine
from actgrid.runs.runs import Run

Array = npt.NDArray[Any]
Preprocess = Callable[[Array], Array]

SIDE = 8
IMAGES, SHARD = 11, 4
BROKEN = 6
FORK_SERVER = Path(__file__).parents[1] / "fork_server.py"
LEFTOVER = f".{'0' * 32}.part"


def get_fork_environment(fork_server: str) -> dict[str, str]:
    """Return environment variables that make Ray fork its workers from fork_server.py.

    Forked workers need not import TensorFlow.
    """
    return {"py_executable": f"{sys.executable} -S {FORK_SERVER} run {fork_server}"}


@pytest.fixture(scope="module")
def ray(fork_server: str) -> Iterator[Any]:
    """Start Ray with two CPUs for actors and one more, and return the module."""
    module = pytest.importorskip("ray", exc_type=ImportError)
    # Workers cannot import this file: its functions are sent by value.
    module.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    options = {"include_dashboard": False, "log_to_driver": False}
    module.init("local", num_cpus=3, runtime_env=get_fork_environment(fork_server), **options)
    yield module
    module.shutdown()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "small.keras"
    make_random_model().save(file)
    return file


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images whose first pixel is their number, and one broken image."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(IMAGES):
        pixels = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        pixels[0, 0] = index
        Image.fromarray(pixels).save(folder / f"{index:03}.png")
    (folder / f"{BROKEN:03}.png").write_bytes(b"no image")
    return folder


def make_random_model() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3, name="dense"),
        ]
    )


def load(file: Path) -> Any:
    return keras.models.load_model(file)


def run(
    model: Any, photos: Path, output: Path, preprocess: Preprocess | None = None, **given: Any
) -> Run:
    def scale(pixels: Array) -> Array:
        return (preprocess(pixels) if preprocess else pixels) / 255

    options: dict[str, Any] = {"drawing": {}, "top": 2, "batch_size": 2, "shard_size": SHARD}
    return Run(model, photos, output=output, preprocess=scale, **{**options, **given})


def make_killer(flag: Path, leftover: Path) -> Preprocess:
    """Return a function that kills its process once, while the first shard is written."""
    flag.touch()

    def preprocess(pixels: Array) -> Array:
        if pixels[0, 0, 0, 0] == 2 and flag.exists():
            flag.unlink()
            leftover.parent.mkdir(parents=True, exist_ok=True)
            leftover.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels

    return preprocess


def read_content(folder: Path) -> dict[str, Any]:
    """Read all files of a run, without durations."""
    found: dict[str, Any] = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    lines = map(json.loads, found["manifest.jsonl"].splitlines())
    found["manifest.jsonl"] = [{**line, "milliseconds": None} for line in lines]
    return found


@pytest.fixture(scope="module")
def expected(
    model_file: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """Return a function that runs the local engine, and returns its files."""
    folder = tmp_path_factory.mktemp("local")
    for sink in ("folders", "tar"):
        list(run(model_file, photos, folder / sink, sink=sink))
    return lambda sink: read_content(folder / sink)


@pytest.mark.parametrize("sink", ["folders", "tar"])
def test_ray_writes_files_of_local_engine_despite_killed_worker(
    ray: Any,
    model_file: Path,
    photos: Path,
    tmp_path: Path,
    expected: Callable[[str], dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    sink: str,
) -> None:
    flag, output = tmp_path / "flag", tmp_path / "output"
    leftover = output / LEFTOVER if sink == "tar" else output / "002" / LEFTOVER
    engine = RayEngine(actors=2, model=partial(load, model_file))
    going = run(model_file, photos, output, make_killer(flag, leftover), sink=sink, engine=engine)
    for index, record in enumerate(going):
        assert record.index == index
        assert all((output / re.sub(r"(\.tar)/.*", r"\1", file)).exists() for file in record.files)
    assert not flag.exists()
    assert read_content(output) == expected(sink)
    # The death is logged once.
    (message,) = (line for name, _, line in caplog.record_tuples if name == "actgrid.runs.ray")
    assert message == (
        f"1 Ray worker died at images {photos / '000.png'} to {photos / '003.png'} and was "
        "replaced; the run continues"
    )
    assert going.meter.images >= IMAGES
    assert all(going.meter.seconds.values())


def test_workers_share_processors(ray: Any, model_file: Path, photos: Path, tmp_path: Path) -> None:
    threads = tmp_path / "threads"
    threads.mkdir()

    def log_threads(pixels: Array) -> Array:
        (threads / str(os.getpid())).write_text(os.environ["TF_NUM_INTRAOP_THREADS"])
        return pixels

    list(run(model_file, photos, tmp_path / "output", log_threads, engine=RayEngine(actors=2)))
    expected = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert {file.read_text() for file in threads.iterdir()} == {expected}


def test_stopped_run_is_resumed(
    ray: Any,
    model_file: Path,
    photos: Path,
    tmp_path: Path,
    expected: Callable[[str], dict[str, Any]],
) -> None:
    engine = RayEngine(actors=1)  # the worker receives a copy of the model
    for record in run(model_file, photos, tmp_path, engine=engine):
        if record.index == SHARD + 1:
            break
    resumed = run(model_file, photos, tmp_path, resume=True, engine=engine)
    assert resumed.recorded == SHARD + 2
    assert [record.index for record in resumed] == list(range(SHARD + 2, IMAGES))
    assert read_content(tmp_path) == expected("folders")


def test_finished_run_starts_no_workers(model_file: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    list(run(model_file, photos, tmp_path, shard_size=IMAGES))
    engine = RayEngine(num_gpus=500)  # more than available
    going = run(model_file, photos, tmp_path, shard_size=IMAGES, resume=True, engine=engine)
    assert list(going) == []


# --- errors


def stop_early(going: Run, kind: type[Exception], match: str) -> list[int]:
    """Return the images that were recorded before an error stopped the run."""
    seen: list[int] = []
    with pytest.raises(kind, match=match):
        seen.extend(record.index for record in going)
    return seen


def test_broken_image_stops_run_after_earlier_images(
    ray: Any, model_file: Path, photos: Path, tmp_path: Path
) -> None:
    going = run(model_file, photos, tmp_path, on_error="raise", engine=RayEngine(actors=1))
    assert stop_early(going, OSError, rf"{BROKEN:03}\.png") == list(range(BROKEN))


def test_write_error_stops_run(ray: Any, model_file: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "005").write_bytes(b"in the way")
    going = run(model_file, photos, tmp_path, engine=RayEngine(actors=1))
    assert stop_early(going, OutputError, "cannot make the folder") == list(range(5))


def test_images_that_kill_every_worker_stop_run(
    ray: Any,
    model_file: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actgrid.runs.ray._MAX_ATTEMPTS", 1)

    def die(pixels: Array) -> Array:
        if pixels[0, 0, 0, 0] == SHARD:
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels

    going = run(model_file, photos, tmp_path, die, engine=RayEngine(actors=1))
    assert stop_early(going, RunError, r"died.*004\.png to .*007\.png") == list(range(SHARD))


def test_different_model_of_workers_is_rejected(
    ray: Any, model_file: Path, photos: Path, tmp_path: Path
) -> None:
    going = run(model_file, photos, tmp_path, engine=RayEngine(actors=1, model=make_random_model))
    assert stop_early(going, ModelError, "random weights.*save") == []
    assert not list(tmp_path.glob("0*"))


def test_model_that_cannot_be_pickled_is_rejected(ray: Any, photos: Path, tmp_path: Path) -> None:
    class Unsaved(keras.layers.ReLU):  # type: ignore[misc]
        def get_config(self) -> Any:
            raise NotImplementedError("a layer without a config")

    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), Unsaved()])
    going = run(model, photos, tmp_path, engine=RayEngine())
    message = "sent to workers.*a layer without a config; pass .* a function that returns the model"
    assert stop_early(going, ModelError, message) == []


def test_too_many_actors_for_cpus_are_rejected(
    ray: Any, model_file: Path, photos: Path, tmp_path: Path
) -> None:
    going = run(model_file, photos, tmp_path, engine=RayEngine(actors=3))
    message = r"Ray has 3 logical CPUs, .*3 actors .* need 4.*ray\.init\(num_cpus=4\)"
    assert stop_early(going, OptionError, message) == []
    going = run(model_file, photos, tmp_path, engine=RayEngine(num_gpus=500))
    assert stop_early(going, OptionError, r"logical GPUs, .* need 1000") == []


def test_unreachable_cluster_is_reported(
    ray: Any, model_file: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    going = run(model_file, photos, tmp_path, engine=RayEngine(address="127.0.0.1:1"))
    assert stop_early(going, OptionError, "cannot be reached at 127.0.0.1:1: .*refused") == []


def test_workers_require_access_to_output(
    ray: Any, model_file: Path, photos: Path, tmp_path: Path
) -> None:
    def run_elsewhere(*arguments: Any, begin: Any, **options: Any) -> Iterator[Any]:
        def begin_elsewhere() -> None:
            begin()
            (tmp_path / "run.json").unlink()

        return RayEngine(actors=1)(*arguments, begin=begin_elsewhere, **options)

    going = run(model_file, photos, tmp_path, engine=run_elsewhere)
    assert stop_early(going, OutputError, f"{tmp_path} is a different folder.*machines share") == []


def test_arrays_are_rejected_by_ray_engine(model_file: Path, tmp_path: Path) -> None:
    arrays = [np.zeros((SIDE, SIDE, 3), np.uint8)]
    going = Run(model_file, arrays, output=tmp_path, drawing={}, engine=RayEngine())
    assert stop_early(going, OptionError, "requires image files") == []


def test_missing_ray_is_reported(
    model_file: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    going = run(model_file, photos, tmp_path, engine=RayEngine())
    assert stop_early(going, MissingDependencyError, r"pip install 'actgrid\[ray\]'") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actors": 0}, "actors must be at least 1, not 0"),
        ({"actors": 1.5}, "actors must be an integer"),
        ({"num_gpus": -1}, "num_gpus must be a number of at least 0"),
        ({"num_cpus": "two"}, "num_cpus must be a number"),
    ],
)
def test_engine_checks_its_numbers(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RayEngine(**options)


# --- Ray started by the command


# A model that kills its process at the second call, the first call in a worker.
NETS = """
import os, signal
from pathlib import Path
from actgrid import demo

def make():
    calls = [Path(__file__).with_name(name) for name in ("driver", "killed")]
    for call in calls:
        try:
            call.touch(exist_ok=False)
        except FileExistsError:
            continue
        if call.name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        break
    return demo.model()
"""


@pytest.mark.slow
def test_command_starts_ray_and_reports_only_dead_workers(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    (tmp_path / "nets.py").write_text(NETS)
    # Workers must not import these files from the current folder.
    for name in ("h5py", "numpy", "PIL", "orjson"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(9)")
    command = [sys.executable, "-m", "actgrid", "render", "nets:make", str(photos), "--layers", "1"]
    ran = subprocess.run(
        [*command, "-o", "out", "--shard-size", "6", "--engine", "ray", "--actors", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.stderr == (
        f"actgrid: 1 Ray worker died while loading the model on {socket.gethostname()} and was "
        "replaced; the run continues\n"
    )
    assert ran.returncode == 1
    lines = ran.stdout.splitlines()
    assert len(lines) == IMAGES + 3
    assert lines[-1] == f"{IMAGES} images, 1 failed: out"
