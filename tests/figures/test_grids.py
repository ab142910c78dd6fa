"""Grids of the activations of a model, by `render_model`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import actgrid
from actgrid import Extractor, Grid, demo, load_images, render, render_model
from actgrid.errors import LayerError, MissingFileError, OptionError, ShapeError
from actgrid.models import LayerInfo
from actgrid.models.drawing import draw_layer

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def _set_seed() -> None:
    keras.utils.set_random_seed(20)


def make_pixels(*shape: int) -> Array:
    return np.random.default_rng(1).random(shape, np.float32)


def make_small_cnn() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, name="dense"),
        ]
    )


def make_token_model() -> Any:
    """Return a model from images to 9 tokens: a class token and a grid of 2 x 4."""
    return keras.Sequential(
        [
            keras.Input((4, 8, 3)),
            layers.Conv2D(6, 2, strides=2, name="patches"),
            layers.Reshape((8, 6), name="tokens"),
            layers.ZeroPadding1D((1, 0), name="with_class"),
            layers.Dense(5, name="mixed"),
        ]
    )


def assert_same_grid(actual: Grid, expected: Grid) -> None:
    np.testing.assert_array_equal(actual.levels, expected.levels)
    np.testing.assert_array_equal(actual.channels, expected.channels)
    assert actual.cmap == expected.cmap
    assert actual.stats.size == expected.stats.size
    assert actual.stats.to_dict() == expected.stats.to_dict()


def assert_same_grids(actual: Mapping[str, Grid], expected: Mapping[str, Grid]) -> None:
    assert list(actual) == list(expected)
    for path, grid in actual.items():
        assert_same_grid(grid, expected[path])


def test_grids_match_rendered_activations() -> None:
    model, x = make_small_cnn(), make_pixels(2, 8, 8, 3)
    expected = {path: render(array) for path, array in Extractor(model)(x).items()}
    assert list(expected) == ["conv", "pool"]
    assert_same_grids(render_model(model, x), expected)


def test_options_apply_to_every_layer() -> None:
    model, x = make_small_cnn(), make_pixels(3, 8, 8, 3)
    options: dict[str, Any] = {
        "sample": 2,
        "normalize": "minmax",
        "scope": "layer",
        "columns": 3,
        "padding": 2,
        "zoom": 2,
        "background": 9,
        "order": "std",
        "cmap": "magma",
        "backend": "numpy",
    }
    expected = {path: render(array, **options) for path, array in Extractor(model)(x).items()}
    assert_same_grids(render_model(model, x, **options), expected)


def test_sample_is_an_index_in_the_batch() -> None:
    model, x = make_small_cnn(), make_pixels(3, 8, 8, 3)
    for sample in (0, 1, -1):
        grid = render_model(model, x, "conv", sample=sample)["conv"]
        assert_same_grid(grid, render(Extractor(model, "conv")(x)["conv"][sample]))
    with pytest.raises(OptionError, match="sample 3 does not exist: the batch has 3 samples"):
        render_model(model, x, sample=3)


def test_layer_selection() -> None:
    model, x = make_small_cnn(), make_pixels(1, 8, 8, 3)
    assert list(render_model(model, x, layers.MaxPooling2D)) == ["pool"]
    assert list(render_model(model, x, layers=["*o*", 0])) == ["conv", "pool"]
    with pytest.raises(LayerError, match="conv"):
        render_model(model, x, "covn")


def test_dense_layers_are_drawn_if_chosen() -> None:
    model, x = make_small_cnn(), make_pixels(2, 8, 8, 3)
    grids = render_model(model, x, ["flatten", "dense"], sample=1)
    expected = Extractor(model, ["flatten", "dense"])(x)
    assert_same_grids(
        grids, {path: render(array, kind="dense", sample=1) for path, array in expected.items()}
    )
    assert grids["flatten"].levels.shape == (6, 6)


def test_extractor_is_not_compiled_again() -> None:
    extractor = Extractor(make_small_cnn(), "conv")
    x = make_pixels(2, 8, 8, 3)
    first = render_model(extractor, x)
    assert_same_grids(render_model(extractor, x), first)
    assert_same_grids(first, {"conv": render(extractor(x)["conv"])})
    assert extractor.trace_count == 1


def test_demo_model_by_name() -> None:
    grids = render_model("demo", demo.photo(), ["stem_relu", "block0_project_conv"])
    network = demo.model()
    x = load_images(demo.photo(), size=224, preprocess="none")
    expected = Extractor(network, ["stem_relu", "block0_project_conv"])(x)
    assert_same_grids(grids, {path: render(array) for path, array in expected.items()})
    assert len(grids["stem_relu"].channels) == 32


@pytest.mark.parametrize("path_type", [str, Path])
def test_image_files_are_prepared_for_the_model(tmp_path: Path, path_type: Any) -> None:
    model = make_small_cnn()
    rng = np.random.default_rng(2)
    for name in ("a", "b"):
        array = rng.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    x = load_images(files, model=model)
    assert x.shape == (2, 8, 8, 3)
    assert x.max() <= 1
    expected = render_model(model, x)
    assert_same_grids(render_model(model, [path_type(file) for file in files]), expected)
    assert_same_grids(render_model(model, path_type(files[0])), expected)
    assert_same_grids(render_model(model, path_type(tmp_path)), expected)
    assert_same_grids(
        render_model(model, str(tmp_path / "*.png"), sample=1), render_model(model, x, sample=1)
    )
    with pytest.raises(MissingFileError):
        render_model(model, path_type(tmp_path / "c.png"))


def test_pillow_images_are_prepared_for_the_model() -> None:
    model = make_small_cnn()
    pictures = [
        Image.fromarray((make_pixels(9, 9, 3) * 255).astype(np.uint8)),
        Image.fromarray((make_pixels(5, 7) * 255).astype(np.uint8)),
    ]
    x = load_images(pictures, model=model)
    assert_same_grids(render_model(model, pictures, sample=1), render_model(model, x, sample=1))
    assert_same_grids(render_model(model, tuple(pictures)), render_model(model, x))
    assert_same_grids(render_model(model, pictures[0]), render_model(model, x[:1]))


def test_list_of_arrays_is_several_inputs() -> None:
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    model = keras.Model([a, b], layers.Add(name="add")([a, b]))
    x = [make_pixels(1, 8, 8, 3), make_pixels(1, 8, 8, 3)]
    assert_same_grids(render_model(model, x), {"add": render(x[0] + x[1])})


def test_token_grid_applies_only_to_sequences() -> None:
    model, x = make_token_model(), make_pixels(1, 4, 8, 3)
    grids = render_model(model, x, ["patches", "with_class", "mixed"], token_grid=(2, 4))
    expected = Extractor(model)(x)
    assert_same_grid(grids["patches"], render(expected["patches"]))
    mixed = expected["mixed"]
    assert_same_grid(grids["mixed"], render(mixed, token_grid=(2, 4)))
    # The class token comes first and is skipped.
    as_image = mixed[:, 1:].reshape(1, 2, 4, 5)
    np.testing.assert_array_equal(grids["mixed"].levels, render(as_image).levels)
    np.testing.assert_array_equal(grids["with_class"].levels, render(expected["patches"]).levels)


def test_sequence_without_token_grid_is_one_tile() -> None:
    model, x = make_token_model(), make_pixels(2, 4, 8, 3)
    grid = render_model(model, x, "mixed", sample=1)["mixed"]
    assert grid.levels.shape == (9, 5)
    expected = Extractor(model, "mixed")(x)["mixed"]
    assert_same_grid(grid, render(expected, kind="sequence", sample=1))


def test_single_sequence_is_not_an_image() -> None:
    # (N, T, C) has the rank of an image without a batch axis.
    model = keras.Sequential([keras.Input((7, 3)), layers.Conv1D(4, 3, name="conv")])
    assert render_model(model, make_pixels(1, 7, 3))["conv"].levels.shape == (5, 4)


def test_volumes_have_a_row_for_each_channel() -> None:
    model = keras.Sequential([keras.Input((5, 6, 7, 1)), layers.Conv3D(2, 2, name="conv")])
    x = make_pixels(2, 5, 6, 7, 1)
    grid = render_model(model, x, padding=1)["conv"]
    assert grid.levels.shape == (2 * 5 + 1, 4 * 6 + 3)
    assert_same_grid(grid, render(Extractor(model)(x)["conv"]))


def test_channels_first_layers_have_a_tile_for_each_channel() -> None:
    model = keras.Sequential(
        [
            keras.Input((3, 8, 10)),
            layers.AveragePooling2D(2, data_format="channels_first", name="pool"),
            layers.ReLU(name="relu"),
        ]
    )
    x = make_pixels(2, 3, 8, 10)
    activations = Extractor(model)(x)
    grids = render_model(model, x, sample=1)
    assert list(grids) == ["pool", "relu"]
    for path, grid in grids.items():
        array = activations[path]
        assert array.shape == (2, 3, 4, 5)
        assert grid.channels.tolist() == [0, 1, 2]
        np.testing.assert_allclose(grid.stats.mean, array[1].mean((1, 2)), rtol=1e-5)
        for channel in range(3):
            alone = render(array[1, channel][..., None])
            np.testing.assert_array_equal(grid.tile(channel), alone.levels)


def test_images_are_prepared_for_channels_first_model() -> None:
    model = keras.Sequential(
        [
            keras.Input((3, 8, 8)),
            layers.Permute((2, 3, 1), name="permute"),
            layers.GlobalAveragePooling2D(data_format="channels_last"),
        ]
    )
    picture = Image.fromarray((make_pixels(8, 8, 3) * 255).astype(np.uint8))
    grid = render_model(model, picture, "permute", data_format="channels_last")["permute"]
    assert_same_grid(grid, render(np.asarray(picture, np.float32)[None] / np.float32(255)))


def test_bfloat16_layer() -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, dtype="mixed_bfloat16", name="conv")]
    )
    x = make_pixels(1, 8, 8, 3)
    array = Extractor(model)(x)["conv"]
    assert array.dtype.name == "bfloat16"
    assert_same_grid(render_model(model, x)["conv"], render(array))


def test_layer_of_unsupported_rank_is_rejected() -> None:
    model = keras.Sequential([keras.Input((16,)), layers.Reshape((2, 2, 2, 2, 1), name="folded")])
    with pytest.raises(ShapeError, match=r"layer folded: an output of shape \(1, 2, 2, 2, 2, 1\)"):
        render_model(model, make_pixels(1, 16), "folded")


def test_invalid_options_are_rejected() -> None:
    with pytest.raises(OptionError, match="normalize"):
        render_model(make_small_cnn(), make_pixels(1, 8, 8, 3), normalize="nothing")
    with pytest.raises(TypeError, match="colour"):
        render_model(make_small_cnn(), make_pixels(1, 8, 8, 3), colour="red")  # type: ignore[call-arg]


def make_info(path: str, *shape: int, data_format: str = "channels_last") -> LayerInfo:
    return LayerInfo(path, "Layer", shape, "float32", data_format, 0, None)


def test_draw_layer_infers_kind_from_rank() -> None:
    for shape in ((2, 9), (2, 6, 4), (2, 5, 4, 3), (2, 3, 5, 4, 2)):
        kind = {2: "dense", 3: "sequence", 4: "image", 5: "volume"}[len(shape)]
        array = make_pixels(*shape)
        assert_same_grid(draw_layer(make_info("a", *shape), array), render(array, kind=kind))


def test_draw_layer_options_override_the_layer() -> None:
    array = make_pixels(3, 3, 2, 4)
    grid = draw_layer(make_info("a", 3, 3, 2, 4), array, kind="kernel")
    assert_same_grid(grid, render(array, kind="kernel"))
    first = draw_layer(make_info("a", 3, 3, 2, 4, data_format="channels_first"), array)
    assert_same_grid(first, render(array, data_format="channels_first"))


def test_render_model_is_public() -> None:
    assert actgrid.render_model is render_model


def test_output_without_batch_is_drawn_for_every_sample() -> None:
    class Positions(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return keras.ops.ones((1, 8, 8, 2))

    inputs = keras.Input((8, 8, 2))
    positions = Positions(name="positions")(inputs)
    model = keras.Model(inputs, keras.layers.Add(name="add")([inputs, positions]))
    x = np.random.default_rng(0).random((2, 8, 8, 2)).astype(np.float32)
    grids = render_model(model, x, sample=1)
    assert list(grids) == ["positions", "add"]
    with pytest.raises(OptionError, match="sample 1"):
        render_model(model, x[:1], sample=1)


def test_order_as_iterator() -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.ReLU()]
    )
    x = np.zeros((1, 8, 8, 3), np.float32)
    grids = render_model(model, x, order=iter([2, 0]))
    assert [grid.channels.tolist() for grid in grids.values()] == [[2, 0], [2, 0]]


def test_layers_with_extractor_are_rejected() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="c")])
    extractor = actgrid.Extractor(model)
    with pytest.raises(OptionError, match="layers must be None for an extractor"):
        render_model(extractor, np.zeros((1, 8, 8, 3), np.float32), "c")


def sort_by_relevance(model: Any, x: Array, layer: str, target: Any, sample: int) -> list[int]:
    """Return the channels in the order of activation times gradient, by a gradient tape."""
    index = [each.name for each in model.layers].index(layer)
    activation = tf.constant(keras.Model(model.inputs[0], model.layers[index].output)(x))
    with tf.GradientTape() as tape:
        tape.watch(activation)
        outputs = activation
        for each in model.layers[index + 1 :]:
            outputs = each(outputs)
        score = outputs[sample, target]
    product = (activation * tape.gradient(score, activation)).numpy()[sample]
    relevance = product.reshape(-1, product.shape[-1]).sum(0)
    assert np.unique(relevance).size == relevance.size
    order: list[int] = np.argsort(-relevance).tolist()
    assert order != sorted(order)
    return order


@pytest.mark.parametrize(("target", "sample"), [(3, 0), (3, -1), ([0, 4], 1), (None, 1)])
def test_grids_are_sorted_by_relevance_for_the_sample(target: Any, sample: int) -> None:
    model, x = make_small_cnn(), make_pixels(2, 8, 8, 3)
    names = ["conv", "pool", "flatten"]
    model.get_layer("conv").activation = keras.activations.tanh
    grids = render_model(model, x, names, order="relevance", target=target, sample=sample)
    row = int(model(x)[sample].numpy().argmax()) if target is None else target
    row = row[sample] if isinstance(row, list) else row
    for path, grid in grids.items():
        channels = sort_by_relevance(model, x, path, row, sample)
        assert grid.channels.tolist() == channels
        assert_same_grid(grid, render_model(model, x, path, order=channels, sample=sample)[path])


def test_slices_of_a_volume_stay_with_their_channel_when_sorted_by_relevance() -> None:
    model = keras.Sequential(
        [
            keras.Input((4, 5, 6, 1)),
            layers.Conv3D(5, 2, activation="tanh", name="conv"),
            layers.GlobalAveragePooling3D(),
            layers.Dense(3),
        ]
    )
    x = make_pixels(1, 4, 5, 6, 1)
    channels = sort_by_relevance(model, x, "conv", 1, 0)
    grid = render_model(model, x, "conv", order="relevance", target=1)["conv"]
    assert grid.channels.tolist() == np.repeat(channels, 3).tolist()
    values = Extractor(model, "conv")(x)["conv"]
    assert_same_grid(grid, render(values, order=channels))


def test_tokens_in_a_grid_are_sorted_by_relevance() -> None:
    model = make_token_model()
    model.add(layers.Flatten())
    model.add(layers.Dense(3))
    x = make_pixels(1, 4, 8, 3)
    channels = sort_by_relevance(model, x, "mixed", 2, 0)
    options: Any = {"order": "relevance", "target": 2, "token_grid": (2, 4)}
    grid = render_model(model, x, "mixed", **options)["mixed"]
    assert grid.channels.tolist() == channels
    values = Extractor(model, "mixed")(x)["mixed"]
    expected = render(values, kind="sequence", token_grid=(2, 4), order=channels)
    assert_same_grid(grid, expected)


def test_an_extractor_and_a_fixed_batch_size_can_be_sorted_by_relevance() -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), batch_size=2),
            layers.Conv2D(6, 3, activation="tanh", name="conv"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    x = make_pixels(2, 8, 8, 3)
    channels = sort_by_relevance(model, x, "conv", 1, 1)
    extractor = Extractor(model, "conv")
    grid = render_model(extractor, x, order="relevance", target=1, sample=1)["conv"]
    assert grid.channels.tolist() == channels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 1}, "target is only used with order='relevance': got order='index'"),
        ({"labels": ["a"] * 5, "order": [0]}, r"labels is only used .*: got order=\[0\]"),
        ({"order": "relevance", "kind": "image"}, "kind must be None with order='relevance'"),
        ({"order": "relevance", "data_format": "channels_last"}, "data_format must be None"),
        ({"order": "relevance", "target": [[0], [1, 2]]}, "got 3 targets for 2 samples"),
        ({"order": "relevance", "sample": 2}, "sample 2 does not exist"),
        ({"order": "relevance", "backend": "tensorflow"}, "choose another backend"),
    ],
)
def test_invalid_options_of_relevance_raise_errors(options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        render_model(make_small_cnn(), make_pixels(2, 8, 8, 3), "conv", **options)


def test_an_array_cannot_be_sorted_by_relevance() -> None:
    with pytest.raises(OptionError, match=r"needs a model .*use actgrid.render_model, or pass"):
        render(make_pixels(1, 4, 4, 3), order="relevance")
