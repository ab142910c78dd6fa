"""Run the command line, and report each error in one line with exit code 2."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from typing import Any

import typer

from actgrid.cli.app import app, find_commands
from actgrid.cli.messages import CommandStop
from actgrid.errors import ActgridError, OptionError

__all__ = ["main"]

_FAILED, _INTERRUPTED = 2, 130

# Base class of usage errors: typer does not export it, and its module differs between releases.
_UsageError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line with the given arguments and exit the process.

    Parameters
    ----------
    arguments : list of str or None
        Command-line arguments without the program name; None: those of the process.

    Raises
    ------
    SystemExit
        Always: with code 0 after success, 1 if images failed or something became slower, 2 after
        an error, 130 after an interruption.

    Examples
    --------
    >>> actgrid.cli.main(["info", "--quiet"])
    Traceback (most recent call last):
    SystemExit: 0
    """
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _check_not_empty(arguments)
        code = app(args=arguments, prog_name="actgrid", standalone_mode=False)
        sys.stdout.flush()  # raises BrokenPipeError if the reader of a pipe has exited
    except typer.Exit as stop:
        code = stop.exit_code
    except CommandStop as stop:
        return _print_error(str(stop), stop.code)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has exited. Python would report the same error again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ActgridError as error:
        return _print_error(str(error))
    except _UsageError as error:
        message = _format_usage_error(error, arguments)
        # The message is empty if no command was given: typer has printed the help.
        return _print_error(message) if message else 0
    except Exception as error:
        return _print_error(f"{type(error).__name__}: {error} (actgrid -v shows where)")
    if code == _INTERRUPTED:  # typer can turn KeyboardInterrupt into typer.Exit
        return _print_error("interrupted", _INTERRUPTED)
    return code if isinstance(code, int) else 0


def _format_usage_error(error: Any, arguments: list[str]) -> str:
    """Format a usage error of the command line as a message.

    The message has close matches of an unknown option and the command that prints the help.
    """
    message, context = error.format_message(), getattr(error, "ctx", None)
    if not message:
        return ""
    if context is None:  # an option without its value
        names = [name for name, _ in find_commands()]
        path = " ".join(["actgrid", *[argument for argument in arguments if argument in names][:1]])
    else:
        path = context.command_path
    if context is not None and hasattr(error, "possibilities"):  # an unknown option
        flags = [
            flag
            for parameter in context.command.params
            for flag in (*parameter.opts, *parameter.secondary_opts)
            if flag.startswith("--")
        ]
        matches = difflib.get_close_matches(error.option_name, flags, cutoff=0.7)
        hint = f" (did you mean {', '.join(matches)}?)" if matches else ""
        message = f"unknown option {error.option_name}{hint}"
    return f"{message.rstrip('.')} (see {path} --help)"


def _check_not_empty(arguments: list[str]) -> None:
    """Raise OptionError if a command-line argument is empty.

    An empty path would mean the current folder.
    """
    for previous, argument in zip(["actgrid", *arguments], arguments, strict=False):
        if argument == "" or (argument.startswith("--") and argument.endswith("=")):
            place = argument.rstrip("=") or f"the argument after {previous}"
            raise OptionError(f"{place} is empty: is a shell variable not set?")


def _print_error(message: str, code: int = _FAILED) -> int:
    sys.stdout.flush()
    print(f"actgrid: {' '.join(message.split())}", file=sys.stderr)
    return code
