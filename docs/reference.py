"""The generated pages of the reference: public names, commands and the HTTP API.

Each page is made from the definitions themselves when Sphinx starts, so that it cannot be out of
date.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, get_origin
from unittest.mock import Mock

import httpx
from docstrings import list_public_objects  # type: ignore[import-not-found]
from typer.models import ArgumentInfo, OptionInfo

from actgrid.cli.app import find_commands
from actgrid.web.app import make_app

__all__ = ["make_api_page", "make_command_page", "make_http_page", "write_reference"]


def write_reference(folder: Path) -> None:
    """Write all generated pages; pages that have not changed keep their time stamps."""
    folder.mkdir(exist_ok=True)
    pages = {
        "api.rst": make_api_page(),
        "commands.md": make_command_page(),
        "http.md": make_http_page(),
    }
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


# --- public names ---


def make_api_page() -> str:
    """Return the list of all public names by package, in reStructuredText."""
    parts = ["Python reference\n================\n"]
    objects = [(name.rpartition("."), value) for name, value in list_public_objects()]
    for package, group in groupby(objects, key=lambda entry: entry[0][0]):
        summary = (__import__(package, fromlist=["_"]).__doc__ or "").partition("\n\n")[0]
        parts.append(f"{package}\n{'-' * len(package)}\n\n{' '.join(summary.split())}\n")
        parts.append(f".. currentmodule:: {package}\n\n.. autosummary::\n   :toctree: api\n")
        parts += [f"   {name}" for (_, _, name), _ in group]
        parts.append("")
    return "\n".join(parts)


# --- commands ---


def make_command_page() -> str:
    """Return the description of all commands and their options, in Markdown."""
    parts = [
        "# Command reference\n",
        "The [guide](../command-line.md) describes how to set options and read results.\n",
    ]
    for name, command in find_commands():
        parts += _describe_command(name, command.run.__doc__ or "", inspect.signature(command.run))
    return "\n".join(parts) + "\n"


def _describe_command(name: str, description: str, signature: inspect.Signature) -> Iterator[str]:
    infos = [
        parameter.annotation.__metadata__[0]
        for parameter in signature.parameters.values()
        if get_origin(parameter.annotation) is Annotated
    ]
    arguments = [info for info in infos if isinstance(info, ArgumentInfo)]
    # The options that all commands have come last.
    options = sorted(
        (info for info in infos if isinstance(info, OptionInfo)),
        key=lambda option: option.rich_help_panel is None,
    )
    yield f"## actgrid {name}\n"
    yield f"{description}\n"
    names = " ".join(argument.metavar or "" for argument in arguments)
    yield f"```text\nactgrid {' '.join([name, *names.split(), '[OPTIONS]'])}\n```\n"
    if arguments:
        yield "| argument | meaning |"
        yield "| --- | --- |"
    yield from (f"| `{argument.metavar}` | {_escape(argument.help)} |" for argument in arguments)
    for title, panel in groupby(options, key=lambda option: option.rich_help_panel):
        yield f"\n| {title or 'general options'} | meaning |"
        yield "| --- | --- |"
        for option in panel:
            # Typer keeps the first flag as the default of its definition.
            flags = ", ".join([*reversed(option.param_decls or ()), str(option.default)])
            yield f"| `{f'{flags} {option.metavar}'.strip()}` | {_escape(option.help)} |"
    yield ""


def _escape(text: str | None) -> str:
    """Return a text for a cell of a Markdown table."""
    return " ".join((text or "").split()).replace("|", "\\|").replace("*", "\\*")


# --- HTTP API ---


def make_http_page() -> str:
    """Return the description of all paths of the HTTP API, in Markdown."""
    description = asyncio.run(_request_description())
    parts = [
        "# HTTP reference\n",
        "`actgrid serve` responds to the following requests. `/api/openapi.json` is this"
        " description in the OpenAPI format. The [guide](../viewer.md#use-the-http-api) has"
        " examples.\n",
        f"{description['info']['description'].strip()}\n",
    ]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            if method != "head":
                parts += _describe_operation(f"{method.upper()} {path}", operation)
    return "\n".join(parts) + "\n"


async def _request_description() -> dict[str, Any]:
    # The routes do not use the viewer before a request reaches them.
    transport = httpx.ASGITransport(make_app(Mock()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/api/openapi.json")
    result: dict[str, Any] = response.raise_for_status().json()
    return result


def _describe_operation(title: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"## `{title}`\n"
    yield f"{operation.get('description', operation['summary'])}\n"
    parameters = operation.get("parameters", [])
    if parameters:
        yield "| parameter | in | values | default | meaning |"
        yield "| --- | --- | --- | --- | --- |"
    for parameter in parameters:
        schema = parameter["schema"]
        default = f"`{schema['default']}`" if "default" in schema else ""
        yield (
            f"| `{parameter['name']}` | {parameter['in']} | {_escape(_describe_schema(schema))} | "
            f"{default} | {_escape(parameter.get('description'))} |"
        )
    yield ""
    yield "| status | response |"
    yield "| --- | --- |"
    for status, response in operation["responses"].items():
        kinds = ", ".join(f"`{kind}`" for kind in response.get("content", {}))
        yield f"| {status} | {_escape(response['description'])} {kinds} |"
    yield ""


def _describe_schema(schema: Mapping[str, Any]) -> str:
    """Describe the values that a JSON schema allows in a few words."""
    if "anyOf" in schema:
        return " or ".join(map(_describe_schema, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    limits = [
        f"{words} {schema[name]}"
        for name, words in (("minimum", "from"), ("maximum", "to"))
        if name in schema
    ]
    return " ".join([schema.get("type", ""), *limits]).strip()
