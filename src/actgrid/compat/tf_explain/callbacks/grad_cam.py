"""Grad-CAM at the end of each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.callbacks.explanation import ExplanationCallback
from actgrid.compat.tf_explain.core.grad_cam import GradCAM

__all__ = ["GradCAMCallback"]


class GradCAMCallback(ExplanationCallback):
    """Writes what `GradCAM` draws.

    Parameters
    ----------
    validation_data
        (images, labels or None).
    class_index, layer_name, use_guided_grads
        As for `GradCAM.explain`.
    output_dir
        Events are written to a folder in there.
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
        """Return the picture for the model as it is."""
        return GradCAM().explain(
            self.validation_data,
            self.model,
            self.class_index,
            self.layer_name,
            self.use_guided_grads,
        )
