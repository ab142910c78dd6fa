"""Keras callback that draws gradients after each epoch, as tf-explain does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.callbacks.explanation import ExplanationCallback
from actgrid.compat.tf_explain.core.vanilla_gradients import VanillaGradients

__all__ = ["VanillaGradientsCallback"]


class VanillaGradientsCallback(ExplanationCallback):
    """Keras callback that writes gradients with respect to images to TensorBoard.

    Parameters
    ----------
    validation_data : tuple
        Pair (images, labels); images are (N, height, width, C), labels are ignored and may be None.
    class_index : int
        Index of the class.
    output_dir : str or Path, optional
        Parent of the log folder, which is named after the current time. None:
        ``logs/vanilla_gradients``.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.callbacks import VanillaGradientsCallback
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ...     keras.layers.Activation("softmax"),
    ... ])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> x, y = np.random.rand(4, 8, 8, 3), np.arange(4) % 2
    >>> callback = VanillaGradientsCallback((x, None), 1, output_dir="logs")
    >>> history = model.fit(x, y, verbose=0, callbacks=[callback])
    >>> callback.tag
    'VanillaGradients'
    """

    explainer = VanillaGradients()
    default_output_subdir = "vanilla_gradients"

    def __init__(
        self, validation_data: Any, class_index: int, output_dir: str | Path | None = None
    ) -> None:
        super().__init__(validation_data, output_dir or Path("logs", self.default_output_subdir))
        self.tag = type(self.explainer).__name__
        self.class_index = class_index
        self.score_model: Any = None

    def set_model(self, model: Any) -> None:
        """Set the model to explain; Keras calls this method when training begins.

        Parameters
        ----------
        model : keras.Model
            The trained model.
        """
        super().set_model(model)
        self.score_model = self.explainer.get_score_model(model)

    def explanation(self) -> npt.NDArray[np.uint8]:
        """Draw the gradients of the validation images for the current model.

        Returns
        -------
        ndarray
            Grid of pictures, uint8.
        """
        return self.explainer.explain_score_model(
            self.validation_data, self.score_model, self.class_index
        )
