"""Tests that functions, docstrings and pages agree with the option definitions."""

from __future__ import annotations

import inspect
import re
import typing
from typing import Annotated, Any, TypedDict

import keras
import numpy as np
import pytest
from tests.option_tables import (
    PAGE,
    get_own_options,
    list_definition_groups,
    list_public_functions,
    make_page,
)

import actgrid
from actgrid import options
from actgrid.attribution.methods import get_methods
from actgrid.errors import OptionError, UnknownOptionError
from actgrid.option_groups import (
    UNSET,
    Option,
    complete_options,
    get_options,
    takes_options,
)
from actgrid.option_types import Colormap, Integer
from actgrid.rendering import BACKENDS, ORDERS, RELEVANCE
from actgrid.rendering.tiles import KINDS

GROUPS = list_definition_groups()
FUNCTIONS = dict(list_public_functions())
TAKERS = {name: each for name, each in FUNCTIONS.items() if hasattr(each, "__options__")}


def list_named_options() -> list[tuple[str, str, Option]]:
    return [
        (group.__name__, name, option)
        for group in GROUPS
        for name, option in get_own_options(group).items()
    ]


@pytest.mark.parametrize(
    ("group", "name", "option"),
    [pytest.param(*each, id=f"{each[0]}-{each[1]}") for each in list_named_options()],
)
def test_every_definition_is_complete(group: str, name: str, option: Option) -> None:
    assert re.fullmatch("[a-z]+(_[a-z]+)*", name)
    assert option.help.endswith(".")
    assert "\n" not in option.help
    assert option.type.expected
    if option.default is None:
        assert option.none, "what None stands for must be told"
    elif option.default not in (UNSET, inspect.Parameter.empty):
        assert option.check(name, option.default) == option.default


def test_every_option_is_defined_once() -> None:
    found: dict[tuple[str, str], str] = {}
    for group, name, option in list_named_options():
        key = (name, option.help)
        assert key not in found, f"{name} is defined in {found[key]} and again in {group}"
        found[key] = group


# --- Python


@pytest.mark.parametrize("name", TAKERS)
def test_signatures_and_docstrings_match_definitions(name: str) -> None:
    function = TAKERS[name]
    parameters = inspect.signature(function).parameters
    documented = inspect.getdoc(function) or ""
    for key, option in get_options(function.__options__).items():
        assert parameters[key].kind is inspect.Parameter.KEYWORD_ONLY
        assert option.help in documented
    assert "**options" not in documented


# Function -> parameters that have the name of an option without its definition.
NAMESAKES = {
    # The method, target and layer are positional parameters.
    "actgrid.ablate_channels": {"target"},
    "actgrid.compare_methods": {"target"},
    "actgrid.evaluate": {"target"},
    "actgrid.explain": {"method", "target"},
    "actgrid.find_concepts": {"target"},
    "actgrid.measure_channel_relevance": {"target"},
    "actgrid.measure_concept_sensitivity": {"target"},
    "actgrid.patch_activations": {"target"},
    "actgrid.callbacks.Explanations": {"method", "target"},
    "actgrid.callbacks.ModelDrift": {"reference"},  # a model
    "actgrid.callbacks.TrainingMovie": {"folder"},  # a required parameter
    "actgrid.figures.save_layers": {"folder"},
    "actgrid.figures.save_weights": {"folder"},
    "actgrid.figures.make_unique_names": {"names"},
    "actgrid.maximize": {"channels", "progress"},  # accept a class name, and a function
    "actgrid.runs.Run": {"top"},  # None: no statistics
    "actgrid.runs.explain_images": {"labels", "batch_size", "embedding", "target", "tokens"},
    "actgrid.statistics.find_top_images": {"background", "batch_size", "channels"},
    "Heatmap.contours": {"width"},
}


def test_functions_have_no_options_without_definition() -> None:
    used = {key for function in TAKERS.values() for key in get_options(function.__options__)}
    found: dict[str, set[str]] = {}
    for name, function in FUNCTIONS.items():
        group = getattr(function, "__options__", None)
        if inspect.isclass(function) and group is None:
            continue  # attributes of a result have the names of options
        parameters = set(inspect.signature(function).parameters)
        if own := parameters & used - set(get_options(group) if group else ()):
            found[name] = own
    assert found == NAMESAKES


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("actgrid.explain", options.TargetOptions),
        ("actgrid.callbacks.Explanations", options.TargetOptions),
        ("actgrid.runs.RayEngine", options.RayOptions),
    ],
)
def test_parameters_before_the_options_have_the_defaults_of_the_definitions(
    name: str, group: type
) -> None:
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    for key, option in get_options(group).items():
        assert parameters[key].default == option.default


@pytest.mark.parametrize("method", get_methods().values(), ids=lambda method: method.name)
def test_the_options_of_methods_are_defined(method: Any) -> None:
    known = get_options(options.MethodOptions)
    for name, default in method.options.items():
        assert known[name].check(name, default) == default


def test_words_of_options_match_implementation() -> None:
    def get_words(group: type, name: str) -> tuple[str, ...]:
        return get_options(group)[name].type.words

    assert get_words(options.GridOptions, "order") == (*ORDERS, RELEVANCE)
    assert get_words(options.BackendOptions, "backend") == ("auto", *BACKENDS)
    assert get_words(options.DeviceBackendOptions, "backend") == ("auto", *BACKENDS, "tensorflow")
    assert get_words(options.ArrayOptions, "kind") == tuple(KINDS)


def test_mypy_knows_option_names_and_types() -> None:
    for group in GROUPS:
        assert typing.is_typeddict(group)
        hints = typing.get_type_hints(group)
        assert set(hints) == set(get_options(group))


def test_annotations_of_functions_can_be_resolved() -> None:
    hints = typing.get_type_hints(actgrid.render)
    assert hints["zoom"] is int
    assert hints["return"] is actgrid.Grid


def test_defaults_of_signatures_are_accepted() -> None:
    x = np.zeros((1, 4, 4, 3), np.float32)
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    steps = inspect.signature(actgrid.explain).parameters["steps"].default
    heatmap = actgrid.explain(model, x, "saliency", steps=steps)
    np.testing.assert_array_equal(heatmap.values, actgrid.explain(model, x, "saliency").values)


def test_unknown_options_list_close_matches() -> None:
    with pytest.raises(UnknownOptionError, match=r"'normalise' \(did you mean normalize\?\)") as no:
        actgrid.render([[[1.0]]], normalise="minmax")  # type: ignore[call-arg]
    assert isinstance(no.value, TypeError)
    assert isinstance(no.value, ValueError)


# --- new definitions


class TintOptions(TypedDict, total=False):
    """Options for tinting pictures."""

    tint: Annotated[str, Option(Colormap(), "gray", "Colormap that tints the picture.")]
    strength: Annotated[int, Option(Integer(0, 9), 3, "Strength of the tint.")]


class TintedOptions(options.RenderArrayOptions, TintOptions, total=False):
    """Options of another group, and a new one."""


@takes_options(TintedOptions, strength=5)
def tint(picture: str, **given: Any) -> dict[str, Any]:
    """Tint a picture.

    Parameters
    ----------
    picture
        The picture.
    **options
        See `TintedOptions`.

    Returns
    -------
    dict
        All options.
    """
    return {"picture": picture, **given}


def test_new_definition_reaches_signature_and_docstring() -> None:
    found = tint("cat", tint="magma", zoom=2)
    assert (found["tint"], found["strength"], found["zoom"], found["padding"]) == ("magma", 5, 2, 1)
    assert inspect.signature(tint).parameters["strength"].default == 5
    documented = inspect.getdoc(tint) or ""
    assert "tint : the name of a colormap, default 'gray'\n    Colormap that tints" in documented
    assert "strength : int from 0 to 9, default 5\n" in documented
    assert "Returns\n-------\ndict\n" in documented
    with pytest.raises(OptionError, match="no colormap is called 'mgma'"):
        tint("cat", tint="mgma")
    with pytest.raises(OptionError, match="strength must be at most 9, not 10"):
        tint("cat", strength=10)


def test_options_without_default_are_omitted() -> None:
    assert complete_options(options.MethodOptions, {"steps": 9}) == {"steps": 9}


# --- the documentation


def test_options_page_matches_definitions() -> None:
    assert PAGE.read_text() == make_page(), "run python tests/option_tables.py"
