"""Render arrays as pictures: grids, attributions, sheets and diagrams; no TensorFlow."""

from actgrid.rendering.attention_map import AttentionMap
from actgrid.rendering.attribution import Attribution
from actgrid.rendering.attribution_kinds import make_attribution
from actgrid.rendering.backends import BACKENDS, find_backend_problems
from actgrid.rendering.colormaps import palette
from actgrid.rendering.diagram import Box, Diagram, draw_diagram
from actgrid.rendering.draw import ORDERS, RELEVANCE, render
from actgrid.rendering.grid import Grid
from actgrid.rendering.heatmap import Heatmap
from actgrid.rendering.picture import Picture, encode_picture
from actgrid.rendering.picture_dict import PictureDict
from actgrid.rendering.residual_stream import LogitLens, ResidualStream
from actgrid.rendering.sequence_attribution import SequenceAttribution
from actgrid.rendering.sheet import Sheet, lay_out_sheet
from actgrid.rendering.stats import ChannelStats
from actgrid.rendering.table_attribution import TableAttribution
from actgrid.rendering.text_attribution import TextAttribution
from actgrid.rendering.token_grid import TokenGrid
from actgrid.rendering.volume_attribution import VolumeAttribution

__all__ = [
    "BACKENDS",
    "ORDERS",
    "RELEVANCE",
    "AttentionMap",
    "Attribution",
    "Box",
    "ChannelStats",
    "Diagram",
    "Grid",
    "Heatmap",
    "LogitLens",
    "Picture",
    "PictureDict",
    "ResidualStream",
    "SequenceAttribution",
    "Sheet",
    "TableAttribution",
    "TextAttribution",
    "TokenGrid",
    "VolumeAttribution",
    "draw_diagram",
    "encode_picture",
    "find_backend_problems",
    "lay_out_sheet",
    "make_attribution",
    "palette",
    "render",
]
