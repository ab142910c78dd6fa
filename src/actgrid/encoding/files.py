"""Write files atomically, make and lock folders."""

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
    "is_partial_file",
    "lock_folder",
    "make_folder",
    "open_atomic_file",
    "sync_file_system",
    "write_file",
]

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_MAX_PIECES = 1024  # per writev call: IOV_MAX of Linux
_PARTIAL_NAME = re.compile(r"\.[0-9a-f]{32}\.part")


def _make_output_error(action: str, path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot {action} {path}: {error.strerror or error}")


def make_folder(path: str | Path) -> Path:
    """Create a folder with its parents, unless it exists, and return its path.

    Parameters
    ----------
    path : str or pathlib.Path
        The folder.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    OutputError
        If the folder cannot be created, is not a folder, or `path` is an empty string.

    Examples
    --------
    >>> from actgrid.encoding import make_folder
    >>> make_folder("results/images").is_dir()
    True
    """
    if path == "":  # Path("") would be the current folder
        raise OutputError("cannot make a folder without a name: the path is empty")
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _make_output_error("make the folder", folder, error) from error
    return folder


def write_file(path: str | Path, *pieces: bytes) -> None:
    """Write a file atomically: write a temporary file, then rename it to `path`.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    *pieces : bytes
        The content in consecutive pieces.

    Raises
    ------
    OutputError
        If the file cannot be written (missing folder, no permission, no space). A previous file at
        `path` is kept, and no temporary file is left.

    Examples
    --------
    >>> from pathlib import Path
    >>> from actgrid.encoding import write_file
    >>> write_file("data.bin", b"ab", b"cd")
    >>> Path("data.bin").read_bytes()
    b'abcd'
    """
    # Few system calls: each releases the GIL and may wait long to get it back.
    with _replace_on_success(path) as temporary_path:
        file = os.open(temporary_path, _NEW_FILE, 0o666)
        try:
            _write_pieces(file, pieces)
        finally:
            os.close(file)


@contextmanager
def open_atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file, which replaces `path` at the end of the ``with`` block.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Yields
    ------
    file object
        The temporary file, opened for binary writing.

    Raises
    ------
    OutputError
        If the file cannot be written; see `write_file`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from actgrid.encoding import open_atomic_file
    >>> with open_atomic_file("data.bin") as file:
    ...     _ = file.write(b"abcd")
    >>> Path("data.bin").read_bytes()
    b'abcd'
    """
    with _replace_on_success(path) as temporary_path, Path(temporary_path).open("xb") as file:
        yield file


@contextmanager
def _replace_on_success(path: str | Path) -> Iterator[str]:
    """Write a file atomically through a temporary file in the same folder.

    Yields
    ------
    str
        The temporary path. It is renamed to `path` at the end of the ``with`` block, or deleted if
        the block raises.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    # Strings, because the operations of pathlib take as long as the system calls.
    folder = os.path.dirname(path)  # noqa: PTH120
    temporary_path = os.path.join(folder, f".{uuid.uuid4().hex}.part")  # noqa: PTH118
    try:
        try:
            yield temporary_path
            os.replace(temporary_path, path)  # noqa: PTH105
        except BaseException:
            Path(temporary_path).unlink(missing_ok=True)
            raise
    except ActgridError:
        raise
    except OSError as error:
        raise _make_output_error("write", Path(path), error) from error


def _write_pieces(file: int, pieces: Sequence[bytes]) -> None:
    remaining_bytes = sum(map(len, pieces))
    if hasattr(os, "writev") and len(pieces) <= _MAX_PIECES:
        remaining_bytes -= os.writev(file, pieces)
        if not remaining_bytes:
            return
    # A nearly full disk accepts part of the data; the next call raises the reason.
    remaining = memoryview(b"".join(pieces))[-remaining_bytes:]
    while remaining:
        remaining = remaining[os.write(file, remaining) :]


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder in a ``with`` block, if no other process or block has locked it.

    The lock belongs to the folder itself: no file is created, and the lock ends with the process.
    If the system or the file system does not support such locks, the folder counts as locked.

    Parameters
    ----------
    folder : pathlib.Path
        An existing folder.

    Yields
    ------
    bool
        Whether the folder is locked by this block; False if it was locked elsewhere.

    Examples
    --------
    >>> from pathlib import Path
    >>> from actgrid.encoding import lock_folder
    >>> with lock_folder(Path(".")) as is_locked:
    ...     print(is_locked)
    True
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        is_locked = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_locked = False
        except OSError:  # such as NFS, which locks only files that are open for writing
            pass
        yield is_locked
    finally:
        os.close(descriptor)


def sync_file_system(folder: Path) -> None:
    """Wait until the file system of a folder has written all data to its device.

    One call for many files is faster than `os.fsync` for each file. If the system has no such call,
    nothing is done.

    Parameters
    ----------
    folder : pathlib.Path
        An existing folder.

    Raises
    ------
    OSError
        If the device reports that data were lost.

    Examples
    --------
    >>> from pathlib import Path
    >>> from actgrid.encoding import sync_file_system
    >>> sync_file_system(Path("."))
    """
    import ctypes

    library = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    sync = getattr(library, "syncfs", None)  # available on Linux
    if sync is None:
        getattr(os, "sync", lambda: None)()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if sync(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(descriptor)


def is_partial_file(name: str) -> bool:
    """Return whether a file name is that of a temporary file that is being written.

    If no process is writing, such a file was left by a process that was killed.

    Parameters
    ----------
    name : str
        Name of the file, without its folder.

    Returns
    -------
    bool
        True for names that `write_file` and `open_atomic_file` use.

    Examples
    --------
    >>> from actgrid.encoding import is_partial_file
    >>> is_partial_file("picture.png")
    False
    >>> is_partial_file("." + 32 * "0" + ".part")
    True
    """
    return _PARTIAL_NAME.fullmatch(name) is not None
