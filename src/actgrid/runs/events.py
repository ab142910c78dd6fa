"""Pictures, numbers and histograms to TensorBoard."""

from __future__ import annotations

import errno
import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import OutputError
from actgrid.models.frameworks import tensorflow

__all__ = ["EventWriter"]

# What TensorBoard calls them: its plugin, and the class of its data.
_SCALAR = ("scalars", 1)
_HISTOGRAM = ("histograms", 2)
_IMAGE = ("images", 3)
_BUCKETS = 30  # of a histogram, as many as TensorBoard's own have
# A record of the file: its length, a checksum of that, the data, a checksum of these.
_RECORD = struct.Struct("<Q")
_AROUND = _RECORD.size + 4 + 4
_SIZE_IN_PNG = struct.Struct(">16xII")  # width and height follow the signature and two words


class EventWriter:
    """Writes to an event file that TensorBoard shows, by TensorFlow alone.

    Calls may come from any thread; they are written by `flush` at the latest.

    Parameters
    ----------
    log_dir
        The folder; made if need be.

    Raises
    ------
    OutputError
        If the folder or the file cannot be made; likewise by every call that cannot write.

    Examples
    --------
    >>> events = EventWriter("logs")
    >>> events.images("conv2d", [grid.to_png()], step=3)
    >>> events.close()
    """

    def __init__(self, log_dir: str | Path) -> None:
        self.log_dir = str(log_dir)
        self._lock = RLock()
        self._file: _EventFile | None = None
        with self._writing():  # what cannot be written is to be known before it is there
            self._file = _EventFile(self.log_dir)

    def images(self, tag: str, pngs: Sequence[bytes], step: int) -> None:
        """Write pictures of one size, as PNG files, to be shown beside each other."""
        width, height = _SIZE_IN_PNG.unpack_from(pngs[0])
        self._write(tag, [b"%d" % width, b"%d" % height, *pngs], step, _IMAGE)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Write a number, to be drawn as a curve over steps."""
        self._write(tag, np.float32(value), step, _SCALAR)

    def histogram(self, tag: str, values: npt.ArrayLike, step: int) -> None:
        """Write how values are distributed, but for those that are not finite."""
        array = np.asarray(values, np.float64).ravel()
        finite = array[np.isfinite(array)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        # Values that are equal, or nearly so for float32, have buckets around them.
        rounding = 1e-5 * max(abs(low), abs(high))
        if high - low <= rounding:
            low, high = low - max(rounding, 0.5), high + max(rounding, 0.5)
        counts, edges = np.histogram(finite, _BUCKETS, (low, high))
        buckets = np.stack([edges[:-1], edges[1:], counts], 1)
        self._write(tag, buckets.astype(np.float32), step, _HISTOGRAM)

    def flush(self) -> None:
        """Write what has not been written yet.

        Raises
        ------
        OutputError
            If something of it could not be written, and is lost. What is written afterwards goes
            to another file.
        """
        with self._writing():
            if self._file is not None:
                self._file.flush()

    def close(self) -> None:
        """Write the rest, and let go of the file."""
        with self._writing():
            if self._file is not None:
                self._file.close()

    def _write(self, tag: str, value: Any, step: int, kind: tuple[str, int]) -> None:
        tf = tensorflow()
        plugin, data_class = kind
        metadata = tf.compat.v1.SummaryMetadata(
            data_class=data_class,
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin),
        )
        with self._writing(), tf.device("CPU"):
            if self._file is None:
                self._file = _EventFile(self.log_dir)
            self._file.write(tag, tf.constant(value), step, metadata)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (tensorflow().errors.OpError, OSError) as error:
            self._file = None
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise OutputError(f"cannot write events to {self.log_dir}: {reason}") from error


class _EventFile:
    """One file, of which is known how much is whole: TensorFlow does not tell of a full disk."""

    def __init__(self, log_dir: str) -> None:
        # By which it is found; TensorBoard looks at what is before.
        suffix = f".{uuid.uuid4().hex[:8]}.v2"
        self._writer = tensorflow().summary.create_file_writer(log_dir, filename_suffix=suffix)
        self._writer.flush()
        # Stores elsewhere show a file when it is closed, or in parts.
        found = [] if "://" in log_dir else list(Path(log_dir).glob(f"*{suffix}"))
        self._path = found[0] if found else None
        self._whole = 0  # bytes
        self._records = 1  # since then: at first the version of the format
        self._check()

    def write(self, tag: str, value: Any, step: int, metadata: Any) -> None:
        with self._writer.as_default():
            tensorflow().summary.write(tag, value, step, metadata)
        self._records += 1

    def flush(self) -> None:
        self._writer.flush()
        self._check()

    def close(self) -> None:
        self._writer.close()
        self._check()

    def _check(self) -> None:
        """Raise OSError unless all records are in the file; leave those that are, and whole."""
        if self._path is None:
            return
        with self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            while self._records:
                file.seek(self._whole)
                header = file.read(_RECORD.size)
                end = self._whole + _AROUND
                if len(header) < _RECORD.size or (end := end + _RECORD.unpack(header)[0]) > size:
                    break
                self._whole, self._records = end, self._records - 1
        if self._records:
            self._writer.close()
            # A reader would stop at half a record.
            os.truncate(self._path, self._whole)
            if not self._whole:
                self._path.unlink()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
