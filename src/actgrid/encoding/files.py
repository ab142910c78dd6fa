"""Files that appear whole or not at all."""

from __future__ import annotations

import uuid
from pathlib import Path

from actgrid.errors import OutputError

__all__ = ["writable_folder", "write_file"]


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
    path = Path(path)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        try:
            with part.open("xb") as file:
                file.writelines(pieces)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _refused("write", path, error) from error
