"""Drawing in TensorFlow, against the NumPy reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import hypothesis.extra.numpy as hnp
import keras
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import actgrid
from actgrid import Extractor, Grid, demo, render_model
from actgrid.errors import ActgridError, OptionError, ShapeError
from actgrid.figures import grids
from actgrid.figures.grids import get_batch_size
from actgrid.figures.on_device import draw_on_device, is_gpu_used
from actgrid.models.drawing import draw_layer
from actgrid.option_groups import complete_options
from actgrid.options import RenderModelOptions
from actgrid.rendering import ORDERS
from actgrid.rendering.stats import list_stat_arrays

Array = npt.NDArray[Any]
Draw = Callable[..., dict[str, Grid]]

NORMALIZATIONS = ["standard", "minmax", "symmetric", "percentile(5, 95)", "range(-1, 2)"]
SHAPES = [(1, 57), (1, 23, 6), (1, 13, 17, 6), (1, 3, 7, 5, 6)]
DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64"),
]


@pytest.fixture(autouse=True)
def _set_seed() -> None:
    keras.utils.set_random_seed(20)


def draw_unfused(extractor: Extractor, x: Any, **options: Any) -> dict[str, Grid]:
    return render_model(extractor, x, backend="tensorflow", **options)


def draw_fused(extractor: Extractor, x: Any, **options: Any) -> dict[str, Grid]:
    completed = complete_options(RenderModelOptions, options, {"data_format": None})
    return draw_on_device(extractor, x, cast(RenderModelOptions, completed), fuse=True)


def make_pixels(*shape: int) -> Array:
    return np.random.default_rng(1).random(shape, np.float32)


def make_identity_extractor(array: Array, *names: str) -> tuple[Extractor, Any]:
    """Return an extractor whose activations equal its input, and the input."""
    inputs = tensor = keras.Input(batch_shape=(None, *array.shape[1:]), dtype=array.dtype.name)
    for name in names or ("identity",):
        tensor = layers.Identity(autocast=False, name=name)(tensor)
    # A tensor, because NumPy inputs of float64 are converted to float32.
    return Extractor(keras.Model(inputs, tensor), layers.Identity), tf.constant(array)


def make_small_cnn(*shape: int | None) -> Any:
    return keras.Sequential(
        [
            keras.Input(shape or (8, 8, 3)),
            layers.Conv2D(5, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
        ]
    )


def assert_agrees(grids: Mapping[str, Grid], extractor: Extractor, x: Any, **options: Any) -> None:
    """Compare grids with those of the reference, within the tolerance of backends."""
    activations = extractor(x)
    assert list(grids) == list(activations)
    for path, grid in grids.items():
        activation = activations[path]
        info, batch = extractor.layers[path], get_batch_size(activations)
        expected_grid = draw_layer(info, activation, batch=batch, backend="numpy", **options)
        if isinstance(options.get("order"), str):
            # Channels whose statistics differ only by rounding may come in either order.
            order = list(dict.fromkeys(grid.channels.tolist()))
            assert sorted(order) == sorted(set(expected_grid.channels.tolist()))
            statistic = ORDERS[options["order"]]
            if statistic and expected_grid.stats.mean.size == len(order):
                keys = getattr(expected_grid.stats, statistic)
                keys = np.where(np.isnan(keys), -np.inf, keys)
                np.testing.assert_allclose(keys[order], np.sort(keys)[::-1], rtol=1e-9, atol=1e-9)
            expected_grid = draw_layer(
                info, activation, batch=batch, backend="numpy", **{**options, "order": order}
            )
        np.testing.assert_array_equal(grid.channels, expected_grid.channels)
        assert grid.levels.dtype == np.uint8
        assert grid.levels.shape == expected_grid.levels.shape
        difference = np.abs(grid.levels.astype(int) - expected_grid.levels)
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 1e-4
        wide = np.abs(activation.astype(np.float64))
        largest = np.max(wide, initial=0, where=np.isfinite(wide))
        for name in ("mean", "std", "min", "max", "zero_fraction"):
            np.testing.assert_allclose(
                getattr(grid.stats, name),
                getattr(expected_grid.stats, name),
                rtol=1e-6,
                # The tolerance of a mean near zero is relative to the largest summand.
                atol=(1e-6 if name == "std" else 1e-12) * largest,
                err_msg=name,
            )
        np.testing.assert_array_equal(grid.stats.nonfinite, expected_grid.stats.nonfinite)
        np.testing.assert_array_equal(grid.stats.dead, expected_grid.stats.dead)
        assert grid.stats.size == expected_grid.stats.size
        assert grid.stats.nonfinite.dtype == np.int64
        assert grid.cmap == expected_grid.cmap
        assert grid.locate(0, 0) == expected_grid.locate(0, 0)
        channel = int(expected_grid.channels[-1])
        assert grid.tile(channel).shape == expected_grid.tile(channel).shape


def make_special_values(dtype: str, *shape: int) -> Array:
    """Return values with infinities, NaN, zeros, and constant channels."""
    rng = np.random.default_rng(3)
    if dtype == "bool":
        return rng.random(shape) < 0.7
    if dtype[0] in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    values = rng.normal(3, 40, shape).clip(0)
    values[rng.random(shape) < 0.05] = np.nan
    values[rng.random(shape) < 0.05] = np.inf
    values[rng.random(shape) < 0.05] = -np.inf
    values[..., 1] = 2.5
    values[..., 2] = np.nan
    values[..., 3] = 0
    values[..., 3].flat[::3] = -np.inf
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


@st.composite
def activations(draw: st.DrawFn) -> Array:
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=2, max_size=5)))
    kind: Any = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    if dtype == "bool" or "int" in dtype:
        return draw(hnp.arrays(kind, shape))
    half = np.dtype(kind).itemsize == 2
    # TensorFlow treats subnormal numbers as zeros.
    floats = st.floats(-6e4, 6e4, width=16 if half else 32, allow_subnormal=False)
    special_values = st.sampled_from((0.0, 0.0, np.nan, np.inf, -np.inf))
    values = draw(
        hnp.arrays(np.float16 if half else np.float32, shape, elements=floats | special_values)
    )
    return values.astype(kind)


@given(
    array=activations(),
    options=st.fixed_dictionaries(
        {},
        optional={
            "sample": st.integers(-1, 0),
            "normalize": st.sampled_from(NORMALIZATIONS),
            "scope": st.sampled_from(("channel", "layer")),
            "columns": st.integers(1, 9),
            "padding": st.integers(0, 3),
            "zoom": st.integers(1, 3),
            "background": st.integers(0, 255),
            "order": st.sampled_from(("index", "mean", "std", "max", "zeros")),
            "data_format": st.sampled_from(("channels_last", "channels_first")),
            "cmap": st.just("magma"),
        },
    ),
)
@settings(max_examples=25)
def test_any_activation_with_any_options(array: Array, options: dict[str, Any]) -> None:
    extractor, x = make_identity_extractor(array)
    assert_agrees(draw_unfused(extractor, x, **options), extractor, x, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_with_nonfinite_values(dtype: str) -> None:
    extractor, x = make_identity_extractor(make_special_values(dtype, 2, 17, 19, 6))
    for options in ({}, {"scope": "layer", "normalize": "percentile", "sample": 1}):
        assert_agrees(draw_unfused(extractor, x, **options), extractor, x, **options)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("scope", ["channel", "layer"])
def test_every_normalization_of_every_kind(normalize: str, scope: str) -> None:
    options: dict[str, Any] = {"normalize": normalize, "scope": scope, "order": "std"}
    for shape in SHAPES:
        extractor, x = make_identity_extractor(make_special_values("float32", *shape))
        assert_agrees(draw_unfused(extractor, x, **options), extractor, x, **options)


# XLA compiles slowly: only one case of each option.
@pytest.mark.parametrize(
    ("dtype", "shape", "normalize", "scope"),
    [
        ("float32", SHAPES[2], "standard", "channel"),
        ("float16", SHAPES[2], "minmax", "layer"),
        ("float64", SHAPES[3], "symmetric", "channel"),
        ("bfloat16", SHAPES[3], "percentile", "layer"),
        ("float32", SHAPES[1], "percentile", "channel"),
        ("int64", SHAPES[0], "range(-1, 2)", "channel"),
        ("uint8", SHAPES[2], "standard", "layer"),
        ("bool", SHAPES[2], "standard", "channel"),
    ],
)
def test_drawing_compiled_by_xla(
    dtype: str, shape: tuple[int, ...], normalize: str, scope: str
) -> None:
    options: dict[str, Any] = {"normalize": normalize, "scope": scope, "order": "max"}
    extractor, x = make_identity_extractor(make_special_values(dtype, *shape))
    assert_agrees(draw_fused(extractor, x, **options), extractor, x, **options)


@pytest.mark.parametrize("draw", [draw_unfused, draw_fused])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_large_activations(draw: Draw, data_format: str) -> None:
    options = {"data_format": data_format, "order": [40, 3, 7, 12, 0], "columns": 2}
    values = np.random.default_rng(0).normal(3, 40, (1, 61, 73, 83)).clip(0).astype(np.float32)
    extractor, x = make_identity_extractor(values)
    assert_agrees(draw(extractor, x, **options), extractor, x, **options)


@pytest.mark.parametrize("draw", [draw_unfused, draw_fused])
def test_small_deviation_from_large_mean(draw: Draw) -> None:
    offsets = np.random.default_rng(1).normal(0, 1e-2, (1, 300, 300, 2))
    values = np.array([1e4, -1e4]) + offsets
    extractor, x = make_identity_extractor(values)
    stats = draw(extractor, x)["identity"].stats
    np.testing.assert_allclose(stats.mean, values[0].mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(stats.std, values[0].std((0, 1)), rtol=1e-9)


@pytest.mark.parametrize("draw", [draw_unfused, draw_fused])
def test_constant_channels_have_zero_deviation(draw: Draw) -> None:
    values = np.array(
        [0.1, -7.7, 1e-5, 3e30, 0, 1 / 3]
    )  # sums of these values in float64 are rounded
    extractor, x = make_identity_extractor(np.broadcast_to(values, (1, 11, 13, 6)))
    grid = draw(extractor, x)["identity"]
    assert grid.stats.mean.tolist() == grid.stats.min.tolist() == values.tolist()
    assert grid.stats.std.tolist() == [0] * 6
    assert grid.stats.dead.all()
    assert all((grid.tile(channel) == 128).all() for channel in range(6))


def test_levels_match_hand_computation() -> None:
    values = np.array([0, 1, 2, 3, np.nan, np.inf, -np.inf, 1.5], np.float32)
    extractor, x = make_identity_extractor(values.reshape(1, 2, 4, 1))
    grid = draw_unfused(extractor, x, normalize=("range", 0, 3))["identity"]
    # In float32, 1 * 85 + 0.5 is 85.5, which is truncated.
    assert grid.levels.tolist() == [[0, 85, 170, 255], [0, 255, 0, 128]]
    assert grid.stats.nonfinite.tolist() == [3]
    assert grid.stats.mean.tolist() == [1.5]


def test_demo_model_agrees_with_reference() -> None:
    extractor = Extractor("demo", ["stem_*", "block15_*", "head_*"])
    x = actgrid.load_images(demo.photo(), model=extractor.model)
    assert_agrees(draw_unfused(extractor, x, zoom=2), extractor, x, zoom=2)


def test_sample_is_an_index_in_the_batch() -> None:
    extractor, x = Extractor(make_small_cnn()), make_pixels(3, 8, 8, 3)
    for sample in (0, 1, -1, -3):
        assert_agrees(draw_unfused(extractor, x, sample=sample), extractor, x, sample=sample)
    assert extractor.trace_count == 2


def test_output_without_batch_is_drawn_for_every_sample() -> None:
    class Positions(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return tf.reshape(tf.range(64.0), (1, 4, 8, 2)) + 0 * x[:1]

    inputs = keras.Input((4, 8, 2))
    model = keras.Model(inputs, layers.Add(name="add")([inputs, Positions()(inputs)]))
    extractor, x = Extractor(model), make_pixels(3, 4, 8, 2)
    for sample in (2, -2):
        assert_agrees(draw_unfused(extractor, x, sample=sample), extractor, x, sample=sample)


@pytest.mark.parametrize("draw", [draw_unfused, draw_fused])
def test_token_grid_and_sequences(draw: Draw) -> None:
    model = keras.Sequential(
        [
            keras.Input((4, 8, 3)),
            layers.Conv2D(6, 2, strides=2, name="patches"),
            layers.Reshape((8, 6), name="tokens"),
            layers.ZeroPadding1D((1, 0), name="with_class"),
            layers.Dense(5, name="mixed"),
            layers.Flatten(name="flat"),
        ]
    )
    extractor = Extractor(model, ["patches", "mixed", "flat"])
    x = make_pixels(2, 4, 8, 3)
    for options in ({"token_grid": (2, 4), "order": [3, 1]}, {"sample": 1, "columns": 3}):
        assert_agrees(draw(extractor, x, **options), extractor, x, **options)


def test_channels_first_layers() -> None:
    model = keras.Sequential(
        [
            keras.Input((3, 8, 10)),
            layers.GroupNormalization(3, axis=1, name="norm"),
            layers.ZeroPadding2D(1, data_format="channels_first", name="padded"),
            layers.ReLU(name="relu"),
        ]
    )
    extractor, x = Extractor(model, ["padded", "relu"]), make_pixels(1, 3, 8, 10)
    grids = draw_unfused(extractor, x)
    assert extractor.layers["relu"].data_format == "channels_first"
    assert grids["relu"].channels.tolist() == [0, 1, 2]
    assert_agrees(grids, extractor, x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision(dtype: str) -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(5, 3, dtype=f"mixed_{dtype}", name="conv"),
            layers.ReLU(dtype="float64", name="relu"),
        ]
    )
    extractor, x = Extractor(model), make_pixels(1, 8, 8, 3)
    grids = draw_unfused(extractor, x)
    assert [info.dtype for info in extractor.layers.values()] == [dtype, "float64"]
    # Runs of a half-precision layer agree on one processor, though not in general.
    assert_agrees(grids, extractor, x)


@pytest.mark.parametrize("draw", [draw_unfused, draw_fused])
def test_images_of_variable_size(draw: Draw) -> None:
    extractor = Extractor(make_small_cnn(None, None, 3), "conv")
    for size in ((8, 9), (11, 8), (7, 20)):
        x = make_pixels(1, *size, 3)
        assert_agrees(draw(extractor, x), extractor, x)
    # Two traces for drawing and two for activations: from the second size on, sizes are free.
    assert extractor.trace_count == 4
    assert extractor.layers["conv"].shape[1:3] == (None, None)


def test_size_known_only_at_run_time() -> None:
    class Bright(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return tf.boolean_mask(x, tf.reduce_mean(x, (0, 1, 3)) > 0.5, axis=2)

    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, Bright(name="bright")(inputs))
    extractor, x = Extractor(model, "bright"), make_pixels(1, 6, 6, 3)
    assert_agrees(draw_unfused(extractor, x, padding=2), extractor, x, padding=2)
    assert extractor.layers["bright"].shape[2] is None


def test_activations_are_not_returned_by_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, x = Extractor(make_small_cnn(64, 64, 3)), make_pixels(2, 64, 64, 3)
    results: list[Any] = []
    run = extractor._function.run

    def record_result(*arguments: Any) -> Any:
        results.append(run(*arguments))
        return results[-1]

    monkeypatch.setattr(extractor._function, "run", record_result)
    grids = draw_unfused(extractor, x, padding=0, columns=5)
    (result,) = results
    arrays = [tensor.numpy() for tensor in tf.nest.flatten(result)]
    canvases = [array for array in arrays if array.dtype == np.uint8]
    others = [array for array in arrays if array.dtype != np.uint8]
    assert len(canvases) == len(grids) == 2
    # One byte for each value of one sample, and a few numbers for each channel.
    assert sum(map(np.size, canvases)) == sum(array[0].size for array in extractor(x).values())
    assert max(map(np.size, others)) == len(list_stat_arrays(grids["conv"].stats)) * 5


def test_options_are_traced_once() -> None:
    extractor, x = Extractor(make_small_cnn()), make_pixels(1, 8, 8, 3)
    before = extractor(x)
    assert extractor.trace_count == 1
    for _ in range(3):
        draw_unfused(extractor, x, order=[1, 0], normalize="percentile", cmap="magma")
        # Options that the host applies or that are tensors do not need another trace.
        draw_unfused(
            extractor, x, order=iter([1, 0]), normalize="percentile(1, 99)", zoom=2, sample=-1
        )
    assert extractor.trace_count == 2
    draw_unfused(extractor, x, order=[1, 0])
    assert extractor.trace_count == 3
    after = extractor(x)
    assert extractor.trace_count == 3
    for path, array in before.items():
        np.testing.assert_array_equal(after[path], array)


def test_batch_sizes_are_not_traced_separately() -> None:
    extracting, drawing = Extractor(make_small_cnn()), Extractor(make_small_cnn())
    for size in (1, 2, 3, 4, 5):
        extracting(make_pixels(size, 8, 8, 3))
        draw_unfused(drawing, make_pixels(size, 8, 8, 3))
    assert drawing.trace_count == extracting.trace_count <= 2


INVALID_OPTIONS: list[dict[str, Any]] = [
    {"normalize": "nothing"},
    {"scope": "all"},
    {"columns": 0},
    {"padding": -1},
    {"zoom": 0},
    {"background": 256},
    {"order": "size"},
    {"order": [0, 5]},
    {"order": [-1]},
    {"order": [1, 1]},
    {"order": [0.5]},
    {"order": 3},
    {"cmap": "nothing"},
    {"threads": 0},
    {"sample": 2},
    {"sample": -3},
    {"sample": 10**30},
    {"sample": "a"},
    {"data_format": "channels_middle"},
]


@pytest.mark.parametrize("options", INVALID_OPTIONS, ids=str)
def test_invalid_options_raise_the_errors_of_render(options: dict[str, Any]) -> None:
    extractor, x = Extractor(make_small_cnn()), make_pixels(2, 8, 8, 3)
    with pytest.raises(ActgridError) as expected:
        render_model(extractor, x, backend="numpy", **options)
    with pytest.raises(type(expected.value)) as actual:
        draw_unfused(extractor, x, **options)
    assert str(actual.value) == str(expected.value)


def test_invalid_token_grids_are_rejected() -> None:
    extractor, x = make_identity_extractor(make_pixels(2, 9, 4))
    grids: list[Any] = [(2, 5), (0, 3), (1, 2, 3), 4]
    for grid in grids:
        with pytest.raises(ActgridError) as expected:
            render_model(extractor, x, backend="numpy", token_grid=grid)
        with pytest.raises(type(expected.value)) as actual:
            draw_unfused(extractor, x, token_grid=grid)
        assert str(actual.value) == str(expected.value)


def test_invalid_arguments_are_rejected() -> None:
    extractor, x = make_identity_extractor(make_pixels(1, 2, 2, 2, 2, 1))
    with pytest.raises(
        ShapeError, match=r"layer identity: an output of shape \(1, 2, 2, 2, 2, 1\)"
    ):
        draw_unfused(extractor, x)
    with pytest.raises(ShapeError, match="empty"):
        draw_unfused(Extractor(make_small_cnn()), make_pixels(0, 8, 8, 3))
    with pytest.raises(OptionError, match="leave kind out"):
        draw_unfused(Extractor(make_small_cnn()), make_pixels(1, 8, 8, 3), kind="image")
    with pytest.raises(TypeError, match="colour"):
        draw_unfused(Extractor(make_small_cnn()), make_pixels(1, 8, 8, 3), colour="red")


def test_tensorflow_backend_of_render_is_rejected() -> None:
    with pytest.raises(OptionError, match="one of auto, native, numba, numpy, not 'tensorflow'"):
        actgrid.render(make_pixels(1, 8, 8, 3), backend="tensorflow")


def test_is_gpu_used_follows_device_placement() -> None:
    assert is_gpu_used() == bool(tf.config.list_logical_devices("GPU"))
    with tf.device("CPU:0"):
        assert not is_gpu_used()


@pytest.mark.parametrize("uses_gpu", [False, True])
def test_auto_backend_draws_on_device_if_a_gpu_is_used(
    monkeypatch: pytest.MonkeyPatch, uses_gpu: bool
) -> None:
    fuse_arguments: list[bool] = []

    def record_draw(*arguments: Any, fuse: bool) -> dict[str, Grid]:
        fuse_arguments.append(fuse)
        return draw_on_device(*arguments, fuse=fuse)

    monkeypatch.setattr(grids, "draw_on_device", record_draw)
    monkeypatch.setattr(grids, "is_gpu_used", lambda: uses_gpu)
    model, x = make_small_cnn(), make_pixels(1, 8, 8, 3)
    extractor = Extractor(model)
    assert_agrees(render_model(model, x), extractor, x)
    assert_agrees(render_model(extractor, x, backend="auto"), extractor, x)
    # Only the drawing of an extractor, which can be reused, is compiled by XLA.
    assert fuse_arguments == ([False, True] if uses_gpu else [])
    # An explicit backend or kind is respected.
    render_model(model, x, backend="numpy")
    render_model(model, x, kind="image")
    assert len(fuse_arguments) == 2 * uses_gpu
    render_model(extractor, x, backend="tensorflow")
    assert fuse_arguments[2 * uses_gpu :] == [uses_gpu]
