"""Words that shells complete, of options whose types do not list them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

__all__ = ["WORDS"]


def _method_names() -> Iterable[str]:
    from actgrid.attribution.methods import all_methods

    return all_methods()


def _colormap_names() -> Iterable[str]:
    from cmap import Catalog

    return sorted({str(name).rsplit(":", 1)[-1] for name in Catalog()})


# By the name of the option; the functions are called when a shell completes.
WORDS: Mapping[str, Callable[[], Iterable[str]]] = {
    "method": _method_names,
    "cmap": _colormap_names,
}
