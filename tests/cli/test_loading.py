"""Loading of TensorFlow for commands."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import gc, sys
from actgrid.cli.loading import load_tensorflow
load_tensorflow(skip_packages={skip})
import keras
print(sorted({{"matplotlib", "pandas", "sklearn"}} & set(sys.modules)))
print(gc.isenabled(), gc.get_freeze_count() > 10_000)
import matplotlib, pandas, sklearn
print(keras.layers.Dense(2).units)
"""


def run(skip: bool) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-c", _CODE.format(skip=skip)], capture_output=True, text=True, check=True
    )
    return process.stdout.splitlines()


def test_packages_that_commands_do_not_need_are_imported_only_on_demand() -> None:
    assert run(skip=True) == ["[]", "True True", "2"]


def test_user_code_finds_every_package_that_keras_imports() -> None:
    packages, *rest = run(skip=False)
    assert packages != "[]"
    assert rest == ["True True", "2"]
