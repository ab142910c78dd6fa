"""
Find dead channels
==================

A channel that is dead for one photo may be active for another. ``measure_images`` counts over many
images.
"""

import skimage.data
from PIL import Image

import actgrid

arrays = skimage.data.rocket(), skimage.data.coffee(), skimage.data.astronaut()
photos = [Image.fromarray(array) for array in arrays]
stats = actgrid.measure_images("demo", [actgrid.demo.photo(), *photos], "stem_relu")
layer = stats.layers["stem_relu"]
print(f"{layer.dead.sum()} of {len(layer.dead)} channels are dead for all {stats.images} images")

# %%
# Draw the channels with the most zeros first.
model = actgrid.load_model("demo")
actgrid.render_model(model, photos[:1], "stem_relu", order="zeros", columns=8)["stem_relu"]
