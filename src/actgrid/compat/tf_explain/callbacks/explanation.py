"""Base class of the callbacks of tf-explain."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding import encode
from actgrid.errors import OptionError
from actgrid.models.frameworks import keras
from actgrid.runs.events import EventWriter

__all__ = ["ExplanationCallback"]


class ExplanationCallback(keras().callbacks.Callback):  # type: ignore[misc]
    """Base class of callbacks that write a picture to TensorBoard after each epoch.

    Parameters
    ----------
    validation_data : tuple
        Pair (images, labels); images are (N, height, width, C), labels are ignored and may be None.
    output_dir : str or Path
        Parent of the log folder, which is named after the current time.

    Attributes
    ----------
    tag : str
        Tag of the picture in TensorBoard.

    Raises
    ------
    OutputError
        If the folder cannot be created. Also an OSError.
    OptionError
        If `validation_data` is not a pair whose first part is an array of images. Also a
        ValueError.
    """

    tag: str

    def __init__(self, validation_data: Any, output_dir: str | Path) -> None:
        super().__init__()
        _check_data(validation_data)
        self.validation_data = validation_data
        self.output_dir = Path(output_dir) / datetime.now().strftime("%Y%m%d-%H%M%S.%f")
        self.events = EventWriter(self.output_dir)

    @abstractmethod
    def explanation(self) -> npt.NDArray[np.uint8]:
        """Draw the picture that explains the model in its current state.

        Returns
        -------
        ndarray
            Grid of pictures, uint8.
        """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Draw the picture of the epoch and write it to TensorBoard."""
        png = b"".join(encode("explanation.png", self.explanation()))
        self.events.images(self.tag, [png], epoch)
        self.events.flush()


def _check_data(data: Any) -> None:
    """Raise OptionError unless `data` is a pair whose first item is an image array."""
    description = type(data).__name__
    if isinstance(data, (tuple, list)) and len(data) == 2:
        images = np.asarray(data[0])
        if images.dtype.kind in "biuf" and images.ndim == 4 and images.size:
            return
        description = f"images of shape {images.shape} and dtype {images.dtype}"
    raise OptionError(
        "validation_data must be (images, labels or None) with images of shape (N, H, W, C): got "
        f"{description}"
    )
