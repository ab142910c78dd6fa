"""Methods that hide parts of the image: occlusion, RISE and masked scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from actgrid import explain
from actgrid.attribution.perturbation import (
    _make_random_masks,
    _place_patches,
    score_masked_images,
)
from actgrid.attribution.requests import prepare_request
from actgrid.errors import OptionError


def test_occlusion_of_single_relevant_pixel(make_linear: Callable[..., Any]) -> None:
    weights = np.zeros((5, 6, 1, 2), np.float32)
    weights[3, 2, 0, 1] = 4
    x = np.full((1, 5, 6, 1), 0.5, np.float32)
    heatmap = explain(make_linear(weights), x, "occlusion", 1, patch=1, stride=1, baseline=-1.0)
    expected = np.zeros((5, 6))
    expected[3, 2] = 4 * (0.5 - -1)
    np.testing.assert_allclose(heatmap.values[0], expected, atol=1e-6)
    assert heatmap.signed


def test_occlusion_averages_overlapping_patches(
    make_linear: Callable[..., Any],
) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(5, 7, 3, 2)).astype(np.float32)
    x = random.normal(size=(2, 5, 7, 3)).astype(np.float32)
    heatmap = explain(
        make_linear(weights), x, "occlusion", 0, patch=(2, 3), stride=(1, 2), batch_size=5
    )
    for value, image in zip(heatmap.values, x, strict=True):
        contributions = (weights[..., 0] * (image - image.mean((0, 1)))).sum(-1)
        total, count = np.zeros((5, 7)), np.zeros((5, 7))
        for top in range(4):
            for left in (0, 2, 4):
                patch = np.s_[top : top + 2, left : left + 3]
                total[patch] += contributions[patch].sum()
                count[patch] += 1
        np.testing.assert_allclose(value, total / count, atol=1e-4)


def test_patch_larger_than_image_hides_the_whole_image(
    make_linear: Callable[..., Any],
) -> None:
    weights = np.full((7, 7, 1, 1), 0.25, np.float32)
    x = np.ones((1, 7, 7, 1), np.float32)
    for options in ({"patch": 16, "stride": 8}, {"patch": (16, 7), "stride": (9, 7)}):
        heatmap = explain(make_linear(weights), x, "occlusion", baseline=0, **options)
        np.testing.assert_allclose(heatmap.values, 49 / 4)
    with pytest.raises(OptionError, match=r"got stride \(17, 17\), patch \(16, 16\)"):
        explain(make_linear(weights), x, "occlusion", patch=16, stride=17)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_patches_are_symmetric_and_leave_no_gap(data: st.DataObject) -> None:
    side = data.draw(st.integers(1, 40))
    patch = data.draw(st.integers(1, side))
    stride = data.draw(st.integers(1, patch))
    starts = _place_patches(side, patch, stride)
    assert starts[0] == 0
    assert starts[-1] == side - patch
    assert [side - patch - start for start in reversed(starts)] == starts
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= stride).all()
    min_count = -(-(side - patch) // stride) + 1
    assert len(starts) <= min_count + 1
    if (side - patch) % stride == 0 and (min_count % 2 == 0 or (side - patch) % 2 == 0):
        assert len(starts) == min_count


@pytest.mark.parametrize(
    ("patch", "stride"), [(7, 3), (7, 4), (7, 7), ((3, 8), (2, 5)), (1, 1), (20, 20), (99, 9)]
)
def test_occlusion_of_constant_image_is_constant(
    make_linear: Callable[..., Any], patch: Any, stride: Any
) -> None:
    weights = np.full((20, 20, 1, 1), 0.01, np.float32)
    x = np.full((1, 20, 20, 1), 0.5, np.float32)
    heatmap = explain(make_linear(weights), x, "occlusion", patch=patch, stride=stride, baseline=0)
    height, width = np.minimum(patch, 20) * np.ones(2)
    np.testing.assert_allclose(heatmap.values, height * width * 0.005, rtol=1e-3)


@pytest.mark.parametrize("size", [(20, 23), (16, 15), (9, 30)])
@pytest.mark.parametrize(("patch", "stride"), [(None, None), (5, 4), (6, 5), ((3, 4), 3)])
def test_occlusion_of_symmetric_image_is_symmetric(
    make_linear: Callable[..., Any], size: tuple[int, int], patch: Any, stride: Any
) -> None:
    random = np.random.default_rng(0)

    def make_symmetric(*shape: int) -> Any:
        half = random.normal(size=shape).astype(np.float32)
        half = half + half[::-1]
        return half + half[:, ::-1]

    heatmap = explain(
        make_linear(make_symmetric(*size, 1, 1)),
        make_symmetric(*size, 1)[None],
        "occlusion",
        patch=patch,
        stride=stride,
    ).values[0]
    np.testing.assert_allclose(heatmap, heatmap[::-1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(heatmap, heatmap[:, ::-1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cells", [1, 3, 7])
def test_random_masks_are_uniform_over_the_image(cells: int) -> None:
    random = np.random.default_rng(0)
    grids = tf.constant(random.random((4000, cells + 2, cells + 2)) < 0.5, tf.float32)
    shifts = tf.constant(random.random((4000, 2)), tf.float32)
    masks = _make_random_masks(None, tf.range(4000), tf.constant((20, 14)), grids, shifts).numpy()
    np.testing.assert_allclose(masks.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(masks.std(0), masks.std(0).mean(), rtol=0.1)


def test_default_patch_is_a_seventh_of_the_side(
    cnn: tuple[Any, Any],
) -> None:
    model, _ = cnn
    x = np.random.default_rng(0).normal(size=(1, 12, 12, 3)).astype(np.float32)
    default = explain(model, x, "occlusion").values
    np.testing.assert_array_equal(default, explain(model, x, "occlusion", patch=1).values)


def test_rise_matches_loop(cnn: tuple[Any, Any], cnn_logits: Any) -> None:
    model, x = cnn
    samples, cells, seed = 40, 3, 5
    random = np.random.default_rng(seed)
    grids = random.random((samples, cells + 2, cells + 2)) < 0.4
    shifts = random.random((samples, 2))
    masks = np.zeros((samples, 12, 12))
    for mask, grid, (down, right) in zip(masks, grids, shifts, strict=True):
        for y in range(12):
            for z in range(12):
                row, column = y / (12 / cells) + down, z / (12 / cells) + right
                top, left = int(row), int(column)
                y_weight, x_weight = row - top, column - left
                corners = grid[top : top + 2, left : left + 2]
                mask[y, z] = (
                    np.array([1 - y_weight, y_weight])
                    @ corners
                    @ np.array([1 - x_weight, x_weight])
                )
    heatmap = explain(
        model,
        x[:2],
        "rise",
        2,
        samples=samples,
        grid_size=cells,
        keep_probability=0.4,
        seed=seed,
        baseline=0.5,
    )
    for value, image in zip(heatmap.values, x, strict=False):
        masked = 0.5 + masks[..., None] * (image - 0.5)
        scores = cnn_logits.predict(masked.astype(np.float32), verbose=0)[:, 2]
        expected = np.tensordot(scores, masks, 1) / masks.sum(0)
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-4)


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 20), st.integers(0, 9))
def test_random_masks_are_between_0_and_1(cells: int, height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    grids = tf.constant(random.random((4, cells + 2, cells + 2)) < 0.5, tf.float32)
    shifts = tf.constant(random.random((4, 2)), tf.float32)
    masks = _make_random_masks(
        None, tf.range(4), tf.constant((height, width)), grids, shifts
    ).numpy()
    assert masks.shape == (4, height, width)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-5
    full = _make_random_masks(
        None, tf.range(4), tf.constant((height, width)), tf.ones_like(grids), shifts
    )
    np.testing.assert_allclose(full, 1, atol=1e-5)


def test_rise_finds_the_relevant_part(make_linear: Callable[..., Any]) -> None:
    weights = np.zeros((12, 12, 1, 2), np.float32)
    weights[8:11, 1:4, 0, 0] = 1
    x = np.ones((1, 12, 12, 1), np.float32)
    heatmap = explain(make_linear(weights), x, "rise", 0, samples=400, grid_size=4, baseline=0.0)
    y, z = np.unravel_index(heatmap.values[0].argmax(), (12, 12))
    assert 7 <= y <= 11
    assert 0 <= z <= 4
    repeated = explain(
        make_linear(weights), x, "rise", 0, samples=400, grid_size=4, baseline=0.0, batch_size=7
    )
    np.testing.assert_allclose(repeated.values, heatmap.values, rtol=1e-4)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "occlusion",
            {"patch": 0},
            "one number for all, each at least 1, not 0",
        ),
        ("occlusion", {"patch": "2xx"}, "patch must be lengths such as 16x16"),
        (
            "occlusion",
            {"patch": (2, 3, 4)},
            r"patch must be one length, or one for each axis",
        ),
        ("occlusion", {"patch": 2, "stride": 3}, "stride must not exceed patch"),
        ("rise", {"samples": 0}, "samples must be at least 1"),
        ("rise", {"grid_size": 0}, "grid_size must be at least 1"),
        (
            "rise",
            {"keep_probability": 1},
            "must be a number greater than 0 and less than 1",
        ),
        (
            "rise",
            {"keep_probability": 0},
            "must be a number greater than 0 and less than 1",
        ),
        (
            "rise",
            {"keep_probability": None},
            "must be a number from 0 to 1, not None",
        ),
        ("occlusion", {"baseline": float("inf")}, "and finite, not inf"),
        ("rise", {"seed": "x"}, "seed must be an integer"),
    ],
)
def test_invalid_options_are_rejected(
    cnn: tuple[Any, Any], method: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        explain(*cnn, method, **options)


def _make_half_masks(image: Any, sample: Any, sides: Any) -> Any:
    return tf.fill(tf.concat([tf.shape(image), sides], 0), 0.5)


def _sum_output(output: Any) -> Any:
    return tf.reduce_sum(output, 1)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_baselines_of_sequences_images_and_volumes(rank: int, data_format: str) -> None:
    sides = (2, 3, 4)[:rank]
    shape = (*sides, 2) if data_format == "channels_last" else (2, *sides)
    pooling = getattr(layers, f"GlobalAveragePooling{rank}D")(data_format=data_format)
    model = keras.Sequential([keras.Input(shape), pooling])
    x = np.random.default_rng(6).random((3, *shape), np.float32)
    first_axis = 1 if data_format == "channels_last" else 2
    means = x.mean(tuple(range(first_axis, first_axis + rank)))
    request = prepare_request(model, x, _sum_output, image_input=0)
    assert request.batch.sides == sides
    total = means.sum(1, keepdims=True)
    for baseline, hidden in (("mean", total), (0.5, 1.0), ([1.0, 2.0], 3.0), (np.zeros(shape), 0)):
        scores = score_masked_images(request.batch, _make_half_masks, 1, baseline)
        np.testing.assert_allclose(scores, (total + hidden) / 2, rtol=1e-5)
