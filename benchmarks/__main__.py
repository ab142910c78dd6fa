"""Run groups of benchmarks, and print their results and targets as tables."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from fnmatch import filter as filter_names
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from actgrid.bench import describe_machine
from actgrid.encoding import write_file
from actgrid.models.frameworks import load_tensorflow
from actgrid.progress import show_progress
from benchmarks.groups import GROUPS
from benchmarks.growth import plot_growth
from benchmarks.suite import GroupResult, format_number


def make_table(result: GroupResult) -> Table:
    group = result.group
    table = Table("", "value", "must", "aim", "met", box=box.MARKDOWN)
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
    if group.sizes:
        table.add_row("*exponent of growth*", f"{result.exponent():.2f}")
        table.add_row("*exponent, two largest sizes*", f"{result.exponent(2):.2f}")
    return table


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
        "seconds": result.seconds,
        "exponent": result.exponent() if result.group.sizes else None,
        "targets": targets,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="groups, or globs; see --list")
    parser.add_argument("--list", action="store_true", help="list the names of the groups")
    parser.add_argument("--rounds", type=int, default=9, help="maximum number of rounds of a group")
    parser.add_argument(
        "--seconds", type=float, default=15, help="time after which a group begins no more rounds"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the results")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture of the growth groups")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    if arguments.list:
        for name, group in GROUPS.items():
            console.print(f"{name:16}  {group.title}")
        return
    names = {glob: filter_names(GROUPS, glob) for glob in arguments.names or ["*"]}
    if unknown := [glob for glob in names if not names[glob]]:
        parser.error(f"unknown groups: {', '.join(unknown)}; groups: {', '.join(GROUPS)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")

    load_tensorflow()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # tf-explain retraces at each call
    results: dict[str, GroupResult] = {}
    start = time.perf_counter()
    groups = [name for name in GROUPS if any(name in matches for matches in names.values())]
    with show_progress(len(groups), "measuring") as advance:
        for name in groups:
            result = GROUPS[name].measure(arguments.rounds, arguments.seconds)
            results[name] = result
            console.print(f"{name}: {result.group.title} ({result.seconds:.0f} s)")
            console.print(make_table(result))
            sys.stdout.flush()
            advance()
    facts = describe_machine()
    console.print(
        f"{len(results)} groups in {time.perf_counter() - start:.0f} s; {facts['processor']}, "
        f"{facts['processors']} processors, {facts['system']}; medians of at most "
        f"{arguments.rounds} rounds, ratios of pairs"
    )
    if arguments.plot:
        plot_growth(results.values(), arguments.plot)
    if arguments.json:
        report = {
            "machine": facts,
            "groups": {name: as_dict(result) for name, result in results.items()},
        }
        write_file(arguments.json, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
