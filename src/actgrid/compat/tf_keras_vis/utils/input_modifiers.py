"""Input modifiers, in their module before version 0.7."""

from actgrid.compat.tf_keras_vis.activation_maximization.input_modifiers import (
    InputModifier,
    Jitter,
    Rotate,
    Rotate2D,
)

__all__ = ["InputModifier", "Jitter", "Rotate", "Rotate2D"]
