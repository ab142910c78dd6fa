"""The callback `ChannelHealth`: dead channels and NaN values during training."""

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


def make_convolutions(*kernels: Any, activation: str = "relu") -> Any:
    """Return a model of 1 x 1 convolutions named conv0, conv1, ... from their kernels."""
    model = keras.Sequential([keras.Input((None, None, len(kernels[0])))])
    for index, kernel in enumerate(kernels):
        model.add(layers.Conv2D(len(kernel[0]), 1, activation=activation, name=f"conv{index}"))
        model.layers[-1].kernel.assign(np.reshape(kernel, (1, 1, *np.shape(kernel))))
    return model


def measure_steps(model: Any, data: Any, *kernels: Any, **options: Any) -> ChannelHealth:
    """Run a callback for a model whose first kernel changes with each step."""
    health = ChannelHealth(data, **options)
    health.set_model(model)
    health.on_train_begin()
    for step, kernel in enumerate(kernels):
        model.layers[0].kernel.assign(np.reshape(kernel, model.layers[0].kernel.shape))
        health(step)
    health.on_train_end()
    return health


def test_history_of_scalars() -> None:
    data = np.array([-1.0, 0.0, 2.0, 3.0]).reshape(1, 2, 2, 1)
    health = measure_steps(make_convolutions([[1.0, 1.0, 1.0]]), data, [1, 0, 2], [0, 1, -1])
    assert health.steps == [0, 1]
    assert health.history == {
        "conv0/dead_channels": [1, 1],
        "conv0/mean_zero_fraction": [(2 / 4 + 1 + 2 / 4) / 3, (1 + 2 / 4 + 3 / 4) / 3],
        "conv0/nonfinite": [0, 0],
    }


def test_history_restarts_for_another_model() -> None:
    data = np.ones((1, 2, 2, 1))
    health = measure_steps(make_convolutions([[1.0]], [[1.0]]), data, [1], [2])
    health.set_model(make_convolutions([[1.0]]))
    health(7)
    health.close()
    assert health.steps == [7]
    assert {len(values) for values in health.history.values()} == {1}
    assert all(name.startswith("conv0/") for name in health.history)


def test_nonfinite_values_are_counted() -> None:
    data = np.array([0.0, 1.0, 2.0, 3.0]).reshape(1, 2, 2, 1)
    with pytest.warns(ChannelHealthWarning, match="conv0"):
        health = measure_steps(
            make_convolutions([[1.0, 1.0]], activation="linear"), data, [np.nan, 1]
        )
    assert health.history == {
        "conv0/dead_channels": [0],
        "conv0/mean_zero_fraction": [1 / 4],
        "conv0/nonfinite": [4],
    }


def test_channel_is_dead_only_for_all_samples() -> None:
    data = np.array([[-1.0], [-1.0], [2.0]]).reshape(3, 1, 1, 1).repeat(2, 1)
    assert measure_steps(make_convolutions([[1.0]]), data, [1]).history["conv0/dead_channels"] == [
        0
    ]
    assert measure_steps(make_convolutions([[1.0]]), data[:2], [1]).history[
        "conv0/dead_channels"
    ] == [1]


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_results_do_not_depend_on_the_batch_size(
    batch_size: int, cnn: Any, x: Any, y: Any, tmp_path: Path, read_numbers: Any
) -> None:
    model = cnn()
    health = ChannelHealth(x, ["conv", "norm", "classes"], batch_size=batch_size, log_dir=tmp_path)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[health])
    events = read_numbers(tmp_path)
    for path, values in Extractor(model, ["conv", "norm", "classes"])(x).items():
        channels = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
        zeros = (channels == 0).mean(0)
        scalars = {
            name: health.history[f"{path}/{name}"][1]
            for name in ("dead_channels", "mean_zero_fraction", "nonfinite")
        }
        assert scalars["dead_channels"] == (np.ptp(channels, 0) == 0).sum()
        assert scalars["mean_zero_fraction"] == pytest.approx(zeros.mean(), abs=1e-9)
        assert scalars["nonfinite"] == 0
        for name, value in scalars.items():
            assert events[f"{path}/{name}"][1] == np.float32(value)
        for name, expected in (
            ("zero_fraction", zeros),
            ("mean", channels.mean(0)),
            ("std", channels.std(0)),
        ):
            buckets = events[f"{path}/{name}"][1]
            assert buckets[:, 2].sum() == len(expected)
            assert buckets[0, 0] == pytest.approx(
                expected.min() - 0.5 * (np.ptp(expected) == 0), abs=1e-4
            )
            assert buckets[-1, 1] == pytest.approx(
                expected.max() + 0.5 * (np.ptp(expected) == 0), abs=1e-4
            )
    assert all(list(steps) == [0, 1] for steps in events.values())


def test_lost_channels_are_counted_among_initially_alive() -> None:
    data = np.arange(1.0, 5.0).reshape(1, 2, 2, 1)
    kernels: list[list[float]] = [
        [1, 1, 1, 1, -1, -1],
        [1, 1, -1, -1, 1, -1],
        [1, -1, -1, -1, 1, 1],
    ]
    with pytest.warns(ChannelHealthWarning) as records:
        health = measure_steps(make_convolutions([kernels[0]]), data, *kernels, [-1] * 6)
    assert health.history["conv0/dead_channels"] == [2, 3, 3, 6]
    # A loss of two of four channels is not more than half. Channels that were dead from the
    # beginning are not counted as lost.
    (warning,) = records
    assert str(warning.message) == (
        "step 2: layers have lost channels, which are dead now: conv0 (3 of 4)"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_layers_and_weights_are_reported_once(value: float) -> None:
    data = np.arange(1.0, 5.0).reshape(1, 2, 2, 1)
    model = make_convolutions([[1.0, 1.0]], [[1.0], [1.0]], activation="linear")
    with pytest.warns(ChannelHealthWarning) as records:
        measure_steps(model, data, [1, 1], [value, 1], [value, 1])
    assert [str(warning.message) for warning in records] == [
        "step 1: layers return NaN or infinite values: conv0, conv1",
        "step 1: weights are NaN or infinite: conv0/kernel",
    ]


def test_nan_hidden_by_fused_relu_is_found_in_the_weights() -> None:
    """Check a ReLU that oneDNN fuses, which converts NaN to zero."""
    data = np.arange(1.0, 5.0).reshape(1, 2, 2, 1)
    with pytest.warns(ChannelHealthWarning) as caught:
        measure_steps(make_convolutions([[1.0, 1.0]]), data, [np.nan, 1])
    messages = {str(warning.message) for warning in caught}
    weights = "step 0: weights are NaN or infinite: conv0/kernel"
    assert weights in messages
    assert messages <= {weights, "step 0: layers return NaN or infinite values: conv0"}


def test_warning_names_at_most_eight_layers() -> None:
    model = make_convolutions(*[[[1.0]]] * 12, activation="linear")
    with pytest.warns(ChannelHealthWarning) as records:
        measure_steps(model, np.ones((1, 2, 2, 1)), [np.nan])
    assert str(records[0].message).endswith("conv6, conv7 and 4 more")


def test_invalid_options_are_rejected(x: Any) -> None:
    for options in (
        {"max_lost_fraction": 1.5},
        {"max_lost_fraction": "half"},
        {"batch_size": 0},
        {"every": 0},
    ):
        with pytest.raises(OptionError, match=next(iter(options))):
            ChannelHealth(x, **options)


def make_shapes() -> tuple[Any, Any]:
    """Return pictures of circles, squares and triangles on noise, and their classes."""
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


@pytest.mark.parametrize(("rate", "is_high"), [(0.001, False), (0.1, True)])
def test_high_learning_rate_kills_filters(rate: float, is_high: bool) -> None:
    """Check that a high learning rate kills filters and a low rate does not."""
    pictures, labels = make_shapes()
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
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        model.fit(pictures, labels, epochs=3, verbose=0, callbacks=[health])
    dead = health.history["conv2/dead_channels"]
    messages = [
        str(record.message) for record in records if record.category is ChannelHealthWarning
    ]
    if is_high:
        assert dead[-1] > 12
        assert any("conv2" in message for message in messages)
    else:
        assert dead[-1] < 4
        assert not messages
