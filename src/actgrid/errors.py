"""Exceptions and warnings of actgrid.

Each exception also derives from the built-in exception that a caller expects, such as ValueError.
"""

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
    "get_caller_level",
    "strip_terminal_codes",
    "suggest",
]

# CSI sequences (colours, cursor), OSC sequences (titles, links) and the short ones.
_TERMINAL_CODES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])?")


class ActgridError(Exception):
    """Base class of all exceptions that actgrid raises."""

    def __str__(self) -> str:
        """Return the message of the error without terminal escape sequences."""
        # Keras writes parts of its messages in bold. KeyError would show the repr of its message.
        return strip_terminal_codes(Exception.__str__(self))


class OptionError(ActgridError, ValueError):
    """Raised if the value of an option is not allowed."""


class UnknownOptionError(OptionError, TypeError):
    """Raised if a function was called with an unknown keyword argument."""


class ShapeError(ActgridError, ValueError):
    """Raised if the rank or shape of an array is not supported."""


class DtypeError(ActgridError, TypeError):
    """Raised if the dtype of an array is not supported."""


class BackendError(ActgridError, ImportError):
    """Raised if the requested rendering backend is not available."""


class MissingDependencyError(ActgridError, ImportError):
    """Raised if an optional package that the operation needs is not installed."""


class LayerError(ActgridError, KeyError):
    """Raised if a requested layer does not exist in the model or is not run by it."""


class TargetError(ActgridError, ValueError):
    """Raised if the target of an explanation, such as a class, does not exist."""


class OutputTargetError(TargetError):
    """Raised if a target does not identify one score of one model output.

    Parameters
    ----------
    problem : str
        Description of the problem.
    advice : str
        A target that would be accepted, as a Python expression.
    outputs : sequence of str or int
        Names or positions of the outputs that have classes, if the model has several outputs.
    """

    def __init__(self, problem: str, advice: str, outputs: Sequence[str | int] = ()) -> None:
        super().__init__(problem, advice, outputs)
        self.problem = problem
        self.advice = advice
        self.outputs = tuple(outputs)

    def __str__(self) -> str:
        return f"{self.problem}: pass {self.advice}"


class ModelError(ActgridError, ValueError):
    """Raised if a model specification is invalid, or a model cannot be loaded or run."""


class CapabilityError(ModelError):
    """Raised if a network does not support an operation, such as gradients."""


class UnusableModelError(ModelError):
    """Raised if a model cannot be run on any input."""


class DeviceError(UnusableModelError):
    """Raised if a model contains an operation that the device cannot run."""


class MissingFileError(ActgridError, FileNotFoundError):
    """Raised if a file does not exist."""


class FormatError(ActgridError, ValueError):
    """Raised if the content of a file does not have the expected format."""


class ImageError(ActgridError, OSError):
    """Raised if a file cannot be read as an image."""


class TooLargeError(ImageError):
    """Raised if an image exceeds the limit on bytes or pixels."""


class NotFoundError(ActgridError, LookupError):
    """Raised if the object that an id or number names does not exist."""


class OutputError(ActgridError, OSError):
    """Raised if a file or folder cannot be written."""


class RunError(ActgridError, ValueError):
    """Raised if a run cannot be resumed or overwritten, or its workers have died."""


class AssumptionWarning(UserWarning):
    """Warning that a property of the model is unknown and was assumed."""


def strip_terminal_codes(text: str) -> str:
    """Return a text without terminal escape sequences, such as codes of colours."""
    return _TERMINAL_CODES.sub("", text)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a hint for error messages: the known names closest to an unknown name.

    A known path such as ``"outer/inner"`` also matches by its last part.

    Returns
    -------
    str
        A text such as ``" (did you mean conv1?)"``. Empty if no known name is close.
    """
    by_key: dict[str, list[str]] = {}
    for candidate in known:
        for key in {candidate.lower(), candidate.rsplit("/", 1)[-1].lower()}:
            by_key.setdefault(key, []).append(candidate)
    keys = difflib.get_close_matches(name.lower(), by_key, n=5, cutoff=0.5)
    matches = list(dict.fromkeys(candidate for key in keys for candidate in by_key[key]))[:5]
    return f" (did you mean {', '.join(matches)}?)" if matches else ""


def get_caller_level() -> int:
    """Return the ``stacklevel`` of a warning that points at the caller of actgrid.

    Returns
    -------
    int
        Value for the argument `stacklevel` of `warnings.warn`.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_actgrid_module(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_actgrid_module(module: str) -> bool:
    return module == "actgrid" or module.startswith("actgrid.")
