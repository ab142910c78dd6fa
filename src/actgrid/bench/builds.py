"""Find or install builds of actgrid, and start worker processes that time them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import actgrid
from actgrid.errors import BackendError, MissingFileError, OptionError

__all__ = ["Build", "Worker", "choose_processor", "get_this_build", "open_build", "start_worker"]

_WORKER = Path(__file__).with_name("worker.py")
_KINDS = (
    "a wheel, a checkout with its pyproject.toml, an environment, a folder that contains "
    "actgrid, a Python interpreter, or a .json file that --save wrote"
)


@dataclass(frozen=True)
class Build:
    """Record of a build of actgrid: a Python interpreter and a package folder.

    Parameters
    ----------
    python : str
        Path of the Python interpreter.
    folder : pathlib.Path or None
        Folder that contains the package; None: the interpreter's own packages.

    Examples
    --------
    >>> actgrid.bench.Build("/usr/bin/python3")
    Build(python='/usr/bin/python3', folder=None)
    """

    python: str
    folder: Path | None = None


@dataclass(frozen=True)
class Worker:
    """A process that times benchmark cases on a build, one case at a time.

    Parameters
    ----------
    build : Build
        The build that the process imports.
    process : subprocess.Popen
        The process; it reads requests and writes answers as JSON lines.
    errors : file object
        Temporary file with the standard error of the process.

    Examples
    --------
    >>> with actgrid.bench.start_worker(actgrid.bench.get_this_build()) as worker:
    ...     facts = worker.describe()
    ...     seconds = worker.time("paint, 7 px")
    >>> sorted(facts)
    ['backend', 'folder', 'python', 'simd', 'version']
    >>> seconds > 0
    True
    """

    build: Build
    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def describe(self) -> dict[str, Any]:
        """Return facts about the build: folder, version, Python, backend, SIMD variant.

        Call this once, before `time`.

        Returns
        -------
        dict
            Name of the fact -> str or None.

        Raises
        ------
        OptionError
            If the process cannot import the build.
        """
        facts = self._read_answer()
        folder = self.build.folder
        if folder is not None and Path(facts["folder"]) != folder.resolve():
            raise OptionError(
                f"actgrid of {folder} cannot be imported: {facts['folder']} takes precedence, such "
                "as an editable install; run the comparison in an environment without it"
            )
        return facts

    def time(self, case: str, part: str = "ours") -> float:
        """Time a benchmark case, or the fixed computation (yardstick) of the case.

        Parameters
        ----------
        case : str
            Name of the case, see `make_cases`.
        part : {"ours", "yardstick"}
            Whether to time the case itself or its yardstick.

        Returns
        -------
        float
            Seconds of the fastest run.

        Raises
        ------
        BackendError
            If the case cannot run on this build; the message gives the reason.
        """
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the process has ended; _read_answer reports that
            self.process.stdin.write(json.dumps([case, part]).encode() + b"\n")
        answer = self._read_answer()
        if "problem" in answer:
            raise BackendError(answer["problem"])
        return float(answer["seconds"])

    def _read_answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            messages = self.errors.read().decode(errors="replace").strip().splitlines()
            reason = messages[-1] if messages else f"exit code {self.process.returncode}"
            place = self.build.folder or self.build.python
            raise OptionError(f"actgrid of {place} cannot be timed: {reason}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def start_worker(build: Build, processor: int | None = None) -> Iterator[Worker]:
    """Start a process that times cases on a build; end it when the context closes.

    Parameters
    ----------
    build : Build
        The build to time.
    processor : int or None
        Number of the processor on which the process must run; None: any processor.

    Yields
    ------
    Worker
        The process.

    Examples
    --------
    >>> with actgrid.bench.start_worker(actgrid.bench.get_this_build()) as worker:
    ...     facts = worker.describe()
    >>> facts["version"] == actgrid.__version__
    True
    """
    # The folder of the build comes first, then all packages of this interpreter.
    path = [] if build.folder is None else [str(build.folder), *filter(None, sys.path)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            # With -I, PYTHONPATH cannot put another actgrid before the build.
            [build.python, "-I", str(_WORKER), *path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,  # leaves no buffered data for a process that has ended
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        ) as process,
    ):
        if processor is not None:
            os.sched_setaffinity(process.pid, {processor})
        try:
            yield Worker(build, process, errors)
        finally:
            process.kill()


def choose_processor() -> int | None:
    """Return the number of a random processor to bind the benchmark processes to.

    Returns
    -------
    int or None
        None: the operating system cannot bind processes to a processor.
    """
    if sys.platform != "linux":
        return None
    return random.choice(sorted(os.sched_getaffinity(0)))


def get_this_build() -> Build:
    """Return the build of actgrid that is running.

    Returns
    -------
    Build
        This interpreter, and the folder that contains the imported package.

    Examples
    --------
    >>> actgrid.bench.get_this_build().folder.joinpath("actgrid").is_dir()
    True
    """
    return Build(sys.executable, Path(actgrid.__file__).parents[1])


@contextmanager
def open_build(path: Path) -> Iterator[Build]:
    """Open another build of actgrid; a wheel or checkout is installed temporarily.

    Parameters
    ----------
    path : pathlib.Path
        A wheel, a checkout, the folder of an environment, a folder that contains the package, or a
        Python interpreter.

    Yields
    ------
    Build
        The build. Its temporary folder, if any, is removed when the context closes.

    Raises
    ------
    MissingFileError
        If the path does not exist.
    OptionError
        If the path is not a build, or cannot be installed.

    Examples
    --------
    >>> folder = actgrid.bench.get_this_build().folder
    >>> with actgrid.bench.open_build(folder) as build:
    ...     build.folder == folder
    True
    """
    if not path.exists():
        raise MissingFileError(f"--against {path}: no such file or folder; expected {_KINDS}")
    if (path / "actgrid" / "__init__.py").is_file():
        yield Build(sys.executable, path.absolute())
    elif path.suffix == ".whl" or (path / "pyproject.toml").is_file():
        with tempfile.TemporaryDirectory(prefix="actgrid-build-") as folder:
            _install(path, folder)
            yield Build(sys.executable, Path(folder))
    elif python := _find_interpreter(path):
        yield Build(str(python.absolute()))
    else:
        raise OptionError(f"--against {path} is not a build of actgrid; expected {_KINDS}")


def _find_interpreter(path: Path) -> Path | None:
    candidates = [path, path / "bin" / "python", path / "Scripts" / "python.exe"]
    return next((file for file in candidates if file.is_file() and os.access(file, os.X_OK)), None)


def _install(source: Path, folder: str) -> None:
    """Install a wheel or a checkout of actgrid into a folder.

    Its dependencies are not installed.

    Raises
    ------
    OptionError
        If the build cannot be installed, or is a package other than actgrid.
    """
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    process = subprocess.run(
        [*pip, "--no-deps", "--target", folder, str(source.absolute())],
        capture_output=True,
        text=True,
    )
    if process.returncode:
        # The last message of the build, where pip quotes it, otherwise of pip.
        messages = process.stderr.partition("[end of output]")[0].strip().splitlines()
        reason = messages[-1].strip() if messages else f"exit code {process.returncode}"
        raise OptionError(f"--against {source} cannot be installed: {reason}")
    if not (Path(folder) / "actgrid" / "__init__.py").is_file():
        raise OptionError(f"--against {source} is a package other than actgrid")
