"""Check files before they are read, and convert the exceptions of their readers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actgrid.errors import ActgridError, FormatError, MissingFileError, TooLargeError

__all__ = [
    "MAX_BYTES",
    "check_file",
    "check_size",
    "is_directory",
    "raise_format_errors",
    "read_text_file",
]

# Largest size of the data of a file, 4 GiB, so that broken or malicious files cannot exhaust the
# memory.
MAX_BYTES = 1 << 32


def check_file(path: Path) -> int:
    """Return the size of a file in bytes, after a check that the file can hold data.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    FormatError
        If the file is empty, or is a folder or another kind of special file.
    TooLargeError
        If the file is larger than 4 GiB.
    """
    with raise_format_errors(path, "a readable file"):
        if not path.exists():
            raise MissingFileError(f"there is no file {path}")
        if not path.is_file():
            content = "a folder" if is_directory(path) else "a special file"
            raise FormatError(f"{path} is {content}: expected a file of samples")
        size = path.stat().st_size
    if not size:
        raise FormatError(f"{path} is empty: expected a file of samples")
    check_size(path, size)
    return size


def is_directory(path: Path) -> bool:
    """Return whether a path is an existing folder that can be accessed."""
    return os.path.isdir(path)  # noqa: PTH112 - the method of Path raises PermissionError


def check_size(path: Path, size: int) -> None:
    """Raise TooLargeError if the data of a file takes more than 4 GiB of memory."""
    if size > MAX_BYTES:
        raise TooLargeError(
            f"{path} is too large to be safe: got {size:,} bytes of data; expected at most "
            f"{MAX_BYTES:,}"
        )


@contextmanager
def raise_format_errors(path: Path, expected: str) -> Iterator[None]:
    """Convert exceptions in the ``with`` block to FormatError or TooLargeError.

    Parameters
    ----------
    path
        The file that is read.
    expected
        Description of a file that can be read, for error messages.
    """
    try:
        yield
    except ActgridError:
        raise
    except MemoryError as error:
        raise TooLargeError(f"{path} does not fit in the memory") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not a text in UTF-8: expected {expected}") from error
    except Exception as error:  # readers of damaged files may raise any exception
        if isinstance(error, OSError) and error.errno is not None:
            raise FormatError(f"{path} cannot be read: {error.strerror}") from error
        reason = str(error) or type(error).__name__
        raise FormatError(
            f"{path} is truncated or broken ({reason}): expected {expected}"
        ) from error


def read_text_file(path: Path, expected: str) -> str:
    """Return the text of a UTF-8 file, with a newline character as the end of each line.

    Parameters
    ----------
    expected
        Description of a file that can be read, for error messages.
    """
    check_file(path)
    with raise_format_errors(path, expected):
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise FormatError(f"{path} is a binary file: expected {expected}")
        return text
