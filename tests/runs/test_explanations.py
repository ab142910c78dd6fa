from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

import actgrid
from actgrid.attribution.method import Method
from actgrid.attribution.methods import find_method
from actgrid.errors import OptionError
from actgrid.models.images import Photo
from actgrid.runs import explain_images

METHODS: dict[Method, dict[str, Any]] = {
    find_method("gradcam"): {},
    find_method("saliency"): {"reduce": "sum"},
}


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )


def photo(name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Return pixels and input for a file name such as "7-12x10": value, height, width."""
    seed, _, size = name.partition("-")
    height, width = map(int, size.split("x"))
    levels = np.random.default_rng(int(seed)).integers(0, 256, (1, height, width, 3))
    return levels.astype(np.float32), levels / np.float32(255)


def test_explain_images_yields_every_method_in_order(model: Any) -> None:
    names = ["0-9x8", "1-9x8", "2-9x8", "3-6x7", "4-9x8"]
    results = explain_images(
        model, list(map(Path, names)), lambda file: photo(file.name)[1], METHODS, 3, batch_size=2
    )
    seen = []
    for file, heatmaps in results:
        seen.append(file.name)
        pixels, batch = photo(file.name)
        for heatmap, (method, options) in zip(heatmaps, METHODS.items(), strict=True):
            expected = actgrid.explain(model, batch, method.name, 3, **options)
            assert isinstance(heatmap, actgrid.Heatmap)
            assert heatmap.method == method.name
            np.testing.assert_array_equal(heatmap.images, pixels)
            assert heatmap.boxes is None
            np.testing.assert_allclose(heatmap.values, expected.values, rtol=1e-4, atol=1e-7)
    assert seen == names


def test_explain_images_loads_at_most_one_batch(model: Any) -> None:
    loaded: list[str] = []

    def load(file: Path) -> npt.NDArray[Any]:
        loaded.append(file.name)
        return photo(file.name)[1]

    files = [Path(f"{number}-9x8") for number in range(7)]
    results = explain_images(model, files, load, METHODS, batch_size=3)
    next(results)
    assert len(loaded) == 3
    assert len(list(results)) == 6
    with pytest.raises(OptionError, match="batch_size must be at least 1"):
        next(explain_images(model, files, load, METHODS, batch_size=0))


def test_maps_are_drawn_over_photos(model: Any) -> None:
    files = [Path("0-9x8"), Path("1-9x8")]
    opened: list[str] = []

    def photo_of(file: Path) -> Photo:
        opened.append(file.name)
        pixels = photo(file.name)[0][0].astype(np.uint8).repeat(3, 0).repeat(3, 1)
        return Photo(pixels, (0, 3, 27, 24))

    results = explain_images(
        model, files, lambda file: photo(file.name)[1], METHODS, batch_size=2, photo_of=photo_of
    )
    _, heatmaps = next(results)
    assert opened == ["0-9x8"]
    for heatmap in heatmaps:
        assert isinstance(heatmap, actgrid.Heatmap)
        np.testing.assert_array_equal(heatmap.images, photo_of(files[0]).pixels[None])
        np.testing.assert_array_equal(heatmap.boxes, [(0, 3, 27, 24)])
