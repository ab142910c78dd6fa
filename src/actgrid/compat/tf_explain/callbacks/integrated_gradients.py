"""Keras callback that draws integrated gradients after each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.callbacks.explanation import ExplanationCallback
from actgrid.compat.tf_explain.core.integrated_gradients import IntegratedGradients

__all__ = ["IntegratedGradientsCallback"]


class IntegratedGradientsCallback(ExplanationCallback):
    """Keras callback that writes integrated gradients to TensorBoard after each epoch.

    Parameters
    ----------
    validation_data : tuple
        Pair (images, labels); images are (N, height, width, C), labels are ignored and may be None.
    class_index : int
        Index of the class.
    n_steps : int, optional
        Number of images on the path, including both ends; at least 2.
    output_dir : str or Path, optional
        Parent of the log folder, which is named after the current time.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.callbacks import IntegratedGradientsCallback
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ...     keras.layers.Activation("softmax"),
    ... ])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> x, y = np.random.rand(4, 8, 8, 3), np.arange(4) % 2
    >>> callback = IntegratedGradientsCallback((x, None), 1, output_dir="logs")
    >>> history = model.fit(x, y, verbose=0, callbacks=[callback])
    >>> callback.tag
    'IntegratedGradients'
    """

    tag = "IntegratedGradients"

    def __init__(
        self,
        validation_data: Any,
        class_index: int,
        n_steps: int = 5,
        output_dir: str | Path = Path("./logs/integrated_gradients"),
    ) -> None:
        super().__init__(validation_data, output_dir)
        self.class_index = class_index
        self.n_steps = n_steps

    def explanation(self) -> npt.NDArray[np.uint8]:
        """Draw the integrated gradients of the validation images for the current model.

        Returns
        -------
        ndarray
            Grid of pictures, uint8.
        """
        return IntegratedGradients().explain(
            self.validation_data, self.model, self.class_index, self.n_steps
        )
