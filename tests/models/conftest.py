from __future__ import annotations

import keras
import pytest


@pytest.fixture(autouse=True)
def _same_weights_each_time() -> None:
    keras.utils.set_random_seed(20)
