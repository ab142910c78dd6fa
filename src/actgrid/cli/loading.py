"""Load TensorFlow, models, layers and inputs for commands."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from threading import Thread
from typing import Any

from actgrid import demo, models
from actgrid.errors import AssumptionWarning, OptionError
from actgrid.interventions import patch, scale
from actgrid.models.frameworks import keras, load_tensorflow
from actgrid.models.image_sources import find_images
from actgrid.models.images import load_images
from actgrid.models.layers import collect_operations
from actgrid.models.loading import is_function_spec
from actgrid.models.network import is_network
from actgrid.models.networks import list_known_layers
from actgrid.models.preprocessing import Preprocessing, find_preprocessing
from actgrid.models.sample_files import is_sample_file
from actgrid.models.sample_inputs import find_sample_kind
from actgrid.models.vocabularies import Tokenizer, read_vocabulary
from actgrid.option_groups import get_options
from actgrid.option_types import Channels
from actgrid.options import InputOptions

__all__ = [
    "are_samples",
    "load_model",
    "load_source",
    "load_sources",
    "parse_edits",
    "parse_layers",
    "read_tokens",
    "resolve_preprocessing",
]


def load_model(spec: str, weights: str, safe_mode: bool, edits: Sequence[str] | None = None) -> Any:
    """Load a model with `actgrid.load_model`; Keras's messages go to standard error.

    A module of ``package.module:function`` may be in the current folder. That folder is searched
    last, so that its files never replace a library.

    Parameters
    ----------
    edits
        Values of the option `--edits`: changes of layers, which `actgrid.patch` applies. None: the
        model is not changed.

    Returns
    -------
    object
        The model.
    """
    parsed = parse_edits(edits or ())  # reports errors before the model loads
    is_function = is_function_spec(spec)
    if spec == "demo":
        Thread(target=demo.prefetch_weights).start()  # while TensorFlow is imported
    load_tensorflow(skip_packages=not is_function)
    folder = str(Path.cwd())
    if is_function and folder not in sys.path:
        sys.path.append(folder)
    with redirect_stdout(sys.stderr):
        model = models.load_model(spec, weights=weights, safe_mode=safe_mode)
    return patch(model, parsed) if parsed else model


def parse_edits(texts: Sequence[str]) -> dict[str, Any]:
    """Parse the values of the option `--edits`.

    Returns
    -------
    dict
        Layer -> change, as `actgrid.patch` takes them.

    Raises
    ------
    OptionError
        If a text has another form.
    """
    edits: dict[str, Any] = {}
    for text in texts:
        layer, equals, value_text = text.rpartition("=")
        value = _parse_value(value_text.strip())
        if not (layer and equals) or value is None:
            raise OptionError(
                f"--edits must be LAYER:CHANNELS=VALUE, such as conv1:3,0-2=0, or LAYER=VALUE, "
                f"where VALUE is a number, mean, or a factor such as x0.5: got {text!r}"
            )
        path, colon, numbers = layer.rpartition(":")
        if not (colon and re.fullmatch(r"[0-9,\- ]+", numbers)):
            edits[layer] = value
            continue
        channels = Channels().check("--edits", numbers)
        changes = edits.setdefault(path, {})
        if not isinstance(changes, dict):
            raise OptionError(f"--edits changes all channels of {path}: got also {text!r}")
        changes |= dict.fromkeys(channels, value)
    return edits


def _parse_value(text: str) -> Any:
    """Return a number, ``"mean"`` or a scaling function; None for any other text."""
    if text == "mean":
        return text
    is_factor = text.startswith("x")
    try:
        number = float(text.removeprefix("x"))
    except ValueError:
        return None
    return scale(number) if is_factor else number


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
    if find_sample_kind(model) in (None, "image") and not _are_defaults(options):
        return load_images(value, model=model, **options)
    return value


def load_sources(sources: Sequence[str], model: Any, options: Mapping[str, Any]) -> Any:
    """Load the arguments IMAGE of a command, which may be files of other samples.

    Parameters
    ----------
    sources
        Images, folders or globs of them, or ``"demo"``; for a model that takes no images, files of
        its samples, or texts.
    model
        The model.
    options
        Options of `actgrid.options.InputOptions`.

    Returns
    -------
    object
        Input for `actgrid.explain`: a list of files, a preprocessed array if options differ from
        their defaults, or the texts or paths.
    """
    if are_samples(sources, model):
        return sources[0] if len(sources) == 1 else list(sources)
    files = [file for source in sources for file in find_images(source)]
    return files if _are_defaults(options) else load_images(files, model=model, **options)


def are_samples(sources: Sequence[str], model: Any) -> bool:
    """Return whether the arguments IMAGE of a command are files of arrays, or texts."""
    kind = find_sample_kind(model)
    return kind not in (None, "image") or all(
        is_sample_file(Path(source), kind) for source in sources
    )


def _are_defaults(options: Mapping[str, Any]) -> bool:
    """Return whether options of `actgrid.options.InputOptions` have their defaults."""
    return dict(options) == {
        name: option.default for name, option in get_options(InputOptions).items()
    }


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
    if is_network(model):
        paths = {info.path for info in list_known_layers(model) or ()}
    else:
        paths = {node.path for node in collect_operations(model)}

    def parse(name: str) -> Any:
        if name in paths:
            return name
        if name.lstrip("-").isdigit():
            return int(name)
        layer_class = getattr(keras().layers, name, None)
        return layer_class if isinstance(layer_class, type) else name

    return [parse(name) for name in names]
