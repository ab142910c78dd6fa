"""The command `actgrid bench`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import typer

from actgrid.cli.command import Options, command
from actgrid.errors import OptionError
from actgrid.options import BenchOptions, JsonOptions
from actgrid.progress import show_progress


@command(BenchOptions, JsonOptions)
def bench(options: Options) -> None:
    """Compare the speed of this build of actgrid with another build.

    Both builds run the same cases alternately in separate processes, until each ratio of times is
    clearly above or below the tolerance, even on a busy machine. The exit code is 1 if a case is
    slower by more than the tolerance.

    --save records times relative to fixed computations with NumPy, zlib and Python. They can be
    compared only on the same processor with the same versions.
    """
    from actgrid import bench
    from actgrid.cli import report
    from actgrid.encoding import make_folder
    from actgrid.models.frameworks import load_tensorflow

    # Invalid options are reported before the measurement, which takes minutes.
    save = None if options["save"] is None else Path(options["save"])
    against = None if options["against"] is None else Path(options["against"])
    tolerance, rounds, quick = (options[name] for name in ("tolerance", "rounds", "quick"))
    if save is not None and against is not None:
        raise OptionError("--save and --against exclude each other: give only one of them")
    if save is not None:
        make_folder(save.parent)
    cases = list(bench.make_cases(quick))
    reference = dict.fromkeys(cases, 1.0)
    if against is not None and against.suffix == ".json":
        reference = bench.load_timings(against, cases, quick)
    if not quick:
        load_tensorflow()  # reports a missing package
    this = bench.get_this_build()
    start = partial(bench.alternate_with_yardstick, this, reference)
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        if against is not None and against.suffix != ".json":
            other = stack.enter_context(bench.open_build(against))
            skipped = bench.check_builds(other, this, cases)
            cases = [name for name in cases if name not in skipped]
            start = partial(bench.alternate_builds, other, this)
        is_settled = bench.is_steady if against is None else bench.is_clear(tolerance)
        advance = stack.enter_context(show_progress(len(cases) * rounds, "measuring"))
        timings = bench.measure(cases, start, rounds, is_settled, advance)
    if save is not None:
        bench.save_timings(save, timings)
    limit = None if against is None else tolerance
    if options["json"]:
        typer.echo(json.dumps(report.timings_as_dict(timings, skipped, limit)))
    else:
        report.print_timings(timings, skipped, limit)
    if report.find_slower_cases(timings, limit):
        raise typer.Exit(1)
