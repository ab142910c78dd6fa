"""Inputs to pictures and files: models and rendering joined."""

from actgrid.pipeline.files import DrawnLayer, folder_names, save_layers
from actgrid.pipeline.grids import render_model
from actgrid.pipeline.images import draw_images

__all__ = ["DrawnLayer", "draw_images", "folder_names", "render_model", "save_layers"]
