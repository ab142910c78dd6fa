"""Keras callback that draws Grad-CAM maps after each epoch, as tf-explain does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.callbacks.explanation import ExplanationCallback
from actgrid.compat.tf_explain.core.grad_cam import GradCAM

__all__ = ["GradCAMCallback"]


class GradCAMCallback(ExplanationCallback):
    """Keras callback that writes Grad-CAM maps to TensorBoard after each epoch.

    Parameters
    ----------
    validation_data : tuple
        Pair (images, labels); images are (N, height, width, C), labels are ignored and may be None.
    class_index : int
        Index of the class.
    layer_name : str, optional
        Name of the layer. None: the last layer whose output has 4 axes.
    output_dir : str or Path, optional
        Parent of the log folder, which is named after the current time.
    use_guided_grads : bool, optional
        Whether to use only positive gradients at positive activations.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.callbacks import GradCAMCallback
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ...     keras.layers.Activation("softmax"),
    ... ])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> x, y = np.random.rand(4, 8, 8, 3), np.arange(4) % 2
    >>> callback = GradCAMCallback((x, None), 1, output_dir="logs")
    >>> history = model.fit(x, y, verbose=0, callbacks=[callback])
    >>> callback.tag
    'Grad CAM'
    """

    tag = "Grad CAM"

    def __init__(
        self,
        validation_data: Any,
        class_index: int,
        layer_name: str | None = None,
        output_dir: str | Path = Path("./logs/grad_cam"),
        use_guided_grads: bool = True,
    ) -> None:
        super().__init__(validation_data, output_dir)
        self.class_index = class_index
        self.layer_name = layer_name
        self.use_guided_grads = use_guided_grads

    def explanation(self) -> npt.NDArray[np.uint8]:
        """Draw the Grad-CAM maps of the validation images for the current model.

        Returns
        -------
        ndarray
            Grid of pictures, uint8.
        """
        return GradCAM().explain(
            self.validation_data,
            self.model,
            self.class_index,
            self.layer_name,
            self.use_guided_grads,
        )
