"""Tests that the HTTP API, the page and the functions use the option definitions."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import httpx
import pytest
from fastapi import Depends, FastAPI
from playwright.sync_api import Page

import actgrid
from actgrid.errors import ActgridError
from actgrid.option_groups import Option, get_options
from actgrid.option_types import Number
from actgrid.options import (
    ExportOptions,
    GridOptions,
    MaximizeOptions,
    OverlayOptions,
    RelevanceOptions,
    ServeOptions,
    TargetOptions,
    ViewOptions,
)
from actgrid.web.app import respond_to_error
from actgrid.web.controls import COLORMAPS
from actgrid.web.parameters import check_query, takes_query

Client = httpx.Client
SendRequest = Callable[..., httpx.Response]

GRID, MAXIMIZE = get_options(GridOptions), get_options(MaximizeOptions)
LAYER = "/api/images/{image}/layers/{layer}"
MAXIMIZED = "/api/layers/{layer}/channels/{channel}/maximized"


@pytest.fixture(scope="module")
def openapi_paths(client: Client) -> dict[str, Any]:
    """Return the operations of the OpenAPI description by path and method."""
    paths: dict[str, Any] = client.get("/api/openapi.json").json()["paths"]
    return paths


def get_parameters(openapi_paths: dict[str, Any], path: str, location: str) -> dict[str, Any]:
    parameters = openapi_paths[path]["get"].get("parameters", [])
    return {parameter["name"]: parameter for parameter in parameters if parameter["in"] == location}


# --- the HTTP API


@pytest.mark.parametrize(
    ("path", "options"),
    [
        (f"{LAYER}.png", {**GRID, "target": get_options(RelevanceOptions)["target"]}),
        (f"{MAXIMIZED}.png", {name: MAXIMIZE[name] for name in ("steps", "seed")}),
        (f"{MAXIMIZED}/progress.json", {name: MAXIMIZE[name] for name in ("steps", "seed")}),
    ],
)
def test_query_parameters_match_option_definitions(
    openapi_paths: dict[str, Any], path: str, options: dict[str, Option]
) -> None:
    parameters = get_parameters(openapi_paths, path, "query")
    assert list(parameters) == list(options)
    for name, option in options.items():
        schema = dict(parameters[name]["schema"])
        assert parameters[name]["description"].startswith(option.help)
        assert option.none in parameters[name]["description"]
        assert schema.pop("default", None) == option.default
        schema.pop("title", None)
        assert schema == option.type.schema()
        assert not parameters[name]["required"]


def test_path_parameters_match_option_definitions(openapi_paths: dict[str, Any]) -> None:
    parameters = get_parameters(openapi_paths, LAYER + "/{normalize}/{scope}.png", "path")
    for name in ("normalize", "scope"):
        assert parameters[name]["description"] == GRID[name].help
        assert parameters[name]["schema"].items() >= GRID[name].type.schema().items()
    targets = get_options(TargetOptions)
    path = "/api/images/{image}/heatmaps/{method}/{target}.json"
    for location, name in (("path", "method"), ("path", "target"), ("query", "layer")):
        text = get_parameters(openapi_paths, path, location)[name]["description"]
        assert text.startswith(targets[name].help)
        if name != "method":  # always part of the path
            assert targets[name].none in text


@pytest.mark.parametrize("option", ["zoom", "padding", "columns"])
def test_picture_size_is_limited(client: Client, option: str) -> None:
    (image, *_) = client.get("/api/images.json").json()["images"]
    url = f"/api/images/{image['id']}/layers/1.png"
    assert client.get(url, params={option: 40}).status_code == 200
    response = client.get(url, params={option: 10**18 if option == "columns" else 1000})
    if option == "columns":  # limited to the number of tiles
        assert response.content == client.get(url, params={"columns": 6}).content
    elif option == "zoom":
        assert response.status_code == 422
        assert "the limit is 67108864" in response.json()["detail"]
    else:
        assert response.status_code == 200


def test_steps_have_the_same_limit_as_in_python(client: Client) -> None:
    url = "/api/layers/1/channels/0/maximized/progress.json"
    assert client.get(url, params={"steps": 4096}).status_code == 200
    response = client.get(url, params={"steps": 4097})
    assert (response.status_code, response.json()["detail"]) == (
        422,
        "steps must be at most 4,096, not 4097",
    )
    with pytest.raises(ActgridError, match="steps must be at most 4,096, not 4097"):
        MAXIMIZE["steps"].check("steps", 4097)


def test_order_accepts_channel_lists_of_the_command_line(client: Client) -> None:
    (image, *_) = client.get("/api/images.json").json()["images"]
    url = f"/api/images/{image['id']}/layers/1.png"
    listed, ranged = (
        client.get(url, params={"order": order, "columns": 4}) for order in ("3,0,1,2", "3,0-2")
    )
    assert listed.content == ranged.content
    assert listed.content != client.get(url, params={"columns": 4}).content
    too_many = client.get(url, params={"order": ",".join(["0-999999"] * 20)})
    assert (too_many.status_code, too_many.json()["detail"]) == (
        422,
        "order must be at most 1,048,576 channels",
    )


class ExtraOptions(TypedDict, total=False):
    """Options for the brightness."""

    gamma_value: Annotated[float, Option(Number(0, 9), 2.2, "Exponent of the levels.")]


def test_new_option_becomes_query_parameter(send_request: SendRequest) -> None:
    app = FastAPI(dependencies=[Depends(check_query)])
    app.add_exception_handler(ActgridError, respond_to_error)

    @app.get("/levels")
    @takes_query(ExtraOptions)
    async def levels(options: Any) -> Any:
        return options

    assert send_request(app, "/levels").json() == {"gamma_value": 2.2}
    assert send_request(app, "/levels?gamma_value=3").json() == {"gamma_value": 3.0}
    response = send_request(app, "/levels?gamma_value=10")
    assert response.status_code == 422
    assert response.json()["detail"].startswith("gamma_value must be a number from 0 to 9, not 10")
    (parameter,) = app.openapi()["paths"]["/levels"]["get"]["parameters"]
    assert parameter["description"] == "Exponent of the levels."
    assert parameter["schema"]["default"] == 2.2


# --- the functions


@pytest.mark.parametrize(
    ("function", "group", "own_parameters"),
    [
        (actgrid.serve, ServeOptions, ["model", "images", "ready"]),
        (actgrid.view, ViewOptions, ["model", "images"]),
        (actgrid.export_site, ExportOptions, ["model", "images", "layers", "output"]),
    ],
)
def test_functions_take_all_options_of_their_group(
    function: Callable[..., Any], group: type, own_parameters: list[str]
) -> None:
    parameters = inspect.signature(function).parameters
    options = get_options(group)
    assert list(parameters) == [*own_parameters, *options]
    assert {name: parameters[name].default for name in options} == {
        name: option.default for name, option in options.items()
    }
    assert function.__doc__ is not None
    documentation = " ".join(function.__doc__.split())
    assert all(option.help in documentation for option in options.values())


# --- the page


@pytest.fixture(scope="module")
def page(browser: Any, view: actgrid.web.View) -> Iterator[Page]:
    page = browser.new_context().new_page()
    page.goto(view.url)
    page.locator("#layer canvas[data-shown]").first.wait_for()
    yield page
    page.context.close()


def find_field(page: Page, panel: str, label: str) -> Any:
    return page.locator(f"#{panel} label.field").filter(has=page.get_by_label(label, exact=True))


LAYER_CONTROLS = {
    "normalize": "Normalization",
    "scope": "Scope",
    "order": "Order",
    "cmap": "Colormap",
    "columns": "Columns",
}
HEATMAP_CONTROLS = {
    "method": "Method",
    "target": "Target",
    "layer": "Layer",
    "cmap": "Colormap",
    "alpha": "Alpha",
}


@pytest.mark.parametrize("name", LAYER_CONTROLS)
def test_layer_controls_match_option_definitions(page: Page, name: str) -> None:
    option = GRID[name]
    label = find_field(page, "layer", LAYER_CONTROLS[name])
    none = f" Empty: {option.none}." if option.none else ""
    assert label.get_attribute("title") == option.help + none
    control = label.locator("select, input").first
    if name == "columns":
        assert control.input_value() == ""
        return
    choices = label.locator("option").all_text_contents()
    expected = {"cmap": list(COLORMAPS), "normalize": [*NORMALIZATIONS, "percentile", "range"]}
    assert choices == expected.get(name, list(option.type.words))
    assert control.input_value() == option.default
    assert page.evaluate("actgrid.state")[name] == option.default


NORMALIZATIONS = ["standard", "minmax", "symmetric"]


@pytest.mark.parametrize("name", HEATMAP_CONTROLS)
def test_heatmap_controls_match_option_definitions(page: Page, client: Client, name: str) -> None:
    option = get_options(TargetOptions, OverlayOptions)[name]
    page.get_by_role("tab", name="Heatmap").click()
    label = find_field(page, "heatmap", HEATMAP_CONTROLS[name])
    none = f" Empty: {option.none}." if option.none else ""
    assert label.get_attribute("title") == option.help + none
    control = label.locator("select, input").first
    if name == "method":
        methods = [method["name"] for method in client.get("/api/model.json").json()["methods"]]
        assert label.locator("option").all_text_contents() == methods
    if name == "method":
        assert control.input_value() == "gradcam"
    elif option.default is None:
        assert control.input_value() == ""
    else:
        text = control.input_value()
        assert (float(text) if name == "alpha" else text) == option.default


def test_page_scripts_contain_no_option_values() -> None:
    """Check that the choices of the page's controls come from model.json."""
    folder = Path(actgrid.web.__file__).parent / "page"
    values = {"standard", "minmax", "symmetric", "viridis", "magma", "gradcam", "saliency"}
    matches = {
        (file.name, value)
        for file in folder.glob("*.js")
        for value in values
        if f'"{value}"' in file.read_text()
    }
    assert matches == set()
