from __future__ import annotations

import logging

import matplotlib
import numpy as np
import pytest

from actgrid.errors import OptionError
from actgrid.rendering import palette

# The one colormap whose definition in the package cmap is another.
DIFFERENT = {"gist_stern", "gist_stern_r"}


@pytest.mark.parametrize("name", sorted(matplotlib.colormaps))
def test_every_colormap_of_matplotlibs_is_there(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        colours = palette(name)
    assert colours.shape == (256, 3)
    assert colours.dtype == np.uint8
    if name not in DIFFERENT:
        expected = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255
        # Maps of more than 256 entries are interpolated where matplotlib takes the nearest.
        assert np.abs(colours - expected).max() <= 2.2
    assert caplog.text == ""


def test_gray_shows_each_level_as_itself() -> None:
    np.testing.assert_array_equal(palette("gray"), np.arange(256)[:, None].repeat(3, 1))


def test_palette_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        palette("magma")[0] = 1


def test_mistyped_name_lists_close_ones() -> None:
    with pytest.raises(OptionError, match=r"'magna' \(did you mean .*magma"):
        palette("magna")
