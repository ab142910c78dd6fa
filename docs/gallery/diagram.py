"""
Draw the architecture
=====================

Each layer is a box, scaled by its output shape and coloured by its type.
"""

import actgrid

model = actgrid.load_model("demo")
actgrid.diagram(model)
