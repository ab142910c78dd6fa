"""Base class of callbacks that write pictures to TensorBoard and to files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from actgrid.callbacks.base import Sink, TrainingCallback
from actgrid.encoding import make_folder, write_file
from actgrid.errors import OptionError
from actgrid.figures.files import number_files
from actgrid.runs.events import EventWriter

__all__ = ["PictureCallback", "number_samples", "prepare_event_folder"]

# PNG files by tag, such as a layer path: one file for each sample.
Pictures = Mapping[str, Sequence[bytes]]


class PictureCallback(TrainingCallback):
    """Base class of callbacks that write PNG pictures by tag, one for each sample.

    Parameters
    ----------
    every : str or int
        ``"epoch"``, or the number of batches between two steps.
    log_dir : str, Path or None
        Log folder of TensorBoard; None: no events are written.
    folder : str, Path or None
        Folder for files; None: no files are written.

    Raises
    ------
    OptionError
        If both `log_dir` and `folder` are None.
    OutputError
        If a folder cannot be created.
    """

    def __init__(
        self, every: str | int, log_dir: str | Path | None, folder: str | Path | None
    ) -> None:
        super().__init__(every)
        if log_dir is None and folder is None:
            raise OptionError(
                "log_dir and folder are both None: pass log_dir (for TensorBoard), folder, or both"
            )
        self._log_dir = None if log_dir is None else prepare_event_folder(log_dir)
        self._folder = None if folder is None else make_folder(folder)

    @abstractmethod
    def _draw(self, observation: Any) -> Pictures: ...

    def _open_sinks(self) -> list[Sink]:
        sinks: list[Sink] = []
        if self._log_dir is not None:
            sinks.append(_PictureEvents(self._log_dir))
        if self._folder is not None:
            sinks.append(_PictureFolder(self._folder))
        return sinks


class _PictureEvents:
    def __init__(self, log_dir: str | Path) -> None:
        self._events = EventWriter(log_dir)

    def write(self, step: int, content: Pictures) -> None:
        for tag, pngs in content.items():
            self._events.images(tag, pngs, step)
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class _PictureFolder:
    def __init__(self, folder: str | Path) -> None:
        self._folder = make_folder(folder)

    def write(self, step: int, content: Pictures) -> None:
        for name, pngs in zip(number_files(list(content), ""), content.values(), strict=True):
            folder = make_folder(self._folder / name)
            # The sample comes first: sorted by name, files of a sample are in order of the steps.
            for sample, png in zip(number_samples(len(pngs)), pngs, strict=True):
                write_file(folder / f"{sample}{'_' if sample else ''}{step:06}.png", png)

    def close(self) -> None:
        pass


def prepare_event_folder(log_dir: str | Path) -> str | Path:
    """Create the log folder of TensorBoard and return its path.

    A URL is returned unchanged.
    """
    return log_dir if "://" in str(log_dir) else make_folder(log_dir)


def number_samples(count: int) -> Iterator[str]:
    """Return an iterator over text labels of the samples of a batch.

    Each label is the index of a sample with leading zeros. A single sample has an empty label.
    """
    digits = len(str(count - 1))
    return (f"{sample:0{digits}}" if count > 1 else "" for sample in range(count))
