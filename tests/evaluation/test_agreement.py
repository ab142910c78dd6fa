"""Agreement of the maps of several attributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

import actgrid
from actgrid.errors import OptionError, ShapeError
from actgrid.evaluation.correlation import correlate, correlate_ranks, rank_values

FLOATS = st.floats(-1e3, 1e3, width=32)


@given(arrays.arrays(np.float32, (2, 9), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0, 7.0])))
def test_ranks_equal_those_of_scipy(values: Any) -> None:
    np.testing.assert_array_equal(rank_values(values), stats.rankdata(values, axis=1) - 1)


@given(arrays.arrays(np.float32, (2, 7), elements=FLOATS, unique=True))
def test_correlations_equal_those_of_scipy(values: Any) -> None:
    first, second = values[:1], values[1:]
    expected = stats.spearmanr(first[0], second[0]).statistic
    np.testing.assert_allclose(correlate_ranks(first, second), [expected], atol=1e-9)
    pearson = stats.pearsonr(first[0].astype(float), second[0].astype(float)).statistic
    np.testing.assert_allclose(correlate(first, second), [pearson], atol=1e-6)
    assert np.isnan(correlate(np.ones((1, 7)), second)).all()


@pytest.mark.parametrize("measure", ["spearman", "pearson", "overlap"])
def test_agreement_of_pairs(measure: str) -> None:
    random = np.random.default_rng(0)
    maps = {name: random.normal(size=(3, 10, 8)).astype(np.float32) for name in "ab"}
    maps["c"] = maps["a"] ** 3
    agreement = actgrid.measure_agreement(maps, measure=measure, fraction=0.25)
    assert agreement.names == ("a", "b", "c")
    samples = agreement.samples
    np.testing.assert_allclose(samples[:, [0, 1, 2], [0, 1, 2]], 1)
    np.testing.assert_allclose(samples, samples.transpose(0, 2, 1))
    for index in range(3):
        a, b = maps["a"][index].ravel(), maps["b"][index].ravel()
        if measure == "overlap":
            expected = len({*np.argsort(-a)[:20]} & {*np.argsort(-b)[:20]}) / 20
        else:
            function = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[measure]
            expected = function(a, b).statistic
        assert samples[index, 0, 1] == pytest.approx(expected, abs=1e-5)
    if measure != "pearson":  # the order does not change
        np.testing.assert_allclose(samples[:, 0, 2], 1)
    np.testing.assert_allclose(agreement.values, samples.mean(0))
    assert agreement.to_rgb().shape[2] == 3


def test_maps_of_different_sizes_and_channels() -> None:
    random = np.random.default_rng(0)
    coarse = random.random((2, 4, 4)).astype(np.float32)
    fine = actgrid.Heatmap(coarse).resize(16, 12)
    channels = fine[..., None] * np.array([0.25, 0.75], np.float32)
    agreement = actgrid.measure_agreement(
        {"coarse": actgrid.Heatmap(coarse), "fine": fine, "channels": channels}, measure="pearson"
    )
    np.testing.assert_allclose(agreement.values, 1, atol=1e-5)


def test_constant_maps_have_no_correlation() -> None:
    agreement = actgrid.measure_agreement(
        {"a": np.zeros((1, 3, 3)), "b": np.random.default_rng(0).random((1, 3, 3))}
    )
    assert np.isnan(agreement.values[0, 1])
    agreement.to_rgb()


def test_errors() -> None:
    maps = np.ones((2, 3, 3))
    with pytest.raises(OptionError, match="at least two attributions"):
        actgrid.measure_agreement({"a": maps})
    with pytest.raises(ShapeError, match="must be 2 maps"):
        actgrid.measure_agreement({"a": maps, "b": maps[:1]})
    with pytest.raises(ShapeError, match="the same axes"):
        actgrid.measure_agreement({"a": np.ones((2, 3)), "b": np.ones((2, 3, 3, 3))})
    with pytest.raises(OptionError, match="did you mean spearman"):
        actgrid.measure_agreement({"a": maps, "b": maps}, measure="spearmann")
