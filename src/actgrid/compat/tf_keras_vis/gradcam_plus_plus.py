"""Grad-CAM++, as in tf-keras-vis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actgrid.attribution.map_layers import Formula, list_spatial_axes
from actgrid.compat.tf_keras_vis.class_activation import Gradcam, Modifier
from actgrid.models.frameworks import tensorflow

__all__ = ["GradcamPlusPlus"]


@dataclass(frozen=True)
class _GradcamPlusPlusFormula:
    """Formula that weights channels by a weighted mean of their positive gradients.

    Attributes
    ----------
    modifier
        Modifies the gradients first.
    positive
        Selects positive gradients, such as ``relu``.
    """

    modifier: Modifier
    positive: Modifier

    def __call__(self, activation: Any, gradient: Any) -> Any:
        # The paper differentiates exp(score). Its value is left out, as it only scales each map.
        tf = tensorflow()
        if self.modifier is not None:
            gradient = self.modifier(gradient)
        axes = list_spatial_axes(activation)
        total = tf.reduce_sum(activation, axes, keepdims=True)
        alphas = tf.math.divide_no_nan(1.0, 2 + gradient * total)
        alphas = tf.where(gradient == 0, tf.zeros_like(alphas), alphas)
        alphas = tf.math.divide_no_nan(alphas, tf.reduce_sum(alphas, axes, keepdims=True))
        if self.positive is not None:
            gradient = self.positive(gradient)
        weights = tf.reduce_sum(gradient * alphas, axes, keepdims=True)
        return tf.reduce_sum(activation * weights, -1)


class GradcamPlusPlus(Gradcam):
    """Grad-CAM++: computes maps that show several objects of a class.

    The arguments are those of `Gradcam`. `activation_modifier` is also applied to the gradients,
    and is traced. With ``normalize_cam=False``, maps do not have the factor exp(score) of
    tf-keras-vis, which overflows.

    References
    ----------
    Chattopadhyay et al., Grad-CAM++, 2017, https://arxiv.org/abs/1710.11063.
    """

    def _make_formula(self, gradient_modifier: Modifier, activation_modifier: Modifier) -> Formula:
        return _GradcamPlusPlusFormula(gradient_modifier, activation_modifier)
