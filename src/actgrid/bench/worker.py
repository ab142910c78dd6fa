"""Script of a worker process, which times cases of one build on request.

The script and the cases are those of the build that compares; the package that they import is the
build under test. Nothing here may import `actgrid.bench`, which another build need not have.

Requests and answers are lines of JSON on standard input and output.
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

_SECONDS = 0.003  # of one turn: longer than a time slice of a busy machine
_FEWEST_RUNS = 3


def describe_build() -> dict[str, Any]:
    """Return which actgrid is imported, and what its speed depends on."""
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


def fastest_run(prepare: Callable[[], Callable[[], object]]) -> float:
    """Return the seconds of the fastest run of a case that is prepared anew.

    Interruptions only ever add time, so the fastest of many runs is the least disturbed.
    """
    run = prepare()
    run()
    seconds: list[float] = []
    gc.disable()
    start = end = perf_counter()
    while len(seconds) < _FEWEST_RUNS or end - start < _SECONDS:
        begin = perf_counter()
        run()
        end = perf_counter()
        seconds.append(end - begin)
    gc.enable()
    return min(seconds)


def main() -> None:
    """Answer each request: the seconds of a case, or why the case cannot run."""
    # Libraries may print: only answers leave on what was standard output.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # The paths of a build that was installed into a folder; else the interpreter's own.
    sys.path[:] = sys.argv[1:] or sys.path
    sys.path.insert(0, str(Path(__file__).parent))
    cases = importlib.import_module("cases").bench_cases()
    del sys.path[0]
    print(json.dumps(describe_build()), file=answers)
    for line in sys.stdin:
        name, part = json.loads(line)
        try:
            answer: dict[str, Any] = {"seconds": fastest_run(getattr(cases[name], part))}
        except Exception as error:
            answer = {"problem": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
