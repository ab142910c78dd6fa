"""Tests of concepts by matrix factorization (CRAFT)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid
from actgrid.concepts.crops import make_boxes
from actgrid.concepts.factorization import factorize, find_coefficients
from actgrid.concepts.importance import compute_total_indices, make_masks
from actgrid.errors import LayerError, MissingDependencyError, OptionError, ShapeError

RED, GREEN = 0, 1


def make_model(data_format: str = "channels_last") -> Any:
    """A network that sees red and green areas; class 0 reads the red, class 1 the green."""
    sides = (24, 24)
    shape = (*sides, 3) if data_format == "channels_last" else (3, *sides)
    inputs = keras.Input(shape)
    x = inputs
    if data_format == "channels_first":
        x = layers.Permute((2, 3, 1))(x)
    x = layers.Conv2D(4, 1, activation="relu", name="colours", use_bias=False)(x)
    outputs = layers.Dense(2, name="scores")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    # Channels 0 and 1 see red, channels 2 and 3 see green.
    kernel = np.array([[1.0, 0.5, 0, 0], [0, 0, 0.3, 1.0], [0, 0, 0, 0]], np.float32)
    model.get_layer("colours").set_weights([kernel[None, None]])
    weights = np.array([[1, 0], [2, 0], [0, 1], [0, 3]], np.float32)
    model.get_layer("scores").set_weights([weights, np.zeros(2, np.float32)])
    return model


def make_images(count: int = 6) -> Any:
    """Images with a red and a green area of random brightness, left or right."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 24, 24, 3), np.float32)
    images[:, :, :12, RED] = rng.uniform(0.5, 1, (count, 1, 1))
    images[:, :, 12:, GREEN] = rng.uniform(0.5, 1, (count, 1, 1))
    images[::2] = images[::2, :, ::-1]
    return images


def find(**options: Any) -> actgrid.Concepts:
    defaults = {"concepts": 2, "crop_size": 0.4, "crops": 3, "target": 0}
    arguments: dict[str, Any] = defaults | options
    return actgrid.find_concepts(make_model(), make_images(), "colours", **arguments)


@pytest.mark.parametrize("target", [RED, GREEN])
def test_planted_parts_are_found_and_the_class_reads_one(target: int) -> None:
    concepts = find(target=target)
    directions = concepts.bank / np.linalg.norm(concepts.bank, axis=1, keepdims=True)
    parts = np.array([[1, 0.5, 0, 0], [0, 0, 0.3, 1.0]])
    parts /= np.linalg.norm(parts, axis=1, keepdims=True)
    np.testing.assert_allclose(directions, parts[[target, 1 - target]], atol=0.02)
    np.testing.assert_allclose(concepts.importances, [1, 0], atol=0.02)
    np.testing.assert_allclose(concepts.total_indices[0], 1, atol=0.15)
    assert concepts.image_indices.shape == (6, 2)
    # The best crops of the first concept have the colour of the class.
    colours = concepts.crops[0].mean((1, 2))
    assert (colours.argmax(-1) == target).all()
    boxes = concepts.crop_boxes[0]
    for picture, image, box in zip(colours, concepts.crop_images[0], boxes, strict=True):
        top, left, bottom, right = box
        pixels = make_images()[image, top:bottom, left:right]
        np.testing.assert_allclose(picture, pixels.mean((0, 1)) * 255, atol=3)


def test_concept_maps_show_where_a_concept_is() -> None:
    concepts = find()
    images = make_images(2)
    heatmap = concepts.explain(images)
    assert heatmap.values.shape == (4, 24, 24)
    assert heatmap.labels is not None
    assert heatmap.labels[0] == "concept 0: 100%"
    for index, image in enumerate(images):
        red, green = heatmap.values[2 * index : 2 * index + 2]
        np.testing.assert_array_equal(red > 1e-3, image[..., RED] > 0)
        np.testing.assert_array_equal(green > 1e-3, image[..., GREEN] > 0)
    assert heatmap.overlay().pictures.shape == (4, 24, 24, 3)


def test_channels_first_model_has_the_same_concepts() -> None:
    expected = find()
    model = make_model("channels_first")
    images = np.moveaxis(make_images(), -1, 1)
    result = actgrid.find_concepts(model, images, "colours", 0, concepts=2, crop_size=0.4, crops=3)
    np.testing.assert_allclose(result.bank, expected.bank, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(result.importances, expected.importances, atol=1e-3)
    assert result.explain(images).values.shape == (12, 24, 24)


def test_image_files_default_layer_and_predicted_class(tmp_path: Path) -> None:
    for index, image in enumerate(make_images()):
        Image.fromarray((image * 255).astype(np.uint8)).resize((48, 48)).save(
            tmp_path / f"{index}.png"
        )
    concepts = actgrid.find_concepts(make_model(), tmp_path, concepts=2, crops=3)
    assert concepts.layer == "colours"
    assert concepts.crops.shape[:2] == (2, 3)
    assert concepts.explain(tmp_path / "1.png").values.shape == (2, 24, 24)


def test_picture_has_a_row_for_each_concept(tmp_path: Path) -> None:
    concepts = find()
    height, width, _ = concepts.to_rgb().shape
    assert width == 3 * 96 + 2 * 4
    assert height > 2 * 96
    concepts.save(tmp_path / "concepts.png")
    assert repr(concepts) == "<Concepts of colours: 2 concepts, 4 channels, 6 images>"


def test_records_and_frame_agree() -> None:
    pytest.importorskip("pandas")
    concepts = find()
    records = concepts.to_records()
    assert [record["concept"] for record in records] == [0, 1]
    assert concepts.to_frame()["importance"].tolist() == [
        record["importance"] for record in records
    ]
    assert records[0]["images"] == concepts.crop_images[0].tolist()


def test_images_without_rgb_form_are_drawn_in_gray() -> None:
    model = keras.Sequential(
        [
            keras.Input((16, 16, 5)),
            layers.Conv2D(4, 1, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    images = np.random.default_rng(1).random((4, 16, 16, 5), np.float32)
    concepts = actgrid.find_concepts(model, images, "conv", 0, concepts=2, samples=4)
    assert (concepts.crops[..., 0] == concepts.crops[..., 2]).all()
    assert concepts.explain(images).images is not None


def test_total_indices_of_a_known_function() -> None:
    masks = make_masks(3, 512)
    assert masks.shape == (5 * 512, 3)
    # f = a + 2 b: total indices 1/5 and 4/5. The product of both has total indices 4/7.
    scores = np.stack([masks @ [1, 2, 0], masks[:, 0] * masks[:, 1], np.ones(len(masks))])
    indices = compute_total_indices(scores, 3)
    expected = np.array([[0.2, 0.8, 0], [4 / 7, 4 / 7, 0], [0, 0, 0]])
    np.testing.assert_allclose(indices, expected, atol=0.03)


def test_coefficients_reproduce_a_factorization() -> None:
    rng = np.random.default_rng(0)
    coefficients, bank = rng.random((40, 2)), rng.random((2, 6))
    activations = (coefficients @ bank).astype(np.float32)
    found, found_bank = factorize(activations, 2, 0)
    np.testing.assert_allclose(found @ found_bank, activations, atol=0.02)
    again = find_coefficients(activations.reshape(5, 8, 6), bank.astype(np.float32))
    np.testing.assert_allclose(again.reshape(40, 2), coefficients, atol=0.02)


@pytest.mark.parametrize("crop_size", [0.1, 0.33, 0.5, 1])
def test_boxes_cover_the_image(crop_size: float) -> None:
    covered = np.zeros((30, 47), bool)
    boxes = make_boxes((30, 47), crop_size)
    for top, left, bottom, right in boxes:
        assert 0 <= top < bottom <= 30
        assert 0 <= left < right <= 47
        covered[top:bottom, left:right] = True
    assert covered.all()
    assert len(boxes) == len(np.unique(boxes, axis=0))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layer": "colour"}, LayerError, "colours"),
        ({"layer": "scores"}, ShapeError, "has no height and width"),
        ({"concepts": 500}, OptionError, "500 concepts for 150 crops"),
        ({"concepts": 0}, OptionError, "concepts"),
        ({"target": 7}, ValueError, "7"),
    ],
)
def test_invalid_arguments_are_rejected(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    defaults = {"layer": "colours", "target": 0, "concepts": 2, "crop_size": 0.3}
    options: dict[str, Any] = defaults | arguments
    layer, target = options.pop("layer"), options.pop("target")
    with pytest.raises(error, match=message):
        actgrid.find_concepts(make_model(), make_images(), layer, target, **options)


def test_negative_and_zero_activations_are_rejected() -> None:
    model = make_model()
    model.get_layer("colours").activation = keras.activations.linear
    kernel = model.get_layer("colours").get_weights()[0]
    model.get_layer("colours").set_weights([-kernel])
    with pytest.raises(ShapeError, match="negative activations: 100%"):
        actgrid.find_concepts(model, make_images(), "colours", 0, concepts=2)
    with pytest.raises(ShapeError, match="no activation above zero"):
        actgrid.find_concepts(make_model(), make_images() * 0, "colours", 0, concepts=2)


def test_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MissingDependencyError, match="actgrid\\[explain\\]"):
        actgrid.concepts.layer_outputs.import_package("sklearn.decomposition")
