"""What all examples share: their options, and data that may not be to be had."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Options", "options", "or_drawn"]


class Options(NamedTuple):
    """Of the command line."""

    output: Path
    quick: bool
    images: Path | None = None


def options(what: str | None, output: str, images: bool = False) -> Options:
    """Return the options, with the folder for the pictures made.

    `images` tells whether there is one for a folder of them.
    """
    parser = argparse.ArgumentParser(description=(what or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("out") / output, metavar="FOLDER")
    parser.add_argument(
        "--quick", action="store_true", help="drawings instead of real data, and little of them"
    )
    if images:
        parser.add_argument("--images", type=Path, metavar="FOLDER", help="with one for each class")
    found = Options(**vars(parser.parse_args()))
    found.output.mkdir(parents=True, exist_ok=True)
    return found


def or_drawn(load: Callable[[], Any], stand_in: Callable[[], Any], quick: bool) -> Any:
    """Return what `load` gives; where it fails, or if it is to be quick, drawings, and say so."""
    if not quick:
        try:
            return load()
        except Exception as error:  # what Keras raises where there is no network
            print(f"not to be had: {str(error).splitlines()[0]}")
    print("drawings stand in for the real data")
    return stand_in()
