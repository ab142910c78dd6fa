"""Definitions of the page's controls, derived from `actgrid.options`."""

from __future__ import annotations

from typing import Any

from actgrid.attribution.default_methods import DEFAULT_METHOD
from actgrid.option_groups import Option, get_options
from actgrid.option_types import Channels, Choice, Normalize
from actgrid.options import GridOptions, OverlayOptions, TargetOptions
from actgrid.rendering import ORDERS, RELEVANCE

__all__ = ["COLORMAPS", "describe_controls"]

# Colormaps that the page offers; the HTTP API accepts all colormaps.
COLORMAPS = (
    *("viridis", "gray", "magma", "inferno", "plasma", "cividis", "turbo"),
    *("RdBu_r", "coolwarm", "bone", "jet"),
)
# Options with a control in the layer panel and in the heatmap panel.
_LAYER = ("normalize", "scope", "order", "cmap", "columns")
_HEATMAP = ("method", "target", "layer", "alpha", "cmap")


def describe_controls(
    methods: list[str], has_relevance: bool
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the choices, defaults and help texts of the page's controls for JSON.

    Parameters
    ----------
    methods
        Names of the attribution methods that the page offers; empty for a model without classes.
    has_relevance
        Whether channels can be ordered by their relevance.

    Returns
    -------
    dict
        Panel ("layer" or "heatmap") -> option name -> description of the control.
    """
    grid, heatmap = get_options(GridOptions), get_options(TargetOptions, OverlayOptions)
    orders = [*ORDERS, *([RELEVANCE] if has_relevance else [])]
    choices = {"cmap": list(COLORMAPS), "method": methods, "order": orders}
    controls = {
        "layer": {name: _describe_control(grid[name], choices.get(name)) for name in _LAYER},
        "heatmap": {name: _describe_control(heatmap[name], choices.get(name)) for name in _HEATMAP},
    }
    controls["heatmap"]["method"]["default"] = DEFAULT_METHOD
    return controls


def _describe_control(option: Option, choices: list[str] | None) -> dict[str, Any]:
    words = (
        list(option.type.words) if isinstance(option.type, Choice | Channels | Normalize) else []
    )
    return {
        "choices": words if choices is None else choices,
        "choices_with_limits": list(option.type.limited)
        if isinstance(option.type, Normalize)
        else [],
        "default": option.default,
        "help": option.help,
        "empty_meaning": option.none,
    }
