"""Activation maximisation: the inputs that excite a channel or a class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from actgrid.option_checks import integer_option
from actgrid.option_groups import check_option, takes_options
from actgrid.options import ChannelOptions, MaximizeImageOptions
from actgrid.progress import progress as progress_bar
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import lay_out_sheet

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Maximization", "maximize"]


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
    initial_activations
        (K,) float32: the mean activation for the noise that the ascent begins with.
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
    initial_activations: npt.NDArray[np.float32]
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
    inputs
        Values of the model's other inputs, by name, where it takes several: one sample of each.
        They stay as they are: for them, no value would be as good as another.
    progress
        Whether to show a progress bar, on a terminal; or a function that is called after each
        step, and ends all by what it raises.
    **options
        See `actgrid.options.MaximizeImageOptions`. `preprocess` may be a function, of a symbolic
        tensor (N, H, W, C). Without a `size`, images have the model's where that is fixed, or that
        of the images it was last run on. `image_input` is by default the one image that `inputs`
        does not give.

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

    Notes
    -----
    With ``parametrization="fourier"`` the image is changed by its spatial frequencies, each as
    readily as it occurs in photos, and in colours as they go together in photos.
    `total_variation` is a fraction of the typical pull of the activation on a pixel. Images with
    two or more than four channels, as multi-spectral ones, are drawn as a row of gray tiles, one
    for each channel, unless `rgb_channels` names three. The random numbers are the same for all
    channels: a channel's image does not depend on what others are asked for, nor on the batches,
    but for rounding. Memory grows with `batch_size`.

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
    ascent = AscentOptions(
        steps=options["steps"],
        learning_rate=options["learning_rate"],
        total_variation=options["total_variation"],
        transform=RandomTransform(options["jitter"], options["rotate"], options["scale"]),
        seed=options["seed"],
    )
    batch_size, seed = options["batch_size"], options["seed"]
    network: Any = load_model(model)
    check_compiled(network_of(network), "maximize")
    model_inputs = MaximizationInputs.of(network, inputs, options["image_input"])
    canvas = Canvas.of(
        network,
        model_inputs,
        options["parametrization"],
        options["size"],
        options["preprocess"],
        options["rgb_channels"],
    )

    objective = compiled(network, Objective(Selection(layer)))
    gray = model_inputs.with_image(canvas.inputs(network, canvas.noise(seed)))
    gray = prepare_inputs(network, gray)
    build(network, gray)
    found_path, means = objective(gray)
    path, before = found_path.numpy().decode(), means.numpy()[0]
    wanted = _channels(network, channels, len(before), path, options["labels"])

    step = compiled(
        network, AscentStep(Selection(layer), canvas, model_inputs.position, ascent.transform)
    )
    chunks = [wanted[i : i + batch_size] for i in range(0, len(wanted), batch_size)]
    drawn: list[tuple[Any, ...]] = []
    shown = progress_bar(len(chunks) * ascent.steps, "maximising", bool(progress))
    with nullcontext(progress) if callable(progress) else shown as advance:
        for chunk in chunks:
            found = ascend(step, canvas.noise(seed), chunk, ascent, model_inputs, advance)
            image = canvas.inputs(network, found)
            reached = objective(model_inputs.with_image(image))[1].numpy()[
                np.arange(len(chunk)), chunk
            ]
            drawn.append((image.numpy(), canvas.images(found), reached))
    values, images, reached = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    columns, padding = options["columns"], options["padding"]
    return Maximization(values, images, path, wanted, reached, before[wanted], columns, padding)


def _channels(
    model: Any, wanted: Any, count: int, layer: str, labels: Sequence[str] | str | None
) -> npt.NDArray[np.intp]:
    """Return the channels of a layer that are asked for, by number or by the name of a class."""
    wanted = check_option(ChannelOptions, "channels", wanted)
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
