from __future__ import annotations

import importlib
import io
import itertools
import os
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from actgrid.errors import OutputError
from actgrid.runs.sinks import FolderSink, Sink, TarSink
from actgrid.runs.sources import Item
from actgrid.runs.stores import Store, open_store

FILES = ["00_stem.png", "01_block.conv_1.png", "stats.json"]
KEYS = ["cat/001", "dog/001", "dog/é", "x", "y" * 90 + "/" + "z" * 100]


def make_item(index: int, key: str | None = None) -> Item:
    return Item(index, f"{index}.jpg", key or KEYS[index], Path(f"{index}.jpg"))


def make_pieces(image: Item, file: str) -> list[bytes]:
    return [image.key.encode(), b" ", file.encode() * (image.index + 1)]


def fill(sink: Sink, items: list[Item], images_per_shard: int, seed: int) -> list[list[str]]:
    """Put files from several threads, and finish images and shards in order."""
    order = random.Random(seed)
    names = []
    with sink, ThreadPoolExecutor(3) as pool:
        for number, shard in itertools.groupby(
            items, lambda image: image.index // images_per_shard
        ):
            images = list(shard)
            puts = list(itertools.product(images, FILES))
            order.shuffle(puts)
            list(pool.map(lambda put: sink.put(put[0], put[1], make_pieces(*put)), puts))
            names += [sink.finish(image, FILES) for image in images]
            sink.close_shard(number)
    return names


def read_content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_folder_sink_writes_files_of_image(tmp_path: Path) -> None:
    items = [make_item(index) for index in range(5)]
    sink = FolderSink(open_store(tmp_path))
    assert not sink.writes_whole_shards
    names = fill(sink, items, 2, seed=0)
    assert names == [[f"{key}/{file}" for file in FILES] for key in KEYS]
    assert read_content(tmp_path) == {
        f"{image.key}/{file}": b"".join(make_pieces(image, file))
        for image in items
        for file in FILES
    }


def test_folder_sink_writes_files_immediately(tmp_path: Path) -> None:
    with FolderSink(open_store(tmp_path)) as sink:
        sink.put(make_item(0), "00_stem.png", [b"1", b"2"])
        assert read_content(tmp_path) == {"cat/001/00_stem.png": b"12"}


def test_drop_removes_only_files_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "notes.txt").touch()
    with FolderSink(open_store(tmp_path)) as sink:
        for image in (make_item(0, "cat"), make_item(1, "cat/001"), make_item(2, "cat/002")):
            sink.put(image, "00_stem.png", [b""])
        sink.drop(make_item(0, "cat"), FILES)
        sink.drop(make_item(1, "cat/001"), FILES)
        sink.drop(make_item(3, "dog"), FILES)
        left = [path.name for path in sorted(tmp_path.rglob("*"))]
        assert left == ["cat", "002", "00_stem.png", "x", "notes.txt"]
        sink.drop(make_item(2, "cat/002"), FILES)
        sink.drop(make_item(3, "x"), FILES)
        assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["x", "notes.txt"]


def test_finish_removes_temporary_files_of_killed_process(tmp_path: Path) -> None:
    leftover = "." + "0" * 32 + ".part"
    for key in ("cat/001", "dog/001"):
        (tmp_path / key).mkdir(parents=True)
        (tmp_path / key / leftover).touch()
    with FolderSink(open_store(tmp_path)) as sink:
        sink.put(make_item(0), FILES[0], [b""])
        sink.finish(make_item(0), FILES[:1])
        assert set(read_content(tmp_path)) == {"dog/001/" + leftover, "cat/001/" + FILES[0]}
        sink.drop(make_item(1), FILES)
    assert set(read_content(tmp_path)) == {"cat/001/" + FILES[0]}


# --- tar


def test_tar_entries_follow_webdataset(tmp_path: Path) -> None:
    items = [make_item(index) for index in range(5)]
    names = fill(TarSink(open_store(tmp_path), 2), items, 2, seed=0)
    assert names == [
        [f"shard-00000{number}.tar/{key}.{file}" for file in (*FILES[:2], "json")]
        for number, key in zip((0, 0, 1, 1, 2), KEYS, strict=True)
    ]
    shards = ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    assert sorted(path.name for path in tmp_path.iterdir()) == shards
    for number, shard in enumerate([items[:2], items[2:4], items[4:]]):
        with tarfile.open(tmp_path / f"shard-00000{number}.tar") as tar:
            entries = tar.getmembers()
            assert [entry.name for entry in entries] == [
                f"{image.key}.{file}"
                for image in shard
                for file in ("00_stem.png", "01_block.conv_1.png", "json")
            ]
            for entry, (image, file) in zip(entries, itertools.product(shard, FILES), strict=True):
                assert (entry.mtime, entry.uid, entry.gid, entry.mode) == (0, 0, 0, 0o644)
                assert (entry.uname, entry.gname) == ("", "")
                assert entry.isreg()
                file_in_tar = tar.extractfile(entry)
                assert file_in_tar is not None
                assert file_in_tar.read() == b"".join(make_pieces(image, file))


def test_bytes_do_not_depend_on_timing(tmp_path: Path) -> None:
    items = [make_item(index) for index in range(5)]
    for seed in range(3):
        fill(TarSink(open_store(tmp_path / f"{seed}"), 3), items, 3, seed)
    assert (
        read_content(tmp_path / "0") == read_content(tmp_path / "1") == read_content(tmp_path / "2")
    )


@pytest.mark.parametrize("output", ["local", "memory"])
def test_webdataset_reads_the_images(tmp_path: Path, output: str) -> None:
    items = [make_item(index) for index in range(5)]
    store = open_store(tmp_path if output == "local" else "memory://sinks")
    fill(TarSink(store, 2), items, 2, seed=0)
    reading = importlib.import_module("webdataset.tariterators")
    shards = [
        {"url": name, "stream": io.BytesIO(store.read(name) or b"")}
        for name in store.list_names("shard-")
    ]
    samples = list(reading.group_by_keys(reading.tar_file_expander(shards)))
    assert [sample["__key__"] for sample in samples] == KEYS
    for sample, image in zip(samples, items, strict=True):
        assert {name for name in sample if not name.startswith("__")} == {
            "00_stem.png",
            "01_block.conv_1.png",
            "json",
        }
        assert sample["json"] == b"".join(make_pieces(image, "stats.json"))
        assert sample["00_stem.png"] == b"".join(make_pieces(image, "00_stem.png"))


def test_a_shard_appears_when_it_is_closed(tmp_path: Path) -> None:
    with TarSink(open_store(tmp_path), 2) as sink:
        assert sink.writes_whole_shards
        for index in range(2):
            sink.put(make_item(index), "00_stem.png", [b"1"])
            sink.finish(make_item(index), FILES[:1])
            assert not (tmp_path / "shard-000000.tar").exists()
        sink.close_shard(0)
        assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.tar"]


def test_failed_images_are_not_in_shards(tmp_path: Path) -> None:
    with TarSink(open_store(tmp_path), 2) as sink:
        for index in (0, 1, 2):
            sink.put(make_item(index), "00_stem.png", [b"1"])
        sink.drop(make_item(0), FILES)
        sink.finish(make_item(1), FILES[:1])
        sink.close_shard(0)
        sink.drop(make_item(2), FILES)
        sink.drop(make_item(3), FILES)
        sink.close_shard(1)
    with tarfile.open(tmp_path / "shard-000000.tar") as tar:
        assert tar.getnames() == ["dog/001.00_stem.png"]
    with tarfile.open(tmp_path / "shard-000001.tar") as tar:
        assert tar.getnames() == []


def test_interruption_leaves_no_partial_shard(tmp_path: Path) -> None:
    def interrupt_run() -> None:
        with TarSink(open_store(tmp_path), 2) as sink:
            sink.put(make_item(0), "00_stem.png", [b"1"])
            sink.finish(make_item(0), FILES[:1])
            assert len(list(tmp_path.iterdir())) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt_run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is full")
def test_full_disk_raises_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def on_a_full_disk(path: Path, mode: str) -> BinaryIO:
        opened(path, mode).close()
        return io.FileIO("/dev/full", "w")

    monkeypatch.setattr(Path, "open", on_a_full_disk)
    with TarSink(open_store(tmp_path), 2) as sink:
        sink.put(make_item(0), "00_stem.png", [bytes(100_000)])
        with pytest.raises(OutputError, match=r"^cannot write .*/shard-000000\.tar: No space left"):
            sink.finish(make_item(0), FILES[:1])
        assert list(tmp_path.iterdir()) == []


def test_missing_permission_raises_output_error(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    store: Store = open_store(Path("/sys") if os.geteuid() == 0 else closed)
    with pytest.raises(OutputError, match=r"Permission denied|not permitted|Read-only"):
        FolderSink(store).put(make_item(0), "00_stem.png", [b""])
    with pytest.raises(OutputError, match=r"Permission denied|not permitted|Read-only"):
        TarSink(store).finish(make_item(0), [])
