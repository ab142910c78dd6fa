from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers
from PIL import Image

from actgrid import Extractor
from actgrid.errors import OptionError
from actgrid.models.drawing import draw_layer
from actgrid.models.receptive_fields import compute_receptive_fields
from actgrid.rendering.colormaps import palette
from actgrid.statistics.dataset import DatasetStats
from actgrid.statistics.top_images import TopImages, find_top_images

Array = npt.NDArray[Any]
SIDE = 16


def make_small_model() -> Any:
    keras.utils.set_random_seed(7)  # reproducible weights
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(5, 3, padding="same", activation="relu", name="conv"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(4, name="dense"),
        ]
    )


def make_photos(count: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


def measure(extractor: Extractor, images: Array, top: int = 3) -> DatasetStats:
    stats = DatasetStats(top=top)
    stats.update(extractor(images), extractor.layers, [f"photo{i}.jpg" for i in range(len(images))])
    return stats


class Loader:
    """Loads images by index, and records the indices."""

    def __init__(self, images: Array, lost: tuple[int, ...] = ()) -> None:
        self.images = images
        self.lost = lost
        self.loaded: list[int] = []

    def __call__(self, index: int) -> tuple[Array, Array] | None:
        self.loaded.append(index)
        if index in self.lost:
            return None
        return self.images[index], self.images[index][None].astype(np.float32)

    def in_gray(self, index: int) -> tuple[Array, Array]:
        return np.full((5, 5, 1), 90, np.uint8), self.images[index][None]


def search_top_images(
    names: Any = ("conv", "pool", "dense"), count: int = 6, **options: Any
) -> tuple[dict[str, TopImages], DatasetStats, Extractor, Loader]:
    model = make_small_model()
    extractor = Extractor(model, list(names))
    loader = Loader(make_photos(count), options.pop("lost", ()))
    stats = measure(extractor, loader.images)
    fields = compute_receptive_fields(model, layers=list(names))
    return find_top_images(extractor, stats, loader, fields, **options), stats, extractor, loader


def test_channels_with_largest_maxima_are_selected() -> None:
    tops, stats, _, _ = search_top_images(channels=2)
    assert list(tops) == ["conv", "pool", "dense"]
    for path, top in tops.items():
        best = np.argsort(-stats.layers[path].max)[:2]
        np.testing.assert_array_equal(top.channels, best)
        assert [list(images) for images in top.images] == [
            stats.layers[path].get_top_images(int(channel)) for channel in best
        ]
        assert top.tiles.shape == (2, 64, 64, 3)
        assert top.patches.shape == (2, 3, 64, 64, 3)
        assert not top.missing.any()


def test_patch_is_receptive_field_of_maximum() -> None:
    # Each of three pixels of the photo is enlarged to three pixels of the cell.
    tops, stats, _, loader = search_top_images(["conv"], cell=9, background=7)
    top = tops["conv"]
    for row, channel in enumerate(top.channels):
        for rank, image in enumerate(stats.layers["conv"].get_top_images(int(channel))):
            padded = np.pad(loader.images[image.index], ((1, 1), (1, 1), (0, 0)), constant_values=7)
            y, x = image.position
            patch = Image.fromarray(padded[y : y + 3, x : x + 3]).resize(
                (9, 9), Image.Resampling.BICUBIC
            )
            np.testing.assert_array_equal(top.patches[row, rank], np.asarray(patch))


def test_large_receptive_field_shows_whole_image() -> None:
    tops, stats, _, loader = search_top_images(["dense"], cell=SIDE)
    top = tops["dense"]
    for row, channel in enumerate(top.channels):
        for rank, image in enumerate(stats.layers["dense"].get_top_images(int(channel))):
            np.testing.assert_array_equal(top.patches[row, rank], loader.images[image.index])


def test_tile_equals_render() -> None:
    tops, stats, extractor, loader = search_top_images(["conv", "pool"], cell=SIDE, cmap="magma")
    activations = extractor(loader.images)
    for path, top in tops.items():
        for row, channel in enumerate(top.channels.tolist()):
            best = stats.layers[path].get_top_images(channel)[0].index
            grid = draw_layer(extractor.layers[path], activations[path], sample=best, cmap="magma")
            tile = palette("magma")[grid.tile(channel)]
            enlarged = tile.repeat(SIDE // len(tile), 0).repeat(SIDE // len(tile), 1)
            np.testing.assert_array_equal(top.tiles[row], enlarged)


def test_each_image_is_loaded_once_in_order() -> None:
    _, stats, _, loader = search_top_images(count=20, batch_size=2)
    shown = {
        image.index
        for layer in stats.layers.values()
        for channel in range(layer.count.size)
        for image in layer.get_top_images(channel)
    }
    assert set(loader.loaded) <= shown
    assert loader.loaded == sorted(set(loader.loaded))


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_result_does_not_depend_on_batch_size(batch_size: int) -> None:
    truth, *_ = search_top_images()
    tops, *_ = search_top_images(batch_size=batch_size)
    for path, top in tops.items():
        np.testing.assert_array_equal(top.patches, truth[path].patches)
        # Rounding of matrix products can depend on the batch size.
        assert np.abs(top.tiles.astype(int) - truth[path].tiles).max() <= 2


def test_missing_image_has_blank_patch() -> None:
    truth, *_ = search_top_images()
    tops, _, _, _ = search_top_images(lost=(0, 1))
    seen = 0
    for path, top in tops.items():
        for row, images in enumerate(top.images):
            for rank, image in enumerate(images):
                is_missing = image.index in (0, 1)
                assert top.missing[row, rank] == is_missing
                seen += is_missing
                if is_missing:
                    assert (top.patches[row, rank] == 200).all()
                    assert rank > 0 or (top.tiles[row] == 200).all()
                else:
                    np.testing.assert_array_equal(
                        top.patches[row, rank], truth[path].patches[row, rank]
                    )
    assert seen


def test_dead_channels_are_excluded() -> None:
    model = make_small_model()
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[..., 1:4] = 0
    model.get_layer("conv").set_weights([kernel, bias])
    extractor = Extractor(model, "conv")
    loader = Loader(make_photos(4))
    stats = measure(extractor, loader.images)
    dead = set(np.flatnonzero(stats.layers["conv"].dead).tolist())
    assert dead >= {1, 2, 3}
    tops = find_top_images(extractor, stats, loader, {}, channels=None)
    assert set(tops["conv"].channels.tolist()) == set(range(5)) - dead


def test_layer_of_dead_channels_is_excluded() -> None:
    model = make_small_model()
    model.get_layer("conv").set_weights(
        [np.zeros_like(array) for array in model.get_layer("conv").get_weights()]
    )
    extractor = Extractor(model, "conv")
    loader = Loader(make_photos(2))
    assert find_top_images(extractor, measure(extractor, loader.images), loader, {}) == {}


def test_layers_without_images() -> None:
    volume = keras.Sequential(
        [keras.Input((4, 6, 6, 1)), layers.Conv3D(2, 3, padding="same", name="volume")]
    )
    sequence = keras.Sequential([keras.Input((9, 3)), layers.Conv1D(2, 3, name="sequence")])
    rng = np.random.default_rng(1)
    for model in (volume, sequence):
        x = rng.random((3, *model.input_shape[1:]), np.float32)
        extractor = Extractor(model)
        stats = DatasetStats(top=2)
        stats.update(extractor(x), extractor.layers)
        loader = Loader(x)
        (top,) = find_top_images(extractor, stats, loader.in_gray, {}, cell=12).values()
        assert len(np.unique(top.tiles[0].reshape(-1, 3), axis=0)) > 2
        assert (top.patches == 90).all()


@pytest.mark.parametrize("shape", [(SIDE, SIDE, 1), (SIDE, SIDE, 4), (SIDE, SIDE, 7)])
def test_pixels_of_any_channels(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).random((2, *shape), np.float32)
    model = keras.Sequential([keras.Input(shape), layers.Conv2D(2, 3, name="conv")])
    extractor = Extractor(model)
    tops = find_top_images(
        extractor,
        measure(extractor, images),
        lambda index: (images[index], images[index][None]),
        {},
        cell=SIDE,
    )
    first = tops["conv"].images[0][0].index
    if shape[-1] != 7:
        colours = images[first][..., :3] * 255 + 0.5
        truth = np.broadcast_to(colours.astype(np.uint8), (SIDE, SIDE, 3))
        np.testing.assert_array_equal(tops["conv"].patches[0, 0], truth)
    else:
        assert tops["conv"].patches[0, 0].std() > 10


def test_a_sheet_has_a_row_for_each_channel(tmp_path: Path) -> None:
    tops, *_ = search_top_images(count=2)  # two images, although top is three
    assert list(tops) == ["conv", "pool", "dense"]
    sheet = tops["conv"].sheet()
    assert sheet.columns == 4
    assert sheet.captions[0] == f"channel {tops['conv'].channels[0]}"
    first = tops["conv"].images[0][0]
    assert sheet.captions[1] == f"{first.maximum:.3g} photo{first.index}"
    assert sheet.captions[3] == ""
    sheet.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), sheet.to_rgb())
    assert repr(tops["conv"]) == "<TopImages conv, 5 channels>"


@pytest.mark.parametrize(
    "options",
    [{"channels": 0}, {"cell": 2}, {"batch_size": 0}, {"background": 300}, {"order": "max"}],
    ids=str,
)
def test_invalid_options_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        search_top_images(count=1, **options)
