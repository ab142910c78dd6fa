"""What a run has done and of what: ``manifest.jsonl`` and ``run.json``."""

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

__all__ = ["MANIFEST", "RUN", "Manifest", "Record", "check_same", "read_run", "write_run"]

MANIFEST, RUN = "manifest.jsonl", "run.json"
# Characters of a value in a message.
_SHOWN = 60


@dataclass(frozen=True)
class Record:
    """What became of an image: a line of the manifest.

    Attributes
    ----------
    index
        Its place among the inputs, from 0.
    image
        What it is called: the path of its file as it was found, or its number.
    label
        Name of its folder, or what came with it; None if it has none.
    status
        ``"done"`` or ``"failed"``.
    files
        Its files, below the folder of the run; for tar files ``shard.tar/entry``.
    dead
        By layer path, how many channels are dead for this image.
    milliseconds
        Time taken to load, run, draw and write it, summed over threads: all that differs from
        run to run.
    error
        What was wrong with it, if it failed.
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
    def of(
        cls,
        item: Item,
        files: Sequence[str],
        dead: Mapping[str, int],
        milliseconds: float,
        error: Exception | None,
    ) -> Record:
        """Return the record of an image that has come through, or failed by an error."""
        return cls(
            index=item.index,
            image=item.name,
            label=item.label,
            status="failed" if error else "done",
            files=[] if error else list(files),
            dead={} if error else dict(dead),
            milliseconds=round(milliseconds, 3),
            error=None if error is None else _reason(error),
        )

    @property
    def failed(self) -> bool:
        """Whether the image could not be used."""
        return self.status == "failed"

    def line(self) -> bytes:
        """Return the line of the manifest."""
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)


def _reason(error: Exception) -> str:
    known = " ".join(str(error).split()).encode(errors="replace").decode()
    return known if known and isinstance(error, (OSError, ValueError)) else _named(error, known)


def _named(error: Exception, message: str) -> str:
    name = type(error).__name__
    return f"{name}: {message}" if message else name


class Manifest:
    """The records of a run, a line for each image, in their order.

    Where files can be appended to, each line is written at once. Elsewhere, as on object stores,
    the lines of a shard make a file, ``manifest/000003.jsonl``, and the manifest is joined of these
    at the end.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: list[bytes] = []

    def __iter__(self) -> Iterator[Record]:
        """Yield what is recorded; a last line that was not written whole is none."""
        for line in self._stored():
            try:
                yield Record(**orjson.loads(line))
            except (ValueError, TypeError) as error:
                raise RunError(
                    f"{self._store.place(MANIFEST)} is not one of actgrid's: {error}"
                ) from error

    def __len__(self) -> int:
        """Return how many records there are, as files: not what is held back of a shard."""
        return sum(1 for _ in self._stored())

    def _stored(self) -> Iterator[bytes]:
        # Once joined the manifest is whole, and parts are only what is left to be removed.
        for name in self._store.names(MANIFEST) or self._parts():
            for line in self._store.lines(name):
                if line.endswith(b"\n"):
                    yield line

    def _parts(self) -> list[str]:
        return self._store.names("manifest/")

    def files(self) -> Iterator[str]:
        """Yield the files that hold the recorded images; none if the manifest cannot be read."""
        shards: set[str] = set()
        with suppress(RunError):
            for record in self:
                for name in record.files:
                    file = PurePosixPath(name)
                    if file.is_absolute() or ".." in file.parts:
                        continue  # which no run has written
                    if file.parts[0].endswith(".tar") and len(file.parts) > 1:
                        shards.add(file.parts[0])
                    else:
                        yield name
        yield from shards

    def reset(self) -> None:
        """Forget what is recorded."""
        for name in [MANIFEST, *self._parts()]:
            self._store.remove(name)

    def repair(self) -> None:
        """Remove a last line that was not written whole."""
        self._store.cut(MANIFEST)

    def keep(self, count: int) -> None:
        """Remove every record but the first `count`."""
        lines = list(islice(self._stored(), count))
        self._store.write(MANIFEST, *lines)

    def append(self, record: Record) -> None:
        """Add a record; its files are complete."""
        if self._store.local:
            self._store.append(MANIFEST, record.line())
        else:
            self._lines.append(record.line())

    def end_shard(self, number: int) -> None:
        """Write what has been held back of a shard."""
        if self._lines:
            self._store.write(f"manifest/{number:06}.jsonl", *self._lines)
            self._lines = []

    def close(self) -> None:
        """Join what is in parts."""
        if parts := self._parts():
            with self._store.writing(MANIFEST) as file:
                for name in parts:
                    file.write(self._store.read(name) or b"")
            for name in parts:
                self._store.remove(name)


def read_run(store: Store) -> dict[str, Any] | None:
    """Return what ``run.json`` says, None if there is none.

    Raises
    ------
    RunError
        If it is not one.
    """
    text = store.read(RUN)
    if text is None:
        return None
    try:
        run = orjson.loads(text)
    except ValueError:
        run = None
    if not isinstance(run, dict) or "options" not in run:
        raise RunError(f"{store.place(RUN)} is not one of actgrid's")
    return run


def write_run(store: Store, run: Mapping[str, Any]) -> None:
    """Write ``run.json``."""
    store.write(RUN, orjson.dumps(run, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def check_same(store: Store, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise RunError, which tells the differences, unless a run is of the same as one before."""
    old, new = dict(_flat(before)), dict(_flat(orjson.loads(orjson.dumps(now))))
    differences = [
        "other names, labels or another order of images"
        if name == "inputs.digest"
        else f"{name} {_change(old.get(name), new.get(name))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    if differences:
        raise RunError(
            f"the run in {store.place()} cannot be resumed, it differs: {'; '.join(differences)}"
        )


def _flat(run: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in run.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _change(old: Any, new: Any) -> str:
    """Tell what a value was and is; of long ones, what follows where they begin to differ."""
    was, now = (orjson.dumps(value).decode() for value in (old, new))
    start = 0
    if max(len(was), len(now)) > _SHOWN:
        pairs = enumerate(zip(was, now, strict=False))
        start = max(next((at for at, (one, other) in pairs if one != other), 0) - _SHOWN // 3, 0)

    def part(text: str) -> str:
        rest = text[start:]
        more = len(rest) > _SHOWN
        return f"{'...' if start else ''}{rest[:_SHOWN]}{'...' if more else ''}"

    return f"was {part(was)}, is {part(now)}"
