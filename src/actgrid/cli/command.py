"""Make commands from the definitions of their options.

Flags, help, completion and the reading of values are derived from the definitions. A command is a
function with arguments and one parameter `options`, in a file of its own in
`actgrid.cli.commands`. The decorator `command` names its groups of options.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Annotated, Any

import typer

from actgrid.cli.messages import CommandStop, messages
from actgrid.cli.words import WORDS
from actgrid.errors import ActgridError
from actgrid.option_groups import UNSET, Option, options_of, pick_options
from actgrid.option_types import Flag, OptionType
from actgrid.options import GeneralOptions

__all__ = [
    "Command",
    "LeftOut",
    "Options",
    "Panel",
    "command",
    "flag_of",
    "general_parameters",
    "panel",
]

_REQUIRED = inspect.Parameter.empty
_SHORT = {"output": "-o", "version": "-V", "quiet": "-q", "verbose": "-v"}
_ENVIRONMENT = {"token": "ACTGRID_TOKEN"}
_MAX_METAVAR = 16  # characters
_GENERAL = options_of(GeneralOptions)


@dataclass(frozen=True)
class Panel:
    """Options that `--help` shows together.

    Attributes
    ----------
    title
        Heading of the panel.
    options
        Definitions by name.
    """

    title: str
    options: Mapping[str, Option]


@dataclass(frozen=True)
class Command:
    """A command: the function that typer calls, and the options that it was made from."""

    run: Callable[..., None]
    panels: tuple[Panel, ...]


class LeftOut(str):
    """What a command does where an option is not given, which then is None."""


class Options(dict[str, Any]):
    """Values of a command's options by name."""

    def of(self, *groups: type) -> dict[str, Any]:
        """Return the values of the options that some groups define."""
        return pick_options(self, *groups)


def flag_of(name: str) -> str:
    """Return the flag of an option on the command line."""
    return f"--{name.replace('_', '-')}"


def panel(group: type, *names: str) -> Panel:
    """Return the options of a group, or those of the given names, under the group's docstring."""
    known = options_of(group)
    title = (group.__doc__ or "").partition("\n")[0].rstrip(".")
    return Panel(title, {name: known[name] for name in names or known})


def command(*groups: type | Panel, **defaults: Any) -> Callable[[Callable[..., None]], Command]:
    """Decorate the function of a command.

    The parameter `options` of the function takes the values of the options.

    Parameters
    ----------
    groups
        Groups of options, each shown as a panel of `--help`.
    defaults
        Defaults of this command where they differ from the definitions.
    """
    panels = tuple(
        replace(
            each,
            options={
                name: _with_default(option, defaults.get(name, option.default))
                for name, option in each.options.items()
            },
        )
        for each in (group if isinstance(group, Panel) else panel(group) for group in groups)
    )
    options = {name: option for each in panels for name, option in each.options.items()}

    def decorate(function: Callable[..., None]) -> Command:
        arguments = [
            each
            for each in inspect.signature(function, eval_str=True).parameters.values()
            if each.name != "options"
        ]

        def run(context: typer.Context, **given: Any) -> None:
            general = _general_options(context, given)
            texts = {name: given.pop(name) for name in options}
            values = Options(general)
            for name, option in options.items():
                if texts[name] is not None or option.default is not UNSET:
                    values[name] = _value(name, option, texts[name])
            with messages(general["quiet"], general["verbose"], values.get("json", False)):
                _call(functools.partial(function, **given, options=values), general["verbose"])

        parameters = [
            inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in arguments),
            *general_parameters(),
        ]
        for each in panels:
            parameters += [_parameter(name, option, each) for name, option in each.options.items()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__name__, run.__doc__ = function.__name__, _reflowed(function.__doc__ or "")
        return Command(run, panels)

    return decorate


def _with_default(option: Option, default: Any) -> Option:
    if isinstance(default, LeftOut):
        return replace(option, default=None, none=str(default))
    return replace(option, default=default)


def general_parameters() -> Iterator[inspect.Parameter]:
    """Yield the parameters of the options that stand before and after the name of a command."""
    for name, option in _GENERAL.items():
        yield _parameter(name, option)


def _reflowed(doc: str) -> str:
    """Return a docstring with each paragraph in one line, which the terminal then wraps."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(doc).split("\n\n"))


def _general_options(context: typer.Context, given: dict[str, Any]) -> dict[str, bool]:
    """Return the general options, given before or after the name of the command."""
    before = context.parent.params if context.parent is not None else {}
    return {name: bool(given.pop(name) or before.get(name)) for name in _GENERAL}


def _call(function: Callable[[], None], verbose: bool) -> None:
    try:
        function()
    except (ActgridError, CommandStop, typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception:
        if verbose:
            traceback.print_exc()
        raise


def _parameter(
    name: str,
    option: Option,
    shown_in: Panel | None = None,
) -> inspect.Parameter:
    """Return the parameter by which typer reads an option as text."""
    is_flag = isinstance(option.type, Flag)
    flag = flag_of(name)
    if is_flag and option.default is not False:
        flag = f"{flag}/{flag_of(f'no_{name}')}"
    declarations = [flag, *([_SHORT[name]] if name in _SHORT else [])]
    info = typer.Option(
        *declarations,
        help=" ".join(
            [
                option.help,
                *_unnamed_words(option),
                *(["Repeatable."] if option.is_repeatable else []),
                _default_text(option),
            ]
        ).rstrip(),
        metavar="" if is_flag else _metavar(option.type),
        show_default=False,
        rich_help_panel=None if shown_in is None else shown_in.title,
        envvar=_ENVIRONMENT.get(name),
        show_envvar=False,
        is_eager=name == "version",
        callback=_show_version if name == "version" else None,
        autocompletion=None if is_flag else _completion(name, option),
    )
    kind: Any = bool | None if is_flag else list[str] | None if option.is_repeatable else str | None
    default: Any = None
    if option.default is _REQUIRED:
        kind, default = str, _REQUIRED
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, info],
    )


def _show_version(is_wanted: bool | None) -> None:
    if is_wanted:
        typer.echo(f"actgrid {metadata.version('actgrid')}")
        raise typer.Exit


def _metavar(kind: OptionType) -> str:
    # Long lists of words would leave no room for the help, which says what each word means.
    return kind.metavar if len(kind.metavar) <= _MAX_METAVAR else "WORD"


def _unnamed_words(option: Option) -> list[str]:
    """Return a sentence with the words of an option, unless its metavar or help names them."""
    words = option.type.words
    if len(option.type.metavar) <= _MAX_METAVAR or all(word in option.help for word in words):
        return []
    return [f"One of {', '.join(words)}."]


def _default_text(option: Option) -> str:
    default = option.default
    if default is None and option.none:
        return f"(default: {option.none})"
    if default in (_REQUIRED, UNSET, None, ()) or isinstance(default, bool):
        return ""
    return f"(default: {_default_word(option)})"


def _default_word(option: Option) -> str:
    """Return the default of an option as it would be written on the command line."""
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if option.type.metavar == "BYTES" and option.default % (1 << shift) == 0:
            return f"{option.default >> shift}{unit}"
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


def _completion(name: str, option: Option) -> Callable[[str], list[str]] | None:
    if name not in WORDS and not option.type.words:
        return None

    def complete(incomplete: str) -> list[str]:
        words = option.type.words or WORDS[name]()
        return [word for word in words if word.startswith(incomplete)]

    return complete


def _value(name: str, option: Option, given: bool | str | Sequence[str] | None) -> Any:
    """Return the value of an option from what was given on the command line."""
    flag = flag_of(name)
    if given is None or given == []:
        is_single = option.is_repeatable and isinstance(option.default, str)
        return [option.default] if is_single else option.default
    if isinstance(given, bool):
        return given
    if isinstance(given, str):
        return option.type.read(flag, given)
    return [option.type.read(flag, text) for text in given]
