"""Tests of the pictures of two models."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers

import actgrid
from actgrid.figures.compared_grids import compare_activations
from actgrid.rendering.colormaps import palette

Array = npt.NDArray[Any]

NAMES = ("first", "second")


def make_info(shape: tuple[int | None, ...]) -> actgrid.LayerInfo:
    return actgrid.LayerInfo("conv", "Conv2D", shape, "float32", "channels_last", 0, 0)


def scale(values: Array, low: float, high: float) -> Array:
    return np.asarray(np.clip((values - low) / (high - low) * 255 + 0.5, 0, 255).astype(np.uint8))


def test_a_channel_has_one_scale_in_all_grids() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(1, 5, 6, 3)) * (1, 10, 100)
    b = a + rng.normal(size=(1, 5, 6, 3)) * (3, 0.1, 10)
    info = make_info((None, 5, 6, 3))
    picture = compare_activations(info, a, info, b, NAMES)
    sizes = np.abs(a - b).mean((0, 1, 2))
    assert picture.difference is not None
    assert picture.a.channels.tolist() == np.argsort(-sizes).tolist()
    assert picture.b.channels.tolist() == picture.difference.channels.tolist()
    for channel in range(3):
        values, others = a[0, ..., channel], b[0, ..., channel]
        low, high = min(values.min(), others.min()), max(values.max(), others.max())
        for grid, expected in (
            (picture.a, scale(values, low, high)),
            (picture.b, scale(others, low, high)),
            (picture.difference, scale(values - others, low - high, high - low)),
        ):
            levels = grid.tile(channel).astype(int)
            assert abs(levels - expected).max() <= 1
    assert picture.difference.cmap == "RdBu_r"
    assert picture.scope == "channel"


def test_vectors_and_sequences_have_one_scale() -> None:
    a, b = np.array([[0.0, 1, 2, 4]]), np.array([[0.0, 1, 2, -4]])
    picture = compare_activations(make_info((None, 4)), a, make_info((None, 4)), b, NAMES)
    assert (picture.scope, picture.low, picture.high) == ("layer", -4, 4)
    assert picture.difference is not None
    levels = {int(level) for level in picture.difference.levels.ravel()}
    assert levels == {128, 255}  # equal, and the range
    info = make_info((None, 3, 2))
    sequence = compare_activations(info, np.zeros((1, 3, 2)), info, np.ones((1, 3, 2)), NAMES)
    assert (sequence.low, sequence.high) == (0, 1)


def test_equal_constant_and_nonfinite_values() -> None:
    a = np.zeros((1, 4, 4, 2))
    info = make_info((None, 4, 4, 2))
    picture = compare_activations(info, a, info, a, NAMES)
    assert picture.difference is not None
    assert (picture.difference.levels == 128).all()
    broken = a.copy()
    broken[0, 0, 0] = np.nan, np.inf
    picture = compare_activations(info, broken, info, a + 1, NAMES)
    assert picture.to_rgb().size


def test_outputs_of_different_shapes_are_drawn_without_a_difference() -> None:
    infos = make_info((None, 4, 4, 2)), make_info((None, 4, 4, 3))
    a, b = (np.random.default_rng(0).random((1, 4, 4, count)) for count in (2, 3))
    picture = compare_activations(infos[0], a, infos[1], b, NAMES)
    assert picture.difference is None
    assert (len(picture.a.channels), len(picture.b.channels)) == (2, 3)
    complete = compare_activations(infos[0], a, infos[0], a[..., ::-1], NAMES).to_rgb()
    assert picture.to_rgb().shape[1] < complete.shape[1]


def test_number_of_channels_and_names() -> None:
    a = np.random.default_rng(0).random((1, 4, 4, 40))
    info = make_info((None, 4, 4, 40))
    assert len(compare_activations(info, a, info, a * 2, NAMES).a.channels) == 16
    assert len(compare_activations(info, a, info, a * 2, NAMES, None).a.channels) == 40
    picture = compare_activations(info, a, info, a * 2, NAMES, 3)
    assert repr(picture) == "<ComparedGrids of conv in first and second>"
    colours = picture.to_rgb().reshape(-1, 3)
    for colormap in ("viridis", "RdBu_r"):
        ends = palette(colormap)[[0, 255]]
        assert all((colours == end).all(1).any() for end in ends)


def test_render_comparison() -> None:
    def make(limit: float) -> Any:
        return keras.Sequential([keras.Input((8, 8, 3)), layers.ReLU(limit, name="relu")])

    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    models = make(1), make(0.5)
    pictures = actgrid.render_comparison(*models, x, sample=1)
    assert list(pictures) == ["relu"]
    expected = np.clip(x[1], 0, 1)
    for channel in range(3):
        levels = scale(expected[..., channel], 0, 1).astype(int)
        assert abs(pictures["relu"].a.tile(channel) - levels).max() <= 1
    with pytest.raises(actgrid.errors.OptionError, match="sample"):
        actgrid.render_comparison(*models, x, sample=2)
    few = actgrid.render_comparison(*models, x, shown_channels=1)["relu"]
    differences = np.abs(np.clip(x[0], 0, 1) - np.clip(x[0], 0, 0.5)).mean((0, 1))
    assert few.a.channels.tolist() == [int(differences.argmax())]
