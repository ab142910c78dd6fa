"""Run the benchmarks with pytest-benchmark.

Usage: ``pytest benchmarks --benchmark-group-by=group``.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.groups import GROUPS

# Warnings of other packages do not fail a benchmark.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, group in GROUPS.items() for case in group.cases]
)
def test_benchmark(benchmark: BenchmarkFixture, name: str, case: str) -> None:
    group = GROUPS[name]
    prepare = group.cases[case]
    try:
        prepare()
    except ImportError as error:
        pytest.skip(str(error))
    benchmark.group = group.title
    is_timed = group.unit == "ms"
    result = benchmark.pedantic(
        lambda run: run(),
        setup=lambda: ((prepare(),), {}),
        rounds=min(3, group.max_rounds) if is_timed else 1,
        warmup_rounds=1 if is_timed and group.max_rounds > 1 else 0,
    )
    if not is_timed:
        benchmark.extra_info[group.unit] = result
    benchmark.extra_info["items per run"] = group.count.get(case, 1)
