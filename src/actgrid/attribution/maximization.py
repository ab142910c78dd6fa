"""Activation maximisation: the inputs that excite a channel or a class."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.attribution.compiled import compiled
from actgrid.attribution.targets import are_several
from actgrid.errors import (
    LayerError,
    ModelError,
    OptionError,
    ShapeError,
    TargetError,
)
from actgrid.models.calls import Call, choose_calls
from actgrid.models.data_formats import input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.images import image_size
from actgrid.models.inputs import names_of, position_of, prepare_inputs
from actgrid.models.labels import class_index, labels_of
from actgrid.models.layers import Selection
from actgrid.models.loading import load_model
from actgrid.models.logits import before_softmax
from actgrid.models.network import check_compiled
from actgrid.models.networks import network_of
from actgrid.models.preprocessing import preprocessing
from actgrid.models.refusals import reason
from actgrid.models.tracing import build, known_specs, trace_model
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_groups import check_option
from actgrid.option_types import integer_option, number_option
from actgrid.options import SheetOptions
from actgrid.progress import progress as progress_bar
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import lay_out_sheet

__all__ = ["PARAMETRIZATIONS", "Maximization", "check_options", "maximize", "transformed"]

PARAMETRIZATIONS = ("fourier", "pixel")

# How the colours of natural images go together: the square root of their covariance over ImageNet,
# from Olah et al., its largest column of length 1.
_COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], np.float32)
_COLOURS /= np.linalg.norm(_COLOURS, axis=0).max()
# A channel that a ReLU keeps silent rises by this share of what it would otherwise.
_LEAK = 0.1
# Of the pictures to begin with, which are next to gray.
_NOISE = 0.01
# Height and width of an image that a model is tried on, to hear what it says of it.
_TRIAL = 64
# Of the spectrum, and how fast it falls with the frequency: a little faster than in photos, against
# the fine patterns that networks like best.
_STRENGTH = 0.18
_FALL = 1.25


@dataclass(frozen=True, eq=False, repr=False)
class Maximization(Picture):
    """The inputs that excite channels, drawn as one tile each. Made by `actgrid.maximize`.

    Attributes
    ----------
    inputs
        (K, H, W, C) float32, or (K, C, H, W) for a channels-first model: in the model's units.
    images
        (K, H, W, 3) uint8: the same as pixels. (K, H, W, C) if the model's images have two or more
        than four channels and none were chosen to be drawn in colour.
    layer
        Path of the layer.
    channels
        (K,) int: the channel that each of them is for.
    activations
        (K,) float32: what the channel's mean activation is for them, untransformed.
    start
        (K,) float32: what it was for the noise to begin with.
    columns
        Tiles in a row; None: as many as bring the picture nearest to square.
    padding
        Pixels between tiles.

    Examples
    --------
    >>> found = actgrid.maximize("demo", "head_relu", range(4))
    >>> found.images.shape
    (4, 224, 224, 3)
    >>> found.save("head.png")
    """

    inputs: npt.NDArray[np.float32]
    images: npt.NDArray[np.uint8]
    layer: str
    channels: npt.NDArray[np.intp]
    activations: npt.NDArray[np.float32]
    start: npt.NDArray[np.float32]
    columns: int | None = None
    padding: int = 1

    def __len__(self) -> int:
        return len(self.channels)

    def __repr__(self) -> str:
        _, height, width, _ = self.images.shape
        return f"<Maximization of {self.layer}: {len(self)} channels, {width} x {height}>"

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Return the tiles in one picture, (height, width, 3) uint8.

        Images that are no RGB have a row of gray tiles each, one for each channel.
        """
        images, columns = self.images, self.columns
        if images.shape[-1] != 3:
            columns = columns or images.shape[-1]
            planes = np.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:3])
            images = np.repeat(planes[..., None], 3, axis=-1)
        sheet = lay_out_sheet(images, columns=columns, padding=self.padding, background=0)
        return sheet.to_rgb()


def maximize(
    model: ModelLike,
    layer: LayersLike,
    channels: int | str | Iterable[int | str] | None = None,
    *,
    steps: int = 128,
    size: int | tuple[int, int] | None = None,
    parametrization: str = "fourier",
    learning_rate: float = 0.05,
    total_variation: float = 0.0,
    jitter: float = 0.07,
    rotate: float = 10,
    scale: float = 0.2,
    preprocess: str | Callable[[Any], Any] = "auto",
    labels: Sequence[str] | str | None = None,
    inputs: Mapping[str, Any] | None = None,
    image_input: int | str | None = None,
    rgb_channels: Sequence[int] | None = None,
    batch_size: int = 16,
    seed: int = 0,
    columns: int | None = None,
    padding: int = 1,
    progress: bool | Callable[[], object] = False,
) -> Maximization:
    """Draw the inputs that excite channels of a layer, or classes, the most.

    Gradient ascent (Adam) on the pixels of an image that begins as faint noise, for the mean of
    a channel's activation, which of a dense layer is a unit's. What a softmax is taken of stands
    for its classes; a ReLU is read with a slope of a tenth below zero, or a silent channel would
    never wake. At each step the image is moved, turned and scaled at random, so that no single
    pixel matters.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes. It takes images, of any number
        of channels.
    layer
        Which layer, see `actgrid.Extractor`: one.
    channels
        Which of its channels: one, or several, by number, or the names of classes if the layer
        is as long as `labels`; None: all.
    steps
        How often the images are changed.
    size
        (height, width) in pixels, or one number for both; None: the model's, where that is fixed,
        or that of the images it was last run on.
    parametrization
        ``"fourier"``: the image is changed by its spatial frequencies, each as readily as it
        occurs in photos, and in colours as they go together in photos; ``"pixel"``: pixel by
        pixel.
    learning_rate
        Of Adam.
    total_variation
        How much differences between neighbouring pixels count against an image: as a share of
        the typical pull of the activation on a pixel.
    jitter
        At most by this share of its shorter side an image is moved, up or down and left or right.
    rotate
        At most so many degrees it is turned by, either way.
    scale
        At most by this share it is made larger or smaller.
    preprocess
        What the model wants done to pixels 0 to 255, as for `actgrid.load_images`; a function
        must take a symbolic tensor (N, H, W, C).
    labels
        Names of the model's classes, as many as it has; ``"imagenet"``; None: those of ImageNet, if
        the model is a network of `keras.applications` with its head, or the demo.
    inputs
        Values of the model's other inputs, by name, where it takes several: one sample of each.
        They stay as they are: for them, no value would be as good as another.
    image_input
        Which of the model's inputs is the image, by name or number; None: the one image that
        `inputs` does not give.
    rgb_channels
        Which three channels of the model's images are drawn as red, green and blue. None: those of
        an RGB image; images with two or more than four channels, as multi-spectral ones, are drawn
        as a row of gray tiles, one for each channel.
    batch_size
        Images at once. Memory grows with it.
    seed
        Of the noise and of the transforms, which are the same for all channels: a channel's image
        does not depend on what others are asked for, nor on the batches, but for rounding.
    columns, padding
        Of the picture: tiles in a row (None: near to square), and pixels between them.
    progress
        Whether to show a progress bar, on a terminal; or a function that is called after each
        step, and ends all by what it raises.

    Returns
    -------
    Maximization
        Images, inputs and activations; itself a picture with a tile for each channel.

    Raises
    ------
    LayerError
        If `layer` is no layer of the model, or several. Also a KeyError.
    TargetError
        If the layer has no such channel or class. Also a ValueError.
    OptionError, ShapeError
        If an option cannot be used, the model takes no images, an input is neither given nor the
        image, or the model fixes no size and `size` is not given. Both are ValueErrors.
    ModelError
        If the model cannot be run on images of that size. Also a ValueError.

    References
    ----------
    Simonyan et al., Deep Inside Convolutional Networks, 2013, https://arxiv.org/abs/1312.6034.
    Olah et al., Feature Visualization, Distill, 2017,
    https://distill.pub/2017/feature-visualization/.

    Examples
    --------
    >>> actgrid.maximize("demo", "predictions", "Egyptian cat").save("cat.png")
    """
    if layer is None:
        raise LayerError("name the layer whose channels are to be maximised")
    options = check_options(
        steps=steps,
        parametrization=parametrization,
        learning_rate=learning_rate,
        total_variation=total_variation,
        jitter=jitter,
        rotate=rotate,
        scale=scale,
        batch_size=batch_size,
        seed=seed,
        columns=columns,
        padding=padding,
    )
    network: Any = load_model(model)
    check_compiled(network_of(network), "maximize")
    model_inputs = _ModelInputs.of(network, inputs, image_input)
    canvas = _Canvas.of(network, model_inputs, parametrization, size, preprocess, rgb_channels)

    gauge = compiled(network, _Gauge(Selection(layer)))
    gray = model_inputs.with_image(canvas.inputs(network, canvas.noise(seed)))
    gray = prepare_inputs(network, gray)
    build(network, gray)
    found_path, means = gauge(gray)
    path, before = found_path.numpy().decode(), means.numpy()[0]
    wanted = _channels(network, channels, len(before), path, labels)

    climb = compiled(
        network, _Climb(Selection(layer), canvas, model_inputs.position, options.wobble)
    )
    chunks = [wanted[i : i + batch_size] for i in range(0, len(wanted), batch_size)]
    drawn: list[tuple[Any, ...]] = []
    shown = progress_bar(len(chunks) * steps, "maximising", bool(progress))
    with nullcontext(progress) if callable(progress) else shown as advance:
        for chunk in chunks:
            found = _climbed(climb, canvas.noise(seed), chunk, options, model_inputs, advance)
            image = canvas.inputs(network, found)
            reached = gauge(model_inputs.with_image(image))[1].numpy()[np.arange(len(chunk)), chunk]
            drawn.append((image.numpy(), canvas.images(found), reached))
    values, images, reached = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return Maximization(values, images, path, wanted, reached, before[wanted], columns, padding)


class _Wobble(NamedTuple):
    """How far an image is moved, turned and scaled at random."""

    jitter: float
    rotate: float
    scale: float

    def __call__(self, images: Any, seed: Any) -> Any:
        """Return symbolic images, (N, H, W, C), transformed alike."""
        if not any(self):
            return images
        tf = tensorflow()
        down, right, turn, zoom = tf.unstack(tf.random.stateless_uniform([4], seed, -1, 1))
        far = self.jitter * min(images.shape[1:3])
        angle, size = turn * math.radians(self.rotate), 1 + zoom * self.scale
        return transformed(images, angle, size, down * far, right * far)


def transformed(images: Any, angle: Any, size: Any, down: Any = 0.0, right: Any = 0.0) -> Any:
    """Return images, (N, H, W, C), turned by an angle in radians and enlarged about the middle.

    They are then looked at from so many pixels further down and right, and mirrored at their edges.
    """
    tf = tensorflow()
    cos, sin = tf.cos(angle) / size, tf.sin(angle) / size
    # About the middle; each pixel comes from where this takes it.
    height, width = images.shape[1:3]
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    to_x = middle_x - cos * middle_x + sin * middle_y + right
    to_y = middle_y - sin * middle_x - cos * middle_y + down
    zero = tf.zeros_like(cos)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([cos, -sin, to_x, sin, cos, to_y, zero, zero])[None],
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )


class _Options(NamedTuple):
    """Options of `maximize` that do not depend on the model, checked."""

    steps: int
    learning_rate: float
    total_variation: float
    wobble: _Wobble
    seed: int


def check_options(
    *,
    steps: int,
    parametrization: str,
    learning_rate: float,
    total_variation: float,
    jitter: float,
    rotate: float,
    scale: float,
    batch_size: int,
    seed: int,
    columns: int | None,
    padding: int,
) -> _Options:
    """Raise what `maximize` would raise for these options whatever the model; return them."""
    if parametrization not in PARAMETRIZATIONS:
        raise OptionError(
            f"parametrization must be one of {', '.join(PARAMETRIZATIONS)}, not {parametrization!r}"
        )
    integer_option("batch_size", batch_size, 1)
    check_option(SheetOptions, "padding", padding)
    if columns is not None:
        integer_option("columns", columns, 1)
    scale = number_option("scale", scale, 0, 1)
    if scale == 1:
        raise OptionError("scale must be less than 1: nothing would be left of the image")
    return _Options(
        steps=integer_option("steps", steps, 1),
        learning_rate=number_option("learning_rate", learning_rate),
        total_variation=number_option("total_variation", total_variation),
        wobble=_Wobble(number_option("jitter", jitter), number_option("rotate", rotate), scale),
        seed=integer_option("seed", seed, 0, 2**31 - 1),
    )


def _climbed(
    climb: Any,
    noise: Any,
    channels: npt.NDArray[np.intp],
    options: _Options,
    inputs: _ModelInputs,
    advance: Callable[[], object],
) -> Any:
    """Return the parameters of the images that excite these channels."""
    tf = tensorflow()
    start = tf.repeat(noise, len(channels), 0)
    around = inputs.with_image(tf.constant(channels))
    state = (start, tf.zeros_like(start), tf.zeros_like(start))
    weights = tf.constant([options.learning_rate, options.total_variation])
    for step in range(options.steps):
        place = tf.constant([options.seed % 2**63, step], "int64")
        state = climb((*state, around), place, weights)
        advance()
    return state[0]


def _channels(
    model: Any, wanted: Any, count: int, layer: str, labels: Sequence[str] | str | None
) -> npt.NDArray[np.intp]:
    """Return the channels of a layer that are asked for, by number or by the name of a class."""
    if wanted is None:
        return np.arange(count)
    listed = list(wanted) if are_several(wanted) else [wanted]
    if not listed:
        raise TargetError("channels is empty: name at least one, or leave it out")
    names = labels_of(model, count, labels) if any(isinstance(one, str) for one in listed) else None
    numbers = [
        class_index(one, names) if isinstance(one, str) else integer_option("a channel", one)
        for one in listed
    ]
    for number in numbers:
        if not 0 <= number < count:
            raise TargetError(f"layer {layer} has the channels 0 to {count - 1}, not {number}")
    return np.array(numbers, np.intp)


@dataclass(frozen=True)
class _ModelInputs:
    """The inputs of a model: which is the image, and the values of the others.

    Attributes
    ----------
    specs
        The model's inputs as TensorSpecs, in its structure; that of an RGB image of any size for a
        model that does not say.
    position
        Of the image, in the order of TensorFlow's nests.
    others
        (1, ...) tensors in that order, without the image.
    """

    specs: Any
    position: int
    others: tuple[Any, ...]

    @classmethod
    def of(
        cls, model: Any, values: Mapping[str, Any] | None, chosen: int | str | None
    ) -> _ModelInputs:
        """Return a model's inputs, of which all but the image are given by name.

        Raises
        ------
        OptionError, ShapeError
            If that leaves no single image.
        """
        tf = tensorflow()
        specs = known_specs(model)
        if specs is None:
            specs = tf.TensorSpec((None, None, None, 3), "float32")
        flat, names = tf.nest.flatten(specs), names_of(model, specs)
        values = {} if values is None else values
        if not isinstance(values, Mapping):
            raise OptionError(
                f"inputs must be a dict of the model's inputs beside the image, of the names "
                f"{', '.join(names)}; not {reprlib.repr(values)}"
            )
        values = {names[position_of(model, specs, name)]: values[name] for name in values}
        position = cls._position(model, specs, names, values, chosen)
        missing = [
            name for place, name in enumerate(names) if place != position and name not in values
        ]
        if missing:
            raise OptionError(
                f"the model also takes {', '.join(missing)}: give a sample of each by name, "
                f"inputs={{{missing[0]!r}: ...}} (--inputs FILE.npz)"
            )
        others = [
            _one_sample(name, values[name], spec)
            for place, (name, spec) in enumerate(zip(names, flat, strict=True))
            if place != position
        ]
        return cls(specs, position, tuple(others))

    @staticmethod
    def _position(
        model: Any,
        specs: Any,
        names: list[str],
        values: Mapping[str, Any],
        chosen: int | str | None,
    ) -> int:
        flat = tensorflow().nest.flatten(specs)
        if isinstance(chosen, str):
            places = [position_of(model, specs, chosen)]
        elif chosen is not None:
            places = [integer_option("image_input", chosen, 0, len(flat) - 1)]
        else:
            places = [place for place, name in enumerate(names) if name not in values]
            images = [place for place in places if len(flat[place].shape) == 4]
            if len(images) > 1:
                found = ", ".join(names[place] for place in images)
                raise OptionError(
                    f"the model takes several images ({found}): give all but one by inputs=, or "
                    "say image_input="
                )
            places = images or places
        if len(places) != 1 or len(flat[places[0]].shape) != 4:
            shapes = ", ".join(str(tuple(spec.shape)) for spec in flat)
            raise ShapeError(f"the model takes {shapes}, not a batch of images")
        return places[0]

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """Shape of the image, with its batch axis."""
        return tuple(tensorflow().nest.flatten(self.specs)[self.position].shape)

    def with_image(self, image: Any) -> Any:
        """Return what the model takes: an image for each sample, with the other inputs."""
        tf = tensorflow()
        tensors = [tf.repeat(other, len(image), 0) for other in self.others]
        tensors.insert(self.position, image)
        return tf.nest.pack_sequence_as(self.specs, tensors)


def _one_sample(name: str, value: Any, spec: Any) -> Any:
    """Return one sample of an input, with its batch axis, as a tensor of its type."""
    tf = tensorflow()
    try:
        tensor = tf.convert_to_tensor(np.asarray(value))
        tensor = tf.cast(tensor, spec.dtype)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise OptionError(f"inputs: {name!r} must be {spec.dtype.name}: {reason(error)}") from error
    if spec.shape.rank is not None and len(tensor.shape) == spec.shape.rank - 1:
        tensor = tensor[None]
    if not len(tensor.shape) or len(tensor) != 1:
        raise ShapeError(
            f"inputs: {name!r} must be one sample, {(1, *spec.shape[1:])}, not "
            f"{tuple(tensor.shape)}"
        )
    return tensor


@dataclass(frozen=True)
class _Canvas:
    """How parameters are images, and images what a model takes."""

    parametrization: str
    height: int
    width: int
    depth: int
    channels_first: bool
    preprocess: Any
    rgb_channels: tuple[int, ...] | None

    @classmethod
    def of(
        cls,
        model: Any,
        inputs: _ModelInputs,
        parametrization: str,
        size: Any,
        preprocess: Any,
        rgb_channels: Any,
    ) -> _Canvas:
        """Return the canvas of a model's input.

        Raises
        ------
        OptionError
            If an option cannot be used, or the size is not known.
        """
        preprocessing(preprocess, model)
        shape = inputs.image_shape
        channels_first = input_data_format(model, inputs.position) == "channels_first"
        depth = shape[1 if channels_first else 3] or 3
        height, width = shape[2:4] if channels_first else shape[1:3]
        rgb = None
        if rgb_channels is not None:
            if isinstance(rgb_channels, str) or len(rgb_channels) != 3:
                raise OptionError(f"rgb_channels must be three channels, not {rgb_channels!r}")
            rgb = tuple(
                integer_option("a channel of rgb_channels", channel, 0, depth - 1)
                for channel in rgb_channels
            )
        if size is not None:
            height, width = image_size(size)
        if height is None or width is None:
            trial = cls(parametrization, _TRIAL, _TRIAL, depth, channels_first, preprocess, rgb)
            raise OptionError(_unknown_size(model, inputs, trial))
        return cls(parametrization, height, width, depth, channels_first, preprocess, rgb)

    def noise(self, seed: int) -> Any:
        """Return the parameters of one faint random image."""
        shape: tuple[int, ...] = (self.height, self.width, self.depth)
        if self.parametrization == "fourier":
            shape = (self.depth, self.height, self.width // 2 + 1, 2)
        noise = np.random.default_rng(seed).normal(0, _NOISE, (1, *shape))
        return tensorflow().constant(noise, "float32")

    def shares(self, parameters: Any) -> Any:
        """Return images, (N, H, W, C) of 0 to 1."""
        tf = tensorflow()
        values = parameters
        if self.parametrization == "fourier":
            spectrum = tf.complex(parameters[..., 0], parameters[..., 1]) * self._amplitudes()
            planes = tf.signal.irfft2d(spectrum, [self.height, self.width])
            values = tf.transpose(planes, (0, 2, 3, 1))
            if self.depth == 3:
                values = tf.einsum("nhwc,dc->nhwd", values, _COLOURS)
        return tf.sigmoid(values)

    def _amplitudes(self) -> Any:
        """Return how strong each spatial frequency is in photos: as one over the frequency."""
        down, right = np.fft.fftfreq(self.height)[:, None], np.fft.rfftfreq(self.width)
        longest = 1 / max(self.height, self.width)
        amplitudes = _STRENGTH / np.maximum(np.hypot(down, right), longest) ** _FALL
        return (amplitudes * math.sqrt(self.height * self.width)).astype(np.complex64)

    def prepared(self, model: Any, shares: Any) -> Any:
        """Return what the model takes for images of 0 to 1."""
        tf = tensorflow()
        inputs = tf.cast(preprocessing(self.preprocess, model)(shares * 255), "float32")
        return tf.transpose(inputs, (0, 3, 1, 2)) if self.channels_first else inputs

    def inputs(self, model: Any, parameters: Any) -> Any:
        """Return what the model takes for these parameters."""
        return self.prepared(model, self.shares(parameters))

    def images(self, parameters: Any) -> npt.NDArray[np.uint8]:
        """Return the pixels to show, (N, H, W, 3)."""
        shares: npt.NDArray[np.float32] = self.shares(parameters).numpy()
        levels = np.rint(shares * 255).astype(np.uint8)
        if self.rgb_channels is not None:
            return levels[..., list(self.rgb_channels)]
        if self.depth == 1:
            return np.repeat(levels, 3, axis=-1)
        return levels[..., :3] if self.depth == 4 else levels


def _unknown_size(model: Any, inputs: _ModelInputs, trial: _Canvas) -> str:
    """Return why no size can be chosen for a model's images, after a trial of one size."""
    if not model.built:
        return "the model has not been called, and says nothing of its images: give a size"
    image = trial.inputs(model, trial.noise(0))
    run = GraphFunction(lambda given: trace_model(model, given).outputs)
    try:
        run.trace(inputs.with_image(image))
    except ModelError as error:
        return (
            f"the model does not say what size its images have: give a size; with {_TRIAL} x "
            f"{_TRIAL}, {error}"
        )
    return "the model takes images of any size: give a size, (height, width)"


@dataclass(frozen=True)
class _Gauge:
    """The path of a layer, and the mean activation of each of its channels, (N, C)."""

    layer: Selection

    def __call__(self, model: Any, inputs: Any) -> tuple[Any, Any]:
        call = self.call(model, inputs)
        logits = before_softmax(call.tensor)
        means = _means(call.tensor if logits is None else logits, call)
        return tensorflow().constant(call.info.path), means

    def call(self, model: Any, inputs: Any) -> Call:
        """Return the one call of the model's layers that is wanted."""
        calls = choose_calls(model, trace_model(model, inputs).calls, self.layer)
        if len(calls) > 1:
            known = [call.info.path for call in calls]
            # The name of a shared layer stands for all its calls, name:0 for the first alone.
            paths = ", ".join(f"{path}:0" if f"{path}:1" in known else path for path in known[:5])
            raise LayerError(f"layer stands for {len(calls)} ({paths}): name one of them")
        if calls[0].info.channels is None or not calls[0].tensor.dtype.is_floating:
            raise LayerError(
                f"layer {calls[0].info.path} has no channels to maximise: its output is "
                f"{calls[0].info.dtype} of {calls[0].info.shape}"
            )
        return calls[0]


def _means(tensor: Any, call: Call) -> Any:
    """Return the mean of each channel, (N, C), of a tensor like the layer's output."""
    tf = tensorflow()
    channel = 1 if call.info.data_format == "channels_first" else len(tensor.shape) - 1
    others = [axis for axis in range(1, len(tensor.shape)) if axis != channel]
    return tf.reduce_mean(tf.cast(tensor, "float32"), others)


@dataclass(frozen=True)
class _Climb:
    """One step of Adam up a layer's channels, one for each image."""

    layer: Selection
    canvas: _Canvas
    position: int
    wobble: _Wobble

    def __call__(self, model: Any, state: Any, seed: Any, options: Any) -> Any:
        tf = tensorflow()
        parameters, mean, square, around = state
        # The model's inputs, with a channel for each image.
        tensors = tf.nest.flatten(around)
        channels = tensors[self.position]
        rate, smoothness = options[0], options[1]
        shares = self.canvas.shares(parameters)
        wobbled = self.wobble(shares, tf.ensure_shape(seed, [2]))
        tensors[self.position] = self.canvas.prepared(model, wobbled)
        inputs = tf.nest.pack_sequence_as(around, tensors)
        call = _Gauge(self.layer).call(model, inputs)
        reached = tf.gather(_means(_awake(call.tensor), call), channels, axis=1, batch_dims=1)
        (slope,) = tf.gradients(reached, shares)
        if slope is None:
            raise LayerError(
                f"layer {call.info.path} does not depend on the image, or cannot be differentiated"
            )
        # In units of its own, or what one layer calls smooth would leave another one blank.
        slope = tf.math.divide_no_nan(slope, tf.math.reduce_std(slope, (1, 2, 3), keepdims=True))
        slope -= smoothness * tf.gradients(tf.image.total_variation(shares), shares)[0]
        (slope,) = tf.gradients(shares, parameters, slope)

        # Kingma and Ba, Adam, 2014, https://arxiv.org/abs/1412.6980, whose state is a tensor here:
        # its variables would have the size of the first batch.
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        count = tf.cast(seed[1] + 1, "float32")
        deviation = tf.sqrt(square / (1 - 0.999**count)) + 1e-12
        return parameters + rate * mean / (1 - 0.9**count) / deviation, mean, square


def _awake(tensor: Any) -> Any:
    """Return what a softmax is taken of, a ReLU with a slope below zero, or the tensor itself."""
    logits = before_softmax(tensor)
    if logits is not None:
        return logits
    if tensor.op.type in ("Relu", "Relu6"):
        return tensorflow().nn.leaky_relu(tensor.op.inputs[0], _LEAK)
    return tensor
