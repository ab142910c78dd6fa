"""Builds of actgrid, each timed by worker processes of its own."""

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

__all__ = ["Build", "Worker", "any_processor", "opened_build", "started_worker", "this_build"]

_WORKER = Path(__file__).with_name("worker.py")
_KINDS = (
    "a wheel, a checkout with its pyproject.toml, an environment, a folder that holds actgrid, "
    "a Python interpreter, or a .json file that --save wrote"
)


@dataclass(frozen=True)
class Build:
    """An importable actgrid: an interpreter, and where it finds the package.

    Attributes
    ----------
    python
        The interpreter.
    folder
        The folder that holds the package; None: wherever the interpreter has it.
    """

    python: str
    folder: Path | None = None


@dataclass(frozen=True)
class Worker:
    """A process that times cases on a build, one at a time."""

    build: Build
    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def describe(self) -> dict[str, Any]:
        """Return the build's facts, once, before anything is timed: folder, version, backend.

        Raises
        ------
        OptionError
            If the process cannot import that build.
        """
        facts = self._answer()
        folder = self.build.folder
        if folder is not None and Path(facts["folder"]) != folder.resolve():
            raise OptionError(
                f"actgrid of {folder} cannot be imported: {facts['folder']} comes first, as an "
                "editable install does; compare from an environment without one"
            )
        return facts

    def time(self, case: str, part: str = "ours") -> float:
        """Return the seconds of a case, or of its yardstick.

        Raises
        ------
        BackendError
            If the case cannot run on this build; the message says why.
        """
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # of a process that has ended: its answer is missing too
            self.process.stdin.write(json.dumps([case, part]).encode() + b"\n")
        answer = self._answer()
        if "problem" in answer:
            raise BackendError(answer["problem"])
        return float(answer["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            messages = self.errors.read().decode(errors="replace").strip().splitlines()
            reason = messages[-1] if messages else f"exit code {self.process.returncode}"
            where = self.build.folder or self.build.python
            raise OptionError(f"actgrid of {where} cannot be timed: {reason}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def started_worker(build: Build, processor: int | None = None) -> Iterator[Worker]:
    """Start a process that times cases on a build, and end it.

    Parameters
    ----------
    processor
        Where the process has to run, see `any_processor`; None: anywhere.
    """
    # A package beside its dependencies hides none of this interpreter's other packages.
    path = [] if build.folder is None else [str(build.folder), *filter(None, sys.path)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            # Isolated: no PYTHONPATH puts another actgrid before the build.
            [build.python, "-I", str(_WORKER), *path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,  # nothing is left to be written to a process that has ended
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        ) as process,
    ):
        if processor is not None:
            os.sched_setaffinity(process.pid, {processor})
        try:
            yield Worker(build, process, errors)
        finally:
            process.kill()


def any_processor() -> int | None:
    """Return the number of a processor at random.

    Returns
    -------
    int or None
        None: processes cannot be bound to a processor here.
    """
    if sys.platform != "linux":
        return None
    return random.choice(sorted(os.sched_getaffinity(0)))


def this_build() -> Build:
    """Return the build that is running."""
    return Build(sys.executable, Path(actgrid.__file__).parents[1])


@contextmanager
def opened_build(path: Path) -> Iterator[Build]:
    """Open another build of actgrid.

    A wheel and a checkout are installed into a temporary folder.

    Parameters
    ----------
    path
        A wheel, a checkout, the folder of an environment, a folder that holds the package, or an
        interpreter.

    Raises
    ------
    MissingFileError
        If there is nothing at that path.
    OptionError
        If it is none of these, or cannot be installed.
    """
    if not path.exists():
        raise MissingFileError(f"--against {path}: no such file or folder; it takes {_KINDS}")
    if (path / "actgrid" / "__init__.py").is_file():
        yield Build(sys.executable, path.absolute())
    elif path.suffix == ".whl" or (path / "pyproject.toml").is_file():
        with tempfile.TemporaryDirectory(prefix="actgrid-build-") as folder:
            _install(path, folder)
            yield Build(sys.executable, Path(folder))
    elif python := _interpreter(path):
        yield Build(str(python.absolute()))
    else:
        raise OptionError(f"--against {path} is no build of actgrid; it takes {_KINDS}")


def _interpreter(path: Path) -> Path | None:
    candidates = [path, path / "bin" / "python", path / "Scripts" / "python.exe"]
    return next((file for file in candidates if file.is_file() and os.access(file, os.X_OK)), None)


def _install(source: Path, folder: str) -> None:
    """Install a wheel or a checkout into a folder, without what it depends on."""
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [*pip, "--no-deps", "--target", folder, str(source.absolute())],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        # What the build itself says last, where pip quotes it; else what pip does.
        messages = done.stderr.partition("[end of output]")[0].strip().splitlines()
        reason = messages[-1].strip() if messages else f"exit code {done.returncode}"
        raise OptionError(f"--against {source} cannot be installed: {reason}")
    if not (Path(folder) / "actgrid" / "__init__.py").is_file():
        raise OptionError(f"--against {source} is another package than actgrid")
