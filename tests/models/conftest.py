from __future__ import annotations

import keras
import pytest


@pytest.fixture(autouse=True)
def _set_random_seed() -> None:
    keras.utils.set_random_seed(20)
