"""Tests of `actgrid.models.receptive_fields`."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from actgrid.errors import LayerError, ModelError
from actgrid.models.receptive_fields import ReceptiveField, compute_receptive_fields

Build = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _set_random_seed() -> None:
    keras.utils.set_random_seed(3)


def make_square_field(*numbers: int) -> ReceptiveField:
    """Return a field with the same size, stride and start along both axes."""
    size, stride, start = numbers
    return ReceptiveField((size, size), (stride, stride), (start, start))


def make_functional_model(build: Build, shape: tuple[int | None, ...] = (32, 32, 3)) -> Any:
    """Return a functional model whose last layer is called "out"."""
    x = keras.Input(shape)
    return keras.Model(x, layers.Identity(name="out")(build(x)))


def compute_output_field(model: Any, x: Any = None) -> ReceptiveField | None:
    return compute_receptive_fields(model, x, "out")["out"]


# Known values


def test_vgg16_matches_published_values() -> None:
    """Values of Araujo, Norris and Sim (2019) and of the recursive formula."""
    model = keras.applications.VGG16(weights=None)
    fields = compute_receptive_fields(model)
    assert len(fields) == 18
    values = {
        path: (field.size[0], field.stride[0], field.start[0])
        for path, field in fields.items()
        if field
    }
    assert values["block1_conv1"] == (3, 1, -1)
    assert values["block1_conv2"] == (5, 1, -2)
    assert values["block1_pool"] == (6, 2, -2)
    assert values["block5_conv3"] == (196, 16, -90)
    assert values["block5_pool"] == (212, 32, -90)


def test_resnet50_matches_published_values() -> None:
    fields = compute_receptive_fields(
        keras.applications.ResNet50(weights=None), layers=["conv5_block3_out"]
    )
    field = fields["conv5_block3_out"]
    assert field is not None
    assert field.size == (483, 483)
    assert field.stride == (32, 32)


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (layers.Conv2D(2, 3), make_square_field(3, 1, 0)),
        (layers.Conv2D(2, 3, padding="same"), make_square_field(3, 1, -1)),
        (layers.Conv2D(2, 4, padding="same"), make_square_field(4, 1, -1)),
        # With an even size, the one padding pixel comes last.
        (layers.Conv2D(2, 3, strides=2, padding="same"), make_square_field(3, 2, 0)),
        (layers.Conv2D(2, 3, dilation_rate=2), make_square_field(5, 1, 0)),
        (layers.MaxPooling2D(2), make_square_field(2, 2, 0)),
        (layers.ZeroPadding2D(3), make_square_field(1, 1, -3)),
        (layers.Cropping2D(3), make_square_field(1, 1, 3)),
        (layers.UpSampling2D(2), None),
        (lambda x: layers.Conv2D(2, 3)(layers.MaxPooling2D(2)(x)), make_square_field(6, 2, 0)),
    ],
)
def test_single_layer(build: Build, field: ReceptiveField | None) -> None:
    if field is None:
        half = Fraction(1, 2)
        field = ReceptiveField((3 * half, 3 * half), (half, half), (-half, -half))
    assert compute_output_field(make_functional_model(build)) == field


def test_axes_have_separate_fields() -> None:
    field = compute_output_field(
        make_functional_model(layers.Conv2D(2, (1, 5), strides=(1, 2)), (20, 40, 3))
    )
    assert field is not None
    assert (field.size, field.stride, field.start) == ((1, 5), (1, 2), (0, 0))


def test_window_and_box() -> None:
    field = make_square_field(10, 4, -3)
    assert field.window((0, 2)) == (-3, 5, 7, 15)
    assert field.box((0, 2), (32, 12)) == (0, 5, 7, 12)
    assert field.box((100, 0), (32, 32)) == (32, 0, 32, 7)  # only padding
    # Each position of an image enlarged by a factor of 2 depends on one pixel.
    enlarged = compute_output_field(make_functional_model(layers.UpSampling2D(2)))
    assert enlarged is not None
    assert [enlarged.window((index, index)) for index in range(4)] == [
        (index // 2, index // 2, index // 2 + 1, index // 2 + 1) for index in range(4)
    ]


# Comparison with gradients


def find_used_pixels(
    model: Any, image: npt.NDArray[Any], position: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Return a mask of the pixels that a position of the output depends on."""
    x = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = model(x, training=False)
        value = tf.reduce_sum(outputs[0, position[0], position[1]])
    gradient = tape.gradient(value, x)
    if gradient is None:
        return np.zeros(image.shape[1:3], bool)
    used: npt.NDArray[np.bool_] = np.abs(gradient.numpy()[0]).max(-1) > 0
    return used


def assert_exact(build: Build, shape: tuple[int, int, int] = (24, 21, 2)) -> None:
    """Assert that boxes contain all used pixels and are as small as possible."""
    model = make_functional_model(build, shape)
    field = compute_output_field(model)
    assert field is not None
    rng = np.random.default_rng(5)
    image = rng.uniform(0.1, 1, (1, *shape)).astype(np.float32)
    # With positive weights no gradients cancel and every ReLU is active.
    model.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    _, height, width, _ = model.output_shape
    size = shape[:2]
    reached_edges = np.zeros(4, bool)
    for y in sorted({0, 1, height // 2, height // 2 + 1, height - 1}):
        for x in sorted({0, 1, width // 2, width // 2 + 1, width - 1}):
            used = find_used_pixels(model, image, (y, x))
            box = top, left, bottom, right = field.box((y, x), size)
            assert used.sum() == used[top:bottom, left:right].sum(), (y, x, field)
            if box == field.window((y, x)) and used.any():
                rows, columns = np.flatnonzero(used.any(1)), np.flatnonzero(used.any(0))
                edges = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
                reached_edges |= np.array(edges) == np.array(box)
    assert reached_edges.all(), field


PADDING = st.sampled_from(["same", "valid"])


def draw_layer_factory(layer: Any, **options: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(partial, st.just(layer), **options)


def draw_side_pairs(min_value: int, max_value: int) -> st.SearchStrategy[Any]:
    pair = st.tuples(st.integers(min_value, max_value), st.integers(min_value, max_value))
    return st.tuples(pair, pair)


LAYER_FACTORIES = st.one_of(
    draw_layer_factory(
        layers.Conv2D,
        filters=st.just(2),
        kernel_size=st.integers(1, 4),
        strides=st.integers(1, 2),
        padding=PADDING,
    ),
    draw_layer_factory(
        layers.Conv2D,
        filters=st.just(2),
        kernel_size=st.integers(2, 3),
        dilation_rate=st.integers(2, 3),
        padding=PADDING,
    ),
    draw_layer_factory(layers.DepthwiseConv2D, kernel_size=st.integers(1, 3), padding=PADDING),
    # The gradient of a mean, unlike that of a maximum, reaches the whole window.
    draw_layer_factory(
        layers.AveragePooling2D,
        pool_size=st.integers(1, 3),
        strides=st.integers(1, 2),
        padding=PADDING,
    ),
    draw_layer_factory(layers.ZeroPadding2D, padding=draw_side_pairs(0, 2)),
    draw_layer_factory(layers.Cropping2D, cropping=draw_side_pairs(0, 2)),
    draw_layer_factory(layers.BatchNormalization),
)


@settings(max_examples=20)
@given(st.lists(LAYER_FACTORIES, min_size=1, max_size=3))
def test_chains_of_layers(steps: list[Any]) -> None:
    def build(x: Any) -> Any:
        for make in steps:
            x = make()(x)
        return x

    assert_exact(build, (64, 61, 1))


def make_branches(*, merge: Any, strides: int = 1) -> Build:
    def build(x: Any) -> Any:
        wide_branch = layers.Conv2D(2, 5, strides, "same")(layers.Conv2D(2, 3, padding="same")(x))
        return merge([wide_branch, layers.Conv2D(2, 1, strides, "same")(x)])

    return build


def apply_gate(x: Any) -> Any:
    x = layers.Conv2D(4, 3, 2)(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="sigmoid")(gate)
    return layers.Multiply()([x, gate])


def apply_padding(x: Any, data_format: str = "channels_last") -> Any:
    x = layers.Conv2D(2, 3, 2, "same", data_format=data_format)(x)
    x = layers.ZeroPadding2D(1, data_format=data_format)(x)
    return layers.AveragePooling2D(2, data_format=data_format)(x)


def apply_channels_first(x: Any) -> Any:
    padded = apply_padding(layers.Permute((3, 1, 2))(x), "channels_first")
    return layers.Permute((2, 3, 1))(padded)


def move_pixels_to_channels(x: Any) -> Any:
    x = layers.Reshape((12, 2, 7, 3, 2))(x)
    x = layers.Permute((1, 3, 2, 4, 5))(x)
    return layers.Conv2D(2, 2)(layers.Reshape((12, 7, 12))(x))


class Sliced(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x[:, 2:-1:2, ..., :1] + tf.concat([x[:, :-3:2], x[:, 1:-2:2]], -1)[..., 1:2]


class Separate(keras.Model):  # type: ignore[misc]
    """A subclassed model, to be nested in another model."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layers.SeparableConv2D(3, 3, padding="same", dilation_rate=2)
        self.second = layers.Conv2D(4, 2, 2)

    def call(self, x: Any) -> Any:
        return tf.nn.space_to_depth(self.second(self.first(x))[:, 1:9, 1:9], 2)


TRACKED_BUILDS: dict[str, Build] = {
    "add": make_branches(merge=layers.Add()),
    "concatenate": make_branches(merge=layers.Concatenate()),
    "multiply": make_branches(merge=layers.Multiply(), strides=2),
    "transposed": layers.Conv2DTranspose(2, 3, 2, "same"),
    "transposed, valid": layers.Conv2DTranspose(2, 4, 2),
    "transposed, then a convolution": lambda x: layers.Conv2D(2, 3, 2)(
        layers.Conv2DTranspose(2, 3, 2, "same")(layers.AveragePooling2D(2)(x))
    ),
    "nearest": lambda x: layers.UpSampling2D(2)(layers.Conv2D(2, 3)(x)),
    "bilinear": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(layers.Conv2D(2, 3)(x)),
    "bicubic": layers.UpSampling2D(2, interpolation="bicubic"),
    "smaller": layers.Resizing(8, 7),
    "smaller, nearest": lambda x: layers.Conv2D(1, 2)(
        layers.Resizing(6, 7, interpolation="nearest")(x)
    ),
    "encoder and decoder": lambda x: layers.UpSampling2D(2)(
        layers.Conv2D(2, 2)(layers.AveragePooling2D(2)(x))
    ),
    "grouped": layers.Conv2D(4, 3, groups=2),
    "a subclassed model": lambda x: Separate()(x),
    "slices": lambda x: Sliced()(x),
    "padded": apply_padding,
    "pixels to channels": move_pixels_to_channels,
    "dense over channels": lambda x: layers.Conv2D(2, 3)(layers.Dense(3)(x)),
    "einsum": lambda x: layers.EinsumDense("abcd,de->abce", (11, 10, 3))(layers.Conv2D(2, 3, 2)(x)),
    "normalized over channels": lambda x: layers.LayerNormalization()(layers.Conv2D(3, 3)(x)),
    "activations": lambda x: layers.PReLU()(
        layers.Softmax()(keras.activations.silu(keras.activations.gelu(layers.Conv2D(2, 3)(x))))
    ),
}


@pytest.mark.parametrize("build", TRACKED_BUILDS.values(), ids=TRACKED_BUILDS)
def test_fields_match_gradients(build: Build) -> None:
    assert_exact(build)


def test_channels_first_fields_equal_channels_last() -> None:
    """Compare fields, not gradients, which TensorFlow lacks on a CPU without oneDNN."""
    assert compute_output_field(
        make_functional_model(apply_channels_first)
    ) == compute_output_field(make_functional_model(apply_padding))


def test_global_gate_is_ignored() -> None:
    assert compute_output_field(make_functional_model(apply_gate)) == make_square_field(3, 2, 0)
    assert compute_output_field(
        make_functional_model(layers.GroupNormalization(1))
    ) == make_square_field(1, 1, 0)


def test_skip_connection_across_stride() -> None:
    def build_unet(x: Any) -> Any:
        down = layers.Conv2D(4, 3, 2, padding="same")(x)
        up = layers.Conv2DTranspose(4, 2, 2)(down)
        return layers.Concatenate()([up, layers.Conv2D(4, 3, padding="same")(x)])

    assert_exact(build_unet, (24, 20, 2))


# Untracked operations

UNTRACKED_BUILDS: dict[str, Build] = {
    "global pooling": lambda x: layers.GlobalAveragePooling2D(keepdims=True)(x),
    "dense": lambda x: layers.Reshape((4, 4, 3))(layers.Dense(48)(layers.Flatten()(x))),
    "a flattened image": lambda x: layers.Flatten()(x),
    "attention": lambda x: layers.Reshape((32, 32, 3))(
        layers.Attention()([layers.Reshape((1024, 3))(x)] * 2)
    ),
    "tokens": lambda x: layers.Reshape((1024, 3))(x),
    "another order of axes": lambda x: layers.Permute((2, 1, 3))(x),
    "sorted": lambda x: layers.Lambda(lambda x: tf.sort(x, axis=1))(x),
    "side by side": lambda x: layers.Concatenate(axis=1)([x, x]),
    "other strides": lambda x: layers.Add()([layers.MaxPooling2D(2)(x), layers.Cropping2D(8)(x)]),
    "pixels and all of them": lambda x: layers.Concatenate()(
        [x, layers.UpSampling2D(32)(layers.GlobalMaxPooling2D(keepdims=True)(x))]
    ),
}


@pytest.mark.parametrize("build", UNTRACKED_BUILDS.values(), ids=UNTRACKED_BUILDS)
def test_untracked_operations_have_no_field(build: Build) -> None:
    assert compute_output_field(make_functional_model(build)) is None


def test_non_image_outputs_have_no_field() -> None:
    sequence = keras.Sequential([keras.Input((9, 4)), layers.Conv1D(2, 3, name="out")])
    assert compute_output_field(sequence) is None
    volume = keras.Sequential([keras.Input((5, 5, 5, 1)), layers.Conv3D(2, 3, name="out")])
    assert compute_output_field(volume) is None


def test_two_image_inputs_have_no_field() -> None:
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    model = keras.Model([first, second], layers.Add(name="out")([first, second]))
    assert compute_output_field(model) is None


# Other models


def test_model_without_fixed_size() -> None:
    model = make_functional_model(layers.Conv2D(2, 3, 2, "same"), (None, None, 3))
    assert compute_output_field(model) is None  # the padding depends on the size
    assert compute_output_field(model, np.zeros((1, 32, 32, 3), np.float32)) == make_square_field(
        3, 2, 0
    )
    assert compute_output_field(model, np.zeros((1, 33, 33, 3), np.float32)) == make_square_field(
        3, 2, -1
    )
    unstrided = make_functional_model(layers.Conv2D(2, 3, padding="same"), (None, None, 3))
    assert compute_output_field(unstrided) == make_square_field(3, 1, -1)


def test_channels_first_model() -> None:
    model = keras.Sequential(
        [
            keras.Input((3, 32, 30)),
            layers.Conv2D(4, 3, 2, data_format="channels_first", name="conv"),
            layers.MaxPooling2D(2, data_format="channels_first", name="out"),
        ]
    )
    assert compute_output_field(model) == make_square_field(5, 4, 0)


def test_uncalled_model_needs_an_input() -> None:
    with pytest.raises(ModelError, match="call it once, or pass an input"):
        compute_receptive_fields(Separate())
    fields = compute_receptive_fields(Separate(), np.zeros((1, 24, 24, 3), np.float32), [0])
    assert list(fields.values()) == [make_square_field(5, 1, -2)]


def test_unknown_layer_raises() -> None:
    with pytest.raises(LayerError, match="no layer is called 'none'"):
        compute_receptive_fields(make_functional_model(layers.ReLU()), layers="none")


def test_demo_model() -> None:
    fields = compute_receptive_fields("demo")
    assert all(fields.values())
    last = fields[list(fields)[-1]]
    assert last is not None
    assert last.stride == (32, 32)
