"""The command `actgrid`, in this process where that tells the same, else in one of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import actgrid
from actgrid.attribution.requests import prepare_request
from actgrid.cli import report
from actgrid.cli.loading import layer_choice

# What the command says of a model that does not tell how it wants pixels.
ASSUMED = "preprocessing: unit (assumed: pixels divided by 255); --preprocess says otherwise"

Result = Any  # see conftest.py
Run = Callable[..., Result]


def read_stats(folder: Path) -> Any:
    return json.loads((folder / "stats.json").read_text())


# --- what is not asked for is not done ---

HOSTILE = "import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch(); raise SystemExit(9)"
LIBRARIES = ("h5py", "keras", "numpy", "orjson", "PIL", "rich", "tensorflow", "typer", "json")


def test_modules_in_the_current_folder_never_replace_libraries(tmp_path: Path) -> None:
    """As of a folder of downloads; the one that a specification names is found there."""
    for name in LIBRARIES:
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    (tmp_path / "own_nets.py").write_text(
        "import keras\n\ndef make():\n    return keras.Sequential([keras.Input((4,), name='x'), "
        "keras.layers.Dense(2, name='own')])\n"
    )
    command = [sys.executable, "-m", "actgrid", "layers", "own_nets:make", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [layer["path"] for layer in json.loads(done.stdout)] == ["own"]
    assert not list(tmp_path.glob("*.ran"))


def test_a_model_file_leaves_the_module_path_alone(
    run: Run, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", list(before))
    assert run("layers", model_file).code == 0
    assert sys.path == before
    run("layers", "nets_of_nobody:make").assert_one_clear_line("no module 'nets_of_nobody'")
    assert sys.path == [*before, str(tmp_path)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["render", "{model}", "{photo}", "-o", ""],
        ["render", "{model}", "{photo}", "--output="],
        ["render", "{model}", "", "-o", "out"],
        ["render", "{model}", "{photo}", "", "-o", "out"],
        ["render", "", "{photo}", "-o", "out"],
        ["measure", "{model}", "{photo}", "--output", ""],
        ["explain", "{model}", "{photo}", "-o", ""],
        ["explain", "{model}", "{photo}", "-o", "out", "--labels", ""],
        ["diagram", "{model}", "-o", ""],
        ["diagram", "{model}", "", "-o", "a.png"],
        ["render-weights", "{model}", "--output="],
        ["maximize", "{model}", "--layer", "conv", "-o", ""],
        ["export", "{model}", "{photo}", "-o", ""],
        ["export", "{model}", "{photo}", "-o", "site", "--statistics", ""],
        ["serve", "{model}", ""],
        ["serve", "{model}", "--token="],
        ["demo", "-o", ""],
        ["bench", "--save", ""],
    ],
    ids=" ".join,
)
def test_an_empty_argument_is_not_the_current_folder(
    run: Run,
    model_file: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    (tmp_path / "image.jpg").write_bytes(photo.read_bytes())
    monkeypatch.chdir(tmp_path)
    places = {"model": model_file, "photo": photo}
    result = run(*(argument.format(**places) for argument in arguments))
    result.assert_one_clear_line("is empty: is a variable of the shell not set?")
    assert [file.name for file in tmp_path.iterdir()] == ["image.jpg"]


@pytest.mark.parametrize("number", ["1000000", "1000000000", "1" + "0" * 30])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["render", "{model}", "{photo}", "-o", "{out}", "--zoom"], "--zoom must be "),
        (["render", "{model}", "{photo}", "-o", "{out}", "--padding"], "--padding must be "),
        (["render", "{model}", "{photo}", "-o", "{out}", "--background"], "--background must be "),
        (["render", "{model}", "{photo}", "-o", "{out}", "--order"], "channel"),
        (["render", "{model}", "{photo}", "-o", "{out}", "--size"], "size must be "),
        (["measure", "{model}", "{photo}", "-o", "{out}", "--top"], "--top must be "),
        (["explain", "{model}", "{photo}", "-o", "{out}", "--size"], "size must be "),
        (["explain", "{model}", "{photo}", "-o", "{out}", "--target"], "no class"),
        (["diagram", "{model}", "-o", "{out}.png", "--side"], "--side must be "),
        (["render-weights", "{model}", "-o", "{out}", "--zoom"], "--zoom must be "),
        (
            ["maximize", "{model}", "--layer", "conv", "-o", "{out}.png", "--padding"],
            "--padding must be ",
        ),
        (["maximize", "{model}", "--layer", "conv", "-o", "{out}.png", "--channels"], "channel"),
        (["maximize", "{model}", "--layer", "conv", "-o", "{out}.png", "--size"], "size must be"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_huge_numbers_are_refused_in_one_line(
    run: Run,
    model_file: Path,
    photo: Path,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    number: str,
) -> None:
    out = tmp_path / "out"
    places = {"model": model_file, "photo": photo, "out": out}
    result = run(*(argument.format(**places) for argument in arguments), number)
    result.assert_one_clear_line(words)
    assert "shows where" not in result.err
    assert not out.exists() or not [file for file in out.rglob("*") if file.is_file()]


def test_a_picture_that_no_program_opens_is_refused(run: Run, photo: Path, tmp_path: Path) -> None:
    wide = ["render", "demo", photo, "-o", tmp_path / "out", "--layers", "stem_conv"]
    result = run(*wide, "--zoom", 1024)
    result.assert_one_clear_line("a picture of 693,248 x 693,248 pixels is too large")


# --- demo ---


def test_demo_draws_every_spatial_layer(run: Run, tmp_path: Path) -> None:
    result = run("demo", "-o", tmp_path / "demo")
    assert result.code == 0
    assert result.err == ""
    pictures = sorted((tmp_path / "demo").glob("*.png"))
    assert len(pictures) == 142
    assert pictures[3].name == "003_stem_relu.png"
    with Image.open(pictures[3]) as picture:
        assert picture.mode == "P"
        assert picture.size == (6 * 113 - 1, 6 * 113 - 1)
    assert re.search(r"^layer +type +shape +channels +dead +ms$", result.out, re.M)
    assert re.search(r"^stem_relu +ReLU +112 x 112 x 32 +32 +5 +\d+\.\d\d$", result.out, re.M)
    assert re.search(r"0\.36\d +Egyptian cat", result.out)
    heatmap = tmp_path / "demo" / "gradcam.png"
    assert f"\ncat.jpg: gradcam: Egyptian cat 8.897: {heatmap}\n" in result.out
    # The face is seen, the fur at the edge is not.
    with Image.open(heatmap) as picture:
        assert picture.size == (451, 300)  # as the photo
        red, _, blue = np.asarray(picture)[100:150, 60:180].mean((0, 1))
        assert red > blue + 40
        red, _, blue = np.asarray(picture)[150:, 200:].mean((0, 1))
        assert red < blue + 40
    assert result.out.splitlines()[-1].endswith(str((tmp_path / "demo").resolve()))
    assert sum(layer["channels"] for layer in read_stats(tmp_path / "demo")["layers"]) == 62243


def test_demo_for_machines(run: Run, tmp_path: Path) -> None:
    report = json.loads(run("demo", "--json", "-o", tmp_path).out)
    assert report["top"][0]["name"] == "Egyptian cat"
    assert 0.36 <= report["top"][0]["probability"] <= 0.37
    assert len(report["layers"]) == 141
    assert report["explained"]["name"] == "Egyptian cat"
    assert Path(report["explained"]["file"]) == tmp_path / "gradcam.png"


# --- layers ---


def test_layers_lists_the_models_layers(run: Run, model_file: Path) -> None:
    result = run("layers", model_file)
    assert result.code == 0
    lines = [line.split("  ") for line in result.out.splitlines()]
    assert lines[0][0] == "index"
    assert re.search(r"^ +0 +conv +Conv2D +\? x 10 x 8 x 5 +5 +float32 +140$", result.out, re.M)
    assert len(lines) == 6


def test_layers_for_machines(run: Run, model_file: Path) -> None:
    layers = json.loads(run("layers", model_file, "--json").out)
    assert [layer["path"] for layer in layers] == ["conv", "relu", "pool", "flat", "head"]
    assert layers[0] == {
        "path": "conv",
        "type": "Conv2D",
        "shape": [None, 10, 8, 5],
        "dtype": "float32",
        "data_format": "channels_last",
        "parameters": 140,
        "index": 0,
        "channels": 5,
    }


def test_layer_paths_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    class Named(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return {"/b": x, "bold": x + 1}

    inputs = keras.Input((4, 4, 3))
    report.print_infos(actgrid.list_layers(keras.Model(inputs, Named(name="named")(inputs))))
    printed = capsys.readouterr().out
    assert "named[/b]" in printed
    assert "named[bold]" in printed


# --- info ---


def test_info_names_versions_backends_and_devices(run: Run) -> None:
    facts = json.loads(run("info", "--json").out)
    assert facts["versions"]["actgrid"] == actgrid.__version__
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["backends"] == dict.fromkeys(("native", "numba", "numpy"), "available")
    assert facts["auto"] == "native"
    assert facts["cpu"]["simd"] in facts["cpu"]["simd_variants"]
    assert any(device.startswith("CPU") for device in facts["devices"])
    text = run("info").out
    assert re.search(r"^backend native +available \(used by auto\)", text, re.M)


def test_info_says_why_a_backend_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "actgrid.rendering.backends.native_backend", None)
    facts = json.loads(run("info", "--json").out)
    assert "install actgrid again where a C++20 compiler" in facts["backends"]["native"]
    assert facts["auto"] == "numba"
    assert facts["cpu"]["simd"] is None
    assert re.search(r"^processor +\w+$", run("info").out, re.M)


# --- render ---


def test_render_writes_a_picture_for_each_layer_and_the_statistics(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    result = run("render", model_file, photo, "-o", tmp_path)
    assert result.code == 0
    assert result.err == ""
    dead = result.out.split()[5]
    assert result.out == (
        f"{photo}: 3 layers, 15 channels, {dead} dead: {tmp_path / 'cat'}\n{ASSUMED}\n"
    )
    folder = tmp_path / "cat"
    assert sorted(file.name for file in folder.iterdir()) == [
        "00_conv.png",
        "01_relu.png",
        "02_pool.png",
        "stats.json",
    ]
    model = actgrid.load_model(model_file)
    grids = actgrid.render_model(model, photo)
    stats = read_stats(folder)
    assert stats["image"] == str(photo)
    assert stats["model"] == "small"
    for layer in stats["layers"]:
        grid = grids[layer["path"]]
        with Image.open(folder / layer["file"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), grid.levels)
        np.testing.assert_allclose(layer["mean"], grid.stats.mean)
        assert layer["dead"] == np.flatnonzero(grid.stats.dead).tolist()
    assert stats["layers"][0]["shape"] == [10, 8, 5]
    assert stats["layers"][0]["dtype"] == "float32"


def test_render_options_reach_the_picture(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    options = ["--normalize", "percentile(5, 95)", "--scope", "layer", "--columns", 2]
    options += ["--padding", 3, "--zoom", 2, "--background", 7, "--order", "4,0-1"]
    options += ["--cmap", "gray", "--backend", "numpy", "--threads", 1]
    options += ["--compression", "small", "--preprocess", "none", "--fit", "stretch"]
    result = run("render", model_file, photo, "--layers", "conv", "-o", tmp_path, *options)
    assert result.code == 0, result
    batch = actgrid.load_images(
        photo, preprocess="none", model=actgrid.load_model(model_file), fit="stretch"
    )
    expected = actgrid.render_model(
        actgrid.load_model(model_file),
        batch,
        "conv",
        normalize="percentile(5, 95)",
        scope="layer",
        columns=2,
        padding=3,
        zoom=2,
        background=7,
        order=[4, 0, 1],
        backend="numpy",
    )
    with Image.open(tmp_path / "cat" / "00_conv.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), expected["conv"].levels)


def test_layers_option_takes_globs_classes_indices_and_repeats(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    def drawn(*layers: object) -> list[str]:
        options = [part for layer in layers for part in ("--layers", layer)]
        result = run("render", model_file, photo, "-o", tmp_path, "--json", "--overwrite", *options)
        (image,) = (event for event in result.events if event["event"] == "image")
        return list(image["dead"])

    assert drawn("*o*") == ["conv", "pool"]
    assert drawn("Conv2D", "MaxPooling2D") == ["conv", "pool"]
    assert drawn(1, -1) == ["relu", "head"]
    assert layer_choice(keras.Sequential([keras.layers.ReLU(name="Conv2D")]), ["Conv2D"]) == [
        "Conv2D"
    ]


def test_images_of_folders_and_globs_in_batches(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    inputs = tmp_path / "in"
    for place, turns in (("a", 0), ("b", 1), ("c", 2), ("c/d", 3)):
        (inputs / place).mkdir(parents=True)
        with Image.open(photo) as picture:
            picture.rotate(90 * turns, expand=True).save(inputs / place / "cat.png")
    result = run("render", model_file, inputs, "-o", tmp_path / "out", "--batch-size", 3)
    assert result.code == 0
    # The folders are those of the images; of a glob they are not known.
    folders = {"a/cat": "cat", "b/cat": "cat-2", "c/cat": "cat-3", "c/d/cat": "cat-4"}
    # Batches change nothing.
    run("render", model_file, inputs / "**" / "*.png", "-o", tmp_path / "one", "--batch-size", 1)
    for folder, numbered in folders.items():
        batched, single = (
            read_stats(tmp_path / "out" / folder),
            read_stats(tmp_path / "one" / numbered),
        )
        for a, b in zip(batched["layers"], single["layers"], strict=True):
            np.testing.assert_allclose(a["mean"], b["mean"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("file_format", ["webp", "jpg", "tiff", "PNG"])
def test_other_formats(
    run: Run, model_file: Path, photo: Path, tmp_path: Path, file_format: str
) -> None:
    options = ["--layers", "conv", "--format", file_format]
    assert run("render", model_file, photo, "-o", tmp_path, *options).code == 0
    path = tmp_path / "cat" / f"00_conv.{file_format.lower()}"
    with Image.open(path) as picture:
        assert picture.width > 10


def test_images_of_several_sizes_through_a_model_of_any_size(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3, name="conv")])
    model.save(tmp_path / "any.keras")
    with Image.open(photo) as picture:
        picture.resize((40, 30)).save(tmp_path / "other.png")
    arguments = ["render", tmp_path / "any.keras", photo, tmp_path / "other.png"]
    assert run(*arguments, "-o", tmp_path / "out", "--batch-size", 4).code == 0
    shapes = [
        read_stats(tmp_path / "out" / name)["layers"][0]["shape"] for name in ("cat", "other")
    ]
    assert shapes == [[298, 449, 2], [28, 38, 2]]
    assert run(*arguments, "-o", tmp_path / "sized", "--size", "20x24").code == 0
    assert read_stats(tmp_path / "sized" / "cat")["layers"][0]["shape"] == [18, 22, 2]


def test_model_of_a_module_in_the_working_directory(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import keras\n"
        "def build():\n"
        "    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])\n"
    )
    # The command as it is installed, which imports TensorFlow itself.
    command = [str(Path(sys.executable).with_name("actgrid")), "render", "mine:build", str(photo)]
    done = subprocess.run([*command, "-o", "out"], capture_output=True, text=True, cwd=tmp_path)
    # TensorFlow's start-up messages and a progress bar are not for a pipe.
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "cat" / "stats.json").exists()


# --- explain ---


def explained(result: Result) -> list[dict[str, Any]]:
    assert (result.code, result.err) == (0, "")
    return [json.loads(line) for line in result.out.splitlines()]


def pixels(path: Path | str) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_explain_writes_the_overlay_of_each_method(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    methods = ["--method", "gradcam", "--method", "smoothgrad", "--method", "gradcam++"]
    options = ["--target", 3, "--layer", "conv", "--samples", 3, "--noise", 0.5]
    drawing = ["--alpha", 0.8, "--cmap", "magma", "--clip", 90]
    arguments = ["explain", model_file, photo, "-o", tmp_path, *methods, *options, *drawing]
    result = run(*arguments)
    assert (result.code, result.err) == (0, "")
    model = actgrid.load_model(model_file)
    *lines, prepared = result.out.splitlines()
    assert prepared == ASSUMED
    for line, method, given in zip(
        lines,
        ["gradcam", "smoothgrad", "gradcam++"],
        [{"layer": "conv"}, {"samples": 3, "noise": 0.5}, {"layer": "conv"}],
        strict=True,
    ):
        heatmap = actgrid.explain(model, photo, method, 3, **given)  # type: ignore[arg-type]
        assert heatmap.score is not None
        file = tmp_path / f"cat_{method}.png"
        assert line == f"cat.jpg: {method}: 3 {heatmap.score[0]:.4g}: {file}"
        expected = heatmap.overlay(alpha=0.8, cmap="magma", clip=90).to_rgb()
        assert np.abs(pixels(file).astype(int) - expected).max() <= 2
    assert len(list(tmp_path.iterdir())) == 3


def test_explain_names_targets_by_a_file_of_labels(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("ant\nbee\ndog\ncat of Egypt\n\n")
    arguments = ["explain", model_file, photo, "-o", tmp_path, "--json"]
    (one,) = explained(
        run(*arguments, "--labels", tmp_path / "names.txt", "--target", "cat of egypt")
    )
    (other,) = explained(run(*arguments, "--target", "3"))
    assert one == {**other, "name": "cat of Egypt"}
    assert one["target"] == 3
    assert one["method"] == "gradcam"
    assert one["layer"] == "relu"
    assert one["is_logit"] is False
    assert one["file"] == str(tmp_path / "cat_gradcam.png")
    wrong = run(*arguments, "--labels", photo)
    wrong.assert_one_clear_line("cat.jpg cannot be read as names of classes")


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose outputs tell a kind, one of three, and whether it is a cat."""
    keras.utils.set_random_seed(6)
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    kind = keras.layers.Dense(3, "softmax", name="kind")(x)
    is_cat = keras.layers.Dense(1, "sigmoid", name="is_cat")(x)
    file = tmp_path_factory.mktemp("heads") / "heads.keras"
    keras.Model(inputs, {"kind": kind, "is_cat": is_cat}).save(file)
    return file


def test_explain_draws_a_picture_for_each_of_several_targets(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("ant\nbee\ncat of Egypt\ndog\n")
    targets = ["--target", "cat of Egypt", "--target", 0, "--target", "dog"]
    arguments = ["explain", model_file, photo, photo, "-o", tmp_path / "out", "--json", *targets]
    methods = ["--method", "saliency", "--method", "gradient_x_input"]
    found = explained(run(*arguments, *methods, "--labels", tmp_path / "names.txt"))
    assert [entry["target"] for entry in found] == [2, 0, 3] * 4
    assert [entry["name"] for entry in found] == ["cat of Egypt", "ant", "dog"] * 4
    files = [
        f"{name}_{method}_{target}.png"
        for name in ("cat", "cat-2")
        for method in ("saliency", "gradient_x_input")
        for target in ("cat_of_Egypt", "0", "dog")
    ]
    assert [Path(entry["file"]).name for entry in found] == files
    model = actgrid.load_model(model_file)
    expected = actgrid.explain(model, photo, "gradient_x_input", [2, 0, 3])
    for entry, heatmap in zip(found[3:6], expected, strict=True):
        assert heatmap.score is not None
        assert entry["score"] == pytest.approx(float(heatmap.score[0]), rel=1e-4)
        drawn = pixels(entry["file"]).astype(int)
        assert np.abs(drawn - heatmap.overlay().to_rgb()).max() <= 2


def test_explain_takes_outputs_and_names_of_their_classes(
    run: Run, two_heads: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "kinds.txt").write_text("tabby\ntiger\nlion\n")
    (tmp_path / "cats.txt").write_text("no\nyes\n")
    arguments = ["explain", two_heads, photo, "-o", tmp_path, "--method", "saliency"]
    targets = ["--target", "kind=lion", "--target", "is_cat=no", "--target", "1=0"]
    labels = ["--labels", f"kind={tmp_path}/kinds.txt", "--labels", f"is_cat={tmp_path}/cats.txt"]
    found = explained(run(*arguments, *targets, *labels, "--json"))
    about = [(entry["output"], entry["target"], entry["name"]) for entry in found]
    assert about == [("kind", 2, "lion"), ("is_cat", 0, "no"), ("kind", 0, "tabby")]
    assert all(entry["is_logit"] for entry in found)
    assert [Path(entry["file"]).name for entry in found] == [
        "cat_saliency_kind_lion.png",
        "cat_saliency_is_cat_no.png",
        "cat_saliency_1_0.png",
    ]
    result = run(*arguments, "--target", "kind=1")
    assert result.out.startswith("cat.jpg: saliency: kind 1 ")
    for wrong, words in (
        (["--target", "kidn=1"], "no output 'kidn' (did you mean kind?)"),
        (["--target", "1"], "the model has 2 outputs, 'is_cat', 'kind': give --target is_cat="),
        ([], "give --target is_cat=CLASS, such as --target is_cat=0"),
        (["--target", "kind"], "names an output and no class of it: give --target kind=CLASS"),
        (["--target", "kind=3"], "there is no class 3: output 'kind' has 3 classes, 0 to 2"),
        (["--target", "kind=lien", *labels], "no class is called 'lien' (did you mean lion?)"),
        (["--labels", f"kind={tmp_path}/none.txt"], "there is no file"),
        (["--labels", f"{tmp_path}/cats.txt", *labels], "--labels must name an output in each"),
        ([*labels, *labels], "--labels must be one file, or OUTPUT=FILE"),
    ):
        run(*arguments, *wrong).assert_one_clear_line(words)


def test_explain_of_dense_outputs_says_that_their_targets_need_python(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    keras.Model(inputs, x).save(tmp_path / "one.keras")
    keras.Model(inputs, {"a": x, "b": 2 * x}).save(tmp_path / "two.keras")
    for model, *target in (("one",), ("two",), ("two", "--target", "a=0")):
        arguments = ["explain", tmp_path / f"{model}.keras", photo, "-o", tmp_path, *target]
        result = run(*arguments)
        result.assert_one_clear_line("a function, which needs Python: actgrid.explain(..., target=")
        assert "lambda" not in result.err


def test_explain_says_in_one_line_why_a_map_is_zero(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    model = keras.models.load_model(model_file)
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    model.save(tmp_path / "zeros.keras")
    result = run("explain", tmp_path / "zeros.keras", photo, "-o", tmp_path, "--method", "saliency")
    assert result.code == 0
    assert result.err == (
        "actgrid: saliency: 1 of 1 maps are zero everywhere: the gradient of the score with "
        "respect to the image is zero, or is stopped on its way\n"
    )


def test_explain_takes_many_images_in_batches_and_names_each_picture(
    run: Run, model_file: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "more").mkdir(parents=True)
    for turns, name in enumerate(["a.png", "a_guided.png", "b.png", "more/a.png", "more/c.png"]):
        with Image.open(photo) as picture:
            picture.rotate(90 * turns, expand=True).save(tmp_path / "in" / name)
    sizes = []

    def counted(model: Any, x: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(x))
        return prepare_request(model, x, *arguments, **options)

    monkeypatch.setattr("actgrid.runs.explanations.prepare_request", counted)
    arguments = ["explain", model_file, tmp_path / "in", "--json"]
    methods = ["--method", "gradcam", "--method", "guided_gradcam", "--style", "map"]
    batched = explained(run(*arguments, *methods, "-o", tmp_path / "2", "--batch-size", 2))
    assert sizes == [2, 2, 1]
    assert [Path(one["file"]).name for one in batched] == [
        *("a_gradcam.png", "a_guided_gradcam.png"),
        *("a_guided_gradcam-2.png", "a_guided_guided_gradcam.png"),
        *("b_gradcam.png", "b_guided_gradcam.png"),
        *("a-2_gradcam.png", "a-2_guided_gradcam.png"),
        *("c_gradcam.png", "c_guided_gradcam.png"),
    ]
    assert len(list((tmp_path / "2").iterdir())) == 10
    # Batches change nothing.
    model = actgrid.load_model(model_file)
    for one in batched:
        heatmap = actgrid.explain(model, one["image"], one["method"])
        assert one["score"] == pytest.approx(float(heatmap.score[0]), rel=1e-4)  # type: ignore[index]
        expected = heatmap.overlay(alpha=1).to_rgb()
        assert np.abs(pixels(one["file"]).astype(int) - expected).max() <= 2


def test_explain_prepares_images_as_told_and_draws_them_as_they_are(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3)])
    model.add(keras.layers.GlobalAveragePooling2D())
    model.save(tmp_path / "any.keras")
    options = ["--alpha", 0, "--fit", "pad", "--size", "20x24", "--format", "TIFF"]
    arguments = ["explain", tmp_path / "any.keras", photo, "-o", tmp_path, *options, "--json"]
    plain, other = (
        explained(run(*arguments, "--preprocess", name))[0] for name in ("none", "ResNet50")
    )
    assert plain["file"].endswith("cat_gradcam.tiff")
    assert plain["preprocessing"] == {"name": "none", "reason": "as given", "assumed": False}
    assert other["preprocessing"]["name"] == "ResNet50"
    # Drawn last, of blue before red and negative values too; yet the picture is the photo.
    with Image.open(photo) as image:
        np.testing.assert_array_equal(pixels(other["file"]), np.asarray(image.convert("RGB")))
    batch = actgrid.load_images(photo, size=(20, 24), preprocess="ResNet50", fit="pad")
    score = actgrid.explain(model, batch, target=other["target"]).score
    assert score is not None
    assert other["score"] == pytest.approx(float(score[0]), rel=1e-4)
    assert plain["score"] != pytest.approx(other["score"])


def test_explain_draws_contours(run: Run, model_file: Path, photo: Path, tmp_path: Path) -> None:
    arguments = ["explain", model_file, photo, "-o", tmp_path, "--method", "occlusion", "--json"]
    (one,) = explained(run(*arguments, "--style", "contours", "--patch", "4x2"))
    heatmap = actgrid.explain(actgrid.load_model(model_file), photo, "occlusion", patch=(4, 2))
    np.testing.assert_array_equal(pixels(one["file"]), heatmap.contours().to_rgb())


def test_explain_lists_the_methods(run: Run) -> None:
    result = run("explain", "--list")
    assert (result.code, result.err) == (0, "")
    assert re.search(r"^method +needs +summary +source *$", result.out, re.M)
    assert re.search(
        r"^gradcam\+\+ +gradients, layer +Weigh .* https://arxiv.org/abs/1710.11063 *$",
        result.out,
        re.M,
    )
    methods = json.loads(run("explain", "--list", "--json").out)
    assert len(methods) == len(result.out.splitlines()) - 1 == 14
    (occlusion,) = (one for one in methods if one["method"] == "occlusion")
    assert occlusion["needs"] == ["batch"]
    needs = {method["method"]: method["needs"] for method in methods}
    assert needs["saliency"] == ["gradients"]
    assert needs["scorecam"] == ["layer"]
    assert needs["gradcam"] == ["gradients", "layer"]
    assert list(needs) == [
        *("saliency", "gradient_x_input", "integrated_gradients", "smoothgrad", "guided_backprop"),
        *("cam", "gradcam", "gradcam++", "scorecam", "layercam", "guided_gradcam"),
        *("occlusion", "rise", "lime"),
    ]
    assert occlusion["options"] == {"patch": None, "stride": None, "baseline": "mean"}


def test_what_cannot_be_explained_is_said_before_tensorflow_is_loaded(
    model_file: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    code = (
        "import sys, actgrid.cli\n"
        "sys.modules['sklearn'] = None\n"
        "for arguments in {!r}:\n"
        "    try: actgrid.cli.main(arguments)\n"
        "    except SystemExit as stop: assert stop.code == 2\n"
        "assert not {{'tensorflow', 'keras'}} & set(sys.modules)\n"
    )
    common = ["explain", "no-model.keras", str(photo), "-o", str(tmp_path / "out")]
    named = ["--labels", str(tmp_path / "names.txt")]
    cases = {
        ("--method", "gradcan"): ["did you mean gradcam"],
        ("--method", "saliency", "--layer", "conv"): ["leave layer out"],
        ("--method", "lime"): ["lime needs scikit-learn", "actgrid[explain]"],
        ("--stepz", "3"): ["no option is called --stepz (did you mean --steps", "explain --help"],
        ("--steps", "9"): ["--steps is no option of gradcam; options: --token-grid"],
        ("--patch", "4", "--method", "saliency"): ["--patch is no option of saliency", "--reduce"],
        ("--steps", "ten", "--method", "integrated_gradients"): [
            "--steps must be an integer from 2 to 1024, not 'ten'"
        ],
        ("--noise", "1x2", "--method", "smoothgrad"): ["--noise must be a number", "not '1x2'"],
        ("--reduce", "mean", "--method", "saliency"): ["--reduce", "max, norm, sum, not 'mean'"],
        ("--patch", "a", "--method", "occlusion"): ["--patch must be HxW", "not 'a'"],
        ("--patch", "1x2x3", "--method", "occlusion"): ["--patch must be HxW"],
        ("--style", "contour"): ["did you mean contours"],
        ("--alpha", "2"): ["alpha"],
        ("--clip", "-1"): ["clip"],
        ("--cmap", "virids"): ["viridis"],
        ("--fit", "squeeze"): ["crop, pad, stretch"],
        ("--size", "big"): ["--size"],
        ("--format", "exe"): ["--format must be an image format", "'exe'"],
        ("--batch-size", "0"): ["--batch-size"],
        ("--target", "-1"): ["0 or more, not -1"],
        ("--target", "99999999999"): ["no class 99999999999"],
        ("--labels", "none.txt"): ["no file none.txt"],
        (*named, "--target", "be"): ["'be'", "did you mean bee"],
        (*named, "--target", "2"): ["no class 2"],
        ("no.jpg",): ["no image no.jpg"],
    }
    script = code.format([[*common, *case] for case in cases])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for (case, words), line in zip(cases.items(), done.stderr.splitlines(), strict=True):
        assert line.startswith("actgrid: "), (case, line)
        for word in words:
            assert word in line, (case, line)
    assert not (tmp_path / "out").exists()


# --- bench ---


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return what makes the cases two: a kernel so much slower than today's, and another thing."""
    seconds = {"kernel": 2.0, "other": 0.5}
    factors = {"kernel": 1.0, "other": 1.0}
    monkeypatch.setattr("actgrid.bench.bench_cases", lambda quick: seconds)

    @contextmanager
    def turns_with_yardsticks(build: Any, ratios: dict[str, float]) -> Iterator[Any]:
        yield lambda case, _: (ratios[case], seconds[case] * factors[case])

    @contextmanager
    def turns_of_builds(before: Any, now: Any) -> Iterator[Any]:
        yield lambda case, _: (seconds[case], seconds[case] * factors[case])

    monkeypatch.setattr("actgrid.bench.turns_with_yardsticks", turns_with_yardsticks)
    monkeypatch.setattr("actgrid.bench.turns_of_builds", turns_of_builds)
    monkeypatch.setattr("actgrid.bench.check_builds", lambda *builds: {})
    return lambda factor: factors.update(kernel=factor)


def test_bench_prints_and_saves_figures(
    run: Run, kernel: Callable[[float], None], tmp_path: Path
) -> None:
    result = run("bench", "--quick", "--save", tmp_path / "new" / "figures.json")
    assert (result.code, result.err) == (0, "")
    lines = [line.split() for line in result.out.splitlines()]
    assert lines == [
        ["case", "ms", "over", "yardstick", "+-"],
        ["kernel", "2000.000", "2.000", "0.0%"],
        ["other", "500.000", "0.500", "0.0%"],
    ]
    kept = json.loads((tmp_path / "new" / "figures.json").read_text())["cases"]
    assert {"cases": kept} == json.loads(run("bench", "--quick", "--json").out)


@pytest.mark.parametrize("other", ["figures", "build"])
def test_bench_fails_for_a_kernel_made_slower_and_passes_an_equal_one(
    run: Run, kernel: Callable[[float], None], tmp_path: Path, other: str
) -> None:
    path = Path(actgrid.__file__).parents[1]
    if other == "figures":
        path = tmp_path / "figures.json"
        run("bench", "--quick", "--save", path)
    equal = run("bench", "--quick", "--against", path)
    assert (equal.code, equal.err) == (0, "")
    assert equal.out.splitlines()[-1] == "slower by more than 15%: nothing"
    kernel(1.3)
    slower = run("bench", "--quick", "--against", path)
    assert (slower.code, slower.err) == (1, "")
    assert re.search(r"^kernel +2000.000 +2600.000 +\+30.0% +0.0% +slower$", slower.out, re.M)
    assert re.search(r"^other +500.000 +500.000 +\+0.0% +0.0% *$", slower.out, re.M)
    assert slower.out.splitlines()[-1] == "slower by more than 15%: kernel"
    report = run("bench", "--quick", "--against", path, "--json")
    assert report.code == 1
    assert json.loads(report.out)["slower"] == ["kernel"]
    assert json.loads(report.out)["left_out"] == {}
    assert json.loads(report.out)["cases"]["kernel"]["ratio"] == pytest.approx(1.3)
    assert run("bench", "--quick", "--against", path, "--tolerance", 0.5).code == 0


def test_bench_tells_of_cases_that_the_other_build_cannot_run(
    run: Run, kernel: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actgrid.bench.check_builds", lambda *builds: {"other": "no such thing"})
    against = ("bench", "--quick", "--against", Path(actgrid.__file__).parents[1])
    result = run(*against)
    assert result.code == 0
    assert result.out.splitlines()[-2:] == [
        "left out, the other build cannot run it: other (no such thing)",
        "slower by more than 15%: nothing",
    ]
    report = json.loads(run(*against, "--json").out)
    assert report["left_out"] == {"other": "no such thing"}
    assert list(report["cases"]) == ["kernel"]


def test_bench_measures_for_real(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert run("bench", "--rounds", 1, "--save", path).code == 0
    # However noisy the machine, nothing becomes a hundred times slower meanwhile.
    against = ("bench", "--quick", "--rounds", 1, "--against", path, "--tolerance", 100)
    assert run(*against).code == 0


# --- help and usage ---


def test_help_tells_of_every_command(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    for command in ("demo", "layers", "info", "render", "explain", "bench"):
        assert re.search(rf"\b{command}\b", result.out)
        assert run(command, "--help").code == 0
    told = re.sub(r"[^a-z]+", " ", run("render", "--help").out)
    assert "default every layer with a spatial output" in told
    bare = run()
    assert (bare.code, bare.err) == (0, "")
    assert bare.out.strip() == result.out.strip()


def test_version(run: Run) -> None:
    assert run("--version").out == f"actgrid {actgrid.__version__}\n"


def test_reader_that_leaves_early_is_no_error(start: Callable[..., Any]) -> None:
    with start("layers", "demo") as process:
        # The rest is more than a pipe holds, or comes after this.
        assert process.stdout.read(5) == "index"
        process.stdout.close()
        assert process.stderr.read() == ""


# --- what is wrong ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rendr"], ["no command is called 'rendr' (did you mean render", "see actgrid --help"]),
        (["render", "{model}", "{photo}"], ["Missing option", "--output"]),
        (["render", "{model}", "-o", "{out}"], ["Missing argument"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--zoom", "x"], ["--zoom"]),
        (["layers", "nope.keras"], ["no model file nope.keras"]),
        (["layers", "keras:VGG61"], ["no 'VGG61'", "VGG16"]),
        (["layers", "demoo"], ["'demoo' is no model", "did you mean demo"]),
        (["layers", "nowhere:build"], ["no module 'nowhere'"]),
        (["layers", "{photo}"], ["cat.jpg is not a Keras model file"]),
        (["render", "{model}", "no.jpg", "-o", "{out}"], ["no image no.jpg"]),
        (["render", "{model}", "{model}", "-o", "{out}"], ["small.keras is not an image"]),
        (["render", "{model}", "{cut}", "-o", "{out}"], ["cut.jpg is truncated"]),
        (
            ["render", "{model}", "{photo}", "-o", "{out}", "--layers", "convv"],
            ["'convv'", "did you mean conv"],
        ),
        (["render", "{model}", "{photo}", "-o", "{out}", "--layers", "9"], ["no layer 9"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--cmap", "virids"], ["viridis"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--normalize", "z"], ["minmax"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--scope", "all"], ["'all'"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--order", "-1"], ["--order"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--order", "99"], ["channel 99"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--order", "5-3,1"], ["5-3,1"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--size", "0x0"], ["--size"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--compression", "z"], ["fast, small"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--format", "exe"], ["'exe'"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--size", "big"], ["--size", "HxW"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--size", "9x9"], ["takes an input of"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--preprocess", "vgg"], ["VGG16"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--backend", "gpu"], ["'gpu'"]),
        (
            ["render", "{model}", "{photo}", "-o", "{out}", "--backend", "tensorflow"],
            ["for actgrid.render_model", "auto"],
        ),
        (["render", "{model}", "{photo}", "-o", "{out}", "--batch-size", "0"], ["at least 1"]),
        (["render", "{model}", "{photo}", "-o", "{photo}/out"], ["cannot make the folder"]),
        (["demo", "-o", "/sys/actgrid"], ["cannot make the folder /sys/actgrid"]),
        (["render", "keras:VGG16", "{photo}", "-o", "{out}", "--weights", "w.h5"], ["w.h5"]),
        (["layers", "{lambda}"], ["Lambda", "--no-safe-mode"]),
        (["explain"], ["MODEL, IMAGE and --output are needed", "--list"]),
        (["explain", "{model}", "{photo}"], ["--output"]),
        (["explain", "{model}", "{cut}", "-o", "{out}"], ["cut.jpg is truncated"]),
        (
            ["explain", "{model}", "{photo}", "-o", "{out}", "--target", "4"],
            ["no class 4", "0 to 3"],
        ),
        (
            ["explain", "{model}", "{photo}", "-o", "{out}", "--target", "cat"],
            ["names of the model's classes are not known", "labels"],
        ),
        (
            ["explain", "{model}", "{photo}", "-o", "{out}", "--labels", "{cut}.txt"],
            ["labels must name the model's 4 classes, not 1"],
        ),
        (
            ["explain", "{model}", "{photo}", "-o", "{out}", "--layer", "convv"],
            ["'convv'", "did you mean conv"],
        ),
        (["explain", "{model}", "{photo}", "-o", "{out}", "--layer", "flat"], ["no picture"]),
        (
            ["explain", "{model}", "{photo}", "-o", "{out}", "--method", "cam"],
            ["global average"],
        ),
        (
            [
                "explain",
                "{model}",
                "{photo}",
                "-o",
                "{out}",
                "--method",
                "rise",
                "--keep-probability",
                "2",
            ],
            ["--keep-probability must be a number from 0 to 1"],
        ),
        (
            ["explain", "demo", "{photo}", "-o", "{out}", "--target", "Egyptian dog"],
            ["'Egyptian dog'", "Egyptian cat"],
        ),
        (["bench", "--against", "none.json"], ["no file none.json", "--save makes one"]),
        (["bench", "--against", "none"], ["none: no such file or folder", "a wheel, a checkout"]),
        (["bench", "--against", "{photo}"], ["cat.jpg is no build of actgrid", "a wheel, a"]),
        (["bench", "--against", "x.json", "--save", "y.json"], ["--save", "--against", "one of"]),
        (["bench", "--save", "{photo}/x.json"], ["cannot make the folder"]),
        (["bench", "--tolerance", "-1"], ["--tolerance must be a number of at least 0, not -1"]),
        (["bench", "--tolerance", "nan"], ["--tolerance", "nan"]),
        (["bench", "--rounds", "0"], ["--rounds"]),
        (["layers", "os:system"], ["os:system raised TypeError", "a function that takes no"]),
        (["layers", "builtins:exit"], ["builtins:exit raised SystemExit"]),
        (["layers", "{cut}"], ["cut.jpg is not a Keras model file", "neither a zip archive"]),
        (["render", "{model}", "{photo}", "-o", "ftp://localhost:1/x"], ["ftp://localhost:1/x"]),
        (["render", "{model}", "{photo}", "-o", "nowhere://x"], ["Protocol not known: nowhere"]),
        (["render", "{model}", "http://localhost/a.png", "-o", "{out}"], ["there is no image"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_one_clear_line_and_no_file(
    run: Run,
    model_file: Path,
    photo: Path,
    tmp_path: Path,
    arguments: list[str],
    words: list[str],
) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photo.read_bytes()[:5000])
    (tmp_path / "cut.jpg.txt").write_text("cat\n")
    code = tmp_path / "lambda.keras"
    if "{lambda}" in arguments:
        keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)]).save(code)
    out = tmp_path / "out"
    places = {"model": model_file, "photo": photo, "cut": cut, "out": out, "lambda": code}
    result = run(*(argument.format(**places) for argument in arguments))
    result.assert_one_clear_line(*words)
    assert not out.exists() or not [file for file in out.rglob("*") if file.is_file()]


def test_lambda_file_loads_when_told_to(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "lambda.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)]).save(path)
    assert run("layers", path, "--no-safe-mode").code == 0


def test_full_disk_is_one_clear_line_and_leaves_no_partial_file(
    process: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    arguments = ["render", model_file, photo, "-o", tmp_path / "out"]
    small = process(*arguments, "--layers", "pool", first=limit)
    assert small.code == 0, small
    assert {path.name for path in (tmp_path / "out" / "cat").iterdir()} == {
        "00_pool.png",
        "stats.json",
    }
    large = ["--layers", "conv", "--zoom", 40, "--overwrite"]
    result = process(*arguments, *large, first=limit)
    result.assert_one_clear_line("cannot write", "00_conv.png", "File too large")
    assert not (tmp_path / "out" / "cat").exists()


def test_an_error_that_nobody_expected_is_one_line_and_can_be_traced(
    run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("so\nsorry")

    monkeypatch.setattr("actgrid.models.list_layers", fail)
    result = run("layers", model_file)
    result.assert_one_clear_line("RuntimeError: so sorry", "actgrid -v shows where")
    for traced in (run("-v", "layers", model_file), run("layers", model_file, "--verbose")):
        assert "Traceback" in traced.err
        assert traced.err.endswith("RuntimeError: so sorry (actgrid -v shows where)\n")


def test_interrupt_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("actgrid.rendering.backend_problems", interrupt)
    result = run("info")
    assert result.code == 130
    assert result.err == "actgrid: interrupted\n"


# --- render-weights ---


def test_render_weights_draws_the_kernels_and_tells_of_them(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    result = run("render-weights", model_file, "-o", tmp_path)
    assert result.code == 0, result
    assert [file.name for file in tmp_path.iterdir()] == ["00_conv_kernel.png"]
    grid = actgrid.render_weights(str(model_file))["conv/kernel"]
    with Image.open(tmp_path / "00_conv_kernel.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), grid.levels)
    assert re.search(r"^weight +type +shape +min +max +ms$", result.out, re.M)
    assert re.search(r"^conv/kernel +Conv2D +3 x 3 x 3 x 5 +-0\.\d+ +0\.\d+ +\d", result.out, re.M)
    assert result.out.splitlines()[-1] == f"1 weight: {tmp_path.resolve()}"


def test_render_weights_of_named_layers_with_options(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    options: list[object] = ["--layers", "conv", "--layers", "head", "--format", "webp", "--json"]
    options += ["--scope", "layer", "--cmap", "gray", "--zoom", 2, "--order", "1-0"]
    run("render-weights", model_file, "-o", tmp_path, *options).assert_one_clear_line(
        "order", "1-0"
    )
    result = run("render-weights", model_file, "-o", tmp_path, *options[:-1], "1,0")
    told = json.loads(result.out)["weights"]
    assert [one["path"] for one in told] == ["conv/kernel", "conv/bias", "head/kernel", "head/bias"]
    assert [one["file"] for one in told][:2] == ["00_conv_kernel.webp", "01_conv_bias.webp"]
    with Image.open(tmp_path / "00_conv_kernel.webp") as picture:
        assert picture.size == (2 * 11, 2 * 7)


def test_render_weights_says_what_is_wrong_in_one_line(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    command = ["render-weights", model_file, "-o", tmp_path]
    run(*command, "--layers", "flat").assert_one_clear_line("flat", "no weights")
    run(*command, "--layers", "cnov").assert_one_clear_line("did you mean conv")
    run("render-weights", "none.keras", "-o", tmp_path, "--zoom", 0).assert_one_clear_line("zoom")
    run("render-weights", "none.keras", "-o", tmp_path).assert_one_clear_line("none.keras")


# --- maximize ---


def test_maximize_draws_channels_and_tells_what_they_were_brought_to(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    options = ["--layer", "conv", "--channels", "3,0-1", "--steps", 4, "--jitter", 0.2]
    result = run("maximize", model_file, *options, "-o", tmp_path / "new" / "conv.png")
    assert result.code == 0, result
    assert result.err == ""
    with Image.open(tmp_path / "new" / "conv.png") as picture:
        found = actgrid.maximize(str(model_file), "conv", [3, 0, 1], steps=4, jitter=0.2)
        np.testing.assert_array_equal(np.asarray(picture), found.to_rgb())
    assert re.search(r"^channel +start +activation$", result.out, re.M)
    assert re.search(rf"^ +3 +-?\d\.\d+ +{found.activations[0]:.3f}$", result.out, re.M)
    assert result.out.splitlines()[-1].startswith("conv, 3 channels: ")


def test_maximize_for_machines(run: Run, model_file: Path, tmp_path: Path) -> None:
    options = ["--layer", -1, "--steps", 9, "--parametrization", "pixel", "--json", "--rotate", 0]
    result = run("maximize", model_file, *options, "-o", tmp_path / "head.webp")
    told = json.loads(result.out)
    assert told["layer"] == "head"
    assert [one["channel"] for one in told["channels"]] == [0, 1, 2, 3]
    assert all(one["activation"] > one["start"] for one in told["channels"])


def test_maximize_says_what_is_wrong_in_one_line(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    def wrong(*options: object, model: object = "none.keras") -> Result:
        return run("maximize", model, "--layer", "conv", "-o", tmp_path / "a.png", *options)

    wrong("--steps", 0).assert_one_clear_line("--steps must be at least 1")
    wrong("--parametrization", "x").assert_one_clear_line("fourier, pixel")
    wrong("--size", "axb").assert_one_clear_line("--size must be HxW")
    wrong("--channels", "4-1").assert_one_clear_line("--channels", "4-1")
    wrong("-o", tmp_path / "a.nope").assert_one_clear_line(".nope")
    wrong().assert_one_clear_line("no model file none.keras")
    wrong("--channels", 9, model=model_file).assert_one_clear_line("channels 0 to 4, not 9")
    wrong("--channels", "cat", model=model_file).assert_one_clear_line("names", "not known")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\n")
    labelled = ["--layer", -1, "--channels", "cat", "--labels", tmp_path / "names.txt"]
    result = run(
        "maximize", model_file, "-o", tmp_path / "b.png", "--steps", 1, *labelled, "--json"
    )
    assert [each["channel"] for each in json.loads(result.out)["channels"]] == [2]
    wrong("--layer", "cnov", model=model_file).assert_one_clear_line("did you mean conv")


def test_maximize_takes_other_inputs_and_images_of_many_channels(run: Run, tmp_path: Path) -> None:
    image, gate = keras.Input((9, 8, 6), name="image"), keras.Input((1,), name="gate")
    units = keras.layers.Dense(2, name="units")(keras.layers.Flatten()(image))
    model = keras.Model([gate, image], keras.layers.Multiply(name="gated")([units, gate]))
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "others.npz", gate=[2.0])
    command = ["maximize", tmp_path / "model.keras", "--layer", "gated", "--steps", 3]
    options = ["--inputs", tmp_path / "others.npz", "--image-input", "image"]
    for name, more in (("gray", []), ("colour", ["--rgb-channels", "5,0,1"])):
        file = tmp_path / f"{name}.png"
        result = run(*command, *options, *more, "-o", file)
        assert result.code == 0, result
        rgb = (5, 0, 1) if more else None
        given = {"gate": np.array([2.0])}
        found = actgrid.maximize(model, "gated", steps=3, inputs=given, rgb_channels=rgb)
        with Image.open(file) as picture:
            np.testing.assert_array_equal(np.asarray(picture), found.to_rgb())
    wrong = [*command, "-o", tmp_path / "no.png"]
    run(*wrong).assert_one_clear_line("also takes gate", "inputs=")
    run(*wrong, "--inputs", tmp_path / "no.npz").assert_one_clear_line("there is no file", "no.npz")
    run(*wrong, "--inputs", tmp_path / "model.keras").assert_one_clear_line(".npz file of numbers")
    run(*wrong, *options, "--rgb-channels", "1,2").assert_one_clear_line("three channels")


# --- diagram ---


def test_diagram_draws_boxes_and_tells_of_them(run: Run, model_file: Path, tmp_path: Path) -> None:
    result = run("diagram", model_file, "-o", tmp_path / "new" / "d.png")
    assert result.code == 0
    assert "1 Input" in result.out
    assert str(tmp_path / "new" / "d.png") in result.out
    with Image.open(tmp_path / "new" / "d.png") as picture:
        assert picture.mode == "RGB"
    options = ["--layers", "0", "--no-names", "--no-legend", "--side", 40, "--json"]
    result = run("diagram", model_file, "-o", tmp_path / "e.webp", *options)
    (told,) = result.events
    assert told["file"] == str(tmp_path / "e.webp")
    assert [box["type"] for box in told["boxes"]] == ["Input", "Conv2D"]


def test_diagram_of_an_image(run: Run, photo: Path, model_file: Path, tmp_path: Path) -> None:
    assert run("diagram", model_file, photo, "-o", tmp_path / "d.png").code == 0
    assert run("diagram", model_file, "-o", tmp_path / "e.png").code == 0
    assert (tmp_path / "d.png").read_bytes() != (tmp_path / "e.png").read_bytes()


def test_diagram_says_what_is_wrong_in_one_line(run: Run, model_file: Path, tmp_path: Path) -> None:
    command = ["diagram", "none.keras", "-o", tmp_path / "d.png"]
    run(*command, "--side", 1).assert_one_clear_line("side")
    run(*command, "--cmap", "virdis").assert_one_clear_line("viridis")
    run(*command[:2], "-o", tmp_path / "d.pgn").assert_one_clear_line(".png")
    run("diagram", "none.keras", "none.jpg").assert_one_clear_line("none.jpg")
    run(*command).assert_one_clear_line("none.keras")
    command[1] = model_file
    run(*command, "--layers", "cnv").assert_one_clear_line("cnv")
    assert not list(tmp_path.glob("d.*"))


# --- preprocessing and names of classes, decided by the layers ---


def test_explain_knows_an_application_by_its_layers(run: Run, photo: Path, tmp_path: Path) -> None:
    network = keras.applications.MobileNet(weights=None, alpha=0.25, name="mine")
    network.save(tmp_path / "mine.keras")
    arguments = ["explain", tmp_path / "mine.keras", photo, "-o", tmp_path, "--method", "saliency"]
    result = run(*arguments, "--target", "Egyptian cat")
    assert (result.code, result.err) == (0, "")
    line, prepared = result.out.splitlines()
    assert line.startswith("cat.jpg: saliency: Egyptian cat ")
    reason = "the architecture of keras.applications.MobileNet"
    assert prepared == f"preprocessing: MobileNet ({reason})"
    (told,) = run(*arguments, "--json").events
    assert told["preprocessing"] == {"name": "MobileNet", "reason": reason, "assumed": False}


def test_imagenets_names_are_asked_for_by_a_word(run: Run, photo: Path, tmp_path: Path) -> None:
    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1000)]
    )
    network.save(tmp_path / "own.keras")
    arguments = ["explain", tmp_path / "own.keras", photo, "-o", tmp_path, "--method", "saliency"]
    unknown = run(*arguments, "--target", "Egyptian cat")
    unknown.assert_one_clear_line("names of the model's classes are not known")
    known = run(*arguments, "--target", "Egyptian cat", "--labels", "imagenet")
    assert (known.code, known.err) == (0, "")
    assert known.out.startswith("cat.jpg: saliency: Egyptian cat ")
