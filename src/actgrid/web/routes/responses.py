"""Responses and path parameters that several routes of the HTTP API share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from fastapi import Path, Response

from actgrid.option_groups import get_options
from actgrid.options import TargetOptions
from actgrid.web.parameters import IMAGE_ID

__all__ = [
    "BINARY",
    "BYTES",
    "PNG",
    "Channel",
    "Image",
    "Layer",
    "Target",
    "describe_picture",
    "json_response",
    "parse_index",
    "parse_target",
]

PNG = "image/png"
BYTES = "application/octet-stream"
_TARGET = get_options(TargetOptions)["target"]
BINARY = {"type": "string", "format": "binary"}

Image = Annotated[
    str, Path(pattern=IMAGE_ID, description="Id of an image.", examples=["0f3c5a9b12d4"])
]
Layer = Annotated[int, Path(ge=0, le=1_000_000, description="Index in `nodes` of the model.")]
Channel = Annotated[int, Path(ge=0, le=100_000_000, description="Index of a channel.")]
Target = Annotated[
    str,
    Path(
        min_length=1,
        max_length=200,
        description=f"{_TARGET.help} `predicted`: {_TARGET.none}.",
        examples=["predicted"],
    ),
]


def parse_target(text: str) -> int | str | None:
    """Convert the text of a target to the index or name of a class; None: the predicted class."""
    return None if text == "predicted" else parse_index(text)


def parse_index(text: str) -> int | str:
    """Convert a text of one to nine digits to an integer; keep other texts unchanged."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else text


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a value as a JSON response, without the validation of FastAPI."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type="application/json")


def describe_picture(description: str, media_type: str = PNG) -> dict[str, Any]:
    """Return keyword arguments of a route decorator that declare a picture or other file."""
    content = {media_type: {"schema": BINARY}}
    return {
        "response_class": Response,
        "responses": {200: {"description": description, "content": content}},
    }
