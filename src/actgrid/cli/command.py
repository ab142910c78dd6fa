"""Build commands from option definitions.

Flags, help texts, shell completion and the parsing of values are derived from the definitions of
the options. A command is a function in a module of `actgrid.cli.commands`, with positional
arguments and one parameter `options`. The decorator `command` lists its option groups.
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

from actgrid.cli.messages import CommandStop, configure_output
from actgrid.cli.words import WORDS
from actgrid.errors import ActgridError
from actgrid.option_groups import UNSET, Option, get_options, pick_options
from actgrid.option_types import Flag, OptionType
from actgrid.options import GeneralOptions

__all__ = [
    "Command",
    "NoneMeaning",
    "Options",
    "Panel",
    "command",
    "format_flag",
    "general_parameters",
    "make_panel",
]

_REQUIRED = inspect.Parameter.empty
_SHORT = {"output": "-o", "version": "-V", "quiet": "-q", "verbose": "-v"}
_ENVIRONMENT = {"token": "ACTGRID_TOKEN"}
_MAX_METAVAR_LENGTH = 16  # characters
_GENERAL = get_options(GeneralOptions)


@dataclass(frozen=True)
class Panel:
    """Record of a group of options that `--help` shows in one panel.

    Parameters
    ----------
    title
        Heading of the panel.
    options
        Option name -> definition.
    """

    title: str
    options: Mapping[str, Option]


@dataclass(frozen=True)
class Command:
    """Record of a command of the command line.

    It consists of the function that typer calls, and of the panels of its options.
    """

    run: Callable[..., None]
    panels: tuple[Panel, ...]


class NoneMeaning(str):
    """Text that says what a command does if an option is not given and thus None."""


class Options(dict[str, Any]):
    """Dict of the option values of a command: name -> value."""

    def select(self, *groups: type) -> dict[str, Any]:
        """Return the options that the given groups define, as a dict: name -> value."""
        return pick_options(self, *groups)


def format_flag(name: str) -> str:
    """Return the command-line flag of an option: ``batch_size`` -> ``--batch-size``."""
    return f"--{name.replace('_', '-')}"


def make_panel(group: type, *names: str) -> Panel:
    """Create the help panel of an option group, titled with the group's docstring.

    Parameters
    ----------
    group
        Class that defines the options.
    *names
        Names of the options to show. Without names, all are shown.

    Returns
    -------
    Panel
        Title and options.
    """
    options = get_options(group)
    title = (group.__doc__ or "").partition("\n")[0].rstrip(".")
    return Panel(title, {name: options[name] for name in names or options})


def command(*groups: type | Panel, **defaults: Any) -> Callable[[Callable[..., None]], Command]:
    """Return a decorator that makes a command of a function.

    The function receives the values of the options as its parameter `options`.

    Parameters
    ----------
    groups
        Option groups; `--help` shows each as a panel.
    defaults
        Defaults of this command, where they differ from the definitions.

    Returns
    -------
    callable
        Decorator that returns a `Command`.
    """
    panels = tuple(
        replace(
            group_panel,
            options={
                name: _replace_default(option, defaults.get(name, option.default))
                for name, option in group_panel.options.items()
            },
        )
        for group_panel in (
            group if isinstance(group, Panel) else make_panel(group) for group in groups
        )
    )
    options = {
        name: option for group_panel in panels for name, option in group_panel.options.items()
    }

    def decorate(function: Callable[..., None]) -> Command:
        arguments = [
            parameter
            for parameter in inspect.signature(function, eval_str=True).parameters.values()
            if parameter.name != "options"
        ]

        def run(context: typer.Context, **arguments: Any) -> None:
            general = _pop_general_options(context, arguments)
            texts = {name: arguments.pop(name) for name in options}
            values = Options(general)
            for name, option in options.items():
                if texts[name] is not None or option.default is not UNSET:
                    values[name] = _read_value(name, option, texts[name])
            with configure_output(general["quiet"], general["verbose"], values.get("json", False)):
                _call(functools.partial(function, **arguments, options=values), general["verbose"])

        parameters = [
            inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(argument.replace(kind=inspect.Parameter.KEYWORD_ONLY) for argument in arguments),
            *general_parameters(),
        ]
        for group_panel in panels:
            parameters += [
                _make_parameter(name, option, group_panel)
                for name, option in group_panel.options.items()
            ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__, run.__doc__ = function.__name__, _join_lines(function.__doc__ or "")
        return Command(run, panels)

    return decorate


def _replace_default(option: Option, default: Any) -> Option:
    if isinstance(default, NoneMeaning):
        return replace(option, default=None, none=str(default))
    return replace(option, default=default)


def general_parameters() -> Iterator[inspect.Parameter]:
    """Yield a typer parameter for each option that all commands have.

    An example is ``--quiet``.
    """
    for name, option in _GENERAL.items():
        yield _make_parameter(name, option)


def _join_lines(doc: str) -> str:
    """Join the lines of each paragraph of a docstring; the terminal wraps them again."""
    paragraphs = inspect.cleandoc(doc).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _pop_general_options(context: typer.Context, arguments: dict[str, Any]) -> dict[str, bool]:
    """Remove the options that all commands have from the arguments of a command.

    Each option may stand before or after the name of the command.

    Returns
    -------
    dict
        Option name -> whether the option was given.
    """
    leading = context.parent.params if context.parent is not None else {}
    return {name: bool(arguments.pop(name) or leading.get(name)) for name in _GENERAL}


def _call(function: Callable[[], None], verbose: bool) -> None:
    try:
        function()
    except (ActgridError, CommandStop, typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception:
        if verbose:
            traceback.print_exc()
        raise


def _make_parameter(
    name: str,
    option: Option,
    help_panel: Panel | None = None,
) -> inspect.Parameter:
    """Create the typer parameter of an option, which reads the option as text.

    Parameters
    ----------
    name
        Name of the option.
    option
        Definition of the option.
    help_panel
        Panel that shows the option in the help. None: no panel.
    """
    is_flag = isinstance(option.type, Flag)
    flag = format_flag(name)
    if is_flag and option.default is not False:
        flag = f"{flag}/{format_flag(f'no_{name}')}"
    declarations = [flag, *([_SHORT[name]] if name in _SHORT else [])]
    info = typer.Option(
        *declarations,
        help=" ".join(
            [
                option.help,
                *_list_unnamed_words(option),
                *(["Repeatable."] if option.is_repeatable else []),
                _describe_default(option),
            ]
        ).rstrip(),
        metavar="" if is_flag else _format_metavar(option.type),
        show_default=False,
        rich_help_panel=None if help_panel is None else help_panel.title,
        envvar=_ENVIRONMENT.get(name),
        show_envvar=False,
        is_eager=name == "version",
        callback=_show_version if name == "version" else None,
        autocompletion=None if is_flag else _make_completion(name, option),
    )
    annotation: Any = (
        bool | None if is_flag else list[str] | None if option.is_repeatable else str | None
    )
    default: Any = None
    if option.default is _REQUIRED:
        annotation, default = list[str] if option.is_repeatable else str, _REQUIRED
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[annotation, info],
    )


def _show_version(is_given: bool | None) -> None:
    if is_given:
        typer.echo(f"actgrid {metadata.version('actgrid')}")
        raise typer.Exit


def _format_metavar(option_type: OptionType) -> str:
    # A long list of words leaves no room for the help text, which explains the words.
    is_short = len(option_type.metavar) <= _MAX_METAVAR_LENGTH
    return option_type.metavar if is_short else "WORD"


def _list_unnamed_words(option: Option) -> list[str]:
    """Return a sentence that lists the allowed words of an option, for its help.

    Returns
    -------
    list of str
        The sentence. Empty if the help shows the words already.
    """
    words = option.type.words
    if len(option.type.metavar) <= _MAX_METAVAR_LENGTH or all(
        word in option.help for word in words
    ):
        return []
    return [f"One of {', '.join(words)}."]


def _describe_default(option: Option) -> str:
    default = option.default
    if default is None and option.none:
        return f"(default: {option.none})"
    if default in (_REQUIRED, UNSET, None, ()) or isinstance(default, bool):
        return ""
    return f"(default: {_format_default(option)})"


def _format_default(option: Option) -> str:
    """Format the default of an option as the command line accepts it."""
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if option.type.metavar == "BYTES" and option.default % (1 << shift) == 0:
            return f"{option.default >> shift}{unit}"
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


def _make_completion(name: str, option: Option) -> Callable[[str], list[str]] | None:
    if name not in WORDS and not option.type.words:
        return None

    def complete(incomplete: str) -> list[str]:
        words = option.type.words or WORDS[name]()
        return [word for word in words if word.startswith(incomplete)]

    return complete


def _read_value(name: str, option: Option, text: bool | str | Sequence[str] | None) -> Any:
    """Convert the command-line text of an option to its value.

    Parameters
    ----------
    name
        Name of the option.
    option
        Definition of the option.
    text
        Text or texts on the command line, or the value of a flag. None: not given.

    Returns
    -------
    object
        The value, or the default if the option was not given.
    """
    flag = format_flag(name)
    if text is None or text == []:
        is_single = option.is_repeatable and isinstance(option.default, str)
        return [option.default] if is_single else option.default
    if isinstance(text, bool):
        return text
    if isinstance(text, str):
        return option.type.read(flag, text)
    return [option.type.read(flag, item) for item in text]
