"""Diagrams: the boxes of a model and the pictures on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid


def make_small_model() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((12, 8, 3), name="photo"),
            layers.Conv2D(5, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(4, name="dense"),
        ]
    )


def get_faces(diagram: actgrid.Diagram) -> dict[str, np.ndarray]:
    """Return the picture on each box by name; all boxes must have one."""
    faces = {box.name: box.face for box in diagram.boxes if box.face is not None}
    assert len(faces) == len(diagram)
    return faces


def test_boxes_are_inputs_and_layers_in_order() -> None:
    boxes = actgrid.diagram(make_small_model()).boxes
    assert [(box.type, box.shape) for box in boxes] == [
        ("Input", (12, 8, 3)),
        ("Conv2D", (10, 6, 5)),
        ("MaxPooling2D", (5, 3, 5)),
        ("Flatten", (75,)),
        ("Dense", (4,)),
    ]
    assert [box.name for box in boxes[1:]] == ["conv", "pool", "flat", "dense"]
    assert all(box.face is None for box in boxes)


def test_boxes_show_activations() -> None:
    model = make_small_model()
    x = np.random.default_rng(0).random((3, 12, 8, 3), np.float32)
    pictures = get_faces(actgrid.diagram(model, x, sample=1, cmap="gray"))
    activations = actgrid.Extractor(model, ["conv", "flat", "dense"])(x)
    strength = np.sqrt((activations["conv"][1].astype(float) ** 2).mean(-1))
    np.testing.assert_allclose(
        pictures["conv"][..., 0], 255 * (strength - strength.min()) / np.ptp(strength), atol=1
    )
    units = activations["dense"][1]
    assert pictures["dense"].shape == (4, 1, 3)
    np.testing.assert_allclose(
        pictures["dense"][:, 0, 0], 255 * (units - units.min()) / np.ptp(units), atol=1
    )
    # 75 units on 64 rows: each row shows the maximum of one or two units.
    rows = np.arange(75) * 64 // 75
    largest = np.array([activations["flat"][1][rows == row].max() for row in range(64)])
    np.testing.assert_allclose(
        pictures["flat"][:, 0, 0], 255 * (largest - largest.min()) / np.ptp(largest), atol=1
    )


def test_input_box_shows_the_image(tmp_path: Path) -> None:
    model = make_small_model()
    pixels = np.random.default_rng(1).integers(0, 256, (12, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    photo, *_ = get_faces(actgrid.diagram(model, tmp_path / "x.png")).values()
    np.testing.assert_array_equal(photo, pixels)
    photo, *_ = get_faces(actgrid.diagram(model, pixels[None].astype(np.float32) / 255)).values()
    np.testing.assert_allclose(photo, pixels, atol=1)


def test_layers_of_every_rank_and_several_inputs() -> None:
    words = keras.Input((None, 6), name="words")
    film = keras.Input((4, 6, 8, 2), name="film")
    first = keras.Input((3, 8, 6), name="first")
    a = layers.Conv1D(7, 3, name="conv1d")(words)
    b = layers.Conv3D(2, 3, name="conv3d")(film)
    c = layers.Permute((2, 3, 1), name="permute")(first)
    c = layers.MaxPooling2D(data_format="channels_last", name="pool")(c)
    model = keras.Model({"words": words, "film": film, "first": first}, [a, b, c])
    random = np.random.default_rng(0).random
    x = {"words": random((1, 9, 6)), "film": random((1, 4, 6, 8, 2)), "first": random((1, 3, 8, 6))}
    diagram = actgrid.diagram(model, x)
    assert {box.name: box.shape for box in diagram.boxes} == {
        "film": (4, 6, 8, 2),
        "first": (8, 6, 3),
        "words": (9, 6),
        "conv1d": (7, 7),
        "conv3d": (2, 4, 6, 2),
        "permute": (8, 6, 3),
        "pool": (4, 3, 3),
    }
    assert {name: face.shape for name, face in get_faces(diagram).items()} == {
        "film": (6, 8, 3),
        "first": (8, 6, 3),
        "words": (6, 9, 3),
        "conv1d": (7, 7, 3),
        "conv3d": (4, 6, 3),
        "permute": (8, 6, 3),
        "pool": (4, 3, 3),
    }
    with pytest.raises(actgrid.ActgridError, match=r"size of words, .* is not fixed: pass an"):
        actgrid.diagram(model)


def test_layer_selection_and_nested_models() -> None:
    inner = make_small_model()
    inner.name = "inner"
    outer = keras.Sequential(
        [keras.Input((12, 8, 3), name="input"), inner, layers.Dense(2, name="top")]
    )
    names = [box.name for box in actgrid.diagram(outer).boxes]
    assert names == ["input", "inner/conv", "inner/pool", "inner/flat", "inner/dense", "top"]
    names = [box.name for box in actgrid.diagram(outer, layers=["*conv", layers.Dense]).boxes]
    assert names == ["input", "inner/conv", "inner/dense", "top"]
    tokens = keras.Input((4, 6), name="tokens")
    attended = layers.MultiHeadAttention(2, 3, name="attention")(tokens, tokens)
    attention = keras.Model(tokens, attended)
    assert [box.name for box in actgrid.diagram(attention).boxes] == ["tokens", "attention"]


def test_model_that_is_not_built() -> None:
    class CustomModel(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = layers.Conv2D(3, 3, name="conv")

        def call(self, inputs: Any) -> Any:
            return self.conv(inputs)

    with pytest.raises(actgrid.ActgridError, match="call it once, or pass an input"):
        actgrid.diagram(CustomModel())
    boxes = actgrid.diagram(CustomModel(), np.ones((1, 8, 8, 3), np.float32)).boxes
    assert [(box.name, box.shape) for box in boxes] == [("input", (8, 8, 3)), ("conv", (6, 6, 3))]


def test_string_inputs_have_no_box() -> None:
    words = keras.Input((1,), dtype="string", name="words")
    numbers = layers.Hashing(9, name="hashed")(words)
    model = keras.Model(words, layers.Embedding(9, 2, name="embedded")(numbers))
    diagram = actgrid.diagram(model, np.array([["cat"]]))
    assert list(get_faces(diagram)) == ["hashed", "embedded"]
    assert [box.name for box in actgrid.diagram(model).boxes] == ["hashed", "embedded"]


def test_input_with_nan_and_infinity() -> None:
    x = np.full((1, 12, 8, 3), 0.5, np.float32)
    x[0, 0, :3, 0] = np.nan, np.inf, -np.inf
    x[0, 1, 0], x[0, 1, 1] = 0, 1
    photo, *_ = get_faces(actgrid.diagram(make_small_model(), x)).values()
    assert photo[0, :4, 0].tolist() == [0, 255, 0, 128]
    assert (photo[2:] == 128).all()
    photo, *_ = get_faces(actgrid.diagram(make_small_model(), np.full_like(x, np.nan))).values()
    assert not photo.any()


def test_repeated_diagrams_do_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    """Check that TensorFlow does not warn of repeated tracing."""
    import tensorflow as tf

    model, x = make_small_model(), np.ones((1, 12, 8, 3), np.float32)
    tf.get_logger().addHandler(caplog.handler)
    try:
        for _ in range(6):
            actgrid.diagram(model, x)
    finally:
        tf.get_logger().removeHandler(caplog.handler)
    assert not caplog.records


def test_invalid_arguments_are_rejected() -> None:
    model = make_small_model()
    x = np.ones((2, 12, 8, 3), np.float32)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"side": 1}, "side must be"),
        ({"cmap": "virdis"}, "viridis"),
        ({"normalize": "maxmin"}, "minmax"),
        ({"sample": 2}, "sample 2 does not exist: the batch has 2 samples"),
        ({"layers": "cnv"}, "conv"),
        ({"x": x[:, 1:]}, r"takes an input of \(None, 12, 8, 3\)"),
    ]
    for options, message in cases:
        with pytest.raises(actgrid.ActgridError, match=message):
            actgrid.diagram(model, **{"x": x, **options})
    assert actgrid.diagram(model, x, sample=-1).boxes[0].face is not None


def test_demo_model_shows_the_predicted_class() -> None:
    diagram = actgrid.diagram("demo", actgrid.demo.photo())
    assert len(diagram) == 144
    face = get_faces(diagram)["predictions"]
    # The predicted class, 285 of 1000, is in the brightest of the 64 rows.
    assert face[:, 0].sum(-1).argmax() == 285 * 64 // 1000
