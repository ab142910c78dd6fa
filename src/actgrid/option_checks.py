"""Check and parse option values: numbers, normalizations, colormaps, formats."""

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
    "check_integer",
    "check_number",
    "check_sample",
    "describe_bounds",
    "find_colormap",
    "list_writable_formats",
    "read_normalize",
    "resolve_thread_count",
]

_MAX_THREADS = 1024
# Number of limits of each normalization.
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


def check_integer(
    name: str, value: object, minimum: int | None = None, maximum: int | None = None
) -> int:
    """Check that the value of an option is an integer, and return it as an int.

    Parameters
    ----------
    name
        Name of the option, for error messages.
    value
        The value.
    minimum, maximum
        Allowed range. None: no limit.

    Returns
    -------
    int
        The value.

    Raises
    ------
    OptionError
        If the value is not an integer from `minimum` to `maximum`.
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


def check_number(name: str, value: Any, minimum: float = 0, maximum: float = math.inf) -> float:
    """Check that the value of an option is a finite number, and return it as a float.

    Parameters
    ----------
    name
        Name of the option, for error messages.
    value
        The value.
    minimum, maximum
        Allowed range.

    Returns
    -------
    float
        The value.

    Raises
    ------
    OptionError
        If the value is not a finite number from `minimum` to `maximum`.
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


def check_sample(sample: object, count: int) -> int:
    """Return the non-negative position of a sample in a batch of `count` samples.

    A negative position counts from the end.

    Returns
    -------
    int
        Position from 0 to ``count - 1``.

    Raises
    ------
    OptionError
        If the position lies outside of the batch.
    """
    position = check_integer("sample", sample)
    if not -count <= position < count:
        raise OptionError(f"sample {position} does not exist: the batch has {count} samples")
    return position % count


def resolve_thread_count(threads: int | None) -> int:
    """Return the number of threads to use for the option `threads`.

    None means the number of processors that this process may run on.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    OptionError
        If `threads` is neither None nor a positive integer.
    """
    if threads is not None:
        return min(check_integer("threads", threads, 1), _MAX_THREADS)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_normalize(value: Any, name: str = "normalize") -> tuple[str, tuple[float, ...]]:
    """Parse a value of the option `normalize` into its name and its limits.

    Parameters
    ----------
    value
        A name, or a name with limits: ``"standard"``, ``"percentile(2, 98)"``,
        ``("range", 0, 6)``.

    Returns
    -------
    tuple
        Name of the normalization, and its limits as numbers.

    Raises
    ------
    OptionError
        If the normalization is unknown, or its limits are not valid.
    """
    method: Any = value
    limits: tuple[Any, ...] = ()
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", value)
        if match:
            method = match[1]
            limits = tuple((match[2] or "").replace(",", " ").split())
    elif isinstance(value, tuple) and value:
        method, *rest = value
        limits = tuple(rest)
    if not isinstance(method, str) or method not in NORMALIZATIONS:
        hint = suggest(method, NORMALIZATIONS) if isinstance(method, str) else ""
        raise OptionError(f"{name} must be {NORMALIZE_EXPECTED}, not {value!r}{hint}")
    return method, _check_limits(name, method, limits or DEFAULT_LIMITS.get(method, ()), value)


def _check_limits(name: str, method: str, limits: Sequence[Any], value: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(limit) for limit in limits)
    except (TypeError, ValueError):
        raise OptionError(f"{name} {value!r}: {method} takes numbers") from None
    count = NORMALIZATIONS[method]
    if len(numbers) != count:
        raise OptionError(f"{name} {value!r}: {method} takes {count or 'no'} numbers")
    if numbers and not (all(map(math.isfinite, numbers)) and numbers[0] < numbers[1]):
        raise OptionError(f"{name} {value!r}: the first limit must be below the second")
    if method == "percentile" and not 0 <= numbers[0] < numbers[1] <= 100:
        raise OptionError(f"{name} {value!r}: percentiles lie between 0 and 100")
    return numbers


@lru_cache(maxsize=64)
def find_colormap(name: str) -> Any:
    """Find a colormap by its name.

    Returns
    -------
    cmap.Colormap
        The colormap.

    Raises
    ------
    OptionError
        If no colormap has this name.
    """
    import cmap  # reads its catalog on import, which is slow

    for namespace in _NAMESPACES:
        try:
            return cmap.Colormap(namespace + name)
        except ValueError:
            continue
    known = {item.rsplit(":", 1)[-1] for item in cmap.Catalog()}
    raise OptionError(f"no colormap is called {name!r}{suggest(name, known)}")


@lru_cache(maxsize=1)
def list_writable_formats() -> dict[str, str]:
    """Return the image formats that Pillow can write: file suffix -> format name."""
    from PIL import Image

    formats = Image.registered_extensions()
    return {suffix: name for suffix, name in formats.items() if name in Image.SAVE}


def describe_bounds(minimum: float | None, maximum: float | None) -> str:
    """Describe the allowed range of a number as a phrase for error messages.

    Returns
    -------
    str
        A phrase such as ``" from 0 to 1024"``, or an empty text without limits.
    """
    if maximum is None or math.isinf(maximum):
        is_free = minimum is None or math.isinf(minimum)
        return "" if is_free else f" of at least {minimum}"
    return f" from {minimum} to {maximum}"
