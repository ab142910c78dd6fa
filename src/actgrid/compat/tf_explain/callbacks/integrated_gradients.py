"""Integrated gradients at the end of each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.callbacks.explanation import ExplanationCallback
from actgrid.compat.tf_explain.core.integrated_gradients import IntegratedGradients

__all__ = ["IntegratedGradientsCallback"]


class IntegratedGradientsCallback(ExplanationCallback):
    """Writes what `IntegratedGradients` draws.

    Parameters
    ----------
    validation_data
        (images, labels or None).
    class_index, n_steps
        As for `IntegratedGradients.explain`.
    output_dir
        Events are written to a folder in there.
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
        """Return the picture for the model as it is."""
        return IntegratedGradients().explain(
            self.validation_data, self.model, self.class_index, self.n_steps
        )
