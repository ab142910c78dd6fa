"""Fixtures that run the command line, in this process or in a new one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import pytest

import actgrid
from actgrid.cli import main


@dataclass
class Result:
    """The exit code and printed output of a command."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Parse each line of the output as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    def assert_one_clear_line(self, *words: str, code: int = 2) -> None:
        assert self.code == code, self
        assert self.err.startswith("actgrid: ")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        for word in words:
            assert word in self.err


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command in this process and return its result."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(stop.value.code or 0, captured.out, captured.err)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def start(start_python: Callable[..., subprocess.Popen[str]]) -> Callable[..., Any]:
    """Start a command in a new process."""

    def start(*arguments: object, **options: Any) -> Any:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return start_python("-m", "actgrid", *arguments, text=True, **{**pipes, **options})

    return start


@pytest.fixture(scope="session")
def process(start: Callable[..., Any]) -> Callable[..., Result]:
    """Run a command in a new process and return its result."""

    def process(*arguments: object, **options: Any) -> Result:
        with start(*arguments, **options) as process:
            out, err = process.communicate()
        return Result(process.returncode, out, err)

    return process


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((12, 10, 3)),
            keras.layers.Conv2D(5, 3, name="conv"),
            keras.layers.ReLU(name="relu"),
            keras.layers.MaxPooling2D(name="pool"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(4, name="head"),
        ],
        name="small",
    )
    path: Path = tmp_path_factory.mktemp("model") / "small.keras"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("photo") / "cat.jpg"
    actgrid.demo.photo().save(path)
    return path
