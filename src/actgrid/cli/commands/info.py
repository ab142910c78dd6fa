"""The command `actgrid info`."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from typing import Any

import typer

from actgrid.cli.command import Options, command
from actgrid.options import JsonOptions


@command(JsonOptions)
def info(options: Options) -> None:
    """Print versions, rendering backends, the processor and TensorFlow's devices."""
    from actgrid.cli import report
    from actgrid.rendering import find_backend_problems

    backends = find_backend_problems()
    facts: dict[str, Any] = {
        "versions": {"actgrid": metadata.version("actgrid"), "python": platform.python_version()}
        | {name: _find_version(name) for name in report.PACKAGES},
        "backends": {name: problem or "available" for name, problem in backends.items()},
        "auto": next(name for name, problem in backends.items() if problem is None),
        "cpu": _describe_processor(has_native=backends["native"] is None),
        "devices": _list_devices(),
    }
    if options["json"]:
        typer.echo(json.dumps(facts))
    else:
        report.print_facts(facts)


def _find_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _describe_processor(has_native: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"machine": platform.machine(), "simd": None, "simd_variants": []}
    if has_native:
        from actgrid import _core

        facts |= {"simd": _core.simd_variant(), "simd_variants": _core.simd_variants()}
    return facts


def _list_devices() -> list[str] | str:
    from actgrid.errors import MissingDependencyError
    from actgrid.models.frameworks import load_tensorflow, tensorflow

    try:
        load_tensorflow()
    except MissingDependencyError as error:
        return str(error)
    devices = tensorflow().config.list_physical_devices()
    return [f"{device.device_type} {device.name}" for device in devices]
