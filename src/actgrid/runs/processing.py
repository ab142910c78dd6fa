"""Options of the processing of images, finished shards, and timing of the stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from actgrid.options import DrawingOptions
from actgrid.statistics.dataset import DatasetStats

__all__ = ["STAGES", "FinishedShard", "ProcessingOptions", "StageMeter"]

STAGES = ("load", "model", "draw", "write")


@dataclass(frozen=True)
class ProcessingOptions:
    """Options for processing images: drawing, statistics, batches and threads.

    Parameters
    ----------
    drawing : dict or None
        Options of the pictures; None: nothing is drawn.
    top : int or None
        Number of top images per channel in the statistics; None: no statistics.
    batch_size : int
        Maximum number of images in a batch. Images of different sizes or shards are in different
        batches.
    shard_size : int
        Number of consecutive images in a shard.
    skip_errors : bool
        Whether to record an image that cannot be used and continue; otherwise the run stops.
    threads : int or None
        Maximum number of threads that load images, and of threads that draw; None: one thread per
        processor.
    stats_files : bool
        Whether to write ``stats.json`` beside the pictures of an image.
    """

    drawing: DrawingOptions | None
    top: int | None = None
    batch_size: int = 1
    shard_size: int = 100
    skip_errors: bool = False
    threads: int | None = None
    stats_files: bool = True


@dataclass(frozen=True)
class FinishedShard:
    """A shard whose images are all recorded, with the statistics of its images.

    The statistics are to be merged with those of earlier shards. Their top images lack images below
    the thresholds of the earlier shards.
    """

    number: int
    statistics: DatasetStats | None


class StageMeter:
    """Counter of processed images, and of the busy seconds of each processing stage."""

    def __init__(self) -> None:
        self.images = 0
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def time_stage(self, stage: str) -> Iterator[None]:
        """Add the duration of the ``with`` block to the busy seconds of a pipeline stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            with self._lock:
                self.seconds[stage] += seconds

    def add(self, images: int, seconds: Mapping[str, float]) -> None:
        """Add the image count and the stage seconds that another process measured."""
        self.images += images
        with self._lock:
            for stage, added in seconds.items():
                self.seconds[stage] += added
