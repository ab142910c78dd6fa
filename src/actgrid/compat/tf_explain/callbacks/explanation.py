"""What tf-explain's callbacks share."""

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
    """Writes a picture at the end of each epoch, to be seen in TensorBoard under Images.

    Parameters
    ----------
    validation_data
        (images, labels or None).
    output_dir
        Events are written to a folder in there whose name is the time.

    Attributes
    ----------
    tag
        The picture's name in TensorBoard.

    Raises
    ------
    OutputError
        If the folder cannot be made. Also an OSError.
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
        """Return the picture for the model as it is."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the picture."""
        png = b"".join(encode("explanation.png", self.explanation()))
        self.events.images(self.tag, [png], epoch)
        self.events.flush()


def _check_data(data: Any) -> None:
    """Raise OptionError at once for data that no method could explain at the end of an epoch."""
    found = type(data).__name__
    if isinstance(data, (tuple, list)) and len(data) == 2:
        images = np.asarray(data[0])
        if images.dtype.kind in "biuf" and images.ndim == 4 and images.size:
            return
        found = f"images of shape {images.shape} and dtype {images.dtype}"
    raise OptionError(
        "validation_data must be (images, labels or None) with images of shape (N, H, W, C), got "
        f"{found}"
    )
