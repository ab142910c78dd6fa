"""Keras callback that draws activations after each epoch, as tf-explain does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.callbacks.explanation import ExplanationCallback
from actgrid.compat.tf_explain.core.activations import ExtractActivations

__all__ = ["ActivationsVisualizationCallback"]


class ActivationsVisualizationCallback(ExplanationCallback):
    """Keras callback that writes activations to TensorBoard after each epoch.

    Parameters
    ----------
    validation_data : tuple
        Pair (images, labels); images are (N, height, width, C), labels are ignored and may be None.
    layers_name : list of str
        Name of the layer, in a list.
    output_dir : str or Path, optional
        Parent of the log folder, which is named after the current time.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.callbacks import ActivationsVisualizationCallback
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ...     keras.layers.Activation("softmax"),
    ... ])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> x, y = np.random.rand(4, 8, 8, 3), np.arange(4) % 2
    >>> callback = ActivationsVisualizationCallback((x, None), ["conv"], output_dir="logs")
    >>> history = model.fit(x, y, verbose=0, callbacks=[callback])
    >>> callback.tag
    'Activations Visualization'
    """

    tag = "Activations Visualization"

    def __init__(
        self,
        validation_data: Any,
        layers_name: Iterable[str],
        output_dir: str | Path = Path("./logs/activations_visualizations"),
    ) -> None:
        super().__init__(validation_data, output_dir)
        self.layers_name = layers_name

    def explanation(self) -> npt.NDArray[np.uint8]:
        """Draw the activations of the validation images for the current model.

        Returns
        -------
        ndarray
            Grid of pictures, uint8.
        """
        return ExtractActivations().explain(self.validation_data, self.model, self.layers_name)
