"""Grad-CAM and Grad-CAM++, in the module of tf-keras-vis before version 0.7."""

from actgrid.compat.tf_keras_vis.class_activation import Gradcam
from actgrid.compat.tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus

__all__ = ["Gradcam", "GradcamPlusPlus"]
