"""
Draw any array
==============

``actgrid.render`` needs no network. A volume has a row for each channel and a column for each
slice.
"""

import numpy as np

import actgrid

z, y, x = np.mgrid[-1:1:8j, -1:1:48j, -1:1:48j]
radius = np.sqrt(x**2 + y**2 + z**2)
volume = np.stack([np.sin(12 * radius), x * y * z, radius], axis=-1)
actgrid.render(volume[None], normalize="minmax", cmap="magma")
