"""Grad-CAM, and Grad-CAM++ where tf-keras-vis had it first."""

from actgrid.compat.tf_keras_vis.class_activation import Gradcam
from actgrid.compat.tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus

__all__ = ["Gradcam", "GradcamPlusPlus"]
