"""The function `actgrid.patch`: models with changed layer outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.attribution.requests import load_model_inputs
from actgrid.errors import CapabilityError, OptionError
from actgrid.interventions.channel_edits import (
    make_channel_edits,
    uses_reference,
)
from actgrid.models import Extractor, LayerInfo, load_model
from actgrid.models.extraction import get_extractor, trace_layers
from actgrid.models.inputs import iterate_batches
from actgrid.models.networks import check_keras_model
from actgrid.models.output_edits import OutputEdit, join_edits
from actgrid.models.patched_model import make_patched_model
from actgrid.models.tracing import prepare_trace_inputs
from actgrid.models.types import ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import PatchOptions

__all__ = ["extract_in_batches", "patch"]

Array = npt.NDArray[Any]


@takes_options(PatchOptions, batch_size=32)
def patch(model: ModelLike, edits: Mapping[Any, Any], **options: Unpack[PatchOptions]) -> Any:
    """Return a model with changed channels of some layers; the model itself is not changed.

    The patched model is a Keras model that shares the layers and weights of `model`. It can be
    called, and given to every function of actgrid, such as `actgrid.explain` or
    `actgrid.render_model`. Layers after a changed channel see the changed values. A patched model
    can be patched again.

    Parameters
    ----------
    model : keras.Model or str
        A Keras model, or anything that `actgrid.load_model` loads as a Keras model.
    edits : dict
        Layer -> change of its output. A layer is a layer path, a glob, a layer, a class or an
        index, see `actgrid.Extractor`; a path selects all calls of a layer. Of two changes of a
        layer, the later one is applied to the result of the earlier one. A change is a dict
        from channels to values, or a value for the whole output. Channels are an index, a negative
        index, or a tuple or range of indices. A value is one of:

        number
            All values of the channel become this number. 0 switches the channel off.
        array
            The values of the channel, of the shape of its positions, such as (height, width), or
            with a batch axis of length 1. For a whole output, of the shape of the output.
        ``"mean"``
            The mean of the channel over its positions and over the samples of `reference`; without
            `reference`, over the positions of each sample.
        ``"reference"``
            The values of the channel for the input `reference`, a single sample.
        function
            A function of the values, a tensor (N, positions...), that returns the new values, such
            as `actgrid.interventions.scale`. It must use TensorFlow or Keras operations.
    **options
        See `actgrid.options.PatchOptions`. `reference` is an array, a dict or list of arrays, or
        images. Calls of the patched model run in batches of `batch_size`.

    Returns
    -------
    keras.Model
        The patched model. ``patched(x)`` runs one compiled function in batches, and returns what
        ``model(x)`` returns: tensors. It also takes image files. A ``with`` block frees the
        compiled function at its end; the patched model can also be used without. Weights are
        shared: training either model changes both. A patched model cannot be saved, and a model
        that is made of its layers is not patched.

    Raises
    ------
    OptionError
        If a value or `batch_size` is invalid, or ``"reference"`` is used without `reference`. Also
        a ValueError.
    LayerError
        If a layer or a channel does not exist, or the output of a layer cannot be changed because
        it exists only in a loop. Also a KeyError.
    ShapeError
        If an array does not fit the layer. Also a ValueError.
    CapabilityError
        If the model is not a Keras model. Also a ValueError.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> x = np.random.default_rng(0).random((5, 8, 8, 3))
    >>> with actgrid.patch(model, {"conv": {0: 0, 3: "mean"}}) as patched:
    ...     patched(x).shape
    TensorShape([5, 2])
    >>> patched = actgrid.patch(model, {"conv": {(1, 2): "reference"}}, reference=x[:1])
    >>> actgrid.render_model(patched, x, "conv")["conv"]
    <Grid 13 x 13, 4 tiles, viridis>
    """
    reference, batch_size = options["reference"], options["batch_size"]
    model = load_model(model)
    check_keras_model(model, "patch")
    if not isinstance(edits, Mapping) or not edits:
        raise OptionError(f"edits must be a dict from layers to changes: got {edits!r}")
    output_edits: dict[str, OutputEdit] = {}
    inputs = None
    for layer, values in edits.items():
        extractor = get_extractor(model, list(layer) if isinstance(layer, tuple) else [layer])
        references: Mapping[str, Array] = {}
        if reference is not None and uses_reference(values):
            inputs = load_model_inputs(model, reference) if inputs is None else inputs
            references = extract_in_batches(extractor, inputs, batch_size)
        for path, info in _trace_infos(extractor).items():
            if info.kind == "attention":
                raise CapabilityError(
                    f"attention scores cannot be changed: got {path}; expected a layer"
                )
            edit = make_channel_edits(info, values, references.get(path))
            # Several keys may select one layer.
            output_edits = join_edits(output_edits, {path: edit})
    patched = make_patched_model(model, output_edits, batch_size)
    # A trace raises the errors of values that do not fit, and of layers that cannot be changed.
    trace_layers(Extractor(patched, list(output_edits)), prepare_trace_inputs(patched, None))
    return patched


def _trace_infos(extractor: Extractor) -> dict[str, LayerInfo]:
    """Return the description of each layer of an extractor, without running the model."""
    return trace_layers(extractor, prepare_trace_inputs(extractor.model, None))


def extract_in_batches(extractor: Extractor, inputs: Any, batch_size: int) -> dict[str, Array]:
    """Return the activations of all samples, computed in batches.

    Parameters
    ----------
    inputs
        Tensors in the structure of the model input.
    """
    parts = [extractor(part) for part in iterate_batches(inputs, batch_size)]
    return {path: np.concatenate([part[path] for part in parts]) for path in parts[0]}
