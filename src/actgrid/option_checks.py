"""Checks of single option values: numbers, normalizations, colormaps and image formats."""

import math
import operator
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from actgrid.errors import OptionError, suggest

__all__ = [
    "DEFAULT_LIMITS",
    "NORMALIZATIONS",
    "NORMALIZE_EXPECTED",
    "describe_bounds",
    "find_colormap",
    "integer_option",
    "number_option",
    "read_normalize",
    "sample_option",
    "thread_count",
    "writable_formats",
]

_MAX_THREADS = 1024
# How many limits each normalization takes; those of percentile have a default.
NORMALIZATIONS: dict[str, int] = {
    "standard": 0,
    "minmax": 0,
    "symmetric": 0,
    "percentile": 2,
    "range": 2,
}
DEFAULT_LIMITS = {"percentile": (1.0, 99.0)}
# The namespaces of matplotlib's colormaps in the catalog of the package cmap. A bare name there
# may mean another colormap of the same name.
_NAMESPACES = ("matplotlib:", "colorbrewer:", "gnuplot:", "matlab:", "yorick:", "")
NORMALIZE_EXPECTED = "one of " + ", ".join(
    f"{name}(lo, hi)" if count else name for name, count in NORMALIZATIONS.items()
)


def integer_option(
    name: str, value: object, minimum: int | None = None, maximum: int | None = None
) -> int:
    """Return an option as an int from `minimum` to `maximum`.

    Raises
    ------
    OptionError
        If it is not.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise OptionError(f"{name} must be an integer, not {value!r}") from None
    if minimum is not None and number < minimum:
        raise OptionError(f"{name} must be at least {minimum}, not {number}")
    if maximum is not None and number > maximum:
        raise OptionError(f"{name} must be at most {maximum:,}, not {number}")
    return number


def number_option(name: str, value: Any, minimum: float = 0, maximum: float = math.inf) -> float:
    """Return an option as a finite number from `minimum` to `maximum`.

    Raises
    ------
    OptionError
        If it is not.
    """
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not minimum <= number <= maximum or math.isinf(number):
        raise OptionError(
            f"{name} must be a number{describe_bounds(minimum, maximum)}, not {value!r}"
        )
    return number


def sample_option(sample: object, count: int) -> int:
    """Return the position of one of `count` samples, counted from the end if it is negative.

    Raises
    ------
    OptionError
        If there is no such sample.
    """
    number = integer_option("sample", sample)
    if not -count <= number < count:
        raise OptionError(f"sample {number} was asked for, but there are only {count}")
    return number % count


def thread_count(threads: int | None) -> int:
    """Return how many threads to use; None stands for the processors this process may use.

    Raises
    ------
    OptionError
        If it is neither None nor a positive integer.
    """
    if threads is not None:
        return min(integer_option("threads", threads, 1), _MAX_THREADS)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_normalize(value: Any, name: str = "normalize") -> tuple[str, tuple[float, ...]]:
    """Return the name and the limits of a normalization.

    Parameters
    ----------
    value
        A name, or a name with limits: ``"standard"``, ``"percentile(2, 98)"``,
        ``("range", 0, 6)``.

    Raises
    ------
    OptionError
        If there is no such normalization, or its limits cannot be used.
    """
    word: Any = value
    given: tuple[Any, ...] = ()
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", value)
        if match:
            word = match[1]
            given = tuple((match[2] or "").replace(",", " ").split())
    elif isinstance(value, tuple) and value:
        word, *rest = value
        given = tuple(rest)
    if not isinstance(word, str) or word not in NORMALIZATIONS:
        hint = suggest(word, NORMALIZATIONS) if isinstance(word, str) else ""
        raise OptionError(f"{name} must be {NORMALIZE_EXPECTED}, not {value!r}{hint}")
    return word, _limits(name, word, given or DEFAULT_LIMITS.get(word, ()), value)


def _limits(name: str, word: str, given: Sequence[Any], value: Any) -> tuple[float, ...]:
    try:
        limits = tuple(float(number) for number in given)
    except (TypeError, ValueError):
        raise OptionError(f"{name} {value!r}: {word} takes numbers") from None
    count = NORMALIZATIONS[word]
    if len(limits) != count:
        raise OptionError(f"{name} {value!r}: {word} takes {count or 'no'} numbers")
    if limits and not (all(map(math.isfinite, limits)) and limits[0] < limits[1]):
        raise OptionError(f"{name} {value!r}: the first limit must be below the second")
    if word == "percentile" and not 0 <= limits[0] < limits[1] <= 100:
        raise OptionError(f"{name} {value!r}: percentiles lie between 0 and 100")
    return limits


@lru_cache(maxsize=64)
def find_colormap(name: str) -> Any:
    """Return the ``cmap.Colormap`` of a name.

    Raises
    ------
    OptionError
        If no colormap has this name.
    """
    import cmap  # it reads its catalog: too slow for a program that draws nothing

    for namespace in _NAMESPACES:
        try:
            return cmap.Colormap(namespace + name)
        except ValueError:
            continue
    known = {item.rsplit(":", 1)[-1] for item in cmap.Catalog()}
    raise OptionError(f"no colormap is called {name!r}{suggest(name, known)}")


@lru_cache(maxsize=1)
def writable_formats() -> dict[str, str]:
    """Return Pillow's name of each image format that it writes, by suffix such as ``".png"``."""
    from PIL import Image

    formats = Image.registered_extensions()
    return {suffix: name for suffix, name in formats.items() if name in Image.SAVE}


def describe_bounds(minimum: float | None, maximum: float | None) -> str:
    """Return in words the range of a number, after its noun."""
    if maximum is None or math.isinf(maximum):
        return "" if minimum is None else f" of at least {minimum}"
    return f" from {minimum} to {maximum}"
