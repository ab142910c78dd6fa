"""Fixture that runs users' scripts, in which only import lines were changed."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def run_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that runs a script in an empty folder and returns its output.

    Keyword arguments are variables of the script, as if an earlier notebook cell had set them.
    """
    monkeypatch.chdir(tmp_path)

    def run(script: str, **names: Any) -> str:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), warnings.catch_warnings():
            # Old scripts use arguments that are deprecated in Keras.
            warnings.simplefilter("ignore")
            exec(compile(script, "script.py", "exec"), {"__name__": "__main__", **names})
        return output.getvalue()

    return run
