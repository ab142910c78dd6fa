"""Check zip archives and HDF5 files for oversized or external content."""

from __future__ import annotations

import io
import math
import os
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from actgrid.errors import FormatError

__all__ = ["check_archive", "check_zip", "is_hdf5", "read_member"]

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Maximum size of the contents: this factor times the size of the archive, plus the allowance.
# Weights hardly compress, pruned weights by a factor of about 10; DEFLATE reaches 1,000.
_MAX_EXPANSION = 20
_ALLOWANCE = 64 << 20  # bytes
# The fixed part of a zip member's local header ends with the lengths of its two variable parts.
_LOCAL_HEADER = struct.Struct("<26xHH")


def check_archive(path: Path) -> None:
    """Raise FormatError if a file declares far more data than its size on disk.

    Zip archives, the HDF5 files inside them, and HDF5 files are checked by the sizes that their
    headers declare, without reading the data. Other files are not checked.

    Raises
    ------
    FormatError
        If members or datasets declare more bytes than a genuine archive of this size contains, or
        if an HDF5 file refers to other files. Also a ValueError.
    OSError, zipfile.BadZipFile
        If the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        # A file can be both zip and HDF5, because either format may start after other data.
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                check_zip(archive, size)
                for member in archive.infolist():
                    if member.filename.endswith((".h5", ".hdf5", ".npz")):
                        with _open_seekable(archive, member, file) as inner:
                            _check_member(inner, member)
        if is_hdf5(file):
            _check_hdf5(file, size)


def is_hdf5(file: BinaryIO) -> bool:
    """Return whether a file is an HDF5 file.

    The HDF5 signature may stand at byte 0, 512, 1024, 2048, and so on.
    """
    size, offset = file.seek(0, os.SEEK_END), 0
    while offset < size:
        file.seek(offset)
        if file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE:
            return True
        offset = 2 * offset or 512
    return False


def check_zip(archive: zipfile.ZipFile, size: int) -> None:
    """Raise FormatError if the members of a zip archive declare too many bytes.

    The size that a member declares is also the most that is read from it.

    Parameters
    ----------
    archive
        The open archive.
    size
        Size of the archive in bytes.
    """
    _check_size(sum(member.file_size for member in archive.infolist()), size, "its members")


def read_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Return the content of a member of a zip archive.

    Returns
    -------
    bytes
        The unpacked content.

    Raises
    ------
    FormatError
        If the member declares more than `max_bytes`.
    KeyError
        If the archive has no such member.
    """
    declared = archive.getinfo(name).file_size
    if declared > max_bytes:
        raise FormatError(f"{name} declares {declared:,} bytes; expected at most {max_bytes:,}")
    return archive.read(name)


def _check_size(declared: int, size: int, parts: str) -> None:
    limit = _MAX_EXPANSION * size + _ALLOWANCE
    if declared > limit:
        raise FormatError(
            f"{parts} declare {declared:,} bytes of data in a file of {size:,} bytes; "
            f"expected at most {limit:,}"
        )


def _check_member(file: BinaryIO | IO[bytes], member: zipfile.ZipInfo) -> None:
    if member.filename.endswith(".npz"):
        with zipfile.ZipFile(file) as archive:
            check_zip(archive, member.file_size)
    else:
        _check_hdf5(file, member.file_size)


def _check_hdf5(file: BinaryIO | IO[bytes], size: int) -> None:
    import h5py  # installed with Keras

    with h5py.File(file, "r") as root:
        declared = 0
        for dataset in _iterate_datasets(root):
            if dataset.external or dataset.is_virtual:
                raise FormatError(f"the HDF5 dataset {dataset.name} is stored in another file")
            declared += math.prod(dataset.shape or ()) * dataset.dtype.itemsize
        _check_size(declared, size, "its HDF5 datasets")


def _iterate_datasets(root: Any) -> Iterator[Any]:
    """Yield every dataset of an HDF5 file once.

    Only hard links are followed. Links to other files raise FormatError.
    """
    import h5py

    groups, visited = [root], {h5py.h5o.get_info(root.id).addr}
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise FormatError(f"the HDF5 link {group.name}/{name} leads to another file")
            if not isinstance(link, h5py.HardLink):
                continue
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in visited:
                continue
            visited.add(address)
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                yield item


def _open_seekable(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: BinaryIO
) -> BinaryIO | IO[bytes]:
    """Open a member of a zip archive as a binary file that seeks quickly.

    Returns
    -------
    file
        A section of the archive file if the member is stored without compression, else a temporary
        file with the unpacked content.
    """
    if member.compress_type == zipfile.ZIP_STORED:
        # Before Python 3.13, a member file seeks back by reading from its start again.
        file.seek(member.header_offset)
        name_lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        return _Section(
            file, member.header_offset + _LOCAL_HEADER.size + sum(name_lengths), member.file_size
        )
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115  (the caller closes it)
    with archive.open(member) as packed:
        while chunk := packed.read(1 << 20):
            unpacked.write(chunk)
    return unpacked


class _Section(io.RawIOBase, BinaryIO):
    """Read-only binary file that contains a section of another file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(origin + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), max(self._size - self._position, 0))
        self._file.seek(self._start + self._position)
        data = self._file.read(length)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
