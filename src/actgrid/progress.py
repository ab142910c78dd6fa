"""A progress bar for what takes a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress"]


@contextmanager
def progress(total: int, what: str, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, nothing elsewhere; yield what moves it on."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = not (shown and console.is_terminal)
    with Progress(console=console, disable=hidden, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
