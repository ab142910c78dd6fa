"""Performance regression check: compare the speed of two builds.

The benchmark cases are part of the package, and not of the folder `benchmarks/`, because the
command `actgrid bench` runs them on installed builds.
"""

from actgrid.bench.builds import Build, Worker, get_this_build, open_build, start_worker
from actgrid.bench.cases import Case, make_cases
from actgrid.bench.measuring import Prepare, Run, compare_pairs, time_interleaved
from actgrid.bench.regression import (
    Timing,
    Turn,
    alternate_builds,
    alternate_with_yardstick,
    check_builds,
    is_clear,
    is_steady,
    measure,
)
from actgrid.bench.timings import describe_machine, load_timings, save_timings

__all__ = [
    "Build",
    "Case",
    "Prepare",
    "Run",
    "Timing",
    "Turn",
    "Worker",
    "alternate_builds",
    "alternate_with_yardstick",
    "check_builds",
    "compare_pairs",
    "describe_machine",
    "get_this_build",
    "is_clear",
    "is_steady",
    "load_timings",
    "make_cases",
    "measure",
    "open_build",
    "save_timings",
    "start_worker",
    "time_interleaved",
]
