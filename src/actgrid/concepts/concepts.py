"""The class `actgrid.Concepts`: concepts of a layer, with their importance and best crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.concepts.crops import make_pictures
from actgrid.concepts.factorization import find_coefficients
from actgrid.concepts.layer_outputs import compute_activations, find_layer, prepare_images
from actgrid.models.types import ModelInput
from actgrid.rendering import Heatmap
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import lay_out_sheet
from actgrid.rendering.stats import import_pandas

if TYPE_CHECKING:
    import pandas

__all__ = ["Concepts"]


@dataclass(frozen=True, eq=False, repr=False)
class Concepts(Picture):
    """Concepts of a layer, the most important for the class first.

    `actgrid.find_concepts` returns an instance. As a picture it has a row for each concept: the
    crops that contain most of the concept, and the concept's importance for the class.

    Parameters
    ----------
    bank : ndarray
        (K, C) float32: the concept bank, the activation of each concept in the layer's channels.
    image_indices : ndarray
        (N, K) float64: total Sobol index of each concept for the score of each image.
    crops : ndarray
        (K, M, height, width, 3) uint8: the M crops with the largest coefficients of each concept.
    crop_images : ndarray
        (K, M) int: index of the image of each crop.
    crop_boxes : ndarray
        (K, M, 4) int: top, left, bottom and right of each crop in pixels of the model input.
    layer : str
        Path of the layer.
    model : keras.Model
        The model.
    image_input : int, str or None, optional
        Name or position of the image input of the model.
    batch_size : int, optional
        Number of images in one run of the model.

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
    >>> concepts.bank.shape, len(concepts)
    ((3, 8), 3)
    >>> concepts.explain(images[:2]).values.shape
    (6, 30, 30)
    """

    bank: npt.NDArray[np.float32]
    image_indices: npt.NDArray[np.float64]
    crops: npt.NDArray[np.uint8]
    crop_images: npt.NDArray[np.intp]
    crop_boxes: npt.NDArray[np.int64]
    layer: str
    model: Any
    image_input: int | str | None = None
    batch_size: int = 32

    def __len__(self) -> int:
        return len(self.bank)

    def __repr__(self) -> str:
        concepts, channels = self.bank.shape
        images = len(self.image_indices)
        return (
            f"<Concepts of {self.layer}: {concepts} concepts, {channels} channels, {images} images>"
        )

    @property
    def total_indices(self) -> npt.NDArray[np.float64]:
        """(K,) mean over the images of the total Sobol index of each concept."""
        indices: npt.NDArray[np.float64] = self.image_indices.mean(axis=0)
        return indices

    @property
    def importances(self) -> npt.NDArray[np.float64]:
        """(K,) importance of each concept: its total Sobol index divided by the sum of all."""
        indices = self.total_indices
        return indices / (indices.sum() or 1.0)

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw a row of crops for each concept, with the concept's importance for the class.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        columns = self.crops.shape[1]
        captions = [""] * (len(self) * columns)
        captions[::columns] = self._name_concepts()
        pictures = self.crops.reshape(-1, *self.crops.shape[2:])
        return lay_out_sheet(pictures, columns=columns, captions=captions).to_rgb()

    def _name_concepts(self) -> list[str]:
        return [
            f"concept {index}: {importance:.0%}"
            for index, importance in enumerate(self.importances)
        ]

    def to_records(self) -> list[dict[str, Any]]:
        """Return the importance and the best crops of each concept, for JSON.

        Returns
        -------
        list of dict
            For each concept ``concept`` (its index), ``importance``, ``total_index``, ``images``
            (indices of the images of its best crops) and ``boxes`` (their boxes).
        """
        rows = zip(
            self.importances, self.total_indices, self.crop_images, self.crop_boxes, strict=True
        )
        return [
            {
                "concept": concept,
                "importance": float(importance),
                "total_index": float(index),
                "images": images.tolist(),
                "boxes": boxes.tolist(),
            }
            for concept, (importance, index, images, boxes) in enumerate(rows)
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Convert the importances to a pandas DataFrame with a row for each concept.

        Returns
        -------
        pandas.DataFrame
            Columns: ``importance`` and ``total_index``. Index: ``concept``.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.
        """
        columns = {"importance": self.importances, "total_index": self.total_indices}
        return import_pandas().DataFrame(columns).rename_axis("concept")

    def explain(self, x: ModelInput) -> Heatmap:
        """Map where each concept is in images.

        Parameters
        ----------
        x : array_like, dict, list or image sources
            Images, as `actgrid.explain` takes them.

        Returns
        -------
        Heatmap
            K maps for each image, ordered by image and then by concept: the coefficient of the
            concept at each position of the layer.

        Raises
        ------
        ShapeError
            If the input does not fit the model. Also a ValueError.
        """
        request = prepare_images(
            self.model, x, image_input=self.image_input, batch_size=self.batch_size
        )
        batch = request.batch
        activations = compute_activations(batch, find_layer(batch, self.layer))
        coefficients = find_coefficients(np.maximum(activations, 0), self.bank)
        maps = np.moveaxis(coefficients, -1, 1).reshape(-1, *coefficients.shape[1:3])
        count = len(self)
        pictures = make_pictures(request)
        return Heatmap(
            maps,
            images=np.repeat(pictures.images, count, axis=0),
            boxes=None if pictures.boxes is None else np.repeat(pictures.boxes, count, axis=0),
            labels=self._name_concepts() * len(batch),
            signed=False,
            method="concepts",
            layer=self.layer,
        )
