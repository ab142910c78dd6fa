"""Grad-CAM++."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actgrid.attribution.class_maps import Formula, spatial_axes
from actgrid.compat.tf_keras_vis.class_activation import Gradcam, Modifier
from actgrid.models.frameworks import tensorflow

__all__ = ["GradcamPlusPlus"]


@dataclass(frozen=True)
class _PositiveGradients:
    """Channels, weighed by means of their positive gradients that count places by their share.

    `positive` is what leaves these.
    """

    modifier: Modifier
    positive: Modifier

    def __call__(self, activation: Any, gradient: Any) -> Any:
        # Of the exponential of the score, whose value is left out: it scales each map as a whole.
        tf = tensorflow()
        if self.modifier is not None:
            gradient = self.modifier(gradient)
        axes = spatial_axes(activation)
        total = tf.reduce_sum(activation, axes, keepdims=True)
        shares = tf.math.divide_no_nan(1.0, 2 + gradient * total)
        shares = tf.where(gradient == 0, tf.zeros_like(shares), shares)
        shares = tf.math.divide_no_nan(shares, tf.reduce_sum(shares, axes, keepdims=True))
        if self.positive is not None:
            gradient = self.positive(gradient)
        weights = tf.reduce_sum(gradient * shares, axes, keepdims=True)
        return tf.reduce_sum(activation * weights, -1)


class GradcamPlusPlus(Gradcam):
    """Shows where a layer's channels speak for the score, of several objects of a class too.

    It is called as `Gradcam` is. `activation_modifier` is done to the gradients too, and is traced
    for that. With ``normalize_cam=False`` a map has not tf-keras-vis's factor of exp(score), which
    overflows.

    References
    ----------
    Chattopadhyay et al., Grad-CAM++, 2017, https://arxiv.org/abs/1710.11063.
    """

    def _formula(self, gradient_modifier: Modifier, activation_modifier: Modifier) -> Formula:
        return _PositiveGradients(gradient_modifier, activation_modifier)
