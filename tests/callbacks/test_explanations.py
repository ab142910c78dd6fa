"""The callback `Explanations`: attribution maps during training."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid
from actgrid.callbacks import Explanations
from actgrid.errors import ActgridError, LayerError, OptionError, TargetError


def decode(png: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize(
    ("method", "options"),
    [("gradcam", {"layer": "conv"}), ("saliency", {"reduce": "sum"}), ("occlusion", {"patch": 3})],
)
def test_overlays_of_every_epoch_are_written(
    method: str, options: dict[str, Any], cnn: Any, x: Any, y: Any, tmp_path: Path, read_images: Any
) -> None:
    expected: dict[int, Any] = {}

    class ExplainEpochs(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            heatmap = actgrid.explain(self.model, x[:2], method, 1, **options)
            expected[epoch] = heatmap.overlay(alpha=0.7, clip=90).pictures

    maps = Explanations(
        *(x[:2], method, 1),
        log_dir=tmp_path / "logs",
        folder=tmp_path / "out",
        alpha=0.7,
        clip=90,
        **options,
    )
    cnn().fit(x, y, epochs=2, verbose=0, callbacks=[ExplainEpochs(), maps])
    summaries = read_images(tmp_path / "logs")
    assert list(summaries) == [method]
    assert not np.array_equal(expected[0], expected[1])
    for step, pngs in summaries[method].items():
        np.testing.assert_array_equal([decode(png) for png in pngs], expected[step])
        for sample, png in enumerate(pngs):
            file = tmp_path / "out" / f"00_{method}" / f"{sample}_{step:06}.png"
            assert file.read_bytes() == png
    assert list(summaries[method]) == [0, 1]


def test_methods_of_similar_names_have_different_folders(cnn: Any, x: Any, tmp_path: Path) -> None:
    for method in ("gradcam", "gradcam++"):
        with Explanations(x[:1], method, folder=tmp_path) as maps:
            maps.set_model(cnn())
            maps(0)
    assert {path.name for path in tmp_path.iterdir()} == {"00_gradcam", "00_gradcam++"}


def test_images_of_five_channels_are_drawn_as_maps(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((6, 6, 5)), layers.Conv2D(3, 3, name="c"), layers.Flatten(), layers.Dense(2)]
    )
    data = np.random.default_rng(0).random((2, 6, 6, 5), np.float32)
    maps = Explanations(data, "saliency", 0, folder=tmp_path, cmap="magma")
    maps.set_model(model)
    maps(4)
    maps.close()
    heatmap = actgrid.explain(model, data, "saliency", 0)
    for sample in (0, 1):
        content = (tmp_path / "00_saliency" / f"{sample}_000004.png").read_bytes()
        assert content == heatmap[sample].to_grid(cmap="magma").to_png()


@pytest.mark.parametrize("explained_before", [False, True])
@pytest.mark.parametrize(
    ("method", "options"), [("gradcam", {}), ("smoothgrad", {"samples": 3}), ("occlusion", {})]
)
def test_seeds_are_not_changed(
    method: str, options: dict[str, Any], explained_before: bool, x: Any, tmp_path: Path
) -> None:
    """Check the seeds of a layer that is random at inference."""

    class Noise(layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seed = keras.random.SeedGenerator(7)

        def call(self, x: Any) -> Any:
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)

    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(2, 3), Noise(), layers.Flatten(), layers.Dense(3)]
    )
    if explained_before:
        actgrid.explain(model, x[:3], method, **options)
    before = [variable.numpy() for variable in model.variables]
    with Explanations(x[:3], method, folder=tmp_path, batch_size=2, **options) as maps:
        maps.set_model(model)
        maps(0)
    for variable, initial in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), initial)


def test_diverged_model_is_drawn(cnn: Any, x: Any, tmp_path: Path) -> None:
    model = cnn()
    maps = Explanations(x[:2], folder=tmp_path)
    maps.set_model(model)
    maps(0)
    for weight in model.trainable_variables:
        weight.assign(np.full(weight.shape, np.nan))
    maps(1)
    maps.close()
    assert len(list((tmp_path / "00_gradcam").iterdir())) == 4


def test_errors_are_raised_before_the_first_epoch(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], type[ActgridError], str]] = [
        ({"method": "gradcan"}, OptionError, "gradcam"),
        ({"method": "saliency", "layer": "conv"}, OptionError, "leave layer out"),
        ({"steps": 3}, OptionError, "steps"),
        ({"alpha": 2}, OptionError, "alpha"),
        ({"cmap": "no map"}, OptionError, "no map"),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            Explanations(x, folder=tmp_path, **options)
    cases = [
        ({"layer": "covn"}, LayerError, "conv"),
        ({"target": 7}, TargetError, "7"),
        ({"target": "cat", "labels": ["dog", "cow", "pig"]}, TargetError, "cat"),
        ({"batch_size": 0}, OptionError, "batch_size"),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            cnn().fit(x, y, verbose=0, callbacks=[Explanations(x, folder=tmp_path, **options)])
    assert not list(tmp_path.iterdir())
