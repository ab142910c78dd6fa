"""Tests of `actgrid.rendering.palette`."""

from __future__ import annotations

import logging

import matplotlib
import numpy as np
import pytest

from actgrid.errors import OptionError
from actgrid.rendering import palette

# The colormap whose definition in the package cmap differs from matplotlib.
DIFFERENT_COLORMAPS = {"gist_stern", "gist_stern_r"}


@pytest.mark.parametrize("name", sorted(matplotlib.colormaps))
def test_every_matplotlib_colormap_is_available(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        colours = palette(name)
    assert colours.shape == (256, 3)
    assert colours.dtype == np.uint8
    if name not in DIFFERENT_COLORMAPS:
        expected = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255
        # Colormaps of more than 256 entries are interpolated, but matplotlib takes the nearest
        # entry.
        assert np.abs(colours - expected).max() <= 2.2
    assert caplog.text == ""


def test_gray_palette_is_identity() -> None:
    np.testing.assert_array_equal(palette("gray"), np.arange(256)[:, None].repeat(3, 1))


def test_palette_is_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        palette("magma")[0] = 1


def test_unknown_name_raises_with_suggestions() -> None:
    with pytest.raises(OptionError, match=r"'magna' \(did you mean .*magma"):
        palette("magna")
