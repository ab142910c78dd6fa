"""The body of an upload: an image file as it is, or in a form."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from actgrid.errors import OptionError, TooLargeError

__all__ = ["Upload", "read_upload"]

_FORM = "multipart/form-data"
# Bytes of a form beside its file: boundaries, and headers of the parts.
_FORM_BYTES = 1 << 16
_MAX_PARTS = 16
_EXPECTED = "send one file and no other field, as curl -F file=@cat.jpg does"


class Upload(NamedTuple):
    """An uploaded file.

    Attributes
    ----------
    data
        The bytes of the file.
    name
        The name of the file; None if the request has none.
    """

    data: bytes
    name: str | None


async def read_upload(request: Request, most_bytes: int) -> Upload:
    """Read an uploaded file of at most `most_bytes` bytes, from a raw body or a form.

    No more is read than the file may have: neither a false length nor an endless body helps.

    Raises
    ------
    TooLargeError
        If the file has more bytes. Also an OSError.
    OptionError
        If a form is broken, or does not hold exactly one file. Also a ValueError.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        pieces = [piece async for piece in _bounded(request, most_bytes, most_bytes)]
        return Upload(b"".join(pieces), None)
    parser = MultiPartParser(
        request.headers,
        _bounded(request, most_bytes + _FORM_BYTES, most_bytes),
        max_files=_MAX_PARTS,
        max_fields=_MAX_PARTS,
    )
    parser.spool_max_size = most_bytes + _FORM_BYTES  # in memory alone, not on the disk
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
    if len(data) > most_bytes:
        raise _too_many_bytes(most_bytes)
    return Upload(data, files[0].filename)


async def _bounded(request: Request, limit: int, most_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a body; raise TooLargeError where it is longer than a limit."""
    if int(request.headers.get("content-length") or 0) > limit:
        raise _too_many_bytes(most_bytes)
    length = 0
    async for piece in request.stream():
        length += len(piece)
        if length > limit:
            raise _too_many_bytes(most_bytes)
        yield piece


def _too_many_bytes(most_bytes: int) -> TooLargeError:
    return TooLargeError(f"the image has more than {most_bytes:,} bytes, which is the limit")
