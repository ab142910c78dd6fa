from __future__ import annotations

import sys

import keras
import numpy as np
import pytest

import actgrid
from actgrid.errors import MissingDependencyError, ModelError


def test_missing_tensorflow_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'actgrid\[tensorflow\]'") as e:
        actgrid.Extractor("demo")
    assert isinstance(e.value, ImportError)
    # Arrays are drawn all the same.
    actgrid.render(np.ones((2, 2, 2)))


def test_other_backends_of_keras_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ModelError, match=r"backend 'jax' .*KERAS_BACKEND=tensorflow"):
        actgrid.load_model("demo")
