"""Edits of layer outputs that belong to a patched model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["EDITS", "OutputEdit", "get_output_edits", "join_edits"]

# Attribute of a patched model: layer path -> OutputEdit.
EDITS = "_actgrid_edits"


class OutputEdit(Protocol):
    """Protocol of a change of the output of a layer call."""

    def __call__(self, output: Any) -> Any:
        """Return the changed output of the layer, a symbolic tensor of the same shape."""

    def fingerprint(self) -> str:
        """Return a text that is the same for equal changes."""


def get_output_edits(model: Any) -> Mapping[str, OutputEdit]:
    """Return the changed layer outputs of a patched model; empty for other models.

    Returns
    -------
    dict
        Layer path -> change of the output of this layer call.
    """
    edits: Mapping[str, OutputEdit] = vars(model).get(EDITS, {})
    return edits


@dataclass(frozen=True)
class _EditSequence:
    """Changes of the output of one layer call, applied one after the other."""

    edits: tuple[OutputEdit, ...]

    def __call__(self, output: Any) -> Any:
        for edit in self.edits:
            output = edit(output)
        return output

    def fingerprint(self) -> str:
        """Return a text that is the same for equal changes."""
        return "; ".join(edit.fingerprint() for edit in self.edits)


def join_edits(
    first: Mapping[str, OutputEdit], second: Mapping[str, OutputEdit]
) -> dict[str, OutputEdit]:
    """Return changes of layer outputs that apply the first changes, then the second ones."""
    return {
        **first,
        **second,
        **{path: _EditSequence((first[path], second[path])) for path in first if path in second},
    }
