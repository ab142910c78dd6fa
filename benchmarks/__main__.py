"""Run benchmarks, and print their results and targets as a table."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from actgrid.bench import describe_machine
from actgrid.cli.loading import load_tensorflow
from actgrid.encoding import write_file
from benchmarks.groups import GROUPS
from benchmarks.suite import GroupResult, format_number


def add_rows(table: Table, result: GroupResult) -> None:
    group = result.group
    table.add_row(f"**{group.title}**")
    for name in group.cases:
        is_available = name in result.values
        table.add_row(
            name,
            f"{format_number(result.median(name))} {group.unit}"
            if is_available
            else result.missing[name],
        )
    for target in group.targets:
        value = result.value(target)
        table.add_row(
            f"*{target.name}*",
            "?" if value is None else target.format(value),
            target.format_bound(target.must),
            target.format_bound(target.aim),
            "" if value is None else "yes" if target.is_met(value) else "NO",
        )


def as_dict(result: GroupResult) -> dict[str, Any]:
    targets = []
    for target in result.group.targets:
        value = result.value(target)
        targets.append(
            {
                "name": target.name,
                "value": value,
                "must": target.format_bound(target.must),
                "aim": target.format_bound(target.aim),
                "is_met": None if value is None else target.is_met(value),
            }
        )
    return {
        "title": result.group.title,
        "unit": result.group.unit,
        "medians": {name: result.median(name) for name in result.values},
        "rounds": result.values,
        "missing": result.missing,
        "targets": targets,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"groups: {', '.join(GROUPS)}")
    parser.add_argument(
        "--rounds", type=int, default=9, help="maximum number of rounds of each case"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the results")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(GROUPS):
        parser.error(f"unknown groups: {', '.join(unknown)}; groups: {', '.join(GROUPS)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")

    load_tensorflow()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # tf-explain retraces at each call
    results: dict[str, GroupResult] = {}
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for name in bar.track(arguments.names or list(GROUPS), description="measuring"):
            results[name] = GROUPS[name].measure(arguments.rounds)

    table = Table("", "value", "must", "aim", "met", box=box.MARKDOWN)
    for result in results.values():
        add_rows(table, result)
    facts = describe_machine()
    width = None if sys.stdout.isatty() else 160
    console = Console(width=width, highlight=False, markup=False)
    console.print(table)
    console.print(
        f"{facts['processor']}, {facts['processors']} processors, {facts['system']}; medians "
        f"of at most {arguments.rounds} rounds, ratios of pairs"
    )
    if arguments.json:
        report = {
            "machine": facts,
            "groups": {name: as_dict(result) for name, result in results.items()},
        }
        write_file(arguments.json, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
