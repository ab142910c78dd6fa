"""Tests of the tiles that each kind of activation is drawn as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import actgrid
from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.rendering.tiles import as_array, tile


def make_numbered(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_image_has_one_tile_per_channel() -> None:
    x = make_numbered(2, 3, 4, 5)
    tiles = tile(x, sample=1).tiles
    assert tiles.shape == (5, 1, 3, 4)
    np.testing.assert_array_equal(tiles[2, 0], x[1, :, :, 2])
    np.testing.assert_array_equal(tile(x[1]).tiles, tiles)
    first = np.moveaxis(x, -1, 1)
    np.testing.assert_array_equal(tile(first, sample=1, data_format="channels_first").tiles, tiles)


def test_volume_has_one_row_of_slices_per_channel() -> None:
    x = make_numbered(1, 2, 3, 4, 5)
    tiling = tile(x)
    assert tiling.tiles.shape == (5, 2, 3, 4)
    assert tiling.columns == 2
    np.testing.assert_array_equal(tiling.tiles[3, 1], x[0, 1, :, :, 3])
    grid = actgrid.render(x, padding=0, normalize="range(0, 255)")
    assert grid.levels.shape == (5 * 3, 2 * 4)
    np.testing.assert_array_equal(grid.levels[9:12, 4:8], x[0, 1, :, :, 3])
    assert grid.channels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert grid.stats.mean.shape == (5,)
    np.testing.assert_allclose(grid.stats.mean, x.mean((0, 1, 2, 3)))
    np.testing.assert_allclose(grid.stats.std, x.std((0, 1, 2, 3)))


def test_sequence_is_one_picture_of_steps_by_channels() -> None:
    x = make_numbered(1, 6, 10)
    grid = actgrid.render(x, kind="sequence", normalize="range(0, 255)")
    np.testing.assert_array_equal(grid.levels, x[0])
    # The picture has one mapping; statistics are per channel.
    pooled = actgrid.render(x, kind="sequence", normalize="minmax")
    assert pooled.levels.min() == 0
    assert pooled.levels.max() == 255
    np.testing.assert_allclose(pooled.stats.mean, x[0].mean(0))
    first = actgrid.render(
        x.transpose(0, 2, 1), kind="sequence", normalize="minmax", data_format="channels_first"
    )
    np.testing.assert_array_equal(first.levels, pooled.levels)


def test_token_grid_skips_leading_tokens() -> None:
    x = make_numbered(1, 1 + 6, 4)
    grid = actgrid.render(x, token_grid=(2, 3), padding=0, columns=4, normalize="range(0, 255)")
    expected = x[0, 1:].reshape(2, 3, 4)
    np.testing.assert_array_equal(grid.tile(2), expected[..., 2])
    assert grid.levels.shape == (2, 12)


def test_dense_is_folded_nearly_square() -> None:
    grid = actgrid.render(make_numbered(1, 10), normalize="range(0, 255)", background=99)
    assert grid.levels.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 99, 99]]
    assert grid.stats.mean.tolist() == [4.5]
    assert not grid.stats.dead.any()
    assert grid.locate(1, 2) == 9
    assert grid.locate(2, 2) is None
    np.testing.assert_array_equal(actgrid.render(make_numbered(10)[None][0]).stats.mean, [4.5])


def test_kernel_has_one_row_per_output_channel() -> None:
    x = make_numbered(3, 2, 4, 5)
    grid = actgrid.render(x, kind="kernel", padding=0, normalize="range(0, 255)")
    assert grid.levels.shape == (5 * 3, 4 * 2)
    np.testing.assert_array_equal(grid.tile(3, 2), x[:, :, 2, 3])
    np.testing.assert_array_equal(grid.levels[9:12, 4:6], x[:, :, 2, 3])


def test_kernel_of_one_input_channel_is_nearly_square() -> None:
    x = make_numbered(2, 2, 1, 4)
    grid = actgrid.render(x, kind="kernel", padding=0, normalize="range(0, 255)")
    assert grid.levels.tolist() == [[0, 4, 1, 5], [8, 12, 9, 13], [2, 6, 3, 7], [10, 14, 11, 15]]
    assert grid.stats.mean.tolist() == [6, 7, 8, 9]


def test_3d_kernel_has_one_row_of_slices_per_input_channel() -> None:
    x = make_numbered(2, 3, 1, 4, 5)
    grid = actgrid.render(x, kind="kernel", padding=0, normalize="range(0, 255)")
    assert grid.levels.shape == (5 * 3, 4 * 2 * 1)
    for output in range(5):
        for channel in range(4):
            for depth in range(2):
                tile = grid.tile(output, channel * 2 + depth)
                np.testing.assert_array_equal(tile, x[depth, :, :, channel, output])
    np.testing.assert_array_equal(grid.levels[:3, 3:4], x[1, :, :, 1, 0])
    np.testing.assert_allclose(grid.stats.mean, x.mean((0, 1, 2, 3)))


def test_1d_kernel_has_one_tile_per_output_channel() -> None:
    x = make_numbered(3, 4, 6)
    grid = actgrid.render(x, kind="kernel", normalize="range(0, 255)")
    assert grid.channels.tolist() == [0, 1, 2, 3, 4, 5]
    for output in range(6):
        np.testing.assert_array_equal(grid.tile(output), x[:, :, output])


@pytest.mark.parametrize("shape", [(3, 5), (1, 3, 5), (1, 1, 3, 5), (1, 1, 1, 3, 5)], ids=str)
def test_pointwise_kernel_is_one_picture(shape: tuple[int, ...]) -> None:
    x = make_numbered(*shape)
    grid = actgrid.render(x, kind="kernel", normalize="range(0, 255)")
    np.testing.assert_array_equal(grid.levels, x.reshape(3, 5))
    np.testing.assert_array_equal(grid.stats.mean, x.reshape(3, 5).mean(0))
    # The picture has one mapping.
    symmetric = actgrid.render(x - 7, kind="kernel", normalize="symmetric").levels
    assert symmetric.tolist()[0] == [0, 18, 36, 55, 73]
    assert symmetric.tolist()[2] == [182, 200, 219, 237, 255]


def test_bias_is_drawn_like_a_dense_layer() -> None:
    x = make_numbered(7)
    grid = actgrid.render(x, kind="kernel", normalize="range(0, 255)")
    np.testing.assert_array_equal(grid.levels, actgrid.render(x, normalize="range(0, 255)").levels)
    assert grid.levels.tolist() == [[0, 1, 2], [3, 4, 5], [6, 0, 0]]


@pytest.mark.parametrize("shape", [(4, 5, 6), (2, 4, 5, 6), (1, 2, 4, 5, 6), (3, 7), (7,)], ids=str)
def test_tiles_share_memory_with_activation(shape: tuple[int, ...]) -> None:
    x = make_numbered(*shape)
    assert np.shares_memory(tile(as_array(x)).tiles, x)
    assert as_array(x) is x
    strided = x[..., ::-2]
    assert np.shares_memory(tile(strided).tiles, x)


def test_token_grid_and_kernel_share_memory() -> None:
    x = make_numbered(2, 10, 6)
    assert np.shares_memory(tile(x, token_grid=(3, 3)).tiles, x)
    assert not tile(x, token_grid=(3, 3)).tiles.flags.writeable
    for shape in ((3, 3, 4, 5), (3, 4, 5), (4, 5), (1, 1, 4, 5), (5,)):
        k = make_numbered(*shape)
        assert np.shares_memory(tile(k[..., ::-2], kind="kernel").tiles, k)


def test_activation_is_not_modified() -> None:
    x = make_numbered(1, 4, 4, 3)
    x.flags.writeable = False
    before = x.copy()
    actgrid.render(x)
    np.testing.assert_array_equal(x, before)


def test_other_byte_orders() -> None:
    x = make_numbered(4, 4, 3)
    np.testing.assert_array_equal(actgrid.render(x.astype(">f4")).levels, actgrid.render(x).levels)


def test_nested_lists_are_accepted() -> None:
    assert actgrid.render([[[1.0], [2.0]]], normalize="minmax").levels.tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        (np.ones((1, 2, 3, 4, 5, 6)), {}, ShapeError, r"\(1, 2, 3, 4, 5, 6\) has no rank"),
        (np.float32(3), {}, ShapeError, "has no rank"),
        (np.ones((2, 2)), {"kind": "image"}, ShapeError, r"must be \(N, H, W, C\), not \(2, 2\)"),
        (np.float32(3), {"kind": "kernel"}, ShapeError, r"kernel must be .*, not \(\)"),
        (np.ones((1,) * 6), {"kind": "kernel"}, ShapeError, r"must be \(kd, kh, kw, Cin, Cout\)"),
        (np.ones((0, 2, 2, 2)), {}, ShapeError, r"\(0, 2, 2, 2\) is empty"),
        (np.ones((1, 2, 0, 2)), {}, ShapeError, "is empty"),
        (np.ones((1, 2, 2, 0)), {}, ShapeError, "is empty"),
        (np.empty(0), {}, ShapeError, "is empty"),
        (np.ones((2, 2, 2, 2)), {"sample": 2}, OptionError, "sample 2 .* has 2 samples"),
        (np.ones((2, 2, 2, 2)), {"sample": -3}, OptionError, "sample -3"),
        (np.ones((2, 2, 2)), {"sample": 1}, OptionError, "no batch axis"),
        (np.ones((2, 2, 2, 2)), {"kind": "kernel", "sample": 1}, OptionError, "has no samples"),
        (np.ones((2, 2, 2)), {"kind": "picture"}, OptionError, "kind must be one of image"),
        (np.ones((2, 2, 2)), {"data_format": "NCHW"}, OptionError, "data_format must be .*'NCHW'"),
        (np.ones((2, 2, 2)), {"token_grid": (2, 2)}, ShapeError, "2 tokens do not fill"),
        (np.ones((2, 2, 2)), {"token_grid": "2x"}, OptionError, "token_grid must be HxW"),
        (np.ones((2, 2, 2)), {"token_grid": (0, 2)}, OptionError, "at least"),
        (
            np.ones((2, 2, 2, 2)),
            {"token_grid": (1, 2), "kind": "image"},
            OptionError,
            "for sequences",
        ),
        (np.array([[["a"]]]), {}, DtypeError, "dtype <U1 cannot be drawn"),
        (np.array([[[None]]], object), {}, DtypeError, "dtype object"),
        (np.ones((2, 2, 2), complex), {}, DtypeError, "dtype complex128"),
        (np.ones((2, 2, 2), "m8[s]"), {}, DtypeError, "timedelta64"),
    ],
)
def test_invalid_arrays_raise(
    values: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        actgrid.render(values, **options)
    assert isinstance(caught.value, actgrid.ActgridError)
    assert isinstance(caught.value, TypeError if error is DtypeError else ValueError)


def test_negative_sample_counts_from_the_end() -> None:
    x = make_numbered(3, 4, 4, 2)
    np.testing.assert_array_equal(actgrid.render(x, sample=-1).levels, actgrid.render(x[2]).levels)
