"""Tests of `actgrid.patch_activations` against models that are run in parts."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers

import actgrid
from actgrid.errors import LayerError, OptionError, ShapeError
from actgrid.interventions import ActivationPatching

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def model() -> Any:
    """A network with a residual connection: ``branch`` carries only a part of the input."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((6, 6, 3))
    stem = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    branch = layers.Conv2D(4, 3, padding="same", activation="relu", name="branch")(stem)
    total = layers.Add(name="total")([stem, branch])
    mean = layers.GlobalAveragePooling2D(name="mean")(total)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="out")(mean))


@pytest.fixture(scope="module")
def inputs() -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    return tuple(rng.random((count, 6, 6, 3)).astype(np.float32) for count in (3, 1))  # type: ignore[return-value]


def compute_logits(model: Any, stem: Array, branch: Array) -> Array:
    kernel, bias = model.get_layer("out").get_weights()
    return np.asarray((stem + branch).astype(np.float64).mean((1, 2)) @ kernel + bias)


def run_parts(model: Any, x: Array) -> tuple[Array, Array]:
    stem = np.asarray(model.get_layer("stem")(x))
    return stem, np.asarray(model.get_layer("branch")(stem))


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_effects_of_layers(model: Any, inputs: tuple[Array, Array], batch_size: int) -> None:
    x, source = inputs
    result = actgrid.patch_activations(
        model, x, source, ["stem", "branch", "total", "mean"], 1, batch_size=batch_size
    )
    (stem, branch), (other_stem, other_branch) = run_parts(model, x), run_parts(model, source)
    before = compute_logits(model, stem, branch)[:, 1]
    after = compute_logits(model, other_stem, other_branch)[:, 1]
    inserted = compute_logits(model, stem, np.repeat(other_branch, 3, 0))[:, 1]
    np.testing.assert_allclose(result.scores, before, atol=1e-5)
    np.testing.assert_allclose(result.source_scores, np.repeat(after, 3), atol=1e-5)
    np.testing.assert_allclose(result.patched_scores[:, 1], inserted, atol=1e-5)
    np.testing.assert_allclose(
        result.effects[:, 1], (inserted - before) / (after - before), rtol=1e-3
    )
    np.testing.assert_allclose(result.effects[:, [0, 2, 3]], 1, rtol=1e-3)
    assert result.layers == ("stem", "branch", "total", "mean")
    assert result.channels is None


def test_effects_of_channels(model: Any, inputs: tuple[Array, Array]) -> None:
    x, source = inputs
    result = actgrid.patch_activations(model, x, source, ["branch", "mean"], 0, unit="channel")
    assert result.channels is not None
    assert list(zip(result.layers, result.channels.tolist(), strict=True)) == [
        (layer, channel) for layer in ("branch", "mean") for channel in range(4)
    ]
    (stem, branch), (_, other_branch) = run_parts(model, x), run_parts(model, source)
    for channel in range(4):
        changed = branch.copy()
        changed[..., channel] = other_branch[..., channel]
        expected = compute_logits(model, stem, changed)[:, 0]
        np.testing.assert_allclose(result.patched_scores[:, channel], expected, atol=1e-5)
    # The logit is linear in the means: their effects add up to 1.
    np.testing.assert_allclose(result.effects[:, 4:].sum(1), 1, rtol=1e-3)
    frame = result.to_frame()
    means = frame.groupby(["layer", "channel"], sort=False)["effect"].mean().tolist()
    assert means == sorted(means, reverse=True)
    assert frame.columns[:2].tolist() == ["layer", "channel"]


def test_the_target_is_the_predicted_class_of_the_source(
    model: Any, inputs: tuple[Array, Array]
) -> None:
    x, source = inputs
    target = int(np.asarray(model(source)).argmax())
    result = actgrid.patch_activations(model, x, source, "stem")
    assert result.targets == (str(target),) * 3
    given = actgrid.patch_activations(model, x, source, "stem", target)
    np.testing.assert_array_equal(result.scores, given.scores)


def test_pairs_of_samples_and_default_layers(model: Any, inputs: tuple[Array, Array]) -> None:
    x, _ = inputs
    result = actgrid.patch_activations(model, x, x[::-1].copy(), target=2)
    assert result.layers == ("stem", "branch", "total")
    np.testing.assert_allclose(result.source_scores, result.scores[::-1], rtol=1e-5)
    # The second sample is its own source.
    assert np.isnan(result.effects[1]).all()
    assert not np.isnan(result.mean_effects).any()
    assert len(result.to_frame()) == 9
    assert [record["layer"] for record in result.to_records()] == ["stem", "branch", "total"]


def test_target_functions(model: Any, inputs: tuple[Array, Array]) -> None:
    def certainty(outputs: Any) -> Any:
        return outputs[:, 0] - outputs[:, 1]

    x, source = inputs
    result = actgrid.patch_activations(model, x, source, "stem", certainty)
    expected = np.asarray(model(source))
    np.testing.assert_allclose(
        result.patched_scores[:, 0], np.repeat(expected[:, 0] - expected[:, 1], 3), rtol=1e-4
    )
    assert not result.is_logit


def test_pictures() -> None:
    scores = np.zeros(1, np.float32), np.ones(1, np.float32), np.array([[0.5, -1]], np.float32)
    result = ActivationPatching(("a", "b"), None, ("cat",), *scores, True)
    picture = result.to_rgb()
    assert picture.shape == (3 * 22, 640, 3)
    assert (picture[11] == (31, 119, 180)).all(-1).any()
    assert (picture[22 + 11] == (214, 96, 77)).all(-1).any()
    assert repr(result) == "<ActivationPatching of 2 layers, 1 samples>"


def test_errors(model: Any, inputs: tuple[Array, Array]) -> None:
    x, source = inputs
    with pytest.raises(ShapeError, match="got 2 samples, and 3 in x"):
        actgrid.patch_activations(model, x, x[:2], "stem")
    with pytest.raises(LayerError, match="did you mean stem"):
        actgrid.patch_activations(model, x, source, "sten")
    with pytest.raises(OptionError, match="unit must be one of layer, channel"):
        actgrid.patch_activations(model, x, source, unit="neuron")
    free = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(2, 1, name="conv"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    with pytest.raises(ShapeError, match="samples of one shape"):
        actgrid.patch_activations(free, np.ones((1, 4, 4, 3)), np.ones((1, 5, 5, 3)), "conv", 0)
