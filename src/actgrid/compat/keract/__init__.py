"""The functions of keract, for scripts that were written for it.

>>> from actgrid.compat import keract
>>> activations = keract.get_activations(model, images)
>>> keract.display_activations(activations, save=True)

Results have keract's keys, order and shapes. What differs: models need not be compiled for their
activations, layers of every kind of model are found, and pictures are drawn by `actgrid.render`,
without the title and the colour bar that matplotlib gave them.

Keras 3 does not run without eager execution, which keract told its users to turn off:
``tf.compat.v1.disable_eager_execution()`` does nothing but warn once this module is imported.
"""

from __future__ import annotations

import sys

from actgrid.compat.keract.activations import get_activations
from actgrid.compat.keract.display import (
    display_activations,
    display_gradients_of_trainable_weights,
    display_heatmaps,
)
from actgrid.compat.keract.eager import stay_eager
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

stay_eager()

# A module in a package of that name: `from keract import keract`, `from keract.keract import ...`.
keract = sys.modules[f"{__name__}.keract"] = sys.modules[__name__]
