"""`actgrid.explain`: a model, images and a method to heatmaps."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.backdrops import (
    Backdrop,
    as_pictures,
    backdrop_of_photos,
    given_backdrop,
)
from actgrid.attribution.method import Method
from actgrid.attribution.methods import check_needs, check_options, find_method
from actgrid.attribution.outputs import binary_evidence, output_names, output_specs
from actgrid.attribution.subjects import Found, Reader, Subject
from actgrid.attribution.targets import (
    PREDICTED,
    head_index,
    names_heads,
    target_rows,
    wanted_classes,
)
from actgrid.errors import DtypeError, OptionError, ShapeError, TargetError
from actgrid.models import load_model
from actgrid.models.data_formats import input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.image_sources import are_images, open_images
from actgrid.models.images import Photo, load_images, load_photos
from actgrid.models.inputs import is_real, position_of, prepare_inputs
from actgrid.models.labels import labels_of
from actgrid.models.tracing import build
from actgrid.models.types import LayerLike, ModelInput, ModelLike, TargetLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.option_types import integer_option
from actgrid.options import ExplainOptions, MethodOptions
from actgrid.rendering import Heatmap

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Labels", "Question", "ZeroAttributionWarning", "ask", "explain"]

# Of the classes, or of those of each of several outputs.
Labels = Sequence[str] | Mapping[Any, Sequence[str]] | None

_NO_GRADIENT = (
    "the gradient of the score with respect to the image is zero, or is stopped on its way"
)


class ZeroAttributionWarning(UserWarning):
    """A map of `explain` is zero everywhere; the message says why."""


@takes_options(ExplainOptions, batch_size=32)
def explain(
    model: ModelLike,
    x: ModelInput,
    method: str = "gradcam",
    target: TargetLike = None,
    layer: LayerLike | None = None,
    **options: Unpack[ExplainOptions],
) -> Heatmap:
    """Tell what part of each image makes the model's score for a target.

    Parameters
    ----------
    model
        A Keras model of any kind, or anything that `actgrid.load_model` takes.
    x
        The model's input with its batch axis, already preprocessed, or one image without;
        or image files or Pillow images, which `actgrid.load_images` prepares for this model. Of
        several inputs, in a list or dict, one is the image that is explained.
    method
        ======================== =============================================================
        ``saliency``             gradient of the score (Simonyan 2013)
        ``gradient_x_input``     times the input (Shrikumar 2016)
        ``integrated_gradients`` integrated from a baseline: sums to the score's rise from there
                                 (Sundararajan 2017)
        ``smoothgrad``           averaged over noisy copies (Smilkov 2017)
        ``guided_backprop``      through ReLUs only where positive (Springenberg 2014)
        ``cam``                  channels before global averaging, weighed by the dense layer
                                 after it (Zhou 2015)
        ``gradcam``              channels of a layer, weighed by their mean gradient
                                 (Selvaraju 2016)
        ``gradcam++``            by their positive gradients (Chattopadhyay 2017)
        ``scorecam``             by the score of the image where they are active (Wang 2019)
        ``layercam``             each value by its own positive gradient (Jiang 2021)
        ``guided_gradcam``       guided_backprop times gradcam (Selvaraju 2016)
        ``occlusion``            fall of the score where a patch is hidden (Zeiler 2013)
        ``rise``                 mean score where a pixel is seen in random masks (Petsiuk 2018)
        ``lime``                 weights of superpixels in a local linear model (Ribeiro 2016)
        ======================== =============================================================
    target
        What is explained: None, the predicted class; a class's index or name; a list of these, one
        for each image; for one image a list of several, or for N images a list of N lists: a map
        for each, image by image. For a model with several outputs a dict by the name or position
        of the output, ``{"head": 3}``, or a pair ``("head", 3)``; each output in a dict has a map.
        A function in place of the class is called with this output alone.

        Or a function of the model's output, in TensorFlow's operations, that gives one score for
        each image, (N,): for regression, segmentation, detection. A function that needs two
        positional arguments is called with the output and the input, as for the loss of a
        reconstruction: ``lambda outputs, inputs: tf.reduce_mean((outputs - inputs) ** 2,
        (1, 2, 3))``. Pass the same function each time: one is compiled for each.
    layer
        For class activation maps: a layer path, a Keras layer, or an index into
        ``model.layers``; None: the default layer, see Notes.
    **options
        See `actgrid.options.ExplainOptions`; which of them a method takes is told in Notes.

    Returns
    -------
    Heatmap
        `values` are (N, H, W) float32, of the image's size, or the layer's for class activation
        maps (drawing enlarges them). `score` is the model's score for the target, read before
        the softmax or sigmoid if the model ends in one (`is_logit` tells).
        `details` has ``zero_reason``, for each map why it is zero everywhere, if one is;
        ``output``, the names of the outputs, if the model has several; and further results: of
        integrated_gradients ``baseline_score`` and ``convergence_delta``, what the steps miss
        of the rise of the score; of lime, for each
        image, ``segments`` (H, W), ``weights`` and ``intercept`` of the linear model,
        ``r_squared``, its weighted R^2, and ``mask`` (H, W), the superpixels that contribute most
        to the target.

    Raises
    ------
    OptionError, TargetError, ShapeError, ModelError
        If an option, the target, the input or the model cannot be used, and why. ValueErrors.
    DtypeError
        If the input is not of real numbers. Also a TypeError.
    LayerError
        If the layer is none, or not one of the model's. Also a KeyError.
    MissingDependencyError
        If lime's packages are not there: ``pip install 'actgrid[explain]'``. Also an ImportError.

    Warns
    -----
    ZeroAttributionWarning
        If a map is zero everywhere, and why. Its class is
        ``actgrid.attribution.ZeroAttributionWarning``.

    Notes
    -----
    `labels` may be a dict of those of several outputs. `image_input` is by default the first input
    of rank 4, in the order of the model's inputs; inputs in a dict are ordered by their names.
    `pixels` are (N, height, width, 1 or 3) of any size, integers from 0 to 255 or floats, whose
    range tells the units; or image files or Pillow images.

    Options of the methods, with their defaults:

    gradients
        `reduce`: ``"max"`` (of the absolute values over the image's channels), ``"norm"`` or
        ``"sum"``, which keeps the sign, and is the default where the sum means something.
        integrated_gradients: `steps` (50), `baseline` (0), `quadrature`
        (``"gauss-legendre"`` or ``"trapezoid"``), `complete` (True: what the steps miss of
        the score's rise is spread over the pixels in proportion to what they have).
        smoothgrad: `samples` (50), `noise` (0.15 of the image's range), `seed` (0).
    class activation maps
        `token_grid`: (h, w), for a layer of (N, T, C) tokens, such as a vision transformer's;
        leading class tokens are skipped. scorecam: `max_channels` (None: all), the number of
        channels to try, those that vary most; `baseline` (0), in whose place the image is seen
        where a channel is active; `weighting`, what weighs a channel:
        ``"softmax"``, the softmax over the channels of the class's score for these images, as
        in the paper, or ``"probability"``, the class's probability for its image, as in its
        authors' code. A channel that is constant has no mask, and no weight.
    occlusion
        `patch` (None: a seventh of the shorter side) and `stride` (None: half of the patch),
        in pixels or (height, width); `baseline`. Patches are whole and lie symmetrically from
        border to border: `stride` is the most that two neighbours are apart.
    rise
        `samples` (2000) masks of `grid_size` x `grid_size` (7) cells, each cell seen with
        probability `keep_probability` (0.5); `baseline`, `seed`.
    lime
        `segments` (64): about how many superpixels SLIC makes, or a function of an image
        (H, W, C), or their numbers, (N, H, W) integers; `samples` (1000), `kernel_width`
        (0.25), `ridge` (1.0), `features` (5) in the mask, `seed`, `baseline` (None: the mean
        colour of each superpixel).

    `baseline` is what stands for nothing, in the model's units: a number, one for each
    channel, an image, or ``"mean"``, each image's mean colour.

    The default layer of class activation maps is the last one, in nested models too, whose output

    - lies on the way from the explained image to the score,
    - corresponds in space with the image: it does not come after a flattening, and is no
      attention between tokens,
    - comes from a learned operation that mixes channels or pixels, such as a convolution, so that
      it is no rescaling, augmentation, normalization or resizing,
    - is not 1 x 1, and no pooling, padding, cropping, upsampling or permutation: the last
      convolution of VGG (14 x 14), as in Grad-CAM's paper, and not the pooling after it.

    If the model's output itself has height and width, as for segmentation, the default layer comes
    before the first enlargement of feature maps, which is the bottleneck of an encoder-decoder
    (Vinogradova 2020, Seg-Grad-CAM), and before the last convolution. With `token_grid` the default
    layer is the last layer of tokens in which the gradient by the patches is not zero.

    A model with one output value l before a sigmoid has the classes 0 and 1, whose scores are -l
    and l. So has a model whose one value is a logit because the model was compiled with
    ``BinaryCrossentropy(from_logits=True)``, or because two `labels` are given and nothing bounds
    the value. A value p that is a probability, by a binary cross-entropy of probabilities or
    because the last operations keep it between 0 and 1, has the scores 1 - p and p. Otherwise one
    value is the score of class 0, as in regression. Of several sigmoids, as for several labels,
    each class has its own logit, also if their heads are concatenated. A softmax or sigmoid is also
    seen if operations follow that only move its values, or clip them near 0 and 1.

    Each method is one compiled function for a shape of images and a target function; functions
    are kept with the model. They see new weights, but no layer that is changed or put into the
    model later.

    Examples
    --------
    >>> heatmap = actgrid.explain("demo", actgrid.demo.photo(), target="tabby")
    >>> heatmap.values.shape
    (1, 7, 7)
    >>> heatmap.save("tabby.png")
    """
    chosen = find_method(method)
    method_options = pick_options(options, MethodOptions)
    check_options([chosen], layer, method_options)
    question = ask(
        model,
        x,
        target,
        options["labels"],
        options["image_input"],
        options["batch_size"],
        options["pixels"],
    )
    return question.explain(chosen, layer, method_options)


@dataclass(frozen=True, eq=False)
class HeadQuestion:
    """Images and classes of one output of the model.

    Attributes
    ----------
    rows
        Which of all maps these are.
    head
        The name of the output; None if the model has one, or the target is a function.
    labels
        Names of the classes, if any were given.
    """

    subject: Subject
    rows: Sequence[int]
    head: str | None
    labels: Sequence[str] | None


@dataclass(frozen=True, eq=False)
class Question:
    """Images, a model and a target, for any method.

    Attributes
    ----------
    heads
        What is asked of each output of the model that is explained.
    backdrop
        What the maps are drawn over; None if the images have too many channels to be seen.
    """

    heads: tuple[HeadQuestion, ...]
    backdrop: Backdrop | None

    @property
    def subject(self) -> Subject:
        """The images and classes of the first output."""
        return self.heads[0].subject

    def explain(
        self,
        method: Method,
        layer: LayerLike | None,
        options: Mapping[str, Any],
        *,
        warn: bool = True,
    ) -> Heatmap:
        """Return what a method says, of a layer if it looks at one.

        Parameters
        ----------
        warn
            Whether to warn of maps that are zero everywhere; `details` has the reasons anyway.
        """
        check_needs([method], self.subject.model)
        chosen = {**options, "layer": layer} if method.takes_layer else options
        found = [
            (head, method.run(group, **chosen))
            for head in self.heads
            for group in head.subject.groups()
        ]
        reasons = _zero_reasons([part for _, part in found])
        if warn:
            _warn_of_zeros(reasons, method.name)
        rows = [row for head in self.heads for row in head.rows]
        return _heatmap(found, np.argsort(rows), self.backdrop, method.name, reasons)

    def decided(self) -> Question:
        """Return the same of the classes that are predicted, where none was named."""
        heads = []
        for head in self.heads:
            classes = [group.read().classes for group in head.subject.groups()]
            wanted = tensorflow().constant(np.concatenate(classes))
            heads.append(replace(head, subject=replace(head.subject, wanted=wanted)))
        return replace(self, heads=tuple(heads))


def ask(
    model: ModelLike,
    x: ModelInput,
    target: TargetLike = None,
    labels: Labels = None,
    image_input: int | str | None = None,
    batch_size: int = 32,
    pixels: ModelInput | None = None,
    progress: Callable[[int, int], object] | None = None,
    any_rank: bool = False,
) -> Question:
    """Return what is to be explained; see `explain`.

    Parameters
    ----------
    pixels
        As in `explain`.
    progress
        Called before each run of the model with the numbers of finished samples and of all samples
        of this pass. What it raises ends the computation.
    any_rank
        Whether the input that `image_input` names may have any rank, for methods that need no
        image. It has its batch axis then.
    """
    batch_size = integer_option("batch_size", batch_size, 1)
    model = load_model(model)
    tf = tensorflow()
    photos: list[Photo] = []
    if are_images(x):
        sources = open_images(x)
        x = load_images(sources, model=model)
        photos = load_photos(sources, model=model)
    with tf.device("CPU"):  # a GPU is to hold a batch of them, not all
        inputs = prepare_inputs(model, x, single=not any_rank)
    build(model, inputs)
    tensors = tf.nest.flatten(inputs)
    position = _image_position(model, inputs, image_input, any_rank)
    image = tensors[position]
    if not is_real(image.dtype):
        raise DtypeError(f"images must be real numbers, not {image.dtype.name}")
    with tf.device("CPU"):
        # Integers have no gradients, and no part between two of them.
        tensors[position] = image = tf.cast(image, tf.float32)
        finite = bool(tf.reduce_all(tf.math.is_finite(image)))
    if 0 in image.shape:
        raise ShapeError(f"images of shape {tuple(image.shape)} are empty: nothing to explain")
    counts = [len(tensor) for tensor in tensors if tensor is not None]
    if len(set(counts)) > 1:
        raise ShapeError(f"the inputs must be of as many samples each, not {counts}")
    if not finite:
        raise OptionError("the images have NaN or infinite values, which no map could explain")
    reader = Reader(position, input_data_format(model, position) == "channels_first", None)
    subject = Subject(
        model,
        tf.nest.pack_sequence_as(inputs, tensors),
        tf.fill([image.shape[0]], PREDICTED),
        reader,
        batch_size,
        progress,
    )
    backdrop = None
    if pixels is not None:
        backdrop = given_backdrop(pixels, len(subject))
    elif photos:
        backdrop = backdrop_of_photos(photos)
    elif len(image.shape) == 4:
        values = np.asarray(image)
        pictures = as_pictures(np.moveaxis(values, 1, -1) if reader.channels_first else values)
        backdrop = None if pictures is None else Backdrop(pictures, None)
    heads, images = _head_questions(subject, target, labels)
    return Question(heads, None if backdrop is None else backdrop.repeated(images))


def _head_questions(
    subject: Subject, target: TargetLike, labels: Labels
) -> tuple[tuple[HeadQuestion, ...], list[int]]:
    """Return a question for each output that is explained, and the image of each map."""
    model = subject.model
    # Models that do not tell their outputs are traced for them only if these are named.
    named = isinstance(labels, Mapping) or names_heads(target)
    if named or hasattr(model, "_outputs_struct"):
        names = output_names(model, output_specs(model, subject.inputs))
    else:
        names = ["output"]
    rows = target_rows(target, len(subject), names)
    labels_by_head = (
        {head_index(name, names): known for name, known in labels.items()}
        if isinstance(labels, Mapping)
        else dict.fromkeys(range(len(names)), labels)
    )
    heads = []
    scores = [row.target if callable(row.target) else None for row in rows]
    for score in scores:
        if not isinstance(score, Hashable | None):
            raise TargetError(
                "a target function must be hashable, as its compiled function is kept for the next "
                f"call: got {score!r}; give a plain function"
            )
    sources = [(row.head, score) for row, score in zip(rows, scores, strict=True)]
    for head, score in dict.fromkeys(sources):
        chosen = [index for index, each in enumerate(sources) if each == (head, score)]
        known = labels_by_head.get(head or 0) if score is None else None
        name = names[head or 0] if len(names) > 1 else None
        evidence = binary_evidence(model, names, head or 0, known)
        reader = replace(subject.reader, score=score, head=head, evidence=evidence, output=name)
        part = replace(subject, reader=reader)
        targets = [rows[index].target if score is None else None for index in chosen]
        class_names = None
        if known is not None or any(isinstance(target, str) for target in targets):
            class_names = labels_of(model, int(next(part.groups()).read().count), known)
        part = part.rows(
            [rows[index].image for index in chosen], wanted_classes(targets, class_names)
        )
        heads.append(HeadQuestion(part, chosen, name, known))
    return tuple(heads), [row.image for row in rows]


def _image_position(
    model: Any, inputs: Any, chosen: int | str | None, any_rank: bool = False
) -> int:
    """Return which of the inputs is the image, in the order of TensorFlow's nests."""
    tensors = tensorflow().nest.flatten(inputs)
    shapes = [None if tensor is None else tuple(tensor.shape) for tensor in tensors]
    images = [position for position, shape in enumerate(shapes) if shape and len(shape) == 4]
    if chosen is None:
        position = images[0] if images else None
    elif isinstance(chosen, str):
        position = position_of(model, inputs, chosen)
    else:
        position = integer_option("image_input", chosen, 0)
    if position is None or position not in (range(len(shapes)) if any_rank else images):
        raise ShapeError(
            "only images are explained, (N, H, W, C): the model's input is "
            + ", ".join(map(str, shapes))
        )
    return position


def _zero_reasons(found: Sequence[Found]) -> list[str | None]:
    """Return of each map why it is zero everywhere; None if it is not."""
    reasons: list[str | None] = []
    for group in found:
        for index, value in enumerate(group.values):
            reason = group.zero_reasons[index] if group.zero_reasons else _NO_GRADIENT
            reasons.append(None if value.any() else reason)
    return reasons


def _warn_of_zeros(reasons: Sequence[str | None], method: str) -> None:
    """Warn of maps that are zero everywhere, and say why they are."""
    for reason, count in Counter(filter(None, reasons)).items():
        text = f"{method}: {count} of {len(reasons)} maps are zero everywhere: {reason}"
        warnings.warn(text, ZeroAttributionWarning, stacklevel=4)


def _heatmap(
    found: Sequence[tuple[HeadQuestion, Found]],
    order: npt.NDArray[np.intp],
    backdrop: Backdrop | None,
    method: str,
    zero_reasons: Sequence[str | None],
) -> Heatmap:
    """Return what was found of groups of images as one heatmap.

    Parameters
    ----------
    order
        For each map of the heatmap, which of the found it is.
    """
    parts = [part for _, part in found]
    first = parts[0]
    shapes = {part.values.shape[1:]: f"{part.layer} {part.values.shape[1:]}" for part in parts}
    if len(shapes) > 1:
        raise ShapeError(
            f"maps of several outputs must have one size, not those of {', '.join(shapes.values())}"
            ": name one layer, or explain one output at a time"
        )
    names: list[str] = []
    is_named = False
    for head, part in found:
        known = None
        if part.reading.count:
            known = labels_of(head.subject.model, int(part.reading.count), head.labels)
            is_named = is_named or known is not None
        score = head.subject.reader.score
        for index in part.reading.classes:
            if score is not None:
                names.append(getattr(score, "__name__", type(score).__name__))
            else:
                names.append(str(index) if known is None else known[index])
    details: dict[str, list[Any]] = {
        name: [entry for part in parts for entry in part.details[name]] for name in first.details
    }
    if any(zero_reasons):
        details["zero_reason"] = list(zero_reasons)
    if found[0][0].head is not None:
        details["output"] = [head.head for head, part in found for _ in part.values]
    return Heatmap(
        np.concatenate([part.values for part in parts])[order],
        images=None if backdrop is None else backdrop.images,
        boxes=None if backdrop is None else backdrop.boxes,
        target=(
            np.concatenate([part.reading.classes for part in parts])[order]
            if any(part.reading.count for part in parts)
            else None
        ),
        labels=[names[index] for index in order] if is_named else None,
        score=np.concatenate([part.reading.scores for part in parts])[order],
        signed=first.signed,
        method=method,
        layer=", ".join(dict.fromkeys(part.layer for part in parts)) or None,
        is_logit=all(bool(part.reading.is_logit) for part in parts),
        details={name: [entries[index] for index in order] for name, entries in details.items()},
    )
