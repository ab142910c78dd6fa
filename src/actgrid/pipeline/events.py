"""Pictures, numbers and histograms to TensorBoard."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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
        with self._writing():
            self._writer = tensorflow().summary.create_file_writer(self.log_dir)
            self._writer.flush()  # what cannot be written is to be known before it is there

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
        counts, edges = np.histogram(array[np.isfinite(array)], _BUCKETS)
        buckets = np.stack([edges[:-1], edges[1:], counts], 1)
        self._write(tag, buckets.astype(np.float32), step, _HISTOGRAM)

    def flush(self) -> None:
        """Write what has not been written yet."""
        with self._writing():
            self._writer.flush()

    def close(self) -> None:
        """Write the rest, and let go of the file."""
        with self._writing():
            self._writer.close()

    def _write(self, tag: str, value: Any, step: int, kind: tuple[str, int]) -> None:
        tf = tensorflow()
        plugin, data_class = kind
        metadata = tf.compat.v1.SummaryMetadata(
            data_class=data_class,
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin),
        )
        with self._writing(), self._writer.as_default(), tf.device("CPU"):
            tf.summary.write(tag, tf.constant(value), step, metadata)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (tensorflow().errors.OpError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise OutputError(f"cannot write events to {self.log_dir}: {reason}") from error
