"""`actgrid.explain`: a model, images and a method to heatmaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actgrid.attribution.methods import check_options, find_method
from actgrid.attribution.requests import prepare_request
from actgrid.models.types import LayerLike, ModelInput, ModelLike, TargetLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import ExplainOptions, MethodOptions, RequestOptions
from actgrid.rendering import Heatmap

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["explain"]


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
    request = prepare_request(model, x, target, **pick_options(options, RequestOptions))
    return request.explain(chosen, layer, method_options)
