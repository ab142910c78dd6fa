"""Figures that are kept, and compared with later ones."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from actgrid.bench.cases import Case
from actgrid.bench.measuring import interleaved, paired
from actgrid.encoding import write_file
from actgrid.errors import MissingFileError, OptionError
from actgrid.rendering import backend_problems

__all__ = ["Comparison", "Figure", "compare", "load", "machine", "measure", "save"]

# Of the file. A new one wherever a yardstick or a case changes.
VERSION = 1

_PAIRS = 15  # in one round: some ten milliseconds, of which the median shrugs off interruptions
_FEWEST_ROUNDS = 5
_STEADY = 0.01  # standard error of the ratio, relative, at which a case needs no more rounds
_CHANCES = 3  # measurements in which a case must be slower each time: noise passes, a fault stays


@dataclass(frozen=True)
class Figure:
    """One case, measured.

    Attributes
    ----------
    ratio
        Its time over its yardstick's: the median over rounds of medians over pairs.
    error
        Standard error of the ratio, relative.
    milliseconds
        Its time here.
    """

    ratio: float
    error: float
    milliseconds: float


@dataclass(frozen=True)
class Comparison:
    """A case now and before.

    Attributes
    ----------
    now, before
        Ratio to the yardstick.
    slower
        Whether it is slower by more than the tolerance, however often it was measured again.
    """

    now: float
    before: float
    slower: bool

    @property
    def change(self) -> float:
        """By how much the time has changed: 0.3 is 30% slower."""
        return self.now / self.before - 1


def measure(
    cases: Mapping[str, Case], rounds: int, advance: Callable[[], None] = lambda: None
) -> dict[str, Figure]:
    """Measure each case until it is steady, in `rounds` rounds at most.

    Parameters
    ----------
    rounds
        In a round every case that is not steady yet is prepared anew and runs some times, in turn
        with its yardstick.
    advance
        Called once for each case and round, whether the case still needs it or not.
    """
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            if len(ratios[name]) < _FEWEST_ROUNDS or _error(ratios[name]) > _STEADY:
                ours, theirs = _round(case)
                ratios[name].append(paired(ours, theirs))
                seconds[name].append(statistics.median(ours))
            advance()
    return {
        name: Figure(
            statistics.median(ratios[name]),
            _error(ratios[name]),
            statistics.median(seconds[name]) * 1e3,
        )
        for name in cases
    }


def _round(case: Case) -> tuple[list[float], list[float]]:
    """Return seconds of ours and of the yardstick, prepared once, in turn."""
    ours, yardstick = case.ours(), case.yardstick()
    times = interleaved({"ours": lambda: ours, "yardstick": lambda: yardstick}, _PAIRS)
    return times["ours"], times["yardstick"]


def _error(ratios: list[float]) -> float:
    """Return the relative standard error of the median, by the median absolute deviation."""
    middle = statistics.median(ratios)
    deviation = statistics.median(abs(ratio - middle) for ratio in ratios)
    # 1.4826: a deviation to a normal distribution's sigma; 1.2533: a mean's error to a median's.
    return 1.4826 * 1.2533 * deviation / math.sqrt(len(ratios)) / middle


def compare(
    cases: Mapping[str, Case],
    figures: Mapping[str, Figure],
    before: Mapping[str, Figure],
    tolerance: float,
    rounds: int,
) -> dict[str, Comparison]:
    """Compare figures with earlier ones, measuring again what seems slower before it is judged.

    Parameters
    ----------
    cases
        As they were measured for `figures`.
    tolerance
        How much slower, relative, is not slower yet.
    rounds
        See `measure`.
    """
    now = {name: figures[name].ratio for name in cases}

    def slower() -> list[str]:
        return [name for name in cases if now[name] > before[name].ratio * (1 + tolerance)]

    for _ in range(_CHANCES - 1):
        for name, figure in measure({name: cases[name] for name in slower()}, rounds).items():
            now[name] = min(now[name], figure.ratio)
    late = slower()
    return {name: Comparison(now[name], before[name].ratio, name in late) for name in cases}


def machine() -> dict[str, Any]:
    """Return what figures depend on: processor, system, versions."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("actgrid", "numpy", "pillow", "isal")},
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()


def _backend() -> str:
    return next(name for name, problem in backend_problems().items() if problem is None)


def save(path: Path, figures: Mapping[str, Figure]) -> None:
    """Write figures of this machine to a JSON file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    cases = {name: asdict(figure) for name, figure in figures.items()}
    record = {"version": VERSION, "backend": _backend(), "machine": machine(), "cases": cases}
    write_file(path, (json.dumps(record, indent=1) + "\n").encode())


def load(path: Path, cases: Mapping[str, Case], quick: bool = False) -> dict[str, Figure]:
    """Read figures that `save` wrote, to be compared with those of these cases here and now.

    Parameters
    ----------
    quick
        Whether the cases are a choice of all, so that the file may hold more.

    Raises
    ------
    MissingFileError
        If there is no such file.
    OptionError
        If it is none of ours, or is of another version, backend or choice of cases.
    """
    try:
        record = json.loads(path.read_bytes())
        version, backend = record["version"], record.get("backend")
        kept = record["cases"] if version == VERSION else {}  # another version may hold anything
        found = {str(name): _figure(one) for name, one in kept.items()}
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path} of figures; --save makes one") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"{path} is no file that actgrid bench --save wrote") from error
    problem = None
    if version != VERSION:
        problem = f"is of version {version}, this is version {VERSION}"
    elif backend != _backend():
        problem = f"is of the backend {backend}, here it is {_backend()}"
    elif missing := [name for name in cases if name not in found]:
        problem = f"has no figure for {'; '.join(missing)}"
    elif unknown := [name for name in found if name not in cases and not quick]:
        problem = f"has figures of unknown cases: {'; '.join(unknown)}"
    if problem:
        raise OptionError(f"{path} {problem}: save it anew")
    return found


def _figure(found: Mapping[str, Any]) -> Figure:
    figure = Figure(**{name: float(value) for name, value in found.items()})
    if not 0 < figure.ratio < math.inf:
        raise ValueError(f"no ratio: {figure.ratio}")
    return figure
