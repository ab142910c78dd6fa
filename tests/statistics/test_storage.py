"""Tests of the files of statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actgrid.statistics.storage import to_npz


def test_interrupted_write_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*args: Any, **arrays: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise ValueError("Can't close the ZIP file")  # as zipfile does

    monkeypatch.setattr(np, "savez", save)
    with pytest.raises(KeyboardInterrupt):
        to_npz({"a": np.zeros(2)})
