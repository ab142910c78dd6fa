"""A network and one input to pictures: grids of activations and weights, and diagrams."""

from actgrid.figures.diagrams import diagram
from actgrid.figures.files import DrawnLayer, folder_names, safe_name, save_layers, unique_names
from actgrid.figures.grids import render_model
from actgrid.figures.weights import DrawnWeight, render_weights, save_weights

__all__ = [
    "DrawnLayer",
    "DrawnWeight",
    "diagram",
    "folder_names",
    "render_model",
    "render_weights",
    "safe_name",
    "save_layers",
    "save_weights",
    "unique_names",
]
