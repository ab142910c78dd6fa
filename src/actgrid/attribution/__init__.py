"""A model and a target to heatmaps: what in the image, or in the network, makes the score."""

from actgrid.attribution.explaining import explain
from actgrid.attribution.loss_gradients import Gradients, gradients

__all__ = ["Gradients", "explain", "gradients"]
