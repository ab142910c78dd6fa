"""Activations to JSON files and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding import write_file
from actgrid.errors import (
    FormatError,
    MissingFileError,
)

__all__ = ["load_activations_from_json_file", "named_outputs", "persist_to_json_file"]

Array = npt.NDArray[Any]
Activations = dict[Any, Any]


def persist_to_json_file(activations: Mapping[Any, Any], filename: str | Path) -> None:
    """Write activations to a JSON file: name -> nested lists.

    Outputs of a layer that has several are written as ``name``, ``name[1]``, ...

    Raises
    ------
    OutputError
        If it cannot be written. Also an OSError.
    """
    lists = {str(name): array.tolist() for name, array in named_outputs(activations)}
    write_file(filename, json.dumps(lists, indent=2).encode())


def load_activations_from_json_file(filename: str | Path) -> dict[str, Array]:
    """Return the activations of a file that `persist_to_json_file`, or keract, has written.

    Raises
    ------
    MissingFileError
        If there is no such file. Also a FileNotFoundError.
    FormatError
        If it is no JSON of arrays by name. Also a ValueError.
    """
    try:
        loaded = json.loads(Path(filename).read_bytes())
        return {name: np.array(lists) for name, lists in loaded.items()}
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {filename}") from None
    except (ValueError, AttributeError) as error:
        raise FormatError(f"{filename} has no activations in JSON: {error}") from error


def named_outputs(activations: Mapping[Any, Any]) -> Iterator[tuple[Any, Array]]:
    """Yield name and array of each output."""
    for name, found in activations.items():
        outputs = found if isinstance(found, (list, tuple)) else [found]
        for number, output in enumerate(outputs):
            yield (f"{name}[{number}]" if number else name), np.asarray(output)
