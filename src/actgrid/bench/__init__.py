"""Whether actgrid has become slower: ours against fixed work in the same run."""

from actgrid.bench.cases import Case, bench_cases
from actgrid.bench.measuring import Prepare, Run, interleaved, paired
from actgrid.bench.regression import (
    Comparison,
    Figure,
    compare,
    load,
    machine,
    measure,
    save,
)

__all__ = [
    "Case",
    "Comparison",
    "Figure",
    "Prepare",
    "Run",
    "bench_cases",
    "compare",
    "interleaved",
    "load",
    "machine",
    "measure",
    "paired",
    "save",
]
