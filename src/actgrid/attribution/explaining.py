"""Compute attribution maps of a model's predictions by a named method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack, overload

from actgrid.attribution.default_methods import find_default_method
from actgrid.attribution.methods import check_options, find_method
from actgrid.attribution.requests import prepare_request
from actgrid.models.types import LayerLike, ModelInput, ModelLike, TargetLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import ExplainOptions, MethodOptions, RequestOptions
from actgrid.rendering import Attribution, Heatmap

__all__ = ["explain"]


@overload
def explain(
    model: ModelLike,
    x: ModelInput,
    method: str | None = None,
    target: TargetLike = None,
    layer: LayerLike | None = None,
    *,
    inputs: None = None,
    **options: Unpack[ExplainOptions],
) -> Heatmap | Any: ...


@overload
def explain(
    model: ModelLike,
    x: ModelInput,
    method: str | None = None,
    target: TargetLike = None,
    layer: LayerLike | None = None,
    *,
    inputs: str | int | Sequence[str | int],
    **options: Unpack[ExplainOptions],
) -> dict[str, Attribution]: ...


@takes_options(ExplainOptions, batch_size=32)
def explain(
    model: ModelLike,
    x: ModelInput,
    method: str | None = None,
    target: TargetLike = None,
    layer: LayerLike | None = None,
    *,
    inputs: str | int | Sequence[str | int] | None = None,
    **options: Unpack[ExplainOptions],
) -> Attribution | dict[str, Attribution]:
    """Compute an attribution map for each sample of a model's input.

    The samples are images, sequences, volumes, videos, tables or texts.

    Parameters
    ----------
    model : keras.Model, callable or str
        The model to explain, or anything that `actgrid.load_model` takes: for example a function
        from a batch (N, ...) to scores (N, classes), for methods that need only outputs.
    x : array_like, dict, list or image sources
        The model's input, already preprocessed: with its batch axis, or one sample without it.
        Images are (N, H, W, C), sequences (N, T, C), volumes and videos (N, D, H, W, C), tables
        (N, C), with channels last or as the model has them. Or image files or Pillow images, which
        `actgrid.load_images` prepares for the model. Or files of sequences, tables, volumes or
        videos, for a model that takes these. Or texts, for a model that takes strings, or
        with `tokens` for a model that takes indices of tokens. For a model with several inputs, a
        list or dict; see `inputs` and `image_input`.
    method : str, optional
        Name of the attribution method, see Notes. None: gradcam; for a network without gradients
        scorecam, or occlusion if no layer suits.
    target : int, str, callable, list or dict, optional
        The class to explain, by index or name, or a function that computes a score. None: the
        class that the model predicts.

        A list gives a target for each sample; for one sample, it gives several targets. A list of
        N lists gives several targets for each of N samples. There is one map for each target,
        ordered by sample.

        For a model with several outputs, a dict from the name or index of an output to its target,
        ``{"head": 3}``, or a pair ``("head", 3)``. Each output in the dict has a map.

        A function takes the model's output (or the chosen output) and returns one score for each
        sample, (N,), in TensorFlow operations; for regression, segmentation or detection, see
        `actgrid.targets`. A function with two required positional arguments takes the output and
        the input, for instance to explain a reconstruction error: ``lambda outputs, inputs:
        tf.reduce_mean((outputs - inputs) ** 2, (1, 2, 3))``. Pass the same function object in
        repeated calls: each new function is compiled again.
    layer : str, int or keras.Layer, optional
        Layer for class activation maps: a layer path, an index into ``model.layers`` or a Keras
        layer. None: the default layer, see Notes.
    inputs : str, int or sequence of these, optional
        Inputs of the model to explain, each by its name or position: one, several, or ``"all"``.
        All are explained in one pass. None: only one input, `image_input`.
    **options
        See `actgrid.options.ExplainOptions`. Notes list the options of each method.

    Returns
    -------
    Attribution or dict of Attribution
        Without `inputs` an `actgrid.Attribution` of the class for the explained input: a
        `actgrid.Heatmap` for images, and `SequenceAttribution`, `VolumeAttribution`,
        `TableAttribution` and `TextAttribution` of `actgrid.rendering`. With `inputs`, a dict from
        the names of the inputs to their attributions.

        `values` are the maps, (N, ...) float32, with the `axes` of the input, such as
        ``("height", "width")`` or ``("time",)``. They have the size of the input, or of the layer
        for class activation maps (drawing enlarges these). `score` is the model's score for the
        target, before the final softmax or sigmoid if the model ends in one; `is_logit` is True
        then. `details` may have these entries, each a sequence of length N:

        - ``zero_reason``: why a map is zero everywhere, None for other maps; only if a map is zero.
        - ``output``: names of the outputs, for a model with several outputs.
        - integrated_gradients: ``baseline_score``, the score of the baseline, and
          ``convergence_delta``, the difference between the change of the score and the sum of the
          attributions, before `complete` distributes it.
        - deeplift: the same.
        - kernel_shap: ``segments``, ``shapley_values`` of the segments, and ``baseline_score``,
          the score without all segments.
        - lime: ``segments``, the segment of each pixel, step or voxel; ``weights`` and
          ``intercept`` of the linear model; ``r_squared``, its weighted R^2; and ``mask`` (bool),
          the segments that contribute most to the target.

    Raises
    ------
    OptionError
        If an option is unknown or invalid. Also a ValueError.
    TargetError
        If the model has no such class or output, or the target function fails. Also a ValueError.
    ShapeError
        If the input does not fit the model, or the layer's output is not spatial. Also a
        ValueError.
    ModelError
        If the model cannot be run, does not meet the method's needs, or has an operation for which
        deeplift or lrp has no rule. Also a ValueError.
    DtypeError
        If an explained input is not of real numbers. Also a TypeError.
    LayerError
        If `layer` matches no layer or several layers. Also a KeyError.
    MissingDependencyError
        If the packages of lime, kernel_shap or sobol are not installed: ``pip install
        'actgrid[explain]'``. Also an ImportError.

    Warns
    -----
    ZeroAttributionWarning
        If a map is zero everywhere; the message gives the reason. The class is
        ``actgrid.attribution.ZeroAttributionWarning``.

    Notes
    -----
    **Methods**

    ======================== =============================================================
    ``saliency``             gradient of the score (Simonyan 2013)
    ``gradient_x_input``     gradient times the input (Shrikumar 2016)
    ``integrated_gradients`` gradient integrated from a baseline to the input
                             (Sundararajan 2017)
    ``smoothgrad``           gradient averaged over noisy copies of the input (Smilkov 2017)
    ``guided_backprop``      gradient that passes ReLUs only where positive
                             (Springenberg 2014)
    ``attnlrp``              layer-wise relevance propagation, also through attention
                             (Achtibat 2024)
    ``deeplift``             difference of the score from that of a baseline, propagated by the
                             rescale rule (Shrikumar 2017)
    ``lrp``                  layer-wise relevance propagation by the epsilon and gamma rules
                             (Bach 2015, Montavon 2019)
    ``gradient_shap``        expected_gradients with noise added to the input (Lundberg 2017)
    ``expected_gradients``   gradient averaged between background samples and the input
                             (Erion 2019)
    ``square_grad``          squared gradient (Hooker 2019)
    ``vargrad``              variance of the gradient over noisy copies (Adebayo 2018)
    ``smoothgrad_squared``   squared gradient averaged over noisy copies (Hooker 2019)
    ``cam``                  channels before global average pooling, weighted by the dense
                             layer after it (Zhou 2015)
    ``gradcam``              channels of a layer, weighted by their mean gradient
                             (Selvaraju 2016)
    ``gradcam++``            channels of a layer, weighted by their positive gradients
                             (Chattopadhyay 2017)
    ``layercam``             activations of a layer, each weighted by its positive gradient
                             (Jiang 2021)
    ``guided_gradcam``       guided_backprop times gradcam (Selvaraju 2016)
    ``hirescam``             activations of a layer, each weighted by its gradient
                             (Draelos 2020)
    ``xgradcam``             channels of a layer, weighted by their gradient averaged by
                             activation (Fu 2020)
    ``eigencam``             projection of a layer on its first principal component, for no
                             class (Muhammad 2020)
    ``eigengradcam``         the same of gradient times activation (Gildenblat 2021)
    ``smooth_gradcam++``     gradcam++ with gradients averaged over noisy copies
                             (Omeiza 2019)
    ``scorecam``             channels of a layer, weighted by the score of the input masked
                             by the channel (Wang 2019)
    ``sscam``                scorecam averaged over noisy copies of each channel (Wang 2020)
    ``iscam``                scorecam averaged over fractions of each mask (Naidu 2020)
    ``ablationcam``          channels of a layer, weighted by the decrease of the score
                             without the channel (Desai 2020)
    ``attention_rollout``    product of the attention of all layers of a transformer
                             (Abnar 2020)
    ``attention_relevance``  the same, weighted by the gradient of the score at the attention
                             (Chefer 2021)
    ``occlusion``            decrease of the score if a patch is hidden (Zeiler 2013)
    ``rise``                 mean score of random masks that keep a position (Petsiuk 2018)
    ``lime``                 weights of segments in a local linear model (Ribeiro 2016)
    ``kernel_shap``          Shapley values of segments (Lundberg 2017)
    ``sobol``                total-order Sobol indices of cells of a grid (Fel 2021)
    ``hsic``                 dependence of the score on cells of a grid (Novello 2022)
    ======================== =============================================================

    **Options of the methods**, with their defaults:

    gradients
        `reduce`, how the channels are combined: ``"max"`` (of the absolute values), ``"norm"``, or
        ``"sum"``, which keeps the sign and is the default of gradient_x_input, attnlrp, deeplift,
        lrp, integrated_gradients, expected_gradients and gradient_shap. ``"none"`` keeps the
        channels as the last axis of the maps, with sign.
        A table has no channels: each value has its own attribution.
        integrated_gradients: `steps` (50), `baseline` (0), `quadrature` (``"gauss-legendre"`` or
        ``"trapezoid"``), `complete` (True: the convergence delta is distributed over the values in
        proportion to their absolute attributions, so that these sum to the change of the score,
        over all explained inputs together).
        smoothgrad, smoothgrad_squared, vargrad: `samples` (50), `noise` (0.15 of the input's
        range), `seed` (0).
        expected_gradients: `samples` (100), `background` (None: one sample of zeros), `seed`.
        `background` are samples of the input, (B, ...), or for several inputs a dict of these.
        gradient_shap: the same with `samples` (50) and `noise` (0.15).
    propagation
        deeplift: `baseline` (0). lrp: `rule` (``"composite"``), `epsilon` (0.05 of the root mean
        square of a layer's outputs), `gamma` (0.25). ``"epsilon"`` and ``"gamma"`` apply to all
        layers with weights; ``"composite"`` applies gamma to the lower half of the convolutions,
        epsilon to the other convolutions, and LRP-0 to matrix products and grouped convolutions.
        A bias absorbs its share of the relevance.
    class activation maps
        `token_grid`: (h, w), for a layer of (N, T, C) tokens, such as a vision transformer's, if
        the grid cannot be inferred from the patch embedding; leading class tokens are skipped.
        scorecam: `max_channels` (None: all), the number of channels to try, those with the largest
        standard deviation; `baseline` (0), the value of hidden pixels; `weighting`:
        ``"softmax"``, the softmax over the channels of the scores of the masked images, as in the
        paper, or ``"probability"``, the probability of the class for the masked image, as in the
        authors' code. A constant channel has weight 0. sscam and iscam have these options with
        `max_channels` (64), sscam also `samples` (10), `noise` (0.15 of a channel's range) and
        `seed`, and iscam `steps` (10). ablationcam: `max_channels` (None).
        smooth_gradcam++: `samples` (25), `noise` (0.15 of the input's range), `seed`.
    attention
        attention_rollout: `head_fusion` (``"mean"``, ``"max"`` or ``"min"``), how the heads of a
        layer are combined. The maps are those of the tokens from which the score is read: the class
        token, the last token of a language model, or the mean over all tokens.
    occlusion
        `patch` and `stride`, one length or one for each axis: of a box in every dimension. The
        default patch is a seventh of the shorter side of an image, a quarter of a volume, 1/25 of a
        sequence and one feature of a table; the default stride is half of the patch. `baseline`.
        Patches lie completely inside the input and symmetrically from border to border; `stride` is
        the largest distance between neighbours.
    rise
        `samples` (2000) masks of `grid_size` (7) cells along each axis, each cell kept with
        probability `keep_probability` (0.5); `baseline`, `seed`.
    lime
        `segments` (64): approximate number of segments, which are SLIC superpixels of an image,
        intervals of a sequence, blocks of a volume, or the features of a table; or a function that
        segments one sample with channels last; or the segments, (N, ...) integers. `samples`
        (1000), `kernel_width` (0.25), `ridge` (1.0), `features` (5), the number of segments in
        ``mask``, `seed`, `baseline` (None: the mean of each segment, 0 for a table).
    kernel_shap
        `segments` (64) as for lime, `samples` (1000) sets of visible segments, `baseline`
        (``"mean"``), `seed`. If all sets fit into the samples, the Shapley values are exact.
    sensitivity
        sobol and hsic: `grid_size` (8) cells along each axis, `baseline` (``"mean"``), `seed`.
        sobol runs the model (cells + 2) * `samples` (32) times, and hsic `samples` (500) times.

    `baseline` replaces hidden or absent values, in the model's units: a number, one number for each
    channel, an input, or ``"mean"``, the mean over the positions of each sample.

    `labels` may be a dict from outputs to their class names. `image_input` is by default the first
    input of rank 4, in the order of the model's inputs, or else the first input with the most axes;
    inputs in a dict are ordered by their names. `pixels` are (N, height, width, 1 or 3) of any
    size, integers from 0 to 255 or floats, whose range decides the units; or image files or Pillow
    images.

    **Default layer.** The default layer of class activation maps is the last layer, also of nested
    models, whose output

    - lies between the explained input and the score,
    - has as many axes as the input, and corresponds to it in position: it does not follow a
      flattening, and is not attention between the patches of an image,
    - comes from a learned operation that mixes channels or positions, such as a convolution or a
      recurrent layer, so it is not a rescaling, augmentation, normalization or resizing,
    - has more than one position, and is not a pooling, padding, cropping, upsampling or
      permutation. In VGG, this is the last convolution (14 x 14), as in the paper of Grad-CAM, and
      not the pooling after it.

    If the model's output has height and width, as for segmentation, the default layer comes before
    the first enlargement of feature maps, the bottleneck of an encoder-decoder (Vinogradova 2020,
    Seg-Grad-CAM), and before the last convolution. In a transformer, the default layer is the last
    layer of tokens in which the gradient of the patch tokens is not zero.

    **Texts.** Tokens have no gradient. The output of an embedding is explained in their place: the
    first layer whose output is computed from values that the tokens look up in a table, or the
    layer `embedding`. A method of gradients combines the channels of the embedding to one value for
    each token; occlusion hides a token by the baseline. Token strings come from the
    `TextVectorization` or `StringLookup` layer of the model, or from `tokens`. Integers that look
    up nothing are explained as numbers. ``target={"token": " Paris"}`` explains the score of a next
    token, see `actgrid.targets.next_token`. For an image, `embedding` may be a layer whose output
    is explained in its place, such as a patch embedding.

    **Models with one output value.** A model with one output value l before a sigmoid has the
    classes 0 and 1, with the scores -l and l. The same holds for a model compiled with
    ``BinaryCrossentropy(from_logits=True)``, and for one with two `labels` and an unbounded output.
    An output p that is a probability, because the loss is a binary cross-entropy of probabilities
    or because the last operations keep p between 0 and 1, has the scores 1 - p and p. Otherwise the
    output is the score of class 0, as in regression. With several sigmoids, as in multi-label
    classification, each class has its own logit, also if the heads are concatenated. A softmax or
    sigmoid is also recognized before operations that only move its values, or clip them near 0 and
    1.

    **Compilation.** A method is compiled once for each shape of inputs and each target function,
    and cached with the model. Compiled functions use the current weights of the model, but not
    layers that are changed or added later.

    References
    ----------
    Simonyan et al., Deep Inside Convolutional Networks, 2013, https://arxiv.org/abs/1312.6034.
    Selvaraju et al., Grad-CAM, 2016, https://arxiv.org/abs/1610.02391.
    Vinogradova et al., Towards Interpretable Semantic Segmentation via Gradient-weighted Class
    Activation Mapping, 2020, https://arxiv.org/abs/2002.11434.

    Examples
    --------
    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(8, 3, activation="relu"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(4, activation="softmax"),
    ... ])
    >>> images = np.random.default_rng(0).random((2, 32, 32, 3))
    >>> heatmap = actgrid.explain(model, images, method="occlusion", target=1, patch=8)
    >>> heatmap.values.shape
    (2, 32, 32)
    >>> heatmap.target.tolist()
    [1, 1]
    >>> heatmap.save("occlusion.png")

    A sequence has a value for each step:

    >>> layers = [keras.layers.Conv1D(4, 5), keras.layers.GlobalMaxPooling1D()]
    >>> model = keras.Sequential([keras.Input((100, 1)), *layers])
    >>> signal = np.random.default_rng(0).random((1, 100, 1))
    >>> actgrid.explain(model, signal, method="integrated_gradients", target=0)
    <SequenceAttribution 1 map of 100 time, integrated_gradients>
    """
    method_options = pick_options(options, MethodOptions)
    request_options = pick_options(options, RequestOptions)
    if method is not None:
        attribution_method = find_method(method)
        check_options([attribution_method], layer, method_options)
    request = prepare_request(model, x, target, inputs=inputs, **request_options)
    if method is None:
        attribution_method = find_default_method(request.batch.model, layer)
        check_options([attribution_method], layer, method_options)
    attributions = request.explain_all(attribution_method, layer, method_options)
    if inputs is None:
        return attributions[0]
    names = [explained_input.tensor.name for explained_input in request.explained_inputs]
    return dict(zip(names, attributions, strict=True))
