"""Settings and fixtures for the whole test suite."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from tests.fork_server import request_process
from tests.models.packaged_models import find_basic_pitch

import actgrid
from actgrid.bench import Run

# TensorFlow reads this when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# No deadline: the first example includes the compilation of numba code.
settings.register_profile(
    "actgrid", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("actgrid")


_BYTES_PER_PROCESS = 6 << 30  # TensorFlow and the subprocesses of tests


def _get_memory() -> int:
    """Return the size of the memory in bytes; 0 on Windows, which does not tell it."""
    if sys.platform == "win32":
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the options
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in parallel, as processors and memory permit, unless `-n0`.

    Selected files run in this process, which starts faster.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:  # a worker process of pytest-xdist
        return
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if is_whole and getattr(config.option, "numprocesses", 0) is None and not config.option.usepdb:
        processes = min(os.cpu_count() or 1, _get_memory() // _BYTES_PER_PROCESS)
        if processes > 1:
            # The tests of a file run in one process, which creates their fixtures once.
            config.option.numprocesses, config.option.dist = processes, "loadfile"


@dataclass
class Clock:
    """A substitute for `time.perf_counter` that advances only by `work`."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, *seconds: float) -> Run:
        """Return a function that advances the clock by the given seconds in turn."""
        times = itertools.cycle(seconds)

        def run() -> None:
            self.now += next(times)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("actgrid.bench.measuring.perf_counter", clock)
    return clock


class ForkedPython(subprocess.Popen[str]):
    """A Python process forked from a process that has imported TensorFlow.

    It accepts the `OPTIONS` of `subprocess.Popen`, and code `first` that runs before the program.
    """

    OPTIONS = frozenset({"stdin", "stdout", "stderr", "text", "encoding", "cwd", "env"})

    def __init__(self, server: str, arguments: Sequence[object], **options: Any) -> None:
        self.server, self.first = server, options.pop("first", "")
        if unknown := options.keys() - self.OPTIONS:  # an unsupported option would be ignored
            raise TypeError(f"a forked process takes no {', '.join(unknown)}")
        super().__init__(arguments, **options)  # type: ignore[arg-type]

    # Popen calls this method once the pipes exist, with equal arguments in all versions.
    def _execute_child(self, arguments: Sequence[object], *others: Any) -> None:
        folder, environment, pipes = others[4], others[5], others[9:15]
        ends = (pipes[0], pipes[3], pipes[5])
        streams = [number if end == -1 else end for number, end in enumerate(ends)]
        self.pid, connection = request_process(
            self.server,
            arguments,
            streams,
            str(folder or Path.cwd()),
            os.environ if environment is None else environment,
            self.first,
        )
        connection.close()
        assert self.pid, "the server has ended"
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start fork_server.py and return the path of its socket."""
    if sys.platform != "linux":
        pytest.skip("only Linux lets a process wait for the children of its children")
    set_child_subreaper, enable = 36, 1
    ctypes.CDLL(None).prctl(set_child_subreaper, enable, 0, 0, 0)
    path = tmp_path_factory.mktemp("server") / "socket"
    command = [sys.executable, str(Path(__file__).with_name("fork_server.py")), "serve", str(path)]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        yield str(path)


@pytest.fixture(scope="session")
def start_python(fork_server: str) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts `python -m MODULE ...` or `python -c CODE ...`.

    The process is forked with TensorFlow imported, which otherwise takes seconds.
    """
    return lambda *arguments, **options: ForkedPython(fork_server, arguments, **options)


@pytest.fixture(scope="session")
def export_demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    """Return a function that exports the embedded network to TFLite, and keeps the files."""
    folder = tmp_path_factory.mktemp("exports")

    def export(quantization: Any) -> Path:
        from tests.models.exports import export_tflite

        path, saved_model = folder / f"{quantization}.tflite", folder / "saved_model"
        if not path.exists():
            model = actgrid.load_model("demo")
            photo = actgrid.load_images([actgrid.demo.photo()], model)
            samples = np.concatenate([photo, photo[:, :, ::-1] / 2])
            if not saved_model.exists():  # the first half of a conversion
                model.export(str(saved_model), verbose=False)
            export_tflite(saved_model, path, quantization, samples)
        return path

    return export


@pytest.fixture(scope="session")
def basic_pitch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a real network that was exported to TFLite, ONNX and SavedModel."""
    return find_basic_pitch(tmp_path_factory.mktemp("basic_pitch"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome")
        found = next(filter(None, map(shutil.which, names)), playwright.chromium.executable_path)
        if not Path(found).exists():
            pytest.skip("no Chromium is installed")
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def opened(browser: Any) -> Callable[[Path], AbstractContextManager[Any]]:
    """Open an HTML file in a browser; check that it causes no errors and no requests."""

    @contextmanager
    def opened(path: Path) -> Iterator[Any]:
        context = browser.new_context(viewport={"width": 1300, "height": 900})
        page = context.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda request: problems.append(request.url))
        page.goto(path.as_uri())
        yield page
        requested = [problem for problem in problems if not problem.startswith("data:")]
        context.close()
        assert requested == [path.as_uri()]

    return opened


@pytest.fixture(scope="session")
def assert_levels_agree() -> Callable[..., None]:
    """Compare the pictures of a layer from two compiled TensorFlow graphs.

    TensorFlow fuses the operations of each graph differently, and without oneDNN the last bits of
    their results differ: 2 of 247,107 levels of the embedded network, by one level each. Levels of
    the same array are compared exactly instead.
    """

    def assert_agree(
        found: npt.NDArray[np.uint8],
        expected: npt.NDArray[np.uint8],
        colours: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        if colours is not None:
            # (256, 3), all different: RGB pictures are converted back to levels.
            level_of = {colour.tobytes(): level for level, colour in enumerate(colours)}
            found, expected = (
                np.array([level_of[pixel.tobytes()] for pixel in picture.reshape(-1, 3)], np.uint8)
                for picture in (found, expected)
            )
        assert found.shape == expected.shape
        differences = np.abs(found.astype(int) - expected.astype(int))
        assert differences.max(initial=0) <= 1
        assert np.count_nonzero(differences) <= max(2, differences.size // 10_000)

    return assert_agree
