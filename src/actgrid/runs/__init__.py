"""Process many images to files or statistics, in runs that can be resumed."""

from actgrid.runs.comparing import compare_models, render_comparison
from actgrid.runs.explanations import explain_images
from actgrid.runs.images import measure_images, render_images
from actgrid.runs.ray import RayEngine
from actgrid.runs.runs import Run, Summary

__all__ = [
    "RayEngine",
    "Run",
    "Summary",
    "compare_models",
    "explain_images",
    "measure_images",
    "render_comparison",
    "render_images",
]
