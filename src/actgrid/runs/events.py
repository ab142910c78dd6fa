"""Write images, scalars and histograms to TensorBoard event files."""

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

# Plugin name and data class of each kind of summary in TensorBoard.
_SCALAR = ("scalars", 1)
_HISTOGRAM = ("histograms", 2)
_IMAGE = ("images", 3)
_BUCKETS = 30  # buckets of a histogram, the default of TensorBoard
# A record in the file: length, checksum of the length, data, checksum of the data.
_RECORD_LENGTH = struct.Struct("<Q")
_RECORD_OVERHEAD = _RECORD_LENGTH.size + 4 + 4
_PNG_SIZE = struct.Struct(">16xII")  # width and height are at offset 16 of a PNG file


class EventWriter:
    """Writes summaries to an event file that TensorBoard shows.

    Only TensorFlow is needed. The methods may be called from several threads. `flush` writes all
    summaries to the file.

    Parameters
    ----------
    log_dir : str or pathlib.Path
        The folder; created if it does not exist.

    Raises
    ------
    OutputError
        If the folder or the file cannot be created, or a method cannot write.

    Examples
    --------
    >>> grid = actgrid.render(np.random.default_rng(0).random((1, 8, 8, 4)))
    >>> events = EventWriter("logs")
    >>> events.images("conv2d", [grid.to_png()], step=3)
    >>> events.close()
    """

    def __init__(self, log_dir: str | Path) -> None:
        self.log_dir = str(log_dir)
        self._lock = RLock()
        self._file: _EventFile | None = None
        # An unwritable folder is reported now, and not at the first write.
        with self._translate_errors():
            self._file = _EventFile(self.log_dir)

    def images(self, tag: str, pngs: Sequence[bytes], step: int) -> None:
        """Write an image summary of PNG files of equal size, which are shown side by side."""
        width, height = _PNG_SIZE.unpack_from(pngs[0])
        self._write(tag, [b"%d" % width, b"%d" % height, *pngs], step, _IMAGE)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Write a scalar summary, which TensorBoard draws as a curve over the steps."""
        self._write(tag, np.float32(value), step, _SCALAR)

    def histogram(self, tag: str, values: npt.ArrayLike, step: int) -> None:
        """Write a histogram summary of the finite values of an array."""
        array = np.asarray(values, np.float64).ravel()
        finite = array[np.isfinite(array)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        # The range of values that are equal in float32 is extended on both sides.
        rounding = 1e-5 * max(abs(low), abs(high))
        if high - low <= rounding:
            low, high = low - max(rounding, 0.5), high + max(rounding, 0.5)
        counts, edges = np.histogram(finite, _BUCKETS, (low, high))
        buckets = np.stack([edges[:-1], edges[1:], counts], 1)
        self._write(tag, buckets.astype(np.float32), step, _HISTOGRAM)

    def flush(self) -> None:
        """Write all buffered summaries to the file.

        Raises
        ------
        OutputError
            If writing fails. Buffered summaries are lost, and later summaries go to a new file.
        """
        with self._translate_errors():
            if self._file is not None:
                self._file.flush()

    def close(self) -> None:
        """Write all buffered summaries, and close the file; later summaries go to a new file."""
        with self._translate_errors():
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _write(self, tag: str, value: Any, step: int, kind: tuple[str, int]) -> None:
        tf = tensorflow()
        plugin, data_class = kind
        metadata = tf.compat.v1.SummaryMetadata(
            data_class=data_class,
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin),
        )
        with self._translate_errors(), tf.device("CPU"):
            if self._file is None:
                self._file = _EventFile(self.log_dir)
            self._file.write(tag, tf.constant(value), step, metadata)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (tensorflow().errors.OpError, OSError) as error:
            self._file = None
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise OutputError(f"cannot write events to {self.log_dir}: {reason}") from error


class _EventFile:
    """Writer of one TensorBoard event file that also reports a full disk."""

    def __init__(self, log_dir: str) -> None:
        # A unique suffix identifies the file; TensorBoard ignores the suffix.
        suffix = f".{uuid.uuid4().hex[:8]}.v2"
        self._writer = tensorflow().summary.create_file_writer(log_dir, filename_suffix=suffix)
        self._writer.flush()
        # A remote file appears only when it is closed, or in parts.
        paths = [] if "://" in log_dir else list(Path(log_dir).glob(f"*{suffix}"))
        self._path = paths[0] if paths else None
        self._complete_bytes = 0  # end of the last record that is known to be complete
        self._pending_records = 1  # records after it: at first the version of the format
        self._check()

    def write(self, tag: str, value: Any, step: int, metadata: Any) -> None:
        with self._writer.as_default():
            tensorflow().summary.write(tag, value, step, metadata)
        self._pending_records += 1

    def flush(self) -> None:
        self._writer.flush()
        self._check()

    def close(self) -> None:
        self._writer.close()
        self._check()

    def _check(self) -> None:
        """Raise OSError if the event file lacks summaries that were written.

        An incomplete summary at the end of the file is removed.
        """
        if self._path is None:
            return
        with self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            while self._pending_records:
                file.seek(self._complete_bytes)
                header = file.read(_RECORD_LENGTH.size)
                if len(header) < _RECORD_LENGTH.size:
                    break
                (length,) = _RECORD_LENGTH.unpack(header)
                end = self._complete_bytes + _RECORD_OVERHEAD + length
                if end > size:
                    break
                self._complete_bytes, self._pending_records = end, self._pending_records - 1
        if self._pending_records:
            self._writer.close()
            # A reader stops at an incomplete record.
            os.truncate(self._path, self._complete_bytes)
            if not self._complete_bytes:
                self._path.unlink()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
