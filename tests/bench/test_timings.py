from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actgrid.bench import Timing, describe_machine, load_timings, save_timings
from actgrid.errors import MissingFileError, OptionError, OutputError

CASES = ["a", "b"]


def make_timings(**ratios: float) -> dict[str, Timing]:
    return {name: Timing(ratio, 0.0, 1.0, ratio) for name, ratio in ratios.items()}


def test_saved_timings_load_again(tmp_path: Path) -> None:
    path = tmp_path / "timings.json"
    kept = {"a": Timing(1.25, 0.01, 3.5, 4.5), "b": Timing(0.5, 0.0, 2.0, 1.0)}
    save_timings(path, kept)
    assert load_timings(path, CASES) == {"a": 1.25, "b": 0.5}
    record = json.loads(path.read_text())
    assert record["machine"] == describe_machine()
    assert record["machine"]["numpy"] == np.__version__
    assert [file.name for file in tmp_path.iterdir()] == ["timings.json"]


def test_quick_comparison_takes_its_cases_from_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "timings.json"
    save_timings(path, make_timings(a=1.0, b=2.0, c=3.0))
    assert load_timings(path, CASES, quick=True)["b"] == 2.0
    with pytest.raises(OptionError, match="contains unknown cases: c: save the file again"):
        load_timings(path, CASES)
    save_timings(path, make_timings(a=1.0))
    for quick in (True, False):
        with pytest.raises(OptionError, match="does not contain b: save the file again"):
            load_timings(path, CASES, quick)


def test_missing_timings_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no file .*none.json.* actgrid bench --save"):
        load_timings(tmp_path / "none.json", CASES)
    with pytest.raises(OptionError, match="cannot be read: Is a directory"):
        load_timings(tmp_path, CASES)
    with pytest.raises(OutputError, match="cannot write"):
        save_timings(tmp_path / "none" / "timings.json", make_timings(a=1.0))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: [],
        lambda record: {},
        lambda record: record | {"cases": []},
        lambda record: record | {"cases": {"a": 1}},
        lambda record: record | {"machine": []},
        lambda record: record | {"cases": {"a": {"ratio": "x", "error": 0, "milliseconds": 1}}},
        lambda record: record | {"cases": {"a": {"ratio": 0, "error": 0, "milliseconds": 1}}},
        lambda record: record | {"cases": {"a": {"ratio": float("nan")}}},
    ],
)
def test_file_of_another_format_is_rejected(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "timings.json"
    save_timings(path, make_timings(a=1.0, b=1.0))
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(OptionError, match="is not a file of actgrid bench --save"):
        load_timings(path, CASES)
    path.write_bytes(b"\xff\x00")
    with pytest.raises(OptionError, match="is not a file of actgrid bench --save"):
        load_timings(path, CASES)


def test_timings_of_another_format_version_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "timings.json"
    save_timings(path, make_timings(a=1.0, b=1.0))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1, "cases": "others"}))
    with pytest.raises(OptionError, match="format version 1, expected 2: save the file again"):
        load_timings(path, CASES)


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"processor": "AMD EPYC (cpu family 23, model 49, stepping 0)"},
        {"processors": 99},
        {"backend": "abacus"},
        {"simd": "avx1024"},
        {"python": "3.9.1"},
        {"numpy": "1.0.0"},
    ],
    ids=lambda elsewhere: next(iter(elsewhere)),
)
def test_timings_of_another_processor_are_rejected(
    tmp_path: Path, elsewhere: dict[str, Any]
) -> None:
    path = tmp_path / "timings.json"
    save_timings(path, make_timings(a=1.0, b=1.0))
    record = json.loads(path.read_text())
    ((fact, recorded),) = elsewhere.items()
    here = record["machine"][fact]
    record["machine"] |= elsewhere
    path.write_text(json.dumps(record))
    with pytest.raises(OptionError) as refused:
        load_timings(path, CASES)
    assert str(refused.value) == (
        f"{path} was saved under other conditions: {fact} {recorded}, here {here}; "
        "compare two builds instead: --against a wheel, a checkout or an environment with "
        "another actgrid"
    )


def test_timings_are_accepted_with_other_packages_and_kernel(tmp_path: Path) -> None:
    path = tmp_path / "timings.json"
    save_timings(path, make_timings(a=1.0, b=1.0))
    record = json.loads(path.read_text())
    record["machine"] |= {"actgrid": "0.0.1", "pillow": "1", "isal": "1", "system": "Linux-1"}
    path.write_text(json.dumps(record))
    assert load_timings(path, CASES) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize("family", [25, 26])
def test_processors_are_distinguished_by_family_and_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: int
) -> None:
    facts = f"cpu family\t: {family}\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nflags\t\t: avx2\n"
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{facts}\nprocessor\t: 1\n{facts}")
    monkeypatch.setattr("actgrid.bench.timings._CPUINFO", tmp_path / "cpuinfo")
    assert describe_machine()["processor"] == f"AMD EPYC (cpu family {family}, model 1)"


def test_processor_has_a_name_on_other_systems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("actgrid.bench.timings._CPUINFO", tmp_path / "none")
    assert describe_machine()["processor"] in (platform.processor(), platform.machine())
