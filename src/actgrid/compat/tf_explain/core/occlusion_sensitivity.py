"""Occlusion."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.perturbation import masked_scores, outside_patch
from actgrid.compat.tf_explain.core.explainer import (
    ClassOutput,
    Explainer,
    batch_of,
    class_number,
    images_of,
)
from actgrid.compat.tf_explain.utils.display import VIRIDIS, stacked
from actgrid.compat.tf_explain.utils.image import GRAY
from actgrid.models.frameworks import tensorflow
from actgrid.option_checks import integer_option
from actgrid.rendering import Heatmap

__all__ = ["OcclusionSensitivity"]


class OcclusionSensitivity(Explainer):
    """Shows where hiding a part of the image lowers the model's confidence in a class.

    Parameters
    ----------
    batch_size
        How many images the model runs on at once; None: 32.

    References
    ----------
    Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013,
    https://arxiv.org/abs/1311.2901.
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
        """Return the map of 1 - confidence over each image, in a square grid.

        Parameters
        ----------
        validation_data
            (images, labels or None); images may be a list of arrays of one size.
        model
            A Keras model.
        class_index
            The class.
        patch_size
            Side of the square that is hidden, in pixels; squares lie side by side. They are filled
            with 127.5, in whatever units the images are.
        colormap
            OpenCV's number of it, or any by its name.

        Returns
        -------
        numpy.ndarray
            (rows x height, columns x width, 3) uint8. Images need not be square, unlike in
            tf-explain.

        Raises
        ------
        TargetError, ShapeError, OptionError, ModelError
            If an argument cannot be used. ValueErrors.

        Examples
        --------
        >>> explainer = OcclusionSensitivity()
        >>> grid = explainer.explain((images, None), model, class_index=281, patch_size=20)
        >>> explainer.save(grid, ".", "occlusion_sensitivity.png")
        """
        images = images_of(validation_data)
        maps = self._maps(model, images, class_index, patch_size)
        return stacked(list(maps), images, colormap, 0.7)

    def get_sensitivity_map(
        self, model: Any, image: npt.ArrayLike, class_index: int, patch_size: int
    ) -> npt.NDArray[np.float32]:
        """Return the map of 1 - confidence of one image, enlarged to its size.

        Parameters
        ----------
        image
            (height, width, C).
        model, class_index, patch_size
            As for `explain`.

        Returns
        -------
        numpy.ndarray
            (height, width) float32.
        """
        images = np.asarray(image)[None]
        enlarged: npt.NDArray[np.float32]
        (enlarged,) = Heatmap(self._maps(model, images, class_index, patch_size)).resized(
            *images.shape[1:3]
        )
        return enlarged

    def _maps(
        self, model: Any, images: npt.NDArray[Any], class_index: int, patch_size: int
    ) -> npt.NDArray[np.float32]:
        """Return 1 - confidence behind each square, (N, rows, columns)."""
        side = integer_option("patch_size", patch_size, 1)
        score = ClassOutput(class_number(class_index))
        batch = batch_of(model, images, score, self.batch_size)
        height, width = batch.sides
        tops, lefts = range(0, height, side), range(0, width, side)
        corners = np.array([(top, left) for top in tops for left in lefts], np.int32)
        tables = tensorflow().constant(corners), tensorflow().constant((side, side))
        scores = masked_scores(batch, outside_patch, len(corners), GRAY, *tables)
        maps: npt.NDArray[np.float32] = 1 - scores.reshape(-1, len(tops), len(lefts))
        return maps
