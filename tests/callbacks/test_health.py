from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from actgrid import Extractor
from actgrid.callbacks import ChannelHealth, ChannelHealthWarning
from actgrid.errors import OptionError


def relu(*kernels: Any, activation: str = "relu") -> Any:
    """Make a model of 1 x 1 convolutions that are called conv0, conv1, ..."""
    model = keras.Sequential([keras.Input((None, None, len(kernels[0])))])
    for number, kernel in enumerate(kernels):
        model.add(layers.Conv2D(len(kernel[0]), 1, activation=activation, name=f"conv{number}"))
        model.layers[-1].kernel.assign(np.reshape(kernel, (1, 1, *np.shape(kernel))))
    return model


def watched(model: Any, data: Any, *changes: Any, **options: Any) -> ChannelHealth:
    """Watch a model, whose first kernel becomes one after the other."""
    health = ChannelHealth(data, **options)
    health.set_model(model)
    health.on_train_begin()
    for step, kernel in enumerate(changes):
        model.layers[0].kernel.assign(np.reshape(kernel, model.layers[0].kernel.shape))
        health(step)
    health.on_train_end()
    return health


def test_what_is_counted() -> None:
    data = np.array([-1.0, 0.0, 2.0, 3.0]).reshape(1, 2, 2, 1)
    health = watched(relu([[1.0, 1.0, 1.0]]), data, [1, 0, 2], [0, 1, -1])
    assert health.steps == [0, 1]
    assert health.history == {
        "conv0/dead_channels": [1, 1],
        "conv0/mean_zero_fraction": [(2 / 4 + 1 + 2 / 4) / 3, (1 + 2 / 4 + 3 / 4) / 3],
        "conv0/nonfinite": [0, 0],
    }


def test_another_model_begins_anew() -> None:
    data = np.ones((1, 2, 2, 1))
    health = watched(relu([[1.0]], [[1.0]]), data, [1], [2])
    health.set_model(relu([[1.0]]))
    health(7)
    health.close()
    assert health.steps == [7]
    assert {len(values) for values in health.history.values()} == {1}
    assert all(name.startswith("conv0/") for name in health.history)


def test_what_is_not_finite() -> None:
    data = np.array([0.0, 1.0, 2.0, 3.0]).reshape(1, 2, 2, 1)
    with pytest.warns(ChannelHealthWarning, match="conv0"):
        health = watched(relu([[1.0, 1.0]], activation="linear"), data, [np.nan, 1])
    assert health.history == {
        "conv0/dead_channels": [0],
        "conv0/mean_zero_fraction": [1 / 4],
        "conv0/nonfinite": [4],
    }


def test_dead_is_what_no_sample_wakes() -> None:
    data = np.array([[-1.0], [-1.0], [2.0]]).reshape(3, 1, 1, 1).repeat(2, 1)
    assert watched(relu([[1.0]]), data, [1]).history["conv0/dead_channels"] == [0]
    assert watched(relu([[1.0]]), data[:2], [1]).history["conv0/dead_channels"] == [1]


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_batches_make_no_difference(
    batch_size: int, cnn: Any, x: Any, y: Any, tmp_path: Path, numbers: Any
) -> None:
    model = cnn()
    health = ChannelHealth(x, ["conv", "norm", "classes"], batch_size=batch_size, log_dir=tmp_path)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[health])
    events = numbers(tmp_path)
    for path, values in Extractor(model, ["conv", "norm", "classes"])(x).items():
        channels = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
        zeros = (channels == 0).mean(0)
        found = {
            name: health.history[f"{path}/{name}"][1]
            for name in ("dead_channels", "mean_zero_fraction", "nonfinite")
        }
        assert found["dead_channels"] == (np.ptp(channels, 0) == 0).sum()
        assert found["mean_zero_fraction"] == pytest.approx(zeros.mean(), abs=1e-9)
        assert found["nonfinite"] == 0
        for name, value in found.items():
            assert events[f"{path}/{name}"][1] == np.float32(value)
        for name, truth in (
            ("zero_fraction", zeros),
            ("mean", channels.mean(0)),
            ("std", channels.std(0)),
        ):
            buckets = events[f"{path}/{name}"][1]
            assert buckets[:, 2].sum() == len(truth)
            assert buckets[0, 0] == pytest.approx(
                truth.min() - 0.5 * (np.ptp(truth) == 0), abs=1e-4
            )
            assert buckets[-1, 1] == pytest.approx(
                truth.max() + 0.5 * (np.ptp(truth) == 0), abs=1e-4
            )
    assert all(list(steps) == [0, 1] for steps in events.values())


def test_lost_are_those_that_were_alive() -> None:
    data = np.arange(1.0, 5.0).reshape(1, 2, 2, 1)
    kernels: list[list[float]] = [
        [1, 1, 1, 1, -1, -1],
        [1, 1, -1, -1, 1, -1],
        [1, -1, -1, -1, 1, 1],
    ]
    with pytest.warns(ChannelHealthWarning) as told:
        health = watched(relu([kernels[0]]), data, *kernels, [-1] * 6)
    assert health.history["conv0/dead_channels"] == [2, 3, 3, 6]
    # Half of four is not more than half; of those that were dead none can be lost.
    (warning,) = told
    assert str(warning.message) == (
        "step 2: layers have lost channels, which are dead now: conv0 (3 of 4)"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_each_layer_and_weight_that_is_broken_is_named_once(value: float) -> None:
    data = np.arange(1.0, 5.0).reshape(1, 2, 2, 1)
    model = relu([[1.0, 1.0]], [[1.0], [1.0]], activation="linear")
    with pytest.warns(ChannelHealthWarning) as told:
        watched(model, data, [1, 1], [value, 1], [value, 1])
    assert [str(warning.message) for warning in told] == [
        "step 1: layers give NaN or infinite values: conv0, conv1",
        "step 1: weights are NaN or infinite: conv0/kernel",
    ]


def test_nan_that_a_relu_hides_is_found_in_the_weights() -> None:
    """What oneDNN fuses gives zeros; without it, the NaN is also in the layer's activation."""
    data = np.arange(1.0, 5.0).reshape(1, 2, 2, 1)
    with pytest.warns(ChannelHealthWarning) as caught:
        watched(relu([[1.0, 1.0]]), data, [np.nan, 1])
    messages = {str(warning.message) for warning in caught}
    weights = "step 0: weights are NaN or infinite: conv0/kernel"
    assert weights in messages
    assert messages <= {weights, "step 0: layers give NaN or infinite values: conv0"}


def test_of_many_layers_some_are_named() -> None:
    model = relu(*[[[1.0]]] * 12, activation="linear")
    with pytest.warns(ChannelHealthWarning) as told:
        watched(model, np.ones((1, 2, 2, 1)), [np.nan])
    assert str(told[0].message).endswith("conv6, conv7 and 4 more")


def test_what_cannot_be_given(x: Any) -> None:
    for options in ({"lost": 1.5}, {"lost": "half"}, {"batch_size": 0}, {"every": 0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            ChannelHealth(x, **options)


def shapes() -> tuple[Any, Any]:
    """Draw circles, squares and triangles on noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(256) % 3
    pictures = rng.random((256, 16, 16, 1), np.float32) * 0.3
    y, x = np.mgrid[:16, :16]
    for picture, label in zip(pictures, labels, strict=True):
        down, right = y - rng.integers(5, 11), x - rng.integers(5, 11)
        inside = (
            down**2 + right**2 <= 16,
            (abs(down) < 4) & (abs(right) < 4),
            (abs(right) <= (down + 4) / 2) & (abs(down) <= 4),
        )
        picture[inside[label]] += 0.7
    return pictures, labels


@pytest.mark.parametrize(("rate", "high"), [(0.001, False), (0.1, True)])
def test_a_high_learning_rate_kills_filters(rate: float, high: bool) -> None:
    """As tutorials say; and a low one does not."""
    pictures, labels = shapes()
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            layers.Conv2D(16, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, activation="relu", name="conv2"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    health = ChannelHealth(pictures[:64], "conv*")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(pictures, labels, epochs=3, verbose=0, callbacks=[health])
    dead = health.history["conv2/dead_channels"]
    warned = [str(one.message) for one in told if one.category is ChannelHealthWarning]
    if high:
        assert dead[-1] > 12
        assert any("conv2" in one for one in warned)
    else:
        assert dead[-1] < 4
        assert not warned
