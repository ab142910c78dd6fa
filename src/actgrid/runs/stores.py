"""Stores of the files of a run: a local folder, or a remote location of fsspec."""

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
    is_partial_file,
    lock_folder,
    make_folder,
    open_atomic_file,
    sync_file_system,
    write_file,
)
from actgrid.errors import (
    ActgridError,
    MissingDependencyError,
    OptionError,
    OutputError,
    RunError,
)

__all__ = ["Store", "find_local_folder", "open_store"]

_MAX_ERROR_LENGTH = 300  # characters


def open_store(output: str | os.PathLike[str]) -> Store:
    """Open the store at a local folder, or at a URL such as ``s3://bucket/run``.

    Raises
    ------
    OutputError
        If the folder cannot be created, or the URL cannot be reached.
    OptionError
        If `output` is empty, or fsspec does not support the URL.
    MissingDependencyError
        If fsspec, or a package that it needs for the URL, is not installed.
    """
    if not str(output).removeprefix("file://").removeprefix("local://"):
        raise OptionError(f"output={output!r} is empty; expected a folder or a URL")
    folder = find_local_folder(output)
    return _RemoteStore(str(output)) if folder is None else _LocalStore(folder)


def find_local_folder(output: str | os.PathLike[str]) -> Path | None:
    """Return the local folder of an output; None if the output is remote."""
    if not isinstance(output, str) or "://" not in output:
        return Path(output)
    if output.startswith(("file://", "local://")):  # fsspec would not write local files atomically
        return Path(output.partition("://")[2])
    return None


class Store(ABC):
    """Base class of stores: a folder of files with relative names.

    The methods may be called by several threads. Each raises OutputError, with a message of one
    line, if it fails.

    Attributes
    ----------
    is_local
        Whether the store is a local folder, where appending to a file is cheap.
    """

    is_local: bool

    @abstractmethod
    def get_full_path(self, name: str = "") -> str:
        """Return the complete path or URL of a file, or of the store."""

    @abstractmethod
    def write(self, name: str, *pieces: bytes) -> None:
        """Write a file atomically; folders are created."""

    @abstractmethod
    def open_for_writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a large file for writing; it appears when complete, and not after an error."""

    @abstractmethod
    def append(self, name: str, data: bytes) -> None:
        """Append to a file; the data is safe if the process is killed afterwards."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if the file does not exist."""

    @abstractmethod
    def read_lines(self, name: str) -> Iterator[bytes]:
        """Yield the lines of a file with line ends; none if the file does not exist."""

    @abstractmethod
    def remove_incomplete_line(self, name: str) -> None:
        """Remove the last line of a file if it has no line end, after a killed append."""

    @abstractmethod
    def list_names(self, prefix: str = "") -> list[str]:
        """Return the sorted names of files with a prefix, without files in subfolders."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file if it exists."""

    @abstractmethod
    def clean(self, folders: Iterable[str] = ("",)) -> None:
        """Remove temporary files that killed processes left in folders.

        No other process may be writing there. The folder ``""`` is the store itself. Subfolders are
        not searched.
        """

    @abstractmethod
    def lock(self) -> AbstractContextManager[object]:
        """Lock the store against other runs while the context is open.

        The lock ends with the process, also if it is killed. Object stores, some network file
        systems, and folders on Windows cannot be locked.

        Raises
        ------
        RunError
            If another run has locked the store. Also a ValueError.
        """

    @abstractmethod
    def sync(self) -> None:
        """Wait until all written files are on the storage device, safe from power loss."""

    @contextmanager
    def _translate_errors(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except ActgridError:
            raise
        except Exception as error:
            # fsspec raises exceptions of many libraries.
            raise OutputError(
                f"cannot {action} {self.get_full_path(name)}: {_describe_error(error)}"
            ) from error


class _LocalStore(Store):
    """A store in a local folder."""

    is_local = True

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self._prefix = os.path.join(folder, "")  # noqa: PTH118  (joining paths takes long)

    def get_full_path(self, name: str = "") -> str:
        return str(self.folder / name)

    def write(self, name: str, *pieces: bytes) -> None:
        try:
            write_file(f"{self._prefix}{name}", *pieces)
        except OutputError as error:
            # Checking first whether the folder exists would take longer than writing its files.
            if not isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                raise
            write_file(self._make_parent(name), *pieces)

    def open_for_writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        return open_atomic_file(self._make_parent(name))

    def append(self, name: str, data: bytes) -> None:
        with self._translate_errors("write", name), self._make_parent(name).open("ab") as file:
            file.write(data)

    def read(self, name: str) -> bytes | None:
        with self._translate_errors("read", name):
            try:
                return (self.folder / name).read_bytes()
            except FileNotFoundError:
                return None

    def read_lines(self, name: str) -> Iterator[bytes]:
        with self._translate_errors("read", name):
            try:
                with (self.folder / name).open("rb") as file:
                    yield from file
            except FileNotFoundError:
                pass

    def remove_incomplete_line(self, name: str) -> None:
        complete_bytes = 0
        for line in self.read_lines(name):
            complete_bytes += len(line) if line.endswith(b"\n") else 0
        with self._translate_errors("write", name), suppress(FileNotFoundError):
            os.truncate(self.folder / name, complete_bytes)

    def list_names(self, prefix: str = "") -> list[str]:
        folder, slash, start = prefix.rpartition("/")
        return sorted(
            f"{folder}{slash}{entry.name}"
            for entry in self._list_entries(folder)
            if entry.name.startswith(start) and entry.is_file() and not is_partial_file(entry.name)
        )

    def remove(self, name: str) -> None:
        file = self.folder / name
        with self._translate_errors("remove", name):
            file.unlink(missing_ok=True)
        # Empty folders are removed, as on object stores, which have none.
        with suppress(OSError):
            while file.parent != self.folder:
                file = file.parent
                file.rmdir()

    def clean(self, folders: Iterable[str] = ("",)) -> None:
        for folder in folders:
            for entry in self._list_entries(folder):
                if is_partial_file(entry.name):
                    with self._translate_errors("remove", f"{folder}/{entry.name}"):
                        Path(entry).unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        with ExitStack() as locks:
            with self._translate_errors("lock", ""):
                is_locked = locks.enter_context(lock_folder(self.folder))
            if not is_locked:
                raise RunError(
                    f"another run is writing to {self.get_full_path()}: wait until it ends, or "
                    "choose another folder"
                )
            yield

    def sync(self) -> None:
        with self._translate_errors("write", ""):
            sync_file_system(self.folder)

    def _make_parent(self, name: str) -> Path:
        """Create the folder of a file, and return the path of the file."""
        file = self.folder / name
        make_folder(file.parent)
        return file

    def _list_entries(self, folder: str) -> list[os.DirEntry[str]]:
        with self._translate_errors("read", folder):
            try:
                with os.scandir(self.folder / folder) as entries:
                    return list(entries)
            except (FileNotFoundError, NotADirectoryError):
                return []


class _RemoteStore(Store):
    """A store at a URL of fsspec.

    `write` sends a file as one object. A file of `open_for_writing` appears when it is complete, if
    the file system supports this, as cloud storage does.
    """

    is_local = False

    def __init__(self, url: str) -> None:
        try:
            core = importlib.import_module("fsspec.core")
        except ImportError as error:
            raise MissingDependencyError(
                f"{url} needs fsspec ({error}); install it with pip install 'actgrid[remote]'"
            ) from error
        try:
            self._files, root = core.url_to_fs(url)
        except ImportError as error:
            raise MissingDependencyError(f"{url} cannot be opened: {error}") from error
        except ValueError as error:
            raise OptionError(f"{url} cannot be opened: {error}") from error
        except Exception as error:  # fsspec raises exceptions of many libraries, such as ftplib
            raise OutputError(f"{url} cannot be reached: {_describe_error(error)}") from error
        self._root: str = root.rstrip("/")
        self._make_folder_once = lru_cache(1024)(self._make_folder)

    def get_full_path(self, name: str = "") -> str:
        url: str = self._files.unstrip_protocol(self._path(name))
        return url

    def write(self, name: str, *pieces: bytes) -> None:
        with self._translate_errors("write", name):
            self._files.pipe_file(self._make_parent(name), b"".join(pieces))

    @contextmanager
    def open_for_writing(self, name: str) -> Iterator[BinaryIO]:
        with self._translate_errors("write", name):
            file: Any = self._files.open(self._make_parent(name), "wb", autocommit=False)
            try:
                with file:
                    yield file
            except BaseException:
                getattr(file, "discard", _do_nothing)()
                raise
            getattr(file, "commit", _do_nothing)()  # files of Hadoop have no such method

    def append(self, name: str, data: bytes) -> None:
        self.write(name, self.read(name) or b"", data)

    def read(self, name: str) -> bytes | None:
        with self._translate_errors("read", name):
            try:
                content: bytes = self._files.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return content

    def read_lines(self, name: str) -> Iterator[bytes]:
        yield from (self.read(name) or b"").splitlines(keepends=True)

    def remove_incomplete_line(self, name: str) -> None:
        """Return without action: remote files are never incomplete."""

    def list_names(self, prefix: str = "") -> list[str]:
        folder, slash, start = prefix.rpartition("/")
        with self._translate_errors("read", folder):
            self._files.invalidate_cache()  # other processes may have written
            try:
                entries = self._files.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return []
        files = [Path(entry["name"]).name for entry in entries if entry["type"] == "file"]
        return sorted(f"{folder}{slash}{name}" for name in files if name.startswith(start))

    def remove(self, name: str) -> None:
        with self._translate_errors("remove", name), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def clean(self, folders: Iterable[str] = ("",)) -> None:
        """Return without action: incomplete remote files have no name."""

    def lock(self) -> AbstractContextManager[object]:
        return nullcontext()

    def sync(self) -> None:
        """Return without action: remote objects are durable once they are sent."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _make_parent(self, name: str) -> str:
        """Create the folder of a file, and return the path of the file."""
        path = self._path(name)
        self._make_folder_once(path.rpartition("/")[0])
        return path

    def _make_folder(self, folder: str) -> None:
        """Create a folder with its parents, except for the bucket."""
        if "/" not in folder:
            return
        with suppress(FileExistsError):
            try:
                self._files.mkdir(folder, create_parents=False)
            except FileNotFoundError:
                parent = folder.rpartition("/")[0]
                if "/" not in parent:
                    raise
                self._make_folder(parent)
                self._files.mkdir(folder, create_parents=False)


def _describe_error(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return textwrap.shorten(reason, _MAX_ERROR_LENGTH)


def _do_nothing() -> None:
    pass
