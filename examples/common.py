"""Command-line options of the examples, and data sets with a fallback."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras

from drawings import draw_digits

__all__ = ["Options", "load_digits", "load_or_generate", "read_options"]


class Options(NamedTuple):
    """The command-line options of an example."""

    output: Path
    quick: bool
    images: Path | None = None


def read_options(doc: str | None, output: str, images: bool = False) -> Options:
    """Read the command-line options, and create the output folder.

    `doc` is the docstring of the example. With `images`, there is an option for an image folder.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("out") / output, metavar="FOLDER")
    parser.add_argument(
        "--quick", action="store_true", help="use few generated drawings instead of real data"
    )
    if images:
        parser.add_argument(
            "--images",
            type=Path,
            metavar="FOLDER",
            help="folder that contains an image folder for each class",
        )
    options = Options(**vars(parser.parse_args()))
    options.output.mkdir(parents=True, exist_ok=True)
    return options


def load_or_generate(load: Callable[[], Any], generate: Callable[[], Any], quick: bool) -> Any:
    """Return the data of `load`, or of `generate` if `quick` or the download fails."""
    if not quick:
        try:
            return load()
        except Exception as error:  # Keras raises Exception itself without a network
            print(f"download failed: {str(error).splitlines()[0]}")
    print("generated drawings are used instead of the real data")
    return generate()


def load_digits(quick: bool) -> Any:
    """Return the training and test digits of MNIST, or drawn digits, as Keras loads them.

    The pictures are (N, 28, 28, 1), from 0 to 1.
    """
    (x, y), (tests, truth) = load_or_generate(
        keras.datasets.mnist.load_data,
        lambda: (draw_digits(600 if quick else 10_000), draw_digits(200, seed=1)),
        quick,
    )
    return (x[..., None] / 255.0, y), (tests[..., None] / 255.0, truth)
