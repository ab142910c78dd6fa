"""Gradients of a loss with respect to activations and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.errors import ActgridError, LayerError, OptionError, ShapeError, suggest
from actgrid.models.calls import choose_calls
from actgrid.models.compiled import compile_function
from actgrid.models.drawing import draw_layers, draw_weight
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import as_tensors, map_tensors, prepare_inputs
from actgrid.models.layers import LayerInfo, Selection, Weight, collect_weights
from actgrid.models.loading import load_model
from actgrid.models.model_errors import summarize_error
from actgrid.models.network import check_compiled
from actgrid.models.networks import get_network, trace_network
from actgrid.models.tracing import build_model
from actgrid.models.types import LayersLike, ModelInput, ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import SIGNED, RenderArrayOptions, RenderOptions
from actgrid.rendering import Grid, PictureDict

__all__ = ["Gradients", "gradients"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Gradients:
    """Gradients of a loss with respect to activations and weights.

    Parameters
    ----------
    loss : float
        Mean loss over the batch.
    activations : dict of str to ndarray
        Layer path -> gradient of the loss with respect to the layer's activation, with the shape
        of the activation, (N, ...).
    weights : dict of str to ndarray
        Weight path (``"block1_conv1/kernel"``) -> gradient of the loss with respect to a trainable
        weight, with the shape of the weight.
    _infos : mapping of str to LayerInfo
        Layer path -> description of the layer, for drawing.
    _weights : mapping of str to Weight
        Weight path -> description of the weight, for drawing.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(4, activation="softmax"),
    ... ])
    >>> images, classes = np.random.rand(5, 32, 32, 3), np.array([0, 1, 2, 3, 0])
    >>> loss = "sparse_categorical_crossentropy"
    >>> gradients = actgrid.gradients(model, images, classes, loss=loss)
    >>> gradients.weights["conv/kernel"].shape
    (3, 3, 3, 8)
    >>> gradients.render_weights()["conv/kernel"].save("conv_kernel_gradient.png")
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
    def render_activations(self, **options: Unpack[RenderArrayOptions]) -> PictureDict[Grid]:
        """Draw the loss gradient with respect to each activation as a grid of channels.

        Parameters
        ----------
        **options
            See `actgrid.options.RenderArrayOptions`. By default ``normalize="symmetric"``,
            ``cmap="RdBu_r"`` and ``background=128``: white is zero. `sample` is the index of the
            image in the batch.

        Returns
        -------
        PictureDict of str to Grid
            Layer path -> grid.

        Raises
        ------
        OptionError
            If an option is invalid. Also a ValueError.
        """
        batch = max(map(len, self.activations.values()), default=1)
        return draw_layers(self._infos, self.activations, batch=batch, **options)

    @takes_options(RenderOptions, **SIGNED)
    def render_weights(self, **options: Unpack[RenderOptions]) -> PictureDict[Grid]:
        """Draw the loss gradient of each weight, as `actgrid.render_weights` draws them.

        Parameters
        ----------
        **options
            See `actgrid.options.RenderOptions`. By default ``normalize="symmetric"``,
            ``cmap="RdBu_r"`` and ``background=128``: white is zero.

        Returns
        -------
        PictureDict of str to Grid
            Weight path (``"conv/kernel"``) -> grid. Scalar weights are left out.

        Raises
        ------
        OptionError
            If an option is invalid. Also a ValueError.
        """
        return PictureDict(
            (path, draw_weight(self._weights[path], gradient, **options))
            for path, gradient in self.weights.items()
            if gradient.ndim
        )


def gradients(
    model: ModelLike,
    x: ModelInput,
    y: Any,
    layers: LayersLike = None,
    *,
    loss: object = None,
    training: bool = False,
) -> Gradients:
    """Compute the gradients of a loss with respect to activations and weights.

    Parameters
    ----------
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes.
    x : array_like, dict or list
        The model's input with its batch axis, (N, ...); a list or dict of arrays for several
        inputs.
    y : array_like or structure of array_like
        The targets: the first argument of the loss.
    layers : str, int, type, callable, list or None, optional
        The layers for whose activations to compute gradients, see `actgrid.Extractor`. None: all
        layers with a spatial output. Activations of integer type have no gradient and are left out.
    loss : str, keras.losses.Loss, type or callable, optional
        The name of a Keras loss, a Keras loss or its class, or a function ``loss(y, output)`` that
        returns a tensor, which is averaged. The function receives the model's output in its
        structure. None: the loss that the model was compiled with.
    training : bool, optional
        Whether the model runs in training mode (dropout, batch statistics). No weight is updated.

    Returns
    -------
    Gradients
        The loss and its gradients. The gradient with respect to an activation or weight on which
        the loss does not depend is zero.

    Raises
    ------
    OptionError
        If the loss is unknown, or `loss` is None and the model was not compiled with exactly one
        loss. Also a ValueError.
    ShapeError
        If `x` does not fit the model, or `y` the loss. Also a ValueError.
    LayerError
        If an item of `layers` matches no layer, or no activation is of floating point. Also a
        KeyError.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(4, activation="softmax"),
    ... ])
    >>> images, classes = np.random.rand(5, 32, 32, 3), np.array([0, 1, 2, 3, 0])
    >>> loss = "sparse_categorical_crossentropy"
    >>> gradients = actgrid.gradients(model, images, classes, "conv", loss=loss)
    >>> gradients.activations["conv"].shape
    (5, 30, 30, 8)
    """
    network: Any = load_model(model)
    check_compiled(get_network(network), "gradients")
    resolved_loss = _resolve_loss(network, loss)
    inputs, targets = prepare_inputs(network, x), as_tensors(y)
    build_model(network, inputs)
    weights = {
        weight.path: weight for weight in collect_weights(network) if weight.variable.trainable
    }
    function = compile_function(
        network,
        _LossGradients(
            resolved_loss,
            Selection(layers).resolve_predicates(network),
            training,
            frozenset(weights),
        ),
    )
    value, activation_gradients, weight_gradients = function((inputs, targets))
    infos = function.body.infos
    return Gradients(
        float(value),
        {
            path: np.asarray(activation_gradients[path])
            for path in infos
            if path in activation_gradients
        },
        {path: np.asarray(weight_gradients[path]) for path in weights},
        infos,
        weights,
    )


@dataclass(frozen=True)
class _Loss:
    """A resolved loss option.

    Attributes
    ----------
    loss
        Name, loss, loss class or function.
    is_custom
        Whether the loss is the user's function, which may take any structure of outputs.
    """

    loss: Any
    is_custom: bool

    def __call__(self, targets: Any, outputs: Any) -> Any:
        """Return the mean loss as a symbolic scalar."""
        tf = tensorflow()
        function = _get_loss_function(self.loss)
        if self.is_custom:
            try:
                value = function(targets, outputs)
            except ActgridError:
                raise
            except Exception as error:
                structure = map_tensors(lambda tensor: tuple(tensor.shape), outputs)
                raise OptionError(
                    f"loss failed on an output of shape {structure}: {summarize_error(error)}"
                ) from error
            if value is None:
                raise OptionError("loss must return a tensor, not None")
            return tf.reduce_mean(value)
        if not isinstance(outputs, tf.Tensor):
            raise OptionError(
                "loss must be a function loss(y, outputs) for a model with several outputs: got a "
                f"Keras loss and {len(tf.nest.flatten(outputs))} outputs"
            )
        try:
            return tf.reduce_mean(function(targets, outputs))
        except (ValueError, TypeError, AttributeError) as error:
            shapes = map_tensors(lambda tensor: tuple(tensor.shape), targets)
            raise ShapeError(
                f"y of shape {shapes} does not fit the output of shape {tuple(outputs.shape)}: "
                f"{summarize_error(error)}"
            ) from error


def _resolve_loss(model: Any, loss: object) -> _Loss:
    """Return the loss of the option `loss`; None: the loss of the compiled model.

    Raises
    ------
    OptionError
        If the option is no loss, or the model was not compiled with exactly one loss.
    """
    if loss is not None:
        function = _get_loss_function(loss)
        losses = keras().losses
        is_custom = not isinstance(function, losses.Loss) and not _is_from_keras(function)
        return _Loss(loss, is_custom)
    compiled_with = getattr(model, "loss", None)
    if isinstance(compiled_with, Mapping):
        compiled_with = list(compiled_with.values())
    if isinstance(compiled_with, (list, tuple)):
        if len(compiled_with) > 1:
            raise OptionError(
                f"the model was compiled with {len(compiled_with)} losses, one for each output: "
                "pass loss, a function loss(y, outputs) of all outputs"
            )
        compiled_with = compiled_with[0] if compiled_with else None
    if compiled_with is None:
        raise OptionError(
            "the model was not compiled with a loss (models loaded from a file never are): pass "
            "loss, such as loss='categorical_crossentropy'"
        )
    _get_loss_function(compiled_with)
    return _Loss(compiled_with, is_custom=False)


def _is_from_keras(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("keras.")


def _get_loss_function(loss: Any) -> Callable[[Any, Any], Any]:
    """Return a loss as a function (targets, output) -> values.

    Raises
    ------
    OptionError
        If the value is not a loss.
    """
    losses = keras().losses
    if isinstance(loss, type) and issubclass(loss, losses.Loss):
        return loss()  # type: ignore[no-any-return]
    if isinstance(loss, str):
        try:
            return losses.get(loss)  # type: ignore[no-any-return]
        except ValueError:
            loss_names = [name for name in dir(losses) if not name.startswith("_")]
            raise OptionError(f"keras.losses has no {loss!r}{suggest(loss, loss_names)}") from None
    if callable(loss):
        return loss  # type: ignore[no-any-return]
    raise OptionError(
        "loss must be the name of a Keras loss, a keras.losses.Loss, or a function "
        f"loss(y, output), not {loss!r}"
    )


@dataclass(frozen=True)
class _LossGradients:
    """Function that returns a loss and its gradients by layer path and by weight path."""

    loss: _Loss
    layers: Selection
    training: bool
    # Paths of the trainable weights: they change when the user freezes layers.
    weights: frozenset[str]
    # Descriptions of the layers, filled while the model is traced.
    infos: dict[str, LayerInfo] = field(default_factory=dict, compare=False)

    def __call__(self, model: Any, inputs: Any) -> Any:
        tf = tensorflow()
        x, y = inputs
        trace = trace_network(model, x, training=self.training)
        calls = [
            call
            for call in choose_calls(model, trace.calls, self.layers)
            if call.tensor.dtype.is_floating
        ]
        if not calls:
            raise LayerError("layers must match activations of floating point: got none")
        self.infos.update((call.info.path, call.info) for call in calls)
        value = self.loss(y, trace.outputs)

        activations = {call.info.path: call.tensor for call in calls}
        weights = {
            weight.path: weight.variable.value
            for weight in collect_weights(model)
            if weight.path in self.weights
        }
        sources = [*activations.values(), *weights.values()]
        gradients = [
            tf.zeros_like(source) if gradient is None else tf.convert_to_tensor(gradient)
            for source, gradient in zip(sources, tf.gradients(value, sources), strict=True)
        ]
        count = len(activations)
        return (
            value,
            dict(zip(activations, gradients[:count], strict=True)),
            dict(zip(weights, gradients[count:], strict=True)),
        )
