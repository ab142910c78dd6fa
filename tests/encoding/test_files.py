"""Tests of `actgrid.encoding.files`."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import stat
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actgrid.encoding import (
    is_partial_file,
    lock_folder,
    make_folder,
    open_atomic_file,
    sync_file_system,
    write_file,
)
from actgrid.errors import ImageError, OutputError


def test_write_file_sets_content_and_default_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    reference = tmp_path / "b.bin"
    reference.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(reference.stat().st_mode)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.bin", "b.bin"]


def test_full_disk_keeps_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_file(path, b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*a\.bin: File too large") as caught:
            write_file(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert isinstance(caught.value, OSError)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_make_folder_creates_parents(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert make_folder(folder) == folder


def test_make_folder_below_file_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot make the folder .*: Not a directory"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(OutputError, match="File exists"):
        make_folder(tmp_path / "file")


def test_missing_permission_raises(tmp_path: Path) -> None:
    read_only = tmp_path / "closed"
    read_only.mkdir(mode=0o500)
    if os.geteuid() == 0:
        read_only = Path("/sys")  # not writable even for root
    with pytest.raises(OutputError, match=r"Permission denied|not permitted|Read-only"):
        write_file(read_only / "a.bin", b"")
    with pytest.raises(OutputError, match=r"Permission denied|not permitted|Read-only"):
        make_folder(read_only / "below")


def test_open_atomic_file_replaces_file_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_file(path, b"before")
    with open_atomic_file(path) as file:
        file.write(b"one")
        file.write(b"two")
        assert path.read_bytes() == b"before"
        (temporary,) = set(tmp_path.iterdir()) - {path}
        assert is_partial_file(temporary.name)
    assert path.read_bytes() == b"onetwo"
    assert list(tmp_path.iterdir()) == [path]


def test_open_atomic_file_keeps_previous_file_on_error(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_file(path, b"before")

    def write_and_raise(error: BaseException) -> None:
        with open_atomic_file(path) as file:
            file.write(b"half")
            raise error

    for error in (ValueError("mine"), KeyboardInterrupt(), ImageError("of an image")):
        with pytest.raises(type(error)) as caught:
            write_and_raise(error)
        assert caught.value is error
        assert path.read_bytes() == b"before"
        assert list(tmp_path.iterdir()) == [path]


def test_is_partial_file() -> None:
    assert is_partial_file("." + "0123456789abcdef" * 2 + ".part")
    for name in ("a.part", ".part", "0" * 32 + ".part", "." + "g" * 32 + ".part", "a.png"):
        assert not is_partial_file(name)


@given(st.lists(st.binary(max_size=50), max_size=1100))
@example([b"x"] * 1025)
@example([])
@example([b""])
def test_write_file_joins_pieces(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    file = tmp_path_factory.mktemp("pieces") / "file"
    write_file(file, *pieces)
    assert file.read_bytes() == b"".join(pieces)


def test_write_file_continues_after_partial_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original_write = os.write
    monkeypatch.setattr(
        os, "writev", lambda file, pieces: original_write(file, b"".join(pieces)[:3])
    )
    monkeypatch.setattr(os, "write", lambda file, data: original_write(file, data[:2]))
    write_file(tmp_path / "file", b"ab", b"", b"cdefgh")
    assert (tmp_path / "file").read_bytes() == b"abcdefgh"
    monkeypatch.delattr(os, "writev")  # as on Windows
    write_file(tmp_path / "file", b"01", b"23456")
    assert (tmp_path / "file").read_bytes() == b"0123456"


def test_lock_folder_locks_once_and_leaves_no_file(tmp_path: Path) -> None:
    with lock_folder(tmp_path) as first:
        with lock_folder(tmp_path) as second:
            assert (first, second) == (True, False)
        with lock_folder(tmp_path) as third:
            assert not third
    with lock_folder(tmp_path) as fourth:
        assert fourth
    assert list(tmp_path.iterdir()) == []


def test_lock_folder_without_lock_support(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_error(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, "as NFS does")

    monkeypatch.setattr("fcntl.flock", raise_error)
    with lock_folder(tmp_path) as first, lock_folder(tmp_path) as second:
        assert first
        assert second


def test_sync_file_system_reports_lost_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_file_system(tmp_path)

    class Library:
        def syncfs(self, descriptor: int) -> int:
            ctypes.set_errno(errno.EIO)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: Library())
    with pytest.raises(OSError, match="Input/output error"):
        sync_file_system(tmp_path)
