"""Tests of `actgrid.rendering.normalize`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import actgrid
from actgrid.errors import OptionError
from actgrid.rendering.backends import load_backend
from actgrid.rendering.normalize import Normalization, parse_normalize


def render_levels(values: Any, **options: Any) -> list[int]:
    """Render one row of one channel, and return its levels."""
    row = np.asarray(values, np.float32)[None, :, None]
    return list(actgrid.render(row, **options).levels[0].tolist())


def test_standard_matches_formula_and_truncates() -> None:
    # mean 2, std 1: (x - 2) * 64 + 128.
    assert render_levels([1, 3, 1, 3]) == [64, 192, 64, 192]
    # mean 1, std sqrt(2): (2 - 1) / sqrt(2) * 64 + 128 = 173.25
    assert render_levels([0, 0, 0, 0, 0, 1, 1, 3, 3, 2])[-1] == int(1 / np.sqrt(1.4) * 64 + 128)


def test_standard_clips_outliers() -> None:
    levels = render_levels([0] * 99 + [1000])
    assert levels[-1] == 255
    assert render_levels([0] * 99 + [-1000])[-1] == 0


def test_minmax_rounds_to_nearest() -> None:
    # 1/3 of 255 is 85; 0.1 of 255 is 25.5, which is rounded up to 26.
    assert render_levels([0, 1, 3], normalize="minmax") == [0, 85, 255]
    assert render_levels([0, 1, 10], normalize="minmax") == [0, 26, 255]


def test_symmetric_puts_zero_in_the_middle() -> None:
    # 127.5 / 2 per unit, from 128.
    assert render_levels([-2, -1, 0, 1, 1.5], normalize="symmetric") == [0, 64, 128, 191, 223]


@pytest.mark.parametrize(
    ("normalize", "low", "high", "meanings"),
    [
        # mean 1.5, std 0.5: 0.5 - 128 and 255.5 - 128 levels from the mean, 64 levels for each std.
        ("standard", 0.50390625, 2.49609375, ("mean \N{MINUS SIGN} 2 std", "mean + 2 std")),
        ("minmax", 1, 2, ("minimum", "maximum")),
        ("symmetric", -2, 2, ("\N{MINUS SIGN} largest absolute value", "largest absolute value")),
        ("percentile(0, 100)", 1, 2, ("percentile 0", "percentile 100")),
        ("range(-1, 4)", -1, 4, ("-1", "4")),
    ],
)
def test_range_is_in_the_middle_of_the_end_levels(
    normalize: str, low: float, high: float, meanings: tuple[str, str]
) -> None:
    tiles = np.array([[[[1, 2, 1, 2]]]], np.float32)
    normalization = parse_normalize(normalize)
    backend = load_backend("numpy")
    mapping = normalization.compute_mapping(tiles, backend.measure(tiles, 1), "channel", backend)
    assert [values.item() for values in mapping.compute_range()] == pytest.approx([low, high])
    assert normalization.describe_range() == meanings


def test_range_of_a_constant_tile_is_its_value() -> None:
    tiles = np.full((1, 1, 2, 2), 7, np.float32)
    backend = load_backend("numpy")
    for normalize in ("standard", "minmax"):
        normalization = parse_normalize(normalize)
        stats = backend.measure(tiles, 1)
        mapping = normalization.compute_mapping(tiles, stats, "channel", backend)
        assert [values.item() for values in mapping.compute_range()] == [7, 7]


def test_percentile_equals_numpy() -> None:
    values = np.random.default_rng(0).normal(size=101)
    low, high = np.percentile(values.astype(np.float32), [10, 90])
    expected = np.clip((values - low) / (high - low) * 255 + 0.5, 0, 255).astype(int)
    levels = np.array(render_levels(values, normalize="percentile(10, 90)"))
    assert np.abs(levels - expected).max() <= 1
    assert (levels != expected).mean() < 0.05


def test_percentile_defaults_to_1_and_99_and_ignores_nonfinite_values() -> None:
    assert parse_normalize("percentile") == Normalization("percentile", (1, 99))
    with_nan = render_levels([*range(100), np.nan, np.inf], normalize="percentile(0, 100)")
    assert with_nan[:100] == render_levels(range(100), normalize="minmax")
    assert with_nan[100:] == [0, 255]


def test_range_uses_given_limits() -> None:
    assert render_levels([-1, 0, 1, 2, 9], normalize="range(0, 2)") == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("normalize", ["standard", "symmetric"])
def test_constant_channel_has_middle_level(normalize: str) -> None:
    assert render_levels([0, 0], normalize=normalize) == [128, 128]


@pytest.mark.parametrize("normalize", ["minmax", "percentile"])
def test_constant_channel_has_level_0(normalize: str) -> None:
    assert render_levels([5, 5], normalize=normalize) == [0, 0]


@pytest.mark.parametrize(
    "normalize", ["standard", "minmax", "symmetric", "percentile(0, 100)", "range(0, 4)"]
)
def test_layer_scope_maps_all_tiles_alike(normalize: str) -> None:
    values = np.array([[0, 1], [2, 3]], np.float32)
    channels = np.stack([values, values + 1], axis=-1)
    grid = actgrid.render(channels, normalize=normalize, scope="layer", padding=0)
    joined = actgrid.render(
        np.concatenate([values, values + 1], axis=1)[..., None], normalize=normalize
    )
    np.testing.assert_array_equal(grid.levels, joined.levels)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("percentile(2, 98)", ("percentile", (2, 98))),
        ("percentile 2", None),
        (("range", 0, 6), ("range", (0, 6))),
        (" range( -1 , 1e2 ) ", ("range", (-1, 100))),
        (("minmax",), ("minmax", ())),
    ],
)
def test_parse_normalize_formats(
    value: object, expected: tuple[str, tuple[float, ...]] | None
) -> None:
    if expected is None:
        with pytest.raises(OptionError):
            parse_normalize(value)
    else:
        assert parse_normalize(value) == Normalization(*expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("minmx", r"not 'minmx' \(did you mean minmax"),
        (3, "must be one of standard"),
        ("minmax(1)", "takes no numbers"),
        ("range", "takes 2 numbers"),
        ("range(1)", "takes 2 numbers"),
        ("range(2, 1)", "first limit must be below the second"),
        ("range(0, inf)", "first limit must be below"),
        ("range(a, b)", "takes numbers"),
        ("percentile(-1, 50)", "between 0 and 100"),
        ("percentile(50, 101)", "between 0 and 100"),
    ],
)
def test_invalid_normalize_raises(value: object, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        actgrid.render(np.ones((2, 2, 2)), normalize=value)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
