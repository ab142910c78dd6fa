"""Tests of `actgrid.models.frameworks`."""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest

import actgrid
from actgrid.errors import MissingDependencyError, ModelError


def test_missing_tensorflow_error_names_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'actgrid\[tensorflow\]'") as e:
        actgrid.Extractor("demo")
    assert isinstance(e.value, ImportError)
    # Rendering arrays still works.
    actgrid.render(np.ones((2, 2, 2)))


def test_other_keras_backends_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ModelError, match=r"backend: got 'jax'; expected KERAS_BACKEND=tensorflow"):
        actgrid.load_model("demo")
