from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actgrid.errors import ImageError, OutputError, RunError
from actgrid.runs.manifest import Manifest, Record, check_same_run, read_run, write_run
from actgrid.runs.sources import Item
from actgrid.runs.stores import Store, open_store


def make_item(index: int, name: str = "cat/1.jpg", label: str | None = "cat") -> Item:
    return Item(index, name, "cat/1", Path(name), label)


def record(index: int, error: Exception | None = None) -> Record:
    return Record.create(make_item(index), [f"{index}/a.png"], {"relu": 2}, 12.34567, error)


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path if request.param == "local" else f"memory://{tmp_path.name}")


# --- records


def test_record_line_contains_all_fields() -> None:
    line = record(3).to_line()
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "index": 3,
        "image": "cat/1.jpg",
        "label": "cat",
        "status": "done",
        "files": ["3/a.png"],
        "dead": {"relu": 2},
        "milliseconds": 12.346,
        "error": None,
    }
    assert not record(3).failed


def test_failed_record_has_error_and_no_files() -> None:
    failed = record(3, ImageError("cat/1.jpg is\n no image"))
    assert failed.failed
    assert (failed.status, failed.files, failed.dead) == ("failed", [], {})
    assert failed.error == "cat/1.jpg is no image"
    assert json.loads(failed.to_line())["label"] == "cat"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("broken"), "broken"),
        (OSError(5, "Input/output error"), "[Errno 5] Input/output error"),
        (KeyError("shape"), "KeyError: 'shape'"),
        (RuntimeError(), "RuntimeError"),
        (ValueError(), "ValueError"),
        (MemoryError(), "MemoryError"),
        (ValueError("name \udcff"), "name ?"),
    ],
)
def test_error_of_record_is_one_line(error: Exception, reason: str) -> None:
    assert record(0, error).error == reason
    assert json.loads(record(0, error).to_line())["error"] == reason


def test_unicode_names_are_kept() -> None:
    entry = Record.create(make_item(0, 'é "quoted"\n\\x', "日本"), [], {}, 0, None)
    fields = json.loads(entry.to_line())
    assert (fields["image"], fields["label"]) == ('é "quoted"\n\\x', "日本")
    assert entry.to_line().count(b"\n") == 1


# --- manifest


def test_records_are_read_in_order(store: Store) -> None:
    manifest = Manifest(store)
    assert list(manifest) == []
    expected_records = [record(0), record(1, ValueError("broken")), record(2)]
    for number, entry in enumerate(expected_records):
        manifest.append(entry)
        if number != 1:
            manifest.end_shard(number // 2)
    assert list(Manifest(store)) == expected_records
    manifest.close()
    assert list(Manifest(store)) == expected_records
    assert store.read("manifest.jsonl") == b"".join(entry.to_line() for entry in expected_records)
    assert store.list_names("manifest/") == []


def test_record_is_written_immediately(tmp_path: Path) -> None:
    manifest = Manifest(open_store(tmp_path))
    for count in (1, 2):
        manifest.append(record(count - 1))
        assert (tmp_path / "manifest.jsonl").read_bytes().count(b"\n") == count


def test_remote_records_are_written_per_shard(tmp_path: Path) -> None:
    store = open_store(f"memory://{tmp_path.name}")
    manifest = Manifest(store)
    manifest.append(record(0))
    assert store.list_names("manifest/") == []
    manifest.end_shard(0)
    manifest.end_shard(1)  # all images of the shard are recorded
    manifest.append(record(1))
    manifest.end_shard(12)
    assert store.list_names("manifest/") == ["manifest/000000.jsonl", "manifest/000012.jsonl"]
    assert store.read("manifest/000012.jsonl") == record(1).to_line()
    assert list(Manifest(store)) == [record(0), record(1)]


def test_remaining_parts_are_not_read_twice(tmp_path: Path) -> None:
    store = open_store(f"memory://{tmp_path.name}")
    # The process was killed between joining and removing the parts.
    store.write("manifest/000000.jsonl", record(0).to_line())
    store.write("manifest.jsonl", record(0).to_line())
    assert list(Manifest(store)) == [record(0)]
    Manifest(store).close()
    assert store.list_names("manifest/") == []
    assert store.read("manifest.jsonl") == record(0).to_line()


def test_incomplete_last_line_is_ignored(tmp_path: Path) -> None:
    store, file = open_store(tmp_path), tmp_path / "manifest.jsonl"
    complete = record(0).to_line() + record(1).to_line()
    for torn in (record(2).to_line()[:-1], b'{"index":2,"im', b"{", b"\xff\xfe"):
        file.write_bytes(complete + torn)
        assert list(Manifest(store)) == [record(0), record(1)]
        Manifest(store).repair()
        assert file.read_bytes() == complete
        Manifest(store).append(record(2))
        assert [entry.index for entry in Manifest(store)] == [0, 1, 2]
    file.write_bytes(record(0).to_line()[:-1])
    Manifest(store).repair()
    assert file.read_bytes() == b""
    file.unlink()
    Manifest(store).repair()
    assert not file.exists()


@pytest.mark.parametrize(
    "line", [b"no JSON", b"[1, 2]", b"3", b'{"index": 1}', b'{"more": 1}', b""]
)
def test_foreign_lines_are_reported(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "manifest.jsonl").write_bytes(
        record(0).to_line() + line + b"\n" + record(1).to_line()
    )
    with pytest.raises(RunError, match=r"manifest\.jsonl is not a manifest of actgrid"):
        list(Manifest(open_store(tmp_path)))


def test_a_reset_manifest_is_empty(store: Store) -> None:
    manifest = Manifest(store)
    manifest.append(record(0))
    manifest.end_shard(0)
    manifest.reset()
    assert list(manifest) == []
    assert store.list_names("manifest") == store.list_names("manifest/") == []
    manifest.reset()


def test_unwritable_manifest_raises_output_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*manifest\.jsonl: Is a directory"):
        Manifest(open_store(tmp_path)).append(record(0))


# --- run.json

RUN: dict[str, Any] = {
    "model": {"name": "small", "fingerprint": "12"},
    "layers": ["a", "b"],
    "options": {"draw": {"cmap": "gray", "order": [0, 1]}, "top": None, "batch_size": 8},
}


def change_options(**options: Any) -> dict[str, Any]:
    return {**RUN, "options": {**RUN["options"], **options}}


def test_run_description_is_read_again(store: Store) -> None:
    assert read_run(store) is None
    write_run(store, RUN)
    assert read_run(store) == RUN
    assert (store.read("run.json") or b"").count(b"\n") > 10  # indented, for people
    check_same_run(store, read_run(store) or {}, RUN)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"name": "of another"}'])
def test_foreign_run_file_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json is not a file of actgrid"):
        read_run(open_store(tmp_path))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (change_options(batch_size=9), "options.batch_size was 8, is 9"),
        (change_options(top=3), "options.top was null, is 3"),
        (
            change_options(draw=None),
            'options.draw.cmap was "gray", is null; options.draw.order was [0,1], is null',
        ),
        (
            change_options(draw={"cmap": "gray", "order": (0, 2)}),
            "options.draw.order was [0,1], is [0,2]",
        ),
        (change_options(more="new"), 'options.more was null, is "new"'),
        ({**RUN, "layers": None}, 'layers was ["a","b"], is null'),
        (
            {**RUN, "model": {"name": "other", "fingerprint": "34"}},
            'model.name was "small", is "other"; model.fingerprint was "12", is "34"',
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_differences_are_listed_by_name(tmp_path: Path, now: dict[str, Any], expected: str) -> None:
    with pytest.raises(RunError) as problem:
        check_same_run(open_store(tmp_path), RUN, now)
    differences = str(problem.value).removeprefix(
        f"the run in {tmp_path} cannot be resumed with different settings: "
    )
    assert differences == expected


def test_tuples_equal_lists_in_descriptions(tmp_path: Path) -> None:
    check_same_run(
        open_store(tmp_path), RUN, change_options(draw={"cmap": "gray", "order": (0, 1)})
    )
    check_same_run(open_store(tmp_path), RUN, change_options(more=None))


def test_difference_of_long_values_is_shown(tmp_path: Path) -> None:
    before = {**RUN, "layers": [f"conv{index}" for index in range(100)]}
    now = {**RUN, "layers": [*before["layers"][:50], "relu", *before["layers"][50:]]}
    with pytest.raises(RunError) as problem:
        check_same_run(open_store(tmp_path), before, now)
    assert str(problem.value).endswith(
        ': layers was ...,"conv48","conv49","conv50","conv51","conv52","conv53","conv..., '
        'is ...,"conv48","conv49","relu","conv50","conv51","conv52","conv53...'
    )
    with pytest.raises(RunError, match=r'layers was \["a","b"\], is \["conv","conv",.*"co\.\.\.$'):
        check_same_run(open_store(tmp_path), RUN, {**RUN, "layers": ["conv"] * 100})
