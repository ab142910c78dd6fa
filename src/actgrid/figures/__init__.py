"""Pictures of a network: grids of activations and weights, files, diagrams."""

from actgrid.figures.attention import extract_attention, list_attention
from actgrid.figures.diagrams import diagram
from actgrid.figures.files import (
    DrawnLayer,
    make_folder_names,
    make_safe_name,
    make_unique_names,
    save_layers,
)
from actgrid.figures.grids import render_model
from actgrid.figures.residuals import compute_logit_lens, measure_residual_stream
from actgrid.figures.weights import DrawnWeight, render_weights, save_weights

__all__ = [
    "DrawnLayer",
    "DrawnWeight",
    "compute_logit_lens",
    "diagram",
    "extract_attention",
    "list_attention",
    "make_folder_names",
    "make_safe_name",
    "make_unique_names",
    "measure_residual_stream",
    "render_model",
    "render_weights",
    "save_layers",
    "save_weights",
]
