"""
What decides the class of a signal
==================================

A small network learns to find a short burst in noise. Its attributions point to the burst.
"""

import keras
import numpy as np

import actgrid

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
signals = rng.normal(size=(400, 300, 1)).astype("float32")
labels = np.arange(400) % 2
burst = 3 * np.sin(np.arange(24) * 1.3)[:, None]
for row in np.flatnonzero(labels):
    start = rng.integers(0, 276)
    signals[row, start : start + 24] += burst
model = keras.Sequential(
    [
        keras.Input((300, 1)),
        keras.layers.Conv1D(8, 15, activation="relu"),
        keras.layers.GlobalMaxPooling1D(),
        keras.layers.Dense(2),
    ]
)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(signals, labels, epochs=30, verbose=0)
actgrid.explain(model, signals[1], "gradcam", target=1)

# %%
# Several methods in one sheet.
actgrid.compare_methods(model, signals[1], ["integrated_gradients", "occlusion"], target=1)
