"""Gradients of a loss with respect to activations and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.compiled import compiled
from actgrid.errors import ActgridError, LayerError, OptionError, ShapeError, suggest
from actgrid.models.calls import choose_calls
from actgrid.models.drawing import draw_layer, draw_weight
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import as_tensors, map_tensors, prepare_inputs
from actgrid.models.layers import LayerInfo, Selection, Weight, model_weights
from actgrid.models.loading import load_model
from actgrid.models.network import check_compiled
from actgrid.models.networks import network_of
from actgrid.models.refusals import reason
from actgrid.models.tracing import build, trace_model
from actgrid.models.types import LayersLike, ModelInput, ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import SIGNED, RenderArrayOptions, RenderOptions
from actgrid.rendering import Grid

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Gradients", "gradients"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Gradients:
    """Gradients of a loss. Made by `actgrid.gradients`.

    Attributes
    ----------
    loss
        The loss: the mean over the batch.
    activations
        Layer path -> gradient with respect to the layer's activation, of its shape, (N, ...).
    weights
        Layer path and name (``"block1_conv1/kernel"``) -> gradient with respect to a trainable
        weight, of its shape.

    Examples
    --------
    >>> loss = "sparse_categorical_crossentropy"
    >>> found = actgrid.gradients(model, images, classes, loss=loss)
    >>> found.weights["conv/kernel"].shape
    (3, 3, 3, 32)
    >>> found.render_weights()["conv/kernel"].save("conv_kernel_gradient.png")
    """

    loss: float
    activations: dict[str, Array]
    weights: dict[str, Array]
    _infos: Mapping[str, LayerInfo]
    _weights: Mapping[str, Weight]

    def __repr__(self) -> str:
        return (
            f"<Gradients of a loss of {self.loss:.4g}: {len(self.activations)} activations, "
            f"{len(self.weights)} weights>"
        )

    @takes_options(RenderArrayOptions, data_format=None, **SIGNED)
    def render_activations(self, **options: Unpack[RenderArrayOptions]) -> dict[str, Grid]:
        """Draw the gradient with respect to each activation, as the activation is drawn.

        Parameters
        ----------
        **options
            See `actgrid.options.RenderArrayOptions`. By default ``normalize="symmetric"``,
            ``cmap="RdBu_r"`` and ``background=128``: white is zero. `sample` chooses the image
            of the batch.

        Returns
        -------
        dict
            Layer path -> Grid.

        Raises
        ------
        OptionError
            If an option cannot be used. Also a ValueError.
        """
        batch = max(map(len, self.activations.values()), default=1)
        return {
            path: draw_layer(self._infos[path], gradient, batch=batch, **options)
            for path, gradient in self.activations.items()
        }

    @takes_options(RenderOptions, **SIGNED)
    def render_weights(self, **options: Unpack[RenderOptions]) -> dict[str, Grid]:
        """Draw the gradient with respect to each weight, as `actgrid.render_weights` draws these.

        Parameters
        ----------
        **options
            As for `render_activations`.

        Returns
        -------
        dict
            Layer path and name of the weight -> Grid. Scalars are left out.

        Raises
        ------
        OptionError
            If an option cannot be used. Also a ValueError.
        """
        return {
            path: draw_weight(self._weights[path], gradient, **options)
            for path, gradient in self.weights.items()
            if gradient.ndim
        }


def gradients(
    model: ModelLike,
    x: ModelInput,
    y: Any,
    layers: LayersLike = None,
    *,
    loss: object = None,
    training: bool = False,
) -> Gradients:
    """Return the gradients of a loss with respect to activations and trainable weights.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    x
        The model's input, with its batch axis; a list or dict of them for several inputs.
    y
        What the loss compares the output with: an array, or whatever structure of arrays a
        callable takes.
    layers
        The layers whose activations to take, see `actgrid.Extractor`; None: every one with a
        spatial output. Activations that are not of floating point have no gradient and are left
        out.
    loss
        The name of a Keras loss, a ``keras.losses.Loss`` or a class of them, or a callable
        ``loss(y, output)`` that returns a tensor, of which the mean is taken; its output is that
        of the model, whatever its structure. None: the loss that the model was compiled with.
    training
        Whether the model runs as in training (dropout, batch statistics). Nothing is updated.

    Returns
    -------
    Gradients
        Where the loss does not depend on an activation or a weight, its gradient is zero.

    Raises
    ------
    OptionError
        If there is no such loss, or None is given and the model was not compiled with one loss
        for one output. Also a ValueError.
    ShapeError
        If `x` does not fit the model, or `y` the loss. Also a ValueError.
    LayerError
        If no layer matches an item of `layers`, or none has gradients. Also a KeyError.

    Examples
    --------
    >>> loss = "sparse_categorical_crossentropy"
    >>> found = actgrid.gradients(model, images, classes, "conv", loss=loss)
    >>> found.activations["conv"].shape
    (8, 30, 30, 32)
    """
    network: Any = load_model(model)
    check_compiled(network_of(network), "gradients")
    wanted = _wanted(network, loss)
    inputs, truth = prepare_inputs(network, x), as_tensors(y)
    build(network, inputs)
    weights = {
        weight.path: weight for weight in model_weights(network) if weight.variable.trainable
    }
    function = compiled(
        network, _LossGradients(wanted, Selection(layers), training, frozenset(weights))
    )
    value, activations, slopes = function((inputs, truth))
    infos = function.body.infos
    return Gradients(
        float(value),
        {path: np.asarray(activations[path]) for path in infos if path in activations},
        {path: np.asarray(slopes[path]) for path in weights},
        infos,
        weights,
    )


@dataclass(frozen=True)
class _Loss:
    """A loss, by what was given for it.

    `whole` tells that it is the caller's own affair what the output is.
    """

    given: Any
    whole: bool

    def __call__(self, truth: Any, outputs: Any) -> Any:
        """Return the mean loss as a symbolic scalar."""
        tf = tensorflow()
        function = _function(self.given)
        if self.whole:
            try:
                value = function(truth, outputs)
            except ActgridError:
                raise
            except Exception as error:
                structure = map_tensors(lambda tensor: tuple(tensor.shape), outputs)
                raise OptionError(
                    f"loss failed on an output of {structure}: {reason(error)}"
                ) from error
            if value is None:
                raise OptionError("loss must return a tensor, not None")
            return tf.reduce_mean(value)
        if not isinstance(outputs, tf.Tensor):
            raise OptionError(
                f"the model has {len(tf.nest.flatten(outputs))} outputs, and a loss of Keras is of "
                "one: give a callable loss(y, outputs) on all of them"
            )
        try:
            return tf.reduce_mean(function(truth, outputs))
        except (ValueError, TypeError, AttributeError) as error:
            found = map_tensors(lambda tensor: tuple(tensor.shape), truth)
            raise ShapeError(
                f"y of {found} does not fit the output of {tuple(outputs.shape)}: {reason(error)}"
            ) from error


def _wanted(model: Any, loss: object) -> _Loss:
    """Return the loss that an option stands for, None being what the model was compiled with.

    Raises
    ------
    OptionError
        If there is none.
    """
    if loss is not None:
        known = _function(loss)
        losses = keras().losses
        own = not isinstance(known, losses.Loss) and not _is_of_keras(known)
        return _Loss(loss, whole=own)
    compiled_with = getattr(model, "loss", None)
    if isinstance(compiled_with, Mapping):
        compiled_with = list(compiled_with.values())
    if isinstance(compiled_with, (list, tuple)):
        if len(compiled_with) > 1:
            raise OptionError(
                f"the model was compiled with {len(compiled_with)} losses, one for each output: "
                "give one, a callable loss(y, outputs) on all of them"
            )
        compiled_with = compiled_with[0] if compiled_with else None
    if compiled_with is None:
        raise OptionError(
            "the model was not compiled with a loss (a model that is loaded from a file never is): "
            "give one, such as loss='categorical_crossentropy'"
        )
    _function(compiled_with)
    return _Loss(compiled_with, whole=False)


def _is_of_keras(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("keras.")


def _function(loss: Any) -> Callable[[Any, Any], Any]:
    """Return a loss as a function of truth and output."""
    losses = keras().losses
    if isinstance(loss, type) and issubclass(loss, losses.Loss):
        return loss()  # type: ignore[no-any-return]
    if isinstance(loss, str):
        try:
            return losses.get(loss)  # type: ignore[no-any-return]
        except ValueError:
            known = [name for name in dir(losses) if not name.startswith("_")]
            raise OptionError(f"keras.losses has no {loss!r}{suggest(loss, known)}") from None
    if callable(loss):
        return loss  # type: ignore[no-any-return]
    raise OptionError(
        "loss must be the name of a Keras loss, a keras.losses.Loss, or a callable "
        f"loss(y, output), not {loss!r}"
    )


@dataclass(frozen=True)
class _LossGradients:
    """The loss, and its gradients by layer path and by path of the weight."""

    loss: _Loss
    layers: Selection
    training: bool
    # Which may be others once layers are frozen.
    weights: frozenset[str]
    # What the layers are is known once the model is traced.
    infos: dict[str, LayerInfo] = field(default_factory=dict, compare=False)

    def __call__(self, model: Any, inputs: Any) -> Any:
        tf = tensorflow()
        x, y = inputs
        trace = trace_model(model, x, self.training)
        calls = [
            call
            for call in choose_calls(model, trace.calls, self.layers)
            if call.tensor.dtype.is_floating
        ]
        if not calls:
            raise LayerError("the chosen layers have no activations of floating point")
        self.infos.update((call.info.path, call.info) for call in calls)
        value = self.loss(y, trace.outputs)

        activations = {call.info.path: call.tensor for call in calls}
        weights = {
            weight.path: weight.variable.value
            for weight in model_weights(model)
            if weight.path in self.weights
        }
        sources = [*activations.values(), *weights.values()]
        found = [
            tf.zeros_like(source) if gradient is None else tf.convert_to_tensor(gradient)
            for source, gradient in zip(sources, tf.gradients(value, sources), strict=True)
        ]
        count = len(activations)
        return (
            value,
            dict(zip(activations, found[:count], strict=True)),
            dict(zip(weights, found[count:], strict=True)),
        )
