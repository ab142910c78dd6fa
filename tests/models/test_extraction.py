"""Tests of `actgrid.models.extraction`."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers
from packaging.version import Version

import actgrid
from actgrid import ActgridError, Extractor, list_layers
from actgrid.errors import DeviceError, LayerError, ModelError, OptionError, ShapeError
from actgrid.models import LayerInfo
from actgrid.models.extraction import run_transform, trace_layers
from actgrid.models.fingerprint import compute_fingerprint
from actgrid.models.graph import build_layer_graph
from actgrid.models.receptive_fields import compute_receptive_fields

Array = npt.NDArray[Any]


def make_pixels(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def predict_tensors(inputs: Any, tensors: Mapping[str, Any], x: Any) -> dict[str, Array]:
    """Return the values that Keras computes for tensors of a functional model."""
    values = keras.Model(inputs, list(tensors.values())).predict(x, verbose=0)
    return dict(zip(tensors, values if isinstance(values, list) else [values], strict=True))


def predict_layers(model: Any, x: Any, *names: str) -> dict[str, Array]:
    return predict_tensors(model.inputs, {name: model.get_layer(name).output for name in names}, x)


def assert_activations_close(
    activations: Mapping[str, Array], expected: Mapping[str, Any], tolerance: float = 1e-5
) -> None:
    assert list(activations) == list(expected)
    for path, array in activations.items():
        expected_array = np.asarray(expected[path])
        assert array.dtype == expected_array.dtype, path
        assert array.shape == expected_array.shape, path
        np.testing.assert_allclose(
            array.astype(np.float64),
            expected_array.astype(np.float64),
            rtol=tolerance,
            atol=tolerance / 10,
            err_msg=path,
        )


def assert_calls_restored(model: Any) -> None:
    for layer in model._flatten_layers():
        assert "call" not in vars(layer), layer.name


def make_small_cnn() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(5, 2, name="conv2"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, activation="softmax", name="dense"),
        ],
        name="small",
    )


class Residual(layers.Layer):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.first = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")
        self.second = layers.Conv2D(4, 3, padding="same", name="second")

    def call(self, x: Any) -> Any:
        return x + self.second(self.first(x))


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.stem = layers.Conv2D(4, 3, name="stem")
        self.blocks = [Residual("block1"), Residual("block2")]
        self.head = layers.Dense(3, name="head")

    def call(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(keras.ops.mean(x, axis=(1, 2)))

    def call_separately(self, x: Array) -> dict[str, Any]:
        truth = {"stem": self.stem(x)}
        value = truth["stem"]
        for block in self.blocks:
            truth[f"{block.name}/first"] = block.first(value)
            truth[f"{block.name}/second"] = block.second(truth[f"{block.name}/first"])
            value = truth[block.name] = value + truth[f"{block.name}/second"]
        return truth


class HasUnused(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.used = layers.Conv2D(2, 1, name="used")
        self.unused = layers.Conv2D(2, 1, name="unused")

    def call(self, x: Any) -> Any:
        return self.used(x)


class FailsOnDemand(layers.Layer):  # type: ignore[misc]
    """A layer that raises during tracing if `is_failing` is set."""

    is_failing = False

    def call(self, x: Any) -> Any:
        if self.is_failing:
            raise RuntimeError("boom")
        return x * 2


class FailsWhenRun(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        # A stateless operation: TensorFlow runs stateful operations even if they are not needed.
        return tf.gather(x, tf.shape(x)[0] + 1, axis=0)[None]

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


# --- kinds of models


def test_sequential_activations_equal_predict() -> None:
    model = make_small_cnn()
    x = make_pixels(2, 8, 8, 3)
    activations = Extractor(model, "*")(x)
    assert_activations_close(
        activations, predict_layers(model, x, "conv1", "pool", "conv2", "flatten", "dense")
    )


def test_default_selects_every_spatial_layer() -> None:
    model = make_small_cnn()
    x = make_pixels(2, 8, 8, 3)
    assert_activations_close(
        Extractor(model)(x), predict_layers(model, x, "conv1", "pool", "conv2")
    )


def test_sequential_without_input_layer() -> None:
    model = keras.Sequential([layers.Conv2D(2, 3, name="a"), layers.Conv2D(3, 3, name="b")])
    x = make_pixels(1, 8, 8, 3)
    activations = Extractor(model)(x)
    first = model.get_layer("a")(x)
    assert_activations_close(activations, {"a": first, "b": model.get_layer("b")(first)})


def test_functional_with_branches_equals_predict() -> None:
    inputs = keras.Input((8, 8, 3))
    left = layers.Conv2D(4, 3, padding="same", name="left")(inputs)
    right = layers.Conv2D(4, 1, name="right")(inputs)
    both = layers.Add(name="both")([left, right])
    joined = layers.Concatenate(name="joined")([both, left])
    model = keras.Model(inputs, joined)
    x = make_pixels(2, 8, 8, 3)
    truth = predict_tensors(
        inputs, {"left": left, "right": right, "both": both, "joined": joined}, x
    )
    activations = Extractor(model)(x)
    assert list(activations)[-2:] == ["both", "joined"]
    assert_activations_close({path: activations[path] for path in truth}, truth)
    assert set(activations) == set(truth)


def test_nested_models_have_paths_two_levels_deep() -> None:
    inner_inputs = keras.Input((4, 4, 4))
    inner_conv = layers.Conv2D(3, 3, name="conv")(inner_inputs)
    inner = keras.Model(inner_inputs, layers.ReLU(name="relu")(inner_conv), name="block")
    inputs = keras.Input((8, 8, 3))
    stem = layers.Conv2D(4, 2, strides=2, name="stem")(inputs)
    backbone = keras.Model(inputs, inner(stem), name="backbone")
    model = keras.Sequential([backbone, layers.Conv2D(2, 1, name="top")], name="whole")
    model.build((None, 8, 8, 3))
    x = make_pixels(2, 8, 8, 3)

    truth = {"backbone/stem": backbone.get_layer("stem")(x)}
    truth["backbone/block/conv"] = inner.get_layer("conv")(truth["backbone/stem"])
    truth["backbone/block/relu"] = np.maximum(truth["backbone/block/conv"], 0)
    truth["top"] = model.get_layer("top")(truth["backbone/block/relu"])
    assert_activations_close(Extractor(model)(x), truth)

    chosen = Extractor(model, ["backbone", "backbone/block"])(x)
    result = truth["backbone/block/relu"]
    assert_activations_close(chosen, {"backbone/block": result, "backbone": result})
    np.testing.assert_allclose(chosen["backbone"], backbone.predict(x, verbose=0), rtol=1e-5)


def test_subclassed_model_equals_separate_layer_calls() -> None:
    model = Subclassed()
    x = make_pixels(2, 8, 8, 3)
    model(x)
    assert_activations_close(Extractor(model)(x), model.call_separately(x))


def test_uncalled_subclassed_model_is_built() -> None:
    model = Subclassed()
    x = make_pixels(2, 8, 8, 3)
    extractor = Extractor(model)
    activations = extractor(x)
    assert_activations_close(activations, model.call_separately(x))
    other = make_pixels(3, 10, 10, 3)
    assert_activations_close(extractor(other), model.call_separately(other))
    assert_calls_restored(model)


def test_layer_is_accepted_as_a_model() -> None:
    block = Residual("block")
    x = make_pixels(2, 8, 8, 4)
    activations = Extractor(block)(x)
    first = block.first(x)
    assert_activations_close(activations, {"first": first, "second": block.second(first)})


def test_shared_layer_has_a_path_for_each_call() -> None:
    inputs = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    first = shared(inputs)
    second = shared(first)
    third = shared(second)
    model = keras.Model(inputs, layers.Add(name="sum")([first, third]))
    x = make_pixels(2, 8, 8, 3)
    truth = predict_tensors(inputs, {"shared": first, "shared:1": second, "shared:2": third}, x)
    everything = truth | {"sum": truth["shared"] + truth["shared:2"]}
    assert_activations_close(Extractor(model)(x), everything)
    assert_activations_close(Extractor(model, "shared")(x), truth)
    assert_activations_close(Extractor(model, "shared:1")(x), {"shared:1": truth["shared:1"]})


@pytest.mark.parametrize("glob", ["shared:*", "shared:[12]", "*:?"])
def test_later_calls_are_selected_by_glob(glob: str) -> None:
    inputs = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 1, name="shared")
    model = keras.Model(inputs, shared(shared(shared(inputs))))
    assert list(Extractor(model, glob)(make_pixels(1, 8, 8, 3))) == ["shared:1", "shared:2"]


def test_shared_nested_model_has_a_path_for_each_call() -> None:
    tower = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(2, 3, name="conv")], name="tower"
    )
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    model = keras.Model([left, right], layers.Add(name="sum")([tower(left), tower(right)]))
    a, b = make_pixels(1, 8, 8, 3), make_pixels(1, 8, 8, 3) + 1
    by_hand = [tower.predict(x, verbose=0) for x in (a, b)]
    activations = Extractor(model)([a, b])
    assert set(activations) == {"tower/conv", "tower/conv:1", "sum"}
    assert_activations_close({"sum": activations["sum"]}, {"sum": by_hand[0] + by_hand[1]})
    # Keras does not run the towers in the order of creation.
    in_order = [activations["tower/conv"], activations["tower/conv:1"]]
    order = by_hand if np.allclose(in_order[0], by_hand[0], atol=1e-5) else by_hand[::-1]
    np.testing.assert_allclose(in_order, order, rtol=1e-5, atol=1e-6)


def test_list_of_inputs_and_of_outputs() -> None:
    image, other = keras.Input((8, 8, 3)), keras.Input((8, 8, 1))
    a = layers.Conv2D(2, 3, name="a")(image)
    b = layers.Conv2D(2, 3, name="b")(other)
    c = layers.Add(name="c")([a, b])
    model = keras.Model([image, other], [c, layers.Flatten(name="flat")(a)])
    x = [make_pixels(2, 8, 8, 3), make_pixels(2, 8, 8, 1)]
    truth = predict_tensors([image, other], {"a": a, "b": b, "c": c}, x)
    activations = Extractor(model)(x)
    assert set(activations) == set(truth)
    assert_activations_close({path: activations[path] for path in truth}, truth)
    assert_activations_close(Extractor(model, "c")(tuple(x)), {"c": truth["c"]})


def test_dict_of_inputs_and_of_outputs() -> None:
    inputs = {
        "image": keras.Input((8, 8, 3), name="image"),
        "mask": keras.Input((8, 8, 1), name="mask"),
    }
    a = layers.Conv2D(2, 3, name="a")(inputs["image"])
    b = layers.Conv2D(2, 3, name="b")(inputs["mask"])
    c = layers.Multiply(name="c")([a, b])
    model = keras.Model(inputs, {"product": c, "left": a})
    x = {"mask": make_pixels(2, 8, 8, 1), "image": make_pixels(2, 8, 8, 3)}
    truth = predict_tensors(inputs, {"a": a, "b": b, "c": c}, x)
    activations = Extractor(model)(x)
    assert set(activations) == set(truth)
    assert_activations_close({path: activations[path] for path in truth}, truth)
    assert {info.path for info in list_layers(model)} == set(truth)


def test_lstm_states_are_further_outputs() -> None:
    inputs = keras.Input((5, 3))
    sequence, hidden, cell = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(
        inputs
    )
    joined = layers.Concatenate(name="joined")([hidden, cell])
    model = keras.Model(inputs, [sequence, joined])
    x = make_pixels(2, 5, 3)
    truth = predict_tensors(inputs, {"lstm": sequence, "lstm[1]": hidden, "lstm[2]": cell}, x)
    assert_activations_close(Extractor(model, "lstm")(x), truth, 1e-4)
    assert_activations_close(Extractor(model)(x), {"lstm": truth["lstm"]}, 1e-4)
    assert_activations_close(Extractor(model, "lstm[2]")(x), {"lstm[2]": truth["lstm[2]"]}, 1e-4)


def test_bidirectional_and_time_distributed_layers() -> None:
    model = keras.Sequential(
        [
            keras.Input((4, 8, 8, 1)),
            layers.TimeDistributed(layers.Conv2D(2, 3, name="conv"), name="each"),
            layers.TimeDistributed(layers.Flatten(), name="flat"),
            layers.Bidirectional(layers.GRU(3, return_sequences=True), name="both"),
        ]
    )
    x = make_pixels(2, 4, 8, 8, 1)
    assert_activations_close(
        Extractor(model)(x), predict_layers(model, x, "each", "flat", "both"), 1e-4
    )


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((9, 3), layers.Conv1D(4, 3, name="conv")),
        ((8, 8, 3), layers.Conv2D(4, 3, strides=2, name="conv")),
        ((6, 6, 6, 2), layers.Conv3D(3, 3, name="conv")),
        ((8, 8, 3), layers.DepthwiseConv2D(3, depth_multiplier=2, name="conv")),
        ((8, 8, 3), layers.Conv2DTranspose(4, 3, strides=2, name="conv")),
        ((8, 8, 3), layers.SeparableConv2D(4, 3, name="conv")),
        ((9, 3), layers.Conv1DTranspose(4, 3, name="conv")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else "",
)
def test_convolutions_of_every_rank(shape: tuple[int, ...], layer: Any) -> None:
    model = keras.Sequential([keras.Input(shape), layer, layers.LayerNormalization(name="norm")])
    x = make_pixels(2, *shape)
    assert_activations_close(Extractor(model)(x), predict_layers(model, x, "conv", "norm"), 1e-4)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_mixed_precision_keeps_the_dtype(half: str) -> None:
    policy = f"mixed_{half}"
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, dtype=policy, name="conv"),
            layers.BatchNormalization(dtype=policy, name="norm"),
            layers.Activation("relu", dtype="float32", name="out"),
        ]
    )
    x = make_pixels(2, 8, 8, 3)
    activations = Extractor(model)(x)
    assert [array.dtype.name for array in activations.values()] == [half, half, "float32"]
    by_hand = {"conv": model.get_layer("conv")(x)}
    by_hand["norm"] = model.get_layer("norm")(by_hand["conv"])
    by_hand["out"] = model.get_layer("out")(by_hand["norm"])
    assert_activations_close(activations, by_hand, 2e-2)


def test_quantised_layers_are_captured() -> None:
    model = keras.Sequential(
        [keras.Input((6, 8)), layers.Dense(4, name="a"), layers.Dense(3, name="b")]
    )
    for layer in model.layers:
        layer.quantize("int8")
    x = make_pixels(2, 6, 8)
    first = model.get_layer("a")(x)
    assert_activations_close(
        Extractor(model)(x), {"a": first, "b": model.get_layer("b")(first)}, 1e-4
    )
    assert all("quantized_call" not in vars(layer) for layer in model.layers)


def test_images_of_any_size() -> None:
    model = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(2, 3, name="a"), layers.ReLU(name="b")]
    )
    extractor = Extractor(model)
    for size in (8, 12, 10, 9, 16):
        x = make_pixels(1, size, size + 1, 3)
        assert_activations_close(extractor(x), predict_layers(model, x, "a", "b"))
    assert extractor.trace_count <= 3


def test_channels_first_model() -> None:
    model = keras.Sequential(
        [
            keras.Input((3, 8, 8)),
            layers.Conv2D(4, 3, data_format="channels_first", name="conv"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(data_format="channels_first", name="pool"),
        ]
    )
    x = make_pixels(2, 3, 8, 8)
    try:
        truth = predict_layers(model, x, "conv", "relu", "pool")
    except (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError):
        # On a CPU without oneDNN an error explains the problem.
        with pytest.raises(DeviceError, match=r"cannot run the channels-first .*oneDNN; .*NHWC"):
            Extractor(model)(x)
        return
    extractor = Extractor(model)
    assert_activations_close(extractor(x), truth)
    assert {info.data_format for info in extractor.layers.values()} == {"channels_first"}
    assert [info.channels for info in extractor.layers.values()] == [4, 4, 4]


def test_data_format_is_inherited_from_previous_layer() -> None:
    inputs = keras.Input((8, 8, 3))
    x = layers.Permute((3, 1, 2), name="permute")(inputs)
    x = layers.AveragePooling2D(2, data_format="channels_first", name="first")(x)
    x = layers.ReLU(name="relu")(x)
    formats = {info.path: info.data_format for info in list_layers(keras.Model(inputs, x))}
    assert formats == {
        "permute": "channels_first",
        "first": "channels_first",
        "relu": "channels_first",
    }


def test_projections_of_attention_are_selected_only_by_name() -> None:
    inputs = keras.Input((6, 8))
    attention = layers.MultiHeadAttention(2, 4, name="mha")
    attended = attention(inputs, inputs)
    added = layers.Add(name="add")([inputs, attended])
    model = keras.Model(inputs, added)
    x = make_pixels(2, 6, 8)
    truth = predict_tensors(inputs, {"mha": attended, "add": added}, x)
    scores = attention(x, x, return_attention_scores=True)[1]
    assert_activations_close(Extractor(model)(x), {"mha/attention": scores, **truth})
    parts = Extractor(model, ["mha/query", "mha/key", "mha/value"])(x)
    by_hand = {
        "mha/query": attention.query_dense(x),
        "mha/key": attention.key_dense(x),
        "mha/value": attention.value_dense(x),
    }
    assert set(parts) == set(by_hand)
    assert_activations_close({path: parts[path] for path in by_hand}, by_hand)


# --- training


def make_noisy_model() -> Any:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.BatchNormalization(epsilon=0.0, name="norm"),
            layers.Dropout(0.5, name="drop"),
        ]
    )
    model.get_layer("norm").moving_mean.assign([1.0, 2.0, 3.0])
    return model


def test_inference_mode_is_the_default() -> None:
    x = make_pixels(4, 8, 8, 3)
    activations = Extractor(make_noisy_model())(x)
    normalised = x - np.array([1, 2, 3], np.float32)
    assert_activations_close(activations, {"norm": normalised, "drop": normalised})


def test_training_mode() -> None:
    x = make_pixels(4, 8, 8, 3) * 5 + 7
    activations = Extractor(make_noisy_model(), training=True)(x)
    normalised = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    np.testing.assert_allclose(activations["norm"], normalised, rtol=1e-3, atol=1e-4)
    is_kept = activations["drop"] != 0
    assert 0.3 < is_kept.mean() < 0.7
    np.testing.assert_allclose(
        activations["drop"][is_kept], 2 * activations["norm"][is_kept], rtol=1e-5
    )


def test_training_mode_does_not_update_the_model() -> None:
    model = make_noisy_model()
    before = model.get_weights()
    Extractor(model, training=True)(make_pixels(4, 8, 8, 3))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# --- the compiled function


def test_one_input_shape_is_traced_once() -> None:
    extractor = Extractor(make_small_cnn())
    assert extractor.trace_count == 0
    assert extractor.layers == {}
    extractor(make_pixels(2, 8, 8, 3))
    extractor(make_pixels(2, 8, 8, 3) + 1)
    assert extractor.trace_count == 1
    assert list(extractor.layers) == ["conv1", "pool", "conv2"]


def test_smaller_last_batch() -> None:
    model = make_small_cnn()
    extractor = Extractor(model)
    x = make_pixels(11, 8, 8, 3)
    truth = predict_layers(model, x, "conv1", "pool", "conv2")
    for start in range(0, 11, 4):
        part = slice(start, start + 4)
        assert_activations_close(
            extractor(x[part]), {path: all_[part] for path, all_ in truth.items()}
        )
    assert extractor.trace_count <= 2
    extractor(x[:1])
    assert extractor.trace_count <= 2


def test_trace_layers_avoids_later_traces() -> None:
    model = make_small_cnn()
    extractor = Extractor(model, "*o*")
    infos = trace_layers(extractor, tf.TensorSpec((None, 8, 8, 3)))
    assert list(infos) == ["conv1", "pool", "conv2"]
    assert infos == extractor.layers
    assert infos["conv1"].shape == (None, 6, 6, 4)
    x = make_pixels(5, 8, 8, 3)
    for part in (x, x[:1], x[:3]):
        assert_activations_close(
            extractor(part), predict_layers(model, part, "conv1", "pool", "conv2")
        )
    assert extractor.trace_count == 1
    assert extractor.layers == infos
    assert_calls_restored(model)


def slice_rows(info: LayerInfo, tensor: Any) -> Any:
    return tensor[:, :2]


def test_trace_layers_with_transform() -> None:
    model = make_small_cnn()
    extractor = Extractor(model, "conv1")
    assert list(trace_layers(extractor, tf.TensorSpec((None, 8, 8, 3)), slice_rows)) == ["conv1"]
    x = make_pixels(3, 8, 8, 3)
    for part in (x, x[:1]):
        sliced = run_transform(extractor, part, slice_rows)["conv1"]
        np.testing.assert_allclose(sliced, predict_layers(model, part, "conv1")["conv1"][:, :2])
    assert extractor.trace_count == 1


def test_trace_layers_with_free_size() -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3, name="conv")])
    extractor = Extractor(model)
    assert trace_layers(extractor, tf.TensorSpec((None, None, None, 3)))["conv"].shape[1:3] == (
        None,
        None,
    )
    for side in (4, 9):
        x = make_pixels(2, side, 5, 3)
        assert_activations_close(extractor(x), predict_layers(model, x, "conv"))
    assert extractor.trace_count == 1


@pytest.mark.filterwarnings("ignore:`build..` was called on layer:UserWarning")
def test_trace_layers_raises_as_a_call_does() -> None:
    model = make_small_cnn()
    for wrong in ((None, 9, 8, 3), (None, 8, 8, 1), (8, 8, 3)):
        with pytest.raises(ShapeError, match=r"takes an input of \(None, 8, 8, 3\)"):
            trace_layers(Extractor(model), tf.TensorSpec(wrong))
    subclassed = HasUnused()
    subclassed(make_pixels(1, 8, 8, 3))
    with pytest.raises(LayerError, match="unused"):
        trace_layers(Extractor(subclassed, "unused"), tf.TensorSpec((None, 8, 8, 3)))
    assert_calls_restored(subclassed)


def test_layers_are_in_execution_order() -> None:
    class Backwards(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.c = layers.Conv2D(3, 1, name="c")
            self.b = layers.Conv2D(3, 1, name="b")
            self.a = layers.Conv2D(3, 1, name="a")

        def call(self, x: Any) -> Any:
            return self.c(self.b(self.a(x)))

    model = Backwards()
    x = make_pixels(1, 4, 4, 3)
    assert list(Extractor(model)(x)) == ["a", "b", "c"]
    assert list(Extractor(model, ["c", "a"])(x)) == ["a", "c"]


def test_unneeded_layers_do_not_run() -> None:
    inputs = keras.Input((8, 8, 3))
    early = layers.Conv2D(2, 3, name="early")(inputs)
    model = keras.Model(inputs, FailsWhenRun(name="fails")(early))
    x = make_pixels(2, 8, 8, 3)
    with pytest.raises(ModelError) as refused:
        Extractor(model)(x)
    # The message of TensorFlow without its stack trace.
    assert re.fullmatch(
        r"the model cannot be run on inputs of shape \(2, 8, 8, 3\): .{5,200}", str(refused.value)
    )
    assert "File" not in str(refused.value)
    assert_activations_close(
        Extractor(model, "early")(x), predict_tensors(inputs, {"early": early}, x)
    )


def test_arrays_are_read_only_views_of_tensorflow_memory() -> None:
    for path, array in Extractor(make_small_cnn(), "*")(make_pixels(2, 8, 8, 3)).items():
        assert not array.flags.writeable, path
        assert not array.flags.owndata, path
        assert array.flags.c_contiguous, path


def test_arrays_stay_valid_after_later_calls() -> None:
    extractor = Extractor(make_small_cnn(), "conv1")
    x = make_pixels(2, 8, 8, 3)
    first = extractor(x)["conv1"]
    copy = first.copy()
    for _ in range(5):
        extractor(x * 3)
    del extractor
    np.testing.assert_array_equal(first, copy)


@pytest.mark.parametrize("dtype", ["uint8", "float64", "float16", "int32", "bool"])
def test_input_dtypes_are_converted_as_in_predict(dtype: str) -> None:
    model = make_small_cnn()
    x = (np.arange(2 * 8 * 8 * 3).reshape(2, 8, 8, 3) % 251).astype(dtype)
    assert_activations_close(
        Extractor(model)(x), predict_layers(model, x, "conv1", "pool", "conv2"), 1e-4
    )


def test_tensors_are_accepted() -> None:
    x = make_pixels(2, 8, 8, 3)
    extractor = Extractor(make_small_cnn())
    assert_activations_close(extractor(tf.constant(x)), extractor(x))
    assert extractor.trace_count == 1


def test_run_transform_returns_results_of_the_transform() -> None:
    def sums(info: LayerInfo, tensor: Any, factor: Any) -> dict[str, Any]:
        return {info.path: tf.reduce_sum(tensor) * factor}

    extractor, x = Extractor(make_small_cnn(), ["conv1", "pool"]), make_pixels(2, 8, 8, 3)
    activations = extractor(x)
    for factor in (1.0, -2.0):
        results = run_transform(extractor, x, sums, tf.constant(factor))
        assert list(results) == ["conv1", "pool"]
        for path, array in activations.items():
            np.testing.assert_allclose(results[path][path], factor * array.sum(), rtol=1e-4)
    # The extractor and the transform need one trace each: arguments are inputs of the graph.
    assert extractor.trace_count == 2
    assert_activations_close(extractor(x), activations)
    assert extractor.trace_count == 2


def test_threads_and_extractors_can_share_a_model() -> None:
    model = make_small_cnn()
    inputs = [make_pixels(2, 8, 8, 3) + offset for offset in range(8)]
    truth = [predict_layers(model, x, "conv1", "pool", "conv2") for x in inputs]
    extractors = [Extractor(model, ["conv1", "conv2"]), Extractor(model, "*pool*")]
    paths = [["conv1", "conv2"], ["pool"]]
    ready = threading.Barrier(8)

    def work(number: int) -> list[dict[str, Array]]:
        ready.wait()
        return [extractors[(number + turn) % 2](inputs[number]) for turn in range(10)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    for number, thread_results in enumerate(results):
        for turn, activations in enumerate(thread_results):
            selection = paths[(number + turn) % 2]
            assert_activations_close(activations, {path: truth[number][path] for path in selection})
    assert [extractor.trace_count for extractor in extractors] == [1, 1]
    assert_calls_restored(model)


def test_calls_in_other_threads_are_not_recorded() -> None:
    shapes: list[str] = []

    class Meddling(layers.Layer):  # type: ignore[misc]
        meddles = False

        def call(self, x: Any) -> Any:
            if self.meddles:
                other = threading.Thread(target=lambda: shapes.append(str(conv(eager).shape)))
                other.start()
                other.join()
            return x * 1.0

    eager = make_pixels(3, 8, 8, 3)
    conv = layers.Conv2D(2, 3, name="conv")
    meddling = Meddling(name="meddling")
    model = keras.Sequential([keras.Input((8, 8, 3)), meddling, conv])
    meddling.meddles = True
    assert list(Extractor(model)(make_pixels(1, 8, 8, 3))) == ["meddling", "conv"]
    assert shapes == ["(3, 6, 6, 2)"]


def test_extraction_does_not_change_the_model() -> None:
    model = make_small_cnn()
    x = make_pixels(2, 8, 8, 3)
    before = model.predict(x, verbose=0)
    attributes = {layer.name: set(vars(layer)) for layer in model._flatten_layers()}
    Extractor(model)(x)
    assert {layer.name: set(vars(layer)) for layer in model._flatten_layers()} == attributes
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((2, 3)), verbose=0)


def test_failed_trace_does_not_change_the_model() -> None:
    fused = FailsOnDemand(name="fused")
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3, name="conv"), fused])
    x = make_pixels(2, 8, 8, 3)
    before = np.asarray(model(x))
    extractor = Extractor(model)
    fused.is_failing = True
    with pytest.raises(ModelError, match=r"FailsOnDemand\.call\(\): RuntimeError: boom"):
        extractor(x)
    assert_calls_restored(model)
    fused.is_failing = False
    np.testing.assert_allclose(model(x), before, rtol=1e-5)
    assert_activations_close(extractor(x), predict_layers(model, x, "conv", "fused"))


def test_replaced_call_method_is_kept() -> None:
    model = make_small_cnn()
    conv = model.get_layer("conv1")
    original = conv.call

    def double(x: Any) -> Any:
        return 2 * original(x)

    vars(conv)["call"] = double
    x = make_pixels(1, 8, 8, 3)
    activations = Extractor(model, "conv1")(x)
    assert vars(conv)["call"] is double
    assert_activations_close(activations, {"conv1": double(tf.constant(x))})


def test_extractor_accepts_model_specs(tmp_path: Any) -> None:
    model = make_small_cnn()
    model.save(tmp_path / "small.keras")
    x = make_pixels(2, 8, 8, 3)
    assert_activations_close(
        Extractor(tmp_path / "small.keras", "conv1")(x), predict_layers(model, x, "conv1")
    )


# --- selecting layers


@pytest.mark.parametrize(
    ("selection", "paths"),
    [
        ("conv1", ["conv1"]),
        ("conv*", ["conv1", "conv2"]),
        ("*o*1", ["conv1"]),
        ("[pf]*", ["pool", "flatten"]),
        (layers.Conv2D, ["conv1", "conv2"]),
        (layers.Layer, ["conv1", "pool", "conv2", "flatten", "dense"]),
        (0, ["conv1"]),
        (-1, ["dense"]),
        (np.int64(2), ["conv2"]),
        (range(2), ["conv1", "pool"]),
        (lambda layer: "pool" in layer.name, ["pool"]),
        (["dense", "conv*", 1], ["conv1", "pool", "conv2", "dense"]),
        (("conv1", "conv1"), ["conv1"]),
        ({"conv1", layers.Dense}, ["conv1", "dense"]),
        ((name for name in ["pool"]), ["pool"]),
    ],
)
def test_layers_are_selected(selection: Any, paths: list[str]) -> None:
    model = make_small_cnn()
    x = make_pixels(2, 8, 8, 3)
    assert_activations_close(Extractor(model, selection)(x), predict_layers(model, x, *paths))


@pytest.fixture
def nested_model() -> Any:
    backbone = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(2, 3, name="conv"), layers.ReLU(name="relu")],
        name="backbone",
    )
    return keras.Sequential([backbone, layers.Conv2D(3, 3, name="conv")], name="nested")


@pytest.mark.parametrize(
    ("selection", "paths"),
    [
        ("conv", ["conv"]),
        ("backbone/conv", ["backbone/conv"]),
        ("backbone/*", ["backbone/conv", "backbone/relu"]),
        ("*/conv", ["backbone/conv"]),
        ("*conv", ["backbone/conv", "conv"]),
        (0, ["backbone"]),
        (1, ["conv"]),
        (layers.ReLU, ["backbone/relu"]),
    ],
)
def test_layers_in_nested_models_are_selected(
    nested_model: Any, selection: Any, paths: list[str]
) -> None:
    assert list(Extractor(nested_model, selection)(make_pixels(1, 8, 8, 3))) == paths


# --- errors


def test_unknown_layer_raises_key_error_with_suggestions() -> None:
    with pytest.raises(LayerError) as caught:
        Extractor(make_small_cnn(), "cnov1")
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, ActgridError)
    message = str(caught.value)
    assert message.startswith("no layer is called 'cnov1'")
    assert "conv1" in message
    assert "did you mean" in message


def test_unknown_layer_error_lists_layers() -> None:
    with pytest.raises(LayerError, match=r"no layer is called 'zzz'.*conv1, pool"):
        Extractor(make_small_cnn(), "zzz")


def test_unknown_layer_error_suggests_nested_layers(nested_model: Any) -> None:
    nested_model.build((None, 8, 8, 3))
    with pytest.raises(LayerError, match="backbone/relu"):
        Extractor(nested_model, "rellu")


@pytest.mark.parametrize(
    "selection",
    ["*nothing*", ["conv1", "nothing"], layers.LSTM, lambda layer: False, 5, -6, 10**20],
)
def test_selection_without_match_raises_before_running(selection: Any) -> None:
    with pytest.raises(LayerError):
        Extractor(make_small_cnn(), selection)


def test_index_out_of_range_raises() -> None:
    with pytest.raises(LayerError, match="got 7; the model has 5 layers"):
        Extractor(make_small_cnn(), 7)


def test_index_into_a_layer_raises() -> None:
    with pytest.raises(LayerError):
        Extractor(Residual("block"), 0)(make_pixels(1, 8, 8, 4))


def test_missing_call_raises() -> None:
    with pytest.raises(LayerError, match="conv1:3"):
        Extractor(make_small_cnn(), "conv1:3")(make_pixels(1, 8, 8, 3))


# Keras warns about this model.
@pytest.mark.filterwarnings("ignore:`build..` was called on layer:UserWarning")
def test_uncalled_layer_raises() -> None:
    model = HasUnused()
    with pytest.raises(LayerError, match=r"no layer is called 'unused'.*never calls"):
        Extractor(model, "unused")(make_pixels(1, 8, 8, 3))
    assert_calls_restored(model)


def test_looped_layer_raises() -> None:
    model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4, name="lstm")])
    extractor = Extractor(model, "lstm/lstm_cell")
    with pytest.raises(LayerError, match=r"lstm/lstm_cell.*only in a loop"):
        extractor(make_pixels(1, 5, 3))


def test_layers_of_unbuilt_model_are_checked_on_first_call() -> None:
    extractor = Extractor(Subclassed(), "stme")
    with pytest.raises(LayerError, match="stem"):
        extractor(make_pixels(1, 8, 8, 3))


@pytest.mark.parametrize("empty", [[], (), set(), iter([])])
def test_empty_selection_raises(empty: Any) -> None:
    with pytest.raises(OptionError, match="layers is empty"):
        Extractor(make_small_cnn(), empty)


@pytest.mark.parametrize("selection", [1.5, [None], [["conv1"]], {"conv1": 1.5}.values(), True])
def test_invalid_selection_type_raises(selection: Any) -> None:
    with pytest.raises(OptionError, match="layers takes paths, globs"):
        Extractor(make_small_cnn(), selection)


def test_layer_object_selects_itself() -> None:
    # A layer is callable, but not a predicate.
    model = make_small_cnn()
    layer = model.layers[0]
    assert list(Extractor(model, layer)(make_pixels(1, *model.input_shape[1:]))) == [layer.name]
    with pytest.raises(LayerError, match="no layer matches"):
        Extractor(model, make_small_cnn().layers[0])


def test_missing_batch_axis_raises_with_hint() -> None:
    extractor = Extractor(make_small_cnn())
    with pytest.raises(
        ShapeError, match=r"\(None, 8, 8, 3\), not \(8, 8, 3\).*x\[None\]"
    ) as caught:
        extractor(make_pixels(8, 8, 3))
    assert isinstance(caught.value, ValueError)


def test_missing_batch_axis_in_dict_raises_with_hint() -> None:
    image = keras.Input((8, 8, 3), name="image")
    model = keras.Model({"image": image}, layers.Conv2D(2, 3, name="conv")(image))
    with pytest.raises(ShapeError, match=r"x\[None\]"):
        Extractor(model)({"image": make_pixels(8, 8, 3)})


def test_wrong_size_raises_without_hint() -> None:
    with pytest.raises(ShapeError) as caught:
        Extractor(make_small_cnn())(make_pixels(1, 9, 8, 3))
    assert "(1, 9, 8, 3)" in str(caught.value)
    assert "x[None]" not in str(caught.value)


@pytest.mark.parametrize("count", [1, 3])
def test_wrong_number_of_inputs_raises(count: int) -> None:
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    extractor = Extractor(keras.Model([a, b], layers.Add(name="add")([a, b])))
    with pytest.raises(ShapeError, match=rf"2 inputs \(.*\), not {count}"):
        extractor([make_pixels(1, 8, 8, 3)] * count)


def test_model_without_spatial_layer_needs_a_selection() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense")])
    x = make_pixels(2, 3)
    with pytest.raises(LayerError, match="no layer with a spatial output"):
        Extractor(model)(x)
    assert_activations_close(Extractor(model, "dense")(x), predict_layers(model, x, "dense"))


def test_non_model_raises() -> None:
    with pytest.raises(ModelError):
        Extractor(object())  # type: ignore[arg-type]


# --- list_layers


def test_list_layers_describes_outputs() -> None:
    listed = list_layers(make_small_cnn())
    assert [info.path for info in listed] == ["conv1", "pool", "conv2", "flatten", "dense"]
    assert [info.type for info in listed] == [
        "Conv2D",
        "MaxPooling2D",
        "Conv2D",
        "Flatten",
        "Dense",
    ]
    assert [info.shape for info in listed] == [
        (None, 6, 6, 4),
        (None, 3, 3, 4),
        (None, 2, 2, 5),
        (None, 20),
        (None, 3),
    ]
    assert [info.parameters for info in listed] == [112, 0, 85, 0, 63]
    assert [info.index for info in listed] == [0, 1, 2, 3, 4]
    assert [info.channels for info in listed] == [4, 4, 5, 20, 3]
    assert [info.is_spatial for info in listed] == [True, True, True, False, False]
    assert [info.kind for info in listed] == ["image", "image", "image", "dense", "dense"]
    assert {info.dtype for info in listed} == {"float32"}
    assert {info.data_format for info in listed} == {"channels_last"}


def test_index_is_position_in_model_layers() -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.ReLU(name="b")(layers.Conv2D(2, 3, name="a")(inputs)))
    for info in list_layers(model):
        assert info.index is not None
        assert model.layers[info.index].name == info.path


def test_nested_layers_have_no_index(nested_model: Any) -> None:
    nested_model.build((None, 8, 8, 3))
    indices = {info.path: info.index for info in list_layers(nested_model)}
    assert indices == {"backbone/conv": None, "backbone/relu": None, "backbone": 0, "conv": 1}


def test_list_layers_of_subclassed_model_needs_an_input() -> None:
    model = Subclassed()
    with pytest.raises(ModelError, match=r"subclassed.*call it once, or pass an input") as caught:
        list_layers(model)
    assert isinstance(caught.value, ValueError)
    x = make_pixels(2, 8, 8, 3)
    listed_with_input = list_layers(model, x)
    assert [info.path for info in listed_with_input] == [
        "stem",
        "block1/first",
        "block1/second",
        "block1",
        "block2/first",
        "block2/second",
        "block2",
        "head",
    ]
    assert listed_with_input[0].shape == (2, 6, 6, 4)
    assert_calls_restored(model)
    listed = list_layers(model)  # built by the previous call
    assert [info.path for info in listed] == [info.path for info in listed_with_input]
    assert listed[0].shape == (None, 6, 6, 4)
    assert {info.path: info.parameters for info in listed}["block1"] == 2 * (3 * 3 * 4 * 4 + 4)


def test_list_layers_lists_each_call() -> None:
    inputs = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 1, name="shared")
    model = keras.Model(inputs, shared(shared(inputs)))
    assert [info.path for info in list_layers(model)] == ["shared", "shared:1"]


def test_list_layers_with_fixed_batch_size() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3), batch_size=4), layers.Conv2D(2, 3, name="a")])
    assert [info.shape for info in list_layers(model)] == [(4, 6, 6, 2)]


def test_layer_infos_can_be_compared_and_hashed() -> None:
    model = make_small_cnn()
    assert list_layers(model) == list_layers(model)
    assert len(set(list_layers(model))) == 5


def test_layers_in_tf_function_call_are_captured() -> None:
    class Compiled(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = layers.Conv2D(4, 3, name="first")
            self.second = layers.ReLU(name="second")

        @tf.function  # type: ignore[untyped-decorator]
        def call(self, x: Any) -> Any:
            return self.second(self.first(x))

    model = Compiled()
    x = make_pixels(1, 8, 8, 3)
    activations = Extractor(model)(x)
    assert list(activations) == ["first", "second"]
    np.testing.assert_allclose(activations["second"], np.asarray(model(x)), rtol=1e-5)


def test_permute_changes_data_format() -> None:
    model = keras.Sequential(
        [
            keras.Input((3, 8, 8)),
            layers.Conv2D(4, 3, data_format="channels_first", name="first"),
            layers.ReLU(name="relu"),
            layers.Permute((2, 3, 1), name="last"),
            layers.ReLU(name="after"),
        ]
    )
    formats = {layer.path: layer.data_format for layer in list_layers(model)}
    assert formats == {
        "first": "channels_first",
        "relu": "channels_first",
        "last": "channels_last",
        "after": "channels_last",
    }


def test_uncalled_model_is_traced_once() -> None:
    extractor = Extractor(Subclassed())
    for _ in range(2):
        extractor(make_pixels(1, 8, 8, 3))
    assert extractor.trace_count == 1


def test_tensor_branches_in_tf_function_call_work() -> None:
    class Branching(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = layers.Conv2D(4, 3, name="conv")
            self.relu = layers.ReLU(name="relu")

        @tf.function  # type: ignore[untyped-decorator]
        def call(self, x: Any) -> Any:
            y = self.conv(x)
            if tf.reduce_mean(y) > -1e9:
                y = y + 1.0
            return self.relu(y)

    model = Branching()
    x = make_pixels(1, 8, 8, 3)
    activations = Extractor(model)(x)
    np.testing.assert_allclose(activations["relu"], np.asarray(model(x)), rtol=1e-5)


def test_branches_have_separate_data_formats() -> None:
    inputs = keras.Input((8, 8, 3))
    last = layers.ReLU(name="relu_last")(layers.Conv2D(4, 3, name="conv")(inputs))
    permuted = layers.Permute((3, 1, 2), name="permute")(inputs)
    pool = layers.MaxPooling2D(data_format="channels_first", name="pool")(permuted)
    first = layers.ReLU(name="relu_first")(pool)
    model = keras.Model(inputs, [layers.Flatten()(last), layers.Flatten()(first)])
    formats = {layer.path: (layer.data_format, layer.channels) for layer in list_layers(model)}
    assert formats["relu_last"] == ("channels_last", 4)
    assert formats["relu_first"] == ("channels_first", 3)


def test_list_layers_of_subclassed_model_with_dict_input() -> None:
    class Several(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.a = layers.Dense(3, name="a")
            self.b = layers.Dense(4, name="b")

        def call(self, inputs: Any) -> Any:
            return self.a(inputs["a"]), self.b(inputs["b"])

    model = Several()
    model({"a": make_pixels(1, 5), "b": make_pixels(1, 6)})
    assert [(layer.path, layer.shape) for layer in list_layers(model)] == [
        ("a", (None, 3)),
        ("b", (None, 4)),
    ]


def test_optional_input_may_be_none() -> None:
    class Maybe(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any, y: Any = None) -> Any:
            return x if y is None else x + y

        def compute_output_shape(self, x_shape: Any, y_shape: Any = None) -> Any:
            return x_shape

    a = keras.Input((8, 8, 3), name="a")
    b = keras.Input((8, 8, 3), name="b", optional=True)
    model = keras.Model({"a": a, "b": b}, layers.Conv2D(2, 3, name="conv")(Maybe()(a, b)))
    x = make_pixels(1, 8, 8, 3)
    activations = Extractor(model, "conv")({"a": x, "b": None})
    expected = model({"a": x, "b": None})
    np.testing.assert_allclose(activations["conv"], np.asarray(expected), rtol=1e-5)


def test_index_of_input_layer_raises() -> None:
    with pytest.raises(LayerError, match="layer 0 is an input of the model"):
        Extractor(keras.Model(i := keras.Input((4, 4, 3)), layers.ReLU()(i)), 0)


# --- operations of functional models


def make_operation_model() -> Any:
    """Return a model of layers and operations, with a shared nested model."""
    ops = keras.ops
    patch = keras.Input((6, 6, 4), name="patch")
    inner = keras.Model(patch, ops.tanh(layers.Conv2D(4, 1, name="point")(patch) * 3), name="inner")
    inputs = keras.Input((8, 8, 3), name="image")
    first = layers.Conv2D(4, 3, name="conv")(inputs)
    scaled = ops.relu(first) * 2 + 1
    left, right = ops.split(ops.concatenate([scaled, first[:, ::-1]], -1), 2, -1)
    return keras.Model(inputs, ops.mean(inner(left) - inner(right), (1, 2)), name="outer")


def test_operations_are_captured_by_name() -> None:
    model, x = make_operation_model(), make_pixels(2, 8, 8, 3)
    inner = model.get_layer("inner")
    names = {type(operation).__name__: operation.name for operation in model.operations}
    scale = next(op.name for op in inner.operations if type(op).__name__ == "Multiply")
    tanh = next(op.name for op in inner.operations if type(op).__name__ == "Tanh")
    activations = Extractor(model, "*")(x)

    conv = np.asarray(model.get_layer("conv")(x))
    relu = np.maximum(conv, 0)
    scaled = relu * 2 + 1
    flipped = conv[:, ::-1]
    points = [np.asarray(inner.get_layer("point")(part)) for part in (scaled, flipped)]
    ends = [np.tanh(3 * point) for point in points]
    assert_activations_close(
        activations,
        {
            "conv": conv,
            names["Relu"]: relu,
            names["Multiply"]: relu * 2,
            names["Add"]: scaled,
            names["GetItem"]: flipped,
            names["Concatenate"]: np.concatenate([scaled, flipped], -1),
            names["Split"]: scaled,
            f"{names['Split']}[1]": flipped,
            "inner/point": points[0],
            f"inner/{scale}": points[0] * 3,
            f"inner/{tanh}": ends[0],
            "inner": ends[0],
            "inner/point:1": points[1],
            f"inner/{scale}:1": points[1] * 3,
            f"inner/{tanh}:1": ends[1],
            "inner:1": ends[1],
            names["Subtract"]: ends[0] - ends[1],
            names["Mean"]: (ends[0] - ends[1]).mean((1, 2)),
        },
    )
    infos = {info.path: info for info in list_layers(model)}
    assert list(infos) == list(activations)
    operation = infos[names["Relu"]]
    assert (operation.type, operation.parameters, operation.index) == ("Relu", 0, None)
    assert operation.shape == (None, 6, 6, 4)
    for part in (model, inner):
        assert not any("call" in vars(operation) for operation in part.operations)


def test_operations_are_selected_by_name_glob_class_and_object() -> None:
    model, x = make_operation_model(), make_pixels(1, 8, 8, 3)
    relu = next(op for op in model.operations if type(op).__name__ == "Relu")
    for choice in (relu.name, relu.name[:-1] + "?", relu, type(relu)):
        assert list(Extractor(model, choice)(x)) == [relu.name], choice
    layers_alone = ["conv", "inner/point", "inner", "inner/point:1", "inner:1"]
    assert list(Extractor(model, layers.Layer)(x)) == layers_alone
    # A predicate is called with layers only, not with operations.
    assert list(Extractor(model, lambda layer: layer.count_params() > 20)(x)) == ["conv"]
    assert len(Extractor(model, keras.Operation)(x)) == len(list_layers(model))
    with pytest.raises(LayerError, match=r"did you mean .*inner"):
        Extractor(model, "iner")
    assert (
        len(Extractor(model)(x)) == len(list_layers(model)) - 3
    )  # without the mean and the two "inner"


def test_other_functions_accept_operations() -> None:
    model, x = make_operation_model(), make_pixels(1, 8, 8, 3)
    add = next(op.name for op in model.operations if type(op).__name__ == "Add")
    assert list(actgrid.render_weights(model, "*")) == [
        "conv/kernel", "conv/bias", "inner/point/kernel", "inner/point/bias"
    ]  # fmt: skip
    with pytest.raises(LayerError, match="have no weights"):
        actgrid.render_weights(model, add)
    field = compute_receptive_fields(model, layers=add)[add]
    assert field is not None
    assert field.size == (3, 3)
    assert list(actgrid.render_model(model, x, add)) == [add]
    assert actgrid.explain(model, x, method="gradcam", layer=add, target=0).layer == add
    assert actgrid.maximize(model, add, 0, steps=1).layer == add
    graph = build_layer_graph(model)
    paths = [info.path for info in graph.infos]
    fed_by = {paths[start] for start, end in graph.edges if paths[end] == add}
    assert fed_by == {next(op.name for op in model.operations if type(op).__name__ == "Multiply")}
    assert compute_fingerprint(model) == compute_fingerprint(model)


def test_operations_of_loaded_model_are_captured(tmp_path: Any) -> None:
    model, x = make_operation_model(), make_pixels(1, 8, 8, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    activations, expected = Extractor(loaded, "*")(x), Extractor(model, "*")(x)
    if Version(keras.__version__) < Version("3.12"):  # which numbers loaded operations anew
        activations = dict(zip(expected, activations.values(), strict=True))
    assert_activations_close(activations, expected)


def test_transpose_operation_changes_data_format() -> None:
    inputs = keras.Input((3, 8, 8))
    conv = layers.Conv2D(4, 3, data_format="channels_first", name="conv")(inputs)
    model = keras.Model(inputs, keras.ops.relu(keras.ops.transpose(conv, (0, 2, 3, 1))))
    assert [info.data_format for info in list_layers(model)] == [
        "channels_first", "channels_last", "channels_last"
    ]  # fmt: skip


def test_calls_of_shared_layers_are_selected_by_number() -> None:
    model, x = make_operation_model(), make_pixels(1, 8, 8, 3)
    everything = Extractor(model, "*")(x)
    for choice, paths in {
        "inner/point": ["inner/point", "inner/point:1"],
        "inner/point:0": ["inner/point"],
        "inner/point:1": ["inner/point:1"],
        "*/point:0": ["inner/point"],
        "conv:0": ["conv"],
    }.items():
        assert_activations_close(
            Extractor(model, choice)(x), {path: everything[path] for path in paths}
        )
    split = next(op.name for op in model.operations if type(op).__name__ == "Split")
    assert list(Extractor(model, f"{split}:0[[]1]")(x)) == [f"{split}[1]"]
    assert list(Extractor(model, f"{split}:0")(x)) == [split]
    with pytest.raises(LayerError, match="no layer is called 'conv:1'"):
        Extractor(model, "conv:1")(x)
    with pytest.raises(
        LayerError, match=r"must be one layer: got 2 \(inner/point:0, inner/point:1\)"
    ):
        actgrid.maximize(model, "inner/point", 0, steps=1)


# --- layers inside wrappers


def predict_step_by_step(inner: Any, name: str, x: Array) -> Array:
    """Compute a layer inside a model for each time step separately, (N, T, ...)."""
    part = keras.Model(inner.inputs, inner.get_layer(name).output)
    return np.stack([part.predict(x[:, step], verbose=0) for step in range(x.shape[1])], 1)


def make_frame_network() -> Any:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.GlobalAveragePooling2D(name="average"),
        ],
        name="frames",
    )
    model.get_layer("norm").moving_mean.assign([0.1, 0.2, 0.3, 0.4])
    return model


@pytest.mark.parametrize("steps", [5, None])
def test_layers_inside_time_distributed_return_all_steps(steps: int | None) -> None:
    inner = make_frame_network()
    model = keras.Sequential(
        [
            keras.Input((steps, 8, 8, 3)),
            layers.TimeDistributed(inner, name="each"),
            layers.LSTM(2, name="lstm"),
        ]
    )
    x = make_pixels(2, 5, 8, 8, 3)
    truth = {
        f"each/frames/{name}": predict_step_by_step(inner, name, x) for name in ("conv", "norm")
    }
    averages = predict_step_by_step(inner, "average", x)
    truth |= dict.fromkeys(["each/frames/average", "each/frames", "each"], averages)
    truth["lstm"] = model.predict(x, verbose=0)
    assert_activations_close(Extractor(model, "*")(x), truth)
    assert list(Extractor(model)(x)) == [
        "each/frames/conv",
        "each/frames/norm",
        "each/frames/average",
    ]
    shapes = {info.path: info.shape for info in list_layers(model)}
    assert shapes["each/frames/conv"] == (None, steps, 6, 6, 4)
    assert actgrid.render_model(model, x[:1], "each/frames/conv")
    graph = build_layer_graph(model)
    paths = [info.path for info in graph.infos]
    edges = [(paths[start], paths[end]) for start, end in graph.edges]
    assert edges == list(itertools.pairwise(paths))
    assert paths[1:] == ["each/frames/conv", "each/frames/norm", "each/frames/average", "lstm"]


def test_gradients_reach_layers_inside_time_distributed() -> None:
    inner = make_frame_network()
    inputs = keras.Input((5, 8, 8, 3))
    model = keras.Model(inputs, layers.TimeDistributed(inner, name="each")(inputs))
    x = make_pixels(2, 5, 8, 8, 3)
    gradients = actgrid.gradients(
        model, x, 0, loss=lambda y, output: tf.reduce_sum(output), layers="each/frames/conv"
    )
    norm = inner.get_layer("norm")
    slope = (
        norm.gamma / tf.sqrt(norm.moving_variance + norm.epsilon) / 36
    )  # mean over 6 x 6 positions
    expected = np.broadcast_to(slope, (2, 5, 6, 6, 4))
    np.testing.assert_allclose(gradients.activations["each/frames/conv"], expected, rtol=1e-5)


def test_nested_time_distributed_layers() -> None:
    inner = layers.TimeDistributed(layers.Dense(3, name="dense"), name="inner")
    model = keras.Sequential(
        [keras.Input((None, 4, 5, 2)), layers.TimeDistributed(inner, name="outer")]
    )
    model.layers[0].layer.layer.bias.assign([1.0, 2.0, 3.0])
    x = make_pixels(2, 3, 4, 5, 2)
    truth = model.predict(x, verbose=0)
    activations = Extractor(model, "*")(x)
    assert list(activations) == ["outer/inner/dense", "outer/inner", "outer"]
    for path, array in activations.items():
        np.testing.assert_allclose(array, truth, rtol=1e-5, atol=1e-6, err_msg=path)


def test_masks_reach_layers_inside_time_distributed() -> None:
    words = np.array([[[1, 2, 0], [3, 0, 0]], [[2, 2, 2], [0, 0, 0]]])
    embedding = layers.Embedding(4, 3, mask_zero=True, name="embedding")
    model = keras.Sequential(
        [
            keras.Input((2, 3), dtype="int32"),
            embedding,
            layers.TimeDistributed(layers.LSTM(2, name="lstm"), name="sentences"),
        ]
    )
    activations = Extractor(model, ["sentences", "sentences/lstm"])(words)
    truth = model.predict(words, verbose=0)
    lstm = model.get_layer("sentences").layer
    for path, array in activations.items():
        np.testing.assert_allclose(array, truth, rtol=1e-5, atol=1e-6, err_msg=path)
    for step in range(2):
        mask = words[:, step] > 0
        by_hand = np.asarray(lstm(embedding(words[:, step]), mask=mask))
        np.testing.assert_allclose(
            activations["sentences/lstm"][:, step], by_hand, rtol=1e-5, atol=1e-6
        )


class Centred(layers.Layer):  # type: ignore[misc]
    """A layer that subtracts the mean of the batch."""

    def call(self, x: Any) -> Any:
        return x - keras.ops.mean(x, axis=0, keepdims=True)


def make_centred_networks() -> list[tuple[str, Any]]:
    inputs = keras.Input((4,))
    normal = layers.Dense(3, name="dense")
    operation = normal(inputs)
    operation = operation - keras.ops.mean(operation, axis=0, keepdims=True)
    return [
        ("own", keras.Sequential([keras.Input((4,)), normal, Centred(name="end")], name="own")),
        ("operation", keras.Model(inputs, operation, name="operation")),
        (
            "lambda",
            keras.Sequential(
                [
                    keras.Input((4,)),
                    normal,
                    layers.Lambda(lambda x: x - keras.ops.mean(x, 0, keepdims=True), name="end"),
                ],
                name="lambda",
            ),
        ),
        (
            "activation",
            keras.Sequential(
                [keras.Input((4,)), normal, layers.Activation(Centred().call, name="end")],
                name="activation",
            ),
        ),
    ]


@pytest.mark.parametrize("kind", ["own", "operation", "lambda", "activation", "axis"])
def test_layers_that_mix_samples_run_step_by_step(kind: str) -> None:
    if kind == "axis":
        inner = keras.Sequential(
            [
                keras.Input(batch_shape=(2, 4)),
                layers.Dense(3, name="dense"),
                layers.Softmax(axis=0, name="end"),
            ],
            name="axis",
        )
    else:
        inner = dict(make_centred_networks())[kind]
    model = keras.Sequential([keras.Input((5, 4)), layers.TimeDistributed(inner, name="each")])
    x = make_pixels(2, 5, 4)
    activations = Extractor(model, "*")(x)
    np.testing.assert_allclose(
        activations["each"], model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )
    dense = inner.get_layer("dense")
    by_step = np.stack([dense(x[:, step]) for step in range(5)], 1)
    np.testing.assert_allclose(activations[f"each/{kind}/dense"], by_step, rtol=1e-5, atol=1e-6)
    end = np.stack([inner(x[:, step]) for step in range(5)], 1)
    np.testing.assert_allclose(activations[f"each/{kind}"], end, rtol=1e-5, atol=1e-6)
    graph = build_layer_graph(model)
    paths = [info.path for info in graph.infos]
    edges = {(paths[start], paths[end]) for start, end in graph.edges}
    assert (paths[0], f"each/{kind}/dense") in edges
    assert all(any(start == path for start, _ in edges) for path in paths[:-1])


def test_time_distributed_in_training_mode() -> None:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((3, 4)),
            layers.TimeDistributed(layers.BatchNormalization(name="norm"), name="each"),
        ]
    )
    x = make_pixels(6, 3, 4)
    activations = Extractor(model, "*", training=True)(x)
    steps = [
        (x[:, step] - x[:, step].mean(0)) / np.sqrt(x[:, step].var(0) + 1e-3) for step in range(3)
    ]
    for path in ("each/norm", "each"):
        np.testing.assert_allclose(activations[path], np.stack(steps, 1), rtol=1e-3, atol=1e-4)


def test_layers_inside_other_wrappers_are_captured() -> None:
    class Doubling(layers.Wrapper):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return self.layer(x) * 2

    conv, point = layers.Conv2D(4, 3, name="conv"), layers.Conv2D(2, 1, name="point")
    shift = layers.Rescaling(2.0, name="shift")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Pipeline([shift], name="pipeline"),
            layers.SpectralNormalization(conv, name="spectral"),
            Doubling(point, name="doubling"),
        ]
    )
    x = make_pixels(2, 8, 8, 3)
    truth = {"pipeline/shift": 2 * x}
    truth["spectral"] = np.asarray(conv(2 * x))
    truth["doubling/point"] = np.asarray(point(truth["spectral"]))
    truth["doubling"] = 2 * truth["doubling/point"]
    assert_activations_close(Extractor(model)(x), truth)
    everything = Extractor(model, "*")(x)
    np.testing.assert_array_equal(everything["spectral"], everything["spectral/conv"])


def test_both_directions_of_a_bidirectional_layer_are_captured() -> None:
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="lstm"), name="both")
    model = keras.Sequential([keras.Input((5, 2)), both])
    x = make_pixels(2, 5, 2)
    activations = Extractor(model, "both/*_lstm")(x)
    assert_activations_close(
        activations,
        {
            "both/forward_lstm": both.forward_layer(x),
            "both/backward_lstm": both.backward_layer(x),
        },
    )


def test_nested_outputs_have_distinct_paths() -> None:
    class Nest(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x, [[x + 1, x + 2], x + 3], {"a": [x + 4, x + 5]}

    class Model(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.nest = Nest(name="nest")

        def call(self, x: Any) -> Any:
            return self.nest(x)[0]

    x = np.zeros((1, 2, 2, 1), np.float32)
    activations = Extractor(Model())(x)
    assert {path: array.flat[0] for path, array in activations.items()} == {
        "nest": 0,
        "nest[1]": 1,
        "nest[1][0][1]": 2,
        "nest[1][1]": 3,
        "nest[2][a]": 4,
        "nest[2][a][1]": 5,
    }


# --- inputs of models that are not functional


class OwnBuild(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="own_build")
        self.conv = layers.Conv2D(2, 3, name="conv")

    def call(self, x: Any) -> Any:
        return self.conv(x)


class BuildsFromShape(OwnBuild):
    def build(self, input_shape: Any) -> None:
        self.conv.build(input_shape)


class BuildsFromNothing(OwnBuild):
    def build(self) -> None:
        self.conv.build((None, 8, 8, 3))


class BuildsFromAnything(OwnBuild):
    def build(self, *shapes: Any, **named: Any) -> None:
        self.conv.build((None, 8, 8, 3))


class IsBuiltAtOnce(OwnBuild):
    def __init__(self) -> None:
        super().__init__()
        self.conv.build((None, 8, 8, 3))
        self.built = True


class TakesAnyArguments(OwnBuild):
    def call(self, *args: Any) -> Any:
        return self.conv(args[0])


class HasBuildConfig(BuildsFromNothing):
    def get_build_config(self) -> Any:
        return {"input_shape": (None, 8, 8, 3)}


@pytest.mark.parametrize("kind", [BuildsFromShape, HasBuildConfig])
def test_input_of_custom_build_is_known_after_a_call(kind: Any) -> None:
    model = kind()
    model(make_pixels(2, 8, 8, 3))
    assert [(info.path, info.shape) for info in list_layers(model)] == [("conv", (None, 6, 6, 2))]


@pytest.mark.filterwarnings("ignore:.*looks like it has unbuilt state")  # raised by Keras for *args
@pytest.mark.parametrize(
    "kind", [BuildsFromNothing, BuildsFromAnything, IsBuiltAtOnce, TakesAnyArguments]
)
def test_input_unknown_to_keras_is_known_after_extraction(kind: Any) -> None:
    model, x = kind(), make_pixels(2, 8, 8, 3)
    model(x)
    with pytest.raises(
        ModelError, match=r"'own_build' is not known, because Keras stores no shapes"
    ):
        list_layers(model)
    Extractor(model)(x)
    assert [(info.path, info.shape) for info in list_layers(model)] == [("conv", (None, 6, 6, 2))]
    assert actgrid.diagram(model).to_rgb().any()


def test_input_dtypes_are_known_after_extraction() -> None:
    class Tokens(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(4, name="dense")

        def call(self, inputs: Any) -> Any:
            return self.dense(tf.one_hot(inputs["words"], 5)) + inputs["shift"]

    model = Tokens()
    x = {"words": np.array([[0, 1, 4]]), "shift": np.ones((1, 1, 4), np.float32)}
    Extractor(model, "dense")(x)
    assert [(info.path, info.shape) for info in list_layers(model)] == [("dense", (None, 3, 4))]


def test_model_with_several_arguments_raises() -> None:
    class TakesTwo(OwnBuild):
        def build(self, left_shape: Any, right_shape: Any) -> None:
            self.conv.build(left_shape)

        def call(self, left: Any, right: Any) -> Any:  # type: ignore[override]
            return self.conv(left) + self.conv(right)

    model, x = TakesTwo(), make_pixels(1, 8, 8, 3)
    model(x, x)
    with pytest.raises(
        ModelError, match=r"takes several arguments: got left, right.*call\(self, inp"
    ):
        list_layers(model)


def test_shared_calls_are_numbered_in_creation_order() -> None:
    # Keras does not run calls of equal depth in the order of creation.
    shared = layers.Conv2D(3, 3, name="shared")
    inner = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(2, 3, name="conv")], name="inner"
    )
    images = [keras.Input((8, 8, 1)) for _ in range(3)]
    outputs = [*(shared(image) for image in images), *(inner(image) for image in images)]
    model = keras.Model(images, layers.Concatenate(name="all")(outputs))
    x = [make_pixels(1, 8, 8, 1) + number for number in range(3)]
    activations = Extractor(model, ["shared", "inner/conv"])(x)
    for number, image in enumerate(x):
        suffix = f":{number}" if number else ""
        np.testing.assert_allclose(
            activations[f"shared{suffix}"], shared(image), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            activations[f"inner/conv{suffix}"], inner(image), rtol=1e-5, atol=1e-6
        )
