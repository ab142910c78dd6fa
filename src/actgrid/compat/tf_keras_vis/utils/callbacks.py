"""Callbacks of activation maximization, with their names before version 0.6."""

from actgrid.compat.tf_keras_vis.activation_maximization.callbacks import (
    Callback,
    GifGenerator2D,
    PrintLogger,
)

__all__ = ["GifGenerator", "GifGenerator2D", "OptimizerCallback", "Print"]

GifGenerator = GifGenerator2D
OptimizerCallback = Callback
Print = PrintLogger
