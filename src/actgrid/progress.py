"""What a terminal shows of what takes a while: a progress bar, and nothing else."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["held_back", "progress"]


@contextmanager
def progress(
    total: int | None, what: str, shown: bool = True, done: int = 0
) -> Iterator[Callable[..., None]]:
    """Show a progress bar on a terminal, nothing elsewhere; yield what moves it on.

    That may be given a text to stand beside the bar. `total` is None where it is not known. What
    is printed meanwhile appears above it.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    console = Console(stderr=True)
    hidden = not (shown and console.is_terminal)
    columns = (
        TextColumn("{task.description}"),
        # What gives way where there is little room.
        BarColumn(None, table_column=Column(max_width=40)),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[beside]}", markup=False, table_column=Column()),
    )
    with Progress(
        *columns,
        console=console,
        disable=hidden,
        transient=True,
        # Which rich would print to standard error, where that is the terminal and this is not.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(what, total=total, completed=done, beside="")
        yield lambda beside="": bar.update(task, advance=1, beside=beside)


@contextmanager
def held_back() -> Iterator[None]:
    """Keep what is written to standard error, also by C++ code; show it if an error leaves."""
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            sys.stderr.flush()
            held.seek(0)
            os.write(real, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
