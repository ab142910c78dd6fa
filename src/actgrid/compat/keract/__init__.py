"""Replacement for keract: its functions for activations and gradients, on Keras 3.

>>> import keras
>>> from actgrid.compat import keract
>>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
>>> activations = keract.get_activations(model, np.zeros((1, 8, 8, 3)), layer_names="conv")
>>> activations["conv"].shape
(1, 6, 6, 4)

Results have the keys, order and shapes of keract. Differences: models need not be compiled for
activations, layers of nested and subclassed models are found, and pictures are drawn by
`actgrid.render`, without a title and colour bar.

Keras 3 needs eager execution, which keract's documentation told users to disable. After this module
is imported, ``tf.compat.v1.disable_eager_execution()`` only issues a warning.
"""

from __future__ import annotations

import sys

from actgrid.compat.keract.activations import get_activations
from actgrid.compat.keract.display import (
    display_activations,
    display_gradients_of_trainable_weights,
    display_heatmaps,
)
from actgrid.compat.keract.eager import keep_eager_execution
from actgrid.compat.keract.gradients import (
    get_gradients_of_activations,
    get_gradients_of_trainable_weights,
)
from actgrid.compat.keract.json_files import (
    load_activations_from_json_file,
    persist_to_json_file,
)

__all__ = [
    "display_activations",
    "display_gradients_of_trainable_weights",
    "display_heatmaps",
    "get_activations",
    "get_gradients_of_activations",
    "get_gradients_of_trainable_weights",
    "load_activations_from_json_file",
    "persist_to_json_file",
]

keep_eager_execution()

# keract is a module in a package of the same name, and scripts use `from keract import keract` and
# `from keract.keract import ...`.
keract = sys.modules[f"{__name__}.keract"] = sys.modules[__name__]
