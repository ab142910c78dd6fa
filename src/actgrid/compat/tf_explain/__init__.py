"""Replacement for tf-explain: its classes and functions, on Keras 3.

>>> from actgrid.compat.tf_explain.core.grad_cam import GradCAM
>>> explainer = GradCAM()

Arguments, shapes, dtypes and values are those of tf-explain; docstrings state the differences.
`actgrid.attribution` computes the maps, so nested and subclassed models are supported and OpenCV
is not needed.
"""

from actgrid.compat.tf_explain import callbacks, core, utils

__all__ = ["callbacks", "core", "utils"]
