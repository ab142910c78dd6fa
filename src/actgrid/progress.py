"""Progress bars on the terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["buffer_stderr", "show_progress"]


@contextmanager
def show_progress(
    total: int | None, description: str, is_shown: bool = True, completed: int = 0
) -> Iterator[Callable[..., None]]:
    """Show a progress bar on the terminal; yield a function that advances the bar.

    The bar is shown only if standard error is a terminal. Text that is printed meanwhile appears
    above the bar.

    Parameters
    ----------
    total
        Number of steps; None if it is not known.
    description
        Text before the bar.
    is_shown
        Whether to show the bar at all.
    completed
        Number of steps that are complete at the start.

    Yields
    ------
    callable
        Advances the bar by one step; an optional text argument replaces the text after the bar.
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
    is_hidden = not (is_shown and console.is_terminal)
    columns = (
        TextColumn("{task.description}"),
        # The bar shrinks first on a narrow terminal.
        BarColumn(None, table_column=Column(max_width=40)),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[suffix]}", markup=False, table_column=Column()),
    )
    with Progress(
        *columns,
        console=console,
        disable=is_hidden,
        transient=True,
        # rich would print redirected standard output to standard error, the console above.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(description, total=total, completed=completed, suffix="")
        yield lambda suffix="": bar.update(task, advance=1, suffix=suffix)


@contextmanager
def buffer_stderr() -> Iterator[None]:
    """Hold back the standard error of Python and C++ code in a ``with`` block.

    The text is printed if the block raises an exception, and dropped otherwise.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except Exception:
            sys.stderr.flush()
            buffer.seek(0)
            os.write(stderr, buffer.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
