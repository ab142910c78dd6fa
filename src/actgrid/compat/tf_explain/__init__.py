"""The names of tf-explain, for scripts that were written for it.

>>> from actgrid.compat.tf_explain.core.grad_cam import GradCAM
>>> grid = GradCAM().explain((images, None), model, class_index=281)

Arguments, shapes, dtypes and values are tf-explain's; what differs is said where it does. The work
is done by `actgrid.attribution`, so models of every kind are explained, nested ones too, and
OpenCV is not needed.
"""

from actgrid.compat.tf_explain import callbacks, core, utils

__all__ = ["callbacks", "core", "utils"]
