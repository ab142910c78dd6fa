"""Keras callbacks of tf-explain, which write pictures to TensorBoard."""

from actgrid.compat.tf_explain.callbacks.activations_visualization import (
    ActivationsVisualizationCallback,
)
from actgrid.compat.tf_explain.callbacks.grad_cam import GradCAMCallback
from actgrid.compat.tf_explain.callbacks.gradients_inputs import GradientsInputsCallback
from actgrid.compat.tf_explain.callbacks.integrated_gradients import IntegratedGradientsCallback
from actgrid.compat.tf_explain.callbacks.occlusion_sensitivity import OcclusionSensitivityCallback
from actgrid.compat.tf_explain.callbacks.smoothgrad import SmoothGradCallback
from actgrid.compat.tf_explain.callbacks.vanilla_gradients import VanillaGradientsCallback

__all__ = [
    "ActivationsVisualizationCallback",
    "GradCAMCallback",
    "GradientsInputsCallback",
    "IntegratedGradientsCallback",
    "OcclusionSensitivityCallback",
    "SmoothGradCallback",
    "VanillaGradientsCallback",
]
