"""Parameters that no route has, repeated ones, and values that cannot be used."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

Client = httpx.Client

# What a user must not have to read: regular expressions, and the words of pydantic.
JARGON = re.compile(r"\^|\\d|\[0-9|\{1,|Input should|String should|pattern|pydantic|type_error")


@pytest.fixture(scope="module")
def described(client: Client) -> dict[str, Any]:
    """The operations of the API's description, by path and method."""
    paths: dict[str, Any] = client.get("/api/openapi.json").json()["paths"]
    return paths


@pytest.fixture(scope="module")
def known(client: Client) -> dict[str, Any]:
    """Path parameters of something that there is."""
    (image, *_) = client.get("/api/images.json").json()["images"]
    names = {"method": "saliency", "target": "predicted", "normalize": "minmax", "scope": "layer"}
    return {"image": image["id"], "layer": 1, "channel": 2, **names}


def refused(response: httpx.Response) -> str:
    assert response.status_code == 422, response.text
    detail: str = response.json()["detail"]
    assert not JARGON.search(detail), detail
    return detail


def test_every_route_refuses_unknown_parameters(
    client: Client, described: dict[str, Any], known: dict[str, Any]
) -> None:
    requests = 0
    for path, operations in [*described.items(), ("/api/openapi.json", {"get": {}})]:
        for method, operation in operations.items():
            if method == "head":
                continue
            names = [
                parameter["name"]
                for parameter in operation.get("parameters", [])
                if parameter["in"] == "query"
            ]
            response = client.request(method, path.format(**known), params={"bogus": "1"})
            detail = refused(response)
            assert detail.startswith("unknown parameter 'bogus'"), (path, detail)
            assert all(name in detail for name in names)
            head = client.head(path.format(**known), params={"bogus": "1"})
            assert method != "get" or head.status_code == 422
            requests += 1
    assert requests == 22


def test_every_parameter_may_be_given_once(
    client: Client, described: dict[str, Any], known: dict[str, Any]
) -> None:
    repeated = 0
    for path, operations in described.items():
        for method in operations.keys() & {"get", "post"}:
            for parameter in operations[method].get("parameters", []):
                if parameter["in"] == "query":
                    name = str(parameter["name"])
                    params = httpx.QueryParams([(name, "1"), (name, "1")])
                    response = client.request(method, path.format(**known), params=params)
                    assert refused(response) == f"{name} must be given once, not 2 times"
                    repeated += 1
    assert repeated == 19


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("layers/1.png?colormap=magma", "'colormap' (did you mean cmap"),
        ("layers/1.png?Zoom=2", "'Zoom' (did you mean zoom"),
        ("layers/1.png?column=2", "'column' (did you mean columns"),
        (
            "heatmaps/gradcam/0.json?layers=1",
            "'layers' (did you mean layer?); parameters are layer",
        ),
        ("picture.png?size=3", "unknown parameter 'size'; there are no parameters"),
    ],
)
def test_close_parameters_are_named(
    client: Client, known: dict[str, Any], path: str, words: str
) -> None:
    assert words in refused(client.get(f"/api/images/{known['image']}/{path}"))


BAD = ["", "x", "-1", "1.5", "1e3", "0x10", "9" * 30, "^$", "a" * 2000, "\u00e9", "None", " "]


def test_no_value_of_a_parameter_is_answered_in_jargon(
    client: Client, described: dict[str, Any], known: dict[str, Any]
) -> None:
    refusals: dict[str, set[str]] = {}
    for path, operations in described.items():
        for method in operations.keys() & {"get", "delete"}:
            for parameter in operations[method].get("parameters", []):
                name = parameter["name"]
                for value in BAD:
                    if parameter["in"] == "query":
                        response = client.request(
                            method, path.format(**known), params={name: value}
                        )
                    elif value.strip(" .") and "/" not in value:
                        response = client.request(method, path.format(**known | {name: value}))
                    else:
                        continue
                    assert response.status_code < 500
                    if response.status_code >= 400:
                        detail = response.json()["detail"]
                        assert not JARGON.search(detail.replace("'^$'", "")), detail
                        assert len(detail) < 1500
                        if response.status_code == 422:
                            refusals.setdefault(name, set()).add(detail)
    every = {
        *("background", "channel", "cmap", "columns", "image", "layer", "limit", "method"),
        *("normalize", "offset", "order", "padding", "scope", "seed", "steps", "target"),
        *("token_grid", "zoom"),
    }
    assert refusals.keys() == every
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
