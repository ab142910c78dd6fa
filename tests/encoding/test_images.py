"""Tests of `actgrid.encoding.images`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actgrid.encoding import encode, find_image_format
from actgrid.errors import OptionError

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)
PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)


@pytest.mark.parametrize(
    ("suffix", "name"), [(".png", "PNG"), (".JPG", "JPEG"), (".tif", "TIFF"), (".webp", "WEBP")]
)
def test_suffix_selects_the_format(suffix: str, name: str) -> None:
    assert find_image_format(suffix) == name
    assert Image.open(io.BytesIO(b"".join(encode(f"x{suffix}", LEVELS, PALETTE)))).format == name


@pytest.mark.parametrize("suffix", [".psd", ".xyz", ""])
def test_unknown_suffix_raises(suffix: str) -> None:
    with pytest.raises(OptionError, match="no image format is known"):
        find_image_format(suffix)


def test_png_with_pillow_options_is_encoded_by_pillow() -> None:
    data = b"".join(encode("x.png", LEVELS, PALETTE, dpi=(300, 300)))
    opened = Image.open(io.BytesIO(data))
    assert opened.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    np.testing.assert_array_equal(np.asarray(opened), LEVELS)


def test_invalid_pillow_option_raises() -> None:
    with pytest.raises(OptionError, match="cannot be saved as WEBP"):
        encode("x.webp", LEVELS, PALETTE, method=99)


COLOURS = np.random.default_rng(1).integers(0, 256, (9, 11, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".webp"])
def test_rgb_pixels_are_encoded_exactly(suffix: str) -> None:
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    opened = Image.open(io.BytesIO(b"".join(encode(f"x{suffix}", COLOURS, **options))))
    assert opened.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(opened), COLOURS)


def test_rgb_compression_levels() -> None:
    flat = np.zeros((99, 99, 3), np.uint8)
    sizes = {}
    for compression in ("fast", "small", "none"):
        data = b"".join(encode("x.png", flat, compression=compression))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), flat)
        sizes[compression] = len(data)
    assert sizes["small"] <= sizes["fast"] < flat.size < sizes["none"]
    with pytest.raises(OptionError, match="one of fast, small, none, not 'best'"):
        encode("x.png", flat, compression="best")
