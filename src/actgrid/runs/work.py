"""Options of a run's work, its shards, and a meter of what its stages do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from actgrid.options import DrawingOptions
from actgrid.statistics.dataset import DatasetStats

__all__ = ["STAGES", "Meter", "Shard", "Work"]

STAGES = ("load", "model", "draw", "write")


@dataclass(frozen=True)
class Work:
    """What is done to the images.

    Attributes
    ----------
    drawing
        Options of the pictures; None: nothing is drawn.
    top
        Statistics are taken, with so many top images for each channel; None: none are.
    batch_size
        Images in one run of the model; those of different sizes or shards never share one.
    shard_size
        How many inputs that follow each other make a shard.
    skip_errors
        Whether an image that cannot be used is recorded and left out, or stops everything.
    threads
        At most this many load images, and as many draw; None: one for each processor.
    """

    drawing: DrawingOptions | None
    top: int | None = None
    batch_size: int = 1
    shard_size: int = 100
    skip_errors: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class Shard:
    """A shard of which every image is recorded.

    `statistics` are those of its images, where they are taken, to be merged with those of the
    shards before: an image that is below the top of these need not be in its own.
    """

    number: int
    statistics: DatasetStats | None


class Meter:
    """How many images are through, and how many seconds each stage has worked.

    A stage of several threads works as many seconds in one.
    """

    def __init__(self) -> None:
        self.images = 0
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Count the time that a block takes to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            with self._lock:
                self.seconds[stage] += seconds

    def add(self, images: int, seconds: Mapping[str, float]) -> None:
        """Count what was done elsewhere."""
        self.images += images
        with self._lock:
            for stage, more in seconds.items():
                self.seconds[stage] += more
