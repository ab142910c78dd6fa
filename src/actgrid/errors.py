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
        """Return the message without terminal escape sequences."""
        # Keras writes parts of its messages in bold. KeyError would show the repr of its message.
        return strip_terminal_codes(Exception.__str__(self))


class OptionError(ActgridError, ValueError):
    """The value of an option is not allowed."""


class UnknownOptionError(OptionError, TypeError):
    """A function was called with an unknown keyword argument."""


class ShapeError(ActgridError, ValueError):
    """The rank or shape of an array is not supported."""


class DtypeError(ActgridError, TypeError):
    """The dtype of an array is not supported."""


class BackendError(ActgridError, ImportError):
    """The requested rendering backend is not available."""


class MissingDependencyError(ActgridError, ImportError):
    """An optional package that the operation needs is not installed."""


class LayerError(ActgridError, KeyError):
    """The requested layer does not exist in the model, or the model does not run it."""


class TargetError(ActgridError, ValueError):
    """The target of an explanation, such as a class, does not exist in the model."""


class OutputTargetError(TargetError):
    """The target of an explanation does not identify one score of one model output.

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
    """A model specification is not valid, or the model cannot be loaded or run."""


class CapabilityError(ModelError):
    """A network does not support the requested operation, such as gradients."""


class UnusableModelError(ModelError):
    """A model cannot be run on any input."""


class DeviceError(UnusableModelError):
    """A model contains an operation that the device cannot run."""


class MissingFileError(ActgridError, FileNotFoundError):
    """A file does not exist."""


class FormatError(ActgridError, ValueError):
    """The content of a file does not have the expected format."""


class ImageError(ActgridError, OSError):
    """A file cannot be read as an image."""


class TooLargeError(ImageError):
    """An image exceeds the limit on bytes or pixels."""


class NotFoundError(ActgridError, LookupError):
    """No object has the requested id or number."""


class OutputError(ActgridError, OSError):
    """A file or folder cannot be written."""


class RunError(ActgridError, ValueError):
    """A run cannot be resumed or overwritten, or its worker processes have died."""


class AssumptionWarning(UserWarning):
    """A property of the model is unknown and was assumed."""


def strip_terminal_codes(text: str) -> str:
    """Remove terminal escape sequences, such as colours, from a text."""
    return _TERMINAL_CODES.sub("", text)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a hint ``" (did you mean ...?)"`` with the closest known names.

    A known path such as ``"outer/inner"`` also matches by its last part. The hint is empty if no
    known name is close.
    """
    by_key: dict[str, list[str]] = {}
    for candidate in known:
        for key in {candidate.lower(), candidate.rsplit("/", 1)[-1].lower()}:
            by_key.setdefault(key, []).append(candidate)
    keys = difflib.get_close_matches(name.lower(), by_key, n=5, cutoff=0.5)
    matches = list(dict.fromkeys(candidate for key in keys for candidate in by_key[key]))[:5]
    return f" (did you mean {', '.join(matches)}?)" if matches else ""


def get_caller_level() -> int:
    """Return the ``stacklevel`` for a warning to point at the caller of actgrid."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_actgrid_module(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_actgrid_module(module: str) -> bool:
    return module == "actgrid" or module.startswith("actgrid.")
