"""Engines, which process the images of a run in this process or in others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from actgrid.models import Extractor
from actgrid.runs.manifest import Record
from actgrid.runs.processing import FinishedShard, StageMeter
from actgrid.runs.run_spec import RunSpec
from actgrid.runs.sources import Items

__all__ = ["Engine", "run_locally"]


class Engine(Protocol):
    """Protocol of a function that processes images of a run and yields the results."""

    def __call__(
        self,
        spec: RunSpec,
        extractor: Extractor,
        items: Items,
        *,
        first: int,
        begin: Callable[[], None],
        recorded: Mapping[int, bool],
        thresholds: Mapping[str, Any],
        meter: StageMeter,
    ) -> Iterator[Record | FinishedShard]:
        """Yield the records and finished shards of the items from index `first` on.

        `first` is the index of the first image of a shard. The engine calls `begin` once it is
        ready, before anything is written. See `process_images`.
        """


def run_locally(
    spec: RunSpec,
    extractor: Extractor,
    items: Items,
    *,
    first: int,
    begin: Callable[[], None],
    **options: Any,
) -> Iterator[Record | FinishedShard]:
    """Process the images in this process, see `Engine`."""
    begin()
    yield from spec.process(extractor, items.start(first), **options)
