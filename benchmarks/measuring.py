"""Ratios that hold on a noisy machine, and memory as the system sees it."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Case", "medians", "peak_memory"]

# A case prepares its input, untimed, and returns what is timed.
Case = Callable[[], Callable[[], object]]


def medians(cases: Mapping[str, Case], rounds: int) -> dict[str, float]:
    """Seconds of each case: all cases in turn, round after round, so that noise strikes alike."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for warming in [True] + [False] * rounds:
        for name, prepare in cases.items():
            run = prepare()
            start = time.perf_counter()
            run()
            if not warming:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(run: Callable[[], Any]) -> int | None:
    """Bytes by which the resident memory grew at its peak during a call; None if unknown.

    What the call returns is alive at the peak. Linux only.
    """
    try:
        # What the allocator holds in reserve would hide the growth; then forget the peak so far.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
