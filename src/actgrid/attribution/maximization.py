"""Activation maximisation: the inputs that excite a channel or a class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.ascent import AscentOptions, AscentStep, Objective, ascend
from actgrid.attribution.canvas import Canvas
from actgrid.attribution.compiled import compiled
from actgrid.attribution.maximization_inputs import MaximizationInputs
from actgrid.attribution.random_transforms import RandomTransform
from actgrid.attribution.targets import are_several
from actgrid.errors import (
    LayerError,
    OptionError,
    TargetError,
)
from actgrid.models.inputs import prepare_inputs
from actgrid.models.labels import class_index, labels_of
from actgrid.models.layers import Selection
from actgrid.models.loading import load_model
from actgrid.models.network import check_compiled
from actgrid.models.networks import network_of
from actgrid.models.tracing import build
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_groups import check_option
from actgrid.option_types import integer_option, number_option
from actgrid.options import SheetOptions
from actgrid.progress import progress as progress_bar
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import lay_out_sheet

__all__ = ["PARAMETRIZATIONS", "Maximization", "check_options", "maximize"]

PARAMETRIZATIONS = ("fourier", "pixel")


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
    model_inputs = MaximizationInputs.of(network, inputs, image_input)
    canvas = Canvas.of(network, model_inputs, parametrization, size, preprocess, rgb_channels)

    objective = compiled(network, Objective(Selection(layer)))
    gray = model_inputs.with_image(canvas.inputs(network, canvas.noise(seed)))
    gray = prepare_inputs(network, gray)
    build(network, gray)
    found_path, means = objective(gray)
    path, before = found_path.numpy().decode(), means.numpy()[0]
    wanted = _channels(network, channels, len(before), path, labels)

    step = compiled(
        network, AscentStep(Selection(layer), canvas, model_inputs.position, options.transform)
    )
    chunks = [wanted[i : i + batch_size] for i in range(0, len(wanted), batch_size)]
    drawn: list[tuple[Any, ...]] = []
    shown = progress_bar(len(chunks) * steps, "maximising", bool(progress))
    with nullcontext(progress) if callable(progress) else shown as advance:
        for chunk in chunks:
            found = ascend(step, canvas.noise(seed), chunk, options, model_inputs, advance)
            image = canvas.inputs(network, found)
            reached = objective(model_inputs.with_image(image))[1].numpy()[
                np.arange(len(chunk)), chunk
            ]
            drawn.append((image.numpy(), canvas.images(found), reached))
    values, images, reached = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return Maximization(values, images, path, wanted, reached, before[wanted], columns, padding)


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
) -> AscentOptions:
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
    return AscentOptions(
        steps=integer_option("steps", steps, 1),
        learning_rate=number_option("learning_rate", learning_rate),
        total_variation=number_option("total_variation", total_variation),
        transform=RandomTransform(
            number_option("jitter", jitter), number_option("rotate", rotate), scale
        ),
        seed=integer_option("seed", seed, 0, 2**31 - 1),
    )


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
