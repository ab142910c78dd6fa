"""Occlusion sensitivity, as in tf-explain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.perturbation import mask_patch, score_masked_images
from actgrid.compat.tf_explain.core.explainer import (
    ClassOutput,
    Explainer,
    check_class_index,
    get_images,
    make_batch,
)
from actgrid.compat.tf_explain.utils.display import VIRIDIS, stack_heatmaps
from actgrid.compat.tf_explain.utils.image import GRAY
from actgrid.models.frameworks import tensorflow
from actgrid.option_checks import check_integer
from actgrid.rendering import Heatmap

__all__ = ["OcclusionSensitivity"]


class OcclusionSensitivity(Explainer):
    """Draws where hiding a part of the image lowers the confidence in a class.

    Parameters
    ----------
    batch_size : int or None, optional
        Number of images in one run of the model. None: 32.

    References
    ----------
    Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013,
    https://arxiv.org/abs/1311.2901.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.core.occlusion_sensitivity import OcclusionSensitivity
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2, activation="softmax"),
    ... ])
    >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    >>> explainer = OcclusionSensitivity()
    >>> explainer.explain((images, None), model, class_index=1, patch_size=4).shape
    (16, 16, 3)
    """

    def __init__(self, batch_size: int | None = None) -> None:
        self.batch_size = batch_size

    def explain(
        self,
        validation_data: Any,
        model: Any,
        class_index: int,
        patch_size: int,
        colormap: int | str = VIRIDIS,
    ) -> npt.NDArray[np.uint8]:
        """Draw the map of 1 - confidence over each image, in a square grid.

        Parameters
        ----------
        validation_data : tuple
            Pair (images, labels); images are (N, height, width, C), labels are ignored and may be
            None.
        model : keras.Model
            The model.
        class_index : int
            Index of the class.
        patch_size : int
            Side of the hidden squares in pixels. The squares do not overlap. They are filled with
            127.5, in the units of the images.
        colormap : int or str, optional
            Number of an OpenCV colormap, or name of a colormap.

        Returns
        -------
        ndarray
            (rows x height, columns x width, 3) uint8. Unlike in tf-explain, images need not be
            square.

        Raises
        ------
        TargetError
            If the model has no such class. Also a ValueError.
        ShapeError
            If the images do not fit the model. Also a ValueError.
        OptionError
            If another argument is invalid. Also a ValueError.
        ModelError
            If the model cannot be run. Also a ValueError.

        Examples
        --------
        >>> import keras
        >>> from actgrid.compat.tf_explain.core.occlusion_sensitivity import OcclusionSensitivity
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2, activation="softmax"),
        ... ])
        >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
        >>> explainer = OcclusionSensitivity()
        >>> grid = explainer.explain((images, None), model, class_index=1, patch_size=4)
        >>> explainer.save(grid, ".", "occlusion_sensitivity.png")
        """
        images = get_images(validation_data)
        maps = self._compute_maps(model, images, class_index, patch_size)
        return stack_heatmaps(list(maps), images, colormap, 0.7)

    def get_sensitivity_map(
        self, model: Any, image: npt.ArrayLike, class_index: int, patch_size: int
    ) -> npt.NDArray[np.float32]:
        """Compute the map of 1 - confidence of one image, resized to the image.

        Parameters
        ----------
        model : keras.Model
            The model.
        image : array_like
            (height, width, C) image.
        class_index : int
            Index of the class.
        patch_size : int
            Side of the hidden squares in pixels.

        Returns
        -------
        ndarray
            (height, width) float32.
        """
        images = np.asarray(image)[None]
        heatmap = Heatmap(self._compute_maps(model, images, class_index, patch_size))
        resized: npt.NDArray[np.float32]
        (resized,) = heatmap.resize(*images.shape[1:3])
        return resized

    def _compute_maps(
        self, model: Any, images: npt.NDArray[Any], class_index: int, patch_size: int
    ) -> npt.NDArray[np.float32]:
        """Compute 1 - confidence for a class with each square of the images hidden.

        Parameters
        ----------
        images
            (N, height, width, C).
        class_index
            Index of the class.
        patch_size
            Side of a square in pixels.

        Returns
        -------
        numpy.ndarray
            (N, rows, columns) float32.
        """
        side = check_integer("patch_size", patch_size, 1)
        score = ClassOutput(check_class_index(class_index))
        batch = make_batch(model, images, score, self.batch_size)
        height, width = batch.sides
        tops, lefts = range(0, height, side), range(0, width, side)
        corners = np.array([(top, left) for top in tops for left in lefts], np.int32)
        tables = tensorflow().constant(corners), tensorflow().constant((side, side))
        scores = score_masked_images(batch, mask_patch, len(corners), GRAY, *tables)
        maps: npt.NDArray[np.float32] = 1 - scores.reshape(-1, len(tops), len(lefts))
        return maps
