"""Tests of the commands `actgrid attention` and `actgrid residual-stream`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def vision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = layers.Reshape((4, 8))(layers.Conv2D(8, 8, 8)(layers.Rescaling(1 / 255)(image)))
    for number in range(2):
        x = layers.Add(name=f"add{number}")(
            [x, layers.MultiHeadAttention(2, 4, name=f"mha{number}")(x, x)]
        )
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    path = tmp_path_factory.mktemp("vision") / "vit.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(6, 8)(ids)
    x = layers.Add(name="add")([x, layers.MultiHeadAttention(2, 4, name="mha")(x, x)])
    folder = tmp_path_factory.mktemp("text")
    keras.Model(ids, layers.Dense(6, name="head")(x)).save(folder / "lm.keras")
    (folder / "vocabulary.txt").write_text("\n[UNK]\nthe\ncat\nsat\ndog\n")
    return folder / "lm.keras"


def test_a_picture_of_each_layer(run: Run, vision_file: Path, photo: Path, tmp_path: Path) -> None:
    result = run("attention", vision_file, photo, "-o", tmp_path / "out")
    assert result.code == 0
    names = ["0_mha0_attention.png", "1_mha1_attention.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"0{n}" for n in names]
    assert "mha1/attention" in result.out
    maps = actgrid.extract_attention(vision_file, photo)
    with Image.open(tmp_path / "out" / "00_mha0_attention.png") as picture:
        np.testing.assert_array_equal(
            np.asarray(picture.convert("RGB")), maps["mha0/attention"].to_rgb()
        )
    result = run(
        *("attention", vision_file, photo, "-o", tmp_path / "one", "--json", "--layers", -1),
        *("--attention-style", "query", "--query", "1,0", "--head", 1),
    )
    (printed,) = result.events
    assert printed["layers"] == [
        {
            "path": "mha1/attention",
            "heads": 2,
            "queries": 4,
            "keys": 4,
            "file": "00_mha1_attention.png",
        }
    ]
    with Image.open(tmp_path / "one" / "00_mha1_attention.png") as picture:
        expected = maps["mha1/attention"].attend_from((1, 0), 1).to_rgb()
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), expected)


@pytest.mark.parametrize("style", ["matrix", "arcs"])
def test_attention_of_a_text(run: Run, text_file: Path, tmp_path: Path, style: str) -> None:
    vocabulary = text_file.with_name("vocabulary.txt")
    result = run(
        *("attention", text_file, "the cat sat", "-o", tmp_path, "--tokens", vocabulary),
        *("--attention-style", style),
    )
    assert result.code == 0
    assert (tmp_path / "00_mha_attention.png").exists()


def test_residual_stream_and_lens(run: Run, text_file: Path, tmp_path: Path) -> None:
    vocabulary = text_file.with_name("vocabulary.txt")
    text = ["residual-stream", text_file, "the cat sat", "--tokens", vocabulary]
    result = run(*text, "-o", tmp_path / "stream.png")
    assert result.code == 0
    assert "add: attention" in result.out
    (printed,) = run(*text, "-o", tmp_path / "stream.png", "--json").events
    assert printed["tokens"] == ["the", "cat", "sat"]
    assert printed["angles"][0] == [None] * 3
    lens = ["--stream-style", "lens", "--top-k", 2]
    result = run(*text, *lens, "-o", tmp_path / "lens.png")
    assert result.code == 0
    (printed,) = run(
        *text, *lens, "--output-head", "head", "-o", tmp_path / "lens.png", "--json"
    ).events
    assert np.shape(printed["predictions"]) == (2, 3, 2)
    assert (tmp_path / "lens.png").exists()


def test_errors_in_one_line(run: Run, vision_file: Path, photo: Path, model_file: Path) -> None:
    run("attention", model_file, photo, "-o", "o").assert_one_clear_line("no attention")
    run("attention", vision_file, photo, "-o", "o", "--layers", "mha7").assert_one_clear_line(
        "mha7", "mha1/attention"
    )
    run("attention", vision_file, photo, "-o", "o", "--attention-style", "arc")
    run("attention", vision_file, "none.png", "-o", "o").assert_one_clear_line("none.png")
    run(
        "attention", vision_file, photo, "-o", "o", "--attention-style", "matrix", "--head", 5
    ).assert_one_clear_line("head", "2")
    run("residual-stream", model_file, photo, "-o", "o.png").assert_one_clear_line("stream")
    run(
        *("residual-stream", vision_file, photo, "-o", "o.png", "--stream-style", "lens"),
        *("--output-head", "nothing"),
    ).assert_one_clear_line("nothing")
