"""Run the command: an error is one line and exit code 2, never a traceback."""

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

# Usage errors; typer does not export their base, and where it lives differs between releases.
_UsageProblem: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command with these arguments, or those of the process, and exit."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _check_not_empty(arguments)
        code = app(args=arguments, prog_name="actgrid", standalone_mode=False)
        sys.stdout.flush()  # here a reader that has gone is noticed
    except typer.Exit as stop:
        code = stop.exit_code
    except CommandStop as stop:
        return _print_problem(str(stop), stop.code)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain of it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ActgridError as error:
        return _print_problem(str(error))
    except _UsageProblem as error:
        message = _usage_message(error, arguments)
        # Empty where no command was given: the help has been shown.
        return _print_problem(message) if message else 0
    except Exception as error:
        return _print_problem(f"{type(error).__name__}: {error} (actgrid -v shows where)")
    if code == _INTERRUPTED:  # typer may have made an exit of it
        return _print_problem("interrupted", _INTERRUPTED)
    return code if isinstance(code, int) else 0


def _usage_message(error: Any, arguments: list[str]) -> str:
    """Return the message of a usage error, with close matches and the command for help."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if not message:
        return ""
    if context is None:  # of an option without its value
        names = [name for name, _ in find_commands()]
        path = " ".join(["actgrid", *[each for each in arguments if each in names][:1]])
    else:
        path = context.command_path
    if context is not None and hasattr(error, "possibilities"):  # no such option
        known = [
            flag
            for each in context.command.params
            for flag in (*each.opts, *each.secondary_opts)
            if flag.startswith("--")
        ]
        close = difflib.get_close_matches(error.option_name, known, cutoff=0.7)
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        message = f"no option is called {error.option_name}{hint}"
    return f"{message.rstrip('.')} (see {path} --help)"


def _check_not_empty(arguments: list[str]) -> None:
    """Raise OptionError for an empty argument, which as a path would be the current folder."""
    for before, argument in zip(["actgrid", *arguments], arguments, strict=False):
        if argument == "" or (argument.startswith("--") and argument.endswith("=")):
            place = argument.rstrip("=") or f"the argument after {before}"
            raise OptionError(f"{place} is empty: is a variable of the shell not set?")


def _print_problem(message: str, code: int = _FAILED) -> int:
    sys.stdout.flush()
    print(f"actgrid: {' '.join(message.split())}", file=sys.stderr)
    return code
