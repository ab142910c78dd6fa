"""Generate the page docs/options.md from the option definitions.

Run as a script, this file writes the page."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import actgrid
from actgrid import options
from actgrid.attribution.methods import get_methods
from actgrid.cli.app import find_commands
from actgrid.option_groups import UNSET, Option, get_options

PAGE = Path(__file__).parents[1] / "docs" / "options.md"

INTRODUCTION = """\
# Options

An option has one name everywhere: `batch_size` in Python is `--batch-size` on the command line and
`batch_size` in the HTTP API. A value has one text form everywhere: Python, the command line and a
URL accept `percentile(1, 99)`. The last column says what None, or an omitted option, means.
`tests/option_tables.py` generates this page from the definitions in `actgrid.options`.
"""


def list_groups() -> list[type]:
    """Return all option groups in the order of their definition."""
    return [
        value
        for value in vars(options).values()
        if isinstance(value, type) and value.__module__ == options.__name__
    ]


def list_definition_groups() -> list[type]:
    """Return the groups that define own options, in the order of their definition."""
    return [group for group in list_groups() if get_own_options(group)]


def get_own_options(group: type) -> dict[str, Option]:
    """Return the options that a group itself defines, without inherited options."""
    before: set[int] = set()
    for other in list_groups():
        if other is group:
            break
        before |= {id(option) for option in get_options(other).values()}
    return {name: option for name, option in get_options(group).items() if id(option) not in before}


def list_public_functions() -> Iterator[tuple[str, Any]]:
    """Yield (name, function) for public functions, classes and drawing methods."""
    for name in actgrid.__all__:
        yield f"actgrid.{name}", getattr(actgrid, name)
    for package in ("callbacks", "figures", "runs", "statistics"):
        module = importlib.import_module(f"actgrid.{package}")
        for name in module.__all__:
            if name not in actgrid.__all__:
                yield f"actgrid.{package}.{name}", getattr(module, name)
    for name in ("overlay", "levels", "contours"):
        yield f"Heatmap.{name}", getattr(actgrid.Heatmap, name)


def get_function_options(function: Any) -> dict[str, tuple[Option, Any]]:
    """Return the options of a function: name -> (definition, default)."""
    group = getattr(function, "__options__", None)
    if group is None:
        return {}
    parameters = inspect.signature(function).parameters
    return {name: (option, parameters[name].default) for name, option in get_options(group).items()}


def list_takers(group: type) -> list[str]:
    """Return the names of the public functions that take all options of a group."""
    own = get_own_options(group).items()
    return [
        name
        for name, function in list_public_functions()
        if all(get_function_options(function).get(key, (None,))[0] is option for key, option in own)
    ]


def find_commands_with(name: str, option: Option) -> list[str]:
    """Return the names of the commands that take an option."""
    return [
        command
        for command, definition in find_commands()
        for panel in definition.panels
        if name in panel.options and panel.options[name].help == option.help
    ]


def describe_defaults(name: str, option: Option) -> str:
    """Describe the default of an option, and different defaults of functions."""
    functions_by_default: dict[str, list[str]] = {}
    for function, value in list_public_functions():
        definition, default = get_function_options(value).get(name, (None, None))
        if definition is option and default is not UNSET and default != option.default:
            functions_by_default.setdefault(f"`{default!r}`", []).append(f"`{function}`")
    if option is get_options(options.MethodOptions).get(name):
        for method in get_methods().values():
            if name in method.options:
                default = f"`{method.options[name]!r}`"
                functions_by_default.setdefault(default, []).append(f"`{method.name}`")
    known = option.default not in (UNSET, inspect.Parameter.empty)
    texts = [f"`{option.default!r}`"] if known else []
    texts += [
        f"{default} of {', '.join(functions)}"
        for default, functions in functions_by_default.items()
    ]
    return escape("; ".join(texts))


def escape(text: str) -> str:
    return text.replace("|", "\\|")


def format_row(name: str, option: Option) -> str:
    none = f" None: {option.none}." if option.none else ""
    flag = f"`--{name.replace('_', '-')}` of {', '.join(find_commands_with(name, option))}"
    cells = (
        f"`{name}`",
        flag if find_commands_with(name, option) else "",
        escape(option.type.expected),
        describe_defaults(name, option),
        escape(option.help + none),
    )
    return f"| {' | '.join(cells)} |"


def make_page() -> str:
    """Return the page as Markdown: a section for each title, of one or more groups."""
    sections: dict[str, list[type]] = {}
    for group in list_definition_groups():
        title = (group.__doc__ or "").splitlines()[0].rstrip(".").removeprefix("Options for ")
        title = title[0].upper() + title[1:]
        sections.setdefault(title, []).append(group)
    parts = [INTRODUCTION]
    for title, groups in sections.items():
        parts.append(f"## {title}\n")
        parts.append("| option | command line | values | default | meaning |")
        parts.append("| --- | --- | --- | --- | --- |")
        for group in groups:
            parts += [format_row(name, option) for name, option in get_own_options(group).items()]
        parts.append("")
        for group in groups:
            functions = ", ".join(f"`{name}`" for name in list_takers(group))
            names = ", ".join(f"`{name}`" for name in get_own_options(group))
            if functions:
                parts.append(f"{names}: options of {functions}.\n")
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(make_page())
