"""Layer outputs of images, and the target scores that depend on a layer's output."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch, ScoreReader, gather_rows
from actgrid.attribution.explained_inputs import compute_embeddings
from actgrid.attribution.explained_tensors import ExplainedTensor
from actgrid.attribution.requests import ExplanationRequest, prepare_request
from actgrid.attribution.target_layers import find_target_calls
from actgrid.attribution.targets import PREDICTED
from actgrid.errors import LayerError, MissingDependencyError, ShapeError
from actgrid.models.calls import choose_calls
from actgrid.models.compiled import trace_once
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.network import check_compiled
from actgrid.models.networks import get_network, trace_network
from actgrid.models.tracing import keep_state
from actgrid.models.types import LayerLike, LayersLike, ModelInput, ModelLike, TargetLike

__all__ = [
    "compute_activations",
    "find_layer",
    "find_layers",
    "import_package",
    "iterate_crop_outputs",
    "prepare_images",
    "replace_output",
]

Array = npt.NDArray[Any]


def import_package(module: str) -> Any:
    """Import a module of scikit-learn or SciPy.

    Raises
    ------
    MissingDependencyError
        If the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            "concepts need scikit-learn: pip install 'actgrid[explain]'"
        ) from error


def prepare_images(
    model: ModelLike,
    images: ModelInput,
    target: TargetLike = None,
    *,
    labels: Any = None,
    image_input: int | str | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], object] | None = None,
) -> ExplanationRequest:
    """Prepare images and the class of each image, the predicted class if there is no target.

    Raises
    ------
    ShapeError
        If the explained input is not a batch of images.
    OptionError
        If the target names several outputs or functions.
    """
    request = prepare_request(
        model,
        images,
        target,
        labels,
        image_input,
        batch_size,
        progress=progress,
        embedding=False,
    )
    shape = tuple(request.batch.values.shape)
    if len(shape) != 4:
        raise ShapeError(f"images must be (N, H, W, C): got {shape}")
    request.get_only_output()  # raises the error of several outputs
    return request.with_predicted_classes()


@dataclass(frozen=True)
class _LayerSearch:
    """Function for `trace_once` that describes the outputs of the selected layers."""

    reader: ScoreReader
    selection: Selection | None

    def __call__(self, model: Any, inputs: Any) -> list[LayerInfo]:
        tf = tensorflow()
        images = self.reader.get_explained(inputs)[0]
        run = self.reader.run(model, inputs, tf.fill([tf.shape(images)[0]], PREDICTED))
        scores = run.target_scores.scores
        if self.selection is None:
            calls = find_target_calls(run.calls, images, scores, run.outputs)[-1:]
        else:
            calls = choose_calls(model, run.calls, self.selection)
        gradients = tf.gradients(scores, [call.tensor for call in calls])
        for call, gradient in zip(calls, gradients, strict=True):
            if gradient is None:
                raise LayerError(
                    f"the score does not depend on the layer {call.info.path}, or has no gradient "
                    "with respect to its output"
                )
        return [call.info for call in calls]


def find_layers(batch: ExplainedBatch, layers: LayersLike) -> list[LayerInfo]:
    """Return the descriptions of layers on which the target scores depend.

    Parameters
    ----------
    batch
        The images.
    layers
        The layers; None: the last layer with positions, as in class activation maps.

    Raises
    ------
    CapabilityError
        If the layers of the model do not run inside TensorFlow.
    LayerError
        If there is no such layer, or the scores do not depend on a layer.
    """
    check_compiled(get_network(batch.model), "the analysis of concepts")
    selection = None if layers is None else Selection(layers).resolve_predicates(batch.model)
    infos: list[LayerInfo] = trace_once(
        batch.model, _LayerSearch(batch.reader, selection), batch.inputs
    )
    return infos


def find_layer(batch: ExplainedBatch, layer: LayerLike | None) -> LayerInfo:
    """Return the description of one layer, see `find_layers`.

    Raises
    ------
    LayerError
        If there is no such layer, or several, or the scores do not depend on the layer.
    """
    infos = find_layers(batch, layer)
    if len(infos) > 1:
        paths = ", ".join(info.path for info in infos[:5])
        raise LayerError(f"layer must be one layer: got {len(infos)} ({paths}); name one")
    return infos[0]


def compute_activations(batch: ExplainedBatch, info: LayerInfo) -> npt.NDArray[np.float32]:
    """Compute the output of a layer for a batch of images, with the channels as its last axis."""
    (output,) = compute_embeddings(batch.model, batch.inputs, [info.path], batch.batch_size)
    activations: npt.NDArray[np.float32] = output.numpy()
    return np.moveaxis(activations, info.channel_axis, -1)


def replace_output(batch: ExplainedBatch, info: LayerInfo, values: Any) -> ExplainedBatch:
    """Return a batch whose scores are computed from given values of a layer's output.

    The values are the explained tensor of the returned batch, so that gradients of the scores are
    those with respect to the layer's output. The part of the model before the layer is not run.
    """
    explained = ExplainedTensor(
        info.path,
        len(tensorflow().nest.flatten(batch.inputs)),
        info.data_format == "channels_first",
        info.path,
    )
    reader = replace(batch.reader, explained=(explained,), has_embeddings=True)
    return replace(batch, inputs=[batch.inputs, values], reader=reader)


@dataclass(frozen=True)
class _CropOutputs:
    """Function that averages the output of a layer for crops over its positions, (rows, C)."""

    reader: ScoreReader
    path: str
    channel_axis: int

    def __call__(
        self, model: Any, inputs: Any, _classes: Any, image: Any, sample: Any, boxes: Any
    ) -> Any:
        tf = tensorflow()
        rows = gather_rows(inputs, image)
        explained = self.reader.explained[0]
        images = self.reader.get_explained(rows)[0]
        if explained.channels_first:
            images = tf.transpose(images, (0, 2, 3, 1))
        crops = tf.image.crop_and_resize(
            images,
            tf.gather(tf.ensure_shape(boxes, [None, 4]), sample),
            tf.range(tf.shape(image)[0]),
            images.shape[1:3],
        )
        crops = tf.ensure_shape(crops, [None, *images.shape[1:]])
        if explained.channels_first:
            crops = tf.transpose(crops, (0, 3, 1, 2))
        with keep_state():
            calls = trace_network(model, self.reader.replace_explained(rows, [crops])).calls
        output = next(call.tensor for call in calls if call.info.path == self.path)
        axes = [axis for axis in range(1, output.shape.rank) if axis != self.channel_axis]
        return tf.reduce_mean(tf.cast(output, tf.float32), axes)


def iterate_crop_outputs(
    batch: ExplainedBatch, info: LayerInfo, boxes: npt.NDArray[np.float32]
) -> Iterator[Array]:
    """Yield the mean output of a layer over its positions for crops of the images, (rows, C).

    Each crop is resized to the size of the images.

    Parameters
    ----------
    boxes
        (B, 4) float32 boxes of the crops of each image: top, left, bottom and right from 0 to 1,
        where 1 is the last pixel.
    """
    body = _CropOutputs(batch.reader, info.path, info.channel_axis)
    for outputs in batch.run_samples(body, len(boxes), tensorflow().constant(boxes)):
        yield outputs.numpy()
