"""The gradient times the image at the end of each epoch."""

from __future__ import annotations

from actgrid.compat.tf_explain.callbacks.vanilla_gradients import VanillaGradientsCallback
from actgrid.compat.tf_explain.core.gradients_inputs import GradientsInputs

__all__ = ["GradientsInputsCallback"]


class GradientsInputsCallback(VanillaGradientsCallback):
    """Writes what `GradientsInputs` draws, by default to ``logs/gradients_inputs``.

    Parameters are those of `VanillaGradientsCallback`.
    """

    explainer = GradientsInputs()
    default_output_subdir = "gradients_inputs"
