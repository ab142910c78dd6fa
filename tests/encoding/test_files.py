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
    is_leftover,
    lock_folder,
    sync_file_system,
    writable_folder,
    write_file,
    writing_file,
)
from actgrid.errors import ImageError, OutputError


def test_file_appears_with_its_content_and_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    plain = tmp_path / "b.bin"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.bin", "b.bin"]


def test_full_disk_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
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


def test_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = writable_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert writable_folder(folder) == folder


def test_folder_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot make the folder .*: Not a directory"):
        writable_folder(tmp_path / "file" / "below")
    with pytest.raises(OutputError, match="File exists"):
        writable_folder(tmp_path / "file")


def test_folder_without_permission_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.geteuid() == 0:
        closed = Path("/sys")  # where not even root may write
    with pytest.raises(OutputError, match=r"Permission denied|not permitted|Read-only"):
        write_file(closed / "a.bin", b"")
    with pytest.raises(OutputError, match=r"Permission denied|not permitted|Read-only"):
        writable_folder(closed / "below")


def test_a_file_written_piece_by_piece_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_file(path, b"before")
    with writing_file(path) as file:
        file.write(b"one")
        file.write(b"two")
        assert path.read_bytes() == b"before"
        (aside,) = set(tmp_path.iterdir()) - {path}
        assert is_leftover(aside.name)
    assert path.read_bytes() == b"onetwo"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_or_an_interruption_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_file(path, b"before")

    def interrupted(error: BaseException) -> None:
        with writing_file(path) as file:
            file.write(b"half")
            raise error

    for error in (ValueError("mine"), KeyboardInterrupt(), ImageError("of an image")):
        with pytest.raises(type(error)) as caught:
            interrupted(error)
        assert caught.value is error
        assert path.read_bytes() == b"before"
        assert list(tmp_path.iterdir()) == [path]


def test_other_files_are_no_leftovers() -> None:
    assert is_leftover("." + "0123456789abcdef" * 2 + ".part")
    for name in ("a.part", ".part", "0" * 32 + ".part", "." + "g" * 32 + ".part", "a.png"):
        assert not is_leftover(name)


@given(st.lists(st.binary(max_size=50), max_size=1100))
@example([b"x"] * 1025)
@example([])
@example([b""])
def test_the_pieces_follow_each_other(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    file = tmp_path_factory.mktemp("pieces") / "file"
    write_file(file, *pieces)
    assert file.read_bytes() == b"".join(pieces)


def test_a_disk_may_take_part_of_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "writev", lambda file, pieces: real(file, b"".join(pieces)[:3]))
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:2]))
    write_file(tmp_path / "file", b"ab", b"", b"cdefgh")
    assert (tmp_path / "file").read_bytes() == b"abcdefgh"
    monkeypatch.delattr(os, "writev")  # as on Windows
    write_file(tmp_path / "file", b"01", b"23456")
    assert (tmp_path / "file").read_bytes() == b"0123456"


def test_a_folder_is_locked_once_and_leaves_nothing(tmp_path: Path) -> None:
    with lock_folder(tmp_path) as first:
        with lock_folder(tmp_path) as second:
            assert (first, second) == (True, False)
        with lock_folder(tmp_path) as third:
            assert not third
    with lock_folder(tmp_path) as again:
        assert again
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_locked_counts_as_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(opened: int, operation: int) -> None:
        raise OSError(errno.EBADF, "as NFS does")

    monkeypatch.setattr("fcntl.flock", refuse)
    with lock_folder(tmp_path) as first, lock_folder(tmp_path) as second:
        assert first
        assert second


def test_a_device_that_lost_data_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_file_system(tmp_path)

    class Library:
        def syncfs(self, opened: int) -> int:
            ctypes.set_errno(errno.EIO)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: Library())
    with pytest.raises(OSError, match="Input/output error"):
        sync_file_system(tmp_path)
