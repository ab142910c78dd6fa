"""Sink that writes pictures and numbers to files in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from actgrid.encoding import make_folder, write_file
from actgrid.errors import OutputError
from actgrid.figures.files import number_files

__all__ = ["FolderSink", "number_samples"]

# Files of numbers: a line of JSON for each number, or for each array of numbers.
_SCALARS, _HISTOGRAMS = "scalars.jsonl", "histograms.jsonl"


class FolderSink:
    """Sink that writes ``NN_TAG/SAMPLE_STEP.png``, ``scalars.jsonl`` and ``histograms.jsonl``.

    Implements `Sink`. Files of pictures are replaced by those of equal step. Lines are appended to
    the files of numbers; NaN is null there.

    Parameters
    ----------
    folder : pathlib.Path
        The folder; created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = make_folder(folder)
        self._pictures: dict[str, tuple[Sequence[bytes], int]] = {}
        self._lines: dict[str, list[bytes]] = {}

    def images(self, tag: str, pngs: Sequence[bytes], step: int) -> None:
        """Receive PNG files, one for each sample."""
        self._pictures[tag] = pngs, step

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Receive a number."""
        self._add_line(_SCALARS, {"step": step, "tag": tag, "value": value})

    def histogram(self, tag: str, values: npt.ArrayLike, step: int) -> None:
        """Receive an array of numbers, all of which are written."""
        array = np.ascontiguousarray(values).ravel()
        self._add_line(_HISTOGRAMS, {"step": step, "tag": tag, "values": array})

    def _add_line(self, file: str, record: dict[str, Any]) -> None:
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        self._lines.setdefault(file, []).append(orjson.dumps(record, option=options))

    def flush(self) -> None:
        """Write the pictures and numbers that were received.

        Raises
        ------
        OutputError
            If a file cannot be written. What was received is dropped.
        """
        pictures, self._pictures = self._pictures, {}
        lines, self._lines = self._lines, {}
        for name, (pngs, step) in zip(
            number_files(list(pictures), ""), pictures.values(), strict=True
        ):
            folder = make_folder(self._folder / name)
            # The sample comes first: sorted by name, files of a sample are in order of the steps.
            for sample, png in zip(number_samples(len(pngs)), pngs, strict=True):
                write_file(folder / f"{sample}{'_' if sample else ''}{step:06}.png", png)
        for file, records in lines.items():
            path = make_folder(self._folder) / file
            try:
                with path.open("ab") as stream:
                    stream.write(b"".join(records))
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror or error}") from error

    def close(self) -> None:
        """End a training; `flush` has already closed the files."""


def number_samples(count: int) -> Iterator[str]:
    """Return an iterator over text labels of the samples of a batch.

    Each label is the index of a sample with leading zeros. A single sample has an empty label.
    """
    digits = len(str(count - 1))
    return (f"{sample:0{digits}}" if count > 1 else "" for sample in range(count))
