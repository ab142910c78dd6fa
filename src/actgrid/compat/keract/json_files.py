"""Write activations to JSON files, and read them."""

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

__all__ = ["iterate_outputs", "load_activations_from_json_file", "persist_to_json_file"]

Array = npt.NDArray[Any]
Activations = dict[Any, Any]


def persist_to_json_file(activations: Mapping[Any, Any], filename: str | Path) -> None:
    """Write activations to a JSON file, as nested lists by name.

    Parameters
    ----------
    activations : dict
        Result of `get_activations`. The outputs of a layer with several outputs are written as
        ``name``, ``name[1]``, ...
    filename : str or Path
        Path of the file.

    Raises
    ------
    OutputError
        If the file cannot be written. Also an OSError.

    Examples
    --------
    >>> from actgrid.compat import keract
    >>> keract.persist_to_json_file({"conv": np.ones((1, 2))}, "activations.json")
    >>> keract.load_activations_from_json_file("activations.json")
    {'conv': array([[1., 1.]])}
    """
    lists = {str(name): array.tolist() for name, array in iterate_outputs(activations)}
    write_file(filename, json.dumps(lists, indent=2).encode())


def load_activations_from_json_file(filename: str | Path) -> dict[str, Array]:
    """Read activations from a JSON file that `persist_to_json_file` or keract wrote.

    Parameters
    ----------
    filename : str or Path
        Path of the file.

    Returns
    -------
    dict of str to ndarray
        Name of the layer -> activation.

    Raises
    ------
    MissingFileError
        If the file does not exist. Also a FileNotFoundError.
    FormatError
        If the file is not JSON, or not a dict of arrays. Also a ValueError.

    Examples
    --------
    >>> from actgrid.compat import keract
    >>> keract.persist_to_json_file({"conv": np.ones((1, 2))}, "activations.json")
    >>> keract.load_activations_from_json_file("activations.json")["conv"].shape
    (1, 2)
    """
    try:
        loaded = json.loads(Path(filename).read_bytes())
        return {name: np.array(lists) for name, lists in loaded.items()}
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {filename}") from None
    except (ValueError, AttributeError) as error:
        raise FormatError(f"{filename} has no activations in JSON: {error}") from error


def iterate_outputs(activations: Mapping[Any, Any]) -> Iterator[tuple[Any, Array]]:
    """Yield (name, array) for each output of each layer.

    An output after the first has its index in the name, such as ``name[1]``.
    """
    for name, value in activations.items():
        outputs = value if isinstance(value, (list, tuple)) else [value]
        for index, output in enumerate(outputs):
            yield (f"{name}[{index}]" if index else name), np.asarray(output)
