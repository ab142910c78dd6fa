"""Pictures of residual streams and the logit lens: checks of arguments, colours, names."""

from __future__ import annotations

import numpy as np
import pytest

from actgrid.errors import OptionError, ShapeError
from actgrid.rendering import LogitLens, ResidualStream, palette
from actgrid.rendering.residual_stream import color_values


def test_colours_of_values() -> None:
    colours = color_values(np.array([[0, 1, 2, np.nan, 3]]), 0, 2, "magma")
    expected = palette("magma")[[0, 127, 255, 0, 255]]
    np.testing.assert_array_equal(colours[0, [0, 1, 2, 4]], expected[[0, 1, 2, 4]])
    np.testing.assert_array_equal(colours[0, 3], [0, 0, 0])
    assert (color_values(np.ones((1, 2)), 1, 1, "magma") == palette("magma")[0]).all()


def test_padding_is_not_drawn() -> None:
    norms = np.arange(6).reshape(2, 3)
    padded = ResidualStream(norms, norms * 2, ["a", "b"], tokens=["x", "y", ""])
    short = ResidualStream(norms[:, :2], norms[:, :2] * 2, ["a", "b"], tokens=["x", "y"])
    np.testing.assert_array_equal(padded.to_rgb(), short.to_rgb())
    assert repr(padded) == "<ResidualStream 2 states of 3 tokens>"


def test_lens_shows_the_best_prediction() -> None:
    indices = np.array([[[1, 0], [0, 1]]])
    values = np.array([[[0.9, 0.1], [0.6, 0.4]]])
    lens = LogitLens(
        indices, values, ["block"], tokens=["a", "b"], labels=[[["x", "y"], ["z", "w"]]]
    )
    other = LogitLens(
        indices, values, ["block"], tokens=["a", "b"], labels=[[["x", "?"], ["z", "?"]]]
    )
    np.testing.assert_array_equal(lens.to_rgb(), other.to_rgb())
    assert (lens.to_rgb() == palette("viridis")[229]).all(-1).sum() > 100
    single = LogitLens(indices[:, :1], values[:, :1], ["block"], tokens=["prediction"])
    assert single.labels == ((("1", "0"),),)
    assert single.to_rgb().ndim == 3


def test_arguments_are_checked() -> None:
    ones = np.ones((2, 3))
    with pytest.raises(ShapeError, match="must fit norms"):
        ResidualStream(ones, ones[:1], ["a", "b"])
    with pytest.raises(ShapeError, match="must fit norms"):
        ResidualStream(ones, ones, ["a"])
    with pytest.raises(OptionError, match="tokens must have 3 names"):
        ResidualStream(ones, ones, ["a", "b"], tokens=["x"])
    with pytest.raises(ShapeError, match="indices must be integers"):
        LogitLens(np.ones((1, 1, 2)), np.ones((1, 1, 2)), ["a"])
    with pytest.raises(ShapeError, match="states must have 1 names"):
        LogitLens(np.ones((1, 1, 2), int), np.ones((1, 1, 2)), ["a", "b"])
