"""Attribution maps, loss gradients and activation maximization for Keras models."""

from actgrid.attribution.channel_relevance import measure_channel_relevance
from actgrid.attribution.explaining import explain
from actgrid.attribution.loss_gradients import Gradients, gradients
from actgrid.attribution.maximization import Maximization, maximize
from actgrid.attribution.requests import ZeroAttributionWarning

__all__ = [
    "Gradients",
    "Maximization",
    "ZeroAttributionWarning",
    "explain",
    "gradients",
    "maximize",
    "measure_channel_relevance",
]
