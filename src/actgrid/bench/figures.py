"""Figures that are recorded, for later comparisons on the same processor."""

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

from actgrid.bench.regression import Figure
from actgrid.encoding import write_file
from actgrid.errors import MissingFileError, OptionError
from actgrid.rendering.backends import first_backend

__all__ = ["load", "machine", "save"]

# Of the file. A new one wherever a yardstick or a case changes.
VERSION = 2

_CPUINFO = Path("/proc/cpuinfo")

# What a ratio of two times depends on.
_CONDITIONS = ("processor", "processors", "backend", "simd", "python", "numpy")


def machine() -> dict[str, Any]:
    """Return what figures depend on: processor, system, versions."""
    backend, simd = first_backend(), None
    if backend == "native":
        from actgrid import _core

        simd = _core.simd_variant()
    packages = ("actgrid", "numpy", "pillow", "isal")
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "backend": backend,
        "simd": simd,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _processor() -> str:
    """Return the processor's name, family and model."""
    # The name alone does not tell processors apart: virtual machines give only the brand.
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:  # no Linux
        return platform.processor() or platform.machine()
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())  # all processors are alike
    name = facts.get("model name", platform.machine())
    numbers = [f"{key} {facts[key]}" for key in ("cpu family", "model", "stepping") if key in facts]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def save(path: Path, figures: Mapping[str, Figure]) -> None:
    """Write figures of this machine, each a ratio to a yardstick, to a JSON file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    cases = {name: asdict(figure) for name, figure in figures.items()}
    record = {"version": VERSION, "machine": machine(), "cases": cases}
    write_file(path, (json.dumps(record, indent=1) + "\n").encode())


def load(path: Path, cases: Collection[str], quick: bool = False) -> dict[str, float]:
    """Read the ratios that `save` wrote on this machine.

    Parameters
    ----------
    quick
        Whether the cases are a choice of all, so that the file may hold more.

    Raises
    ------
    MissingFileError
        If there is no such file.
    OptionError
        If it is none of ours, or was recorded elsewhere, by another version or of other cases.
    """
    try:
        record = json.loads(path.read_bytes())
        version = record["version"]
        recorded = record["machine"] if version == VERSION else {}  # another may hold anything
        kept = record["cases"] if version == VERSION else {}
        conditions = {key: recorded.get(key) for key in _CONDITIONS}
        ratios = {str(name): _ratio(figure) for name, figure in kept.items()}
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path} of figures; --save makes one") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"{path} is no file that actgrid bench --save wrote") from error
    if version != VERSION:
        raise OptionError(
            f"{path} is of version {version}, this is version {VERSION}: save it anew"
        )
    here = machine()
    others = [key for key in _CONDITIONS if conditions[key] != here[key]]
    if others:
        differences = "; ".join(f"{key} {conditions[key]}, here {here[key]}" for key in others)
        raise OptionError(
            f"{path} was recorded elsewhere and says nothing here: {differences}; compare two "
            "builds instead: --against a wheel, a checkout or an environment with another actgrid"
        )
    problem = None
    if missing := [name for name in cases if name not in ratios]:
        problem = f"has no figure for {'; '.join(missing)}"
    elif unknown := [name for name in ratios if name not in cases and not quick]:
        problem = f"has figures of unknown cases: {'; '.join(unknown)}"
    if problem:
        raise OptionError(f"{path} {problem}: save it anew")
    return ratios


def _ratio(figure: Mapping[str, Any]) -> float:
    ratio = float(figure["ratio"])
    if not 0 < ratio < math.inf:
        raise ValueError(f"no ratio: {ratio}")
    return ratio
