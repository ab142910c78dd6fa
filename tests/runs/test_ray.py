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

# Ray Data warns of options of its own that it sets itself.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*is deprecated:DeprecationWarning:ray\.data")


def forked_workers(fork_server: str) -> dict[str, str]:
    """Return the environment for Ray's workers that has them forked, instead of started.

    So they need not import TensorFlow.
    """
    return {"py_executable": f"{sys.executable} -S {FORK_SERVER} run {fork_server}"}


@pytest.fixture(scope="module")
def ray(fork_server: str) -> Iterator[Any]:
    """Return Ray, running with two CPUs for actors and one beside them."""
    module = pytest.importorskip("ray", exc_type=ImportError)
    pytest.importorskip("ray.data", exc_type=ImportError)
    # Workers do not find this file: they are sent what is taken from it.
    module.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    options = {"include_dashboard": False, "log_to_driver": False}
    module.init("local", num_cpus=3, runtime_env=forked_workers(fork_server), **options)
    yield module
    module.shutdown()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "small.keras"
    random_model().save(file)
    return file


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images whose first pixel tells which they are; one is broken."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(IMAGES):
        pixels = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        pixels[0, 0] = index
        Image.fromarray(pixels).save(folder / f"{index:03}.png")
    (folder / f"{BROKEN:03}.png").write_bytes(b"no image")
    return folder


def random_model() -> Any:
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
    def scaled(pixels: Array) -> Array:
        return (preprocess(pixels) if preprocess else pixels) / 255

    options: dict[str, Any] = {"drawing": {}, "top": 2, "batch_size": 2, "shard_size": SHARD}
    return Run(model, photos, output=output, preprocess=scaled, **{**options, **given})


def dies_once(flag: Path, leftover: Path) -> Preprocess:
    """Return what kills its process in the middle of the first shard, while it writes a file."""
    flag.touch()

    def preprocess(pixels: Array) -> Array:
        if pixels[0, 0, 0, 0] == 2 and flag.exists():
            flag.unlink()
            leftover.parent.mkdir(parents=True, exist_ok=True)
            leftover.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels

    return preprocess


def content(folder: Path) -> dict[str, Any]:
    """Return all files of a run, less what depends on the time."""
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
    """Return what gives the files that the local engine writes for a sink."""
    folder = tmp_path_factory.mktemp("local")
    for sink in ("folders", "tar"):
        list(run(model_file, photos, folder / sink, sink=sink))
    return lambda sink: content(folder / sink)


@pytest.mark.parametrize("sink", ["folders", "tar"])
def test_output_is_that_of_the_local_engine_although_a_worker_is_killed(
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
    going = run(model_file, photos, output, dies_once(flag, leftover), sink=sink, engine=engine)
    for index, record in enumerate(going):
        assert record.index == index
        assert all((output / re.sub(r"(\.tar)/.*", r"\1", file)).exists() for file in record.files)
    assert not flag.exists()
    assert content(output) == expected(sink)
    # Who watches hears of it, once.
    (message,) = (line for name, _, line in caplog.record_tuples if name == "actgrid.runs.ray")
    assert message == (
        f"1 Ray worker died at images {photos / '000.png'} to {photos / '003.png'} and was "
        "replaced; the run goes on"
    )
    assert going.meter.images >= IMAGES
    assert all(going.meter.seconds.values())


def test_a_run_that_was_stopped_is_resumed(
    ray: Any,
    model_file: Path,
    photos: Path,
    tmp_path: Path,
    expected: Callable[[str], dict[str, Any]],
) -> None:
    engine = RayEngine(actors=1)  # which is sent the model
    for record in run(model_file, photos, tmp_path, engine=engine):
        if record.index == SHARD + 1:
            break
    resumed = run(model_file, photos, tmp_path, resume=True, engine=engine)
    assert resumed.recorded == SHARD + 2
    assert [record.index for record in resumed] == list(range(SHARD + 2, IMAGES))
    assert content(tmp_path) == expected("folders")


def test_a_finished_run_needs_no_workers(model_file: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    list(run(model_file, photos, tmp_path, shard_size=IMAGES))
    engine = RayEngine(num_gpus=500)  # which there are not
    going = run(model_file, photos, tmp_path, shard_size=IMAGES, resume=True, engine=engine)
    assert list(going) == []


# --- what stops a run


def stopped(going: Run, kind: type[Exception], match: str) -> list[int]:
    """Return which images were recorded before an error stopped a run."""
    seen: list[int] = []
    with pytest.raises(kind, match=match):
        seen.extend(record.index for record in going)
    return seen


def test_a_bad_image_stops_a_run_after_those_before_it(
    ray: Any, model_file: Path, photos: Path, tmp_path: Path
) -> None:
    going = run(model_file, photos, tmp_path, on_error="raise", engine=RayEngine(actors=1))
    assert stopped(going, OSError, rf"{BROKEN:03}\.png") == list(range(BROKEN))


def test_what_cannot_be_written_stops_a_run(
    ray: Any, model_file: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "005").write_bytes(b"in the way")
    going = run(model_file, photos, tmp_path, engine=RayEngine(actors=1))
    assert stopped(going, OutputError, "cannot make the folder") == list(range(5))


def test_images_that_kill_each_worker_stop_a_run(
    ray: Any,
    model_file: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actgrid.runs.ray._MOST_ATTEMPTS", 1)

    def dies(pixels: Array) -> Array:
        if pixels[0, 0, 0, 0] == SHARD:
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels

    going = run(model_file, photos, tmp_path, dies, engine=RayEngine(actors=1))
    assert stopped(going, RunError, r"died.*004\.png to .*007\.png") == list(range(SHARD))


def test_workers_that_make_another_model_are_refused(
    ray: Any, model_file: Path, photos: Path, tmp_path: Path
) -> None:
    going = run(model_file, photos, tmp_path, engine=RayEngine(actors=1, model=random_model))
    assert stopped(going, ModelError, "random weights.*save") == []
    assert not list(tmp_path.glob("0*"))


def test_a_model_that_cannot_be_sent_is_refused(ray: Any, photos: Path, tmp_path: Path) -> None:
    class Unsaved(keras.layers.ReLU):  # type: ignore[misc]
        def get_config(self) -> Any:
            raise NotImplementedError("a layer without a config")

    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), Unsaved()])
    going = run(model, photos, tmp_path, engine=RayEngine())
    message = "sent to workers.*a layer without a config; give .* a function that returns it"
    assert stopped(going, ModelError, message) == []


def test_more_actors_than_there_are_cpus_for_are_refused(
    ray: Any, model_file: Path, photos: Path, tmp_path: Path
) -> None:
    going = run(model_file, photos, tmp_path, engine=RayEngine(actors=3))
    message = r"Ray has 3 logical CPUs, .*3 actors .* need 4.*ray\.init\(num_cpus=4\)"
    assert stopped(going, OptionError, message) == []
    going = run(model_file, photos, tmp_path, engine=RayEngine(num_gpus=500))
    assert stopped(going, OptionError, r"logical GPUs, .* need 1000") == []


def test_a_cluster_that_is_not_there_is_told(
    ray: Any, model_file: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    going = run(model_file, photos, tmp_path, engine=RayEngine(address="127.0.0.1:1"))
    assert stopped(going, OptionError, "cannot be reached at 127.0.0.1:1: .*refused") == []


def test_workers_must_see_the_output(
    ray: Any, model_file: Path, photos: Path, tmp_path: Path
) -> None:
    def elsewhere(*arguments: Any, begin: Any, **options: Any) -> Iterator[Any]:
        def begin_elsewhere() -> None:
            begin()
            (tmp_path / "run.json").unlink()

        return RayEngine(actors=1)(*arguments, begin=begin_elsewhere, **options)

    going = run(model_file, photos, tmp_path, engine=elsewhere)
    assert stopped(going, OutputError, f"{tmp_path} is another place.*machines share") == []


def test_images_that_are_no_files_are_refused(model_file: Path, tmp_path: Path) -> None:
    arrays = [np.zeros((SIDE, SIDE, 3), np.uint8)]
    going = Run(model_file, arrays, output=tmp_path, drawing={}, engine=RayEngine())
    assert stopped(going, OptionError, "give files") == []


def test_no_ray_is_told(
    model_file: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    going = run(model_file, photos, tmp_path, engine=RayEngine())
    assert stopped(going, MissingDependencyError, r"pip install 'actgrid\[ray\]'") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actors": 0}, "actors must be at least 1, not 0"),
        ({"actors": 1.5}, "actors must be an integer"),
        ({"num_gpus": -1}, "num_gpus must be a number of at least 0"),
        ({"num_cpus": "two"}, "num_cpus must be a number"),
    ],
)
def test_numbers_are_checked_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RayEngine(**options)


# --- Ray that the command starts


# A model whose second call, the first in a worker, kills its process.
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
def test_the_command_starts_ray_and_tells_of_a_worker_that_died_alone(
    photos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    (tmp_path / "nets.py").write_text(NETS)
    for name in ("h5py", "numpy", "PIL", "orjson"):  # which no worker may import from here
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
        "replaced; the run goes on\n"
    )
    assert ran.returncode == 1
    lines = ran.stdout.splitlines()
    assert len(lines) == IMAGES + 3
    assert lines[-1] == f"{IMAGES} images, 1 failed: out"
