"""Keras callback that draws SmoothGrad maps after each epoch, as tf-explain does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.callbacks.explanation import ExplanationCallback
from actgrid.compat.tf_explain.core.smoothgrad import SmoothGrad

__all__ = ["SmoothGradCallback"]


class SmoothGradCallback(ExplanationCallback):
    """Keras callback that writes SmoothGrad maps to TensorBoard after each epoch.

    Parameters
    ----------
    validation_data : tuple
        Pair (images, labels); images are (N, height, width, C), labels are ignored and may be None.
    class_index : int
        Index of the class.
    num_samples : int, optional
        Number of noisy copies of each image.
    noise : float, optional
        Standard deviation of the noise, in the units of the images.
    output_dir : str or Path, optional
        Parent of the log folder, which is named after the current time.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.callbacks import SmoothGradCallback
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ...     keras.layers.Activation("softmax"),
    ... ])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> x, y = np.random.rand(4, 8, 8, 3), np.arange(4) % 2
    >>> callback = SmoothGradCallback((x, None), 1, output_dir="logs")
    >>> history = model.fit(x, y, verbose=0, callbacks=[callback])
    >>> callback.tag
    'SmoothGrad'
    """

    tag = "SmoothGrad"

    def __init__(
        self,
        validation_data: Any,
        class_index: int,
        num_samples: int = 5,
        noise: float = 1.0,
        output_dir: str | Path = Path("./logs/smoothgrad"),
    ) -> None:
        super().__init__(validation_data, output_dir)
        self.class_index = class_index
        self.num_samples = num_samples
        self.noise = noise

    def explanation(self) -> npt.NDArray[np.uint8]:
        """Draw the SmoothGrad maps of the validation images for the current model.

        Returns
        -------
        ndarray
            Grid of pictures, uint8.
        """
        return SmoothGrad().explain(
            self.validation_data, self.model, self.class_index, self.num_samples, self.noise
        )
