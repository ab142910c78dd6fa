"""
Synthesize what a channel responds to
=====================================

Activation maximization starts from noise and changes the image until a channel responds as much as
possible.
"""

import actgrid

actgrid.maximize("demo", "block9_expand_relu", range(4), columns=4, steps=96)
