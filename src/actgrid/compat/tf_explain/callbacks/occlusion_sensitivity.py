"""Occlusion at the end of each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.callbacks.explanation import ExplanationCallback
from actgrid.compat.tf_explain.core.occlusion_sensitivity import OcclusionSensitivity

__all__ = ["OcclusionSensitivityCallback"]


class OcclusionSensitivityCallback(ExplanationCallback):
    """Writes what `OcclusionSensitivity` draws.

    Parameters
    ----------
    validation_data
        (images, labels or None).
    class_index, patch_size
        As for `OcclusionSensitivity.explain`.
    output_dir
        Events are written to a folder in there.
    """

    tag = "Occlusion Sensitivity"

    def __init__(
        self,
        validation_data: Any,
        class_index: int,
        patch_size: int,
        output_dir: str | Path = Path("./logs/occlusion_sensitivity"),
    ) -> None:
        super().__init__(validation_data, output_dir)
        self.class_index = class_index
        self.patch_size = patch_size

    def explanation(self) -> npt.NDArray[np.uint8]:
        """Return the picture for the model as it is."""
        return OcclusionSensitivity().explain(
            self.validation_data, self.model, self.class_index, self.patch_size
        )
