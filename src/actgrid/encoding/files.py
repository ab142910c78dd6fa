"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from actgrid.errors import ActgridError, OutputError

__all__ = [
    "is_leftover",
    "lock_folder",
    "sync_file_system",
    "writable_folder",
    "write_file",
    "writing_file",
]

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_MOST_PIECES = 1024  # that POSIX lets be written at once: IOV_MAX
_PART = re.compile(r"\.[0-9a-f]{32}\.part")


def _refused(what: str, path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot {what} {path}: {error.strerror or error}")


def writable_folder(path: str | Path) -> Path:
    """Return `path` as a folder, made with its parents where it does not exist.

    Raises
    ------
    OutputError
        If it cannot be made or is not a folder, or if `path` is an empty string.
    """
    if path == "":  # as a Path it would be the current folder
        raise OutputError("cannot make a folder without a name: the path is empty")
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused("make the folder", folder, error) from error
    return folder


def write_file(path: str | Path, *pieces: bytes) -> None:
    """Write a file aside, piece after piece, and rename it into place: no reader sees half of it.

    Raises
    ------
    OutputError
        If it cannot be written: no such folder, no permission, no space. What was at `path`
        before is then still there, and nothing else.
    """
    # In as few calls as can be: each of them lets other threads run, and may wait long to go on.
    with _aside(path) as part:
        file = os.open(part, _NEW_FILE, 0o666)
        try:
            _write_all(file, pieces)
        finally:
            os.close(file)


@contextmanager
def writing_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a file to write aside, which is renamed into place unless an error leaves the block.

    Raises
    ------
    OutputError
        See `write_file`.
    """
    with _aside(path) as part, part.open("xb") as file:
        yield file


@contextmanager
def _aside(path: str | Path) -> Iterator[Path]:
    """Yield the name to write a file by, which is renamed unless an error leaves the block."""
    path = Path(path)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        try:
            yield part
            os.replace(part, path)  # noqa: PTH105  (Path.replace takes longer)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except ActgridError:
        raise
    except OSError as error:
        raise _refused("write", path, error) from error


def _write_all(file: int, pieces: Sequence[bytes]) -> None:
    left = sum(map(len, pieces))
    if hasattr(os, "writev") and len(pieces) <= _MOST_PIECES:
        left -= os.writev(file, pieces)
        if not left:
            return
    # A disk that is nearly full takes a part, and tells why when it is asked again.
    rest = memoryview(b"".join(pieces))[-left:]
    while rest:
        rest = rest[os.write(file, rest) :]


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder for a ``with`` block; yield False if another process or block has locked it.

    The lock is on the folder itself: no file is left behind, and a process that ends unlocks it.
    Where the system or the file system has no such locks, the folder counts as locked.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        is_locked = True
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_locked = False
        except OSError:  # as on NFS, which locks only what is open for writing
            pass
        yield is_locked
    finally:
        os.close(opened)


def sync_file_system(folder: Path) -> None:
    """Wait until the file system that holds a folder has written everything to its device.

    One call for many files: to wait for each by `os.fsync` takes as long as writing them again.
    Where the system has no such call, nothing is done.

    Raises
    ------
    OSError
        If the device reports that data were lost.
    """
    import ctypes

    library = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    sync = getattr(library, "syncfs", None)  # of Linux
    if sync is None:
        getattr(os, "sync", lambda: None)()
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        if sync(opened):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(opened)


def is_leftover(name: str) -> bool:
    """Tell whether a file has the name that one has while it is written.

    Where nobody is writing, a process that was killed has left it.
    """
    return _PART.fullmatch(name) is not None
