"""Tests of the backends against the NumPy reference and hand-computed values."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from typing import Any

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import actgrid
from actgrid import _core
from actgrid.errors import BackendError, OptionError
from actgrid.rendering import backends
from actgrid.rendering.backends import (
    BACKENDS,
    DrawTask,
    find_backend_problems,
    load_backend,
    native_backend,
    numpy_backend,
)
from actgrid.rendering.normalize import Mapping, parse_normalize
from actgrid.rendering.stats import ChannelStats

# The native core in each variant that this processor can run.
NATIVE_VARIANTS = tuple(f"native-{variant}" for variant in _core.simd_variants())
FAST_BACKENDS = (*NATIVE_VARIANTS, "numba")
ALL_BACKENDS = (*FAST_BACKENDS, "numpy")
DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "bfloat16"),
]
NORMALIZATIONS = ["standard", "minmax", "symmetric", "percentile(5, 95)", "range(-1, 2)"]

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the name of a backend, with a variant of the native backend selected."""
    name, _, variant = request.param.partition("-")
    fastest = _core.simd_variant()
    _core.use_simd_variant(variant or fastest)
    yield name
    _core.use_simd_variant(fastest)


def get_dtype(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def assert_stats_agree(stats: ChannelStats, expected: ChannelStats, tiles: Array) -> None:
    magnitudes = np.abs(tiles.astype(np.float64))
    largest = np.max(magnitudes, initial=0, where=np.isfinite(magnitudes))
    for name in ("mean", "std", "min", "max", "zero_fraction"):
        # A mean near zero is compared relative to the size of the summed values.
        np.testing.assert_allclose(
            getattr(stats, name),
            getattr(expected, name),
            rtol=1e-6,
            atol=1e-6 * largest if name == "std" else 1e-12 * largest,
            err_msg=name,
        )
    np.testing.assert_array_equal(stats.nonfinite, expected.nonfinite)
    np.testing.assert_array_equal(stats.dead, expected.dead)
    assert stats.size == expected.size


def paint(backend: str, tiles: Array, stats: ChannelStats, normalize: str, threads: int) -> Array:
    channels, slices, height, width = tiles.shape
    mapping = parse_normalize(normalize).compute_mapping(
        tiles, stats, "channel", load_backend(backend), threads
    )
    canvas = np.full((channels * height, slices * (width + 1)), 7, np.uint8)
    c, s = np.meshgrid(np.arange(channels), np.arange(slices), indexing="ij")
    origin = c * height * canvas.shape[1] + s * (width + 1)
    origin[::3] = -1  # every third tile is not drawn
    load_backend(backend).paint(tiles, mapping, origin, canvas, threads)
    return canvas


@st.composite
def draw_strided_tiles(draw: st.DrawFn) -> Array:
    """Draw tiles of any dtype as transposed, sliced and reversed views."""
    dtype = get_dtype(draw(st.sampled_from(DTYPES)))
    # Channels, slices, height, width: the first or last side exceeds every register width.
    max_sides = draw(st.sampled_from(((37, 3, 5, 7), (7, 2, 5, 37))))
    shape = draw(st.tuples(*(st.integers(1, side) for side in max_sides)))
    axes = draw(st.permutations(range(4)))
    steps = draw(st.tuples(*(st.sampled_from((1, 1, 2, -1)) for _ in range(4))))
    stored_shape = tuple(shape[axis] * abs(steps[axis]) for axis in axes)
    values: Array
    if dtype.kind in "iub":
        values = draw(hnp.arrays(dtype, stored_shape))
    else:
        # In the range of float16, and far below values whose squares overflow float64.
        source: Any = np.float16 if dtype.itemsize == 2 else np.float32
        floats = st.floats(-6e4, 6e4, width=16 if dtype.itemsize == 2 else 32)
        special_values = st.sampled_from((0.0, 0.0, np.nan, np.inf, -np.inf))
        values = draw(hnp.arrays(source, stored_shape, elements=floats | special_values)).astype(
            dtype
        )
    view = values.transpose(np.argsort(axes))
    tiles: Array = view[tuple(slice(None, None, step) for step in steps)]
    return tiles


@pytest.mark.parametrize("backend", FAST_BACKENDS, indirect=True)
@given(tiles=draw_strided_tiles(), threads=st.sampled_from((1, 3)))
@settings(max_examples=300)
def test_statistics_match_reference(backend: str, tiles: Array, threads: int) -> None:
    result = load_backend(backend).measure(tiles, threads)
    assert_stats_agree(result, numpy_backend.measure(tiles, 1), tiles)


@pytest.mark.parametrize("backend", FAST_BACKENDS, indirect=True)
@given(
    tiles=draw_strided_tiles(),
    threads=st.sampled_from((1, 3)),
    normalize=st.sampled_from(NORMALIZATIONS),
)
@settings(max_examples=300)
def test_levels_match_reference(backend: str, tiles: Array, threads: int, normalize: str) -> None:
    stats = numpy_backend.measure(tiles, 1)
    result = paint(backend, tiles, stats, normalize, threads).astype(int)
    expected = paint("numpy", tiles, stats, normalize, 1)
    # Equal float32 operations in the same order: results are identical.
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("backend", FAST_BACKENDS, indirect=True)
@given(
    tiles=draw_strided_tiles(),
    threads=st.sampled_from((1, 3)),
    limits=st.tuples(st.floats(0, 100), st.floats(0, 100)),
    pooled=st.booleans(),
)
@settings(max_examples=200)
def test_percentiles_match_numpy(
    backend: str, tiles: Array, threads: int, limits: tuple[float, float], pooled: bool
) -> None:
    result = load_backend(backend).percentiles(tiles, limits, pooled, threads)
    expected = numpy_backend.percentiles(tiles, limits, pooled, 1)
    np.testing.assert_allclose(result, expected, rtol=1e-14)
    assert result[0].shape == result[1].shape == ((1, 1) if pooled else tiles.shape[:2])


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
def test_percentiles_of_known_values(backend: str) -> None:
    tiles = np.array([[0, 10, 20, 30, 40], [5, np.nan, np.inf, 5, 5]], np.float32)[:, None, None]
    low, high = load_backend(backend).percentiles(tiles, (10, 75), False, 1)
    assert low.tolist() == [[4], [5]]
    assert high.tolist() == [[30], [5]]
    low, high = load_backend(backend).percentiles(tiles, (0, 100), True, 1)
    assert (low.tolist(), high.tolist()) == ([[0]], [[40]])
    limits = load_backend(backend).percentiles(tiles[1:, :, :, 1:3], (1, 99), False, 1)
    assert [limit.tolist() for limit in limits] == [[[0]], [[0]]]


@pytest.mark.parametrize("backend", FAST_BACKENDS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_large_pictures_match_reference(backend: str, dtype: str, data_format: str) -> None:
    # Large enough for several threads, with remainders of channels and pixels.
    values = np.random.default_rng(0).normal(3, 40, (1, 61, 73, 83)).clip(0)
    values = values.astype(get_dtype(dtype))
    if data_format == "channels_first":
        values = np.ascontiguousarray(np.moveaxis(values, -1, 1))
    options: dict[str, Any] = {"data_format": data_format, "columns": 9}
    result = actgrid.render(values, backend=backend, threads=2, **options)
    expected = actgrid.render(values, backend="numpy", **options)
    difference = np.abs(result.levels.astype(int) - expected.levels)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-4
    np.testing.assert_allclose(result.stats.mean, expected.stats.mean, rtol=1e-6)
    np.testing.assert_allclose(result.stats.std, expected.stats.std, rtol=1e-6)


# Height, width, channels: pixels that are read together with their neighbours because they have few
# channels, rows that fill a buffer of levels several times, and rows narrower than a register.
@pytest.mark.parametrize("backend", FAST_BACKENDS, indirect=True)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize(
    "shape",
    [(70, 33, 3), (3, 5000, 2), (300, 7, 5), (40, 41, 24), (60, 9, 16), (5, 130, 200), (99, 1, 12)],
)
def test_shapes_match_reference(backend: str, dtype: str, shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).normal(20, 40, shape).clip(0, 255).astype(dtype)
    values[..., -1] = 7  # a flat tile
    values[:2, -3:, 0] = 0
    if dtype != "uint8":
        values[1, :, 1] = np.nan
        values[2, 0] = np.inf
        values[2, -1, -1] = -np.inf
    for tiles in (
        values.transpose(2, 0, 1)[:, None],  # channels last
        np.ascontiguousarray(values.transpose(2, 0, 1))[:, None],
    ):
        stats = numpy_backend.measure(tiles, 1)
        assert_stats_agree(load_backend(backend).measure(tiles, 2), stats, tiles)
        for normalize in ("standard", "minmax"):
            result = paint(backend, tiles, stats, normalize, 2)
            np.testing.assert_array_equal(result, paint("numpy", tiles, stats, normalize, 1))


@pytest.mark.parametrize("backend", NATIVE_VARIANTS, indirect=True)
def test_statistics_of_bytes_are_exact(backend: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (300, 300, 33)).astype(np.uint8)
    values[:, :, 0] = 255
    for dtype in (np.uint8, np.int8):
        tiles = values.view(dtype).transpose(2, 0, 1)[:, None]
        exact = tiles.astype(np.int64)
        for view in (tiles, np.ascontiguousarray(tiles)):
            stats = load_backend(backend).measure(view, 1)
            np.testing.assert_array_equal(stats.mean, exact.sum((2, 3)) / 90_000)
            np.testing.assert_array_equal(stats.zero_fraction, (exact == 0).sum((2, 3)) / 90_000)
            np.testing.assert_allclose(stats.std, exact.std((2, 3)), rtol=1e-12)


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
@pytest.mark.parametrize("channels", [1, 3, 40])
@given(log_ratio=st.floats(0, 9), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_standard_deviation_is_accurate_for_any_mean(
    backend: str, channels: int, log_ratio: float, seed: int
) -> None:
    # The mean of the first channel is up to 1e9 standard deviations.
    values = np.random.default_rng(seed).normal(0, 1, (31, 37, channels))
    values[:, :, 0] += 10**log_ratio
    tiles = values.transpose(2, 0, 1)[:, None]
    stats = load_backend(backend).measure(tiles, 1)
    exact = tiles.astype(np.longdouble)
    np.testing.assert_allclose(stats.std, exact.std((2, 3)).astype(float), rtol=1e-9)
    np.testing.assert_allclose(stats.mean, exact.mean((2, 3)).astype(float), rtol=1e-14, atol=1e-9)


@pytest.mark.parametrize("backend", NATIVE_VARIANTS, indirect=True)
@given(value=st.floats(-1e150, 1e150), channels=st.sampled_from((1, 3, 20)))
@settings(max_examples=50)
def test_statistics_of_constant_tiles_are_exact(backend: str, value: float, channels: int) -> None:
    tiles = np.full((9, 11, channels), value).transpose(2, 0, 1)[:, None]
    stats = load_backend(backend).measure(tiles, 1)
    assert stats.mean.tolist() == [[value]] * channels
    assert stats.std.tolist() == [[0]] * channels
    assert stats.dead.all()


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
def test_small_deviation_from_large_mean_is_accurate(backend: str) -> None:
    # 1e4 +- 1e-2: squares of such values lose the deviation to rounding in float64.
    offsets = np.random.default_rng(1).normal(0, 1e-2, (1000, 1000))
    tiles = np.stack([1e4 + offsets, -1e4 + offsets])[:, None].astype(np.float64)
    stats = load_backend(backend).measure(tiles, 2)
    exact = [np.sum(tile.astype(np.longdouble)) / tile.size for tile in tiles]
    deviation = [
        np.sqrt(np.sum((tile - mean) ** 2) / tile.size)
        for tile, mean in zip(tiles.astype(np.longdouble), exact, strict=True)
    ]
    np.testing.assert_allclose(stats.mean.ravel(), np.array(exact, float), rtol=1e-12)
    np.testing.assert_allclose(stats.std.ravel(), np.array(deviation, float), rtol=1e-9)


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
def test_outlier_in_first_pixel_keeps_accuracy(backend: str) -> None:
    tiles = np.random.default_rng(2).normal(5, 1, (8, 1, 300, 300)).astype(np.float32)
    tiles[:, :, 0, 0] = 1e4
    for view in (tiles, np.ascontiguousarray(tiles.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)):
        stats = load_backend(backend).measure(view, 1)
        expected = tiles.astype(np.float64)
        np.testing.assert_allclose(stats.mean, expected.mean((2, 3)), rtol=1e-12)
        np.testing.assert_allclose(stats.std, expected.std((2, 3)), rtol=1e-9)


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
def test_statistics_of_known_values(backend: str) -> None:
    tiles = np.array(
        [
            [[1, 2], [3, 6]],  # mean 3, variance (4 + 1 + 0 + 9) / 4
            [[0, 0], [0, 4]],
            [[np.nan, 5], [np.inf, 5]],
            [[np.nan, np.nan], [-np.inf, np.nan]],
            [[7, 7], [7, 7]],
        ],
        np.float32,
    )[:, None]
    stats = load_backend(backend).measure(tiles, 1)
    np.testing.assert_allclose(stats.mean.ravel(), [3, 1, 5, np.nan, 7])
    np.testing.assert_allclose(stats.std.ravel(), [np.sqrt(3.5), np.sqrt(3), 0, np.nan, 0])
    np.testing.assert_array_equal(stats.min.ravel(), [1, 0, 5, np.nan, 7])
    np.testing.assert_array_equal(stats.max.ravel(), [6, 4, 5, np.nan, 7])
    np.testing.assert_array_equal(stats.zero_fraction.ravel(), [0, 0.75, 0, np.nan, 0])
    np.testing.assert_array_equal(stats.nonfinite.ravel(), [0, 0, 2, 4, 0])
    np.testing.assert_array_equal(stats.dead.ravel(), [False, False, False, False, True])


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
@pytest.mark.parametrize("channels", [1, 4, 5, 16])
def test_levels_of_known_values(backend: str, channels: int) -> None:
    # minmax of 0, 1, 2 is 0.5, 128, 255.5: levels 0, 128, 255.
    row = np.array([0, 1, 2, np.nan, np.inf, -np.inf], np.float32)
    activation = np.repeat(row[None, :, None], channels, axis=2)
    grid = actgrid.render(activation, normalize="minmax", backend=backend, columns=1, padding=0)
    assert grid.levels.tolist() == [[0, 128, 255, 0, 255, 0]] * channels


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
@pytest.mark.parametrize("channels", [1, 4, 16])
# The scale of this range is too small for float32.
@pytest.mark.parametrize(("normalize", "level"), [("standard", 128), ("range(0, 1e60)", 0)])
def test_constant_tile_keeps_nan_and_infinities(
    backend: str, channels: int, normalize: str, level: int
) -> None:
    row = np.array([3, np.nan, np.inf, -np.inf, 3], np.float32)
    activation = np.repeat(row[None, :, None], channels, axis=2)
    grid = actgrid.render(activation, normalize=normalize, backend=backend, columns=1, padding=0)
    assert grid.levels.tolist() == [[level, 0, 255, 0, level]] * channels


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nearly_constant_channel_stays_finite(backend: str, dtype: str) -> None:
    # 64 / std overflows the dtype.
    tiny = float(np.finfo(dtype).smallest_subnormal)
    activation = np.array([0, tiny, 0, tiny], dtype).reshape(2, 2, 1)
    levels = actgrid.render(activation, backend=backend, normalize="minmax").levels
    assert levels[0, 0] == 0
    assert levels[0, 1] >= levels[0, 0]


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
def test_all_half_precision_numbers_are_exact(backend: str) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    for dtype in (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)):
        values = bits.view(dtype)
        with np.errstate(invalid="ignore"):  # signalling NaN
            finite = values[np.isfinite(values)]
        tiles = np.stack([finite, finite[::-1]] * 4)[:, None, None]
        stats = load_backend(backend).measure(tiles, 1)
        expected = finite.astype(np.float64)
        np.testing.assert_allclose(stats.std[:, 0], expected.std(), rtol=1e-9)
        np.testing.assert_array_equal(stats.max[:, 0], expected.max())
        # Every number separately, including subnormals.
        for lanes in (1, 8):
            separate_tiles = np.broadcast_to(
                finite[:, None, None, None], (finite.size, 1, 1, lanes)
            )
            minima = load_backend(backend).measure(separate_tiles, 1).min[:, 0]
            np.testing.assert_array_equal(minima, expected)


@pytest.mark.parametrize("backend", FAST_BACKENDS, indirect=True)
def test_result_does_not_depend_on_threads(backend: str) -> None:
    values = np.random.default_rng(3).normal(size=(1, 64, 64, 100)).astype(np.float32)
    single_threaded = actgrid.render(values, backend=backend, threads=1)
    for threads in (2, 3, 64):
        multi_threaded = actgrid.render(values, backend=backend, threads=threads)
        np.testing.assert_array_equal(multi_threaded.levels, single_threaded.levels)
        np.testing.assert_array_equal(multi_threaded.stats.std, single_threaded.stats.std)


@pytest.mark.parametrize("backend", FAST_BACKENDS, indirect=True)
def test_concurrent_rendering(backend: str) -> None:
    values = [
        np.random.default_rng(seed).normal(size=(1, 64, 64, 70)).astype(np.float32)
        for seed in range(6)
    ]
    expected = [actgrid.render(value, backend=backend, threads=1).levels for value in values]
    results: dict[int, Array] = {}

    def render_repeatedly(index: int) -> None:
        for _ in range(5):
            results[index] = actgrid.render(values[index], backend=backend, threads=2).levels

    threads = [
        threading.Thread(target=render_repeatedly, args=(index,)) for index in range(len(values))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, levels in enumerate(expected):
        np.testing.assert_array_equal(results[index], levels)


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
def test_unaligned_memory(backend: str) -> None:
    # A float32 field after a single byte, so that addresses are not multiples of four.
    records = np.zeros((5, 6, 9), np.dtype([("tag", "u1"), ("value", "<f4")]))
    records["value"] = np.random.default_rng(4).normal(size=records.shape)
    unaligned = records["value"]
    assert not unaligned.flags.aligned
    result = actgrid.render(unaligned, backend=backend)
    expected = actgrid.render(unaligned.copy(), backend="numpy")
    np.testing.assert_array_equal(result.levels, expected.levels)


@pytest.mark.parametrize("variant", _core.simd_variants())
def test_environment_selects_variant(variant: str) -> None:
    program = (
        "import actgrid, numpy; from actgrid import _core; "
        "actgrid.render(numpy.ones((2, 2, 2)), backend='native'); print(_core.simd_variant())"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ACTGRID_SIMD": variant},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.strip() == variant


def test_unknown_variant_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTGRID_SIMD", "mmx")
    with pytest.raises(OptionError, match=r"ACTGRID_SIMD must be one of .*, not 'mmx'"):
        native_backend._check_variant()
    with pytest.raises(ValueError, match="this processor has no mmx"):
        _core.use_simd_variant("mmx")


def resize(backend: str, maps: Array, height: int, width: int, threads: int = 1) -> Array:
    resized = np.full((len(maps), height, width), 7, np.float32)
    load_backend(backend).resize(maps, resized, threads)
    return resized


def resize_pixel_by_pixel(values: Array, height: int, width: int) -> Array:
    """Resize one map pixel by pixel, from the four nearest source pixels."""
    source = values.astype(np.float64)
    resized = np.empty((height, width))
    for i, j in np.ndindex(height, width):
        y = min(max((i + 0.5) * len(source) / height - 0.5, 0), len(source) - 1)
        x = min(max((j + 0.5) * source.shape[1] / width - 0.5, 0), source.shape[1] - 1)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, len(source) - 1), min(left + 1, source.shape[1] - 1)
        upper = source[top, left] + (source[top, right] - source[top, left]) * (x - left)
        lower = source[bottom, left] + (source[bottom, right] - source[bottom, left]) * (x - left)
        resized[i, j] = upper + (lower - upper) * (y - top)
    return resized


side_lengths = st.integers(1, 40)


@st.composite
def draw_float_maps(draw: st.DrawFn) -> Array:
    shape = draw(st.tuples(st.integers(1, 3), side_lengths, side_lengths))
    huge = float(np.float32(3e38))  # which float32 represents exactly
    special_values = st.sampled_from((0.0, -0.0, np.nan, np.inf, -np.inf, huge, -huge))
    return draw(
        hnp.arrays(np.float32, shape, elements=st.floats(-1e3, 1e3, width=32) | special_values)
    )


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
def test_resize_of_known_values(backend: str) -> None:
    # Centres lie at one and three quarters between source pixels, or outside them.
    maps = np.array([[[0, 4], [8, 12]], [[5, 5], [5, 5]]], np.float32)
    first, second = resize(backend, maps, 4, 4)
    assert first.tolist() == [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    assert np.unique(second).tolist() == [5]
    # At half size each pixel is the mean of four pixels.
    assert resize(backend, first[None], 2, 2).tolist() == [[[1.5, 4.5], [7.5, 10.5]]]


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
@given(shape=st.tuples(side_lengths, side_lengths), height=side_lengths, width=side_lengths)
@settings(max_examples=50)
def test_resize_is_bilinear(backend: str, shape: tuple[int, int], height: int, width: int) -> None:
    values = np.random.default_rng(0).random(shape, np.float32)
    result = resize(backend, values[None], height, width)[0]
    np.testing.assert_allclose(result, resize_pixel_by_pixel(values, height, width), atol=1e-6)


@pytest.mark.parametrize("backend", FAST_BACKENDS, indirect=True)
@given(
    maps=draw_float_maps(), height=side_lengths, width=side_lengths, threads=st.sampled_from((1, 3))
)
@settings(max_examples=200)
def test_resized_maps_match_reference(
    backend: str, maps: Array, height: int, width: int, threads: int
) -> None:
    # Equal float32 operations in the same order.
    expected = resize("numpy", maps, height, width)
    np.testing.assert_array_equal(resize(backend, maps, height, width, threads), expected)


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
@given(maps=draw_float_maps())
@settings(max_examples=50)
def test_resize_to_same_size_is_identity(backend: str, maps: Array) -> None:
    np.testing.assert_array_equal(resize(backend, maps, *maps.shape[1:]), maps)


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
@given(
    value=st.floats(width=32),
    shape=st.tuples(side_lengths, side_lengths),
    height=side_lengths,
    width=side_lengths,
)
@settings(max_examples=50)
def test_resized_constant_map_stays_constant(
    backend: str, value: float, shape: tuple[int, int], height: int, width: int
) -> None:
    result = resize(backend, np.full((1, *shape), value, np.float32), height, width)
    np.testing.assert_array_equal(result, np.full_like(result, value))


def overlay(
    backend: str, values: Array, terms: Any, image: Array, alpha: float, threads: int = 1
) -> Array:
    mapping = Mapping(*(np.array([term], np.float64) for term in terms))
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    overlaid = np.full_like(image, 7)
    load_backend(backend).overlay(values, mapping, colours, image, alpha, overlaid, threads)
    return overlaid


@pytest.mark.parametrize("backend", ALL_BACKENDS, indirect=True)
@pytest.mark.parametrize(("scale", "level_of_five"), [(10, 50), (0, 0)])
def test_overlay_of_known_values(backend: str, scale: float, level_of_five: int) -> None:
    values = np.array([[5, np.nan, np.inf, -np.inf, 1e9, -1]], np.float32)
    levels = [level_of_five, 0, 255, 0, 255 if scale else 0, 0]
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)[levels]
    image = np.random.default_rng(1).integers(0, 256, (1, 6, 3), np.uint8)
    for alpha in (0, 0.25, 0.5, 1):
        overlaid = overlay(backend, values, (0, scale, 0.5), image, alpha)
        expected = np.trunc(image + (colours.astype(float) - image) * alpha + 0.5)
        np.testing.assert_array_equal(overlaid[0], expected[0])


@pytest.mark.parametrize("backend", FAST_BACKENDS, indirect=True)
@given(
    maps=draw_float_maps(),
    height=side_lengths,
    width=side_lengths,
    alpha=st.floats(0, 1),
    scale=st.sampled_from((0.0, 0.3, 10.0)),
    threads=st.sampled_from((1, 3)),
)
@settings(max_examples=200)
def test_overlays_match_reference(
    backend: str, maps: Array, height: int, width: int, alpha: float, scale: float, threads: int
) -> None:
    image = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    arguments = (maps[0], (1, scale, 128), image, alpha)
    result = overlay(backend, *arguments, threads)
    np.testing.assert_array_equal(result, overlay("numpy", *arguments))


@pytest.mark.parametrize("backend", FAST_BACKENDS, indirect=True)
@pytest.mark.parametrize("shape", [(14, 14), (1500, 900)])
def test_large_overlays_match_for_any_threads(backend: str, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(3).random(shape, np.float32)
    image = np.random.default_rng(4).integers(0, 256, (701, 1003, 3), np.uint8)
    expected = overlay("numpy", values, (0, 255, 0.5), image, 0.4)
    for threads in (1, 2, 64):
        result = overlay(backend, values, (0, 255, 0.5), image, 0.4, threads)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python is not free-threaded"
)
def test_core_leaves_the_global_lock_disabled() -> None:
    # Python warns, and enables the lock, when a module does not declare that it needs none.
    code = "import actgrid._core, sys; assert not sys._is_gil_enabled()"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_forked_child_renders() -> None:
    # In a new process, because this process has threads of TensorFlow and of other tests.
    program = """
import os, warnings, numpy, actgrid
warnings.simplefilter("ignore")  # Python 3.12 warns of forking beside threads
x = numpy.random.default_rng(0).normal(size=(1, 80, 80, 64)).astype("float32")
expected = actgrid.render(x, threads=4).levels
child = os.fork()
if child == 0:
    os._exit(0 if (actgrid.render(x, threads=4).levels == expected).all() else 1)
assert os.waitpid(child, 0)[1] == 0
assert (actgrid.render(x, threads=4).levels == expected).all()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="/proc lists threads only on Linux"
)
def test_thread_pool_is_reused() -> None:
    program = """
import os, numpy, actgrid
x = numpy.ones((1, 128, 128, 64), "float32")
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
actgrid.render(x, threads=1)
print(count() - before)
for _ in range(5):
    actgrid.render(x, threads=3)
print(count() - before)
"""
    process = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    assert process.stdout.split() == ["0", "2"]


def test_every_backend_is_available() -> None:
    assert find_backend_problems() == dict.fromkeys(BACKENDS)


def test_auto_prefers_native() -> None:
    assert load_backend("auto") is load_backend("native")


@pytest.mark.parametrize("name", ["native", "numba"])
def test_missing_backend_error_names_install_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"actgrid.rendering.backends.{name}_backend"
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(BackendError, match=rf"{name} backend is not available .*install") as caught:
        actgrid.render(np.ones((2, 2, 2)), backend=name)
    assert isinstance(caught.value, ImportError)
    # "auto" selects the next backend.
    backends.find_first_backend.cache_clear()
    try:
        assert load_backend("auto") is load_backend("numba" if name == "native" else "native")
        actgrid.render(np.ones((2, 2, 2)))
    finally:
        backends.find_first_backend.cache_clear()


def test_unknown_backend_raises() -> None:
    with pytest.raises(OptionError, match="one of auto, native, numba, numpy, not 'cuda'"):
        actgrid.render(np.ones((2, 2, 2)), backend="cuda")


# Values at which the mapping has special cases: constant, tiny and huge spans, no finite values.
_SPECIAL = [0.0, 1.0, -2.5, 1e-30, 3e38, -3e38, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("backend", FAST_BACKENDS[:-1], indirect=True)
@pytest.mark.parametrize("normalize", ["standard", "minmax", "symmetric", "range(-1, 2)"])
@given(
    layers=st.lists(
        hnp.arrays(
            st.sampled_from([np.dtype(name) for name in ("f4", "f8", "f2", "u1", "i8")]),
            st.tuples(*(st.integers(1, 5) for _ in range(4))),
            elements=st.integers(0, 100),
        ),
        max_size=5,
    ),
    special=st.lists(st.sampled_from(_SPECIAL), min_size=1, max_size=6),
    threads=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_drawing_at_once_equals_measuring_mapping_and_painting(
    backend: str, normalize: str, layers: list[Array], special: list[float], threads: int
) -> None:
    normalization = parse_normalize(normalize)
    layers = [*layers, np.resize(np.array(special, np.float32), (2, 1, 2, 3))]
    tasks = []
    for tiles in layers:
        channels, slices, height, width = tiles.shape
        count = channels * slices
        canvas = np.full((height, count * width), 9, np.uint8)
        origin = np.arange(0, count * width, width).reshape(channels, slices)
        origin[-1, -1] = -1  # not drawn
        tasks.append(DrawTask(tiles, origin, canvas))
    with np.errstate(over="ignore"):
        stats = native_backend.draw(tasks, normalization, threads)
    for task, task_stats in zip(tasks, stats, strict=True):
        expected = native_backend.measure(task.tiles, 1)
        canvas = np.full_like(task.canvas, 9)
        mapping = normalization.compute_mapping(task.tiles, expected, "channel", native_backend)
        native_backend.paint(task.tiles, mapping, task.origin, canvas, 1)
        np.testing.assert_array_equal(task.canvas, canvas)
        for name in ("mean", "std", "min", "max", "zero_fraction", "nonfinite", "size"):
            np.testing.assert_array_equal(getattr(task_stats, name), getattr(expected, name))


def test_drawing_at_once_checks_its_arguments() -> None:
    tiles, origin = np.zeros((2, 1, 3, 3), np.float32), np.array([[0], [4]])
    canvas = np.zeros((3, 7), np.uint8)
    with pytest.raises(ValueError, match="normalization percentile is not supported"):
        _core.draw([(tiles, origin, canvas)], "percentile", 1, 99, 1)
    with pytest.raises(ValueError, match="does not fit"):
        _core.draw([(tiles, origin + 1, canvas)], "minmax", 0, 0, 1)
    with pytest.raises(ValueError, match="one entry per tile"):
        _core.draw([(tiles, origin[:1], canvas)], "minmax", 0, 0, 1)
    with pytest.raises(TypeError):  # a copy of another type would be drawn on
        _core.draw([(tiles, origin, canvas.astype(np.int32))], "minmax", 0, 0, 1)
    assert _core.draw([], "minmax", 0, 0, 1) == []


def test_core_checks_its_arguments() -> None:
    tiles = np.zeros((2, 1, 3, 3), np.float32)
    ones, origin = np.ones((2, 1)), np.zeros((2, 1), np.int64)
    canvas = np.zeros((3, 6), np.uint8)
    with pytest.raises(ValueError, match="must be \\(channels, slices"):
        _core.measure(tiles[0], 1)
    with pytest.raises(ValueError, match="must not be empty"):
        _core.measure(tiles[:0], 1)
    with pytest.raises(TypeError, match="complex64"):
        _core.measure(tiles.astype(np.complex64), 1)
    with pytest.raises(TypeError, match="float32"):
        _core.measure(tiles.astype(">f4"), 1)
    with pytest.raises(ValueError, match="between 0 and 100"):
        _core.percentiles(tiles, 1, 101, False, 1)
    with pytest.raises(ValueError, match="one entry per tile"):
        _core.paint(tiles, ones[:1], ones, ones, origin, canvas, 1)
    with pytest.raises(ValueError, match="does not fit"):
        _core.paint(tiles, ones, ones, ones, origin + 4, canvas, 1)
    column, far = canvas.reshape(-1, 1), origin + np.iinfo(np.int64).max
    with pytest.raises(ValueError, match="does not fit"):
        _core.paint(tiles[..., :1], ones, ones, ones, far, column, 1)
    with pytest.raises(ValueError, match="neighbouring bytes"):
        _core.paint(tiles, ones, ones, ones, origin, canvas[:, :0], 1)
    with pytest.raises(ValueError, match="neighbouring bytes"):
        _core.paint(tiles, ones, ones, ones, origin, canvas[:, ::2], 1)
    maps, image = np.zeros((2, 3, 3), np.float32), np.zeros((4, 5, 3), np.uint8)
    colours = np.zeros((256, 3), np.uint8)
    with pytest.raises(ValueError, match="of as many maps"):
        _core.resize(maps, maps[:1].copy(), 1)
    with pytest.raises(ValueError, match="not be empty"):
        _core.resize(maps[:, :0].copy(), maps, 1)
    with pytest.raises(ValueError, match="not writeable"):
        _core.resize(maps, np.broadcast_to(maps, maps.shape), 1)
    with pytest.raises(TypeError, match="incompatible"):
        _core.resize(maps.astype(float), maps, 1)
    with pytest.raises(ValueError, match="values must be \\(height, width"):
        _core.overlay(maps, 0, 1, 0, colours, image, 0.5, image, 1)
    with pytest.raises(ValueError, match="palette must be"):
        _core.overlay(maps[0], 0, 1, 0, colours[:9], image, 0.5, image, 1)
    with pytest.raises(ValueError, match="of one shape"):
        _core.overlay(maps[0], 0, 1, 0, colours, image, 0.5, image[1:], 1)
    with pytest.raises(ValueError, match="alpha lies between"):
        _core.overlay(maps[0], 0, 1, 0, colours, image, 1.5, image, 1)
