"""Tests of `actgrid.models.frameworks`."""

from __future__ import annotations

import subprocess
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


# --- import without unused packages

_CODE = """
import gc, sys
from actgrid.models.frameworks import load_tensorflow
load_tensorflow(skip_packages={skip})
import keras
print(sorted({{"matplotlib", "pandas", "sklearn"}} & set(sys.modules)))
print(gc.isenabled(), gc.get_freeze_count() > 10_000)
import matplotlib, pandas, sklearn
print(keras.layers.Dense(2).units)
"""


def import_in_process(skip: bool) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-c", _CODE.format(skip=skip)], capture_output=True, text=True, check=True
    )
    return process.stdout.splitlines()


def test_packages_that_commands_do_not_need_are_imported_only_on_demand() -> None:
    assert import_in_process(skip=True) == ["[]", "True True", "2"]


def test_user_code_finds_every_package_that_keras_imports() -> None:
    packages, *rest = import_in_process(skip=False)
    assert packages != "[]"
    assert rest == ["True True", "2"]
