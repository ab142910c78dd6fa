"""Tests that unknown, repeated and invalid parameters are rejected."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

Client = httpx.Client

# Text that error messages must not contain: regular expressions and messages of pydantic.
JARGON = re.compile(r"\^|\\d|\[0-9|\{1,|Input should|String should|pattern|pydantic|type_error")


@pytest.fixture(scope="module")
def openapi_paths(client: Client) -> dict[str, Any]:
    """Return the operations of the OpenAPI description by path and method."""
    paths: dict[str, Any] = client.get("/api/openapi.json").json()["paths"]
    return paths


@pytest.fixture(scope="module")
def valid_parameters(client: Client) -> dict[str, Any]:
    """Return path parameters of existing resources."""
    (image, *_) = client.get("/api/images.json").json()["images"]
    names = {"method": "saliency", "target": "predicted", "normalize": "minmax", "scope": "layer"}
    return {"image": image["id"], "layer": 1, "channel": 2, **names}


def read_refusal(response: httpx.Response) -> str:
    """Check that a response has status 422, and return its error message."""
    assert response.status_code == 422, response.text
    detail: str = response.json()["detail"]
    assert not JARGON.search(detail), detail
    return detail


def test_all_routes_reject_unknown_parameters(
    client: Client, openapi_paths: dict[str, Any], valid_parameters: dict[str, Any]
) -> None:
    request_count = 0
    for path, operations in [*openapi_paths.items(), ("/api/openapi.json", {"get": {}})]:
        for method, operation in operations.items():
            if method == "head":
                continue
            names = [
                parameter["name"]
                for parameter in operation.get("parameters", [])
                if parameter["in"] == "query"
            ]
            response = client.request(
                method, path.format(**valid_parameters), params={"bogus": "1"}
            )
            detail = read_refusal(response)
            assert detail.startswith("unknown parameter 'bogus'"), (path, detail)
            assert all(name in detail for name in names)
            head = client.head(path.format(**valid_parameters), params={"bogus": "1"})
            assert method != "get" or head.status_code == 422
            request_count += 1
    assert request_count == 31


def test_repeated_parameters_are_rejected(
    client: Client, openapi_paths: dict[str, Any], valid_parameters: dict[str, Any]
) -> None:
    parameter_count = 0
    for path, operations in openapi_paths.items():
        for method in operations.keys() & {"get", "post"}:
            for parameter in operations[method].get("parameters", []):
                if parameter["in"] == "query":
                    name = str(parameter["name"])
                    params = httpx.QueryParams([(name, "1"), (name, "1")])
                    response = client.request(
                        method, path.format(**valid_parameters), params=params
                    )
                    assert read_refusal(response) == f"{name} must be given once, not 2 times"
                    parameter_count += 1
    assert parameter_count == 23


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("layers/1.png?colormap=magma", "'colormap' (did you mean cmap"),
        ("layers/1.png?Zoom=2", "'Zoom' (did you mean zoom"),
        ("layers/1.png?column=2", "'column' (did you mean columns"),
        (
            "heatmaps/gradcam/0.json?layers=1",
            "'layers' (did you mean layer?); parameters are layer",
        ),
        ("picture.png?size=3", "unknown parameter 'size'; this resource has no parameters"),
    ],
)
def test_similar_parameter_names_are_suggested(
    client: Client, valid_parameters: dict[str, Any], path: str, message: str
) -> None:
    assert message in read_refusal(client.get(f"/api/images/{valid_parameters['image']}/{path}"))


INVALID_VALUES = [
    "",
    "x",
    "-1",
    "1.5",
    "1e3",
    "0x10",
    "9" * 30,
    "^$",
    "a" * 2000,
    "\u00e9",
    "None",
    " ",
]


def test_error_messages_contain_no_jargon(
    client: Client, openapi_paths: dict[str, Any], valid_parameters: dict[str, Any]
) -> None:
    refusals: dict[str, set[str]] = {}
    for path, operations in openapi_paths.items():
        for method in operations.keys() & {"get", "delete"}:
            for parameter in operations[method].get("parameters", []):
                name = parameter["name"]
                for value in INVALID_VALUES:
                    if parameter["in"] == "query":
                        response = client.request(
                            method, path.format(**valid_parameters), params={name: value}
                        )
                    elif value.strip(" .") and "/" not in value:
                        response = client.request(
                            method, path.format(**valid_parameters | {name: value})
                        )
                    else:
                        continue
                    assert response.status_code < 500
                    if response.status_code >= 400:
                        detail = response.json()["detail"]
                        assert not JARGON.search(detail.replace("'^$'", "")), detail
                        assert len(detail) < 1500
                        if response.status_code == 422:
                            refusals.setdefault(name, set()).add(detail)
    all_names = {
        *("background", "channel", "channels", "cmap", "columns", "image", "layer", "limit"),
        "method",
        *("normalize", "offset", "order", "padding", "scope", "seed", "steps", "target"),
        *("token_grid", "zoom"),
    }
    assert refusals.keys() == all_names
    assert "zoom must be an integer from 1 to 4096, not 'x'" in refusals["zoom"]
    assert "zoom must be at least 1, not -1" in refusals["zoom"]
    assert (
        "image must be the id of an image, 1 to 64 hexadecimal digits, not 'x'" in refusals["image"]
    )
    assert any(
        detail.startswith("token_grid must be HxW, such as 224x224")
        for detail in refusals["token_grid"]
    )
    assert "no class is called 'x'" in refusals["target"]
    assert (
        "target must have at most 200 characters, not '" + 80 * "a" + "...'" in refusals["target"]
    )
