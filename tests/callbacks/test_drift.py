"""Differences between a model in training and a reference, by the callback `ModelDrift`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import actgrid
from actgrid.callbacks import ModelDrift
from actgrid.errors import LayerError, ModelError, OptionError

Array = npt.NDArray[Any]


def copy(model: Any) -> Any:
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


class KeepWeights(keras.callbacks.Callback):  # type: ignore[misc]
    """Callback that keeps a copy of the model after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.models: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.models.append(copy(self.model))


def compute_differences(a: Array, b: Array) -> dict[str, float]:
    """Return medians over the channels of the differences of two activations, (N, H, W, C)."""
    rows, others = (
        np.moveaxis(each.astype(np.float64), -1, 0).reshape(a.shape[-1], -1) for each in (a, b)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        std = np.sqrt((rows.var(1) + others.var(1)) / 2)
        correlation = [
            np.corrcoef(row, other)[0, 1] for row, other in zip(rows, others, strict=True)
        ]
        relative = np.sqrt(((rows - others) ** 2).mean(1)) / std
    was_dead, is_dead = (np.ptp(each, 1) == 0 for each in (rows, others))
    return {
        "difference": float(np.median(np.abs(rows - others).mean(1))),
        "relative_difference": float(np.nanmedian(relative)),
        "correlation": float(np.nanmedian(correlation)),
        "died": int((is_dead & ~was_dead).sum()),
    }


def test_history_has_the_differences_from_the_model_at_the_beginning(
    cnn: Any, x: Any, y: Any
) -> None:
    model, kept = cnn(), KeepWeights()
    start = copy(model)
    drift = ModelDrift(x, layers=["conv", "norm"], batch_size=5)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[kept, drift])
    assert drift.steps == [0, 1, 2]
    for path in ("conv", "norm"):
        extract = [actgrid.Extractor(each, path) for each in (start, *kept.models)]
        before, *after = (extractor(x)[path] for extractor in extract)
        for step, activation in enumerate(after):
            expected = compute_differences(before, activation)
            assert expected["difference"] > 1e-4
            for name, value in expected.items():
                np.testing.assert_allclose(drift.history[f"{path}/{name}"][step], value, 1e-3)


def test_the_comparison_equals_compare_models(cnn: Any, x: Any, y: Any) -> None:
    model, reference = cnn(), cnn()
    drift = ModelDrift(x, reference, batch_size=6)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[drift])
    expected = actgrid.compare_models(reference, model, x, batch_size=6)
    assert drift.comparison is not None
    assert list(drift.comparison.layers) == list(expected.layers)
    for path, layer in expected.layers.items():
        actual = drift.comparison.layers[path]
        np.testing.assert_allclose(actual.cka, layer.cka, 1e-6)
        np.testing.assert_allclose(actual.difference, layer.difference, 1e-6)
        np.testing.assert_allclose(drift.history[f"{path}/cka"][1], layer.cka, 1e-6)


def test_an_unchanged_model_has_no_drift(cnn: Any, x: Any) -> None:
    with ModelDrift(x, layers="conv") as drift:
        drift.set_model(cnn())
        drift(5)
    assert drift.steps == [5]
    assert drift.history["conv/difference"] == drift.history["conv/died"] == [0]
    np.testing.assert_allclose(drift.history["conv/cka"], [1])


def test_numbers_and_pictures_are_written(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    model = cnn()
    start = copy(model)
    options: dict[str, Any] = {"folder": tmp_path, "shown_channels": 2}
    drift = ModelDrift(x, None, ["conv", "pool"], **options)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[drift])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "00_conv_comparison",
        "01_pool_comparison",
        "scalars.jsonl",
    ]
    assert len((tmp_path / "scalars.jsonl").read_text().splitlines()) == 2 * 2 * 5
    picture = actgrid.render_comparison(start, model, x, "conv", shown_channels=2)["conv"]
    title = 30  # the titles have the names of the models
    with Image.open(tmp_path / "00_conv_comparison" / "000001.png") as image:
        np.testing.assert_array_equal(np.asarray(image)[title:], picture.to_rgb()[title:])


def test_layers_of_other_names_are_compared_by_a_dict(cnn: Any, x: Any) -> None:
    reference, model = cnn(), cnn()
    drift = ModelDrift(x, reference, {"pool": "dropout"})
    with drift:
        drift.set_model(model)
        drift(0)
    difference = compute_differences(
        *(
            actgrid.Extractor(each, path)(x)[path]
            for each, path in ((reference, "pool"), (model, "dropout"))
        )
    )["difference"]
    np.testing.assert_allclose(drift.history["pool/difference"], [difference], 1e-3)


def test_the_copy_of_the_model_changes_no_random_state(cnn: Any, x: Any) -> None:
    model = cnn()
    random.seed(3)
    expected = random.random()
    random.seed(3)
    with ModelDrift(x, layers="conv") as drift:
        drift.set_model(model)
        drift(0)
    assert random.random() == expected


class Uncopied(keras.Model):  # type: ignore[misc]
    """Model that Keras cannot copy, as its configuration is not known."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(units, name="dense")

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def get_config(self) -> Any:
        raise NotImplementedError


def test_models_that_cannot_be_compared_raise_errors_before_training(cnn: Any, x: Any) -> None:
    drift = ModelDrift(x)
    drift.set_model(Uncopied(3))
    with pytest.raises(ModelError, match="cannot be copied: pass reference, such as a saved"):
        drift.on_train_begin()
    drift = ModelDrift(x, layers="covn")
    drift.set_model(cnn())
    with pytest.raises(LayerError, match="covn"):
        drift.on_train_begin()
    with pytest.raises(OptionError, match="sinks must be"):
        ModelDrift(x, sinks=1)
