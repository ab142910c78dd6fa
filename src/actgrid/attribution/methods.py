"""The methods by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from actgrid.attribution import class_maps, input_gradients, perturbation
from actgrid.attribution.lime import lime
from actgrid.attribution.subjects import Found
from actgrid.errors import OptionError, suggest

__all__ = ["METHODS", "Method", "check_options", "find_method"]


@dataclass(frozen=True)
class Method:
    """A way to tell what part of an image makes the score.

    Attributes
    ----------
    run
        From a `Subject`, the layer if it takes one, and options, to what was found.
    source
        The paper.
    """

    name: str
    run: Callable[..., Found]
    source: str

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (inspect.getdoc(self.run) or "").splitlines()[0]

    @property
    def takes_layer(self) -> bool:
        """Whether it looks at a layer, not at the input alone."""
        return "layer" in inspect.signature(self.run).parameters

    @property
    def options(self) -> dict[str, Any]:
        """Its options with their defaults."""
        parameters = inspect.signature(self.run).parameters.values()
        return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def _arxiv(number: str) -> str:
    return f"https://arxiv.org/abs/{number}"


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("saliency", input_gradients.saliency, f"Simonyan 2013, {_arxiv('1312.6034')}"),
        Method(
            "gradient_x_input",
            input_gradients.gradient_x_input,
            f"Shrikumar 2016, {_arxiv('1605.01713')}",
        ),
        Method(
            "integrated_gradients",
            input_gradients.integrated_gradients,
            f"Sundararajan 2017, {_arxiv('1703.01365')}",
        ),
        Method("smoothgrad", input_gradients.smoothgrad, f"Smilkov 2017, {_arxiv('1706.03825')}"),
        Method(
            "guided_backprop",
            input_gradients.guided_backprop,
            f"Springenberg 2014, {_arxiv('1412.6806')}",
        ),
        Method("cam", class_maps.cam, f"Zhou 2015, {_arxiv('1512.04150')}"),
        Method("gradcam", class_maps.gradcam, f"Selvaraju 2016, {_arxiv('1610.02391')}"),
        Method(
            "gradcam++",
            class_maps.gradcam_plus_plus,
            f"Chattopadhyay 2017, {_arxiv('1710.11063')}",
        ),
        Method("scorecam", class_maps.scorecam, f"Wang 2019, {_arxiv('1910.01279')}"),
        Method(
            "layercam", class_maps.layercam, "Jiang 2021, https://doi.org/10.1109/TIP.2021.3089943"
        ),
        Method(
            "guided_gradcam", class_maps.guided_gradcam, f"Selvaraju 2016, {_arxiv('1610.02391')}"
        ),
        Method("occlusion", perturbation.occlusion, f"Zeiler 2013, {_arxiv('1311.2901')}"),
        Method("rise", perturbation.rise, f"Petsiuk 2018, {_arxiv('1806.07421')}"),
        Method("lime", lime, f"Ribeiro 2016, {_arxiv('1602.04938')}"),
    )
}


def find_method(name: object) -> Method:
    """Return a method by its name.

    Raises
    ------
    OptionError
        If there is none of that name.
    """
    if not isinstance(name, str) or name not in METHODS:
        hint = suggest(name, METHODS) if isinstance(name, str) else ""
        raise OptionError(f"method must be one of {', '.join(METHODS)}, not {name!r}{hint}")
    return METHODS[name]


def check_options(methods: Sequence[Method], layer: Any, options: Iterable[str]) -> None:
    """Raise OptionError unless some of the methods take a layer, if there is one, and each option.

    Parameters
    ----------
    options
        Their names.
    """
    names = ", ".join(method.name for method in methods)
    if layer is not None and not any(method.takes_layer for method in methods):
        raise OptionError(f"{names}: the input is looked at, not a layer: leave layer out")
    known = list(dict.fromkeys(option for method in methods for option in method.options))
    for option in options:
        if option not in known:
            raise OptionError(
                f"{names}: there is no option {option!r}{suggest(option, known)}; "
                f"options are {', '.join(known) or 'none'}"
            )
