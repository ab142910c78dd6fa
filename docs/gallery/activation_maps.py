"""
All channels of one layer
=========================

Draw every channel of a layer for a photo. Flat tiles are dead channels: all their values are equal.
"""

import actgrid

model = actgrid.load_model("demo")
grids = actgrid.render_model(model, actgrid.demo.photo(), "block2_project_bn", zoom=3, columns=8)
grids["block2_project_bn"]

# %%
# The statistics of each channel belong to the picture.
grids["block2_project_bn"].stats.mean.round(2)
