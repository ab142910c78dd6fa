"""Save and load timings, for later comparisons on the same processor."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from actgrid.bench.regression import Timing
from actgrid.encoding import write_file
from actgrid.errors import MissingFileError, OptionError
from actgrid.rendering.backends import find_first_backend

__all__ = ["describe_machine", "load_timings", "save_timings"]

# Format version of the file; increase it when a yardstick or a case changes.
VERSION = 2

_CPUINFO = Path("/proc/cpuinfo")

# The conditions on which a ratio of two times depends.
_CONDITIONS = ("processor", "processors", "backend", "simd", "python", "numpy")


def describe_machine() -> dict[str, Any]:
    """Describe the machine: processor, rendering backend, system and package versions.

    Returns
    -------
    dict
        Name of the fact -> str, int or None.

    Examples
    --------
    >>> actgrid.bench.describe_machine()["processors"] > 0
    True
    """
    backend, simd = find_first_backend(), None
    if backend == "native":
        from actgrid import _core

        simd = _core.simd_variant()
    packages = ("actgrid", "numpy", "pillow", "isal")
    return {
        "processor": _describe_processor(),
        "processors": os.cpu_count(),
        "backend": backend,
        "simd": simd,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _describe_processor() -> str:
    """Return the name of the processor with its family, model and stepping, as text."""
    # The name is not unique: virtual machines give only the brand.
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())  # the first of several equal processors
    name = facts.get("model name", platform.machine())
    numbers = [f"{key} {facts[key]}" for key in ("cpu family", "model", "stepping") if key in facts]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def save_timings(path: Path, timings: Mapping[str, Timing]) -> None:
    """Write benchmark timings of this build, relative to yardsticks, to a JSON file.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    timings : dict
        Name of the case -> Timing of the case and its yardstick.

    Raises
    ------
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> timing = actgrid.bench.Timing(ratio=1.5, error=0.01, before=2.0, now=3.0)
    >>> actgrid.bench.save_timings(Path("timings.json"), {"encode": timing})
    >>> actgrid.bench.load_timings(Path("timings.json"), ["encode"])
    {'encode': 1.5}
    """
    cases = {name: asdict(timing) for name, timing in timings.items()}
    record = {"version": VERSION, "machine": describe_machine(), "cases": cases}
    write_file(path, (json.dumps(record, indent=1) + "\n").encode())


def load_timings(path: Path, cases: Collection[str], quick: bool = False) -> dict[str, float]:
    """Read the benchmark timings that `save_timings` wrote on this machine.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    cases : collection of str
        Names of the cases that the file must contain.
    quick : bool
        Whether the file may contain further cases.

    Returns
    -------
    dict
        Name of the case -> time of the case over time of its yardstick, a float.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    OptionError
        If the file has another format or version, was written on another machine, or contains
        other cases.

    Examples
    --------
    >>> from pathlib import Path
    >>> timing = actgrid.bench.Timing(ratio=1.5, error=0.01, before=2.0, now=3.0)
    >>> actgrid.bench.save_timings(Path("timings.json"), {"encode": timing, "extract": timing})
    >>> actgrid.bench.load_timings(Path("timings.json"), ["encode"], quick=True)["encode"]
    1.5
    """
    try:
        record = json.loads(path.read_bytes())
        version = record["version"]
        recorded_machine = record["machine"] if version == VERSION else {}
        recorded_cases = record["cases"] if version == VERSION else {}
        conditions = {key: recorded_machine.get(key) for key in _CONDITIONS}
        ratios = {str(name): _read_ratio(case) for name, case in recorded_cases.items()}
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}; see actgrid bench --save") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"{path} is not a file of actgrid bench --save") from error
    if version != VERSION:
        raise OptionError(
            f"{path} has format version {version}, expected {VERSION}: save the file again"
        )
    current = describe_machine()
    changed = [key for key in _CONDITIONS if conditions[key] != current[key]]
    if changed:
        differences = "; ".join(f"{key} {conditions[key]}, here {current[key]}" for key in changed)
        raise OptionError(
            f"{path} was saved under other conditions: {differences}; compare two builds instead: "
            "--against a wheel, a checkout or an environment with another actgrid"
        )
    problem = None
    if missing := [name for name in cases if name not in ratios]:
        problem = f"does not contain {'; '.join(missing)}"
    elif unknown := [name for name in ratios if name not in cases and not quick]:
        problem = f"contains unknown cases: {'; '.join(unknown)}"
    if problem:
        raise OptionError(f"{path} {problem}: save the file again")
    return ratios


def _read_ratio(case: Mapping[str, Any]) -> float:
    ratio = float(case["ratio"])
    if not 0 < ratio < math.inf:
        raise ValueError(f"ratio must be positive and finite, not {ratio}")
    return ratio
