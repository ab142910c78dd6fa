"""Load TensorFlow, models, layers and inputs for commands."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from threading import Thread
from typing import Any

from actgrid import demo, models
from actgrid.errors import AssumptionWarning
from actgrid.models.frameworks import keras, load_tensorflow
from actgrid.models.images import load_images
from actgrid.models.layers import collect_operations
from actgrid.models.loading import is_function_spec
from actgrid.models.preprocessing import Preprocessing, find_preprocessing
from actgrid.models.sample_inputs import find_sample_kind
from actgrid.models.vocabularies import Tokenizer, read_vocabulary
from actgrid.option_groups import get_options
from actgrid.options import InputOptions

__all__ = [
    "load_model",
    "load_source",
    "load_sources",
    "parse_layers",
    "read_tokens",
    "resolve_preprocessing",
]


def load_model(spec: str, weights: str, safe_mode: bool) -> Any:
    """Load a model with `actgrid.load_model`; Keras's messages go to standard error.

    A module of ``package.module:function`` may be in the current folder. That folder is searched
    last, so that its files never replace a library.

    Returns
    -------
    object
        The model.
    """
    is_function = is_function_spec(spec)
    if spec == "demo":
        Thread(target=demo.prefetch_weights).start()  # while TensorFlow is imported
    load_tensorflow(skip_packages=not is_function)
    folder = str(Path.cwd())
    if is_function and folder not in sys.path:
        sys.path.append(folder)
    with redirect_stdout(sys.stderr):
        return models.load_model(spec, weights=weights, safe_mode=safe_mode)


def load_sources(sources: list[str], model: Any, options: Mapping[str, Any]) -> Any:
    """Load the image files, folders and globs of a command for a model.

    Parameters
    ----------
    sources
        Paths, globs, or ``"demo"`` for the embedded photo.
    model
        The model.
    options
        Options of `actgrid.options.InputOptions`.

    Returns
    -------
    object
        The sources, or preprocessed arrays if options differ from their defaults.
    """
    return load_images(sources, model=model, **options) if _differ(options) else sources


def _differ(options: Mapping[str, Any]) -> bool:
    """Return whether options of `InputOptions` differ from their defaults."""
    defaults = {name: option.default for name, option in get_options(InputOptions).items()}
    return dict(options) != defaults


def load_source(source: str, model: Any, options: Mapping[str, Any]) -> Any:
    """Load the argument INPUT of a command for a model.

    Parameters
    ----------
    source
        Path of an image or of a file of texts or arrays, or a text; ``"demo"``: the embedded photo.
    model
        The model.
    options
        Options of `actgrid.options.InputOptions`.

    Returns
    -------
    object
        An image, a preprocessed array if options differ from their defaults, or the text or path.
    """
    value = demo.photo() if source == "demo" else source
    if find_sample_kind(model) in (None, "image") and _differ(options):
        return load_images(value, model=model, **options)
    return value


def read_tokens(path: str | None) -> Tokenizer | None:
    """Return the vocabulary of the option `--tokens`; None if the option was not given."""
    return None if path is None else Tokenizer(read_vocabulary(Path(path)))


def resolve_preprocessing(model: Any, preprocess: Any) -> Preprocessing | None:
    """Return the preprocessing of a model for the option `preprocess`.

    Warnings about assumptions are not shown, because the command prints the assumption.

    Returns
    -------
    Preprocessing or None
        None: the model takes no images. Of other samples only the frames of videos are
        preprocessed.
    """
    if find_sample_kind(model) not in (None, "image"):
        find_preprocessing("none" if preprocess == "auto" else preprocess)  # checks the option
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        return find_preprocessing(preprocess, model)


def parse_layers(model: Any, names: list[str] | None) -> list[Any] | None:
    """Parse the values of the option `--layers`.

    Parameters
    ----------
    names
        Layer paths, globs, indices or names of Keras layer classes. None: not given.

    Returns
    -------
    list or None
        Paths, globs, integers and classes. None: the option was not given.
    """
    if names is None:
        return None
    paths = {node.path for node in collect_operations(model)}

    def parse(name: str) -> Any:
        if name in paths:
            return name
        if name.lstrip("-").isdigit():
            return int(name)
        layer_class = getattr(keras().layers, name, None)
        return layer_class if isinstance(layer_class, type) else name

    return [parse(name) for name in names]
