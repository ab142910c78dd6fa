"""Print one table of all figures, beside what they must be, and write them as JSON."""

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

from actgrid.bench import machine
from actgrid.cli.loading import load_tensorflow
from actgrid.encoding import write_file
from benchmarks.groups import GROUPS
from benchmarks.suite import Measured, written


def add_rows(table: Table, measured: Measured) -> None:
    group = measured.group
    table.add_row(f"**{group.title}**")
    for name in group.cases:
        known = name in measured.values
        table.add_row(
            name,
            f"{written(measured.median(name))} {group.unit}" if known else measured.missing[name],
        )
    for target in group.targets:
        reached = measured.reached(target)
        table.add_row(
            f"*{target.figure}*",
            "?" if reached is None else target.written(reached),
            target.bound(target.must),
            target.bound(target.aim),
            "" if reached is None else "yes" if target.holds(reached) else "NO",
        )


def as_dict(measured: Measured) -> dict[str, Any]:
    targets = []
    for target in measured.group.targets:
        reached = measured.reached(target)
        targets.append(
            {
                "figure": target.figure,
                "reached": reached,
                "must": target.bound(target.must),
                "aim": target.bound(target.aim),
                "holds": None if reached is None else target.holds(reached),
            }
        )
    return {
        "title": measured.group.title,
        "unit": measured.group.unit,
        "medians": {name: measured.median(name) for name in measured.values},
        "rounds": measured.values,
        "missing": measured.missing,
        "targets": targets,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each case, at most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(GROUPS):
        parser.error(f"no benchmarks are called {', '.join(unknown)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")

    load_tensorflow()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # tf-explain traces anew each time
    found: dict[str, Measured] = {}
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for name in bar.track(arguments.names or list(GROUPS), description="measuring"):
            found[name] = GROUPS[name].measure(arguments.rounds)

    table = Table("", "reached", "must", "aim", "holds", box=box.MARKDOWN)
    for measured in found.values():
        add_rows(table, measured)
    facts = machine()
    width = None if sys.stdout.isatty() else 160
    console = Console(width=width, highlight=False, markup=False)
    console.print(table)
    console.print(
        f"{facts['processor']}, {facts['processors']} processors, {facts['system']}; medians of "
        f"{arguments.rounds} rounds at most, ratios of pairs"
    )
    if arguments.json:
        report = {"machine": facts, "groups": {name: as_dict(one) for name, one in found.items()}}
        write_file(arguments.json, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
