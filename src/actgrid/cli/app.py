"""The command line: every file in `actgrid.cli.commands` is a command."""

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


class _Commands(TyperGroup):
    """The commands, which names close matches where there is none of a name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise OptionError(
                f"no command is called {args[0]!r}{suggest(args[0], known)} (see actgrid --help)"
            )
        return super().resolve_command(ctx, args)


def find_commands() -> Iterator[tuple[str, Command]]:
    """Yield the names of the commands and what they are, in the order of their names."""
    for module in pkgutil.iter_modules(commands.__path__):
        found = importlib.import_module(f"{commands.__name__}.{module.name}")
        yield module.name.replace("_", "-"), getattr(found, module.name)


def _start(**given: Any) -> None:
    """See what a Keras/TensorFlow network sees: every channel of every layer, drawn fast."""


def make_app() -> typer.Typer:
    """Return the application with every command."""
    parameters = list(general_parameters())
    _start.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    _start.__annotations__ = {each.name: each.annotation for each in parameters}
    application = typer.Typer(
        name="actgrid",
        cls=_Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    application.callback()(_start)
    for name, each in find_commands():
        application.command(name)(each.run)
    return application


app = make_app()
