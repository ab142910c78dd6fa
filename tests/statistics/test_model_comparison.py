"""Tests of `actgrid.ModelComparison` and of pairs of models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers

import actgrid
from actgrid.errors import FormatError, LayerError, MissingFileError, OptionError, ShapeError
from actgrid.models import InputInfo, LayerInfo
from actgrid.statistics import ModelComparison, make_comparison_report
from actgrid.statistics.model_pair import ModelPair, join_input

Array = npt.NDArray[Any]


def make_model(seed: int, channels: int = 4, name: str = "conv") -> Any:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(channels, 3, activation="relu", name=name),
            layers.MaxPooling2D(name="pool"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(3, activation="softmax", name=f"out_{name}"),
        ],
        name=f"model{seed}",
    )


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    a, b = make_model(0), make_model(1)
    kernel, bias = b.get_layer("conv").get_weights()
    kernel[..., 2], bias[2] = 0, 1  # constant
    b.get_layer("conv").set_weights([kernel, bias])
    return a, b


@pytest.fixture(scope="module")
def x() -> Array:
    return np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def comparison(models: tuple[Any, Any], x: Array) -> ModelComparison:
    return actgrid.compare_models(*models, x)


def run_layers(model: Any, x: Array) -> dict[str, Array]:
    """Run the layers of a model one by one: layer name -> (values, channels) float64."""
    outputs = {}
    values: Any = x
    for layer in model.layers:
        values = layer(values)
        outputs[layer.name] = np.asarray(values, np.float64)
    return outputs


def flatten(values: Array) -> Array:
    return values.reshape(-1, values.shape[-1])


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
def test_values_of_every_channel(
    comparison: ModelComparison, models: tuple[Any, Any], x: Array
) -> None:
    outputs_a, outputs_b = (run_layers(model, x) for model in models)
    assert list(comparison.layers) == ["conv", "pool", "mean", "out_conv"]
    for path, layer in comparison.layers.items():
        a, b = flatten(outputs_a[path]), flatten(outputs_b[path])
        difference = np.abs(a - b)
        np.testing.assert_allclose(layer.difference, difference.mean(0), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(
            layer.rms_difference, np.sqrt((difference**2).mean(0)), rtol=1e-5, atol=1e-7
        )
        np.testing.assert_allclose(layer.max_difference, difference.max(0), rtol=1e-5, atol=1e-6)
        std = np.sqrt((a.var(0) + b.var(0)) / 2)
        np.testing.assert_allclose(
            layer.relative_difference, layer.rms_difference / std, rtol=1e-4, atol=1e-6
        )
        for channel in range(a.shape[1]):
            expected = np.corrcoef(a[:, channel], b[:, channel])[0, 1]
            found = layer.correlation[channel]
            np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(layer.a.mean, a.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(layer.died, (b == b[0]).all(0) & ~(a == a[0]).all(0))
        assert not layer.revived.any()
        top = layer.get_top_images(0)[0]
        images = np.abs(outputs_a[path] - outputs_b[path])[..., 0].reshape(len(x), -1)
        assert top.index == images.max(1).argmax()
    assert comparison.layers["conv"].died.tolist() == [False, False, True, False]


def test_alignment_is_the_mean_over_batches(
    comparison: ModelComparison, models: tuple[Any, Any], x: Array
) -> None:
    a, b = (run_layers(model, x)["pool"].reshape(20, -1) for model in models)
    terms = []
    for start in (0, 8, 16):  # the default batches
        part = slice(start, start + 8)
        count = len(a[part])
        grams = [values[part] @ values[part].T for values in (a, b)]
        for gram in grams:
            np.fill_diagonal(gram, 0)

        def estimate(k: Array, m: Array, count: int = count) -> float:
            ones = np.ones(count)
            total = np.trace(k @ m) + (ones @ k @ ones) * (ones @ m @ ones) / (
                (count - 1) * (count - 2)
            )
            return float((total - 2 / (count - 2) * (ones @ k @ m @ ones)) / (count * (count - 3)))

        k, m = grams
        terms += [[estimate(k, m), estimate(k, k), estimate(m, m)]] * count
    both, first, second = np.mean(terms, 0)
    expected = both / np.sqrt(first * second)
    assert comparison.layers["pool"].cka == pytest.approx(expected, abs=1e-4)


def test_equal_models(models: tuple[Any, Any], x: Array) -> None:
    frame = actgrid.compare_models(models[0], models[0], x).to_frame()
    assert not frame.difference.any()
    assert not frame.relative_difference.any()
    np.testing.assert_allclose(frame.correlation, 1, atol=1e-9)
    np.testing.assert_allclose(frame.cka, 1, atol=1e-6)


def test_tables(comparison: ModelComparison) -> None:
    frame = comparison.to_frame()
    assert len(frame) == 4 + 4 + 4 + 3
    assert frame.difference.is_monotonic_decreasing
    assert comparison.to_frame("correlation").correlation.dropna().is_monotonic_increasing
    relative = comparison.to_frame("relative_difference")
    assert relative.relative_difference.is_monotonic_decreasing
    row = frame[(frame.layer == "conv") & (frame.channel == 2)].iloc[0]
    assert (row.dead_a, row.dead_b, row.mean_b, row.std_b) == (False, True, 1, 0)
    assert np.isnan(row.correlation)
    assert comparison.list_channels()[0] == pytest.approx(dict(frame.iloc[0]), nan_ok=True)
    layer_frame = comparison.to_layer_frame()
    assert layer_frame.layer.tolist() == list(comparison.layers)
    assert layer_frame.died.tolist()[0] == 1
    assert layer_frame.difference[0] == np.median(comparison.layers["conv"].difference)
    with pytest.raises(OptionError, match="sort_by"):
        comparison.to_frame("channel")


def test_merged_parts_are_the_whole(models: tuple[Any, Any], x: Array) -> None:
    expected_comparison = actgrid.compare_models(*models, x, batch_size=4)
    merged = actgrid.compare_models(*models, x[:12], batch_size=4)
    merged.merge(actgrid.compare_models(*models, x[12:], batch_size=4))
    assert merged.images == 20
    for name, expected in expected_comparison.to_frame().items():
        values = merged.to_frame()[name]
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)
        else:
            assert values.tolist() == expected.tolist()
    other = actgrid.compare_models(*models, x[:4], "conv")
    for different in (other, 3):
        with pytest.raises(ShapeError, match="comparisons of different layers"):
            merged.merge(different)  # type: ignore[arg-type]


def test_files(comparison: ModelComparison, tmp_path: Path) -> None:
    comparison.save(tmp_path / "comparison.npz")
    loaded = ModelComparison.load(tmp_path / "comparison.npz")
    assert loaded.to_frame().equals(comparison.to_frame())
    assert loaded.names == comparison.names
    assert repr(ModelComparison.load(tmp_path)) == repr(comparison)
    comparison.save(tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").read_bytes() == comparison.to_png()
    with pytest.raises(MissingFileError):
        ModelComparison.load(tmp_path / "none.npz")
    for content in (b"", b"PK", (tmp_path / "comparison.png").read_bytes()):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(FormatError, match=r"bad\.npz: not a model comparison"):
            ModelComparison.load(tmp_path / "bad.npz")


# --- corresponding layers


def test_a_dict_names_the_other_layers(x: Array) -> None:
    a, b = make_model(0), make_model(1, name="other")
    comparison = actgrid.compare_models(a, b, x, {"conv": "other", "mean": "mean"})
    assert comparison.layer_paths == {"conv": "other", "mean": "mean"}
    expected = np.abs(run_layers(a, x)["conv"] - run_layers(b, x)["other"])
    np.testing.assert_allclose(
        comparison.layers["conv"].difference, expected.mean((0, 1, 2)), rtol=1e-5
    )
    default = actgrid.compare_models(a, b, x)
    # Outputs of different paths correspond by their order.
    assert default.layer_paths == {"pool": "pool", "mean": "mean", "out_conv": "out_other"}


def test_layers_of_different_shapes_have_an_alignment_alone(x: Array) -> None:
    a, b = make_model(0), make_model(1, channels=6)
    comparison = actgrid.compare_models(a, b, x)
    layer = comparison.layers["conv"]
    assert np.isnan(layer.difference).all()
    assert 0 < layer.cka < 1
    assert (len(layer.a.mean), len(layer.b.mean)) == (4, 6)
    assert set(comparison.to_frame().layer) == {"out_conv"}
    assert not layer.get_top_images(0)
    row = comparison.to_layer_frame().iloc[0]
    assert (row.channels_a, row.channels_b, row.died) == (4, 6, 0)
    page = make_comparison_report(comparison)
    assert json.loads(page.partition(b'id="data">')[2].partition(b"</script>")[0])


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"conv": "pol"}, "the second model has no layer 'pol'.*did you mean pool"),
        ({"cnv": "pool"}, "no layer is called 'cnv'.*did you mean conv"),
        ("out_conv", "the second model has no layer 'out_conv'.*pass layers as a dict"),
        ("out_c*", "no layers of the models have the same path"),
    ],
)
def test_errors_of_layers(x: Array, selection: Any, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        actgrid.compare_models(make_model(0), make_model(1, name="other"), x, selection)


def test_integers_and_low_precision_are_subtracted_without_overflow() -> None:
    def make(factor: int, dtype: str) -> Any:
        inputs = keras.Input((4,))
        return keras.Model(
            inputs,
            layers.Lambda(lambda values: keras.ops.cast(values * factor, dtype), name="cast")(
                inputs
            ),
        )

    x = np.array([[0, 10, 50, 100]] * 4, np.float32)
    comparison = actgrid.compare_models(make(1, "uint8"), make(2, "uint8"), x)
    assert comparison.layers["cast"].difference.tolist() == [0, 10, 50, 100]
    comparison = actgrid.compare_models(make(1, "float16"), make(2, "bfloat16"), x)
    assert comparison.layers["cast"].difference.tolist() == [0, 10, 50, 100]


class Halving:
    """A network outside TensorFlow that halves its input."""

    name = "halving"
    inputs = (InputInfo("x", (None, 4)),)
    outputs = ("half",)

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        return [LayerInfo("half", "Half", (None, 4), "float32", "channels_last", 0, 0)]

    def run(self, x: Any, paths: Any) -> Any:
        return {"half": x / 2}

    def fingerprint(self) -> str:
        return "half"


def test_networks_outside_tensorflow() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.ReLU(name="relu")])
    x = np.random.default_rng(0).random((6, 4)).astype(np.float32)
    comparison = actgrid.compare_models(model, Halving(), x)
    assert comparison.layer_paths == {"relu": "half"}
    np.testing.assert_allclose(comparison.layers["relu"].difference, x.mean(0) / 2, rtol=1e-6)
    assert comparison.layers["relu"].cka == pytest.approx(1)
    assert comparison.names == ("sequential", "halving") or comparison.names[1] == "halving"


def test_nonfinite_values_are_counted_and_left_out() -> None:
    inputs = keras.Input((2,))
    a = keras.Model(inputs, layers.Lambda(lambda values: values, name="same")(inputs))
    b = keras.Model(inputs, layers.Lambda(lambda values: 1 / values, name="same")(inputs))
    x = np.array([[0, 1], [1, 2], [2, 4], [4, 5]], np.float32)
    layer = actgrid.compare_models(a, b, x).layers["same"]
    assert layer.b.nonfinite.tolist() == [1, 0]
    np.testing.assert_allclose(layer.difference[0], np.mean([0, 1.5, 3.75]), rtol=1e-6)
    assert np.isnan(layer.correlation[0])
    assert np.isnan(layer.cka)


def test_correlation_of_channels_with_different_means(x: Array) -> None:
    def make(offset: float) -> Any:
        return keras.Sequential([keras.Input((3,)), layers.Rescaling(1.0, offset, name="shift")])

    values = x[:, 0, 0]
    models = make(0), make(1e4)
    layer = actgrid.compare_models(*models, values).layers["shift"]
    outputs = [np.asarray(model(values), np.float64) for model in models]
    expected = [np.corrcoef(outputs[0][:, i], outputs[1][:, i])[0, 1] for i in range(3)]
    np.testing.assert_allclose(layer.correlation, expected, atol=1e-5)


def test_inputs_of_pairs() -> None:
    pair = ModelPair(make_model(0), make_model(1))
    x = np.ones((2, 8, 8, 3), np.float32)
    outputs = actgrid.Extractor(pair, "difference/*")(join_input(x, x * 2))
    assert list(outputs) == [f"difference/{path}" for path in ("conv", "pool", "mean", "out_conv")]
    a, b = make_model(0), make_model(1)
    expected = np.abs(run_layers(a, x)["mean"] - run_layers(b, x * 2)["mean"])
    np.testing.assert_allclose(outputs["difference/mean"], expected, rtol=1e-5)
    assert pair.name == "model0 and model1"
    assert ModelPair("demo", "demo").names == ("demo (a)", "demo (b)")
    for selection in ({}, {0: 0}):
        with pytest.raises(OptionError, match="layers must be a dict from layer paths"):
            ModelPair(a, b, selection)
