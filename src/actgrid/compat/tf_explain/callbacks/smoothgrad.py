"""SmoothGrad at the end of each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.callbacks.explanation import ExplanationCallback
from actgrid.compat.tf_explain.core.smoothgrad import SmoothGrad

__all__ = ["SmoothGradCallback"]


class SmoothGradCallback(ExplanationCallback):
    """Writes what `SmoothGrad` draws.

    Parameters
    ----------
    validation_data
        (images, labels or None).
    class_index, num_samples, noise
        As for `SmoothGrad.explain`.
    output_dir
        Events are written to a folder in there.
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
        """Return the picture for the model as it is."""
        return SmoothGrad().explain(
            self.validation_data, self.model, self.class_index, self.num_samples, self.noise
        )
