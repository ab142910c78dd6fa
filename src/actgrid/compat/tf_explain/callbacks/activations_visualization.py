"""The activations of a layer at the end of each epoch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.callbacks.explanation import ExplanationCallback
from actgrid.compat.tf_explain.core.activations import ExtractActivations

__all__ = ["ActivationsVisualizationCallback"]


class ActivationsVisualizationCallback(ExplanationCallback):
    """Writes what `ExtractActivations` draws.

    Parameters
    ----------
    validation_data
        (images, labels or None).
    layers_name
        The layer's name in a list.
    output_dir
        Events are written to a folder in there.
    """

    tag = "Activations Visualization"

    def __init__(
        self,
        validation_data: Any,
        layers_name: Iterable[str],
        output_dir: str | Path = Path("./logs/activations_visualizations"),
    ) -> None:
        super().__init__(validation_data, output_dir)
        self.layers_name = layers_name

    def explanation(self) -> npt.NDArray[np.uint8]:
        """Return the picture for the model as it is."""
        return ExtractActivations().explain(self.validation_data, self.model, self.layers_name)
