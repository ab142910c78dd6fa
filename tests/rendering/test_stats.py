"""Tests of `actgrid.ChannelStats`."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import actgrid
from actgrid.errors import MissingDependencyError
from actgrid.rendering.backends import numpy_backend


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, 0, 1, (0, 1)]),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_pooled_statistics_equal_statistics_of_joined_values(
    seed: int, axis: int | tuple[int, ...] | None, nan_fraction: float
) -> None:
    random = np.random.default_rng(seed)
    tiles = random.normal(1e3, 1, (3, 4, 5, 6)).round(1) - 1e3
    tiles[random.random(tiles.shape) < nan_fraction] = np.nan
    pooled = numpy_backend.measure(tiles, 1).pool(axis)
    pooled_axes = (0, 1) if axis is None else axis
    order = (*np.atleast_1d(pooled_axes), 2, 3)
    other_axes = [a for a in range(4) if a not in order]
    joined = tiles.transpose(*other_axes, *order).reshape(
        [1 if a in np.atleast_1d(pooled_axes) else tiles.shape[a] for a in (0, 1)] + [1, -1]
    )
    expected = numpy_backend.measure(joined, 1)
    for name in ("mean", "std", "min", "max", "zero_fraction"):
        np.testing.assert_allclose(
            getattr(pooled, name), getattr(expected, name), rtol=1e-9, atol=1e-12, err_msg=name
        )
    np.testing.assert_array_equal(pooled.nonfinite, expected.nonfinite)
    assert pooled.size == expected.size


def test_dead_channels_have_one_finite_value() -> None:
    x = np.array([[0, 3, 1, np.nan, np.inf], [0, 3, 2, 4, np.inf]])[:, None]
    assert actgrid.render(x).stats.dead.tolist() == [True, True, False, False, False]


def test_to_dict_can_be_written_as_json() -> None:
    x = np.array([[0, 1, np.nan], [0, 3, np.inf]])[:, None]
    result = json.loads(json.dumps(actgrid.render(x).stats.to_dict(), allow_nan=False))
    assert result == {
        "mean": [0, 2, None],
        "std": [0, 1, None],
        "min": [0, 1, None],
        "max": [0, 3, None],
        "zero_fraction": [1, 0, None],
        "nonfinite": [0, 0, 2],
        "dead": [0],
    }


def test_to_frame_has_one_row_per_channel() -> None:
    pytest.importorskip("pandas")  # missing where the sanitizers run
    x = np.array([[[0, 1, 2], [0, 3, np.nan]]], np.float32)
    frame = actgrid.render(x).stats.to_frame()
    assert frame.index.name == "channel"
    assert frame.columns.tolist() == [
        *("mean", "std", "min", "max", "zero_fraction", "nonfinite", "dead"),
    ]
    assert frame["mean"].tolist() == [0, 2, 2]
    assert frame["nonfinite"].tolist() == [0, 0, 1]
    assert frame["dead"].tolist() == [True, False, False]


def test_to_frame_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'actgrid\[pandas\]'"):
        actgrid.render(np.ones((2, 2, 1))).stats.to_frame()
