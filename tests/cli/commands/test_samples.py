"""Commands with files of sequences, tables, volumes, videos and texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid

Run = Callable[..., Any]  # returns the class in conftest.py, which tests cannot import

RNG = np.random.default_rng(0)
WORDS = ["", "[UNK]", "good", "bad", "film"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create models of each kind of sample, and files for them."""
    keras.utils.set_random_seed(0)
    folder: Path = tmp_path_factory.mktemp("samples")
    head = layers.Dense
    vectorization = layers.TextVectorization(vocabulary=WORDS[2:], output_sequence_length=4)
    models = {
        "sequence": [
            keras.Input((None, 1)),
            layers.Conv1D(4, 5, activation="tanh", name="conv"),
            layers.GlobalAveragePooling1D(),
            head(2),
        ],
        "table": [keras.Input((3,)), head(4, activation="tanh", name="hidden"), head(2)],
        "volume": [
            keras.Input((4, 8, 8, 1)),
            layers.Conv3D(3, 3, activation="tanh", name="conv"),
            layers.GlobalAveragePooling3D(),
            head(2),
        ],
        "text": [
            keras.Input((1,), dtype="string"),
            vectorization,
            layers.Embedding(5, 3, name="embedding"),
            layers.GlobalAveragePooling1D(),
            head(2),
        ],
        "tokens": [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(5, 3, name="embedding"),
            layers.GlobalAveragePooling1D(),
            head(2),
        ],
    }
    for name, model_layers in models.items():
        keras.Sequential(model_layers).save(folder / f"{name}.keras")
    photo, age = keras.Input((8, 8, 3), name="photo"), keras.Input((2,), name="age")
    features = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3, name="conv")(photo))
    two = keras.Model([photo, age], head(2)(layers.Concatenate()([features, age])))
    two.save(folder / "two.keras")
    np.save(folder / "signal.npy", np.sin(np.arange(700) / 9).astype(np.float32))
    (folder / "table.csv").write_text("age,income,height\n1,2,3\n4,5,6\n")
    volume = RNG.integers(0, 256, (4, 8, 8), np.uint8)
    pages = [Image.fromarray(page) for page in volume]
    pages[0].save(folder / "volume.tif", save_all=True, append_images=pages[1:])
    pages[0].save(folder / "video.gif", save_all=True, append_images=[*pages[1:], *pages])
    pages[0].save(folder / "video.png", save_all=True, append_images=pages[1:])
    (folder / "reviews.txt").write_text("good film\nbad bad film\n")
    (folder / "words.txt").write_text("\n".join(WORDS))
    np.savez(
        folder / "two.npz",
        photo=RNG.random((8, 8, 3), np.float32),
        age=RNG.random(2, np.float32),
    )
    return folder


def explain(run: Run, *arguments: object) -> list[dict[str, Any]]:
    result = run("explain", *arguments, "--json")
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


@pytest.mark.parametrize(
    ("model", "files", "names"),
    [
        ("sequence", ["signal.npy"], ["signal_integrated_gradients"]),
        ("table", ["table.csv"], ["table_0_integrated_gradients", "table_1_integrated_gradients"]),
        (
            "volume",
            ["volume.tif", "video.gif"],
            ["volume_integrated_gradients", "video_integrated_gradients"],
        ),
        (
            "text",
            ["reviews.txt"],
            ["reviews_0_integrated_gradients", "reviews_1_integrated_gradients"],
        ),
    ],
)
def test_explain_draws_each_sample(
    run: Run, folder: Path, tmp_path: Path, model: str, files: list[str], names: list[str]
) -> None:
    paths = [folder / name for name in files]
    method = ["--method", "integrated_gradients"]
    lines = explain(run, folder / f"{model}.keras", *paths, "-o", tmp_path, *method)
    assert [Path(line["file"]).stem for line in lines] == names
    for line in lines:
        with Image.open(line["file"]) as picture:
            assert picture.mode == "RGB"
            assert min(picture.size) > 20
    if model == "sequence":
        loaded = actgrid.load_model(folder / "sequence.keras")
        signal = np.load(folder / "signal.npy")[None, :, None]
        expected = actgrid.explain(loaded, signal, "integrated_gradients")
        assert lines[0]["score"] == pytest.approx(float(np.asarray(expected.score)[0]), rel=1e-4)
        with Image.open(lines[0]["file"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), expected.overlay().to_rgb())


def test_explain_converts_texts_by_a_vocabulary(run: Run, folder: Path, tmp_path: Path) -> None:
    def explain_texts(model: str, *options: object) -> list[dict[str, Any]]:
        arguments = [folder / f"{model}.keras", folder / "reviews.txt", "-o", tmp_path / model]
        return explain(run, *arguments, "--method", "occlusion", *options)

    by_words = explain_texts("tokens", "--tokens", folder / "words.txt")
    by_strings = explain_texts("text")
    assert len(by_words) == len(by_strings) == 2
    loaded = actgrid.load_model(folder / "tokens.keras")
    scores = np.asarray(loaded(np.array([[2, 4, 0, 0], [3, 3, 4, 0]])))
    for line, row in zip(by_words, scores, strict=True):
        assert line["score"] == pytest.approx(float(row.max()), rel=1e-4)
    result = run("explain", folder / "tokens.keras", folder / "reviews.txt", "-o", tmp_path)
    result.assert_one_clear_line("reviews.txt", "--tokens")


def test_explain_draws_all_inputs(run: Run, folder: Path, tmp_path: Path) -> None:
    arguments = [folder / "two.keras", folder / "two.npz", "-o", tmp_path, "--method", "saliency"]
    lines = explain(run, *arguments, "--inputs", "all", "--target", 0, "--target", 1)
    assert [Path(line["file"]).stem for line in lines] == [
        f"two_saliency_{name}_{target}" for name in ("photo", "age") for target in (0, 1)
    ]
    (line,) = explain(run, *arguments, "--inputs", "age")
    assert Path(line["file"]).stem == "two_saliency"
    run("explain", *arguments, "--inputs", "agee").assert_one_clear_line("did you mean age?")


def test_render_draws_the_layers_of_each_sample(run: Run, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "sequence"
    assert run("render", folder / "sequence.keras", folder / "signal.npy", "-o", output).code == 0
    stats = json.loads((output / "signal" / "stats.json").read_text())
    (layer,) = stats["layers"]
    assert (layer["path"], layer["shape"]) == ("conv", [696, 4])
    assert layer["note"] == "696 steps in 12 strips of 58"
    with Image.open(output / "signal" / layer["file"]) as picture:
        assert picture.size == (12 * 5 - 1, 58)
    output = tmp_path / "table"
    arguments = ["--layers", "hidden", "-o", output]
    assert run("render", folder / "table.keras", folder / "table.csv", *arguments).code == 0
    pictures = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.png"))
    assert pictures == ["table/000000/00_hidden.png", "table/000001/00_hidden.png"]


def test_animated_png_is_a_video(run: Run, folder: Path, tmp_path: Path) -> None:
    arguments = [folder / "volume.keras", folder / "video.png", "-o", tmp_path]
    (line,) = explain(run, *arguments, "--method", "saliency")
    assert Path(line["file"]).stem == "video_saliency"


def test_measure_counts_samples(run: Run, folder: Path, tmp_path: Path) -> None:
    arguments = ["--tokens", folder / "words.txt", "-o", tmp_path / "out"]
    result = run("measure", folder / "tokens.keras", folder / "reviews.txt", *arguments)
    assert result.code == 0, result.err
    stats = actgrid.DatasetStats.load(tmp_path / "out")
    assert stats.images == 2
    loaded = actgrid.load_model(folder / "tokens.keras")
    embedded = loaded.get_layer("embedding")(np.array([[2, 4, 0, 0], [3, 3, 4, 0]]))
    np.testing.assert_allclose(
        stats.layers["embedding"].mean, np.asarray(embedded).mean((0, 1)), rtol=1e-4, atol=1e-6
    )


def test_render_images_takes_files_in_python(folder: Path, tmp_path: Path) -> None:
    summary = actgrid.render_images(
        folder / "volume.keras",
        [folder / "volume.tif", folder / "video.gif"],
        output=tmp_path / "o",
    )
    assert (summary.images, summary.failed) == (2, 0)
    assert (tmp_path / "o" / "video" / "00_conv.png").exists()


@pytest.mark.parametrize(
    ("model", "files", "words"),
    [
        ("sequence", ["missing.wav"], ["there is no", "missing.wav"]),
        ("sequence", ["reviews.txt"], ["reviews.txt holds texts; the model takes sequences"]),
        ("volume", ["two.npz"], ["two.npz", "no input"]),
        ("volume", ["signal.npy"], ["signal.npy"]),
    ],
)
@pytest.mark.parametrize("command", ["explain", "render"])
def test_unsuitable_files_give_one_clear_line(
    run: Run,
    folder: Path,
    tmp_path: Path,
    command: str,
    model: str,
    files: list[str],
    words: list[str],
) -> None:
    paths = [folder / name for name in files]
    result = run(command, folder / f"{model}.keras", *paths, "-o", tmp_path / "out")
    result.assert_one_clear_line(*words)


def test_broken_files_of_a_folder_are_skipped(run: Run, folder: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "signals"
    (inputs / "deep").mkdir(parents=True)
    for name, steps in (("a.npy", 700), ("deep/a.npy", 600)):
        np.save(inputs / name, np.zeros(steps, np.float32))
    (inputs / "b.wav").write_bytes(b"broken")
    output = inputs / "out"
    arguments = [folder / "sequence.keras", inputs]
    result = run("measure", *arguments, "-o", output)
    assert result.code == 1
    assert "b.wav: failed: " in result.out
    records = [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
    assert [Path(record["image"]).relative_to(inputs).as_posix() for record in records] == [
        "a.npy",
        "b.wav",
        "deep/a.npy",
    ]
    assert (output / "stats.npz").exists()  # is no sample of the next run
    assert run("measure", *arguments, "-o", output, "--overwrite").code == 1
    assert len((output / "manifest.jsonl").read_text().splitlines()) == 3
    run("explain", *arguments, "-o", tmp_path / "e").assert_one_clear_line("b.wav")
    (inputs / "b.wav").unlink()
    shutil.rmtree(output)
    lines = explain(run, *arguments, "-o", tmp_path / "e", "--method", "saliency")
    assert [Path(line["file"]).stem for line in lines] == ["a_saliency", "a-2_saliency"]
    scores = [line["score"] for line in lines]
    assert len(scores) == 2


@pytest.mark.parametrize(
    ("model", "file", "style", "suffix"),
    [
        ("volume", "volume.tif", "slices", "png"),
        ("volume", "volume.tif", "animation", "webp"),
        ("volume", "volume.tif", "map", "png"),
        ("text", "reviews.txt", "bars", "png"),
        ("sequence", "signal.npy", "map", "png"),
    ],
)
def test_styles(
    run: Run, folder: Path, tmp_path: Path, model: str, file: str, style: str, suffix: str
) -> None:
    options = ["--method", "occlusion", "--style", style, "--format", suffix]
    lines = explain(run, folder / f"{model}.keras", folder / file, "-o", tmp_path, *options)
    with Image.open(lines[0]["file"]) as picture:
        assert getattr(picture, "n_frames", 1) == (4 if style == "animation" else 1)
    arguments = [folder / "table.keras", folder / "table.csv", "-o", tmp_path]
    if style != "map":
        result = run("explain", *arguments, *options[:4])
        result.assert_one_clear_line(f"--style {style} is not for a TableAttribution")


def test_images_of_any_number_of_channels(run: Run, tmp_path: Path) -> None:
    head = [layers.GlobalAveragePooling2D(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((8, 8, 7)), layers.Conv2D(3, 3, name="conv"), *head])
    model.save(tmp_path / "model.keras")
    x = RNG.random((8, 8, 7), np.float32)
    np.save(tmp_path / "x.npy", x)
    arguments = [tmp_path / "model.keras", tmp_path / "x.npy", "-o", tmp_path]
    (line,) = explain(run, *arguments, "--method", "occlusion")
    expected = actgrid.explain(model, x[None], "occlusion")
    with Image.open(line["file"]) as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), expected.to_rgb())
