"""Parsing of uploads: an image file as the request body or in a form."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from actgrid.errors import OptionError, TooLargeError

__all__ = ["Upload", "read_upload"]

_FORM = "multipart/form-data"
# Maximum number of bytes of a form besides its file: boundaries and headers of the parts.
_MAX_FORM_OVERHEAD = 1 << 16
_MAX_PARTS = 16
_EXPECTED = "send one file and no other field, as curl -F file=@cat.jpg does"


class Upload(NamedTuple):
    """An uploaded file.

    Parameters
    ----------
    data
        Contents of the file.
    name
        Name of the file; None if the request has no name.
    """

    data: bytes
    name: str | None


async def read_upload(request: Request, max_bytes: int) -> Upload:
    """Read an uploaded file of at most `max_bytes` bytes, from a raw body or a form.

    Reading stops at the limit, so that neither a wrong ``Content-Length`` nor an endless body is
    read completely.

    Raises
    ------
    TooLargeError
        If the file has more than `max_bytes` bytes. Also an OSError.
    OptionError
        If a form is broken, or does not consist of exactly one file. Also a ValueError.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        pieces = [piece async for piece in _read_limited(request, max_bytes, max_bytes)]
        return Upload(b"".join(pieces), None)
    parser = MultiPartParser(
        request.headers,
        _read_limited(request, max_bytes + _MAX_FORM_OVERHEAD, max_bytes),
        max_files=_MAX_PARTS,
        max_fields=_MAX_PARTS,
    )
    parser.spool_max_size = (
        max_bytes + _MAX_FORM_OVERHEAD
    )  # keeps files in memory instead of on disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise OptionError(f"the form cannot be read ({error.message}): {_EXPECTED}") from error
    try:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        parts = form.multi_items()
        if len(parts) != 1 or not files:
            count = len([value for _, value in parts if isinstance(value, UploadFile)])
            raise OptionError(
                f"the form has {count} files and {len(parts) - count} other fields: {_EXPECTED}"
            )
        data = await files[0].read()
    finally:
        await form.close()
    if len(data) > max_bytes:
        raise _make_size_error(max_bytes)
    return Upload(data, files[0].filename)


async def _read_limited(
    request: Request, limit: int, max_bytes: int
) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a request body; raise TooLargeError if it exceeds `limit`."""
    if int(request.headers.get("content-length") or 0) > limit:
        raise _make_size_error(max_bytes)
    length = 0
    async for piece in request.stream():
        length += len(piece)
        if length > limit:
            raise _make_size_error(max_bytes)
        yield piece


def _make_size_error(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the image has more than {max_bytes:,} bytes, which is the limit")
