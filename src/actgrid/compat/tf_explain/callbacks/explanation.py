"""What tf-explain's callbacks share."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding import encode
from actgrid.models.frameworks import keras
from actgrid.pipeline.events import EventWriter

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
    """

    tag: str

    def __init__(self, validation_data: Any, output_dir: str | Path) -> None:
        super().__init__()
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
