"""Long sequences are folded into strips, and pooled only if they are too large."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import actgrid
from actgrid.rendering.backends import BACKENDS
from actgrid.rendering.folding import choose_fold, choose_strips, pool_extremes, pool_range


def make_sequence(steps: int, channels: int) -> Any:
    return np.random.default_rng(0).normal(size=(1, steps, channels)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(513, 1500),
    st.integers(1, 40),
    st.integers(0, 3),
    st.integers(1, 2),
    st.sampled_from([None, 2, 7]),
    st.booleans(),
)
def test_strips_contain_each_value_once(
    steps: int, channels: int, padding: int, zoom: int, columns: int | None, wide: bool
) -> None:
    long = make_sequence(steps, channels)
    x = long.transpose(0, 2, 1) if wide else long
    options: Any = {"kind": "sequence", "normalize": "range(-3, 3)"}
    uncut = actgrid.render(x, columns=1, **options)
    folded = actgrid.render(x, columns=columns, padding=padding, zoom=zoom, **options)
    assert uncut.levels.shape == x.shape[1:]
    assert uncut.note == ""
    for channel in {0, x.shape[2] // 2, x.shape[2] - 1}:
        expected = uncut.tile(channel).repeat(zoom, 0).repeat(zoom, 1)
        np.testing.assert_array_equal(folded.tile(channel), expected)
    np.testing.assert_array_equal(folded.stats.mean, uncut.stats.mean)
    if columns is not None:
        assert f"in {-(-steps // -(-steps // columns))} strips" in folded.note
    # Each pixel with a channel shows a level of that channel; the others are background.
    located = np.array(
        [
            [folded.locate(column, row) is not None for column in range(folded.levels.shape[1])]
            for row in range(0, folded.levels.shape[0], 7)
        ]
    )
    assert (folded.levels[::7][~located] == 0).all()


def test_picture_of_a_long_sequence_is_near_to_square() -> None:
    grid = actgrid.render(make_sequence(12_000, 32), kind="sequence")
    assert grid.levels.shape == (632, 19 * 33 - 1)
    assert grid.note == "12,000 steps in 19 strips of 632"
    assert repr(grid) == ("<Grid 626 x 632, 32 tiles, viridis, 12,000 steps in 19 strips of 632>")
    wide = actgrid.render(make_sequence(4, 3000), kind="sequence")
    assert max(wide.levels.shape) < 300
    assert "3,000 channels in" in wide.note
    short = actgrid.render(make_sequence(512, 3), kind="sequence")
    assert short.levels.shape == (512, 3)
    assert short.note == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_of_very_large_pictures_are_pooled(backend: str) -> None:
    x = np.zeros((1, 1 << 22, 2), np.float32)
    x[0, 12345, 1] = 1
    grid = actgrid.render(x, kind="sequence", normalize="minmax", backend=backend)
    assert grid.note == (
        "4,194,304 steps in 836 strips of 5,018; a pixel shows the level farthest from the mean "
        "level of 2 steps"
    )
    assert max(grid.levels.shape) < 2600
    assert (grid.tile(1) == 255).sum() == 1  # the only peak is not lost
    assert grid.tile(1)[12345 // 2, 0] == 255
    assert grid.stats.max.tolist() == [0, 1]
    assert choose_strips(1 << 22, 2, 1, strips=1) is None


def test_pooling() -> None:
    values = np.array([[1, 5, -7, 2, 3]])
    low, high = pool_range(values, 2)
    assert (low.tolist(), high.tolist()) == ([[1, -7, 3]], [[5, 2, 3]])
    assert pool_extremes(values, 2).tolist() == [[5, -7, 3]]
    assert pool_extremes(values, 2, 4).tolist() == [[1, -7, 3]]
    assert choose_fold(2000, 960, 8).describe() == "2,000 steps in 3 lines of 667"
    assert choose_fold(20_000, 960, 8).describe() == (
        "20,000 steps in 7 lines of 2,859, 3 in a column"
    )
    assert choose_fold(10, 960, 8).describe() == "10 steps"
