"""What there is to see: the same that the library draws and says."""

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
from actgrid.web.layers import plain_numbers
from actgrid.web.viewer import Viewer

Array = npt.NDArray[Any]
Test = Callable[..., Awaitable[None]]


@pytest.fixture(autouse=True)
def _same_weights_each_time() -> None:
    keras.utils.set_random_seed(11)


def in_a_loop(test: Test) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*arguments: Any, **options: Any) -> None:
        asyncio.run(test(*arguments, **options))  # type: ignore[arg-type]

    return run


def photos(count: int = 2, height: int = 20, width: int = 26) -> list[Image.Image]:
    random = np.random.default_rng(5)
    return [
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(count)
    ]


class Seen:
    """A viewer of a model and some images, and what the library says of the first of them."""

    def __init__(self, model: Any, sources: Any = None, **options: Any) -> None:
        self.model = model
        self.viewer = Viewer(model, ImageStore(photos() if sources is None else sources), **options)
        self.images = [image.id for image in self.viewer.images.listed(0, 100)]
        self.image = self.images[0]
        self.about = self.viewer.about()
        self.paths = [node["path"] for node in self.about["nodes"]]

    def node(self, path: str) -> int:
        return self.paths.index(path)

    @functools.cached_property
    def x(self) -> Array:
        return load_images(self.viewer.images[self.image].source, model=self.model)

    def activation(self, path: str) -> tuple[Any, Array]:
        extractor = Extractor(self.model, path)
        found = extractor(self.x)
        return extractor.layers[path], found[path]


def decoded(png: bytes, mode: str = "L") -> Array:
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", mode)
        return np.asarray(image)


def tiles_of(png: bytes, tiles: dict[str, Any]) -> list[Array]:
    """The tiles in a picture, by what is said of how they lie."""
    levels = decoded(png)
    height, width, columns = tiles["height"], tiles["width"], tiles["columns"]
    rows = math.ceil(tiles["count"] / columns)
    assert levels.shape == (rows * height, columns * width)
    return [
        levels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row, column in (divmod(tile, columns) for tile in range(tiles["count"]))
    ]


def cnn() -> Any:
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


def volumes() -> Any:
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((4, 4, 16, 3), name="depth")(inputs)
    return keras.Model(inputs, layers.Conv3D(6, (2, 3, 3), name="conv3d")(x))


def sequences() -> Any:
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((64, 12), name="tokens")(inputs)
    return keras.Model(inputs, layers.Conv1D(7, 3, name="conv1d")(x))


def channels_first() -> Any:
    # Of the convolutions on a CPU none takes them.
    inputs = keras.Input((3, 16, 16))
    x = layers.AveragePooling2D(1, data_format="channels_first", name="pool")(inputs)
    x = layers.BatchNormalization(axis=1, name="norm")(x)
    x = layers.GlobalAveragePooling2D(data_format="channels_first", name="mean")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x))


def nested() -> Any:
    inner = keras.Sequential(
        [layers.Conv2D(4, 3, name="conv"), layers.ReLU(name="relu")], name="inner"
    )
    return keras.Sequential(
        [keras.Input((16, 16, 3)), inner, layers.Flatten(name="flat"), layers.Dense(3, name="head")]
    )


class Own(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(4, 3, name="conv")
        self.mean = layers.GlobalAveragePooling2D(name="mean")
        self.head = layers.Dense(5, activation="softmax", name="head")

    def call(self, x: Any) -> Any:
        return self.head(self.mean(self.conv(x)))


def subclassed() -> Any:
    model = Own()
    model(np.zeros((1, 16, 16, 3), np.float32))
    return model


def several_outputs() -> Any:
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    mean = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(
        inputs, [layers.Dense(3, name="one")(mean), layers.Dense(2, name="two")(mean)]
    )


class Troubled(layers.Layer):  # type: ignore[misc]
    """Channels that are dead, or not finite, wholly and in part."""

    def call(self, x: Any) -> Any:
        alive = x[..., :1]
        nothing = tf.fill(tf.shape(alive), np.nan)
        some = tf.where(alive > 0.5, alive, np.inf)
        return tf.concat([alive, alive * 0, alive * 0 + 3, nothing, some], -1)


class Nothing(layers.Layer):  # type: ignore[misc]
    """Gives pictures without a row."""

    def call(self, x: Any) -> Any:
        return x[:, :0]


def troubled() -> Any:
    return keras.Sequential([keras.Input((16, 16, 3)), Troubled(name="trouble")])


class Typed(layers.Layer):  # type: ignore[misc]
    """Gives values of another type."""

    def call(self, x: Any) -> Any:
        return tf.cast(x * 9, self.name)


def types() -> Any:
    inputs = keras.Input((16, 16, 3))
    names = ("bfloat16", "float16", "float64", "int32", "uint8", "bool")
    return keras.Model(inputs, [Typed(name=name)(inputs) for name in names])


KINDS: dict[str, Callable[[], Any]] = {
    "cnn": cnn,
    "volumes": volumes,
    "sequences": sequences,
    "channels_first": channels_first,
    "nested": nested,
    "subclassed": subclassed,
    "several_outputs": several_outputs,
    "troubled": troubled,
    "types": types,
}

LOOKS = [("standard", "channel"), ("minmax", "layer"), ("percentile(5, 95)", "channel")]


# --- layers ---


@pytest.mark.parametrize("kind", KINDS)
@in_a_loop
async def test_levels_and_statistics_are_those_of_the_library(kind: str) -> None:
    seen = Seen(KINDS[kind]())
    viewer = seen.viewer
    checked = 0
    for node, about in enumerate(seen.about["nodes"]):
        if not about["drawn"]:
            continue
        info, activation = seen.activation(about["path"])
        layer = await viewer.layer(seen.image, node)
        orjson.dumps(layer)
        assert layer["path"] == about["path"]
        assert activation.dtype.name == about["dtype"]
        assert layer["shape"] == list(activation.shape[1:])
        stats = reshape_stats(measure_image_stats(info, activation, batch=1), -1)
        for name in ("mean", "std", "min", "max", "zero_fraction", "nonfinite"):
            assert layer["stats"][name] == plain_numbers(getattr(stats, name))
        tiles = layer["tiles"]
        for normalize, scope in LOOKS:
            grid = draw_layer(info, activation, normalize=normalize, scope=scope)
            shown = tiles_of(await viewer.levels(seen.image, node, normalize, scope), tiles)
            assert tiles["count"] == len(grid.channels)
            assert tiles["step"] == 1
            for tile, levels in enumerate(shown):
                channel, part = divmod(tile, tiles["slices"])
                np.testing.assert_array_equal(levels, grid.tile(channel, part))
            checked += 1
    assert checked >= 3
    await viewer.close()


@in_a_loop
async def test_tiles_lie_as_is_said() -> None:
    seen = Seen(volumes())
    conv = (await seen.viewer.layer(seen.image, seen.node("conv3d")))["tiles"]
    # 6 channels of 3 slices of 2 x 14: three rows of two channels would be 84 x 6.
    assert conv == {
        "count": 18,
        "columns": 3,
        "height": 2,
        "width": 14,
        "slices": 3,
        "joined": False,
        "step": 1,
    }
    await seen.viewer.close()
    seen = Seen(sequences())
    tokens = (await seen.viewer.layer(seen.image, seen.node("tokens")))["tiles"]
    assert (tokens["count"], tokens["columns"], tokens["joined"]) == (12, 12, True)
    assert (tokens["height"], tokens["width"]) == (64, 1)
    await seen.viewer.close()
    seen = Seen(cnn())
    head = (await seen.viewer.layer(seen.image, seen.node("head")))["tiles"]
    assert (head["count"], head["columns"], head["joined"]) == (6, 3, True)
    assert (head["height"], head["width"]) == (1, 1)
    await seen.viewer.close()


@in_a_loop
async def test_of_very_large_pictures_some_pixels_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layers_module, "_MOST_PIXELS", 200)
    seen = Seen(cnn())
    node = seen.node("conv")
    tiles = (await seen.viewer.layer(seen.image, node))["tiles"]
    # 5 tiles of 14 x 14 in 2 rows of 3: a fourth of the pixels each way leaves 8 x 12 of them.
    assert (tiles["columns"], tiles["step"], tiles["height"], tiles["width"]) == (3, 3, 5, 5)
    info, activation = seen.activation("conv")
    grid = draw_layer(info, activation)
    shown = tiles_of(await seen.viewer.levels(seen.image, node, "standard", "channel"), tiles)
    for channel, levels in enumerate(shown):
        np.testing.assert_array_equal(levels, grid.tile(channel)[::3, ::3])
    await seen.viewer.close()


@in_a_loop
async def test_a_long_side_is_thinned_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_module, "_LONGEST_SIDE", 40)
    seen = Seen(sequences())
    tiles = (await seen.viewer.layer(seen.image, seen.node("tokens")))["tiles"]
    assert (tiles["step"], tiles["height"], tiles["width"]) == (2, 32, 1)
    await seen.viewer.close()


@in_a_loop
async def test_what_is_dead_or_not_finite_is_told() -> None:
    seen = Seen(troubled())
    node = seen.node("trouble")
    stats = (await seen.viewer.layer(seen.image, node))["stats"]
    assert stats["dead"] == [1, 2]
    assert stats["mean"][1:4] == [0, 3, None]
    assert stats["nonfinite"][3] == 256
    assert 0 < stats["nonfinite"][4] < 256
    (summary,) = [one for one in (await seen.viewer.layers(seen.image))["layers"] if one]
    assert summary["dead"] == 2
    assert summary["nonfinite"] == stats["nonfinite"][3] + stats["nonfinite"][4]
    assert (summary["min"], summary["max"]) == (0, 3)
    await seen.viewer.close()


@in_a_loop
async def test_single_values_are_not_dead() -> None:
    seen = Seen(cnn())
    layer = await seen.viewer.layer(seen.image, seen.node("mean"))
    assert layer["stats"]["dead"] == []
    assert layer["stats"]["std"] == [0.0] * 20
    found = (await seen.viewer.layers(seen.image))["layers"]
    assert found[seen.node("mean")]["dead"] is None
    assert found[seen.node("conv")]["dead"] == 0
    await seen.viewer.close()


@pytest.mark.parametrize("kind", ["cnn", "volumes", "channels_first", "troubled"])
@in_a_loop
async def test_histograms_count_as_numpy_does(kind: str) -> None:
    seen = Seen(KINDS[kind]())
    for node, about in enumerate(seen.about["nodes"]):
        if not about["drawn"]:
            continue
        info, activation = seen.activation(about["path"])
        found = await seen.viewer.histograms(seen.image, node)
        orjson.dumps(found)
        assert found["bins"] == 32
        axis = 1 if info.data_format == "channels_first" else -1
        channels = np.moveaxis(activation[0][None], axis, 0).astype(np.float64)
        rows = [channels] if about["kind"] == "dense" else list(channels)
        assert len(rows) == len(found["counts"])
        for row, low, high, counts in zip(
            rows, found["low"], found["high"], found["counts"], strict=True
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
                assert [low, high] == plain_numbers(np.array([values.min(), values.max()]))
                assert counts == np.histogram(values, 32)[0].tolist()
    await seen.viewer.close()


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("conv", {}),
        ("conv", {"normalize": "minmax", "scope": "layer", "columns": 2, "padding": 3}),
        ("separable", {"order": "std", "zoom": 2, "background": 99, "cmap": "gray"}),
        ("head", {"cmap": "magma", "token_grid": (2, 2)}),
    ],
)
@in_a_loop
async def test_pictures_are_those_of_render_model(path: str, options: dict[str, Any]) -> None:
    seen = Seen(cnn())
    wanted = actgrid.render_model(seen.model, seen.x, path, **options)[path].to_png()
    assert await seen.viewer.rendered(seen.image, seen.node(path), options) == wanted
    await seen.viewer.close()


@in_a_loop
async def test_tokens_are_drawn_as_tiles() -> None:
    seen = Seen(sequences())
    options: Any = {"token_grid": (8, 8), "normalize": "minmax"}
    wanted = actgrid.render_model(seen.model, seen.x, "tokens", **options)["tokens"].to_png()
    assert await seen.viewer.rendered(seen.image, seen.node("tokens"), options) == wanted
    await seen.viewer.close()


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
@in_a_loop
async def test_pictures_that_cannot_be_drawn_are_refused(
    options: dict[str, Any], error: type[Exception]
) -> None:
    seen = Seen(cnn())
    with pytest.raises(error):
        await seen.viewer.rendered(seen.image, seen.node("conv"), options)
    await seen.viewer.close()


@pytest.mark.parametrize(("normalize", "scope"), [("range", "channel"), ("minmax", "image")])
@in_a_loop
async def test_levels_of_no_such_kind_are_refused(normalize: str, scope: str) -> None:
    seen = Seen(cnn())
    with pytest.raises(OptionError):
        await seen.viewer.levels(seen.image, seen.node("conv"), normalize, scope)
    await seen.viewer.close()


# --- all layers at once ---


@pytest.mark.parametrize("kind", KINDS)
@in_a_loop
async def test_thumbnails_are_small_grids(kind: str) -> None:
    seen = Seen(KINDS[kind]())
    about = await seen.viewer.layers(seen.image)
    orjson.dumps(about)
    assert (about["side"], about["columns"]) == (96, 16)
    sprite = decoded(await seen.viewer.layers_sprite(seen.image))
    count = len(seen.paths)
    assert sprite.shape == (96, 96 * count)
    assert len(about["layers"]) == count
    for node, summary in enumerate(about["layers"]):
        cell = sprite[:, 96 * node :][:, :96]
        if not seen.about["nodes"][node]["drawn"]:
            assert summary is None
            assert not cell.any()
            continue
        info, activation = seen.activation(seen.paths[node])
        finite = activation[np.isfinite(activation)].astype(np.float64)
        found = [summary[name] for name in ("min", "max", "mean")]
        np.testing.assert_allclose(found, [finite.min(), finite.max(), finite.mean()], rtol=1e-5)
        stats = reshape_stats(measure_image_stats(info, activation, batch=1), -1)
        if info.kind in ("dense", "sequence"):
            grid = draw_layer(info, activation, normalize="minmax")
        else:
            spread = np.where(np.isnan(stats.std), -1, stats.std)
            best = np.argsort(-spread, kind="stable")[:16]
            side = math.ceil(math.sqrt(len(best)))
            options: dict[str, Any] = {"normalize": "minmax", "order": best.tolist()}
            if info.kind == "volume":
                activation = activation[:, activation.shape[1] // 2]
            options |= {"data_format": info.data_format, "columns": side, "padding": 0}
            grid = actgrid.render(activation, **options)
        small = Image.fromarray(grid.levels).resize((96, 96), Image.Resampling.BOX)
        np.testing.assert_array_equal(cell, np.asarray(small))
    await seen.viewer.close()


@in_a_loop
async def test_many_layers_lie_in_rows() -> None:
    steps = [layers.ReLU(name=f"relu{number}") for number in range(20)]
    seen = Seen(keras.Sequential([keras.Input((16, 16, 3)), *steps]))
    sprite = decoded(await seen.viewer.layers_sprite(seen.image))
    assert sprite.shape == (2 * 96, 16 * 96)
    first, last = sprite[:96, 96:192], sprite[96:, 4 * 96 : 5 * 96]  # nodes 1 and 20
    assert first.any()
    np.testing.assert_array_equal(first, last)
    assert not sprite[96:, 5 * 96 :].any()
    await seen.viewer.close()


@in_a_loop
async def test_a_layer_that_gives_nothing_spoils_no_other() -> None:
    inputs = keras.Input((16, 16, 3))
    x = layers.ReLU(name="relu")(inputs)
    model = keras.Model(inputs, [x, Nothing(name="nothing")(x)])
    seen = Seen(model)
    found = (await seen.viewer.layers(seen.image))["layers"]
    assert found[seen.node("relu")] is not None
    assert found[seen.node("nothing")] is None
    with pytest.raises(ShapeError, match="empty"):
        await seen.viewer.levels(seen.image, seen.node("nothing"), "minmax", "channel")
    await seen.viewer.close()


@in_a_loop
async def test_the_model_runs_once_for_all_of_an_image() -> None:
    seen = Seen(cnn())
    viewer = seen.viewer
    runs: list[int] = []
    run = viewer._engine._extractor._function.run

    def counted(x: Any, transform: Any, *arguments: Any) -> Any:
        runs.append(len(x))
        return run(x, transform, *arguments)

    viewer._engine._extractor._function.run = counted  # type: ignore[method-assign]
    await asyncio.gather(
        viewer.layers(seen.image), viewer.layers_sprite(seen.image), viewer.classes(seen.image)
    )
    for node in range(1, len(seen.paths)):
        await viewer.layer(seen.image, node)
        await viewer.levels(seen.image, node, "standard", "channel")
        await viewer.histograms(seen.image, node)
    assert runs == [1]
    await viewer.close()


# --- images and classes ---


@in_a_loop
async def test_pictures_are_what_the_model_sees() -> None:
    seen = Seen(cnn())
    picture = decoded(await seen.viewer.picture(seen.image), "RGB")
    assert picture.shape == (16, 16, 3)
    np.testing.assert_allclose(picture, seen.x[0] * 255, atol=0.5001)
    with Image.open(io.BytesIO(await seen.viewer.thumbnail(seen.image))) as small:
        assert (small.format, small.size) == ("JPEG", (26, 20))
    await seen.viewer.close()


@in_a_loop
async def test_the_likeliest_classes_come_first() -> None:
    names = [f"class {number}" for number in range(6)]
    seen = Seen(cnn(), labels=names)
    scores = np.asarray(seen.model(seen.x))[0]
    found = await seen.viewer.classes(seen.image)
    assert found["kind"] == "probability"
    assert [one["index"] for one in found["top"]] == np.argsort(-scores)[:5].tolist()
    assert [one["name"] for one in found["top"]] == [names[one["index"]] for one in found["top"]]
    np.testing.assert_allclose(
        [one["value"] for one in found["top"]], np.sort(scores)[::-1][:5], rtol=1e-5
    )
    assert seen.about["classes"] == {"node": seen.node("head"), "count": 6, "labels": names}
    await seen.viewer.close()


@in_a_loop
async def test_what_is_no_probability_is_a_score() -> None:
    seen = Seen(nested())
    found = await seen.viewer.classes(seen.image)
    assert found["kind"] == "score"
    assert len(found["top"]) == 3
    assert all(one["name"] is None for one in found["top"])
    await seen.viewer.close()


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
@in_a_loop
async def test_one_value_is_two_classes_as_it_is_explained(
    activation: str | None, labels: list[str] | None, count: int
) -> None:
    keras.utils.set_random_seed(2)
    head = layers.Dense(1, activation, name="head")
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(), head])
    seen = Seen(model, labels=labels)
    (value,) = np.asarray(seen.model(seen.x))[0].tolist()
    found = await seen.viewer.classes(seen.image)
    assert seen.about["classes"]["count"] == count
    other = 1 - value if activation == "sigmoid" else -value
    expected = {1: value, 0: other} if count == 2 else {0: value}
    values = {entry["index"]: entry["value"] for entry in found["top"]}
    assert values == pytest.approx(expected, rel=1e-4)
    about = await seen.viewer.heatmap(seen.image, "saliency", None)
    assert about["target"] == found["top"][0]["index"]
    assert about["label"] == found["top"][0]["name"]
    assert about["is_logit"] == (count == 2)
    await seen.viewer.close()


@pytest.mark.parametrize("kind", ["several_outputs", "volumes", "troubled"])
@in_a_loop
async def test_models_without_classes_have_neither_classes_nor_heatmaps(kind: str) -> None:
    seen = Seen(KINDS[kind]())
    assert seen.about["classes"] is None
    assert seen.about["methods"] == []
    with pytest.raises(NotFoundError, match="no classes"):
        await seen.viewer.classes(seen.image)
    with pytest.raises(NotFoundError, match="no classes"):
        await seen.viewer.heatmap(seen.image, "gradcam", None)
    await seen.viewer.close()


def test_what_is_made_of_a_layer_is_not_taken_for_it() -> None:
    inputs = keras.Input((16, 16, 3))
    x = layers.Dense(4, name="dense")(layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.ops.concatenate([x, x], axis=-1))
    seen = Seen(model)
    # The operation at the end, of eight classes, and not the layer before it, of four.
    node = seen.node(model.operations[-1].name)
    assert seen.about["classes"] == {"node": node, "count": 8, "labels": None}


# --- the model ---


def test_what_is_said_of_a_model() -> None:
    seen = Seen(cnn())
    about = seen.about
    assert orjson.loads(orjson.dumps(about)) == about
    assert (about["name"], about["live"]) == ("small", True)
    assert about["version"] == actgrid.__version__
    assert about["parameters"] == seen.model.count_params()
    assert seen.paths == [
        *("photo", "conv", "norm", "relu", "depthwise", "separable", "mean", "head")
    ]
    assert about["nodes"][0] == {
        "path": "photo",
        "name": "photo",
        "type": "Input",
        "shape": [None, 16, 16, 3],
        "dtype": "float32",
        "kind": "image",
        "channels": 3,
        "parameters": 0,
        "drawn": False,
        "kernel": False,
        "measured": False,
        "group": None,
    }
    assert about["nodes"][1] | {"group": 0} == {
        "path": "conv",
        "name": "conv",
        "type": "Conv2D",
        "shape": [None, 14, 14, 5],
        "dtype": "float32",
        "kind": "image",
        "channels": 5,
        "parameters": 140,
        "drawn": True,
        "kernel": True,
        "measured": False,
        "group": 0,
    }
    assert about["groups"][about["nodes"][1]["group"]]["kind"] == "unit"
    kernels = [node["name"] for node in about["nodes"] if node["kernel"]]
    assert kernels == ["conv", "depthwise", "separable", "head"]
    assert about["edges"] == [[node, node + 1] for node in range(7)]
    assert (about["inputs"], about["outputs"]) == ([0], [7])
    words = {name: control["words"] for name, control in about["controls"]["layer"].items()}
    assert words["scope"] == ["channel", "layer"]
    assert words["order"] == ["index", "mean", "std", "max", "zeros"]
    gradcam = next(method for method in about["methods"] if method["name"] == "gradcam")
    assert gradcam["layer"] is True
    assert gradcam["source"].startswith("Selvaraju")
    assert about["dataset"] is None
    assert about["uploads"] == {"bytes": 32 << 20, "pixels": 50_000_000}
    assert len(about["colormaps"]) == 11
    assert all(len(colours) == 1024 for colours in about["colormaps"].values())


def test_nested_layers_are_named_by_their_last_part() -> None:
    about = Seen(nested()).about
    assert {(node["path"], node["name"]) for node in about["nodes"]} >= {
        ("inner/conv", "conv"),
        ("inner/relu", "relu"),
    }
    assert any(group["kind"] == "model" for group in about["groups"])


def test_without_uploads_there_are_none() -> None:
    store = ImageStore(photos(), most_uploads=0)
    assert Viewer(cnn(), store).about()["uploads"] is None


def test_lime_is_offered_where_its_packages_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def names() -> list[str]:
        return [method["name"] for method in Seen(nested()).about["methods"]]

    assert "lime" in names()
    monkeypatch.setattr("actgrid.attribution.lime.find_spec", lambda name: None)
    assert "lime" not in names()
    assert "gradcam" in names()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"labels": ["one"]}, TargetError),
        ({"cache_bytes": 0}, OptionError),
        ({"fit": "squeeze"}, OptionError),
        ({"size": 99}, ShapeError),
    ],
)
def test_what_a_viewer_cannot_be_made_of(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Seen(cnn(), **options)


@pytest.mark.parametrize("path", ["conv", "depthwise", "separable", "head"])
@in_a_loop
async def test_kernels_are_drawn_around_zero(path: str) -> None:
    seen = Seen(cnn())
    node = seen.node(path)
    about = await seen.viewer.kernel(node)
    orjson.dumps(about)
    (weight,) = (one for one in collect_weights(seen.model) if one.path == about["path"])
    values = weight.variable.numpy()
    assert about["shape"] == list(values.shape)
    assert [about["min"], about["max"]] == plain_numbers(np.array([values.min(), values.max()]))
    grid = draw_weight(weight, values, scope="layer")
    assert about["cmap"] == grid.cmap == "RdBu_r"
    tiles = about["tiles"]
    assert tiles["count"] // tiles["slices"] == seen.about["nodes"][node]["channels"]
    for tile, levels in enumerate(tiles_of(await seen.viewer.kernel_levels(node), tiles)):
        np.testing.assert_array_equal(levels, grid.tile(*divmod(tile, tiles["slices"])))
    await seen.viewer.close()


@in_a_loop
async def test_a_kernel_is_that_of_all_calls_of_its_layer() -> None:
    inputs = keras.Input((16, 16, 3))
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    seen = Seen(keras.Model(inputs, conv(conv(inputs))))
    first, second = seen.node("conv"), seen.node("conv:1")
    assert await seen.viewer.kernel(first) == await seen.viewer.kernel(second)
    await seen.viewer.close()


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
@in_a_loop
async def test_heatmaps_are_those_of_explain(
    method: str, target: int | None, path: str | None, assert_levels_agree: Any
) -> None:
    seen = Seen(cnn())
    layer = None if path is None else seen.node(path)
    source = seen.viewer.images[seen.image].source
    # Over the picture that the page shows: the image as the model is given it.
    shown = decoded(await seen.viewer.picture(seen.image), "RGB")
    heatmap = actgrid.explain(seen.model, [source], method, target, path, pixels=shown)
    about = await seen.viewer.heatmap(seen.image, method, target, layer)
    assert orjson.loads(orjson.dumps(about)) == about
    assert heatmap.target is not None
    assert heatmap.score is not None
    assert about == {
        "method": method,
        "target": int(heatmap.target[0]),
        "label": None,
        "score": plain_numbers(heatmap.score)[0],
        "is_logit": True,
        "signed": method == "gradient_x_input" or method == "occlusion",
        "layer": heatmap.layer,
        "cmap": "viridis" if method == "gradcam" else "RdBu_r",
        "zero_reason": None,
    }
    levels = decoded(await seen.viewer.heatmap_levels(seen.image, method, target, layer))
    assert_levels_agree(levels, heatmap.levels()[0])
    assert levels.shape == (16, 16)
    await seen.viewer.close()


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
@in_a_loop
async def test_what_no_heatmap_can_be_made_of(
    method: str, target: int | None, layer: int | None, error: type[Exception]
) -> None:
    seen = Seen(nested() if method == "guided_backprop" else cnn())
    if method == "guided_backprop":
        seen = Seen(subclassed())
    with pytest.raises(error):
        await seen.viewer.heatmap(seen.image, method, target, layer)
    await seen.viewer.close()


# --- statistics and maximisation ---


@in_a_loop
async def test_a_datasets_statistics_are_matched_by_path_and_name() -> None:
    model = cnn()
    extractor = Extractor(model, ["conv", "head"])
    stats = DatasetStats(top=2)
    store = ImageStore(photos(3))
    names = ["image", "far/elsewhere.png", "image (3)"]
    sources = [image.source for image in store.listed(0, 3)]
    x = load_images(sources, model=model)
    stats.update(extractor(x), extractor.layers, names)
    viewer = Viewer(model, store, statistics=stats)
    assert viewer.about()["dataset"] == {"images": 3}
    measured = [node["path"] for node in viewer.about()["nodes"] if node["measured"]]
    assert measured == list(extractor.layers)
    found = await viewer.dataset(1)
    assert await viewer.dataset(1) is found
    orjson.dumps(found)
    layer = stats.layers["conv"]
    assert found["images"] == 3
    assert found["mean"] == plain_numbers(layer.mean)
    assert found["activating_images"] == layer.activating_images.tolist()
    assert found["dead"] == []
    ids = {"image": store.listed(0, 1)[0].id, "image (3)": store.listed(2, 1)[0].id}
    for channel, top in enumerate(found["top"]):
        wanted = layer.get_top_images(channel)
        # Of an image that is not here, where its file was is not told.
        assert [one["name"] for one in top] == [one.name.removeprefix("far/") for one in wanted]
        assert [one["image"] for one in top] == [ids.get(one.name) for one in wanted]
        assert [one["maximum"] for one in top] == plain_numbers(
            np.array([one.maximum for one in wanted])
        )
    with pytest.raises(NotFoundError, match="no statistics are known of norm"):
        await viewer.dataset(2)
    await viewer.close()


@in_a_loop
async def test_statistics_of_another_network_are_left_out() -> None:
    other = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(7, 3, name="conv")])
    extractor = Extractor(other, "conv")
    stats = DatasetStats()
    stats.update(extractor(np.zeros((1, 16, 16, 3), np.float32)), extractor.layers)
    viewer = Viewer(cnn(), ImageStore(photos()), statistics=stats)
    with pytest.raises(NotFoundError, match="no statistics"):
        await viewer.dataset(1)  # which has 5 channels
    await viewer.close()


@in_a_loop
async def test_maximising_gives_what_maximize_does() -> None:
    seen = Seen(cnn())
    found = await seen.viewer.maximized(seen.node("conv"), 2, steps=3, seed=4)
    wanted = actgrid.maximize(seen.model, "conv", 2, steps=3, seed=4)
    assert found == wanted.to_png()
    assert decoded(found, "RGB").shape == (16, 16, 3)
    for layer, channel, steps, error in [
        (0, 0, 3, NotFoundError),
        (99, 0, 3, NotFoundError),
        (1, 5, 3, NotFoundError),
        (1, 0, 0, OptionError),
        (1, 0, 10**9, OptionError),
    ]:
        with pytest.raises(error):
            await seen.viewer.maximized(layer, channel, steps, 0)
    await seen.viewer.close()


# --- who waits, and who does not ---


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came")


@in_a_loop
async def test_maximising_stops_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    ended = [threading.Event(), threading.Event()]

    def endless(
        model: Any, path: str, channel: int, progress: Callable[[], None], **options: Any
    ) -> Any:
        try:
            while True:
                steps.append(channel)
                progress()
                threading.Event().wait(0.001)
        finally:
            ended[channel].set()

    monkeypatch.setattr(maximized_module, "maximize", endless)
    seen = Seen(cnn())
    asked = [asyncio.ensure_future(seen.viewer.maximized(1, 0, 64, 0)) for _ in range(2)]
    behind = asyncio.ensure_future(seen.viewer.maximized(1, 1, 64, 0))
    await until(lambda: {0, 1} <= set(steps))  # in turns
    asked[0].cancel()
    behind.cancel()
    await until(ended[1].is_set)
    assert not ended[0].is_set()
    asked[1].cancel()
    await until(ended[0].is_set)
    count = len(steps)
    await asyncio.sleep(0.02)
    assert len(steps) == count
    await seen.viewer.close()


@in_a_loop
async def test_heatmaps_stop_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def watched(model: Any, x: Any, target: Any, labels: Any, **options: Any) -> Any:
        progress = options.pop("progress")

        def told(done: int, total: int) -> None:
            runs.append(1)
            progress(done, total)

        return prepare_request(model, x, target, labels, progress=told, **options)

    monkeypatch.setattr(heatmaps_module, "prepare_request", watched)
    seen = Seen(cnn(), batch_size=1)
    asked = asyncio.ensure_future(seen.viewer.heatmap(seen.image, "rise", None))
    await until(lambda: len(runs) > 3)
    asked.cancel()
    # What comes after it gets its turn, long before two thousand masks were tried.
    assert (await seen.viewer.heatmap(seen.image, "saliency", None))["method"] == "saliency"
    assert len(runs) < 1000
    await seen.viewer.close()


@in_a_loop
async def test_clicks_do_not_wait_for_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        go_on.wait(20)
        raise OptionError("enough")

    monkeypatch.setattr(maximized_module, "maximize", slow)
    seen = Seen(cnn())
    asked = [
        asyncio.ensure_future(seen.viewer.maximized(1, channel, 64, 0)) for channel in range(5)
    ]
    await asyncio.sleep(0)
    await seen.viewer.levels(seen.image, 1, "standard", "channel")
    await seen.viewer.layers(seen.image)
    assert not any(one.done() for one in asked)
    go_on.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(error) for error in found] == ["enough"] * 5
    await seen.viewer.close()


@in_a_loop
async def test_the_same_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def counted(info: Any, *arguments: Any, **options: Any) -> Any:
        drawn.append(info.path)
        return draw_layer(info, *arguments, **options)

    monkeypatch.setattr(layers_module, "draw_layer", counted)
    seen = Seen(cnn())
    looks = ["percentile", "percentile(1,99)", "percentile(1, 99)"]
    found = await asyncio.gather(
        *(seen.viewer.levels(seen.image, 1, normalize, "channel") for normalize in looks)
    )
    found.append(await seen.viewer.levels(seen.image, 1, "percentile", "channel"))
    assert len(set(found)) == 1
    assert drawn == ["conv"]
    await seen.viewer.close()


@in_a_loop
async def test_what_is_cancelled_before_it_is_drawn_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    go_on = threading.Event()

    def counted(info: Any, *arguments: Any, **options: Any) -> Any:
        drawn.append(info.path)
        go_on.wait(20)
        return draw_layer(info, *arguments, **options)

    seen = Seen(cnn())
    await seen.viewer.layers(seen.image)
    monkeypatch.setattr(layers_module, "draw_layer", counted)
    threads = seen.viewer._threads._max_workers
    busy = [
        asyncio.ensure_future(seen.viewer.levels(seen.image, 1, f"range(0, {n + 1})", "channel"))
        for n in range(threads)
    ]
    await until(lambda: len(drawn) == threads)
    behind = asyncio.ensure_future(seen.viewer.levels(seen.image, 2, "minmax", "channel"))
    await asyncio.sleep(0.01)
    behind.cancel()
    await asyncio.sleep(0.01)
    go_on.set()
    await asyncio.gather(*busy)
    await seen.viewer.levels(seen.image, 3, "minmax", "channel")
    assert "norm" not in drawn
    await seen.viewer.close()


@in_a_loop
async def test_what_is_kept_is_bounded() -> None:
    seen = Seen(cnn(), photos(6), cache_bytes=60_000)
    cache = seen.viewer._cache
    for image in seen.images:
        await seen.viewer.layers(image)
        for node in range(1, 8):
            await seen.viewer.levels(image, node, "standard", "channel")
            assert cache.size <= 60_000
    assert len(cache) > 3
    await seen.viewer.close()


# --- what there is not ---


@in_a_loop
async def test_what_is_not_there_is_not_found() -> None:
    seen = Seen(cnn())
    viewer = seen.viewer
    for image in ("0" * 16, "../x"):
        for asked in (
            viewer.thumbnail(image),
            viewer.picture(image),
            viewer.classes(image),
            viewer.layers(image),
            viewer.layers_sprite(image),
            viewer.layer(image, 1),
            viewer.levels(image, 1, "minmax", "channel"),
            viewer.heatmap(image, "gradcam", None),
        ):
            with pytest.raises(NotFoundError, match="no such image"):
                await asked
    for layer in (-1, 8, 10**9):
        with pytest.raises(NotFoundError, match="there is no layer"):
            await viewer.layer(seen.image, layer)
        with pytest.raises(NotFoundError, match="there is no layer"):
            await viewer.kernel(layer)
        with pytest.raises(NotFoundError, match="there is no layer"):
            await viewer.dataset(layer)
    with pytest.raises(NotFoundError, match="photo gives nothing that can be drawn"):
        await viewer.layer(seen.image, 0)
    with pytest.raises(NotFoundError, match="relu has no kernel"):
        await viewer.kernel(3)
    await viewer.close()


@in_a_loop
async def test_an_upload_that_was_forgotten_is_gone_though_its_results_are_kept() -> None:
    buffer = io.BytesIO()
    photos()[0].save(buffer, "PNG")
    seen = Seen(cnn())
    upload = seen.viewer.images.add(buffer.getvalue(), "cat").id
    assert (await seen.viewer.layer(upload, 1))["path"] == "conv"
    seen.viewer.images._uploads.clear()
    with pytest.raises(NotFoundError):
        await seen.viewer.layer(upload, 1)
    await seen.viewer.close()


@in_a_loop
async def test_a_file_that_is_no_image_is_told(tmp_path: Any) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    photos()[0].save(tmp_path / "good.png")
    seen = Seen(cnn(), tmp_path)
    broken, good = seen.images
    for asked in (seen.viewer.layers(broken), seen.viewer.thumbnail(broken)):
        with pytest.raises(ImageError, match=r"^broken\.png is not"):
            await asked
    assert (await seen.viewer.layer(good, 1))["path"] == "conv"
    await seen.viewer.close()


# --- numbers ---


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20))
def test_numbers_have_six_digits(values: list[float]) -> None:
    found = plain_numbers(np.array(values))
    assert found == [float(f"{x:.6g}") if math.isfinite(x) else None for x in values]


def test_integers_and_rows_stay_what_they_are() -> None:
    assert plain_numbers(np.array([123_456_789, 2])) == [123_456_789, 2]
    assert plain_numbers(np.array([[0.1, np.inf], [-0.25, 3]])) == [[0.1, None], [-0.25, 3.0]]


# --- the embedded model ---


@in_a_loop
async def test_the_embedded_model(assert_levels_agree: Any) -> None:
    photo = actgrid.demo.photo()
    viewer = Viewer("demo", ImageStore(photo))
    (image,) = viewer.images.listed(0, 1)
    await viewer.start()
    top = (await viewer.classes(image.id))["top"][0]
    assert (top["index"], top["name"]) == (285, "Egyptian cat")
    found = await viewer.layers(image.id)
    assert sum(one is not None for one in found["layers"]) == 143
    paths = [node["path"] for node in viewer.about()["nodes"]]
    node = paths.index("block1_expand_conv")
    tiles = (await viewer.layer(image.id, node))["tiles"]
    shown = tiles_of(await viewer.levels(image.id, node, "minmax", "layer"), tiles)
    grid = actgrid.render_model(
        "demo", photo, "block1_expand_conv", normalize="minmax", scope="layer"
    )["block1_expand_conv"]
    for channel in (0, 17, 95):
        assert_levels_agree(shown[channel], grid.tile(channel))
    await viewer.close()
