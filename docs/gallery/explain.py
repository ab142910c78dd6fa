"""
Explain a prediction
====================

Grad-CAM shows which part of the photo contributes to the score of a class. The target is a class
name, a class index, or the predicted class.
"""

import actgrid

model = actgrid.load_model("demo")
heatmap = actgrid.explain(model, actgrid.demo.photo(), "gradcam", target="Egyptian cat")
heatmap.overlay()

# %%
# Contours leave the photo visible.
heatmap.contours()
