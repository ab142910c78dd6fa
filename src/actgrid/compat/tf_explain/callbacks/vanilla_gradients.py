"""The gradient with respect to the image at the end of each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.callbacks.explanation import ExplanationCallback
from actgrid.compat.tf_explain.core.vanilla_gradients import VanillaGradients

__all__ = ["VanillaGradientsCallback"]


class VanillaGradientsCallback(ExplanationCallback):
    """Writes what `VanillaGradients` draws.

    Parameters
    ----------
    validation_data
        (images, labels or None).
    class_index
        The class.
    output_dir
        Events are written to a folder in there; None: ``logs/vanilla_gradients``.
    """

    explainer = VanillaGradients()
    default_output_subdir = "vanilla_gradients"

    def __init__(
        self, validation_data: Any, class_index: int, output_dir: str | Path | None = None
    ) -> None:
        super().__init__(validation_data, output_dir or Path("logs", self.default_output_subdir))
        self.tag = type(self.explainer).__name__
        self.class_index = class_index
        self.score_model: Any = None

    def set_model(self, model: Any) -> None:
        """Take the model that is trained."""
        super().set_model(model)
        self.score_model = self.explainer.get_score_model(model)

    def explanation(self) -> npt.NDArray[np.uint8]:
        """Return the picture for the model as it is."""
        return self.explainer.explain_score_model(
            self.validation_data, self.score_model, self.class_index
        )
