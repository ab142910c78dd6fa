"""Values of each metric, compared with computations by NumPy and Keras alone."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from scipy import sparse, stats
from scipy.sparse.linalg import spsolve

import actgrid
from actgrid.evaluation.imputation import impute
from actgrid.evaluation.metrics import get_metrics

Array = npt.NDArray[Any]


def predict(model: Any, x: Array, classes: Array) -> Array:
    """Return the probability of a class for each sample."""
    probabilities: Array = np.asarray(model(x))[np.arange(len(x)), classes]
    return probabilities


def compute_logits(model: Any, x: Array, classes: Array) -> Array:
    """Return the logit of a class of a Sequential that ends in an activated dense layer."""
    features = keras.Model(model.inputs[0], model.layers[-2].output)(x)
    kernel, bias = map(np.asarray, model.layers[-1].weights)
    logits: Array = (np.asarray(features) @ kernel + bias)[np.arange(len(x)), classes]
    return logits


@pytest.fixture(scope="module")
def maps() -> Array:
    return np.random.default_rng(1).normal(size=(3, 16, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def classes(network: Any, samples: Array) -> Array:
    predicted: Array = np.asarray(network(samples)).argmax(1)
    return predicted


@pytest.mark.parametrize("name", ["deletion", "insertion"])
@pytest.mark.parametrize("baseline", [0.5, "mean"])
def test_perturbation_curves(
    network: Any, samples: Array, maps: Array, classes: Array, name: str, baseline: Any
) -> None:
    hidden = samples.mean((1, 2), keepdims=True) if baseline == "mean" else baseline
    background = np.broadcast_to(hidden, samples.shape)
    start, end = (samples, background) if name == "deletion" else (background, samples)
    curve = []
    for count in np.linspace(0, 192, 7).astype(int):
        x = start.copy()
        for image, image_map, source in zip(x, maps, end, strict=True):
            chosen = np.unravel_index(np.argsort(-image_map, axis=None)[:count], (16, 12))
            image[chosen] = source[chosen]
        curve.append(predict(network, x, classes))
    evaluation = actgrid.evaluate(network, samples, maps, [name], steps=6, baseline=baseline)
    result = evaluation.curves[name]
    np.testing.assert_allclose(result.x, np.linspace(0, 1, 7), rtol=1e-6)
    np.testing.assert_allclose(result.values[0].T, curve, rtol=1e-3, atol=1e-5)
    areas = np.array([(a + b) / 2 for a, b in itertools.pairwise(curve)]).mean(0)
    np.testing.assert_allclose(evaluation.values[name][0], areas, rtol=1e-3)


def test_steps_of_unequal_width_are_weighted() -> None:
    # Three features in two steps: 1 and then 2 features are hidden.
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.layers[0].set_weights([np.array([[1.0], [2.0], [4.0]])])
    evaluation = actgrid.evaluate(
        model, np.ones((1, 3)), np.array([[3.0, 2.0, 1.0]]), ["deletion"], steps=2
    )
    np.testing.assert_allclose(evaluation.curves["deletion"].values[0, 0], [7, 6, 0], atol=1e-5)
    np.testing.assert_allclose(evaluation.curves["deletion"].x, [0, 1 / 3, 1])
    np.testing.assert_allclose(evaluation.values["deletion"], 6.5 / 3 + 3 * 2 / 3, rtol=1e-5)


@pytest.mark.parametrize("score_type", ["logit", "probability"])
def test_mu_fidelity_and_infidelity(
    network: Any, samples: Array, maps: Array, classes: Array, score_type: str
) -> None:
    count, grid, fraction = 30, 5, 0.3
    order = np.tile(np.arange(grid**2), (count, 1))
    order = np.random.default_rng(7).permuted(order, axis=1)
    hidden = (order < round(fraction * grid**2)).reshape(count, grid, grid)
    rows, columns = np.arange(16) * grid // 16, np.arange(12) * grid // 12
    compute = compute_logits if score_type == "logit" else predict
    full = compute(network, samples, classes)
    sums, decreases = np.empty((2, 3, count))
    for index, cells in enumerate(hidden):
        mask = cells[rows][:, columns]
        x = np.where(mask[None, ..., None], 0.25, samples).astype(np.float32)
        decreases[:, index] = full - compute(network, x, classes)
        sums[:, index] = (maps * mask).sum((1, 2))
    options: dict[str, Any] = {
        "samples": count,
        "grid_size": grid,
        "hidden_fraction": fraction,
        "seed": 7,
    }
    evaluation = actgrid.evaluate(
        network,
        samples,
        maps,
        ["mu_fidelity", "infidelity"],
        baseline=0.25,
        score_type=score_type,
        **options,
    )
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(sums, decreases, strict=True)]
    np.testing.assert_allclose(evaluation.values["mu_fidelity"][0], expected, atol=0.02)
    scale = (sums * decreases).sum(1) / (sums**2).sum(1)
    errors = ((scale[:, None] * sums - decreases) ** 2).mean(1)
    np.testing.assert_allclose(evaluation.values["infidelity"][0], errors, rtol=1e-3)


def test_contributions_of_a_linear_model_are_faithful() -> None:
    random = np.random.default_rng(0)
    weights, x = random.normal(size=(8, 1)), random.normal(size=(5, 8)).astype(np.float32)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.layers[0].set_weights([weights, np.zeros(1)])
    contributions = x * weights[:, 0]
    evaluation = actgrid.evaluate(
        model,
        x,
        {"exact": contributions, "scaled": 3 * contributions, "opposite": -contributions},
        ["mu_fidelity", "infidelity"],
    )
    np.testing.assert_allclose(
        evaluation.values["mu_fidelity"], [[1] * 5, [1] * 5, [-1] * 5], atol=1e-3
    )
    # The scale of a map does not matter, and a negative scale cannot be told from a positive one.
    np.testing.assert_allclose(evaluation.values["infidelity"], 0, atol=1e-8)


def test_average_drop_increase_and_gain(
    network: Any, samples: Array, maps: Array, classes: Array
) -> None:
    masks = np.abs(maps)
    low, high = masks.min((1, 2), keepdims=True), masks.max((1, 2), keepdims=True)
    masked = samples * ((masks - low) / (high - low))[..., None]
    before = predict(network, samples, classes)
    after = predict(network, masked, classes)
    names = ["average_drop", "average_increase", "average_gain"]
    values = actgrid.evaluate(network, samples, maps, names).values
    np.testing.assert_allclose(
        values["average_drop"][0], np.maximum(before - after, 0) / before, rtol=1e-3, atol=1e-6
    )
    np.testing.assert_array_equal(values["average_increase"][0], after > before)
    np.testing.assert_allclose(
        values["average_gain"][0],
        np.maximum(after - before, 0) / (1 - before),
        rtol=1e-3,
        atol=1e-6,
    )
    # A map that keeps everything changes nothing.
    kept = np.ones((3, 16, 12))
    kept[:, 0, 0] = 0.999999
    drop = actgrid.evaluate(network, samples, kept, ["average_drop"], baseline="mean")
    assert drop.values["average_drop"].max() < 1


def test_average_gain_needs_a_probability() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    values = actgrid.evaluate(model, np.ones((1, 3)), np.ones((1, 3)), ["average_gain"]).values
    assert np.isnan(values["average_gain"]).all()


def test_complexity_and_sparseness_of_known_maps(network: Any, samples: Array) -> None:
    maps = np.zeros((3, 4, 4))
    maps[0] = -1  # all equal
    maps[1, 2, 3] = 5  # a single value
    maps[2, 0, :2] = 1, 3
    values = actgrid.evaluate(network, samples, maps, ["complexity", "sparseness"]).values
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(values["complexity"][0], [np.log(16), 0, entropy], atol=1e-12)
    # Gini: 1 - sum of (2 (16 - i) - 1) / 16 * fraction of the i-th smallest, i from 0.
    gini = 1 - (1 / 16 * 0.75 + 3 / 16 * 0.25)
    np.testing.assert_allclose(values["sparseness"][0], [0, 15 / 16, gini], atol=1e-12)
    empty = actgrid.evaluate(network, samples, np.zeros((3, 4, 4)), ["sparseness"])
    assert np.isnan(empty.values["sparseness"]).all()


def test_pointing_game_and_energy(network: Any, samples: Array) -> None:
    maps = np.zeros((3, 16, 12))
    maps[:, 3, 4], maps[:, 10, 10], maps[:, 0, 0] = 3, 1, -7
    boxes = [(2, 2, 6, 6), [(9, 9, 12, 12), (0, 0, 2, 2)], (5, 4, 8, 8)]
    metrics = ["pointing_game", "energy"]
    evaluation = actgrid.evaluate(network, samples, maps, metrics, boxes=boxes)
    assert evaluation.values["pointing_game"].tolist() == [[1, 0, 0]]
    assert evaluation.values["energy"].tolist() == [[0.75, 0.25, 0]]
    masks = np.zeros((3, 16, 12), bool)
    masks[0, 2:6, 2:6] = masks[1, 9:12, 9:12] = masks[1, :2, :2] = masks[2, 5:8, 4:8] = True
    by_mask = actgrid.evaluate(network, samples, maps, metrics, masks=masks)
    np.testing.assert_array_equal(by_mask.values["energy"], evaluation.values["energy"])
    near = actgrid.evaluate(network, samples, maps, metrics, masks=masks, tolerance=2)
    assert near.values["pointing_game"].tolist() == [[1, 0, 1]]
    halved = masks[:, ::2, ::2].repeat(2, 1).repeat(2, 2)
    small = actgrid.evaluate(network, samples, maps, metrics, masks=masks[:, ::2, ::2])
    full = actgrid.evaluate(network, samples, maps, metrics, masks=halved)
    np.testing.assert_array_equal(small.values["energy"], full.values["energy"])


def test_sensitivity_of_a_linear_model() -> None:
    # The gradient is constant; gradient times input changes as much as the input.
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, use_bias=False)])
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    evaluation = actgrid.evaluate(
        model, x, ["saliency", "gradient_x_input"], ["sensitivity"], perturbations=4, radius=0.1
    )
    assert evaluation.values["sensitivity"][0].tolist() == [0, 0]
    weights = np.asarray(model.layers[0].kernel)[:, 0]
    random = np.random.default_rng(0)
    largest = np.zeros(2)
    for _ in range(4):
        noise = random.uniform(-0.1, 0.1, 6) * np.ptp(x, 1, keepdims=True)
        change = np.linalg.norm(noise * weights, axis=1) / np.linalg.norm(x * weights, axis=1)
        largest = np.maximum(largest, change)
    np.testing.assert_allclose(evaluation.values["sensitivity"][1], largest, rtol=1e-4)


def test_randomization_restores_the_weights(network: Any, samples: Array) -> None:
    before = network.get_weights()
    evaluation = actgrid.evaluate(network, samples, "saliency", ["randomization"])
    for weight, original in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, original)
    curve = evaluation.curves["randomization"]
    assert curve.x.tolist() == [0, 1, 2, 3]  # three layers have weights
    assert curve.values[0, :, 0].tolist() == [1, 1, 1]
    values = evaluation.values["randomization"][0]
    np.testing.assert_allclose(values, curve.values[0, :, 1:].mean(1), rtol=1e-6)
    assert values.max() < 0.9


def test_randomization_permutes_layers_from_the_output(network: Any, samples: Array) -> None:
    clone = keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    random = np.random.default_rng(3)
    target = np.asarray(network(samples)).argmax(1)
    reference = actgrid.explain(network, samples, "saliency").values.reshape(3, -1)
    expected: list[Any] = [np.ones(3)]
    for name in ("head", "second", "first"):
        for variable in clone.get_layer(name).weights:
            values = np.asarray(variable)
            variable.assign(random.permutation(values.ravel()).reshape(values.shape))
        maps = actgrid.explain(clone, samples, "saliency", target=target).values.reshape(3, -1)
        expected.append(
            [stats.spearmanr(*pair).statistic for pair in zip(reference, maps, strict=True)]
        )
    evaluation = actgrid.evaluate(network, samples, "saliency", ["randomization"], seed=3)
    curve = evaluation.curves["randomization"].values[0]
    np.testing.assert_allclose(curve, np.transpose(expected), atol=1e-3)


def test_randomization_restores_the_weights_after_an_error(
    network: Any, samples: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = network.get_weights()
    monkeypatch.setattr("actgrid.evaluation.stability.correlate_ranks", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        actgrid.evaluate(network, samples, "saliency", ["randomization"])
    for weight, original in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, original)


def impute_exactly(values: Array, keep: Array) -> Array:
    """Solve the equations of noisy linear imputation, without noise, for an image (H, W, C)."""
    height, width = keep.shape
    result = values.copy()
    hidden = np.argwhere(~keep)
    numbers = {tuple(position): index for index, position in enumerate(hidden)}
    matrix = sparse.lil_matrix((len(hidden), len(hidden)))
    right_side = np.zeros((len(hidden), values.shape[-1]))
    for index, (row, column) in enumerate(hidden):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                place = row + down, column + right
                if (down, right) == (0, 0) or not (
                    0 <= place[0] < height and 0 <= place[1] < width
                ):
                    continue
                weight = 1 / 12 if down and right else 1 / 6
                matrix[index, index] += weight
                if keep[place]:
                    right_side[index] += weight * values[place]
                else:
                    matrix[index, numbers[place]] -= weight
    solution = spsolve(matrix.tocsr(), right_side)
    result[tuple(hidden.T)] = np.asarray(solution).reshape(right_side.shape)
    return result


def fill(values: Array, keep: Array) -> Array:
    return np.asarray(impute(tf.constant(values), tf.constant(keep)))


@pytest.mark.parametrize("fraction", [0.2, 0.7, 0.95])
def test_imputation_solves_the_linear_equations(fraction: float) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(2, 19, 14, 3)).astype(np.float32)
    keep = random.random((2, 19, 14)) >= fraction
    result = fill(values, keep[..., None].astype(np.float32))
    for image, mask, found in zip(values, keep, result, strict=True):
        np.testing.assert_allclose(found, impute_exactly(image, mask), atol=5e-3)
        np.testing.assert_array_equal(found[mask], image[mask])


def test_imputation_of_a_block_is_smooth() -> None:
    # A linear ramp satisfies the equations: the hidden block gets the ramp's values.
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None], (1, 40, 30)).copy()[..., None]
    keep = np.ones((1, 40, 30, 1), np.float32)
    keep[:, 8:32, 6:25] = 0
    np.testing.assert_allclose(fill(ramp * keep, keep), ramp, atol=0.05)
    signal = np.arange(50, dtype=np.float32)[None, :, None]
    keep = np.ones((1, 50, 1), np.float32)
    keep[:, 10:40] = 0
    np.testing.assert_allclose(fill(signal * keep, keep), signal, atol=0.1)
    assert not fill(signal, np.zeros((1, 50, 1), np.float32)).any()


def test_road(planted_model: Any, planted_images: Array, oracle: Array) -> None:
    fractions = (0.11, 0.5)  # 64 of 576 positions are in the square: 0.111
    evaluation = actgrid.evaluate(
        planted_model, planted_images, oracle, ["road"], target=1, fractions=fractions
    )
    ranks = np.argsort(np.argsort(-oracle.reshape(4, -1), 1, kind="stable"), 1).reshape(4, 24, 24)
    for index, fraction in enumerate(fractions):
        count = round(fraction * 576)
        expected = []
        for hidden in (ranks >= 576 - count, ranks < count):
            imputed = np.stack(
                [impute_exactly(*pair) for pair in zip(planted_images, ~hidden, strict=True)]
            )
            expected.append(predict(planted_model, imputed, np.ones(4, int)))
        np.testing.assert_allclose(
            evaluation.curves["road"].values[0, :, index],
            (expected[0] - expected[1]) / 2,
            atol=0.01,  # the noise
        )


def test_channels_first_inputs_have_equal_values() -> None:
    random = np.random.default_rng(0)
    x = random.random((2, 10, 8, 3)).astype(np.float32)
    maps = random.random((2, 5, 4))
    weights = random.normal(size=(240, 3)) / 8
    names = ["deletion", "mu_fidelity", "average_drop", "road", "complexity"]
    values = []
    for shape, data_format in (((10, 8, 3), "channels_last"), ((3, 10, 8), "channels_first")):
        flatten = keras.layers.Flatten(data_format=data_format)
        model = keras.Sequential(
            [keras.Input(shape), flatten, keras.layers.Dense(3, use_bias=False, name="head")]
        )
        model.get_layer("head").set_weights([weights])
        inputs = x if data_format == "channels_last" else np.moveaxis(x, -1, 1)
        values.append(actgrid.evaluate(model, inputs, maps, names).values)
    for name in names:
        np.testing.assert_allclose(values[0][name], values[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "name", [name for name, metric in get_metrics().items() if "region" not in metric.needs]
)
def test_planted_feature_ranks_the_true_map_first(
    planted_model: Any, planted_images: Array, oracle: Array, name: str
) -> None:
    metric = get_metrics()[name]
    if "method" in metric.needs or name in ("average_increase", "average_gain", "complexity"):
        pytest.skip("does not judge the place of a map, or masks cannot raise this model's score")
    random = np.random.default_rng(0)
    shuffled = np.stack([random.permutation(m.ravel()).reshape(m.shape) for m in oracle])
    maps = {
        "random": random.random(oracle.shape),
        "elsewhere": np.roll(oracle, 10, 1),
        "shuffled": shuffled,
        "oracle": oracle,
    }
    evaluation = actgrid.evaluate(planted_model, planted_images, maps, [name], target=1)
    if name == "sparseness":
        means = evaluation.means[name]
        assert means[1] == pytest.approx(means[3])  # the place does not matter
        return
    assert evaluation.ranks[name][3] <= 1.5


def test_random_maps_are_near_chance(planted_model: Any, planted_images: Array) -> None:
    random = np.random.default_rng(0)
    maps = {str(index): random.random((4, 24, 24)) for index in range(5)}
    names = ["deletion", "insertion", "mu_fidelity", "road", "energy"]
    boxes = [(6, 9, 14, 17)] * 4
    evaluation = actgrid.evaluate(
        planted_model, planted_images, maps, names, target=1, boxes=boxes, baseline=0.5
    )
    means = evaluation.means
    # The mean of the random order: the logit falls linearly with the hidden fraction.
    probabilities = predict(planted_model, planted_images, np.ones(4, int))
    logits = np.log(probabilities / (1 - probabilities))
    chance = np.mean([1 / (1 + np.exp(-logits * kept)) for kept in np.linspace(1, 0, 51)])
    np.testing.assert_allclose(means["deletion"], chance, atol=0.02)
    np.testing.assert_allclose(means["insertion"], chance, atol=0.02)
    assert np.abs(means["mu_fidelity"]).max() < 0.15
    assert np.abs(means["road"]).max() < 0.05
    np.testing.assert_allclose(means["energy"], 64 / 576, atol=0.01)
