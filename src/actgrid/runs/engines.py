"""Engines: what does the work of a run, in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from actgrid.models import Extractor
from actgrid.runs.jobs import Job
from actgrid.runs.manifest import Record
from actgrid.runs.sources import Items
from actgrid.runs.work import Meter, Shard

__all__ = ["Engine", "local"]


class Engine(Protocol):
    """Does the work of a job: in this process, or elsewhere."""

    def __call__(
        self,
        job: Job,
        extractor: Extractor,
        items: Items,
        *,
        first: int,
        begin: Callable[[], None],
        recorded: Mapping[int, bool],
        thresholds: Mapping[str, Any],
        meter: Meter,
    ) -> Iterator[Record | Shard]:
        """Yield what `process` does, of the items from `first` on, which begins a shard.

        `begin` is called once the engine can work, before anything is written.
        """


def local(
    job: Job,
    extractor: Extractor,
    items: Items,
    *,
    first: int,
    begin: Callable[[], None],
    **options: Any,
) -> Iterator[Record | Shard]:
    """Do the work in this process."""
    begin()
    yield from job.run(extractor, items.start(first), **options)
