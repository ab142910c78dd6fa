"""Find the concepts of a layer by matrix factorization (CRAFT)."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from actgrid.concepts.concepts import Concepts
from actgrid.concepts.crops import cut_crops, make_boxes, scale_boxes
from actgrid.concepts.factorization import check_activations, factorize, find_coefficients
from actgrid.concepts.importance import measure_importance
from actgrid.concepts.layer_outputs import (
    compute_activations,
    find_layer,
    iterate_crop_outputs,
    prepare_images,
)
from actgrid.errors import OptionError, ShapeError
from actgrid.models.types import LayerLike, ModelInput, ModelLike, TargetLike
from actgrid.option_groups import takes_options
from actgrid.options import FindConceptsOptions

__all__ = ["find_concepts"]


@takes_options(FindConceptsOptions, batch_size=32)
def find_concepts(
    model: ModelLike,
    images: ModelInput,
    layer: LayerLike | None = None,
    target: TargetLike = None,
    **options: Unpack[FindConceptsOptions],
) -> Concepts:
    """Find the concepts of a layer in images of a class, and their importance for the class.

    The images are cut into crops. The activations of the crops in a layer, averaged over the
    positions, are factorized into nonnegative concepts (CRAFT). The importance of a concept is its
    total Sobol index: the concepts of the images are masked at random, the output of the layer is
    rebuilt from them, and the rest of the model computes the score of the class.

    Parameters
    ----------
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes.
    images : array_like, dict, list or image sources
        Images of the class, as `actgrid.explain` takes them: preprocessed arrays (N, H, W, C),
        or image files, a folder or Pillow images, which are prepared for the model.
    layer : str, int or keras.Layer, optional
        Layer of the concepts, with nonnegative activations at several positions: a layer path, an
        index into ``model.layers`` or a Keras layer. None: the last layer with positions, as in
        Grad-CAM.
    target : int, str, callable, list or dict, optional
        The class, as in `actgrid.explain`. None: for each image the class that the model predicts.
    **options
        See `actgrid.options.FindConceptsOptions`.

    Returns
    -------
    Concepts
        The concepts, the most important first; also a picture with a row for each concept.

    Raises
    ------
    OptionError
        If an option is invalid, or there are fewer crops than `concepts`. Also a ValueError.
    TargetError
        If the model has no such class or output. Also a ValueError.
    LayerError
        If `layer` matches no layer or several, or the score does not depend on it. Also a KeyError.
    ShapeError
        If the inputs are not images, the output of the layer has no height and width, or too many
        of its activations are negative. Also a ValueError.
    MissingDependencyError
        If scikit-learn is not installed: ``pip install 'actgrid[explain]'``. Also an ImportError.

    Notes
    -----
    Each crop is resized to the size of the images. Crops are a grid with an overlap of a fifth.
    Activations below zero, as after a GELU, are set to zero; a layer in which they make up more
    than a tenth of all activations is rejected. `samples` determines the accuracy of the
    importances: the part of the model after the layer is run ``samples * (concepts + 2)`` times for
    each image.

    References
    ----------
    Fel et al., CRAFT: Concept Recursive Activation FacTorization for Explainability, 2023,
    https://arxiv.org/abs/2211.10154. The recursive part of the method is not implemented.

    Examples
    --------
    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(4, activation="softmax"),
    ... ])
    >>> images = np.random.default_rng(0).random((6, 32, 32, 3), np.float32)
    >>> concepts = actgrid.find_concepts(model, images, "conv", target=2, concepts=3)
    >>> concepts
    <Concepts of conv: 3 concepts, 8 channels, 6 images>
    >>> concepts.save("concepts.png")
    """
    request = prepare_images(
        model,
        images,
        target,
        labels=options["labels"],
        image_input=options["image_input"],
        batch_size=options["batch_size"],
    )
    batch = request.batch
    info = find_layer(batch, layer)
    if info.kind != "image":
        raise ShapeError(f"layer {info.path} has no height and width: its output is {info.shape}")
    sides = batch.sides
    boxes = make_boxes(sides, options["crop_size"])
    count = options["concepts"]
    crops = len(batch) * len(boxes)
    if crops < count:
        raise OptionError(
            f"concepts must be at most the number of crops: got {count} concepts for {crops} crops "
            f"of {len(batch)} images; pass more images or a smaller crop_size"
        )
    outputs = np.concatenate(list(iterate_crop_outputs(batch, info, scale_boxes(boxes, sides))))
    coefficients, bank = factorize(check_activations(outputs, info.path), count, options["seed"])
    activations = np.maximum(compute_activations(batch, info), 0)
    image_coefficients = find_coefficients(activations, bank)
    indices = measure_importance(batch, info, image_coefficients, bank, options["samples"])
    order = np.argsort(-indices.mean(0), kind="stable")
    shown = min(options["crops"], crops)
    best = np.argsort(-coefficients[:, order], axis=0, kind="stable")[:shown].T
    pictures = cut_crops(request, best, boxes, sides)
    return Concepts(
        bank=bank[order],
        image_indices=indices[:, order],
        crops=pictures,
        crop_images=best // len(boxes),
        crop_boxes=boxes[best % len(boxes)],
        layer=info.path,
        model=batch.model,
        image_input=options["image_input"],
        batch_size=options["batch_size"],
    )
