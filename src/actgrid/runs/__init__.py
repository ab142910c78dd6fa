"""Many inputs to many files: runs that stream, resume and spread over machines."""

from actgrid.runs.explanations import explain_images
from actgrid.runs.images import measure_images, render_images
from actgrid.runs.ray import RayEngine
from actgrid.runs.runs import Run, Summary

__all__ = [
    "RayEngine",
    "Run",
    "Summary",
    "explain_images",
    "measure_images",
    "render_images",
]
