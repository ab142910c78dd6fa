"""The records of a run in ``manifest.jsonl``, and its description in ``run.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import orjson

from actgrid.errors import RunError
from actgrid.runs.sources import Item
from actgrid.runs.stores import Store

__all__ = ["MANIFEST", "RUN", "Manifest", "Record", "check_same_run", "read_run", "write_run"]

MANIFEST, RUN = "manifest.jsonl", "run.json"
_MAX_VALUE_LENGTH = 60  # characters of a value in a message


@dataclass(frozen=True)
class Record:
    """The result of processing one image: a line of the manifest.

    Parameters
    ----------
    index : int
        Position of the image among the inputs, from 0.
    image : str
        Path of the image file, or the index as text.
    label : str or None
        Name of the image's folder, or its given label; None if it has no label.
    status : str
        ``"done"`` or ``"failed"``.
    files : list of str
        Files of the image relative to the output; ``shard.tar/entry`` for tar shards.
    dead : dict
        Layer path -> number of channels that are dead on this image.
    milliseconds : float
        Time to load, run, draw and write the image, summed over threads. This is the only field
        that differs between equal runs.
    error : str or None
        The error message of a failed image.
    """

    index: int
    image: str
    label: str | None
    status: str
    files: list[str]
    dead: dict[str, int]
    milliseconds: float
    error: str | None

    @classmethod
    def create(
        cls,
        item: Item,
        files: Sequence[str],
        dead: Mapping[str, int],
        milliseconds: float,
        error: Exception | None,
    ) -> Record:
        """Create the record of an image that was processed or failed."""
        return cls(
            index=item.index,
            image=item.name,
            label=item.label,
            status="failed" if error else "done",
            files=[] if error else list(files),
            dead={} if error else dict(dead),
            milliseconds=round(milliseconds, 3),
            error=None if error is None else _describe_error(error),
        )

    @property
    def failed(self) -> bool:
        """Return whether the image could not be processed."""
        return self.status == "failed"

    def to_line(self) -> bytes:
        """Return the record of an image as a line of JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)


def _describe_error(error: Exception) -> str:
    message = " ".join(str(error).split()).encode(errors="replace").decode()
    if message and isinstance(error, (OSError, ValueError)):
        return message
    name = type(error).__name__
    return f"{name}: {message}" if message else name


class Manifest:
    """The file of the records of a run, with a line for each image, in order.

    On a local disk, each record is appended at once. On object stores, which cannot append, the
    records of each shard are written to a file such as ``manifest/000003.jsonl``, and the files are
    joined at the end of the run.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: list[bytes] = []

    def __iter__(self) -> Iterator[Record]:
        """Yield the stored records; an incomplete last line is ignored."""
        for line in self._read_lines():
            try:
                yield Record(**orjson.loads(line))
            except (ValueError, TypeError) as error:
                raise RunError(
                    f"{self._store.get_full_path(MANIFEST)} is not a manifest of actgrid: {error}"
                ) from error

    def __len__(self) -> int:
        """Return the number of stored records, without the buffered records of a shard."""
        return sum(1 for _ in self._read_lines())

    def _read_lines(self) -> Iterator[bytes]:
        # If the joined file exists it is complete, and remaining parts are ignored.
        for name in self._store.list_names(MANIFEST) or self._list_parts():
            for line in self._store.read_lines(name):
                if line.endswith(b"\n"):
                    yield line

    def _list_parts(self) -> list[str]:
        return self._store.list_names("manifest/")

    def files(self) -> Iterator[str]:
        """Yield the file names of the recorded images; none if the manifest is unreadable."""
        shards: set[str] = set()
        with suppress(RunError):
            for record in self:
                for name in record.files:
                    file = PurePosixPath(name)
                    if file.is_absolute() or ".." in file.parts:
                        continue  # no run writes outside of its output
                    if file.parts[0].endswith(".tar") and len(file.parts) > 1:
                        shards.add(file.parts[0])
                    else:
                        yield name
        yield from shards

    def reset(self) -> None:
        """Remove all records of the manifest."""
        for name in [MANIFEST, *self._list_parts()]:
            self._store.remove(name)

    def repair(self) -> None:
        """Remove the last line of the manifest file if it is incomplete."""
        self._store.remove_incomplete_line(MANIFEST)

    def keep(self, count: int) -> None:
        """Keep the first `count` records of the manifest, and remove the others."""
        lines = list(islice(self._read_lines(), count))
        self._store.write(MANIFEST, *lines)

    def append(self, record: Record) -> None:
        """Append the record of an image, whose files must be complete, to the manifest."""
        if self._store.is_local:
            self._store.append(MANIFEST, record.to_line())
        else:
            self._lines.append(record.to_line())

    def end_shard(self, number: int) -> None:
        """Write the buffered records of a finished shard to the manifest."""
        if self._lines:
            self._store.write(f"manifest/{number:06}.jsonl", *self._lines)
            self._lines = []

    def close(self) -> None:
        """Join the manifest files of the shards to one file, if there are any."""
        if parts := self._list_parts():
            with self._store.open_for_writing(MANIFEST) as file:
                for name in parts:
                    file.write(self._store.read(name) or b"")
            for name in parts:
                self._store.remove(name)


def read_run(store: Store) -> dict[str, Any] | None:
    """Read the description of a run from ``run.json``; None if there is no such file.

    Raises
    ------
    RunError
        If the file is not a description of a run.
    """
    text = store.read(RUN)
    if text is None:
        return None
    try:
        run = orjson.loads(text)
    except ValueError:
        run = None
    if not isinstance(run, dict) or "options" not in run:
        raise RunError(f"{store.get_full_path(RUN)} is not a file of actgrid")
    return run


def write_run(store: Store, run: Mapping[str, Any]) -> None:
    """Write the description of a run to ``run.json``."""
    store.write(RUN, orjson.dumps(run, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def check_same_run(store: Store, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise RunError, which lists the differences, if the descriptions of runs differ."""
    old, new = dict(_flatten(before)), dict(_flatten(orjson.loads(orjson.dumps(now))))
    differences = [
        "names, labels or order of the images"
        if name == "inputs.digest"
        else f"{name} {_describe_change(old.get(name), new.get(name))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    if differences:
        raise RunError(
            f"the run in {store.get_full_path()} cannot be resumed with different settings: "
            f"{'; '.join(differences)}"
        )


def _flatten(run: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in run.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _describe_change(old: Any, new: Any) -> str:
    """Return a text with the old and the new value of a setting.

    Long values are cut, and begin shortly before their first difference.
    """
    old_text, new_text = (orjson.dumps(value).decode() for value in (old, new))
    start = 0
    if max(len(old_text), len(new_text)) > _MAX_VALUE_LENGTH:
        pairs = enumerate(zip(old_text, new_text, strict=False))
        first_difference = next((i for i, (before, after) in pairs if before != after), 0)
        start = max(first_difference - _MAX_VALUE_LENGTH // 3, 0)

    def shorten(text: str) -> str:
        rest = text[start:]
        is_cut = len(rest) > _MAX_VALUE_LENGTH
        return f"{'...' if start else ''}{rest[:_MAX_VALUE_LENGTH]}{'...' if is_cut else ''}"

    return f"was {shorten(old_text)}, is {shorten(new_text)}"
