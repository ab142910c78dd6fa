from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers
from PIL import Image

import actgrid
from actgrid import Extractor, Grid, demo, load_images, render, render_model
from actgrid.errors import LayerError, MissingFileError, OptionError, ShapeError
from actgrid.models import LayerInfo
from actgrid.models.drawing import draw_layer

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def _same_weights_each_time() -> None:
    keras.utils.set_random_seed(20)


def pixels(*shape: int) -> Array:
    return np.random.default_rng(1).random(shape, np.float32)


def small_cnn() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, name="dense"),
        ]
    )


def token_model() -> Any:
    """Images to 9 tokens: a class token and a grid of 2 x 4."""
    return keras.Sequential(
        [
            keras.Input((4, 8, 3)),
            layers.Conv2D(6, 2, strides=2, name="patches"),
            layers.Reshape((8, 6), name="tokens"),
            layers.ZeroPadding1D((1, 0), name="with_class"),
            layers.Dense(5, name="mixed"),
        ]
    )


def assert_same_grid(found: Grid, truth: Grid) -> None:
    np.testing.assert_array_equal(found.levels, truth.levels)
    np.testing.assert_array_equal(found.channels, truth.channels)
    assert found.cmap == truth.cmap
    assert found.stats.size == truth.stats.size
    assert found.stats.to_dict() == truth.stats.to_dict()


def assert_same_grids(found: Mapping[str, Grid], truth: Mapping[str, Grid]) -> None:
    assert list(found) == list(truth)
    for path, grid in found.items():
        assert_same_grid(grid, truth[path])


def test_each_grid_is_the_rendered_activation() -> None:
    model, x = small_cnn(), pixels(2, 8, 8, 3)
    truth = {path: render(array) for path, array in Extractor(model)(x).items()}
    assert list(truth) == ["conv", "pool"]
    assert_same_grids(render_model(model, x), truth)


def test_render_options_apply_to_every_layer() -> None:
    model, x = small_cnn(), pixels(3, 8, 8, 3)
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
    truth = {path: render(array, **options) for path, array in Extractor(model)(x).items()}
    assert_same_grids(render_model(model, x, **options), truth)


def test_the_sample_is_an_image_of_the_batch() -> None:
    model, x = small_cnn(), pixels(3, 8, 8, 3)
    for sample in (0, 1, -1):
        found = render_model(model, x, "conv", sample=sample)["conv"]
        assert_same_grid(found, render(Extractor(model, "conv")(x)["conv"][sample]))
    with pytest.raises(OptionError, match="sample 3 does not exist: the batch has 3 samples"):
        render_model(model, x, sample=3)


def test_layers_are_chosen_as_for_an_extractor() -> None:
    model, x = small_cnn(), pixels(1, 8, 8, 3)
    assert list(render_model(model, x, layers.MaxPooling2D)) == ["pool"]
    assert list(render_model(model, x, layers=["*o*", 0])) == ["conv", "pool"]
    with pytest.raises(LayerError, match="conv"):
        render_model(model, x, "covn")


def test_a_dense_layer_is_drawn_on_request() -> None:
    model, x = small_cnn(), pixels(2, 8, 8, 3)
    grids = render_model(model, x, ["flatten", "dense"], sample=1)
    truth = Extractor(model, ["flatten", "dense"])(x)
    assert_same_grids(
        grids, {path: render(array, kind="dense", sample=1) for path, array in truth.items()}
    )
    assert grids["flatten"].levels.shape == (6, 6)


def test_an_extractor_is_used_as_it_is() -> None:
    extractor = Extractor(small_cnn(), "conv")
    x = pixels(2, 8, 8, 3)
    first = render_model(extractor, x)
    assert_same_grids(render_model(extractor, x), first)
    assert_same_grids(first, {"conv": render(extractor(x)["conv"])})
    assert extractor.trace_count == 1


def test_the_demo_by_its_name() -> None:
    grids = render_model("demo", demo.photo(), ["stem_relu", "block0_project_conv"])
    network = demo.model()
    x = load_images(demo.photo(), size=224, preprocess="none")
    truth = Extractor(network, ["stem_relu", "block0_project_conv"])(x)
    assert_same_grids(grids, {path: render(array) for path, array in truth.items()})
    assert len(grids["stem_relu"].channels) == 32


@pytest.mark.parametrize("kind", [str, Path])
def test_image_files_are_prepared_for_the_model(tmp_path: Path, kind: Any) -> None:
    model = small_cnn()
    rng = np.random.default_rng(2)
    for name in ("a", "b"):
        array = rng.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    x = load_images(files, model=model)
    assert x.shape == (2, 8, 8, 3)
    assert x.max() <= 1
    truth = render_model(model, x)
    assert_same_grids(render_model(model, [kind(file) for file in files]), truth)
    assert_same_grids(render_model(model, kind(files[0])), truth)
    assert_same_grids(render_model(model, kind(tmp_path)), truth)
    assert_same_grids(
        render_model(model, str(tmp_path / "*.png"), sample=1), render_model(model, x, sample=1)
    )
    with pytest.raises(MissingFileError):
        render_model(model, kind(tmp_path / "c.png"))


def test_pillow_images_are_prepared_for_the_model() -> None:
    model = small_cnn()
    pictures = [
        Image.fromarray((pixels(9, 9, 3) * 255).astype(np.uint8)),
        Image.fromarray((pixels(5, 7) * 255).astype(np.uint8)),
    ]
    x = load_images(pictures, model=model)
    assert_same_grids(render_model(model, pictures, sample=1), render_model(model, x, sample=1))
    assert_same_grids(render_model(model, tuple(pictures)), render_model(model, x))
    assert_same_grids(render_model(model, pictures[0]), render_model(model, x[:1]))


def test_several_inputs_are_no_images() -> None:
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    model = keras.Model([a, b], layers.Add(name="add")([a, b]))
    x = [pixels(1, 8, 8, 3), pixels(1, 8, 8, 3)]
    assert_same_grids(render_model(model, x), {"add": render(x[0] + x[1])})


def test_a_token_grid_is_for_sequences_only() -> None:
    model, x = token_model(), pixels(1, 4, 8, 3)
    grids = render_model(model, x, ["patches", "with_class", "mixed"], token_grid=(2, 4))
    truth = Extractor(model)(x)
    assert_same_grid(grids["patches"], render(truth["patches"]))
    mixed = truth["mixed"]
    assert_same_grid(grids["mixed"], render(mixed, token_grid=(2, 4)))
    # The class token comes first, and is left out.
    as_image = mixed[:, 1:].reshape(1, 2, 4, 5)
    np.testing.assert_array_equal(grids["mixed"].levels, render(as_image).levels)
    np.testing.assert_array_equal(grids["with_class"].levels, render(truth["patches"]).levels)


def test_a_sequence_is_one_picture_unless_a_token_grid_is_given() -> None:
    model, x = token_model(), pixels(2, 4, 8, 3)
    grid = render_model(model, x, "mixed", sample=1)["mixed"]
    assert grid.levels.shape == (9, 5)
    truth = Extractor(model, "mixed")(x)["mixed"]
    assert_same_grid(grid, render(truth, kind="sequence", sample=1))


def test_a_single_sequence_is_no_image() -> None:
    # (N, T, C) has the rank of an image without its batch axis.
    model = keras.Sequential([keras.Input((7, 3)), layers.Conv1D(4, 3, name="conv")])
    assert render_model(model, pixels(1, 7, 3))["conv"].levels.shape == (5, 4)


def test_volumes_are_drawn_with_a_row_for_each_channel() -> None:
    model = keras.Sequential([keras.Input((5, 6, 7, 1)), layers.Conv3D(2, 2, name="conv")])
    x = pixels(2, 5, 6, 7, 1)
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
    x = pixels(2, 3, 8, 10)
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


def test_images_are_prepared_for_a_channels_first_model() -> None:
    model = keras.Sequential(
        [
            keras.Input((3, 8, 8)),
            layers.Permute((2, 3, 1), name="permute"),
            layers.GlobalAveragePooling2D(data_format="channels_last"),
        ]
    )
    picture = Image.fromarray((pixels(8, 8, 3) * 255).astype(np.uint8))
    grid = render_model(model, picture, "permute", data_format="channels_last")["permute"]
    assert_same_grid(grid, render(np.asarray(picture, np.float32)[None] / np.float32(255)))


def test_half_precision_layers_are_drawn() -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, dtype="mixed_bfloat16", name="conv")]
    )
    x = pixels(1, 8, 8, 3)
    array = Extractor(model)(x)["conv"]
    assert array.dtype.name == "bfloat16"
    assert_same_grid(render_model(model, x)["conv"], render(array))


def test_a_layer_of_another_rank_is_named() -> None:
    model = keras.Sequential([keras.Input((16,)), layers.Reshape((2, 2, 2, 2, 1), name="folded")])
    with pytest.raises(ShapeError, match=r"layer folded: an output of \(1, 2, 2, 2, 2, 1\)"):
        render_model(model, pixels(1, 16), "folded")


def test_bad_options_are_refused() -> None:
    with pytest.raises(OptionError, match="normalize"):
        render_model(small_cnn(), pixels(1, 8, 8, 3), normalize="nothing")
    with pytest.raises(TypeError, match="colour"):
        render_model(small_cnn(), pixels(1, 8, 8, 3), colour="red")  # type: ignore[call-arg]


def info(path: str, *shape: int, data_format: str = "channels_last") -> LayerInfo:
    return LayerInfo(path, "Layer", shape, "float32", data_format, 0, None)


def test_draw_layer_knows_the_kind_by_the_rank() -> None:
    for shape in ((2, 9), (2, 6, 4), (2, 5, 4, 3), (2, 3, 5, 4, 2)):
        kind = {2: "dense", 3: "sequence", 4: "image", 5: "volume"}[len(shape)]
        array = pixels(*shape)
        assert_same_grid(draw_layer(info("a", *shape), array), render(array, kind=kind))


def test_draw_layer_lets_options_decide() -> None:
    array = pixels(3, 3, 2, 4)
    grid = draw_layer(info("a", 3, 3, 2, 4), array, kind="kernel")
    assert_same_grid(grid, render(array, kind="kernel"))
    first = draw_layer(info("a", 3, 3, 2, 4, data_format="channels_first"), array)
    assert_same_grid(first, render(array, data_format="channels_first"))


def test_render_model_is_public() -> None:
    assert actgrid.render_model is render_model


def test_an_output_for_the_whole_batch_is_drawn_for_every_sample() -> None:
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


def test_an_iterator_may_give_the_order() -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.ReLU()]
    )
    x = np.zeros((1, 8, 8, 3), np.float32)
    grids = render_model(model, x, order=iter([2, 0]))
    assert [grid.channels.tolist() for grid in grids.values()] == [[2, 0], [2, 0]]


def test_layers_are_an_extractors_own_affair() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="c")])
    extractor = actgrid.Extractor(model)
    with pytest.raises(OptionError, match="those of the extractor"):
        render_model(extractor, np.zeros((1, 8, 8, 3), np.float32), "c")
