"""The controls of the page, which are options as `actgrid.options` defines them."""

from __future__ import annotations

from typing import Any

from actgrid.option_groups import Option, get_options
from actgrid.option_types import Channels, Choice, Normalize
from actgrid.options import GridOptions, OverlayOptions, TargetOptions

__all__ = ["COLORMAPS", "page_controls"]

# The colormaps that the page offers; the API draws with any.
COLORMAPS = (
    *("viridis", "gray", "magma", "inferno", "plasma", "cividis", "turbo"),
    *("RdBu_r", "coolwarm", "bone", "jet"),
)
# The controls of a layer, and those of a heatmap.
_LAYER = ("normalize", "scope", "order", "cmap", "columns")
_HEATMAP = ("method", "target", "layer", "alpha", "cmap")


def page_controls(methods: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the controls of the views of the page, each with its words, default and help.

    Parameters
    ----------
    methods
        Names of the attribution methods that can be chosen.
    """
    grid, heatmap = get_options(GridOptions), get_options(TargetOptions, OverlayOptions)
    offered = {"cmap": list(COLORMAPS), "method": methods}
    return {
        "layer": {name: _control(grid[name], offered.get(name)) for name in _LAYER},
        "heatmap": {name: _control(heatmap[name], offered.get(name)) for name in _HEATMAP},
    }


def _control(option: Option, offered: list[str] | None) -> dict[str, Any]:
    words = (
        list(option.type.words) if isinstance(option.type, Choice | Channels | Normalize) else []
    )
    return {
        "words": words if offered is None else offered,
        "limited": list(option.type.limited) if isinstance(option.type, Normalize) else [],
        "default": option.default,
        "help": option.help,
        "none": option.none,
    }
