"""Maps of the attention of each layer: values, names of tokens, patches, selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid
from actgrid.errors import CapabilityError, LayerError, OptionError
from actgrid.rendering import AttentionMap, TokenGrid

VOCABULARY = ["", "the", "cat", "sat", "down"]
IDS = np.array([[1, 2, 3, 4], [1, 3, 0, 0]])


@pytest.fixture(scope="module")
def language() -> Any:
    ids = keras.Input((4,), dtype="int32", name="ids")
    x = layers.Embedding(5, 8)(ids)
    for number in range(3):
        x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name=f"mha{number}")(x, x)])
    return keras.Model(ids, layers.Dense(5)(x))


@pytest.fixture(scope="module")
def vision() -> Any:
    image = keras.Input((8, 12, 3))
    x = layers.Reshape((6, 8))(layers.Conv2D(8, 4, 4)(image))
    return keras.Model(image, layers.MultiHeadAttention(2, 4, name="mha")(x, x))


def test_scores_and_names_of_tokens(language: Any) -> None:
    maps = actgrid.extract_attention(language, IDS, tokens=VOCABULARY)
    scores = actgrid.Extractor(language, "*/attention")(IDS)
    assert list(maps) == list(scores) == [f"mha{number}/attention" for number in range(3)]
    for path, attention in maps.items():
        assert isinstance(attention, AttentionMap)
        np.testing.assert_array_equal(attention.values, scores[path][0])
        assert attention.queries == attention.keys == ("the", "cat", "sat", "down")
        assert attention.layer == path
    second = actgrid.extract_attention(language, IDS, sample=1, tokens=VOCABULARY)
    np.testing.assert_array_equal(second["mha0/attention"].values, scores["mha0/attention"][1])
    assert second["mha0/attention"].keys == ("the", "sat", "", "")


def test_patches_have_their_grid_and_image(vision: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    attention = actgrid.extract_attention(vision, tmp_path / "photo.png")["mha/attention"]
    assert attention.query_grid == attention.key_grid == TokenGrid(2, 3)
    np.testing.assert_array_equal(attention.image, pixels)
    heatmap = attention.attend_from((1, 2), 0)
    np.testing.assert_array_equal(heatmap.values[0], attention.values[0, 5].reshape(2, 3))
    from_array = actgrid.extract_attention(vision, pixels[None] / np.float32(255))
    np.testing.assert_allclose(from_array["mha/attention"].values, attention.values, rtol=1e-5)


def test_layers_are_selected_by_path_glob_and_position(language: Any) -> None:
    def extract(layers: Any) -> list[str]:
        return list(actgrid.extract_attention(language, IDS, layers))

    assert extract("mha1") == extract("mha1/attention") == extract(1) == ["mha1/attention"]
    assert extract(-1) == ["mha2/attention"]
    assert extract([2, "mha0"]) == ["mha0/attention", "mha2/attention"]
    assert len(extract("mha*")) == 3
    with pytest.raises(LayerError, match=r"no attention is called 'mha7'.*did you mean mha"):
        extract("mha7")
    with pytest.raises(LayerError, match="no attention 3: the model has 3"):
        extract(3)


def test_texts_of_a_model_of_strings() -> None:
    vectorize = layers.TextVectorization(output_sequence_length=4, vocabulary=["good", "film"])
    text = keras.Input((1,), dtype="string")
    x = layers.Embedding(4, 8)(vectorize(text))
    model = keras.Model(text, layers.MultiHeadAttention(2, 4, name="mha")(x, x))
    attention = actgrid.extract_attention(model, "a good film")["mha/attention"]
    assert attention.keys == ("[UNK]", "good", "film", "")


def test_attention_to_other_tokens_has_both_names() -> None:
    encoder = keras.Input((4,), dtype="int32", name="encoder_ids")
    decoder = keras.Input((3,), dtype="int32", name="decoder_ids")
    embed = layers.Embedding(5, 8)
    cross = layers.MultiHeadAttention(2, 4, name="cross")(embed(decoder), embed(encoder))
    model = keras.Model({"encoder_ids": encoder, "decoder_ids": decoder}, cross)
    x = {"encoder_ids": IDS, "decoder_ids": np.array([[4, 3, 2]] * 2)}
    attention = actgrid.extract_attention(model, x, tokens=VOCABULARY)["cross/attention"]
    assert attention.queries == ("down", "sat", "cat")
    assert attention.keys == ("the", "cat", "sat", "down")


def test_inputs_that_are_refused(language: Any) -> None:
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(LayerError, match="the model has no attention"):
        actgrid.extract_attention(dense, np.ones((1, 4)))
    with pytest.raises(OptionError, match="sample"):
        actgrid.extract_attention(language, IDS, sample=2)

    class Network:
        name, outputs, inputs = "edges", ("rows",), (actgrid.models.InputInfo("x", (None, 4)),)

        def list_layers(self, x: Any = None) -> list[Any]:
            return []

        def run(self, x: Any, paths: Any) -> dict[str, Any]:
            return {}

        def fingerprint(self) -> str:
            return "1"

    with pytest.raises(CapabilityError, match="extract_attention needs a Keras model"):
        actgrid.extract_attention(Network(), np.ones((1, 4)))
