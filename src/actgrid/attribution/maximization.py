"""Activation maximization of channels, units or class scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.attribution.ascent import AscentOptions, AscentStep, ChannelMeans, ascend
from actgrid.attribution.image_parametrization import ImageParametrization
from actgrid.attribution.maximization_inputs import MaximizationInputs
from actgrid.attribution.random_transforms import RandomTransform
from actgrid.attribution.targets import is_collection
from actgrid.errors import (
    LayerError,
    TargetError,
)
from actgrid.models.compiled import compile_function
from actgrid.models.inputs import prepare_inputs
from actgrid.models.labels import find_class_index, resolve_labels
from actgrid.models.layers import Selection
from actgrid.models.loading import load_model
from actgrid.models.network import check_compiled
from actgrid.models.networks import get_network
from actgrid.models.tracing import build_model
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_checks import check_integer
from actgrid.option_groups import check_option, takes_options
from actgrid.options import ChannelOptions, MaximizeImageOptions
from actgrid.progress import show_progress
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import lay_out_sheet

__all__ = ["Maximization", "maximize"]

# Default `crop` and `noise` with magnitude-constrained optimization.
_MACO_TRANSFORM = 0.75, 0.03
# Percentile of the importance from which a pixel is opaque, as in the code of the paper.
_OPAQUE_PERCENTILE = 80


@dataclass(frozen=True, eq=False, repr=False)
class Maximization(Picture):
    """Inputs that maximize channels of a layer, drawn as one tile for each input.

    `actgrid.maximize` returns an instance. K is the number of channels times the number of
    variants; all variants of a channel precede the next channel, and are drawn in one row.

    Parameters
    ----------
    inputs : ndarray
        (K, H, W, C) float32, or (K, C, H, W) for a channels-first model: the inputs in the model's
        units.
    images : ndarray
        (K, H, W, 3) uint8: the inputs as RGB pixels. (K, H, W, C) if the model's images have two or
        more than four channels and `rgb_channels` was not given.
    layer : str
        Path of the layer.
    channels : ndarray
        (K,) int: the channel that each input maximizes.
    activations : ndarray
        (K,) float32: the channel's mean activation for each input, without random transforms.
    initial_activations : ndarray
        (K,) float32: the channel's mean activation for the initial noise.
    columns : int or None, optional
        Number of tiles in a row. None: the number that makes the picture nearest to square.
    padding : int, optional
        Pixels between tiles.
    variants : int, optional
        Number of inputs for each channel.
    transparency : ndarray, optional
        (K, H, W) float32 from 0 to 1: opacity of each pixel, with which RGB images are drawn on
        white: its importance, the sum over the steps of its absolute gradients. None: all pixels
        are opaque. Only images with ``parametrization="maco"`` have it.

    Examples
    --------
    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ... ])
    >>> maximization = actgrid.maximize(model, "conv", range(4), steps=40, learning_rate=0.3)
    >>> maximization.images.shape
    (4, 32, 32, 3)
    >>> bool((maximization.activations > maximization.initial_activations).all())
    True
    >>> maximization.save("conv.png")
    """

    inputs: npt.NDArray[np.float32]
    images: npt.NDArray[np.uint8]
    layer: str
    channels: npt.NDArray[np.intp]
    activations: npt.NDArray[np.float32]
    initial_activations: npt.NDArray[np.float32]
    columns: int | None = None
    padding: int = 1
    variants: int = 1
    transparency: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.channels)

    def __repr__(self) -> str:
        _, height, width, _ = self.images.shape
        channels = f"{len(self) // self.variants} channels"
        if self.variants > 1:
            channels += f" in {self.variants} variants"
        return f"<Maximization of {self.layer}: {channels}, {width} x {height}>"

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Return the picture of all tiles as RGB pixels.

        Images that are not RGB are drawn as a row of gray tiles, one for each channel.

        Returns
        -------
        ndarray
            (height, width, 3) uint8.
        """
        images, columns, background = self.images, self.columns, 0
        if self.variants > 1:
            columns = columns or self.variants
        if images.shape[-1] == 3 and self.transparency is not None:
            opacity, background = self.transparency[..., None], 255
            images = np.rint(images * opacity + background * (1 - opacity)).astype(np.uint8)
        if images.shape[-1] != 3:
            columns = columns or images.shape[-1]
            planes = np.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:3])
            images = np.repeat(planes[..., None], 3, axis=-1)
        sheet = lay_out_sheet(images, columns=columns, padding=self.padding, background=background)
        return sheet.to_rgb()


@takes_options(MaximizeImageOptions, batch_size=16)
def maximize(
    model: ModelLike,
    layer: LayersLike,
    channels: int | str | Iterable[int | str] | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    progress: bool | Callable[[], object] = False,
    **options: Unpack[MaximizeImageOptions],
) -> Maximization:
    """Synthesize the inputs that maximize channels, units or class scores of a layer.

    An image of faint noise is optimized by gradient ascent (Adam) to maximize the mean activation
    of a channel (for a dense layer, of a unit). If the layer ends in a softmax, the logit is
    maximized instead of the probability. If the layer ends in a ReLU, its gradient is replaced by a
    leaky slope of 0.1, so that inactive units receive a gradient. At each step the image is
    shifted, rotated and scaled at random, which suppresses high-frequency patterns.

    Parameters
    ----------
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes. It must take images, with any
        number of channels.
    layer : str, int, type or callable
        A single layer, see `actgrid.Extractor`.
    channels : int, str, iterable of int or str, or None, optional
        Channels of the layer, by index, or by class name if the layer has as many channels as
        there are `labels`. None: all channels.
    inputs : mapping of str to array_like, optional
        For a model with several inputs: one sample of each input other than the image, by name.
        These inputs stay constant. None: the image is the only input.
    progress : bool or callable, optional
        Whether to show a progress bar on a terminal; or a function that is called without
        arguments after each step. An exception that the function raises ends the optimization.
    **options
        See `actgrid.options.MaximizeImageOptions`. `preprocess` may be a function of a symbolic
        tensor (N, H, W, C). `size` is by default the fixed input size of the model, or the size of
        the images it was last run on. `image_input` is by default the only image input that
        `inputs` leaves out.

    Returns
    -------
    Maximization
        The images, inputs and activations; also a picture with a tile for each channel.

    Raises
    ------
    LayerError
        If `layer` matches no layer or several layers. Also a KeyError.
    TargetError
        If the layer has no such channel or class. Also a ValueError.
    OptionError
        If an option is invalid, the image size is unknown, or an input is missing in `inputs`.
        Also a ValueError.
    ShapeError
        If the model takes no images, or a sample in `inputs` has the wrong shape. Also a
        ValueError.
    ModelError
        If the model cannot be run on images of this size. Also a ValueError.

    Notes
    -----
    With ``parametrization="fourier"`` the spatial frequencies of the image are optimized, scaled by
    their amplitude in natural photos (1/f), and its colours are decorrelated as in natural photos.
    All frequencies of an image share one step size: with a step size for each frequency, Adam
    enlarges high frequencies to noise. The learning rate decreases to 0 like a cosine.

    With ``parametrization="maco"`` (magnitude-constrained optimization) only the phases of the
    frequencies are optimized. Their magnitudes are those of natural photos: a power law,
    1 / f ** 1.2, in each decorrelated colour, in place of the mean spectrum of ImageNet of the
    paper. Random crops and noise, which `crop` and `noise` set, replace a penalty. The importance
    of each pixel is its `Maximization.transparency`: the sum of its absolute gradients over all
    steps, relative to its 80th percentile.

    With several `variants`, the images of a channel start from different noise and are optimized
    together, so that the Gram matrices of their activations differ (Olah et al., 2017):
    `diversity` is the weight of their mean cosine similarity, whose gradient is scaled to the
    deviation of the activation's gradient. The Gram matrices are those of the layer, or, if it has
    no positions, of the last layer before it that has.

    `total_variation` is relative to the standard deviation of the activation's gradient. Images
    with two or more than four channels, such as multispectral images, are drawn as a row of gray
    tiles, one for each channel, unless `rgb_channels` selects three. All channels use the same
    random numbers: the image of a channel depends neither on the other channels nor on
    `batch_size`, except for rounding. Memory grows with `batch_size`.

    References
    ----------
    Simonyan et al., Deep Inside Convolutional Networks, 2013, https://arxiv.org/abs/1312.6034.
    Olah et al., Feature Visualization, Distill, 2017,
    https://distill.pub/2017/feature-visualization/.
    Fel et al., Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
    Optimization, 2023, https://arxiv.org/abs/2306.06805.

    Examples
    --------
    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(4, activation="softmax", name="head"),
    ... ])
    >>> maximization = actgrid.maximize(model, "head", [0, 2], steps=5)
    >>> maximization.channels.tolist()
    [0, 2]
    >>> maximization.save("classes.png")

    Classes by name, with the embedded ImageNet network:

    >>> actgrid.maximize("demo", "predictions", "Egyptian cat")  # doctest: +SKIP
    <Maximization of predictions: 1 channels, 224 x 224>
    """
    if layer is None:
        raise LayerError("layer must be a layer whose channels are maximized, not None")
    ascent_options = AscentOptions(
        steps=options["steps"],
        learning_rate=options["learning_rate"],
        total_variation=options["total_variation"],
        diversity=options["diversity"],
        seed=options["seed"],
    )
    seed, variants = options["seed"], options["variants"]
    is_maco = options["parametrization"] == "maco"
    network: Any = load_model(model)
    check_compiled(get_network(network), "maximize")
    model_inputs = MaximizationInputs.from_options(network, inputs, options["image_input"])
    parametrization = ImageParametrization.from_options(
        network,
        model_inputs,
        options["parametrization"],
        options["size"],
        options["preprocess"],
        options["rgb_channels"],
    )

    selection = Selection(layer).resolve_predicates(network)
    channel_means = compile_function(network, ChannelMeans(selection))
    noise = parametrization.make_noise(seed, variants)
    noise_inputs = model_inputs.with_image(
        parametrization.parameters_to_model_input(network, noise)
    )
    noise_inputs = prepare_inputs(network, noise_inputs)
    build_model(network, noise_inputs)
    path_tensor, means = channel_means(noise_inputs)
    path, initial_means = path_tensor.numpy().decode(), means.numpy()
    indices = _resolve_channels(network, channels, initial_means.shape[1], path, options["labels"])

    step = compile_function(
        network,
        AscentStep(
            selection,
            parametrization,
            model_inputs.position,
            _choose_transform(options, is_maco),
            variants,
        ),
    )
    # The variants of a channel are optimized together.
    count = max(1, options["batch_size"] // variants)
    chunks = [indices[i : i + count] for i in range(0, len(indices), count)]
    results: list[tuple[Any, ...]] = []
    bar = show_progress(len(chunks) * ascent_options.steps, "maximizing", bool(progress))
    with nullcontext(progress) if callable(progress) else bar as advance:
        for chunk in chunks:
            parameters, importance = ascend(
                step, noise, chunk, ascent_options, model_inputs, advance
            )
            image = parametrization.parameters_to_model_input(network, parameters)
            means = channel_means(model_inputs.with_image(image))[1].numpy()
            activations = means[np.arange(len(means)), np.repeat(chunk, variants)]
            pixels = parametrization.to_pixels(parameters)
            results.append((image.numpy(), pixels, activations, _make_opacity(importance.numpy())))
    values, images, activations, opacity = (
        np.concatenate(parts) for parts in zip(*results, strict=True)
    )
    return Maximization(
        values,
        images,
        path,
        np.repeat(indices, variants),
        activations,
        initial_means[:, indices].T.ravel(),
        options["columns"],
        options["padding"],
        variants,
        opacity if is_maco else None,
    )


def _choose_transform(options: Mapping[str, Any], is_maco: bool) -> RandomTransform:
    """Return the random transform of the options, with the defaults of the parametrization."""
    crop, noise = _MACO_TRANSFORM if is_maco else (1.0, 0.0)
    return RandomTransform(
        options["jitter"],
        options["rotate"],
        options["scale"],
        crop if options["crop"] is None else options["crop"],
        noise if options["noise"] is None else options["noise"],
    )


def _make_opacity(importance: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Convert the importance of pixels, (K, H, W), to their opacity from 0 to 1."""
    highest = np.percentile(importance, _OPAQUE_PERCENTILE, axis=(1, 2), keepdims=True)
    opacity = np.minimum(importance / np.maximum(highest, np.finfo(np.float32).tiny), 1)
    return opacity.astype(np.float32)


def _resolve_channels(
    model: Any, channels: Any, count: int, layer: str, labels: Sequence[str] | str | None
) -> npt.NDArray[np.intp]:
    """Convert channel indices or class names to channel indices. None: all channels."""
    channels = check_option(ChannelOptions, "channels", channels)
    if channels is None:
        return np.arange(count)
    items = list(channels) if is_collection(channels) else [channels]
    if not items:
        raise TargetError("channels is empty: name at least one channel, or leave channels out")
    has_names = any(isinstance(item, str) for item in items)
    names = resolve_labels(model, count, labels) if has_names else None
    indices = [
        find_class_index(item, names) if isinstance(item, str) else check_integer("a channel", item)
        for item in items
    ]
    for index in indices:
        if not 0 <= index < count:
            raise TargetError(f"layer {layer} has the channels 0 to {count - 1}, not {index}")
    return np.array(indices, np.intp)
