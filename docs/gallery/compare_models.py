"""
Compare two models
==================

What does a network compute without some channels, and which channels does a class need?
"""

import actgrid

model = actgrid.load_model("demo")
photo = actgrid.demo.photo()
# Ranking of the channels of a layer by the decrease of the score without each channel.
ablation = actgrid.ablate_channels(model, photo, "block0_dw_relu", "Egyptian cat")["block0_dw_relu"]
ablation

# %%
# A model without the five channels that the class needs most. The model itself is not changed.

changed = actgrid.patch(model, {"block0_dw_relu": {tuple(ablation.ranking[:5]): 0}})
pictures = actgrid.render_comparison(model, changed, photo, "block1_dw_relu", shown_channels=9)
pictures["block1_dw_relu"]

# %%
# The differences of the channels of each layer over several images. The centered kernel alignment
# (CKA) is 1 for layers that are equal up to rotation and scale.

photos = [photo, photo.rotate(20), photo.transpose(0), photo.crop((20, 20, 180, 180))]
comparison = actgrid.compare_models(model, changed, photos, "block*_add")
comparison
