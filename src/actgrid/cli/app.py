"""Build the command-line application from the modules of `actgrid.cli.commands`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from actgrid.cli import commands
from actgrid.cli.command import Command, general_parameters
from actgrid.errors import OptionError, suggest

__all__ = ["app", "find_commands", "make_app"]


class _CommandGroup(TyperGroup):
    """Group of commands that suggests similar names for an unknown command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            raise OptionError(
                f"unknown command {args[0]!r}{suggest(args[0], names)} (see actgrid --help)"
            )
        return super().resolve_command(ctx, args)


def find_commands() -> Iterator[tuple[str, Command]]:
    """Yield (name, `Command`) for each command of the command line, sorted by name."""
    for info in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"{commands.__name__}.{info.name}")
        yield info.name.replace("_", "-"), getattr(module, info.name)


def _show_help(**values: Any) -> None:
    """Visualize what a Keras/TensorFlow network sees: every channel of every layer."""


def make_app() -> typer.Typer:
    """Create the typer application of the command line with all commands."""
    parameters = list(general_parameters())
    _show_help.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    _show_help.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    application = typer.Typer(
        name="actgrid",
        cls=_CommandGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    application.callback()(_show_help)
    for name, command in find_commands():
        application.command(name)(command.run)
    return application


app = make_app()
