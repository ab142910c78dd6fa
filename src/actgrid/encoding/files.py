"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
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


def write_file(path: str | Path, data: bytes) -> None:
    """Write a file aside and rename it into place, so that no reader sees half of it.

    Raises
    ------
    OutputError
        If it cannot be written: no such folder, no permission, no space. What was at `path`
        before is then still there, and nothing else.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with open(handle, "wb") as file:
                file.write(data)
            os.chmod(name, 0o666 & ~_UMASK)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise _refused("write", path, error) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Read once: asking means setting it for a moment, which other threads would notice.
_UMASK = _umask()
