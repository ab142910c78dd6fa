"""Times of cases, and the performance regression check: this build against another one.

The cases are part of the package, not of `benchmarks/` in the repository, since the command
`actgrid bench` compares installed builds: each build runs the cases that it was installed with.
"""

from actgrid.bench.builds import Build, Worker, opened_build, started_worker, this_build
from actgrid.bench.cases import Case, bench_cases
from actgrid.bench.figures import load, machine, save
from actgrid.bench.measuring import Prepare, Run, interleaved, paired
from actgrid.bench.regression import (
    Figure,
    Turn,
    check_builds,
    is_clear,
    is_steady,
    measure,
    turns_of_builds,
    turns_with_yardsticks,
)

__all__ = [
    "Build",
    "Case",
    "Figure",
    "Prepare",
    "Run",
    "Turn",
    "Worker",
    "bench_cases",
    "check_builds",
    "interleaved",
    "is_clear",
    "is_steady",
    "load",
    "machine",
    "measure",
    "opened_build",
    "paired",
    "save",
    "started_worker",
    "this_build",
    "turns_of_builds",
    "turns_with_yardsticks",
]
