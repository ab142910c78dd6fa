"""The names of tf-keras-vis, for scripts that were written for it.

>>> from actgrid.compat.tf_keras_vis.class_activation import Gradcam
>>> from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
>>> cam = Gradcam(model)(CategoricalScore([1, 294]), images)

Arguments, shapes and values are those of tf-keras-vis 0.8; names and keywords of 0.5 to 0.7 are
taken too. Inputs are images (N, H, W, C), volumes (N, D, H, W, C) or sequences (N, T, C). What
differs: scores are traced, so they must be made of TensorFlow's operations, and layers in nested
models are found.
"""

from actgrid.compat.tf_keras_vis.visualization import ModelVisualization

__all__ = ["ModelVisualization"]
