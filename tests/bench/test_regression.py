from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actgrid.bench import Case, compare, load, machine, measure, save
from actgrid.bench.regression import Figure
from actgrid.errors import MissingFileError, OptionError, OutputError


def figures(**ratios: float) -> dict[str, Figure]:
    return {name: Figure(ratio, 0.0, 1.0) for name, ratio in ratios.items()}


# --- measuring ---


def test_figure_is_the_ratio_to_the_yardstick(clock: Any) -> None:
    figure = measure({"a": clock.case(0.5)}, 9)["a"]
    assert figure == Figure(0.5, 0.0, 500.0)


def test_steady_cases_stop_after_a_few_rounds_and_others_use_them_all(clock: Any) -> None:
    prepared = {"steady": 0, "wild": 0}

    def counted(name: str, *ratios: float) -> Case:
        case = clock.case(*ratios)

        def ours() -> Any:
            prepared[name] += 1
            return case.ours()

        return Case(ours, case.yardstick)

    wild = np.random.default_rng(0).uniform(1, 2, 30).tolist()
    ticks: list[None] = []
    found = measure(
        {"steady": counted("steady", 1.0), "wild": counted("wild", *wild)},
        20,
        lambda: ticks.append(None),
    )
    assert prepared == {"steady": 5, "wild": 20}
    assert len(ticks) == 2 * 20
    assert found["wild"].ratio == pytest.approx(np.median(wild[:20]))
    assert 0.01 < found["wild"].error < 0.2


def test_few_disturbed_rounds_change_nothing(clock: Any) -> None:
    assert measure({"a": clock.case(2.0, 9.0, 2.0, 0.1, 2.0)}, 25)["a"].ratio == 2.0


# --- comparing ---


def judged(clock: Any, before: dict[str, Figure], **cases: Case) -> dict[str, bool]:
    compared = compare(cases, measure(cases, 5), before, 0.15, 5)
    return {name: one.slower for name, one in compared.items()}


def test_kernel_made_slower_is_found_and_an_equal_one_passes(clock: Any) -> None:
    before = figures(equal=2.0, slower=2.0, faster=2.0, little=2.0)
    cases = {
        "equal": clock.case(2.0),
        "slower": clock.case(2.0 * 1.3),
        "faster": clock.case(1.0),
        "little": clock.case(2.0 * 1.14),
    }
    assert judged(clock, before, **cases) == {
        "equal": False,
        "slower": True,
        "faster": False,
        "little": False,
    }


def test_noise_passes_when_measured_again(clock: Any) -> None:
    assert judged(clock, figures(a=1.0), a=clock.case(*[1.5] * 5, 1.0)) == {"a": False}
    assert judged(clock, figures(a=1.0), a=clock.case(*[1.5] * 10, 1.0)) == {"a": False}
    assert judged(clock, figures(a=1.0), a=clock.case(*[1.5] * 15, 1.0)) == {"a": True}


def test_only_what_seems_slower_is_measured_again(clock: Any) -> None:
    case = Case(lambda: pytest.fail("measured again"), lambda: clock.work(1.0))
    compared = compare({"a": case}, figures(a=1.1), figures(a=1.0), 0.15, 5)
    assert compared["a"].change == pytest.approx(0.1)
    assert not compared["a"].slower


@pytest.mark.parametrize(("tolerance", "slower"), [(0.0, True), (0.24, True), (0.25, False)])
def test_slower_is_more_than_the_tolerance(clock: Any, tolerance: float, slower: bool) -> None:
    cases = {"a": clock.case(1.25)}
    compared = compare(cases, measure(cases, 5), figures(a=1.0), tolerance, 5)
    assert compared["a"].slower is slower


# --- files ---

CASES = dict.fromkeys("ab", Case(lambda: lambda: None, lambda: lambda: None))


def test_saved_figures_load_again(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    kept = {"a": Figure(1.25, 0.01, 3.5), "b": Figure(0.5, 0.0, 1.0)}
    save(path, kept)
    assert load(path, CASES) == kept
    record = json.loads(path.read_text())
    assert record["machine"] == machine()
    assert record["machine"]["versions"]["numpy"] == np.__version__
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]


def test_quick_comparison_takes_its_cases_from_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    save(path, figures(a=1.0, b=2.0, c=3.0))
    assert load(path, CASES, quick=True)["b"].ratio == 2.0
    with pytest.raises(OptionError, match="figures of unknown cases: c: save it anew"):
        load(path, CASES)
    save(path, figures(a=1.0))
    for quick in (True, False):
        with pytest.raises(OptionError, match="no figure for b: save it anew"):
            load(path, CASES, quick)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no file .*none.json.* --save makes one"):
        load(tmp_path / "none.json", CASES)
    with pytest.raises(OptionError, match="cannot be read: Is a directory"):
        load(tmp_path, CASES)
    with pytest.raises(OutputError, match="cannot write"):
        save(tmp_path / "none" / "figures.json", figures(a=1.0))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: [],
        lambda record: {},
        lambda record: record | {"cases": []},
        lambda record: record | {"cases": {"a": 1}},
        lambda record: record | {"cases": {"a": {"ratio": 1}}},
        lambda record: record | {"cases": {"a": {"ratio": "x", "error": 0, "milliseconds": 1}}},
        lambda record: record | {"cases": {"a": {"ratio": 0, "error": 0, "milliseconds": 1}}},
        lambda record: record | {"cases": {"a": {"ratio": float("nan")}}},
    ],
)
def test_file_that_is_none_of_ours(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "figures.json"
    save(path, figures(a=1.0, b=1.0))
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(OptionError, match="is no file that actgrid bench --save wrote"):
        load(path, CASES)
    path.write_bytes(b"\xff\x00")
    with pytest.raises(OptionError, match="is no file that actgrid bench --save wrote"):
        load(path, CASES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99, "cases": "others"}, "is of version 99, this is version 1: save it anew"),
        ({"backend": "abacus"}, "is of the backend abacus, here it is native: save it anew"),
    ],
)
def test_figures_of_something_else(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "figures.json"
    save(path, figures(a=1.0, b=1.0))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(OptionError, match=message):
        load(path, CASES)


def test_committed_figures_are_of_todays_cases() -> None:
    from actgrid.bench import bench_cases

    baseline = Path(__file__).parents[2] / "benchmarks" / "baseline.json"
    assert set(load(baseline, bench_cases())) == set(bench_cases())
