"""Weights of a model, drawn as grids and saved as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid
from actgrid import render_weights
from actgrid.errors import LayerError, ModelError, ShapeError
from actgrid.figures import save_weights
from actgrid.models.layers import Selection, collect_weights


@pytest.fixture(autouse=True)
def _set_seed() -> None:
    keras.utils.set_random_seed(20)


def make_small_cnn() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, name="dense"),
        ]
    )


def make_nested() -> Any:
    inner = keras.Sequential([layers.Conv1D(3, 2, name="conv"), layers.ReLU()], name="inner")
    return keras.Sequential([keras.Input((6, 2)), inner, layers.Dense(1, name="head")])


def test_default_layers_are_convolution_kernels() -> None:
    model = make_small_cnn()
    grids = render_weights(model)
    assert list(grids) == ["conv/kernel"]
    kernel = model.get_layer("conv").get_weights()[0]
    options: dict[str, Any] = {"normalize": "symmetric", "cmap": "RdBu_r", "background": 128}
    expected = actgrid.render(kernel, kind="kernel", **options)
    np.testing.assert_array_equal(grids["conv/kernel"].levels, expected.levels)
    assert grids["conv/kernel"].cmap == "RdBu_r"


def test_all_weights_of_chosen_layers_are_drawn() -> None:
    model = make_small_cnn()
    grids = render_weights(model, ["conv", layers.Dense], cmap="gray", zoom=2)
    assert list(grids) == ["conv/kernel", "conv/bias", "dense/kernel", "dense/bias"]
    kernel = model.get_layer("dense").get_weights()[0]
    assert grids["dense/kernel"].levels.shape == (2 * kernel.shape[0], 2 * 5)
    assert {grid.cmap for grid in grids.values()} == {"gray"}


def test_weights_of_nested_models_have_nested_paths() -> None:
    model = make_nested()
    assert list(render_weights(model)) == ["inner/conv/kernel"]
    assert list(render_weights(model, "inner")) == ["inner/conv/kernel", "inner/conv/bias"]
    assert list(render_weights(model, "inner/*")) == ["inner/conv/kernel", "inner/conv/bias"]
    grid = render_weights(model, "head")["head/kernel"]
    assert grid.levels.shape == (3, 1)


def test_weight_paths_are_unique() -> None:
    class Scaled(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.scale = self.add_weight(shape=(), name="scale")
            self.pair = Pair(name="pair")
            self.rnn = layers.LSTM(2, name="rnn")

        def call(self, x: Any) -> Any:
            return self.rnn(self.pair(x) * self.scale)

    class Pair(layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.a = self.add_weight(shape=(3,), name="gain")
            self.b = self.add_weight(shape=(3,), name="gain")

        def call(self, x: Any) -> Any:
            return x * self.a + self.b

    model = Scaled()
    model(np.zeros((1, 4, 3), np.float32))
    weights = collect_weights(model)
    assert [weight.path for weight in weights] == [
        *("scale", "pair/gain", "pair/gain:1"),
        *(f"rnn/lstm_cell/{name}" for name in ("kernel", "recurrent_kernel", "bias")),
    ]
    assert all(
        weight.variable is variable for weight, variable in zip(weights, model.weights, strict=True)
    )
    # A layer selects the weights of layers inside it; scalars are not drawn.
    assert list(render_weights(model, "rnn")) == [weight.path for weight in weights[3:]]
    assert collect_weights(model.pair)[1].path == "gain:1"


def test_rows_of_transposed_convolutions_are_output_channels() -> None:
    model = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2DTranspose(3, 2, name="up")])
    kernel = model.get_layer("up").get_weights()[0]
    assert kernel.shape == (2, 2, 3, 2)
    grid = render_weights(model, padding=0)["up/kernel"]
    assert grid.levels.shape == (3 * 2, 2 * 2)
    np.testing.assert_allclose(grid.stats.mean, kernel.mean((0, 1, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "weight"),
    [
        (layers.DepthwiseConv2D(3, depth_multiplier=2, name="conv"), "kernel"),
        (layers.SeparableConv2D(4, 3, depth_multiplier=2, name="conv"), "depthwise_kernel"),
    ],
)
def test_depthwise_kernels_have_a_tile_for_each_output_channel(layer: Any, weight: str) -> None:
    model = keras.Sequential([keras.Input((4, 4, 8)), layer])
    grid = render_weights(model, padding=0)[f"conv/{weight}"]
    kernel = layer.get_weights()[0]
    assert kernel.shape == (3, 3, 8, 2)
    assert grid.levels.shape == (4 * 3, 4 * 3)
    # TensorFlow orders output channels by input channel.
    np.testing.assert_allclose(grid.stats.max, kernel.reshape(3, 3, 16).max((0, 1)))


def test_kernel_of_demo_model() -> None:
    grid = render_weights("demo", "stem_conv", zoom=2)["stem_conv/kernel"]
    assert grid.levels.shape == (2 * (32 * 4 - 1), 2 * (3 * 4 - 1))


def test_layers_without_weights_are_rejected() -> None:
    model = make_small_cnn()
    with pytest.raises(LayerError, match="did you mean conv"):
        render_weights(model, "convv")
    with pytest.raises(LayerError, match="match 'flatten' have no weights"):
        render_weights(model, ["conv", "flatten"])
    with pytest.raises(LayerError, match="no convolution: set layers"):
        render_weights(keras.Sequential([keras.Input((2,)), layers.Dense(2)]))
    with pytest.raises(ModelError, match="has no weights yet"):
        render_weights(keras.Sequential([layers.Dense(2)]))

    class Six(layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.add_weight(shape=(1,) * 6, name="six")

        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ShapeError, match="a kernel must be"):
        render_weights(keras.Sequential([keras.Input((2,)), Six(name="six")]), "six")


def test_equal_selections_have_equal_hashes() -> None:
    assert len({Selection("a"), Selection(["a"]), Selection("b"), Selection(None)}) == 3
    assert Selection("a") != "a"


def test_weights_are_saved_in_numbered_files(tmp_path: Path) -> None:
    model = make_small_cnn()
    records = save_weights(tmp_path, model, ["conv", "bn"], format="webp", zoom=3)
    names = [f"0{i}_{name}" for i, name in enumerate(["conv_kernel", "conv_bias", "bn_gamma"])]
    assert [record.file.stem for record in records][:3] == names
    assert [record.path for record in records][3:] == [
        "bn/beta",
        "bn/moving_mean",
        "bn/moving_variance",
    ]
    kernel = model.get_layer("conv").get_weights()[0]
    assert records[0].shape == (3, 3, 3, 4)
    assert (records[0].type, records[0].dtype) == ("Conv2D", "float32")
    assert (records[0].min, records[0].max) == (kernel.min(), kernel.max())
    with Image.open(records[0].file) as image:
        assert image.size == (3 * 11, 3 * 15)
