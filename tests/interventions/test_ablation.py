"""Tests of `actgrid.ablate_channels` against NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

import actgrid
from actgrid.errors import CapabilityError, LayerError, OptionError, ShapeError
from actgrid.interventions import ChannelAblation
from actgrid.models import InputInfo, LayerInfo
from actgrid.rendering.colormaps import palette

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def model() -> Any:
    """A network whose logits are linear in the means of the channels of ``conv``."""
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(4, activation="softmax", name="out"),
        ]
    )


@pytest.fixture(scope="module")
def x() -> Array:
    return np.random.default_rng(0).random((5, 8, 8, 3)).astype(np.float32)


def compute_logits(model: Any, conv: Array) -> Array:
    kernel, bias = model.get_layer("out").get_weights()
    return np.asarray(conv.astype(np.float64).mean((1, 2)) @ kernel + bias)


def compute_drops(model: Any, x: Array, target: Array, substitute: Array) -> Array:
    """Return the decrease of the logits with each channel of ``conv`` replaced, (N, C)."""
    conv = np.array(model.get_layer("conv")(x))
    rows = np.arange(len(x))
    before = compute_logits(model, conv)[rows, target]
    drops = []
    for channel in range(conv.shape[-1]):
        changed = conv.copy()
        changed[..., channel] = np.broadcast_to(substitute, conv.shape)[..., channel]
        drops.append(before - compute_logits(model, changed)[rows, target])
    return np.stack(drops, 1)


@pytest.mark.parametrize("layer", ["conv", "mean"])
def test_drops_of_a_class(model: Any, x: Array, layer: str) -> None:
    ablation = actgrid.ablate_channels(model, x, layer, 2, batch_size=4)[layer]
    expected = compute_drops(model, x, np.full(5, 2), np.zeros(()))
    np.testing.assert_allclose(ablation.drops, expected, atol=2e-6)
    np.testing.assert_allclose(ablation.mean_drops, expected.mean(0), atol=2e-6)
    assert ablation.ranking.tolist() == np.argsort(-expected.mean(0)).tolist()
    assert ablation.is_logit
    assert ablation.targets == ("2",) * 5


def test_predicted_classes_of_the_unchanged_model(model: Any, x: Array) -> None:
    classes = np.asarray(model(x)).argmax(1)
    ablation = actgrid.ablate_channels(model, x, "conv")["conv"]
    np.testing.assert_allclose(
        ablation.drops, compute_drops(model, x, classes, np.zeros(())), atol=2e-6
    )


@pytest.mark.parametrize("kind", ["number", "own mean", "mean of references", "reference"])
def test_values(model: Any, x: Array, kind: str) -> None:
    conv = np.asarray(model.get_layer("conv")(x))
    options, substitute = {
        "number": ({"value": -1.5}, np.full((), -1.5)),
        "own mean": ({"value": "mean"}, conv.mean((1, 2), keepdims=True)),
        "mean of references": (
            {"value": "mean", "reference": x[2:]},
            conv[2:].mean((0, 1, 2), keepdims=True),
        ),
        "reference": ({"value": "reference", "reference": x[3:4]}, conv[3:4]),
    }[kind]
    ablation = actgrid.ablate_channels(model, x, "conv", 1, **options)["conv"]  # type: ignore[arg-type]
    expected = compute_drops(model, x, np.full(5, 1), substitute)
    np.testing.assert_allclose(ablation.drops, expected, atol=2e-6)


@given(
    batch_size=st.integers(1, 20),
    channels=st.lists(st.integers(-6, 5), min_size=1, max_size=8),
)
def test_some_channels_in_batches(
    model: Any, x: Array, batch_size: int, channels: list[int]
) -> None:
    ablation = actgrid.ablate_channels(
        model, x, "conv", 0, channels=channels, batch_size=batch_size
    )["conv"]
    selected = sorted({channel % 6 for channel in channels})
    assert ablation.channels.tolist() == selected
    expected = compute_drops(model, x, np.zeros(5, int), np.zeros(()))[:, selected]
    np.testing.assert_allclose(ablation.drops, expected, atol=2e-6)


def test_default_layer_and_several_layers(model: Any, x: Array) -> None:
    assert list(actgrid.ablate_channels(model, x[:1])) == ["conv"]
    ablations = actgrid.ablate_channels(model, x[:1], ["mean", "conv"], 0)
    assert list(ablations) == ["conv", "mean"]
    np.testing.assert_allclose(ablations["conv"].drops, ablations["mean"].drops, atol=2e-6)


def test_target_functions_and_other_layers() -> None:
    inputs = keras.Input((4, 5, 6, 2))
    volume = layers.Conv3D(3, 1, name="volume")(inputs)
    sequence = layers.Reshape((20, 18), name="sequence")(volume)
    model = keras.Model(inputs, layers.Lambda(lambda values: values * 2)(sequence))
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 6, 2)).astype(np.float32)

    def first_value(outputs: Any) -> Any:
        return outputs[:, 0, 0]

    ablations = actgrid.ablate_channels(model, x, ["volume", "sequence"], first_value)
    values = np.asarray(model.get_layer("volume")(x))
    np.testing.assert_allclose(ablations["volume"].drops[:, 0], 2 * values[:, 0, 0, 0, 0], 1e-5)
    assert not ablations["volume"].drops[:, 1:].any()
    assert ablations["sequence"].drops.shape == (2, 18)
    assert not ablations["sequence"].is_logit
    assert ablations["volume"].targets == ("first_value",) * 2


def test_patched_models_are_ablated(model: Any, x: Array) -> None:
    patched = actgrid.patch(model, {"conv": {0: 0}})
    drops = actgrid.ablate_channels(patched, x, "conv", 2)["conv"].drops
    assert not drops[:, 0].any()
    expected = compute_drops(model, x, np.full(5, 2), np.zeros(()))
    np.testing.assert_allclose(drops[:, 1:], expected[:, 1:], atol=2e-6)


def test_table_and_picture(model: Any, x: Array) -> None:
    ablation = actgrid.ablate_channels(model, x, "conv", 2)["conv"]
    frame = ablation.to_frame()
    assert frame.channel[::5].tolist() == ablation.ranking.tolist()
    np.testing.assert_allclose(frame["drop"], frame.score - frame.ablated_score)
    assert frame["sample"].tolist() == list(range(5)) * 6
    means = frame.groupby("channel")["drop"].mean()
    np.testing.assert_allclose(means, ablation.mean_drops)
    records = ablation.to_records()
    assert [record["channel"] for record in records] == ablation.ranking.tolist()
    picture = ablation.to_rgb()
    # The first row has the tile of the first channel of the ranking, 32 pixels wide.
    grid = actgrid.render_model(model, x[:1], "conv")["conv"]
    tile = palette(grid.cmap)[grid.tile(int(ablation.ranking[0]))]
    np.testing.assert_allclose(picture[1:33, 4:36].mean((0, 1)), tile.mean((0, 1)), atol=1.5)
    blue = (picture == (31, 119, 180)).all(-1).sum()
    assert blue if ablation.mean_drops.max() > 0 else not blue


def test_pictures_show_the_largest_and_the_smallest_effects() -> None:
    drops = np.linspace(1, -1, 200, dtype=np.float32)
    ablation = ChannelAblation(
        "conv", np.arange(200), ("cat",), np.zeros(1, np.float32), -drops[None], False, "0"
    )
    picture = ablation.to_rgb()
    assert picture.shape == (26 * 22, 640, 3)
    rows = [
        (picture[row * 22 + 11] == colour).all(-1).any()
        for row, colour in (
            (0, (31, 119, 180)),
            (19, (31, 119, 180)),
            (20, (214, 96, 77)),
            (24, (214, 96, 77)),
        )
    ]
    assert all(rows)


def test_nan_drops_are_last() -> None:
    ablated = np.array([[np.nan, 1, 0]], np.float32)
    ablation = ChannelAblation(
        "conv", np.arange(3), ("cat",), np.ones(1, np.float32), ablated, False, "0"
    )
    assert ablation.ranking.tolist() == [2, 1, 0]
    assert ablation.to_rgb().size


# --- errors


class Doubling:
    """A network outside TensorFlow."""

    name = "doubling"
    inputs = (InputInfo("x", (None, 2)),)
    outputs = ("double",)

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        return [LayerInfo("double", "Double", (None, 2), "float32", "channels_last", 0, 0)]

    def run(self, x: Any, paths: Any) -> Any:
        return {"double": x * 2}

    def fingerprint(self) -> str:
        return "double"


def test_networks_outside_tensorflow(x: Array) -> None:
    for function in (
        lambda: actgrid.ablate_channels(Doubling(), np.zeros((1, 2)), "double"),
        lambda: actgrid.patch_activations(Doubling(), np.zeros((1, 2)), np.ones((1, 2))),
    ):
        with pytest.raises(CapabilityError, match="needs layers that run inside TensorFlow"):
            function()
    with pytest.raises(CapabilityError, match="patch needs a Keras model: got the network"):
        actgrid.patch(Doubling(), {"double": 0})


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("cnv",), {}, LayerError, "did you mean conv"),
        (("conv", 9), {}, Exception, "9"),
        (("conv",), {"channels": [6]}, LayerError, "has no channel 6; expected 0 to 5"),
        (("conv",), {"channels": []}, OptionError, "channels"),
        (("conv",), {"value": "median"}, OptionError, "value must be mean, reference or a number"),
        (("conv",), {"value": "reference"}, OptionError, "needs reference"),
        (("mean",), {"value": "mean"}, OptionError, "layer mean has no positions"),
        (("conv",), {"value": np.nan}, OptionError, "value"),
        (("conv",), {"batch_size": 0}, OptionError, "batch_size"),
        (("conv",), {"size": 3}, OptionError, "size"),
    ],
)
def test_errors(
    model: Any,
    x: Array,
    arguments: Any,
    options: Any,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        actgrid.ablate_channels(model, x, *arguments, **options)


def test_several_references_and_unused_layers(model: Any, x: Array) -> None:
    with pytest.raises(ShapeError, match="a single reference input: got 2 inputs"):
        actgrid.ablate_channels(model, x, "conv", value="reference", reference=x[:2])
    inputs = keras.Input((4, 4, 3))
    unused = layers.Conv2D(2, 1, name="unused")(inputs)
    branch = keras.Model(inputs, [layers.Flatten(name="flat")(inputs), unused])
    with pytest.raises(LayerError, match="the score does not depend on the layer unused"):
        actgrid.ablate_channels(branch, np.ones((1, 4, 4, 3)), "unused", {"flat": 0})
