"""Where files of a run go: a local folder, or a place that fsspec knows."""

from __future__ import annotations

import importlib
import os
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from actgrid.encoding import (
    is_leftover,
    lock_folder,
    sync_file_system,
    writable_folder,
    write_file,
    writing_file,
)
from actgrid.errors import (
    ActgridError,
    MissingDependencyError,
    OptionError,
    OutputError,
    RunError,
)

__all__ = ["Store", "local_folder", "open_store"]

_MAX_REASON = 300  # characters


def open_store(output: str | os.PathLike[str]) -> Store:
    """Return the store at a local folder, made if need be, or at a URL (``s3://bucket/run``).

    Raises
    ------
    OutputError
        If the folder cannot be made, or the place cannot be reached.
    OptionError
        If `output` is empty, or the URL is of no kind that fsspec knows.
    MissingDependencyError
        If fsspec, or what it needs for such a URL, is not installed.
    """
    if not str(output).removeprefix("file://").removeprefix("local://"):
        raise OptionError(f"output={output!r} is empty: give a folder or a URL")
    folder = local_folder(output)
    return _RemoteStore(str(output)) if folder is None else _LocalStore(folder)


def local_folder(output: str | os.PathLike[str]) -> Path | None:
    """Return the folder on this machine that an output is, None if it is elsewhere."""
    if not isinstance(output, str) or "://" not in output:
        return Path(output)
    if output.startswith(("file://", "local://")):  # which fsspec would not write aside
        return Path(output.partition("://")[2])
    return None


class Store(ABC):
    """A folder of files. Their names are relative, with ``/`` between folders.

    Its methods may be called by several threads. All raise OutputError, in one line, where they
    fail for whatever reason.

    Attributes
    ----------
    local
        Whether it is a folder on this machine, where to append to a file costs what is appended.
    """

    local: bool

    @abstractmethod
    def place(self, name: str = "") -> str:
        """Return the whole path or URL of a file, or of the store."""

    @abstractmethod
    def write(self, name: str, *pieces: bytes) -> None:
        """Write a file, whole or not at all; folders are made."""

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Yield a large file to write, which is there, whole, unless an error leaves the block."""

    @abstractmethod
    def append(self, name: str, data: bytes) -> None:
        """Add to the end of a file. After it, a process that is killed does not lose it."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if there is none."""

    @abstractmethod
    def lines(self, name: str) -> Iterator[bytes]:
        """Yield the lines of a file, with their ends; none if there is no file."""

    @abstractmethod
    def cut(self, name: str) -> None:
        """Remove the last line of a file if it has no end, as when it was being appended."""

    @abstractmethod
    def names(self, prefix: str = "") -> list[str]:
        """Return the names of the files that begin so, sorted; none in folders below."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def clean(self, folders: Iterable[str] = ("",)) -> None:
        """Remove what killed processes left in folders of which they were writing files.

        Nobody may be writing there. ``""`` is the store itself; folders below are not looked at.
        """

    @abstractmethod
    def lock(self) -> AbstractContextManager[object]:
        """Lock the store against other runs for a ``with`` block, where the place can be locked.

        A process that ends, however it ends, unlocks the store. Object stores cannot be locked,
        nor can some network file systems, nor folders on Windows.

        Raises
        ------
        RunError
            If another run has locked the store. Also a ValueError.
        """

    @abstractmethod
    def sync(self) -> None:
        """Wait until everything written so far is on the device, safe from a power cut."""

    @contextmanager
    def _attempt(self, to: str, name: str) -> Iterator[None]:
        try:
            yield
        except ActgridError:
            raise
        except Exception as error:
            # What fsspec raises may be of any library.
            raise OutputError(f"cannot {to} {self.place(name)}: {_reason(error)}") from error


class _LocalStore(Store):
    """A folder on this machine."""

    local = True

    def __init__(self, folder: Path) -> None:
        self.folder = writable_folder(folder)

    def place(self, name: str = "") -> str:
        return str(self.folder / name)

    def write(self, name: str, *pieces: bytes) -> None:
        file = self.folder / name
        try:
            write_file(file, *pieces)
        except OutputError as error:
            # To look for the folder first would take longer than all the files in it.
            if not isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                raise
            write_file(self._made(name), *pieces)

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        return writing_file(self._made(name))

    def append(self, name: str, data: bytes) -> None:
        with self._attempt("write", name), self._made(name).open("ab") as file:
            file.write(data)

    def read(self, name: str) -> bytes | None:
        with self._attempt("read", name):
            try:
                return (self.folder / name).read_bytes()
            except FileNotFoundError:
                return None

    def lines(self, name: str) -> Iterator[bytes]:
        with self._attempt("read", name):
            try:
                with (self.folder / name).open("rb") as file:
                    yield from file
            except FileNotFoundError:
                pass

    def cut(self, name: str) -> None:
        whole = 0
        for line in self.lines(name):
            whole += len(line) if line.endswith(b"\n") else 0
        with self._attempt("write", name), suppress(FileNotFoundError):
            os.truncate(self.folder / name, whole)

    def names(self, prefix: str = "") -> list[str]:
        folder, slash, start = prefix.rpartition("/")
        return sorted(
            f"{folder}{slash}{entry.name}"
            for entry in self._entries(folder)
            if entry.name.startswith(start) and entry.is_file() and not is_leftover(entry.name)
        )

    def remove(self, name: str) -> None:
        file = self.folder / name
        with self._attempt("remove", name):
            file.unlink(missing_ok=True)
        # As at a URL, where there are no folders that are empty.
        with suppress(OSError):
            while file.parent != self.folder:
                file = file.parent
                file.rmdir()

    def clean(self, folders: Iterable[str] = ("",)) -> None:
        for folder in folders:
            for entry in self._entries(folder):
                if is_leftover(entry.name):
                    with self._attempt("remove", f"{folder}/{entry.name}"):
                        Path(entry).unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        with ExitStack() as locks:
            with self._attempt("lock", ""):
                is_locked = locks.enter_context(lock_folder(self.folder))
            if not is_locked:
                raise RunError(
                    f"another run is writing to {self.place()}: wait until it has ended, or choose "
                    "another folder"
                )
            yield

    def sync(self) -> None:
        with self._attempt("write", ""):
            sync_file_system(self.folder)

    def _made(self, name: str) -> Path:
        file = self.folder / name
        writable_folder(file.parent)
        return file

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        with self._attempt("read", folder):
            try:
                with os.scandir(self.folder / folder) as entries:
                    return list(entries)
            except (FileNotFoundError, NotADirectoryError):
                return []


class _RemoteStore(Store):
    """A place that fsspec knows, by its URL.

    A file that is written at once is one object, sent whole. What is written piece by piece
    appears when it is complete where the file system can do so, as those of the clouds can.
    """

    local = False

    def __init__(self, url: str) -> None:
        try:
            core = importlib.import_module("fsspec.core")
        except ImportError as error:
            raise MissingDependencyError(
                f"{url} needs fsspec ({error}); to get it, pip install 'actgrid[remote]'"
            ) from error
        try:
            self._files, root = core.url_to_fs(url)
        except ImportError as error:
            raise MissingDependencyError(f"{url} cannot be opened: {error}") from error
        except ValueError as error:
            raise OptionError(f"{url} cannot be opened: {error}") from error
        except Exception as error:  # of whatever library reaches the place, such as ftplib
            raise OutputError(f"{url} cannot be reached: {_reason(error)}") from error
        self._root: str = root.rstrip("/")
        self._make_once = lru_cache(1024)(self._make)

    def place(self, name: str = "") -> str:
        url: str = self._files.unstrip_protocol(self._path(name))
        return url

    def write(self, name: str, *pieces: bytes) -> None:
        with self._attempt("write", name):
            self._files.pipe_file(self._made(name), b"".join(pieces))

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        with self._attempt("write", name):
            file: Any = self._files.open(self._made(name), "wb", autocommit=False)
            try:
                with file:
                    yield file
            except BaseException:
                getattr(file, "discard", _nothing)()
                raise
            getattr(file, "commit", _nothing)()  # which Hadoop's files do not have

    def append(self, name: str, data: bytes) -> None:
        self.write(name, self.read(name) or b"", data)

    def read(self, name: str) -> bytes | None:
        with self._attempt("read", name):
            try:
                content: bytes = self._files.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return content

    def lines(self, name: str) -> Iterator[bytes]:
        yield from (self.read(name) or b"").splitlines(keepends=True)

    def cut(self, name: str) -> None:
        """Do nothing: a file is whole here."""

    def names(self, prefix: str = "") -> list[str]:
        folder, slash, start = prefix.rpartition("/")
        with self._attempt("read", folder):
            self._files.invalidate_cache()  # others may have written since
            try:
                entries = self._files.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return []
        files = [Path(one["name"]).name for one in entries if one["type"] == "file"]
        return sorted(f"{folder}{slash}{name}" for name in files if name.startswith(start))

    def remove(self, name: str) -> None:
        with self._attempt("remove", name), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def clean(self, folders: Iterable[str] = ("",)) -> None:
        """Do nothing: what is not complete has no name here."""

    def lock(self) -> AbstractContextManager[object]:
        return nullcontext()

    def sync(self) -> None:
        """Return at once: an object that has been sent is durable."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _made(self, name: str) -> str:
        path = self._path(name)
        self._make_once(path.rpartition("/")[0])
        return path

    def _make(self, folder: str) -> None:
        """Make a folder with its parents, but no bucket, which has no slash before its name."""
        if "/" not in folder:
            return
        with suppress(FileExistsError):
            try:
                self._files.mkdir(folder, create_parents=False)
            except FileNotFoundError:
                parent = folder.rpartition("/")[0]
                if "/" not in parent:
                    raise
                self._make(parent)
                self._files.mkdir(folder, create_parents=False)


def _reason(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return textwrap.shorten(reason, _MAX_REASON)


def _nothing() -> None:
    pass
