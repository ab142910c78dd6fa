"""Files that appear whole or not at all."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from actgrid.errors import ActgridError, OutputError

__all__ = ["is_leftover", "writable_folder", "write_file", "writing_file"]

_PART = re.compile(r"\.[0-9a-f]{32}\.part")


def _refused(what: str, path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot {what} {path}: {error.strerror or error}")


def writable_folder(path: str | Path) -> Path:
    """Return `path` as a folder, made with its parents where it does not exist.

    Raises
    ------
    OutputError
        If it cannot be made or is not a folder.
    """
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
    with writing_file(path) as file:
        file.writelines(pieces)


@contextmanager
def writing_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a file to write aside, which is renamed into place unless an error leaves the block.

    Raises
    ------
    OutputError
        See `write_file`.
    """
    path = Path(path)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        try:
            with part.open("xb") as file:
                yield file
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except ActgridError:
        raise
    except OSError as error:
        raise _refused("write", path, error) from error


def is_leftover(name: str) -> bool:
    """Tell whether a file has the name that one has while it is written.

    Where nobody is writing, a process that was killed has left it.
    """
    return _PART.fullmatch(name) is not None
