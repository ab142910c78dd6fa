"""Tests that the viewer's resources equal the results of the library."""

from __future__ import annotations

import asyncio
import functools
import io
import math
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import orjson
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from PIL import Image

import actgrid
from actgrid import DatasetStats, Extractor, load_images
from actgrid.attribution.requests import prepare_request
from actgrid.errors import (
    ImageError,
    ModelError,
    NotFoundError,
    OptionError,
    ShapeError,
    TargetError,
)
from actgrid.models.drawing import draw_layer, draw_weight
from actgrid.models.layers import collect_weights
from actgrid.rendering.stats import reshape_stats
from actgrid.statistics.measurements import measure_image_stats
from actgrid.web import heatmaps as heatmaps_module
from actgrid.web import layers as layers_module
from actgrid.web import maximized as maximized_module
from actgrid.web.images import ImageStore
from actgrid.web.layers import round_for_json
from actgrid.web.viewer import Viewer

Array = npt.NDArray[Any]
AsyncTest = Callable[..., Awaitable[None]]


@pytest.fixture(autouse=True)
def _seed_weights() -> None:
    keras.utils.set_random_seed(11)


def run_in_event_loop(test: AsyncTest) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*arguments: Any, **options: Any) -> None:
        asyncio.run(test(*arguments, **options))  # type: ignore[arg-type]

    return run


def make_photos(count: int = 2, height: int = 20, width: int = 26) -> list[Image.Image]:
    random = np.random.default_rng(5)
    return [
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(count)
    ]


class ViewerCase:
    """A viewer of a model and images, and the activations of the first image."""

    def __init__(self, model: Any, sources: Any = None, **options: Any) -> None:
        self.model = model
        self.viewer = Viewer(
            model, ImageStore(make_photos() if sources is None else sources), **options
        )
        self.images = [image.id for image in self.viewer.images.list_images(0, 100)]
        self.image = self.images[0]
        self.model_info = self.viewer.get_model_info()
        self.paths = [node["path"] for node in self.model_info["nodes"]]

    def find_node(self, path: str) -> int:
        return self.paths.index(path)

    @functools.cached_property
    def x(self) -> Array:
        return load_images(self.viewer.images[self.image].source, model=self.model)

    def compute_activation(self, path: str) -> tuple[Any, Array]:
        extractor = Extractor(self.model, path)
        activations = extractor(self.x)
        return extractor.layers[path], activations[path]


def decode_png(png: bytes, mode: str = "L") -> Array:
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", mode)
        return np.asarray(image)


def split_tiles(png: bytes, tiles: dict[str, Any]) -> list[Array]:
    """Return the tiles in a picture from the description of their layout."""
    levels = decode_png(png)
    height, width, columns = tiles["height"], tiles["width"], tiles["columns"]
    rows = math.ceil(tiles["count"] / columns)
    assert levels.shape == (rows * height, columns * width)
    return [
        levels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row, column in (divmod(tile, columns) for tile in range(tiles["count"]))
    ]


def make_cnn() -> Any:
    return keras.Sequential(
        [
            keras.Input((16, 16, 3), name="photo"),
            layers.Conv2D(5, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.SeparableConv2D(20, 3, name="separable"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(6, activation="softmax", name="head"),
        ],
        name="small",
    )


def make_volume_model() -> Any:
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((4, 4, 16, 3), name="depth")(inputs)
    return keras.Model(inputs, layers.Conv3D(6, (2, 3, 3), name="conv3d")(x))


def make_sequence_model() -> Any:
    inputs = keras.Input((16, 16, 3))
    # After the permutation, the steps are no grid of patches.
    x = layers.Reshape((64, 12), name="tokens")(layers.Permute((3, 1, 2))(inputs))
    return keras.Model(inputs, layers.Conv1D(7, 3, name="conv1d")(x))


def make_patch_model() -> Any:
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((16, 6), name="patches")(layers.Conv2D(6, 4, 4)(inputs))
    return keras.Model(inputs, layers.Dense(20, name="tokens")(x))


def make_channels_first_model() -> Any:
    # Convolutions on a CPU do not support channels_first.
    inputs = keras.Input((3, 16, 16))
    x = layers.AveragePooling2D(1, data_format="channels_first", name="pool")(inputs)
    x = layers.BatchNormalization(axis=1, name="norm")(x)
    x = layers.GlobalAveragePooling2D(data_format="channels_first", name="mean")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x))


def make_nested_model() -> Any:
    inner = keras.Sequential(
        [layers.Conv2D(4, 3, name="conv"), layers.ReLU(name="relu")], name="inner"
    )
    return keras.Sequential(
        [keras.Input((16, 16, 3)), inner, layers.Flatten(name="flat"), layers.Dense(3, name="head")]
    )


class SubclassedModel(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(4, 3, name="conv")
        self.mean = layers.GlobalAveragePooling2D(name="mean")
        self.head = layers.Dense(5, activation="softmax", name="head")

    def call(self, x: Any) -> Any:
        return self.head(self.mean(self.conv(x)))


def make_subclassed_model() -> Any:
    model = SubclassedModel()
    model(np.zeros((1, 16, 16, 3), np.float32))
    return model


def make_model_with_two_outputs() -> Any:
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    mean = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(
        inputs, [layers.Dense(3, name="one")(mean), layers.Dense(2, name="two")(mean)]
    )


class InvalidValues(layers.Layer):  # type: ignore[misc]
    """A layer with dead channels, and channels with NaN and infinity."""

    def call(self, x: Any) -> Any:
        alive = x[..., :1]
        nan = tf.fill(tf.shape(alive), np.nan)
        partly_infinite = tf.where(alive > 0.5, alive, np.inf)
        return tf.concat([alive, alive * 0, alive * 0 + 3, nan, partly_infinite], -1)


class EmptyOutput(layers.Layer):  # type: ignore[misc]
    """A layer whose output has no rows."""

    def call(self, x: Any) -> Any:
        return x[:, :0]


def make_model_with_invalid_values() -> Any:
    return keras.Sequential([keras.Input((16, 16, 3)), InvalidValues(name="invalid")])


class CastToName(layers.Layer):  # type: ignore[misc]
    """A layer that casts its input to the dtype of its name."""

    def call(self, x: Any) -> Any:
        return tf.cast(x * 9, self.name)


def make_model_with_dtypes() -> Any:
    inputs = keras.Input((16, 16, 3))
    names = ("bfloat16", "float16", "float64", "int32", "uint8", "bool")
    return keras.Model(inputs, [CastToName(name=name)(inputs) for name in names])


MODELS: dict[str, Callable[[], Any]] = {
    "cnn": make_cnn,
    "volumes": make_volume_model,
    "sequences": make_sequence_model,
    "patches": make_patch_model,
    "channels_first": make_channels_first_model,
    "nested": make_nested_model,
    "subclassed": make_subclassed_model,
    "two_outputs": make_model_with_two_outputs,
    "invalid_values": make_model_with_invalid_values,
    "dtypes": make_model_with_dtypes,
}

RENDERINGS = [("standard", "channel"), ("minmax", "layer"), ("percentile(5, 95)", "channel")]


# --- layers ---


@pytest.mark.parametrize("kind", MODELS)
@run_in_event_loop
async def test_levels_and_statistics_equal_library(kind: str) -> None:
    case = ViewerCase(MODELS[kind]())
    viewer = case.viewer
    checked = 0
    for node, node_info in enumerate(case.model_info["nodes"]):
        if not node_info["is_drawable"]:
            continue
        info, activation = case.compute_activation(node_info["path"])
        layer = await viewer.get_layer(case.image, node)
        orjson.dumps(layer)
        assert layer["path"] == node_info["path"]
        assert activation.dtype.name == node_info["dtype"]
        assert layer["shape"] == list(activation.shape[1:])
        stats = reshape_stats(measure_image_stats(info, activation, batch=1), -1)
        for name in ("mean", "std", "min", "max", "zero_fraction", "nonfinite"):
            assert layer["stats"][name] == round_for_json(getattr(stats, name))
        tiles = layer["tiles"]
        for normalize, scope in RENDERINGS:
            grid = draw_layer(info, activation, normalize=normalize, scope=scope)
            png = await viewer.get_levels(case.image, node, normalize, scope)
            assert tiles["count"] == len(grid.channels)
            assert tiles["step"] == 1
            for tile, levels in enumerate(split_tiles(png, tiles)):
                channel, depth = divmod(tile, tiles["slices"])
                np.testing.assert_array_equal(levels, grid.tile(channel, depth))
            checked += 1
    assert checked >= 3
    await viewer.close()


@run_in_event_loop
async def test_tile_layouts() -> None:
    case = ViewerCase(make_volume_model())
    conv = (await case.viewer.get_layer(case.image, case.find_node("conv3d")))["tiles"]
    # 6 channels with 3 slices of 2 x 14 pixels; rows of two channels would give 84 x 6 pixels.
    assert conv == {
        "count": 18,
        "columns": 3,
        "height": 2,
        "width": 14,
        "slices": 3,
        "joined": False,
        "step": 1,
    }
    await case.viewer.close()
    case = ViewerCase(make_sequence_model())
    tokens = (await case.viewer.get_layer(case.image, case.find_node("tokens")))["tiles"]
    assert (tokens["count"], tokens["columns"], tokens["joined"]) == (12, 12, True)
    assert (tokens["height"], tokens["width"]) == (64, 1)
    await case.viewer.close()
    case = ViewerCase(make_cnn())
    head = (await case.viewer.get_layer(case.image, case.find_node("head")))["tiles"]
    assert (head["count"], head["columns"], head["joined"]) == (6, 3, True)
    assert (head["height"], head["width"]) == (1, 1)
    await case.viewer.close()


@run_in_event_loop
async def test_very_large_pictures_are_subsampled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layers_module, "_MAX_PIXELS", 200)
    case = ViewerCase(make_cnn())
    node = case.find_node("conv")
    tiles = (await case.viewer.get_layer(case.image, node))["tiles"]
    # 2 rows of 3 tiles of 14 x 14 pixels; every third pixel gives tiles of 5 x 5.
    assert (tiles["columns"], tiles["step"], tiles["height"], tiles["width"]) == (3, 3, 5, 5)
    info, activation = case.compute_activation("conv")
    grid = draw_layer(info, activation)
    png = await case.viewer.get_levels(case.image, node, "standard", "channel")
    for channel, levels in enumerate(split_tiles(png, tiles)):
        np.testing.assert_array_equal(levels, grid.tile(channel)[::3, ::3])
    await case.viewer.close()


@run_in_event_loop
async def test_long_pictures_are_subsampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_module, "_MAX_SIDE", 40)
    case = ViewerCase(make_sequence_model())
    tiles = (await case.viewer.get_layer(case.image, case.find_node("tokens")))["tiles"]
    assert (tiles["step"], tiles["height"], tiles["width"]) == (2, 32, 1)
    await case.viewer.close()


@run_in_event_loop
async def test_dead_and_nonfinite_channels_are_reported() -> None:
    case = ViewerCase(make_model_with_invalid_values())
    node = case.find_node("invalid")
    stats = (await case.viewer.get_layer(case.image, node))["stats"]
    assert stats["dead"] == [1, 2]
    assert stats["mean"][1:4] == [0, 3, None]
    assert stats["nonfinite"][3] == 256
    assert 0 < stats["nonfinite"][4] < 256
    (summary,) = filter(None, (await case.viewer.get_layers(case.image))["layers"])
    assert summary["dead"] == 2
    assert summary["nonfinite"] == stats["nonfinite"][3] + stats["nonfinite"][4]
    assert (summary["min"], summary["max"]) == (0, 3)
    await case.viewer.close()


@run_in_event_loop
async def test_single_values_are_not_dead() -> None:
    case = ViewerCase(make_cnn())
    layer = await case.viewer.get_layer(case.image, case.find_node("mean"))
    assert layer["stats"]["dead"] == []
    assert layer["stats"]["std"] == [0.0] * 20
    summaries = (await case.viewer.get_layers(case.image))["layers"]
    assert summaries[case.find_node("mean")]["dead"] is None
    assert summaries[case.find_node("conv")]["dead"] == 0
    await case.viewer.close()


@pytest.mark.parametrize("kind", ["cnn", "volumes", "channels_first", "invalid_values"])
@run_in_event_loop
async def test_histograms_equal_numpy(kind: str) -> None:
    case = ViewerCase(MODELS[kind]())
    for node, node_info in enumerate(case.model_info["nodes"]):
        if not node_info["is_drawable"]:
            continue
        info, activation = case.compute_activation(node_info["path"])
        histograms = await case.viewer.get_histograms(case.image, node)
        orjson.dumps(histograms)
        assert histograms["bins"] == 32
        axis = 1 if info.data_format == "channels_first" else -1
        channels = np.moveaxis(activation[0][None], axis, 0).astype(np.float64)
        rows = [channels] if node_info["kind"] == "dense" else list(channels)
        assert len(rows) == len(histograms["counts"])
        for row, low, high, counts in zip(
            rows, histograms["low"], histograms["high"], histograms["counts"], strict=True
        ):
            values = row[np.isfinite(row)]
            assert sum(counts) == values.size
            if not values.size:
                assert low is None
                assert high is None
            elif values.min() == values.max():
                assert low == high
                assert counts[0] == values.size
            else:
                assert [low, high] == round_for_json(np.array([values.min(), values.max()]))
                assert counts == np.histogram(values, 32)[0].tolist()
    await case.viewer.close()


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("conv", {}),
        ("conv", {"normalize": "minmax", "scope": "layer", "columns": 2, "padding": 3}),
        ("separable", {"order": "std", "zoom": 2, "background": 99, "cmap": "gray"}),
        ("head", {"cmap": "magma", "token_grid": (2, 2)}),
    ],
)
@run_in_event_loop
async def test_rendered_layers_equal_render_model(path: str, options: dict[str, Any]) -> None:
    case = ViewerCase(make_cnn())
    expected = actgrid.render_model(case.model, case.x, path, **options)[path].to_png()
    assert await case.viewer.render_layer(case.image, case.find_node(path), options) == expected
    await case.viewer.close()


@run_in_event_loop
async def test_token_grid_equals_render_model() -> None:
    case = ViewerCase(make_sequence_model())
    options: Any = {"token_grid": (8, 8), "normalize": "minmax"}
    expected = actgrid.render_model(case.model, case.x, "tokens", **options)["tokens"].to_png()
    assert await case.viewer.render_layer(case.image, case.find_node("tokens"), options) == expected
    await case.viewer.close()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"normalize": "equalize"}, OptionError),
        ({"scope": "image"}, OptionError),
        ({"cmap": "no such"}, OptionError),
        ({"zoom": 0}, OptionError),
        ({"zoom": 100_000}, OptionError),
        ({"padding": 10**9}, OptionError),
        ({"columns": 1, "zoom": 2000}, OptionError),
        ({"order": "size"}, OptionError),
    ],
)
@run_in_event_loop
async def test_invalid_rendering_options_are_rejected(
    options: dict[str, Any], error: type[Exception]
) -> None:
    case = ViewerCase(make_cnn())
    with pytest.raises(error):
        await case.viewer.render_layer(case.image, case.find_node("conv"), options)
    await case.viewer.close()


@pytest.mark.parametrize(("normalize", "scope"), [("range", "channel"), ("minmax", "image")])
@run_in_event_loop
async def test_invalid_normalization_or_scope_is_rejected(normalize: str, scope: str) -> None:
    case = ViewerCase(make_cnn())
    with pytest.raises(OptionError):
        await case.viewer.get_levels(case.image, case.find_node("conv"), normalize, scope)
    await case.viewer.close()


# --- summaries and thumbnails of all layers ---


@pytest.mark.parametrize("kind", MODELS)
@run_in_event_loop
async def test_summaries_and_thumbnails_equal_library(kind: str) -> None:
    case = ViewerCase(MODELS[kind]())
    overview = await case.viewer.get_layers(case.image)
    orjson.dumps(overview)
    assert (overview["side"], overview["columns"]) == (96, 16)
    sprite = decode_png(await case.viewer.get_layers_sprite(case.image))
    count = len(case.paths)
    assert sprite.shape == (96, 96 * count)
    assert len(overview["layers"]) == count
    for node, summary in enumerate(overview["layers"]):
        cell = sprite[:, 96 * node :][:, :96]
        if not case.model_info["nodes"][node]["is_drawable"]:
            assert summary is None
            assert not cell.any()
            continue
        info, activation = case.compute_activation(case.paths[node])
        finite = activation[np.isfinite(activation)].astype(np.float64)
        values = [summary[name] for name in ("min", "max", "mean")]
        np.testing.assert_allclose(values, [finite.min(), finite.max(), finite.mean()], rtol=1e-5)
        stats = reshape_stats(measure_image_stats(info, activation, batch=1), -1)
        if info.kind in ("dense", "sequence") and info.token_grid is None:
            grid = draw_layer(info, activation, normalize="minmax")
        else:
            std = np.where(np.isnan(stats.std), -1, stats.std)
            order = np.argsort(-std, kind="stable")[:16]
            columns = math.ceil(math.sqrt(len(order)))
            options: dict[str, Any] = {"normalize": "minmax", "order": order.tolist()}
            if info.kind == "volume":
                activation = activation[:, activation.shape[1] // 2]
            elif info.kind == "sequence":
                activation = activation.reshape(1, 4, 4, -1)
            options |= {"data_format": info.data_format, "columns": columns, "padding": 0}
            grid = actgrid.render(activation, **options)
        small = Image.fromarray(grid.levels).resize((96, 96), Image.Resampling.BOX)
        np.testing.assert_array_equal(cell, np.asarray(small))
    await case.viewer.close()


@run_in_event_loop
async def test_thumbnails_of_many_layers_are_laid_out_in_rows() -> None:
    steps = [layers.ReLU(name=f"relu{number}") for number in range(20)]
    case = ViewerCase(keras.Sequential([keras.Input((16, 16, 3)), *steps]))
    sprite = decode_png(await case.viewer.get_layers_sprite(case.image))
    assert sprite.shape == (2 * 96, 16 * 96)
    first, last = sprite[:96, 96:192], sprite[96:, 4 * 96 : 5 * 96]  # nodes 1 and 20
    assert first.any()
    np.testing.assert_array_equal(first, last)
    assert not sprite[96:, 5 * 96 :].any()
    await case.viewer.close()


@run_in_event_loop
async def test_layer_with_empty_output_has_no_summary() -> None:
    inputs = keras.Input((16, 16, 3))
    x = layers.ReLU(name="relu")(inputs)
    model = keras.Model(inputs, [x, EmptyOutput(name="empty")(x)])
    case = ViewerCase(model)
    summaries = (await case.viewer.get_layers(case.image))["layers"]
    assert summaries[case.find_node("relu")] is not None
    assert summaries[case.find_node("empty")] is None
    with pytest.raises(ShapeError, match="empty"):
        await case.viewer.get_levels(case.image, case.find_node("empty"), "minmax", "channel")
    await case.viewer.close()


@run_in_event_loop
async def test_model_runs_once_for_an_image() -> None:
    case = ViewerCase(make_cnn())
    viewer = case.viewer
    runs: list[int] = []
    run = viewer._engine._extractor._function.run

    def record_run(x: Any, transform: Any, *arguments: Any) -> Any:
        runs.append(len(x))
        return run(x, transform, *arguments)

    viewer._engine._extractor._function.run = record_run  # type: ignore[method-assign]
    await asyncio.gather(
        viewer.get_layers(case.image),
        viewer.get_layers_sprite(case.image),
        viewer.get_classes(case.image),
    )
    for node in range(1, len(case.paths)):
        await viewer.get_layer(case.image, node)
        await viewer.get_levels(case.image, node, "standard", "channel")
        await viewer.get_histograms(case.image, node)
    assert runs == [1]
    await viewer.close()


# --- images and classes ---


@run_in_event_loop
async def test_picture_and_thumbnail() -> None:
    case = ViewerCase(make_cnn())
    picture = decode_png(await case.viewer.get_picture(case.image), "RGB")
    assert picture.shape == (16, 16, 3)
    np.testing.assert_allclose(picture, case.x[0] * 255, atol=0.5001)
    with Image.open(io.BytesIO(await case.viewer.get_thumbnail(case.image))) as small:
        assert (small.format, small.size) == ("JPEG", (26, 20))
    await case.viewer.close()


@run_in_event_loop
async def test_classes_are_sorted_by_score() -> None:
    names = [f"class {number}" for number in range(6)]
    case = ViewerCase(make_cnn(), labels=names)
    scores = np.asarray(case.model(case.x))[0]
    classes = await case.viewer.get_classes(case.image)
    assert classes["kind"] == "probability"
    assert [entry["index"] for entry in classes["top"]] == np.argsort(-scores)[:5].tolist()
    assert all(entry["name"] == names[entry["index"]] for entry in classes["top"])
    np.testing.assert_allclose(
        [entry["value"] for entry in classes["top"]], np.sort(scores)[::-1][:5], rtol=1e-5
    )
    assert case.model_info["classes"] == {
        "node": case.find_node("head"),
        "count": 6,
        "labels": names,
    }
    await case.viewer.close()


@run_in_event_loop
async def test_classes_of_linear_output_have_scores() -> None:
    case = ViewerCase(make_nested_model())
    classes = await case.viewer.get_classes(case.image)
    assert classes["kind"] == "score"
    assert len(classes["top"]) == 3
    assert all(entry["name"] is None for entry in classes["top"])
    await case.viewer.close()


@pytest.mark.parametrize(
    ("activation", "labels", "count"),
    [
        ("sigmoid", None, 2),
        ("sigmoid", ["dog", "cat"], 2),
        (None, ["dog", "cat"], 2),
        (None, None, 1),
        (None, ["price"], 1),
    ],
)
@run_in_event_loop
async def test_classes_of_single_output_value_match_heatmap(
    activation: str | None, labels: list[str] | None, count: int
) -> None:
    keras.utils.set_random_seed(2)
    head = layers.Dense(1, activation, name="head")
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(), head])
    case = ViewerCase(model, labels=labels)
    (value,) = np.asarray(case.model(case.x))[0].tolist()
    classes = await case.viewer.get_classes(case.image)
    assert case.model_info["classes"]["count"] == count
    other = 1 - value if activation == "sigmoid" else -value
    expected = {1: value, 0: other} if count == 2 else {0: value}
    values = {entry["index"]: entry["value"] for entry in classes["top"]}
    assert values == pytest.approx(expected, rel=1e-4)
    heatmap = await case.viewer.get_heatmap(case.image, "saliency", None)
    assert heatmap["target"] == classes["top"][0]["index"]
    assert heatmap["label"] == classes["top"][0]["name"]
    assert heatmap["is_logit"] == (count == 2)
    await case.viewer.close()


@pytest.mark.parametrize("kind", ["two_outputs", "volumes", "invalid_values"])
@run_in_event_loop
async def test_model_without_classes_has_no_heatmaps(kind: str) -> None:
    case = ViewerCase(MODELS[kind]())
    assert case.model_info["classes"] is None
    assert case.model_info["methods"] == []
    with pytest.raises(NotFoundError, match="no classes"):
        await case.viewer.get_classes(case.image)
    with pytest.raises(NotFoundError, match="no classes"):
        await case.viewer.get_heatmap(case.image, "gradcam", None)
    assert "relevance" not in case.model_info["controls"]["layer"]["order"]["choices"]
    with pytest.raises(NotFoundError, match="no classes"):
        await case.viewer.get_relevance(case.image, 1, None)
    await case.viewer.close()


def test_class_node_is_the_final_operation() -> None:
    inputs = keras.Input((16, 16, 3))
    x = layers.Dense(4, name="dense")(layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.ops.concatenate([x, x], axis=-1))
    case = ViewerCase(model)
    # The final operation has eight values; the layer before it has four.
    node = case.find_node(model.operations[-1].name)
    assert case.model_info["classes"] == {"node": node, "count": 8, "labels": None}


# --- the model ---


def test_model_info() -> None:
    case = ViewerCase(make_cnn())
    model_info = case.model_info
    assert orjson.loads(orjson.dumps(model_info)) == model_info
    assert (model_info["name"], model_info["is_live"]) == ("small", True)
    assert model_info["version"] == actgrid.__version__
    assert model_info["parameters"] == case.model.count_params()
    assert case.paths == [
        *("photo", "conv", "norm", "relu", "depthwise", "separable", "mean", "head")
    ]
    assert model_info["nodes"][0] == {
        "path": "photo",
        "name": "photo",
        "type": "Input",
        "shape": [None, 16, 16, 3],
        "dtype": "float32",
        "kind": "image",
        "channels": 3,
        "parameters": 0,
        "is_drawable": False,
        "kernel": False,
        "has_statistics": False,
        "attention": None,
        "group": None,
    }
    assert model_info["nodes"][1] | {"group": 0} == {
        "path": "conv",
        "name": "conv",
        "type": "Conv2D",
        "shape": [None, 14, 14, 5],
        "dtype": "float32",
        "kind": "image",
        "channels": 5,
        "parameters": 140,
        "is_drawable": True,
        "kernel": True,
        "has_statistics": False,
        "attention": None,
        "group": 0,
    }
    assert model_info["groups"][model_info["nodes"][1]["group"]]["kind"] == "unit"
    kernels = [node["name"] for node in model_info["nodes"] if node["kernel"]]
    assert kernels == ["conv", "depthwise", "separable", "head"]
    assert model_info["edges"] == [[node, node + 1] for node in range(7)]
    assert (model_info["inputs"], model_info["outputs"]) == ([0], [7])
    choices = {
        name: control["choices"] for name, control in model_info["controls"]["layer"].items()
    }
    assert choices["scope"] == ["channel", "layer"]
    assert choices["order"] == ["index", "mean", "std", "max", "zeros", "relevance"]
    gradcam = next(method for method in model_info["methods"] if method["name"] == "gradcam")
    assert gradcam["layer"] is True
    assert gradcam["source"].startswith("Selvaraju")
    assert model_info["dataset"] is None
    suffixes = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"]
    assert model_info["uploads"] == {
        "bytes": 32 << 20,
        "pixels": 50_000_000,
        "suffixes": suffixes,
    }
    assert len(model_info["colormaps"]) == 11
    assert all(len(colours) == 1024 for colours in model_info["colormaps"].values())


def test_nested_layers_are_named_by_the_last_part_of_their_path() -> None:
    model_info = ViewerCase(make_nested_model()).model_info
    assert {(node["path"], node["name"]) for node in model_info["nodes"]} >= {
        ("inner/conv", "conv"),
        ("inner/relu", "relu"),
    }
    assert any(group["kind"] == "model" for group in model_info["groups"])


def test_model_info_has_no_upload_limits_without_uploads() -> None:
    store = ImageStore(make_photos(), max_uploads=0)
    assert Viewer(make_cnn(), store).get_model_info()["uploads"] is None


def test_lime_is_offered_only_if_its_packages_are_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def list_methods() -> list[str]:
        model_info = ViewerCase(make_nested_model()).model_info
        return [method["name"] for method in model_info["methods"]]

    assert "lime" in list_methods()
    monkeypatch.setattr("actgrid.attribution.packages.find_spec", lambda name: None)
    assert "lime" not in list_methods()
    assert "gradcam" in list_methods()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"labels": ["one"]}, TargetError),
        ({"cache_bytes": 0}, OptionError),
        ({"fit": "squeeze"}, OptionError),
        ({"size": 99}, ShapeError),
    ],
)
def test_invalid_viewer_options_are_rejected(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ViewerCase(make_cnn(), **options)


@pytest.mark.parametrize("path", ["conv", "depthwise", "separable", "head"])
@run_in_event_loop
async def test_kernel_levels_equal_draw_weight(path: str) -> None:
    case = ViewerCase(make_cnn())
    node = case.find_node(path)
    kernel = await case.viewer.get_kernel(node)
    orjson.dumps(kernel)
    weights = {weight.path: weight for weight in collect_weights(case.model)}
    weight = weights[kernel["path"]]
    values = weight.variable.numpy()
    assert kernel["shape"] == list(values.shape)
    assert [kernel["min"], kernel["max"]] == round_for_json(np.array([values.min(), values.max()]))
    grid = draw_weight(weight, values, scope="layer")
    assert kernel["cmap"] == grid.cmap == "RdBu_r"
    tiles = kernel["tiles"]
    assert tiles["count"] // tiles["slices"] == case.model_info["nodes"][node]["channels"]
    png = await case.viewer.get_kernel_levels(node)
    for tile, levels in enumerate(split_tiles(png, tiles)):
        np.testing.assert_array_equal(levels, grid.tile(*divmod(tile, tiles["slices"])))
    await case.viewer.close()


@run_in_event_loop
async def test_calls_of_a_layer_share_its_kernel() -> None:
    inputs = keras.Input((16, 16, 3))
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    case = ViewerCase(keras.Model(inputs, conv(conv(inputs))))
    first, second = case.find_node("conv"), case.find_node("conv:1")
    assert await case.viewer.get_kernel(first) == await case.viewer.get_kernel(second)
    await case.viewer.close()


# --- heatmaps ---


@pytest.mark.parametrize(
    ("method", "target", "path"),
    [
        ("gradcam", None, None),
        ("gradcam", 2, "conv"),
        ("gradient_x_input", 1, None),
        ("occlusion", None, None),
    ],
)
@run_in_event_loop
async def test_heatmaps_equal_explain(
    method: str, target: int | None, path: str | None, assert_levels_agree: Any
) -> None:
    case = ViewerCase(make_cnn())
    layer = None if path is None else case.find_node(path)
    source = case.viewer.images[case.image].source
    # The page draws the heatmap over this picture.
    picture = decode_png(await case.viewer.get_picture(case.image), "RGB")
    expected = actgrid.explain(case.model, [source], method, target, path, pixels=picture)
    heatmap = await case.viewer.get_heatmap(case.image, method, target, layer)
    assert orjson.loads(orjson.dumps(heatmap)) == heatmap
    assert expected.target is not None
    assert expected.score is not None
    assert heatmap == {
        "kind": "image",
        "slices": None,
        "tokens": None,
        "method": method,
        "target": int(expected.target[0]),
        "label": None,
        "score": round_for_json(expected.score)[0],
        "is_logit": True,
        "signed": method == "gradient_x_input" or method == "occlusion",
        "layer": expected.layer,
        "cmap": "viridis" if method == "gradcam" else "RdBu_r",
        "zero_reason": None,
    }
    levels = decode_png(await case.viewer.get_heatmap_levels(case.image, method, target, layer))
    assert_levels_agree(levels, expected.levels()[0])
    assert levels.shape == (16, 16)
    await case.viewer.close()


@pytest.mark.parametrize(
    ("method", "target", "layer", "error"),
    [
        ("gradcan", None, None, OptionError),
        ("gradcam", 99, None, TargetError),
        ("gradcam", None, 99, NotFoundError),
        ("saliency", None, 1, OptionError),
        ("gradcam", None, 7, ShapeError),
        ("guided_backprop", None, None, ModelError),
    ],
)
@run_in_event_loop
async def test_invalid_heatmap_parameters_are_rejected(
    method: str, target: int | None, layer: int | None, error: type[Exception]
) -> None:
    case = ViewerCase(make_nested_model() if method == "guided_backprop" else make_cnn())
    if method == "guided_backprop":
        case = ViewerCase(make_subclassed_model())
    with pytest.raises(error):
        await case.viewer.get_heatmap(case.image, method, target, layer)
    await case.viewer.close()


# --- dataset statistics and maximized images ---


@run_in_event_loop
async def test_dataset_statistics_are_matched_by_layer_path_and_image_name() -> None:
    model = make_cnn()
    extractor = Extractor(model, ["conv", "head"])
    stats = DatasetStats(top=2)
    store = ImageStore(make_photos(3))
    names = ["image", "far/elsewhere.png", "image (3)"]
    sources = [image.source for image in store.list_images(0, 3)]
    x = load_images(sources, model=model)
    stats.update(extractor(x), extractor.layers, names)
    viewer = Viewer(model, store, statistics=stats)
    model_info = viewer.get_model_info()
    assert model_info["dataset"] == {"images": 3}
    measured = [node["path"] for node in model_info["nodes"] if node["has_statistics"]]
    assert measured == list(extractor.layers)
    dataset = await viewer.get_dataset_stats(1)
    assert await viewer.get_dataset_stats(1) is dataset
    orjson.dumps(dataset)
    layer = stats.layers["conv"]
    assert dataset["images"] == 3
    assert dataset["mean"] == round_for_json(layer.mean)
    assert dataset["activating_images"] == layer.activating_images.tolist()
    assert dataset["dead"] == []
    ids = {"image": store.list_images(0, 1)[0].id, "image (3)": store.list_images(2, 1)[0].id}
    for channel, top in enumerate(dataset["top"]):
        expected = layer.get_top_images(channel)
        # The folders of images that the viewer does not have are not revealed.
        assert [entry["name"] for entry in top] == [
            image.name.removeprefix("far/") for image in expected
        ]
        assert [entry["image"] for entry in top] == [ids.get(image.name) for image in expected]
        assert [entry["maximum"] for entry in top] == round_for_json(
            np.array([image.maximum for image in expected])
        )
    with pytest.raises(NotFoundError, match="norm has no dataset statistics"):
        await viewer.get_dataset_stats(2)
    await viewer.close()


@run_in_event_loop
async def test_statistics_of_another_model_are_ignored() -> None:
    other = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(7, 3, name="conv")])
    extractor = Extractor(other, "conv")
    stats = DatasetStats()
    stats.update(extractor(np.zeros((1, 16, 16, 3), np.float32)), extractor.layers)
    viewer = Viewer(make_cnn(), ImageStore(make_photos()), statistics=stats)
    with pytest.raises(NotFoundError, match="has no dataset statistics"):
        await viewer.get_dataset_stats(1)  # the layer of the viewer has 5 channels
    await viewer.close()


@run_in_event_loop
async def test_maximized_image_equals_maximize() -> None:
    case = ViewerCase(make_cnn())
    png = await case.viewer.get_maximized_image(case.find_node("conv"), 2, steps=3, seed=4)
    expected = actgrid.maximize(case.model, "conv", 2, steps=3, seed=4)
    assert png == expected.to_png()
    assert decode_png(png, "RGB").shape == (16, 16, 3)
    for layer, channel, steps, error in [
        (0, 0, 3, NotFoundError),
        (99, 0, 3, NotFoundError),
        (1, 5, 3, NotFoundError),
        (1, 0, 0, OptionError),
        (1, 0, 10**9, OptionError),
    ]:
        with pytest.raises(error):
            await case.viewer.get_maximized_image(layer, channel, steps, 0)
    await case.viewer.close()


# --- cancellation, order and caching ---


async def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the condition was never met")


@run_in_event_loop
async def test_maximization_stops_when_all_requests_are_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[int] = []
    ended = [threading.Event(), threading.Event()]

    def maximize_forever(
        model: Any, path: str, channel: int, progress: Callable[[], None], **options: Any
    ) -> Any:
        try:
            while True:
                steps.append(channel)
                progress()
                threading.Event().wait(0.001)
        finally:
            ended[channel].set()

    monkeypatch.setattr(maximized_module, "maximize", maximize_forever)
    case = ViewerCase(make_cnn())
    requests = [
        asyncio.ensure_future(case.viewer.get_maximized_image(1, 0, 64, 0)) for _ in range(2)
    ]
    other = asyncio.ensure_future(case.viewer.get_maximized_image(1, 1, 64, 0))
    await wait_until(lambda: {0, 1} <= set(steps))  # both channels run in turns
    requests[0].cancel()
    other.cancel()
    await wait_until(ended[1].is_set)
    assert not ended[0].is_set()
    requests[1].cancel()
    await wait_until(ended[0].is_set)
    count = len(steps)
    await asyncio.sleep(0.02)
    assert len(steps) == count
    await case.viewer.close()


@run_in_event_loop
async def test_heatmap_stops_when_its_request_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def prepare_and_record(model: Any, x: Any, target: Any, labels: Any, **options: Any) -> Any:
        progress = options.pop("progress")

        def record_progress(done: int, total: int) -> None:
            runs.append(1)
            progress(done, total)

        return prepare_request(model, x, target, labels, progress=record_progress, **options)

    monkeypatch.setattr(heatmaps_module, "prepare_request", prepare_and_record)
    case = ViewerCase(make_cnn(), batch_size=1)
    request = asyncio.ensure_future(case.viewer.get_heatmap(case.image, "rise", None))
    await wait_until(lambda: len(runs) > 3)
    request.cancel()
    # The next heatmap starts long before RISE has evaluated its 2000 masks.
    assert (await case.viewer.get_heatmap(case.image, "saliency", None))["method"] == "saliency"
    assert len(runs) < 1000
    await case.viewer.close()


@run_in_event_loop
async def test_activations_do_not_wait_for_long_computations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_finish = threading.Event()

    def wait_and_fail(*arguments: Any, **options: Any) -> Any:
        may_finish.wait(20)
        raise OptionError("failed")

    monkeypatch.setattr(maximized_module, "maximize", wait_and_fail)
    case = ViewerCase(make_cnn())
    requests = [
        asyncio.ensure_future(case.viewer.get_maximized_image(1, channel, 64, 0))
        for channel in range(5)
    ]
    await asyncio.sleep(0)
    await case.viewer.get_levels(case.image, 1, "standard", "channel")
    await case.viewer.get_layers(case.image)
    assert not any(request.done() for request in requests)
    may_finish.set()
    errors = await asyncio.gather(*requests, return_exceptions=True)
    assert [str(error) for error in errors] == ["failed"] * 5
    await case.viewer.close()


@run_in_event_loop
async def test_equal_requests_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def draw_and_record(info: Any, *arguments: Any, **options: Any) -> Any:
        drawn.append(info.path)
        return draw_layer(info, *arguments, **options)

    monkeypatch.setattr(layers_module, "draw_layer", draw_and_record)
    case = ViewerCase(make_cnn())
    normalizations = ["percentile", "percentile(1,99)", "percentile(1, 99)"]
    pictures = await asyncio.gather(
        *(
            case.viewer.get_levels(case.image, 1, normalize, "channel")
            for normalize in normalizations
        )
    )
    pictures.append(await case.viewer.get_levels(case.image, 1, "percentile", "channel"))
    assert len(set(pictures)) == 1
    assert drawn == ["conv"]
    await case.viewer.close()


@run_in_event_loop
async def test_cancelled_request_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    may_finish = threading.Event()

    def wait_and_draw(info: Any, *arguments: Any, **options: Any) -> Any:
        drawn.append(info.path)
        may_finish.wait(20)
        return draw_layer(info, *arguments, **options)

    case = ViewerCase(make_cnn())
    await case.viewer.get_layers(case.image)
    monkeypatch.setattr(layers_module, "draw_layer", wait_and_draw)
    threads = case.viewer._threads._max_workers
    running = [
        asyncio.ensure_future(
            case.viewer.get_levels(case.image, 1, f"range(0, {n + 1})", "channel")
        )
        for n in range(threads)
    ]
    await wait_until(lambda: len(drawn) == threads)
    waiting = asyncio.ensure_future(case.viewer.get_levels(case.image, 2, "minmax", "channel"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.sleep(0.01)
    may_finish.set()
    await asyncio.gather(*running)
    await case.viewer.get_levels(case.image, 3, "minmax", "channel")
    assert "norm" not in drawn
    await case.viewer.close()


@run_in_event_loop
async def test_cache_size_is_limited() -> None:
    case = ViewerCase(make_cnn(), make_photos(6), cache_bytes=60_000)
    cache = case.viewer._cache
    for image in case.images:
        await case.viewer.get_layers(image)
        for node in range(1, 8):
            await case.viewer.get_levels(image, node, "standard", "channel")
            assert cache.size <= 60_000
    assert len(cache) > 3
    await case.viewer.close()


# --- missing resources ---


@run_in_event_loop
async def test_unknown_images_and_layers_raise() -> None:
    case = ViewerCase(make_cnn())
    viewer = case.viewer
    for image in ("0" * 16, "../x"):
        for request in (
            viewer.get_thumbnail(image),
            viewer.get_picture(image),
            viewer.get_classes(image),
            viewer.get_layers(image),
            viewer.get_layers_sprite(image),
            viewer.get_layer(image, 1),
            viewer.get_levels(image, 1, "minmax", "channel"),
            viewer.get_heatmap(image, "gradcam", None),
        ):
            with pytest.raises(NotFoundError, match="there is no image"):
                await request
    for layer in (-1, 8, 10**9):
        with pytest.raises(NotFoundError, match="there is no layer"):
            await viewer.get_layer(case.image, layer)
        with pytest.raises(NotFoundError, match="there is no layer"):
            await viewer.get_kernel(layer)
        with pytest.raises(NotFoundError, match="there is no layer"):
            await viewer.get_dataset_stats(layer)
    with pytest.raises(NotFoundError, match="photo has no activation that can be drawn"):
        await viewer.get_layer(case.image, 0)
    with pytest.raises(NotFoundError, match="relu has no kernel"):
        await viewer.get_kernel(3)
    await viewer.close()


@run_in_event_loop
async def test_removed_upload_is_not_served_from_the_cache() -> None:
    buffer = io.BytesIO()
    make_photos()[0].save(buffer, "PNG")
    case = ViewerCase(make_cnn())
    upload = case.viewer.images.add(buffer.getvalue(), "cat").id
    assert (await case.viewer.get_layer(upload, 1))["path"] == "conv"
    case.viewer.images._uploads.clear()
    with pytest.raises(NotFoundError):
        await case.viewer.get_layer(upload, 1)
    await case.viewer.close()


@run_in_event_loop
async def test_broken_image_file_raises(tmp_path: Any) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    make_photos()[0].save(tmp_path / "good.png")
    case = ViewerCase(make_cnn(), tmp_path)
    broken, good = case.images
    for request in (case.viewer.get_layers(broken), case.viewer.get_thumbnail(broken)):
        with pytest.raises(ImageError, match=r"^broken\.png is not"):
            await request
    assert (await case.viewer.get_layer(good, 1))["path"] == "conv"
    await case.viewer.close()


# --- numbers ---


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20))
def test_numbers_are_rounded_to_six_digits(values: list[float]) -> None:
    rounded = round_for_json(np.array(values))
    assert rounded == [float(f"{x:.6g}") if math.isfinite(x) else None for x in values]


def test_integers_are_not_rounded_and_arrays_become_nested_lists() -> None:
    assert round_for_json(np.array([123_456_789, 2])) == [123_456_789, 2]
    assert round_for_json(np.array([[0.1, np.inf], [-0.25, 3]])) == [[0.1, None], [-0.25, 3.0]]


# --- the embedded model ---


@run_in_event_loop
async def test_viewer_of_the_embedded_model(assert_levels_agree: Any) -> None:
    photo = actgrid.demo.photo()
    viewer = Viewer("demo", ImageStore(photo))
    (image,) = viewer.images.list_images(0, 1)
    await viewer.start()
    top = (await viewer.get_classes(image.id))["top"][0]
    assert (top["index"], top["name"]) == (285, "Egyptian cat")
    summaries = (await viewer.get_layers(image.id))["layers"]
    assert sum(summary is not None for summary in summaries) == 143
    paths = [node["path"] for node in viewer.get_model_info()["nodes"]]
    node = paths.index("block1_expand_conv")
    tiles = (await viewer.get_layer(image.id, node))["tiles"]
    png = await viewer.get_levels(image.id, node, "minmax", "layer")
    levels = split_tiles(png, tiles)
    grid = actgrid.render_model(
        "demo", photo, "block1_expand_conv", normalize="minmax", scope="layer"
    )["block1_expand_conv"]
    for channel in (0, 17, 95):
        assert_levels_agree(levels[channel], grid.tile(channel))
    await viewer.close()
