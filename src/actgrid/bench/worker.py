"""Script of a worker process that times benchmark cases on request.

The script and the cases belong to the build that runs the comparison. The package `actgrid` that
they import is the build under test. Another build may lack `actgrid.bench`, therefore nothing here
may import it.

Requests and answers are JSON lines on standard input and output.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

__all__: list[str] = []

_TURN_SECONDS = 0.003  # longer than the time slice of another process
_MIN_RUNS = 3


def describe_build() -> dict[str, Any]:
    """Return facts about the imported build of actgrid.

    Returns
    -------
    dict
        Folder, version, rendering backend, SIMD variant and Python version.
    """
    import actgrid
    from actgrid.rendering.backends import load_backend

    backend = load_backend().__name__.rsplit(".", 1)[-1].removesuffix("_backend")  # type: ignore[attr-defined]
    facts = {
        "folder": str(Path(actgrid.__file__).resolve().parents[1]),
        "version": actgrid.__version__,
        "backend": backend,
        "simd": None,
        "python": platform.python_version(),
    }
    if backend == "native":
        from actgrid import _core

        facts["simd"] = _core.simd_variant()
    return facts


def time_fastest_run(prepare: Callable[[], Callable[[], object]]) -> float:
    """Time a benchmark case several times and return its fastest run in seconds.

    Interruptions only add time, so the fastest of several runs is the least disturbed.

    Parameters
    ----------
    prepare
        Function that returns the function to time.

    Returns
    -------
    float
        Seconds.
    """
    run = prepare()
    run()
    seconds: list[float] = []
    gc.disable()
    start = end = perf_counter()
    while len(seconds) < _MIN_RUNS or end - start < _TURN_SECONDS:
        begin = perf_counter()
        run()
        end = perf_counter()
        seconds.append(end - begin)
    gc.enable()
    return min(seconds)


def main() -> None:
    """Read the names of benchmark cases from standard input, and time each case.

    The answer to each line is a line of JSON on standard output: the seconds of the case, or the
    reason why it cannot run.
    """
    # Libraries may print to standard output: answers use a duplicate of its file descriptor.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # The paths of a build in a folder; without arguments, the packages of the interpreter.
    sys.path[:] = sys.argv[1:] or sys.path
    sys.path.insert(0, str(Path(__file__).parent))
    cases = importlib.import_module("cases").make_cases()
    del sys.path[0]
    print(json.dumps(describe_build()), file=answers)
    for line in sys.stdin:
        name, part = json.loads(line)
        try:
            answer: dict[str, Any] = {"seconds": time_fastest_run(getattr(cases[name], part))}
        except Exception as error:
            answer = {"problem": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
