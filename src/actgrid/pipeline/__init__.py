"""Inputs to pictures and files: models and rendering joined."""

from actgrid.pipeline.files import DrawnLayer, folder_names, save_layers
from actgrid.pipeline.grids import draw_layer, render_model

__all__ = ["DrawnLayer", "draw_layer", "folder_names", "render_model", "save_layers"]
