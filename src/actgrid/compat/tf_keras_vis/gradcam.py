"""Grad-CAM and Grad-CAM++ under the names of tf-keras-vis."""

from actgrid.compat.tf_keras_vis.class_maps import Gradcam
from actgrid.compat.tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus

__all__ = ["Gradcam", "GradcamPlusPlus"]
