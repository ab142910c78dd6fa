"""Drawing inside the compiled function against drawing its activations by the reference."""

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
from actgrid.figures.grids import batch_size
from actgrid.figures.on_device import draw_on_device, on_gpu
from actgrid.models.drawing import draw_layer
from actgrid.option_groups import complete_options
from actgrid.options import RenderArrayOptions
from actgrid.rendering import ORDERS
from actgrid.rendering.stats import arrays_of

Array = npt.NDArray[Any]
Draw = Callable[..., dict[str, Grid]]

NORMALIZATIONS = ["standard", "minmax", "symmetric", "percentile(5, 95)", "range(-1, 2)"]
SHAPES = [(1, 57), (1, 23, 6), (1, 13, 17, 6), (1, 3, 7, 5, 6)]
DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64"),
]


@pytest.fixture(autouse=True)
def _same_weights_each_time() -> None:
    keras.utils.set_random_seed(20)


def unfused(extractor: Extractor, x: Any, **options: Any) -> dict[str, Grid]:
    return render_model(extractor, x, backend="tensorflow", **options)


def fused(extractor: Extractor, x: Any, **options: Any) -> dict[str, Grid]:
    given = complete_options(RenderArrayOptions, options, {"data_format": None})
    return draw_on_device(extractor, x, cast(RenderArrayOptions, given), fuse=True)


def pixels(*shape: int) -> Array:
    return np.random.default_rng(1).random(shape, np.float32)


def passing(array: Array, *names: str) -> tuple[Extractor, Any]:
    """Return a model whose layers' activations are its input, and the input."""
    inputs = tensor = keras.Input(batch_shape=(None, *array.shape[1:]), dtype=array.dtype.name)
    for name in names or ("same",):
        tensor = layers.Identity(autocast=False, name=name)(tensor)
    # A tensor, because what NumPy calls float64 is taken for float32.
    return Extractor(keras.Model(inputs, tensor), layers.Identity), tf.constant(array)


def small_cnn(*shape: int | None) -> Any:
    return keras.Sequential(
        [
            keras.Input(shape or (8, 8, 3)),
            layers.Conv2D(5, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
        ]
    )


def assert_agrees(found: Mapping[str, Grid], extractor: Extractor, x: Any, **options: Any) -> None:
    """Compare with what the reference makes of the activations, within the design's tolerance."""
    activations = extractor(x)
    assert list(found) == list(activations)
    for path, grid in found.items():
        activation = activations[path]
        info, batch = extractor.layers[path], batch_size(activations)
        truth = draw_layer(info, activation, batch=batch, backend="numpy", **options)
        if isinstance(options.get("order"), str):
            # Where statistics are equal but for rounding, either order will do.
            order = list(dict.fromkeys(grid.channels.tolist()))
            assert sorted(order) == sorted(set(truth.channels.tolist()))
            statistic = ORDERS[options["order"]]
            if statistic and truth.stats.mean.size == len(order):
                keys = getattr(truth.stats, statistic)
                keys = np.where(np.isnan(keys), -np.inf, keys)
                np.testing.assert_allclose(keys[order], np.sort(keys)[::-1], rtol=1e-9, atol=1e-9)
            truth = draw_layer(
                info, activation, batch=batch, backend="numpy", **{**options, "order": order}
            )
        np.testing.assert_array_equal(grid.channels, truth.channels)
        assert grid.levels.dtype == np.uint8
        assert grid.levels.shape == truth.levels.shape
        difference = np.abs(grid.levels.astype(int) - truth.levels)
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 1e-4
        wide = np.abs(activation.astype(np.float64))
        largest = np.max(wide, initial=0, where=np.isfinite(wide))
        for name in ("mean", "std", "min", "max", "zero_fraction"):
            np.testing.assert_allclose(
                getattr(grid.stats, name),
                getattr(truth.stats, name),
                rtol=1e-6,
                # A mean that is zero but for rounding is compared by the size of what was summed.
                atol=(1e-6 if name == "std" else 1e-12) * largest,
                err_msg=name,
            )
        np.testing.assert_array_equal(grid.stats.nonfinite, truth.stats.nonfinite)
        np.testing.assert_array_equal(grid.stats.dead, truth.stats.dead)
        assert grid.stats.size == truth.stats.size
        assert grid.stats.nonfinite.dtype == np.int64
        assert grid.cmap == truth.cmap
        assert grid.locate(0, 0) == truth.locate(0, 0)
        channel = int(truth.channels[-1])
        assert grid.tile(channel).shape == truth.tile(channel).shape


def special(dtype: str, *shape: int) -> Array:
    """Return values with all that needs care: infinities, NaN, zeros, constants, no finite one."""
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
    # TensorFlow takes subnormal numbers for zeros.
    floats = st.floats(-6e4, 6e4, width=16 if half else 32, allow_subnormal=False)
    odd = st.sampled_from((0.0, 0.0, np.nan, np.inf, -np.inf))
    values = draw(hnp.arrays(np.float16 if half else np.float32, shape, elements=floats | odd))
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
    extractor, x = passing(array)
    assert_agrees(unfused(extractor, x, **options), extractor, x, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_what_is_not_finite(dtype: str) -> None:
    extractor, x = passing(special(dtype, 2, 17, 19, 6))
    for options in ({}, {"scope": "layer", "normalize": "percentile", "sample": 1}):
        assert_agrees(unfused(extractor, x, **options), extractor, x, **options)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("scope", ["channel", "layer"])
def test_every_normalisation_of_every_kind(normalize: str, scope: str) -> None:
    options: dict[str, Any] = {"normalize": normalize, "scope": scope, "order": "std"}
    for shape in SHAPES:
        extractor, x = passing(special("float32", *shape))
        assert_agrees(unfused(extractor, x, **options), extractor, x, **options)


# XLA takes long: one of each with it.
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
def test_fused(dtype: str, shape: tuple[int, ...], normalize: str, scope: str) -> None:
    options: dict[str, Any] = {"normalize": normalize, "scope": scope, "order": "max"}
    extractor, x = passing(special(dtype, *shape))
    assert_agrees(fused(extractor, x, **options), extractor, x, **options)


@pytest.mark.parametrize("draw", [unfused, fused])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_large_pictures(draw: Draw, data_format: str) -> None:
    options = {"data_format": data_format, "order": [40, 3, 7, 12, 0], "columns": 2}
    values = np.random.default_rng(0).normal(3, 40, (1, 61, 73, 83)).clip(0).astype(np.float32)
    extractor, x = passing(values)
    assert_agrees(draw(extractor, x, **options), extractor, x, **options)


@pytest.mark.parametrize("draw", [unfused, fused])
def test_small_deviation_from_a_large_mean_is_measured(draw: Draw) -> None:
    offsets = np.random.default_rng(1).normal(0, 1e-2, (1, 300, 300, 2))
    values = np.array([1e4, -1e4]) + offsets
    extractor, x = passing(values)
    stats = draw(extractor, x)["same"].stats
    np.testing.assert_allclose(stats.mean, values[0].mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(stats.std, values[0].std((0, 1)), rtol=1e-9)


@pytest.mark.parametrize("draw", [unfused, fused])
def test_equal_values_do_not_deviate(draw: Draw) -> None:
    values = np.array([0.1, -7.7, 1e-5, 3e30, 0, 1 / 3])  # whose sums in float64 are rounded
    extractor, x = passing(np.broadcast_to(values, (1, 11, 13, 6)))
    grid = draw(extractor, x)["same"]
    assert grid.stats.mean.tolist() == grid.stats.min.tolist() == values.tolist()
    assert grid.stats.std.tolist() == [0] * 6
    assert grid.stats.dead.all()
    assert all((grid.tile(channel) == 128).all() for channel in range(6))


def test_levels_by_hand() -> None:
    values = np.array([0, 1, 2, 3, np.nan, np.inf, -np.inf, 1.5], np.float32)
    extractor, x = passing(values.reshape(1, 2, 4, 1))
    grid = unfused(extractor, x, normalize=("range", 0, 3))["same"]
    # The sum in float32 of 1 * 85 and 0.5 is 85.5, which is cut.
    assert grid.levels.tolist() == [[0, 85, 170, 255], [0, 255, 0, 128]]
    assert grid.stats.nonfinite.tolist() == [3]
    assert grid.stats.mean.tolist() == [1.5]


def test_the_demo_is_drawn_as_by_the_reference() -> None:
    extractor = Extractor("demo", ["stem_*", "block15_*", "head_*"])
    x = actgrid.load_images(demo.photo(), model=extractor.model)
    assert_agrees(unfused(extractor, x, zoom=2), extractor, x, zoom=2)


def test_the_sample_is_an_image_of_the_batch() -> None:
    extractor, x = Extractor(small_cnn()), pixels(3, 8, 8, 3)
    for sample in (0, 1, -1, -3):
        assert_agrees(unfused(extractor, x, sample=sample), extractor, x, sample=sample)
    assert extractor.trace_count == 2


def test_an_output_for_the_whole_batch_is_drawn_for_every_sample() -> None:
    class Positions(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return tf.reshape(tf.range(64.0), (1, 4, 8, 2)) + 0 * x[:1]

    inputs = keras.Input((4, 8, 2))
    model = keras.Model(inputs, layers.Add(name="add")([inputs, Positions()(inputs)]))
    extractor, x = Extractor(model), pixels(3, 4, 8, 2)
    for sample in (2, -2):
        assert_agrees(unfused(extractor, x, sample=sample), extractor, x, sample=sample)


@pytest.mark.parametrize("draw", [unfused, fused])
def test_tokens(draw: Draw) -> None:
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
    x = pixels(2, 4, 8, 3)
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
    extractor, x = Extractor(model, ["padded", "relu"]), pixels(1, 3, 8, 10)
    grids = unfused(extractor, x)
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
    extractor, x = Extractor(model), pixels(1, 8, 8, 3)
    grids = unfused(extractor, x)
    assert [info.dtype for info in extractor.layers.values()] == [dtype, "float64"]
    # No two runs of a half-precision layer need agree, but these do on one processor.
    assert_agrees(grids, extractor, x)


@pytest.mark.parametrize("draw", [unfused, fused])
def test_sizes_that_a_trace_does_not_know(draw: Draw) -> None:
    extractor = Extractor(small_cnn(None, None, 3), "conv")
    for size in ((8, 9), (11, 8), (7, 20)):
        x = pixels(1, *size, 3)
        assert_agrees(draw(extractor, x), extractor, x)
    # Twice the drawing and twice the activations: the second size makes both free.
    assert extractor.trace_count == 4
    assert extractor.layers["conv"].shape[1:3] == (None, None)


def test_a_size_that_only_the_run_tells() -> None:
    class Bright(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return tf.boolean_mask(x, tf.reduce_mean(x, (0, 1, 3)) > 0.5, axis=2)

    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, Bright(name="bright")(inputs))
    extractor, x = Extractor(model, "bright"), pixels(1, 6, 6, 3)
    assert_agrees(unfused(extractor, x, padding=2), extractor, x, padding=2)
    assert extractor.layers["bright"].shape[2] is None


def test_no_activation_leaves_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, x = Extractor(small_cnn(64, 64, 3)), pixels(2, 64, 64, 3)
    taken: list[Any] = []
    run = extractor._function.run

    def recorded(*arguments: Any) -> Any:
        taken.append(run(*arguments))
        return taken[-1]

    monkeypatch.setattr(extractor._function, "run", recorded)
    grids = unfused(extractor, x, padding=0, columns=5)
    (drawn,) = taken
    leaving = [tensor.numpy() for tensor in tf.nest.flatten(drawn)]
    canvases = [array for array in leaving if array.dtype == np.uint8]
    others = [array for array in leaving if array.dtype != np.uint8]
    assert len(canvases) == len(grids) == 2
    # One byte for each value of one sample; of the rest, a few numbers for each channel.
    assert sum(map(np.size, canvases)) == sum(array[0].size for array in extractor(x).values())
    assert max(map(np.size, others)) == len(arrays_of(grids["conv"].stats)) * 5


def test_a_way_to_draw_is_traced_once() -> None:
    extractor, x = Extractor(small_cnn()), pixels(1, 8, 8, 3)
    before = extractor(x)
    assert extractor.trace_count == 1
    for _ in range(3):
        unfused(extractor, x, order=[1, 0], normalize="percentile", cmap="magma")
        # What the host does, and what is an input, asks for no other function.
        unfused(extractor, x, order=iter([1, 0]), normalize="percentile(1, 99)", zoom=2, sample=-1)
    assert extractor.trace_count == 2
    unfused(extractor, x, order=[1, 0])
    assert extractor.trace_count == 3
    after = extractor(x)
    assert extractor.trace_count == 3
    for path, array in before.items():
        np.testing.assert_array_equal(after[path], array)


def test_a_batch_of_another_size_is_not_traced_anew_each_time() -> None:
    plain, drawing = Extractor(small_cnn()), Extractor(small_cnn())
    for size in (1, 2, 3, 4, 5):
        plain(pixels(size, 8, 8, 3))
        unfused(drawing, pixels(size, 8, 8, 3))
    assert drawing.trace_count == plain.trace_count <= 2


BAD: list[dict[str, Any]] = [
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


@pytest.mark.parametrize("options", BAD, ids=str)
def test_what_render_refuses_is_refused_alike(options: dict[str, Any]) -> None:
    extractor, x = Extractor(small_cnn()), pixels(2, 8, 8, 3)
    with pytest.raises(ActgridError) as truth:
        render_model(extractor, x, backend="numpy", **options)
    with pytest.raises(type(truth.value)) as found:
        unfused(extractor, x, **options)
    assert str(found.value) == str(truth.value)


def test_a_token_grid_is_checked() -> None:
    extractor, x = passing(pixels(2, 9, 4))
    grids: list[Any] = [(2, 5), (0, 3), (1, 2, 3), 4]
    for grid in grids:
        with pytest.raises(ActgridError) as truth:
            render_model(extractor, x, backend="numpy", token_grid=grid)
        with pytest.raises(type(truth.value)) as found:
            unfused(extractor, x, token_grid=grid)
        assert str(found.value) == str(truth.value)


def test_what_cannot_be_drawn_is_named() -> None:
    extractor, x = passing(pixels(1, 2, 2, 2, 2, 1))
    with pytest.raises(ShapeError, match=r"layer same: an output of \(1, 2, 2, 2, 2, 1\)"):
        unfused(extractor, x)
    with pytest.raises(ShapeError, match="empty"):
        unfused(Extractor(small_cnn()), pixels(0, 8, 8, 3))
    with pytest.raises(OptionError, match="leave kind out"):
        unfused(Extractor(small_cnn()), pixels(1, 8, 8, 3), kind="image")
    with pytest.raises(TypeError, match="colour"):
        unfused(Extractor(small_cnn()), pixels(1, 8, 8, 3), colour="red")


def test_arrays_are_not_drawn_by_it() -> None:
    with pytest.raises(OptionError, match="one of auto, native, numba, numpy, not 'tensorflow'"):
        actgrid.render(pixels(1, 8, 8, 3), backend="tensorflow")


def test_a_gpu_is_where_tensorflow_puts_things() -> None:
    assert on_gpu() == bool(tf.config.list_logical_devices("GPU"))
    with tf.device("CPU:0"):
        assert not on_gpu()


@pytest.mark.parametrize("gpu", [False, True])
def test_auto_is_it_where_the_model_runs_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    fusing: list[bool] = []

    def recorded(*arguments: Any, fuse: bool) -> dict[str, Grid]:
        fusing.append(fuse)
        return draw_on_device(*arguments, fuse=fuse)

    monkeypatch.setattr(grids, "draw_on_device", recorded)
    monkeypatch.setattr(grids, "on_gpu", lambda: gpu)
    model, x = small_cnn(), pixels(1, 8, 8, 3)
    extractor = Extractor(model)
    assert_agrees(render_model(model, x), extractor, x)
    assert_agrees(render_model(extractor, x, backend="auto"), extractor, x)
    # XLA is worth its while where an extractor is used again.
    assert fusing == ([False, True] if gpu else [])
    # What is asked for is done.
    render_model(model, x, backend="numpy")
    render_model(model, x, kind="image")
    assert len(fusing) == 2 * gpu
    render_model(extractor, x, backend="tensorflow")
    assert fusing[2 * gpu :] == [gpu]
