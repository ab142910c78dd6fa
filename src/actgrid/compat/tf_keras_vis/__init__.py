"""Replacement for tf-keras-vis: its classes and functions, on Keras 3.

>>> from actgrid.compat.tf_keras_vis.class_activation import Gradcam
>>> from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
>>> score = CategoricalScore([1, 294])

Arguments, shapes and values are those of tf-keras-vis 0.8; names and keywords of 0.5 to 0.7 are
also supported. Inputs are images (N, H, W, C), volumes (N, D, H, W, C) or sequences (N, T, C).
Differences: scores are traced, so they must consist of TensorFlow operations, and layers in nested
models are found.
"""

from actgrid.compat.tf_keras_vis.visualization import ModelVisualization

__all__ = ["ModelVisualization"]
