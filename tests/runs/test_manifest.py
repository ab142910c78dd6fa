from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actgrid.errors import ImageError, OutputError, RunError
from actgrid.runs.manifest import Manifest, Record, check_same, read_run, write_run
from actgrid.runs.sources import Item
from actgrid.runs.stores import Store, open_store


def item(index: int, name: str = "cat/1.jpg", label: str | None = "cat") -> Item:
    return Item(index, name, "cat/1", Path(name), label)


def record(index: int, error: Exception | None = None) -> Record:
    return Record.of(item(index), [f"{index}/a.png"], {"relu": 2}, 12.34567, error)


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path if request.param == "local" else f"memory://{tmp_path.name}")


# --- records


def test_a_line_tells_all_of_an_image() -> None:
    line = record(3).line()
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


def test_what_failed_has_a_reason_and_neither_files_nor_figures() -> None:
    failed = record(3, ImageError("cat/1.jpg is\n no image"))
    assert failed.failed
    assert (failed.status, failed.files, failed.dead) == ("failed", [], {})
    assert failed.error == "cat/1.jpg is no image"
    assert json.loads(failed.line())["label"] == "cat"


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
def test_any_reason_is_one_line_of_text(error: Exception, reason: str) -> None:
    assert record(0, error).error == reason
    assert json.loads(record(0, error).line())["error"] == reason


def test_names_in_any_writing_are_kept() -> None:
    one = Record.of(item(0, 'é "quoted"\n\\x', "日本"), [], {}, 0, None)
    found = json.loads(one.line())
    assert (found["image"], found["label"]) == ('é "quoted"\n\\x', "日本")
    assert one.line().count(b"\n") == 1


# --- the manifest


def test_records_come_back_in_their_order(store: Store) -> None:
    manifest = Manifest(store)
    assert list(manifest) == []
    wanted = [record(0), record(1, ValueError("broken")), record(2)]
    for number, one in enumerate(wanted):
        manifest.append(one)
        if number != 1:
            manifest.end_shard(number // 2)
    assert list(Manifest(store)) == wanted
    manifest.close()
    assert list(Manifest(store)) == wanted
    assert store.read("manifest.jsonl") == b"".join(one.line() for one in wanted)
    assert store.names("manifest/") == []


def test_a_line_is_there_as_soon_as_it_is_added(tmp_path: Path) -> None:
    manifest = Manifest(open_store(tmp_path))
    for count in (1, 2):
        manifest.append(record(count - 1))
        assert (tmp_path / "manifest.jsonl").read_bytes().count(b"\n") == count


def test_elsewhere_the_lines_of_a_shard_are_a_part(tmp_path: Path) -> None:
    store = open_store(f"memory://{tmp_path.name}")
    manifest = Manifest(store)
    manifest.append(record(0))
    assert store.names("manifest/") == []
    manifest.end_shard(0)
    manifest.end_shard(1)  # of which every image had been recorded
    manifest.append(record(1))
    manifest.end_shard(12)
    assert store.names("manifest/") == ["manifest/000000.jsonl", "manifest/000012.jsonl"]
    assert store.read("manifest/000012.jsonl") == record(1).line()
    assert list(Manifest(store)) == [record(0), record(1)]


def test_parts_left_after_joining_are_not_read_twice(tmp_path: Path) -> None:
    store = open_store(f"memory://{tmp_path.name}")
    # Killed between the two.
    store.write("manifest/000000.jsonl", record(0).line())
    store.write("manifest.jsonl", record(0).line())
    assert list(Manifest(store)) == [record(0)]
    Manifest(store).close()
    assert store.names("manifest/") == []
    assert store.read("manifest.jsonl") == record(0).line()


def test_a_line_that_was_not_written_whole_is_none(tmp_path: Path) -> None:
    store, file = open_store(tmp_path), tmp_path / "manifest.jsonl"
    whole = record(0).line() + record(1).line()
    for torn in (record(2).line()[:-1], b'{"index":2,"im', b"{", b"\xff\xfe"):
        file.write_bytes(whole + torn)
        assert list(Manifest(store)) == [record(0), record(1)]
        Manifest(store).repair()
        assert file.read_bytes() == whole
        Manifest(store).append(record(2))
        assert [one.index for one in Manifest(store)] == [0, 1, 2]
    file.write_bytes(record(0).line()[:-1])
    Manifest(store).repair()
    assert file.read_bytes() == b""
    file.unlink()
    Manifest(store).repair()
    assert not file.exists()


@pytest.mark.parametrize(
    "line", [b"no JSON", b"[1, 2]", b"3", b'{"index": 1}', b'{"more": 1}', b""]
)
def test_lines_of_something_else_are_told(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "manifest.jsonl").write_bytes(record(0).line() + line + b"\n" + record(1).line())
    with pytest.raises(RunError, match=r"manifest\.jsonl is not one of actgrid's"):
        list(Manifest(open_store(tmp_path)))


def test_a_reset_manifest_is_empty(store: Store) -> None:
    manifest = Manifest(store)
    manifest.append(record(0))
    manifest.end_shard(0)
    manifest.reset()
    assert list(manifest) == []
    assert store.names("manifest") == store.names("manifest/") == []
    manifest.reset()


def test_a_manifest_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*manifest\.jsonl: Is a directory"):
        Manifest(open_store(tmp_path)).append(record(0))


# --- what a run is of

RUN: dict[str, Any] = {
    "model": {"name": "small", "fingerprint": "12"},
    "layers": ["a", "b"],
    "options": {"draw": {"cmap": "gray", "order": [0, 1]}, "top": None, "batch_size": 8},
}


def changed(**options: Any) -> dict[str, Any]:
    return {**RUN, "options": {**RUN["options"], **options}}


def test_what_a_run_is_of_is_kept(store: Store) -> None:
    assert read_run(store) is None
    write_run(store, RUN)
    assert read_run(store) == RUN
    assert (store.read("run.json") or b"").count(b"\n") > 10  # to be read by people too
    check_same(store, read_run(store) or {}, RUN)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"name": "of another"}'])
def test_a_file_of_something_else_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json is not one of actgrid's"):
        read_run(open_store(tmp_path))


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (changed(batch_size=9), "options.batch_size was 8, is 9"),
        (changed(top=3), "options.top was null, is 3"),
        (
            changed(draw=None),
            'options.draw.cmap was "gray", is null; options.draw.order was [0,1], is null',
        ),
        (changed(draw={"cmap": "gray", "order": (0, 2)}), "options.draw.order was [0,1], is [0,2]"),
        (changed(more="new"), 'options.more was null, is "new"'),
        ({**RUN, "layers": None}, 'layers was ["a","b"], is null'),
        (
            {**RUN, "model": {"name": "other", "fingerprint": "34"}},
            'model.name was "small", is "other"; model.fingerprint was "12", is "34"',
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_differences_are_told_each_by_its_name(
    tmp_path: Path, now: dict[str, Any], told: str
) -> None:
    with pytest.raises(RunError) as problem:
        check_same(open_store(tmp_path), RUN, now)
    differences = str(problem.value).removeprefix(f"the run in {tmp_path} cannot be resumed, ")
    assert differences == f"it differs: {told}"


def test_tuples_are_the_lists_that_were_read(tmp_path: Path) -> None:
    check_same(open_store(tmp_path), RUN, changed(draw={"cmap": "gray", "order": (0, 1)}))
    check_same(open_store(tmp_path), RUN, changed(more=None))


def test_of_long_values_the_difference_is_told(tmp_path: Path) -> None:
    before = {**RUN, "layers": [f"conv{index}" for index in range(100)]}
    now = {**RUN, "layers": [*before["layers"][:50], "relu", *before["layers"][50:]]}
    with pytest.raises(RunError) as problem:
        check_same(open_store(tmp_path), before, now)
    assert str(problem.value).endswith(
        ': layers was ...,"conv48","conv49","conv50","conv51","conv52","conv53","conv..., '
        'is ...,"conv48","conv49","relu","conv50","conv51","conv52","conv53...'
    )
    with pytest.raises(RunError, match=r'layers was \["a","b"\], is \["conv","conv",.*"co\.\.\.$'):
        check_same(open_store(tmp_path), RUN, {**RUN, "layers": ["conv"] * 100})
