"""Inputs to pictures, files and statistics: models and rendering joined, for one image or many."""

from actgrid.pipeline.diagrams import diagram
from actgrid.pipeline.explanations import explain_images
from actgrid.pipeline.files import DrawnLayer, folder_names, safe_name, save_layers, unique_names
from actgrid.pipeline.grids import render_model
from actgrid.pipeline.images import measure_images, render_images
from actgrid.pipeline.ray import RayEngine
from actgrid.pipeline.report import make_report, save_report
from actgrid.pipeline.runs import Run, Summary
from actgrid.pipeline.statistics import DatasetStats, LayerStats, TopImage
from actgrid.pipeline.top_images import TopImages, find_top_images
from actgrid.pipeline.weights import DrawnWeight, render_weights, save_weights

__all__ = [
    "DatasetStats",
    "DrawnLayer",
    "DrawnWeight",
    "LayerStats",
    "RayEngine",
    "Run",
    "Summary",
    "TopImage",
    "TopImages",
    "diagram",
    "explain_images",
    "find_top_images",
    "folder_names",
    "make_report",
    "measure_images",
    "render_images",
    "render_model",
    "render_weights",
    "safe_name",
    "save_layers",
    "save_report",
    "save_weights",
    "unique_names",
]
