"""`actgrid.diagram`: the boxes of a model, and what is seen on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid


def small() -> Any:
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


def faces(diagram: actgrid.Diagram) -> dict[str, np.ndarray]:
    found = {box.name: box.face for box in diagram.boxes}
    seen = {name: face for name, face in found.items() if face is not None}
    assert len(seen) == len(diagram)
    return seen


def test_boxes_are_the_inputs_and_the_layers_as_they_run() -> None:
    boxes = actgrid.diagram(small()).boxes
    assert [(box.type, box.shape) for box in boxes] == [
        ("Input", (12, 8, 3)),
        ("Conv2D", (10, 6, 5)),
        ("MaxPooling2D", (5, 3, 5)),
        ("Flatten", (75,)),
        ("Dense", (4,)),
    ]
    assert [box.name for box in boxes[1:]] == ["conv", "pool", "flat", "dense"]
    assert all(box.face is None for box in boxes)


def test_each_box_shows_what_its_layer_gives() -> None:
    model = small()
    x = np.random.default_rng(0).random((3, 12, 8, 3), np.float32)
    shown = faces(actgrid.diagram(model, x, sample=1, cmap="gray"))
    found = actgrid.Extractor(model, ["conv", "flat", "dense"])(x)
    strength = np.sqrt((found["conv"][1].astype(float) ** 2).mean(-1))
    np.testing.assert_allclose(
        shown["conv"][..., 0], 255 * (strength - strength.min()) / np.ptp(strength), atol=1
    )
    units = found["dense"][1]
    assert shown["dense"].shape == (4, 1, 3)
    np.testing.assert_allclose(
        shown["dense"][:, 0, 0], 255 * (units - units.min()) / np.ptp(units), atol=1
    )
    # 75 units on 64 rows: each shows the larger of its one or two.
    rows = np.arange(75) * 64 // 75
    largest = np.array([found["flat"][1][rows == row].max() for row in range(64)])
    np.testing.assert_allclose(
        shown["flat"][:, 0, 0], 255 * (largest - largest.min()) / np.ptp(largest), atol=1
    )


def test_the_input_is_the_picture_itself(tmp_path: Path) -> None:
    model = small()
    pixels = np.random.default_rng(1).integers(0, 256, (12, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    photo, *_ = faces(actgrid.diagram(model, tmp_path / "x.png")).values()
    np.testing.assert_array_equal(photo, pixels)
    photo, *_ = faces(actgrid.diagram(model, pixels[None].astype(np.float32) / 255)).values()
    np.testing.assert_allclose(photo, pixels, atol=1)


def test_every_kind_of_layer_and_several_inputs() -> None:
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
    drawn = actgrid.diagram(model, x)
    assert {box.name: box.shape for box in drawn.boxes} == {
        "film": (4, 6, 8, 2),
        "first": (8, 6, 3),
        "words": (9, 6),
        "conv1d": (7, 7),
        "conv3d": (2, 4, 6, 2),
        "permute": (8, 6, 3),
        "pool": (4, 3, 3),
    }
    assert {name: face.shape for name, face in faces(drawn).items()} == {
        "film": (6, 8, 3),
        "first": (8, 6, 3),
        "words": (6, 9, 3),
        "conv1d": (7, 7, 3),
        "conv3d": (4, 6, 3),
        "permute": (8, 6, 3),
        "pool": (4, 3, 3),
    }
    with pytest.raises(actgrid.ActgridError, match=r"size of words, .* is not fixed: give an"):
        actgrid.diagram(model)


def test_layers_are_chosen_and_nested_ones_are_shown_once() -> None:
    inner = small()
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


def test_a_model_that_was_not_called_yet() -> None:
    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = layers.Conv2D(3, 3, name="conv")

        def call(self, inputs: Any) -> Any:
            return self.conv(inputs)

    with pytest.raises(actgrid.ActgridError, match="call it once, or pass an input"):
        actgrid.diagram(Own())
    boxes = actgrid.diagram(Own(), np.ones((1, 8, 8, 3), np.float32)).boxes
    assert [(box.name, box.shape) for box in boxes] == [("input", (8, 8, 3)), ("conv", (6, 6, 3))]


def test_text_has_no_box() -> None:
    words = keras.Input((1,), dtype="string", name="words")
    numbers = layers.Hashing(9, name="hashed")(words)
    model = keras.Model(words, layers.Embedding(9, 2, name="embedded")(numbers))
    drawn = actgrid.diagram(model, np.array([["cat"]]))
    assert list(faces(drawn)) == ["hashed", "embedded"]
    assert [box.name for box in actgrid.diagram(model).boxes] == ["hashed", "embedded"]


def test_what_is_not_finite_leaves_the_rest_of_the_photo() -> None:
    x = np.full((1, 12, 8, 3), 0.5, np.float32)
    x[0, 0, :3, 0] = np.nan, np.inf, -np.inf
    x[0, 1, 0], x[0, 1, 1] = 0, 1
    photo, *_ = faces(actgrid.diagram(small(), x)).values()
    assert photo[0, :4, 0].tolist() == [0, 255, 0, 128]
    assert (photo[2:] == 128).all()
    photo, *_ = faces(actgrid.diagram(small(), np.full_like(x, np.nan))).values()
    assert not photo.any()


def test_many_diagrams_of_one_model(caplog: pytest.LogCaptureFixture) -> None:
    """TensorFlow warns of functions that are traced again and again."""
    import tensorflow as tf

    model, x = small(), np.ones((1, 12, 8, 3), np.float32)
    tf.get_logger().addHandler(caplog.handler)
    try:
        for _ in range(6):
            actgrid.diagram(model, x)
    finally:
        tf.get_logger().removeHandler(caplog.handler)
    assert not caplog.records


def test_what_is_wrong_is_said() -> None:
    model = small()
    x = np.ones((2, 12, 8, 3), np.float32)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"side": 1}, "side must be"),
        ({"cmap": "virdis"}, "viridis"),
        ({"normalize": "maxmin"}, "minmax"),
        ({"sample": 2}, "sample 2 does not exist: the batch has 2 samples"),
        ({"layers": "cnv"}, "conv"),
        ({"x": x[:, 1:]}, r"takes an input of \(None, 12, 8, 3\)"),
    ]
    for options, words in wrong:
        with pytest.raises(actgrid.ActgridError, match=words):
            actgrid.diagram(model, **{"x": x, **options})
    assert actgrid.diagram(model, x, sample=-1).boxes[0].face is not None


def test_the_demo_sees_its_cat() -> None:
    diagram = actgrid.diagram("demo", actgrid.demo.photo())
    assert len(diagram) == 144
    face = faces(diagram)["predictions"]
    # The predicted class, 285 of 1000, is the brightest of the 64 parts.
    assert face[:, 0].sum(-1).argmax() == 285 * 64 // 1000
