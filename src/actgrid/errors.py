"""The errors actgrid raises: one base, and kinds that are also the built-in a caller expects."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Sequence

__all__ = [
    "ActgridError",
    "AssumptionWarning",
    "BackendError",
    "CapabilityError",
    "DeviceError",
    "DtypeError",
    "FormatError",
    "ImageError",
    "LayerError",
    "MissingDependencyError",
    "MissingFileError",
    "ModelError",
    "NotFoundError",
    "OptionError",
    "OutputError",
    "OutputTargetError",
    "RunError",
    "ShapeError",
    "TargetError",
    "TooLargeError",
    "UnknownOptionError",
    "UnusableModelError",
    "caller_level",
    "strip_terminal_codes",
    "suggest",
]

# CSI sequences (colours, cursor), OSC sequences (titles, links) and the short ones.
_TERMINAL_CODES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])?")


class ActgridError(Exception):
    """Base of every error that actgrid raises on purpose."""

    def __str__(self) -> str:
        """Return the message, without terminal codes: Keras prints parts of its errors bold."""
        # KeyError would show the quoted repr of its message.
        return strip_terminal_codes(Exception.__str__(self))


class OptionError(ActgridError, ValueError):
    """An option has a value that it cannot have."""


class UnknownOptionError(OptionError, TypeError):
    """A function was given an option that it does not have."""


class ShapeError(ActgridError, ValueError):
    """An array has a rank or shape that cannot be used."""


class DtypeError(ActgridError, TypeError):
    """An array has a dtype that cannot be drawn."""


class BackendError(ActgridError, ImportError):
    """A backend was asked for that is not there."""


class MissingDependencyError(ActgridError, ImportError):
    """An optional package is needed that is not installed."""


class LayerError(ActgridError, KeyError):
    """A layer was asked for that the model does not have or does not run."""


class TargetError(ActgridError, ValueError):
    """A target to explain is none of the model's."""


class OutputTargetError(TargetError):
    """A target does not tell which score of which output to explain.

    Attributes
    ----------
    problem
        What is wrong.
    advice
        A target that would do, in Python.
    heads
        Names, or positions, of the outputs of several that have classes.
    """

    def __init__(self, problem: str, advice: str, heads: Sequence[str | int] = ()) -> None:
        super().__init__(problem, advice, heads)
        self.problem = problem
        self.advice = advice
        self.heads = tuple(heads)

    def __str__(self) -> str:
        return f"{self.problem}: give {self.advice}"


class ModelError(ActgridError, ValueError):
    """A model specification cannot be understood, loaded or run."""


class CapabilityError(ModelError):
    """A network lacks something that was asked of it, such as gradients or weights."""


class UnusableModelError(ModelError):
    """A model cannot be run, whatever the input: no input is to blame."""


class DeviceError(UnusableModelError):
    """A model has an operation that the device cannot run, whatever the input."""


class MissingFileError(ActgridError, FileNotFoundError):
    """A file was named that does not exist."""


class FormatError(ActgridError, ValueError):
    """A file is not what it is read as."""


class ImageError(ActgridError, OSError):
    """A file is not an image that can be read."""


class TooLargeError(ImageError):
    """An image has more bytes or pixels than may be."""


class NotFoundError(ActgridError, LookupError):
    """Something was asked for by an id or a number, and there is none of it."""


class OutputError(ActgridError, OSError):
    """A file or folder cannot be written."""


class RunError(ActgridError, ValueError):
    """A run in a folder cannot be resumed, or would be lost, or those who do its work are gone."""


class AssumptionWarning(UserWarning):
    """Something was assumed that the model does not tell; the message says what to give instead."""


def strip_terminal_codes(text: str) -> str:
    """Return a text without the escape sequences that terminals interpret."""
    return _TERMINAL_CODES.sub("", text)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean ...?)"`` with the known names close to `name`, or ``""``.

    A known path also matches by its last part.
    """
    by_key: dict[str, list[str]] = {}
    for candidate in known:
        for key in {candidate.lower(), candidate.rsplit("/", 1)[-1].lower()}:
            by_key.setdefault(key, []).append(candidate)
    keys = difflib.get_close_matches(name.lower(), by_key, n=5, cutoff=0.5)
    found = list(dict.fromkeys(candidate for key in keys for candidate in by_key[key]))[:5]
    return f" (did you mean {', '.join(found)}?)" if found else ""


def caller_level() -> int:
    """Return the ``stacklevel`` by which a warning points at the code that called actgrid."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_own(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_own(module: str) -> bool:
    return module == "actgrid" or module.startswith("actgrid.")
