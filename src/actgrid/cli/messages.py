"""Log messages of a command, quietness, and the exception that ends a command early."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

__all__ = ["CommandStop", "messages"]


class CommandStop(Exception):  # noqa: N818  (an interrupted run is no error)
    """End the command with an exit code, after one line on standard error.

    Attributes
    ----------
    code
        The exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def messages(quiet: bool, verbose: bool, as_json: bool) -> Iterator[None]:
    """Show log messages on standard error as asked; with `quiet`, show nothing but JSON.

    Without `verbose` only the death of a Ray worker is told. Errors are printed by the caller,
    after this context has ended.
    """
    with ExitStack() as stack:
        if quiet:
            nowhere = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123
            stack.enter_context(redirect_stderr(nowhere))
            if not as_json:
                stack.enter_context(redirect_stdout(nowhere))
        if verbose:
            stack.enter_context(_logged("actgrid", logging.INFO))
        elif not quiet:
            stack.enter_context(_logged("actgrid.runs.ray", logging.WARNING))
        yield


@contextmanager
def _logged(name: str, level: int) -> Iterator[None]:
    """Print the messages of a logger from a level on, each as one line."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print(f"actgrid: {record.getMessage()}", file=sys.stderr, flush=True)

    logger, handler = logging.getLogger(name), Lines(level)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level, before or level))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
