"""Keras callback that compares a model in training with another model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

import numpy.typing as npt

from actgrid.callbacks.base import SinkCallback
from actgrid.callbacks.grids import check_layers
from actgrid.callbacks.samples import SampleBatches, read_data
from actgrid.callbacks.sinks import Sink
from actgrid.errors import ModelError
from actgrid.figures.compared_grids import compare_activations
from actgrid.figures.grids import get_batch_size
from actgrid.models import load_model
from actgrid.models.copying import copy_model
from actgrid.models.tracing import keep_state
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import ModelDriftOptions
from actgrid.statistics.dataset import DatasetStats, add_image
from actgrid.statistics.measurements import measure_batch
from actgrid.statistics.model_comparison import ModelComparison
from actgrid.statistics.model_pair import A, B, LayerPair, ModelPair, join_input

__all__ = ["ModelDrift", "compute_scalars"]

Array = npt.NDArray[Any]

# Numbers of a layer, and their keys in the summary of a comparison.
_SCALARS = ("cka", "difference", "relative_difference", "correlation", "died")


class _Observation(NamedTuple):
    """Record of the comparison at a step, and of the first sample's outputs in both models."""

    comparison: ModelComparison
    first_outputs: dict[LayerPair, tuple[Array, Array]]


@takes_options(ModelDriftOptions, batch_size=32)
class ModelDrift(SinkCallback):
    """Keras callback that compares the layers of the model with those of another model.

    The other model is the model at the beginning of training, or any model whose layers have the
    same paths, such as the network before fine-tuning.

    Parameters
    ----------
    data : array_like, dict, list, image sources or dataset
        The samples, as in `ActivationGrids`. Each batch needs at least four samples for the CKA.
    reference : keras.Model, str or None, optional
        The model to compare with, or anything that `actgrid.load_model` takes. None: a copy of the
        model at the beginning of its first training.
    layers : str, int, type, callable, list, dict or None, optional
        The layers, as in `actgrid.compare_models`; a dict maps layer paths of the reference to
        those of the model.
    **options
        See `actgrid.options.ModelDriftOptions`. For each layer, the outputs receive the scalars of
        `history`, and a picture ``LAYER/comparison`` of the first sample, see
        `actgrid.render_comparison`.

    Attributes
    ----------
    steps : list of int
        The measured steps, over all trainings of a model. Cleared if the model changes.
    history : dict of str to list of float
        A number for each step, by the name of the scalar:

        ``LAYER/cka``
            Centered kernel alignment of the outputs in both models: 1 for equal outputs. NaN for
            batches of fewer than four samples.
        ``LAYER/difference``, ``LAYER/relative_difference``, ``LAYER/correlation``
            Median over the channels, see `actgrid.statistics.LayerComparison`.
        ``LAYER/died``
            Number of channels that are dead in the model and not in the reference.
    comparison : ModelComparison or None
        The comparison at the last step, with all channels.

    Raises
    ------
    OptionError
        If an option is invalid, or `data` is an iterator or an infinite dataset. Also a ValueError.
    ModelError
        When training begins, if `reference` is None and the model cannot be copied. Also a
        ValueError.
    ActgridError
        If `data` is invalid, as in `ActivationGrids`; or, when training begins, if the models
        cannot be compared, as in `actgrid.compare_models`.

    Warns
    -----
    RuntimeWarning
        If an output cannot be written, as in `ActivationGrids`.

    Notes
    -----
    The training thread runs both models and measures the differences between two batches. Another
    thread draws and writes, as in `ActivationGrids`.

    Examples
    --------
    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([
    ...     keras.Input((16, 16, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2, activation="softmax"),
    ... ])
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> x, y = np.random.default_rng(0).random((32, 16, 16, 3)), np.arange(32) % 2
    >>> drift = actgrid.callbacks.ModelDrift(x, layers="conv")
    >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[drift])
    >>> drift.history["conv/died"]
    [0, 0]
    >>> drift.comparison.layers["conv"].difference.shape
    (4,)
    """

    def __init__(
        self,
        data: Any,
        reference: ModelLike | None = None,
        layers: LayersLike | Mapping[str, str] = None,
        **options: Unpack[ModelDriftOptions],
    ) -> None:
        super().__init__(options)
        self._data, self._reference = read_data(data), reference
        self._layers = layers if isinstance(layers, Mapping) else check_layers(layers)
        self._batch_size, self._shown_channels = options["batch_size"], options["shown_channels"]
        self.steps: list[int] = []
        self.history: dict[str, list[float]] = {}
        self.comparison: ModelComparison | None = None

    def _prepare(self, model: Any) -> None:
        self._batches = SampleBatches(model, self._data, self._batch_size)
        names = None
        if self._reference is None:
            names = ("start of training", "now")
            try:
                reference = copy_model(model)
            except ModelError as error:
                raise ModelError(f"{error}: pass reference, such as a saved model") from error
        else:
            reference = load_model(self._reference)
        self._pair = ModelPair(reference, model, self._layers, names)
        self.steps, self.history, self.comparison = [], {}, None

    def _observe(self, step: int | None) -> _Observation:
        stats = DatasetStats(top=1)
        first_outputs: dict[LayerPair, tuple[Array, Array]] = {}
        for inputs in self._batches:
            x = join_input(inputs, inputs)
            with keep_state():
                infos = self._pair.list_layers(x)
                outputs = self._pair.run(x, [info.path for info in infos])
            count = get_batch_size(outputs)
            measured = [measure_batch(info, outputs[info.path], batch=count) for info in infos]
            for layers in zip(*measured, strict=True):
                add_image(stats, stats.images, str(stats.images), layers)
            for pair in () if first_outputs else self._pair.pairs:
                path = pair.a.path
                first_outputs[pair] = outputs[A + path][:1].copy(), outputs[B + path][:1].copy()
        paths = {pair.a.path: pair.b.path for pair in self._pair.pairs}
        comparison = ModelComparison(stats, self._pair.names, paths)
        if step is not None:
            self.steps.append(step)
            self.comparison = comparison
            for tag, value in compute_scalars(comparison).items():
                self.history.setdefault(tag, []).append(value)
        return _Observation(comparison, first_outputs)

    def _draw(self, observation: _Observation) -> tuple[dict[str, float], dict[str, bytes]]:
        """Return the scalars of a step, and a PNG file for each layer, by tag."""
        names = observation.comparison.names
        pictures = {}
        for pair, (a, b) in observation.first_outputs.items():
            grids = compare_activations(pair.a, a, pair.b, b, names, self._shown_channels)
            pictures[f"{pair.a.path}/comparison"] = grids.to_png()
        return compute_scalars(observation.comparison), pictures

    def _send(
        self, sink: Sink, step: int, content: tuple[dict[str, float], dict[str, bytes]]
    ) -> None:
        scalars, pictures = content
        for tag, value in scalars.items():
            sink.scalar(tag, value, step)
        for tag, png in pictures.items():
            sink.images(tag, [png], step)


def compute_scalars(comparison: ModelComparison) -> dict[str, float]:
    """Return the numbers of each layer by tag, such as ``"conv/cka"``."""
    return {
        f"{layer['layer']}/{name}": layer[name]
        for layer in comparison.summary()["layers"]
        for name in _SCALARS
    }
