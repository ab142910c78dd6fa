"""Tests of the options of `actgrid.render`."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import actgrid
from actgrid.errors import OptionError
from actgrid.rendering import BACKENDS


def make_constant_channels(channels: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return (2, 3, channels), where every value of channel c is 10 c."""
    return np.broadcast_to(np.arange(channels, dtype=np.float32) * 10, (2, 3, channels))


def render_levels(channels: int, **options: Any) -> list[list[int]]:
    grid = actgrid.render(make_constant_channels(channels), normalize="range(0, 255)", **options)
    return grid.levels.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("backend", BACKENDS)
def test_tiles_fill_rows_with_padding_between_them(backend: str) -> None:
    assert render_levels(3, columns=2, padding=1, background=9, backend=backend) == [
        [0, 0, 0, 9, 10, 10, 10],
        [0, 0, 0, 9, 10, 10, 10],
        [9, 9, 9, 9, 9, 9, 9],
        [20, 20, 20, 9, 9, 9, 9],
        [20, 20, 20, 9, 9, 9, 9],
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_zoom_repeats_pixels(backend: str) -> None:
    unzoomed = np.array(render_levels(3, columns=2, backend=backend))
    assert (
        render_levels(3, columns=2, zoom=3, backend=backend)
        == np.kron(unzoomed, np.ones((3, 3), int)).tolist()
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [5, 12])
def test_order_selects_channels(backend: str, channels: int) -> None:
    grid = actgrid.render(
        make_constant_channels(channels),
        normalize="range(0, 255)",
        order=[4, 0, 3],
        columns=3,
        backend=backend,
    )
    assert grid.levels[0, ::4].tolist() == [40, 0, 30]
    assert grid.levels.shape == (2, 3 * 4 - 1)
    assert grid.channels.tolist() == [4, 0, 3]
    assert grid.stats.mean.tolist() == [10 * c for c in range(channels)]


def test_order_by_statistic_is_largest_first_and_stable() -> None:
    x = np.array([[[0, 5, 5, -1, np.nan]], [[0, 5, 7, 9, np.nan]]])
    order = {
        name: actgrid.render(x, order=name).channels.tolist()
        for name in ("index", "mean", "std", "max", "zeros")
    }
    assert order == {
        "index": [0, 1, 2, 3, 4],
        "mean": [2, 1, 3, 0, 4],
        "std": [3, 2, 0, 1, 4],
        "max": [3, 2, 1, 0, 4],
        "zeros": [0, 1, 2, 3, 4],
    }


@given(
    count=st.integers(1, 400),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    padding=st.integers(0, 3),
)
def test_default_columns_make_the_picture_nearest_to_square(
    count: int, height: int, width: int, padding: int
) -> None:
    def compute_elongation(columns: int) -> float:
        grid_width = columns * (width + padding) - padding
        grid_height = -(-count // columns) * (height + padding) - padding
        return max(grid_width / grid_height, grid_height / grid_width)

    grid = actgrid.render(np.zeros((height, width, count), np.uint8), padding=padding)
    picture_height, picture_width = grid.levels.shape
    elongation = max(picture_width / picture_height, picture_height / picture_width)
    assert elongation == pytest.approx(
        min(compute_elongation(columns) for columns in range(1, count + 1))
    )


def test_columns_are_limited_to_tile_count() -> None:
    assert actgrid.render(make_constant_channels(3), columns=16, padding=0).levels.shape == (2, 9)


@given(st.integers(1, 70), st.integers(1, 20))
def test_no_channel_is_dropped(channels: int, columns: int) -> None:
    x = np.zeros((1, 1, channels), np.float32) + np.arange(channels) + 1
    grid = actgrid.render(x, columns=columns, padding=0, normalize="range(0, 255)")
    assert sorted(set(grid.levels.ravel().tolist()) - {0}) == list(range(1, channels + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "image"}, "scope must be one of channel, layer, not 'image'"),
        ({"columns": 0}, "columns must be at least 1, not 0"),
        ({"columns": 2.5}, "columns must be an integer, not 2.5"),
        ({"padding": -1}, "padding must be at least 0"),
        ({"zoom": 0}, "zoom must be at least 1"),
        ({"background": 256}, "background must be at most 255"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"sample": 0.0}, "sample must be an integer"),
        ({"kind": ["image"]}, "kind must be one of"),
        ({"token_grid": (2.5, 3)}, "token_grid must be"),
        ({"cmap": ["gray"]}, "must be the name of a colormap"),
        ({"order": "men"}, r"not 'men' \(did you mean mean"),
        ({"order": [0, 3]}, "names channel 3, but there are 3"),
        ({"order": [0, -1]}, "names channel -1"),
        ({"order": [1, 1]}, "twice"),
        ({"order": []}, "channels such as"),
        ({"order": [0.5]}, "channels such as"),
        ({"order": 7}, "channels such as"),
        ({"cmap": "virids"}, r"'virids' \(did you mean viridis"),
        ({"cmap": None}, "must be the name of a colormap"),
    ],
)
def test_invalid_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        actgrid.render(make_constant_channels(3), **options)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_above_the_input_is_at_most_twice_the_canvas(backend: str) -> None:
    x = np.random.default_rng(0).normal(size=(1, 224, 224, 64)).astype(np.float32)
    actgrid.render(x, backend=backend, padding=0)  # warm-up: compiles and imports
    tracemalloc.start()
    try:
        grid = actgrid.render(x, backend=backend, padding=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 2 * grid.levels.nbytes


def test_any_number_of_threads() -> None:
    assert render_levels(3, threads=10**10) == render_levels(3, threads=1)


def test_sequence_is_not_cut_into_rows() -> None:
    x = np.random.default_rng(0).normal(size=(1, 48, 64))
    grid = actgrid.render(x, kind="sequence", columns=16)
    assert grid.levels.shape == (48, 64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "normalize", ["standard", "minmax", ("range", 1e39, 2e39), ("range", -1e308, 1e308)]
)
def test_extreme_values_do_not_warn(backend: str, normalize: Any) -> None:
    for x in (
        np.array([-1e200, 1e200, 0, 1]).reshape(2, 2, 1),
        np.array([-1.7e308, 1.7e308]).reshape(1, 2, 1),
        np.array([-3e38, 3e38], np.float32).reshape(1, 2, 1),
    ):
        grid = actgrid.render(x, backend=backend, normalize=normalize)
        assert not np.isnan(grid.stats.std).any()
