"""Keras callback that draws gradient times input after each epoch."""

from __future__ import annotations

from actgrid.compat.tf_explain.callbacks.vanilla_gradients import VanillaGradientsCallback
from actgrid.compat.tf_explain.core.gradients_inputs import GradientsInputs

__all__ = ["GradientsInputsCallback"]


class GradientsInputsCallback(VanillaGradientsCallback):
    """Keras callback that writes gradient times input to TensorBoard after each epoch.

    Parameters
    ----------
    validation_data : tuple
        Pair (images, labels); images are (N, height, width, C), labels are ignored and may be None.
    class_index : int
        Index of the class.
    output_dir : str or Path, optional
        Parent of the log folder, which is named after the current time. None:
        ``logs/gradients_inputs``.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.callbacks import GradientsInputsCallback
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ...     keras.layers.Activation("softmax"),
    ... ])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> x, y = np.random.rand(4, 8, 8, 3), np.arange(4) % 2
    >>> callback = GradientsInputsCallback((x, None), 1, output_dir="logs")
    >>> history = model.fit(x, y, verbose=0, callbacks=[callback])
    >>> callback.tag
    'GradientsInputs'
    """

    explainer = GradientsInputs()
    default_output_subdir = "gradients_inputs"
