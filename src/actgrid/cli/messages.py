"""Configure the printed output of commands, and end commands early."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

__all__ = ["CommandStop", "configure_output"]


class CommandStop(Exception):  # noqa: N818  (an interruption is not an error)
    """Exception that ends a command with one line on standard error and an exit code.

    Parameters
    ----------
    message
        Text of the line.
    code
        Exit code of the process.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def configure_output(is_quiet: bool, is_verbose: bool, as_json: bool) -> Iterator[None]:
    """Apply the options --quiet and --verbose while a command runs.

    A quiet command prints only JSON. A verbose command prints log messages on standard error; any
    other command prints only warnings about Ray workers that died. The caller prints errors
    outside of this context.
    """
    with ExitStack() as stack:
        if is_quiet:
            devnull = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123
            stack.enter_context(redirect_stderr(devnull))
            if not as_json:
                stack.enter_context(redirect_stdout(devnull))
        if is_verbose:
            stack.enter_context(_print_log("actgrid", logging.INFO))
        elif not is_quiet:
            stack.enter_context(_print_log("actgrid.runs.ray", logging.WARNING))
        yield


@contextmanager
def _print_log(name: str, level: int) -> Iterator[None]:
    """Print the messages of a logger in the ``with`` block on standard error.

    Parameters
    ----------
    name
        Name of the logger.
    level
        Lowest level of the printed messages.
    """

    class LineHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print(f"actgrid: {record.getMessage()}", file=sys.stderr, flush=True)

    logger, handler = logging.getLogger(name), LineHandler(level)
    previous_level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level, previous_level or level))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(previous_level)
