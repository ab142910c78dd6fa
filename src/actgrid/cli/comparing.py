"""Inputs of the commands that compare attribution methods or change layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from actgrid.cli.command import Options
from actgrid.cli.explaining import parse_targets, read_labels_option
from actgrid.cli.loading import (
    are_samples,
    load_model,
    load_sources,
    parse_layers,
    read_tokens,
    resolve_preprocessing,
)
from actgrid.models.preprocessing import Preprocessing
from actgrid.options import InputOptions, LoadedModelOptions

__all__ = ["ComparedInputs", "load_compared_inputs"]


class ComparedInputs(NamedTuple):
    """Record of the inputs of a command that compares attribution methods or changes layers.

    Attributes
    ----------
    model
        The model.
    x
        The samples, as `actgrid.explain` takes them.
    target, layers
        The explained targets and the layers, as `actgrid.explain` takes them.
    options
        Further options of `actgrid.compare_methods` and similar functions, by name.
    preprocessing
        Preprocessing of images, for the printed line.
    """

    model: Any
    x: Any
    target: Any
    layers: list[Any] | None
    options: dict[str, Any]
    preprocessing: Preprocessing | None

    @property
    def layer(self) -> Any:
        """The only layer; None without layers."""
        return None if self.layers is None else self.layers[0]


def load_compared_inputs(model: str, images: Sequence[str], options: Options) -> ComparedInputs:
    """Load the model and the samples of a command, and parse its targets.

    Each of several targets is explained for each sample.
    """
    # Invalid options are reported before the model loads, which takes seconds.
    labels = read_labels_option(options["labels"])
    target = parse_targets(options["target"] or [], labels)
    tokens: Any = read_tokens(options["tokens"])
    network = load_model(model, **options.select(LoadedModelOptions))
    preprocessing = resolve_preprocessing(network, options["preprocess"])
    if are_samples(images, network):
        preprocessing = None
    x = load_sources(images, network, options.select(InputOptions))
    count = len(x) if isinstance(x, list) else 1
    if isinstance(target, list) and count > 1:
        target = [target] * count
    names = options.get("layers")
    if options.get("layer") is not None:
        names = [options["layer"]]
    further = {
        "labels": labels,
        "tokens": tokens,
        "progress": True,
        **{name: options[name] for name in ("image_input", "embedding", "batch_size")},
    }
    layers = parse_layers(network, names)
    return ComparedInputs(network, x, target, layers, further, preprocessing)
