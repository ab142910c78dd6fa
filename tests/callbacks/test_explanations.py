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


def pixels(png: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize(
    ("method", "options"),
    [("gradcam", {"layer": "conv"}), ("saliency", {"reduce": "sum"}), ("occlusion", {"patch": 3})],
)
def test_overlays_of_every_epoch(
    method: str, options: dict[str, Any], cnn: Any, x: Any, y: Any, tmp_path: Path, images: Any
) -> None:
    truth: dict[int, Any] = {}

    class Truth(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            found = actgrid.explain(self.model, x[:2], method, 1, **options)
            truth[epoch] = found.overlay(alpha=0.7, clip=90).pictures

    maps = Explanations(
        *(x[:2], method, 1),
        log_dir=tmp_path / "logs",
        folder=tmp_path / "out",
        alpha=0.7,
        clip=90,
        **options,
    )
    cnn().fit(x, y, epochs=2, verbose=0, callbacks=[Truth(), maps])
    found = images(tmp_path / "logs")
    assert list(found) == [method]
    assert not np.array_equal(truth[0], truth[1])
    for step, pngs in found[method].items():
        np.testing.assert_array_equal([pixels(png) for png in pngs], truth[step])
        for sample, png in enumerate(pngs):
            file = tmp_path / "out" / f"00_{method}" / f"{sample}_{step:06}.png"
            assert file.read_bytes() == png
    assert list(found[method]) == [0, 1]


def test_methods_of_like_names_do_not_replace_each_other(cnn: Any, x: Any, tmp_path: Path) -> None:
    for method in ("gradcam", "gradcam++"):
        with Explanations(x[:1], method, folder=tmp_path) as maps:
            maps.set_model(cnn())
            maps(0)
    assert {path.name for path in tmp_path.iterdir()} == {"00_gradcam", "00_gradcam++"}


def test_what_has_too_many_channels_to_be_seen(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((6, 6, 5)), layers.Conv2D(3, 3, name="c"), layers.Flatten(), layers.Dense(2)]
    )
    data = np.random.default_rng(0).random((2, 6, 6, 5), np.float32)
    maps = Explanations(data, "saliency", 0, folder=tmp_path, cmap="magma")
    maps.set_model(model)
    maps(4)
    maps.close()
    truth = actgrid.explain(model, data, "saliency", 0)
    for sample in (0, 1):
        found = (tmp_path / "00_saliency" / f"{sample}_000004.png").read_bytes()
        assert found == truth[sample].to_grid(cmap="magma").to_png()


@pytest.mark.parametrize("explained_before", [False, True])
@pytest.mark.parametrize(
    ("method", "options"), [("gradcam", {}), ("smoothgrad", {"samples": 3}), ("occlusion", {})]
)
def test_seeds_stay_as_they_are(
    method: str, options: dict[str, Any], explained_before: bool, x: Any, tmp_path: Path
) -> None:
    """Those of layers that are random in use: a method may run several functions of the model."""

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
    for variable, kept in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), kept)


def test_a_model_that_has_diverged_is_drawn(cnn: Any, x: Any, tmp_path: Path) -> None:
    model = cnn()
    maps = Explanations(x[:2], folder=tmp_path)
    maps.set_model(model)
    maps(0)
    for weight in model.trainable_variables:
        weight.assign(np.full(weight.shape, np.nan))
    maps(1)
    maps.close()
    assert len(list((tmp_path / "00_gradcam").iterdir())) == 4


def test_a_mistake_is_known_before_the_first_epoch(
    cnn: Any, x: Any, y: Any, tmp_path: Path
) -> None:
    mistakes: list[tuple[dict[str, Any], type[ActgridError], str]] = [
        ({"method": "gradcan"}, OptionError, "gradcam"),
        ({"method": "saliency", "layer": "conv"}, OptionError, "leave layer out"),
        ({"steps": 3}, OptionError, "steps"),
        ({"alpha": 2}, OptionError, "alpha"),
        ({"cmap": "no map"}, OptionError, "no map"),
    ]
    for options, error, message in mistakes:
        with pytest.raises(error, match=message):
            Explanations(x, folder=tmp_path, **options)
    mistakes = [
        ({"layer": "covn"}, LayerError, "conv"),
        ({"target": 7}, TargetError, "7"),
        ({"target": "cat", "labels": ["dog", "cow", "pig"]}, TargetError, "cat"),
        ({"batch_size": 0}, OptionError, "batch_size"),
    ]
    for options, error, message in mistakes:
        with pytest.raises(error, match=message):
            cnn().fit(x, y, verbose=0, callbacks=[Explanations(x, folder=tmp_path, **options)])
    assert not list(tmp_path.iterdir())
