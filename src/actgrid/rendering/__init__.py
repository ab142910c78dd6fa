"""Arrays to pictures: measure, map, paint. Knows NumPy, not TensorFlow."""

from actgrid.rendering.backends import BACKENDS, backend_problems
from actgrid.rendering.colormaps import palette
from actgrid.rendering.diagram import Box, Diagram, draw_diagram
from actgrid.rendering.draw import ORDERS, render
from actgrid.rendering.grid import Grid
from actgrid.rendering.heatmap import Heatmap
from actgrid.rendering.picture import Picture, encode_picture
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
    "Sheet",
    "backend_problems",
    "draw_diagram",
    "encode_picture",
    "lay_out_sheet",
    "palette",
    "render",
]
