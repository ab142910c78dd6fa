"""Render arrays as pictures: grids, heatmaps, sheets and diagrams; no TensorFlow."""

from actgrid.rendering.backends import BACKENDS, find_backend_problems
from actgrid.rendering.colormaps import palette
from actgrid.rendering.diagram import Box, Diagram, draw_diagram
from actgrid.rendering.draw import ORDERS, render
from actgrid.rendering.grid import Grid
from actgrid.rendering.heatmap import Heatmap
from actgrid.rendering.picture import Picture, encode_picture
from actgrid.rendering.picture_dict import PictureDict
from actgrid.rendering.sheet import Sheet, lay_out_sheet
from actgrid.rendering.stats import ChannelStats

__all__ = [
    "BACKENDS",
    "ORDERS",
    "Box",
    "ChannelStats",
    "Diagram",
    "Grid",
    "Heatmap",
    "Picture",
    "PictureDict",
    "Sheet",
    "draw_diagram",
    "encode_picture",
    "find_backend_problems",
    "lay_out_sheet",
    "palette",
    "render",
]
