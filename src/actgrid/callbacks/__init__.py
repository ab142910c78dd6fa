"""Keras callbacks that draw and measure activations during training."""

from actgrid.callbacks.drift import ModelDrift
from actgrid.callbacks.explanations import Explanations
from actgrid.callbacks.grids import ActivationGrids
from actgrid.callbacks.health import ChannelHealth, ChannelHealthWarning
from actgrid.callbacks.movie import TrainingMovie
from actgrid.callbacks.results import log
from actgrid.callbacks.sinks import Sink

__all__ = [
    "ActivationGrids",
    "ChannelHealth",
    "ChannelHealthWarning",
    "Explanations",
    "ModelDrift",
    "Sink",
    "TrainingMovie",
    "log",
]
