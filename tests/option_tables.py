"""The page docs/options.md, made of the definitions; run as a script, this file writes it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import actgrid
from actgrid import options
from actgrid.attribution.methods import all_methods
from actgrid.cli.app import find_commands
from actgrid.option_groups import UNSET, Option, options_of

PAGE = Path(__file__).parents[1] / "docs" / "options.md"

INTRODUCTION = """\
# Options

An option has one name everywhere: `batch_size` in Python is `--batch-size` on the command line and
`batch_size` in the HTTP API. A value is written alike, too: `percentile(1, 99)` is the text that
Python, the command line and a URL take. None, or an option that is left out, means that actgrid
chooses, as the last column says. This page is made of the definitions in `actgrid.options`.
"""


def all_groups() -> list[type]:
    """Return every group, in the order of the module."""
    return [
        value
        for value in vars(options).values()
        if isinstance(value, type) and value.__module__ == options.__name__
    ]


def definition_groups() -> list[type]:
    """Return the groups that define options of their own, in the order of the module."""
    return [group for group in all_groups() if own_options(group)]


def own_options(group: type) -> dict[str, Option]:
    """Return the options that a group defines, not those that it takes from groups before it."""
    before: set[int] = set()
    for other in all_groups():
        if other is group:
            break
        before |= {id(option) for option in options_of(other).values()}
    return {name: option for name, option in options_of(group).items() if id(option) not in before}


def public_functions() -> Iterator[tuple[str, Any]]:
    """Yield the public functions and classes, and the methods of the pictures, by name."""
    for name in actgrid.__all__:
        yield f"actgrid.{name}", getattr(actgrid, name)
    for room in ("callbacks", "figures", "runs", "statistics"):
        module = importlib.import_module(f"actgrid.{room}")
        for name in module.__all__:
            if name not in actgrid.__all__:
                yield f"actgrid.{room}.{name}", getattr(module, name)
    for name in ("overlay", "levels", "contours"):
        yield f"Heatmap.{name}", getattr(actgrid.Heatmap, name)


def taken_options(function: Any) -> dict[str, tuple[Option, Any]]:
    """Return the definition and the default of each option that a function takes."""
    group = getattr(function, "__options__", None)
    if group is None:
        return {}
    parameters = inspect.signature(function).parameters
    return {name: (option, parameters[name].default) for name, option in options_of(group).items()}


def takers(group: type) -> list[str]:
    """Return the public functions that take all options that a group defines."""
    own = own_options(group).items()
    return [
        name
        for name, function in public_functions()
        if all(taken_options(function).get(key, (None,))[0] is option for key, option in own)
    ]


def commands(name: str, option: Option) -> list[str]:
    """Return the names of the commands that take an option."""
    return [
        command
        for command, definition in find_commands()
        for panel in definition.panels
        if name in panel.options and panel.options[name].help == option.help
    ]


def defaults(name: str, option: Option) -> str:
    """Return the default of an option, and those of functions or methods that have another."""
    others: dict[str, list[str]] = {}
    for function, value in public_functions():
        definition, default = taken_options(value).get(name, (None, None))
        if definition is option and default is not UNSET and default != option.default:
            others.setdefault(f"`{default!r}`", []).append(f"`{function}`")
    if option is options_of(options.MethodOptions).get(name):
        for method in all_methods().values():
            if name in method.options:
                others.setdefault(f"`{method.options[name]!r}`", []).append(f"`{method.name}`")
    known = option.default not in (UNSET, inspect.Parameter.empty)
    texts = [f"`{option.default!r}`"] if known else []
    texts += [f"{default} of {', '.join(users)}" for default, users in others.items()]
    return cell("; ".join(texts))


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def row(name: str, option: Option) -> str:
    none = f" None: {option.none}." if option.none else ""
    flag = f"`--{name.replace('_', '-')}` of {', '.join(commands(name, option))}"
    cells = (
        f"`{name}`",
        flag if commands(name, option) else "",
        cell(option.type.expected),
        defaults(name, option),
        cell(option.help + none),
    )
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """Return the whole page: a section for each title, which several groups may have."""
    sections: dict[str, list[type]] = {}
    for group in definition_groups():
        title = (group.__doc__ or "").splitlines()[0].rstrip(".")
        sections.setdefault(title, []).append(group)
    parts = [INTRODUCTION]
    for title, groups in sections.items():
        parts.append(f"## {title}\n")
        parts.append("| option | command line | values | default | meaning |")
        parts.append("| --- | --- | --- | --- | --- |")
        for group in groups:
            parts += [row(name, option) for name, option in own_options(group).items()]
        parts.append("")
        for group in groups:
            functions = ", ".join(f"`{name}`" for name in takers(group))
            names = ", ".join(f"`{name}`" for name in own_options(group))
            if functions:
                parts.append(f"{names}: taken by {functions}.\n")
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
