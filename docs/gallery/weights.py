"""
Draw the weights of a layer
===========================

Each row shows the kernel of one output channel, with a tile for each input channel: red, green and
blue. Zero has the colour in the middle.
"""

import actgrid

weights = actgrid.render_weights("demo", "stem_conv", zoom=12)
weights["stem_conv/kernel"]
