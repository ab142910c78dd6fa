"""The HTTP API, the page and the functions of the viewer take options as defined."""

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
    ServeOptions,
    TargetOptions,
    ViewOptions,
)
from actgrid.web.app import refuse
from actgrid.web.controls import COLORMAPS
from actgrid.web.parameters import check_query, takes_query

Client = httpx.Client
Ask = Callable[..., httpx.Response]

GRID, MAXIMIZE = get_options(GridOptions), get_options(MaximizeOptions)
LAYER = "/api/images/{image}/layers/{layer}"
MAXIMIZED = "/api/layers/{layer}/channels/{channel}/maximized"


@pytest.fixture(scope="module")
def described(client: Client) -> dict[str, Any]:
    """The operations of the API's description, by path and method."""
    paths: dict[str, Any] = client.get("/api/openapi.json").json()["paths"]
    return paths


def parameters(described: dict[str, Any], path: str, place: str) -> dict[str, Any]:
    found = described[path]["get"].get("parameters", [])
    return {each["name"]: each for each in found if each["in"] == place}


# --- the HTTP API


@pytest.mark.parametrize(
    ("path", "options"),
    [
        (f"{LAYER}.png", GRID),
        (f"{MAXIMIZED}.png", {name: MAXIMIZE[name] for name in ("steps", "seed")}),
        (f"{MAXIMIZED}/progress.json", {name: MAXIMIZE[name] for name in ("steps", "seed")}),
    ],
)
def test_query_parameters_are_the_definitions(
    described: dict[str, Any], path: str, options: dict[str, Option]
) -> None:
    found = parameters(described, path, "query")
    assert list(found) == list(options)
    for name, option in options.items():
        schema = dict(found[name]["schema"])
        assert found[name]["description"].startswith(option.help)
        assert option.none in found[name]["description"]
        assert schema.pop("default", None) == option.default
        schema.pop("title", None)
        assert schema == option.type.schema()
        assert not found[name]["required"]


def test_path_parameters_are_the_definitions(described: dict[str, Any]) -> None:
    found = parameters(described, LAYER + "/{normalize}/{scope}.png", "path")
    for name in ("normalize", "scope"):
        assert found[name]["description"] == GRID[name].help
        assert found[name]["schema"].items() >= GRID[name].type.schema().items()
    targets = get_options(TargetOptions)
    place = "/api/images/{image}/heatmaps/{method}/{target}.json"
    for where, name in (("path", "method"), ("path", "target"), ("query", "layer")):
        text = parameters(described, place, where)[name]["description"]
        assert text.startswith(targets[name].help)
        assert targets[name].none in text


@pytest.mark.parametrize("option", ["zoom", "padding", "columns"])
def test_the_size_of_the_picture_is_the_limit(client: Client, option: str) -> None:
    (image, *_) = client.get("/api/images.json").json()["images"]
    place = f"/api/images/{image['id']}/layers/1.png"
    assert client.get(place, params={option: 40}).status_code == 200
    answer = client.get(place, params={option: 10**18 if option == "columns" else 1000})
    if option == "columns":  # no more than there are tiles
        assert answer.content == client.get(place, params={"columns": 6}).content
    elif option == "zoom":
        assert answer.status_code == 422
        assert "at most 67108864 are drawn here" in answer.json()["detail"]
    else:
        assert answer.status_code == 200


def test_steps_are_limited_as_in_python(client: Client) -> None:
    place = "/api/layers/1/channels/0/maximized/progress.json"
    assert client.get(place, params={"steps": 4096}).status_code == 200
    answer = client.get(place, params={"steps": 4097})
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "steps must be at most 4,096, not 4097",
    )
    with pytest.raises(ActgridError, match="steps must be at most 4,096, not 4097"):
        MAXIMIZE["steps"].check("steps", 4097)


def test_channels_are_listed_as_on_the_command_line(client: Client) -> None:
    (image, *_) = client.get("/api/images.json").json()["images"]
    place = f"/api/images/{image['id']}/layers/1.png"
    by_hand, ranged = (
        client.get(place, params={"order": order, "columns": 4}) for order in ("3,0,1,2", "3,0-2")
    )
    assert by_hand.content == ranged.content
    assert by_hand.content != client.get(place, params={"columns": 4}).content
    many = client.get(place, params={"order": ",".join(["0-999999"] * 20)})
    assert (many.status_code, many.json()["detail"]) == (
        422,
        "order must be at most 1,048,576 channels",
    )


class ExtraOptions(TypedDict, total=False):
    """How bright it is."""

    gamma_value: Annotated[float, Option(Number(0, 9), 2.2, "Exponent of the levels.")]


def test_a_definition_is_all_that_a_parameter_takes(ask: Ask) -> None:
    app = FastAPI(dependencies=[Depends(check_query)])
    app.add_exception_handler(ActgridError, refuse)

    @app.get("/levels")
    @takes_query(ExtraOptions)
    async def levels(options: Any) -> Any:
        return options

    assert ask(app, "/levels").json() == {"gamma_value": 2.2}
    assert ask(app, "/levels?gamma_value=3").json() == {"gamma_value": 3.0}
    answer = ask(app, "/levels?gamma_value=10")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("gamma_value must be a number from 0 to 9, not 10")
    (parameter,) = app.openapi()["paths"]["/levels"]["get"]["parameters"]
    assert parameter["description"] == "Exponent of the levels."
    assert parameter["schema"]["default"] == 2.2


# --- the functions


@pytest.mark.parametrize(
    ("function", "group", "own"),
    [
        (actgrid.serve, ServeOptions, ["model", "images", "ready"]),
        (actgrid.view, ViewOptions, ["model", "images"]),
        (actgrid.export_site, ExportOptions, ["model", "images", "layers", "output"]),
    ],
)
def test_functions_take_the_definitions(
    function: Callable[..., Any], group: type, own: list[str]
) -> None:
    found = inspect.signature(function).parameters
    options = get_options(group)
    assert list(found) == [*own, *options]
    assert {name: found[name].default for name in options} == {
        name: option.default for name, option in options.items()
    }
    assert function.__doc__ is not None
    documented = " ".join(function.__doc__.split())
    assert all(option.help in documented for option in options.values())


# --- the page


@pytest.fixture(scope="module")
def page(browser: Any, view: actgrid.web.View) -> Iterator[Page]:
    page = browser.new_context().new_page()
    page.goto(view.url)
    page.locator("#layer canvas[data-shown]").first.wait_for()
    yield page
    page.context.close()


def field(page: Page, panel: str, label: str) -> Any:
    return page.locator(f"#{panel} label.field").filter(has=page.get_by_label(label, exact=True))


LAYER_CONTROLS = {
    "normalize": "Normalise",
    "scope": "Scaled by",
    "order": "Order by",
    "cmap": "Colours",
    "columns": "Columns",
}
HEATMAP_CONTROLS = {
    "method": "Method",
    "target": "Class",
    "layer": "Layer",
    "cmap": "Colours",
    "alpha": "Map over image",
}


@pytest.mark.parametrize("name", LAYER_CONTROLS)
def test_controls_of_a_layer_are_the_definitions(page: Page, name: str) -> None:
    option = GRID[name]
    label = field(page, "layer", LAYER_CONTROLS[name])
    none = f" Empty: {option.none}." if option.none else ""
    assert label.get_attribute("title") == option.help + none
    control = label.locator("select, input").first
    if name == "columns":
        assert control.input_value() == ""
        return
    words = label.locator("option").all_text_contents()
    known = {"cmap": list(COLORMAPS), "normalize": [*NORMALIZATIONS, "percentile", "range"]}
    assert words == known.get(name, list(option.type.words))
    assert control.input_value() == option.default
    assert page.evaluate("actgrid.state")[name] == option.default


NORMALIZATIONS = ["standard", "minmax", "symmetric"]


@pytest.mark.parametrize("name", HEATMAP_CONTROLS)
def test_controls_of_a_heatmap_are_the_definitions(page: Page, client: Client, name: str) -> None:
    option = get_options(TargetOptions, OverlayOptions)[name]
    page.get_by_role("tab", name="Heatmap").click()
    label = field(page, "heatmap", HEATMAP_CONTROLS[name])
    none = f" Empty: {option.none}." if option.none else ""
    assert label.get_attribute("title") == option.help + none
    control = label.locator("select, input").first
    if name == "method":
        methods = [each["name"] for each in client.get("/api/model.json").json()["methods"]]
        assert label.locator("option").all_text_contents() == methods
    if option.default is None:
        assert control.input_value() == ""
    else:
        shown = control.input_value()
        assert (float(shown) if name == "alpha" else shown) == option.default


def test_the_page_names_no_word_of_an_option() -> None:
    """Words that the page offers come from the model's description."""
    folder = Path(actgrid.web.__file__).parent / "page"
    words = {"standard", "minmax", "symmetric", "viridis", "magma", "gradcam", "saliency"}
    found = {
        (file.name, word)
        for file in folder.glob("*.js")
        for word in words
        if f'"{word}"' in file.read_text()
    }
    assert found == set()
