"""Prepare samples for functions that look inside a model without explaining a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.attribution.requests import prepare_model_inputs
from actgrid.attribution.tokens import name_tokens
from actgrid.models import load_model
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.image_sources import are_images, open_images
from actgrid.models.images import load_images, load_photos
from actgrid.models.inputs import list_input_names
from actgrid.models.sample_files import load_samples
from actgrid.models.texts import encode_texts, is_text
from actgrid.models.types import ModelInput, ModelLike
from actgrid.option_checks import check_sample
from actgrid.rendering.input_pictures import to_pictures

__all__ = ["ModelSample", "prepare_sample"]


class ModelSample(NamedTuple):
    """A sample of a model's input.

    Attributes
    ----------
    model
        The loaded model.
    inputs
        Structure of the model's input tensors, with a batch of one sample.
    picture
        (height, width, 3) uint8: the part of the image that the model receives; None if the input
        is no image.
    tokens
        Value of the option `tokens`.
    """

    model: Any
    inputs: Any
    picture: npt.NDArray[np.uint8] | None
    tokens: Any

    def name_tokens(self, count: int, path: str = "") -> tuple[str, ...] | None:
        """Return the strings of `count` tokens; None if they are not known.

        Parameters
        ----------
        count
            Number of tokens, by which an input is found.
        path
            Path of the layer whose tokens are named. In a layer of a decoder, an input of the
            decoder comes first.
        """
        names = list_input_names(self.model, self.inputs)
        tensors = tensorflow().nest.flatten(self.inputs)
        part = "decoder" if "decoder" in path or "cross" in path else "encoder"
        order = sorted(
            range(len(tensors)),
            key=lambda position: ("token" not in names[position], part not in names[position]),
        )
        for position in order:
            tensor = tensors[position]
            if tensor is None or tensor.shape.rank > 2 or tensor.dtype.is_floating:
                continue
            is_string = tensor.dtype == tensorflow().string
            if is_string or (tensor.shape.rank == 2 and tensor.shape[1] == count):
                rows = name_tokens(self.model, self.inputs, position, count, self.tokens)
                if rows is not None:
                    return rows[0]
        return None


def prepare_sample(model: ModelLike, x: ModelInput, sample: int, tokens: Any) -> ModelSample:
    """Prepare one sample of an input for a model.

    Parameters
    ----------
    model
        The model, or anything that `actgrid.load_model` takes.
    x
        The input, as for `actgrid.explain`.
    sample
        Position of the sample in the batch.
    tokens
        Strings of the tokens, as for `actgrid.explain`.

    Returns
    -------
    ModelSample
        The sample.
    """
    model = load_model(model)
    photos = []
    if is_text(x, model, tokens):
        x = encode_texts(cast("str | Sequence[str]", x), model, tokens)
    elif (samples := load_samples(x, model, tokens)) is not None:
        x = samples.batch
    elif are_images(x):
        sources = open_images(x)
        x = load_images(sources, model=model)
        photos = load_photos(sources, model=model)
    inputs = prepare_model_inputs(model, x, has_batch_axis=False)
    tf = tensorflow()
    tensors = tf.nest.flatten(inputs)
    count = max(len(tensor) for tensor in tensors if tensor is not None)
    row = check_sample(sample, count)
    single = [None if tensor is None else tensor[row : row + 1] for tensor in tensors]
    picture = None
    if photos:
        pixels, (top, left, bottom, right) = photos[row]
        picture = np.asarray(Image.fromarray(pixels).crop((left, top, right, bottom)))
    else:
        picture = _draw_picture(model, single)
    return ModelSample(model, tf.nest.pack_sequence_as(inputs, single), picture, tokens)


def _draw_picture(model: Any, tensors: Sequence[Any]) -> npt.NDArray[np.uint8] | None:
    """Return the first input that is an image as a picture."""
    for position, tensor in enumerate(tensors):
        if tensor is not None and tensor.shape.rank == 4 and tensor.dtype.is_floating:
            values = np.asarray(tensor)
            if find_input_data_format(model, position) == "channels_first":
                values = np.moveaxis(values, 1, -1)
            pictures = to_pictures(values)
            return None if pictures is None else pictures[0]
    return None
