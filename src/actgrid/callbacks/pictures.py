"""Pictures of every step, to TensorBoard and to files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from actgrid.callbacks.base import Sink, TrainingCallback
from actgrid.encoding import writable_folder, write_file
from actgrid.errors import OptionError
from actgrid.figures.files import numbered_files
from actgrid.runs.events import EventWriter

__all__ = ["PictureCallback", "event_folder", "numbered_samples"]

# What was drawn of each: PNG files, one for each sample.
Pictures = Mapping[str, Sequence[bytes]]


class PictureCallback(TrainingCallback):
    """Writes pictures of every step as PNG: what `_draw` returns, by tag one for each sample.

    Parameters
    ----------
    log_dir
        Folder for TensorBoard; None: none.
    folder
        Folder for files; None: none.

    Raises
    ------
    OptionError
        If there is neither.
    OutputError
        If a folder cannot be made.
    """

    def __init__(
        self, every: str | int, log_dir: str | Path | None, folder: str | Path | None
    ) -> None:
        super().__init__(every)
        if log_dir is None and folder is None:
            raise OptionError(
                "the pictures are to go somewhere: give a log_dir for TensorBoard, a folder, or "
                "both"
            )
        self._log_dir = None if log_dir is None else event_folder(log_dir)
        self._folder = None if folder is None else writable_folder(folder)

    @abstractmethod
    def _draw(self, seen: Any) -> Pictures: ...

    def _open(self) -> list[Sink]:
        sinks: list[Sink] = []
        if self._log_dir is not None:
            sinks.append(_PictureEvents(self._log_dir))
        if self._folder is not None:
            sinks.append(_PictureFolder(self._folder))
        return sinks


class _PictureEvents:
    def __init__(self, log_dir: str | Path) -> None:
        self._events = EventWriter(log_dir)

    def write(self, step: int, drawn: Pictures) -> None:
        for tag, pngs in drawn.items():
            self._events.images(tag, pngs, step)
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class _PictureFolder:
    def __init__(self, folder: str | Path) -> None:
        self._folder = writable_folder(folder)

    def write(self, step: int, drawn: Pictures) -> None:
        for name, pngs in zip(numbered_files(list(drawn), ""), drawn.values(), strict=True):
            folder = writable_folder(self._folder / name)
            # Sorted by name, the steps of a sample follow each other.
            for sample, png in zip(numbered_samples(len(pngs)), pngs, strict=True):
                write_file(folder / f"{sample}{'_' if sample else ''}{step:06}.png", png)

    def close(self) -> None:
        pass


def event_folder(log_dir: str | Path) -> str | Path:
    """Return a folder for TensorBoard, made where it is on this machine."""
    return log_dir if "://" in str(log_dir) else writable_folder(log_dir)


def numbered_samples(count: int) -> Iterator[str]:
    """Yield the number of each sample, with as many digits as the last; "" if there is one."""
    digits = len(str(count - 1))
    return (f"{sample:0{digits}}" if count > 1 else "" for sample in range(count))
