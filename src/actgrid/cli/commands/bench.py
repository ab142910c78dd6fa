"""`actgrid bench`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import typer

from actgrid.cli.command import Options, command
from actgrid.errors import OptionError
from actgrid.options import BenchOptions, JsonOptions
from actgrid.progress import progress


@command(BenchOptions, JsonOptions)
def bench(options: Options) -> None:
    """Compare the speed of this build of actgrid with that of another one.

    Two builds run the same cases in turns, in processes of their own, until each ratio of times is
    clear of the tolerance: that holds on a busy machine too. The exit code is 1 if anything is
    slower by more than the tolerance.

    Figures that --save keeps are ratios to fixed work of NumPy, zlib or Python. They hold only on
    the processor, and with the versions, that they were recorded with.
    """
    from actgrid import bench
    from actgrid.cli import report
    from actgrid.cli.loading import load_tensorflow
    from actgrid.encoding import writable_folder

    # What is wrong with these is said before anything is measured.
    save = None if options["save"] is None else Path(options["save"])
    against = None if options["against"] is None else Path(options["against"])
    tolerance, rounds, quick = (options[name] for name in ("tolerance", "rounds", "quick"))
    if save is not None and against is not None:
        raise OptionError("--save records this build and --against compares it: give one of them")
    if save is not None:
        writable_folder(save.parent)
    cases = list(bench.bench_cases(quick))
    kept = dict.fromkeys(cases, 1.0)
    if against is not None and against.suffix == ".json":
        kept = bench.load(against, cases, quick)
    if not quick:
        load_tensorflow()  # what is missing is said here
    this = bench.this_build()
    start = partial(bench.turns_with_yardsticks, this, kept)
    left_out: dict[str, str] = {}
    with ExitStack() as opened:
        if against is not None and against.suffix != ".json":
            other = opened.enter_context(bench.opened_build(against))
            left_out = bench.check_builds(other, this, cases)
            cases = [name for name in cases if name not in left_out]
            start = partial(bench.turns_of_builds, other, this)
        settled = bench.is_steady if against is None else bench.is_clear(tolerance)
        advance = opened.enter_context(progress(len(cases) * rounds, "measuring"))
        figures = bench.measure(cases, start, rounds, settled, advance)
    if save is not None:
        bench.save(save, figures)
    limit = None if against is None else tolerance
    if options["json"]:
        typer.echo(json.dumps(report.figures_as_dict(figures, left_out, limit)))
    else:
        report.print_figures(figures, left_out, limit)
    if report.slower_cases(figures, limit):
        raise typer.Exit(1)
