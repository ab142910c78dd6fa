"""Words for shell completion of options whose types do not list their words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

__all__ = ["WORDS"]


def _list_methods() -> Iterable[str]:
    from actgrid.attribution.methods import get_methods

    return get_methods()


def _list_colormaps() -> Iterable[str]:
    from cmap import Catalog

    return sorted({str(name).rsplit(":", 1)[-1] for name in Catalog()})


# Option name -> function that lists the words; called only for shell completion.
WORDS: Mapping[str, Callable[[], Iterable[str]]] = {
    "method": _list_methods,
    "cmap": _list_colormaps,
}
