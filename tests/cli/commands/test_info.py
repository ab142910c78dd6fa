"""Tests of the command `actgrid info`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import actgrid

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


def test_info_names_versions_backends_and_devices(run: Run) -> None:
    facts = json.loads(run("info", "--json").out)
    assert facts["versions"]["actgrid"] == actgrid.__version__
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["backends"] == dict.fromkeys(("native", "numba", "numpy"), "available")
    assert facts["auto"] == "native"
    assert facts["cpu"]["simd"] in facts["cpu"]["simd_variants"]
    assert any(device.startswith("CPU") for device in facts["devices"])
    text = run("info").out
    assert re.search(r"^backend native +available \(used by auto\)", text, re.M)


def test_info_prints_why_backend_is_unavailable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "actgrid.rendering.backends.native_backend", None)
    facts = json.loads(run("info", "--json").out)
    assert "install actgrid again with a C++20 compiler" in facts["backends"]["native"]
    assert facts["auto"] == "numba"
    assert facts["cpu"]["simd"] is None
    assert re.search(r"^processor +\w+$", run("info").out, re.M)
