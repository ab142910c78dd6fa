"""Running the command: one line and exit code 2 where something is wrong, never a traceback."""

from __future__ import annotations

import logging
import os
import sys
import traceback

import typer

from actgrid.cli.app import app
from actgrid.errors import ActgridError, OptionError

__all__ = ["InterruptedRun", "main"]

_FAILED, _INTERRUPTED = 2, 130

# Usage errors; typer does not export their base, and where it lives differs between releases.
_UsageProblem: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


class InterruptedRun(Exception):  # noqa: N818  (it is no error)
    """The user stopped what was going on; the message tells how far it came."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command with these arguments, or those of the process, and exit."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _check_not_empty(arguments)
        code = app(args=arguments, prog_name="actgrid", standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except InterruptedRun as error:
        return _problem(f"interrupted: {error}", _INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain of it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ActgridError as error:
        return _problem(str(error))
    except _UsageProblem as error:
        message = error.format_message()  # type: ignore[attr-defined]
        # Empty where no command was given: the help has been shown.
        return _problem(f"{message} (see actgrid --help)") if message else 0
    except Exception as error:
        if os.environ.get("ACTGRID_TRACEBACK"):
            traceback.print_exc()
        return _problem(f"{type(error).__name__}: {error} (ACTGRID_TRACEBACK=1 shows where)")
    if code == _INTERRUPTED:  # typer may have made an exit of it
        return _problem("interrupted", _INTERRUPTED)
    return code if isinstance(code, int) else 0


def _check_not_empty(arguments: list[str]) -> None:
    """Raise OptionError for an empty argument, which as a path would be the current folder."""
    for before, argument in zip(["actgrid", *arguments], arguments, strict=False):
        if argument == "" or (argument.startswith("--") and argument.endswith("=")):
            place = argument.rstrip("=") or f"the argument after {before}"
            raise OptionError(f"{place} is empty: is a variable of the shell not set?")


def _problem(message: str, code: int = _FAILED) -> int:
    sys.stdout.flush()
    print(f"actgrid: {' '.join(message.split())}", file=sys.stderr)
    return code
