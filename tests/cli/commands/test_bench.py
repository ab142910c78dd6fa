"""Tests of the command `actgrid bench`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import actgrid

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Replace the cases by two: a kernel slowed down by a factor, and a constant one."""
    seconds = {"kernel": 2.0, "other": 0.5}
    factors = {"kernel": 1.0, "other": 1.0}
    monkeypatch.setattr("actgrid.bench.make_cases", lambda quick: seconds)

    @contextmanager
    def alternate_with_yardstick(build: Any, ratios: dict[str, float]) -> Iterator[Any]:
        yield lambda case, _: (ratios[case], seconds[case] * factors[case])

    @contextmanager
    def alternate_builds(before: Any, now: Any) -> Iterator[Any]:
        yield lambda case, _: (seconds[case], seconds[case] * factors[case])

    monkeypatch.setattr("actgrid.bench.alternate_with_yardstick", alternate_with_yardstick)
    monkeypatch.setattr("actgrid.bench.alternate_builds", alternate_builds)
    monkeypatch.setattr("actgrid.bench.check_builds", lambda *builds: {})
    return lambda factor: factors.update(kernel=factor)


def test_bench_prints_and_saves_timings(
    run: Run, kernel: Callable[[float], None], tmp_path: Path
) -> None:
    result = run("bench", "--quick", "--save", tmp_path / "new" / "timings.json")
    assert (result.code, result.err) == (0, "")
    lines = [line.split() for line in result.out.splitlines()]
    assert lines == [
        ["case", "ms", "over", "yardstick", "+-"],
        ["kernel", "2000.000", "2.000", "0.0%"],
        ["other", "500.000", "0.500", "0.0%"],
    ]
    kept = json.loads((tmp_path / "new" / "timings.json").read_text())["cases"]
    assert {"cases": kept} == json.loads(run("bench", "--quick", "--json").out)


@pytest.mark.parametrize("other", ["timings", "build"])
def test_bench_fails_for_slower_kernel_and_passes_equal_kernel(
    run: Run, kernel: Callable[[float], None], tmp_path: Path, other: str
) -> None:
    path = Path(actgrid.__file__).parents[1]
    if other == "timings":
        path = tmp_path / "timings.json"
        run("bench", "--quick", "--save", path)
    equal = run("bench", "--quick", "--against", path)
    assert (equal.code, equal.err) == (0, "")
    assert equal.out.splitlines()[-1] == "slower by more than 15%: nothing"
    kernel(1.3)
    slower = run("bench", "--quick", "--against", path)
    assert (slower.code, slower.err) == (1, "")
    assert re.search(r"^kernel +2000.000 +2600.000 +\+30.0% +0.0% +slower$", slower.out, re.M)
    assert re.search(r"^other +500.000 +500.000 +\+0.0% +0.0% *$", slower.out, re.M)
    assert slower.out.splitlines()[-1] == "slower by more than 15%: kernel"
    report = run("bench", "--quick", "--against", path, "--json")
    assert report.code == 1
    assert json.loads(report.out)["slower"] == ["kernel"]
    assert json.loads(report.out)["skipped"] == {}
    assert json.loads(report.out)["cases"]["kernel"]["ratio"] == pytest.approx(1.3)
    assert run("bench", "--quick", "--against", path, "--tolerance", 0.5).code == 0


def test_bench_lists_cases_that_other_build_cannot_run(
    run: Run, kernel: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actgrid.bench.check_builds", lambda *builds: {"other": "no such thing"})
    against = ("bench", "--quick", "--against", Path(actgrid.__file__).parents[1])
    result = run(*against)
    assert result.code == 0
    assert result.out.splitlines()[-2:] == [
        "skipped, because the other build cannot run it: other (no such thing)",
        "slower by more than 15%: nothing",
    ]
    report = json.loads(run(*against, "--json").out)
    assert report["skipped"] == {"other": "no such thing"}
    assert list(report["cases"]) == ["kernel"]


def test_bench_measures_real_builds(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "timings.json"
    assert run("bench", "--rounds", 1, "--save", path).code == 0
    # No noise of a machine makes a case a hundred times slower.
    against = ("bench", "--quick", "--rounds", 1, "--against", path, "--tolerance", 100)
    assert run(*against).code == 0
