"""Inputs to pictures and files: models and rendering joined."""

from actgrid.pipeline.explanations import explain_images
from actgrid.pipeline.files import DrawnLayer, folder_names, save_layers, unique_names
from actgrid.pipeline.grids import render_model
from actgrid.pipeline.weights import DrawnWeight, render_weights, save_weights

__all__ = [
    "DrawnLayer",
    "DrawnWeight",
    "explain_images",
    "folder_names",
    "render_model",
    "render_weights",
    "save_layers",
    "save_weights",
    "unique_names",
]
