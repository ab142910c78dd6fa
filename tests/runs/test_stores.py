from __future__ import annotations

import importlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from actgrid.errors import ImageError, MissingDependencyError, OptionError, OutputError
from actgrid.runs.stores import Store, _RemoteStore, find_local_folder, open_store

fsspec = importlib.import_module("fsspec")
FileSystem: Any = fsspec.AbstractFileSystem


@pytest.fixture(params=["local", "file:", "memory", "fsspec's disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        files = fsspec.filesystem("memory")
        files.store.clear()
        files.pseudo_dirs[:] = [""]
        return open_store("memory://bucket/run")
    folder = tmp_path / "new" / "run"
    if request.param == "local":
        return open_store(folder)
    url = f"file://{folder}"
    return open_store(url) if request.param == "file:" else _RemoteStore(url)


def test_write_read_list_and_remove(store: Store) -> None:
    assert store.read("a.json") is None
    assert store.list_names() == []
    store.write("a.json", b"one")
    store.write("a.json", b"two", b"", b"three")
    store.write("dog/b/1.png", b"1")
    store.write("dog/0.png")
    store.write("dog/10.png", b"10")
    assert store.read("a.json") == b"twothree"
    assert store.read("dog/0.png") == b""
    assert store.read("dog/b/1.png") == b"1"
    assert store.read("dog/none.png") is None
    assert store.list_names() == ["a.json"]
    assert store.list_names("b") == []
    assert store.list_names("dog/") == ["dog/0.png", "dog/10.png"]
    assert store.list_names("dog/1") == ["dog/10.png"]
    assert store.list_names("dog/b/") == ["dog/b/1.png"]
    assert store.list_names("cat/") == []
    for name in ("dog/10.png", "dog/10.png", "none/none"):
        store.remove(name)
    assert store.list_names("dog/") == ["dog/0.png"]


def test_large_file_appears_when_complete(store: Store) -> None:
    with store.open_for_writing("shards/1.tar") as file:
        for number in range(5):
            file.write(b"%d" % number * 100_000)
        assert file.tell() == 500_000
    assert store.read("shards/1.tar") == b"".join(b"%d" % n * 100_000 for n in range(5))
    assert store.list_names("shards/") == ["shards/1.tar"]


def write_half(store: Store, error: BaseException) -> None:
    with store.open_for_writing("shards/1.tar") as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("store", ["local", "file:", "fsspec's disk"], indirect=True)
@pytest.mark.parametrize("error", [ImageError("of an image"), KeyboardInterrupt()])
def test_error_keeps_existing_file(store: Store, error: BaseException) -> None:
    for before in (None, b"before"):
        if before:
            store.write("shards/1.tar", before)
        with pytest.raises(type(error)) as caught:
            write_half(store, error)
        assert caught.value is error
        assert store.read("shards/1.tar") == before
        assert store.list_names("shards/") == (["shards/1.tar"] if before else [])


def test_append(store: Store) -> None:
    for line in (b"1\n", b"2\n", b"3\n"):
        store.append("manifest.jsonl", line)
        content = store.read("manifest.jsonl")
        assert content is not None
        assert content.endswith(line)
    assert content == b"1\n2\n3\n"


def test_is_local_only_for_local_folders(store: Store) -> None:
    assert store.is_local == (type(store) is not _RemoteStore)
    assert store.get_full_path().endswith("/run")
    assert store.get_full_path("a/b.png") == f"{store.get_full_path()}/a/b.png"


def test_concurrent_writes(store: Store) -> None:
    names = [f"{number % 7}/{number}.bin" for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.write(name, name.encode() * 50), names))
    for name in names:
        assert store.read(name) == name.encode() * 50


def test_empty_folders_are_removed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "run")
    for name in ("a/b/1", "a/2", "c/3"):
        store.write(name)
    store.remove("a/b/1")
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == ["2", "3", "a", "c"]
    store.remove("a/2")
    store.remove("c/3")
    assert list((tmp_path / "run").iterdir()) == []


# --- temporary files of killed processes

KILLED = """
import os, signal, sys
from actgrid.runs.stores import open_store
store = open_store(sys.argv[1])
with store.open_for_writing("cat/a.png") as file, store.open_for_writing("b.tar") as tar:
    file.write(b"half"), file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_temporary_files_are_not_listed_and_can_be_cleaned(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write("cat/b.png", b"whole")
    store.write("cat/.hidden.part", b"somebody's")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    assert len(list((tmp_path / "cat").iterdir())) == 3
    assert store.list_names() == []
    assert store.list_names("cat/") == ["cat/.hidden.part", "cat/b.png"]
    store.clean(["", "nowhere"])
    assert [path.name for path in tmp_path.iterdir()] == ["cat"]
    assert len(list((tmp_path / "cat").iterdir())) == 3
    store.clean(["cat"])
    assert sorted(path.name for path in (tmp_path / "cat").iterdir()) == [".hidden.part", "b.png"]


def test_remote_store_leaves_no_incomplete_files() -> None:
    store = open_store("memory://bucket/other")
    store.write("a/1.png", b"1")
    store.clean(["", "a"])
    assert store.list_names("a/") == ["a/1.png"]


# --- errors


def write(store: Store) -> None:
    store.write("a/b.bin", bytes(5000))


def write_piece_by_piece(store: Store) -> None:
    with store.open_for_writing("a/b.bin") as file:
        file.write(bytes(5000))


def append(store: Store) -> None:
    store.append("a/b.bin", bytes(5000))


@pytest.mark.parametrize("attempt", [write, write_piece_by_piece, append])
def test_full_disk_raises_output_error(tmp_path: Path, attempt: Callable[[Store], None]) -> None:
    store = open_store(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"^cannot write \S*/a/b\.bin: File too large$"):
            attempt(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    if attempt is not append:
        assert list((tmp_path / "a").iterdir()) == []


def test_file_in_place_of_folder(store: Store) -> None:
    store.write("a", b"file")
    for attempt in (write, write_piece_by_piece, append):
        with pytest.raises(OutputError, match=r"^cannot .*/a") as caught:
            attempt(store)
        assert "\n" not in str(caught.value)
    assert store.read("a") == b"file"


@pytest.mark.parametrize("store", ["local", "memory"], indirect=True)
def test_folder_in_place_of_file(store: Store) -> None:
    store.write("a/b.bin/c", b"")
    for attempt in (write, write_piece_by_piece, append):
        with pytest.raises(OutputError, match=r"^cannot \w+ .*/a/b\.bin: "):
            attempt(store)
    if store.is_local:
        for act in (store.read, store.remove):
            with pytest.raises(OutputError, match=r"^cannot (read|remove) .*/a/b\.bin: Is a dir"):
                act("a/b.bin")


def test_missing_permission_raises_output_error(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.geteuid() == 0:
        closed = Path("/sys")  # not writable even for root
    store = open_store(closed)
    for attempt in (write, append):
        with pytest.raises(OutputError, match=r"Permission denied|not permitted|Read-only"):
            attempt(store)
    with pytest.raises(OutputError, match=r"Permission denied|not permitted|Read-only"):
        open_store(closed / "below")


class Cloud(FileSystem):  # type: ignore[misc]
    """A file system without buckets that raises foreign exceptions."""

    protocol = "cloud"
    created: list[str] = []  # noqa: RUF012

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        if "/" in path and not create_parents:
            raise FileNotFoundError(path)
        self.created.append(path)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        raise RuntimeError("the token\n  has expired")

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        raise RuntimeError("the token\n  has expired")

    def _rm(self, path: str) -> None:
        raise RuntimeError("the token\n  has expired")


@pytest.fixture
def cloud() -> None:
    fsspec.register_implementation("cloud", Cloud, clobber=True)
    Cloud.created.clear()


@pytest.mark.usefixtures("cloud")
def test_missing_bucket_is_not_created() -> None:
    for url in ("cloud://bucket/run", "cloud://bucket"):
        store = open_store(url)
        with pytest.raises(OutputError, match=rf"^cannot write {url}/a/b\.bin: .*bucket/"):
            write(store)
    assert Cloud.created == []


@pytest.mark.usefixtures("cloud")
def test_file_system_errors_become_output_errors() -> None:
    store = open_store("cloud://bucket")
    acts: list[Callable[[], Any]] = [
        lambda: store.read("b.bin"),
        lambda: store.write("b.bin", b""),
        lambda: store.open_for_writing("b.bin").__enter__(),
        lambda: store.append("b.bin", b""),
        lambda: store.list_names(),
        lambda: store.remove("b.bin"),
    ]
    for act in acts:
        with pytest.raises(
            OutputError,
            match=r"^cannot \w+ cloud://bucket\S*: RuntimeError: the token has expired$",
        ):
            act()


def test_unknown_url_scheme_is_rejected() -> None:
    with pytest.raises(OptionError, match=r"nope://bucket/run cannot be opened: .*nope"):
        open_store("nope://bucket/run")


def test_missing_package_of_url_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # A scheme that fsspec supports through a package that is not installed.
    fsspec.register_implementation("far", "no_such_package.Far", clobber=True)
    with pytest.raises(MissingDependencyError, match=r"far://run cannot be opened: .*no_such_pack"):
        open_store("far://run")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingDependencyError, match=r"memory://run .*'actgrid\[remote\]'"):
        open_store("memory://run")


def test_a_local_folder_needs_no_fsspec(tmp_path: Path) -> None:
    code = (
        "import sys; from actgrid.runs.stores import open_store\n"
        f"open_store({str(tmp_path)!r}).write('a', b''); open_store('file://{tmp_path}').read('a')\n"
        "assert 'fsspec' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_find_local_folder(tmp_path: Path) -> None:
    assert find_local_folder(tmp_path) == find_local_folder(str(tmp_path)) == tmp_path
    assert (
        find_local_folder(f"file://{tmp_path}")
        == find_local_folder(f"local://{tmp_path}")
        == tmp_path
    )
    assert find_local_folder("s3://bucket/run") is None
