"""
Compare normalizations
======================

A normalization maps the values of a channel to levels from 0 to 255. ``"standard"`` shows the
shape of every channel, however small its values are.
"""

import actgrid

model = actgrid.load_model("demo")
x = actgrid.load_images(actgrid.demo.photo(), model=model)
activation = actgrid.Extractor(model, "block1_project_bn")(x)["block1_project_bn"]
actgrid.render(activation, normalize="standard", columns=8, zoom=2)

# %%
# ``"percentile(1, 99)"`` ignores outliers.
actgrid.render(activation, normalize="percentile(1, 99)", columns=8, zoom=2)

# %%
# With ``scope="layer"``, all channels have one scale: weak channels stay weak.
actgrid.render(activation, normalize="minmax", scope="layer", columns=8, zoom=2)

# %%
# ``"symmetric"`` and a diverging colormap show the sign: zero has the colour in the middle.
actgrid.render(activation, normalize="symmetric", scope="layer", cmap="RdBu_r", columns=8, zoom=2)
