"""Attribution methods of tf-explain, as classes with `explain` and `save`."""

from actgrid.compat.tf_explain.core.activations import ExtractActivations
from actgrid.compat.tf_explain.core.grad_cam import GradCAM
from actgrid.compat.tf_explain.core.gradients_inputs import GradientsInputs
from actgrid.compat.tf_explain.core.integrated_gradients import IntegratedGradients
from actgrid.compat.tf_explain.core.occlusion_sensitivity import OcclusionSensitivity
from actgrid.compat.tf_explain.core.smoothgrad import SmoothGrad
from actgrid.compat.tf_explain.core.vanilla_gradients import VanillaGradients

__all__ = [
    "ExtractActivations",
    "GradCAM",
    "GradientsInputs",
    "IntegratedGradients",
    "OcclusionSensitivity",
    "SmoothGrad",
    "VanillaGradients",
]
