"""Scripts as users have them, run with only their import lines changed."""

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
    """Return a function that runs a script in an empty folder and returns what it printed.

    Names given to it are there as if an earlier cell had made them.
    """
    monkeypatch.chdir(tmp_path)

    def run(script: str, **names: Any) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            # Old scripts use what Keras warns of.
            warnings.simplefilter("ignore")
            exec(compile(script, "script.py", "exec"), {"__name__": "__main__", **names})
        return printed.getvalue()

    return run
