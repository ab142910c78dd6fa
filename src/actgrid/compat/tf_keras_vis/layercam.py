"""LayerCAM, as in tf-keras-vis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actgrid.attribution.map_layers import Formula
from actgrid.compat.tf_keras_vis.class_activation import Gradcam, Modifier, relu
from actgrid.models.frameworks import tensorflow

__all__ = ["Layercam"]


@dataclass(frozen=True)
class _LayercamFormula:
    """Formula of a class activation map: sum of activations times their gradients.

    The gradients are changed by `modifier` first.
    """

    modifier: Modifier

    def __call__(self, activation: Any, gradient: Any) -> Any:
        if self.modifier is not None:
            gradient = self.modifier(gradient)
        return tensorflow().reduce_sum(activation * gradient, -1)


class Layercam(Gradcam):
    """LayerCAM: computes maps of activations, each weighted by its own gradient.

    See `ModelVisualization` for the arguments of the constructor.

    References
    ----------
    Jiang et al., LayerCAM, 2021, https://doi.org/10.1109/TIP.2021.3089943.
    """

    def __call__(
        self,
        score: Any,
        seed_input: Any,
        penultimate_layer: Any = None,
        seek_penultimate_conv_layer: bool = True,
        gradient_modifier: Modifier = relu,
        activation_modifier: Modifier = relu,
        training: bool = False,
        expand_cam: bool = True,
        normalize_cam: bool = True,
        unconnected_gradients: Any = None,
        *,
        standardize_cam: bool | None = None,
        normalize_gradient: bool | None = None,
    ) -> Any:
        """Compute class activation maps of images, volumes or sequences.

        The arguments and the result are those of `Gradcam`; `gradient_modifier` is ``relu`` by
        default.

        Returns
        -------
        object
            Maps, as `Gradcam` returns.
        """
        return super().__call__(
            score,
            seed_input,
            penultimate_layer,
            seek_penultimate_conv_layer,
            gradient_modifier,
            activation_modifier,
            training,
            expand_cam,
            normalize_cam,
            standardize_cam=standardize_cam,
        )

    def _make_formula(self, gradient_modifier: Modifier, activation_modifier: Modifier) -> Formula:
        return _LayercamFormula(gradient_modifier)
