"""Tests of the command `actgrid explain`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import actgrid
from actgrid.attribution.methods import get_methods
from actgrid.attribution.requests import prepare_request

# The printed line about preprocessing, for a model without known preprocessing.
ASSUMED = "preprocessing: unit (assumed: pixels divided by 255); change it with --preprocess"

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


def read_explanations(result: Result) -> list[dict[str, Any]]:
    assert (result.code, result.err) == (0, "")
    return [json.loads(line) for line in result.out.splitlines()]


def read_pixels(path: Path | str) -> Any:
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
        assert np.abs(read_pixels(file).astype(int) - expected).max() <= 2
    assert len(list(tmp_path.iterdir())) == 3


def test_explain_names_targets_by_a_file_of_labels(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("ant\nbee\ndog\ncat of Egypt\n\n")
    arguments = ["explain", model_file, photo, "-o", tmp_path, "--json"]
    (record,) = read_explanations(
        run(*arguments, "--labels", tmp_path / "names.txt", "--target", "cat of egypt")
    )
    (other,) = read_explanations(run(*arguments, "--target", "3"))
    assert record == {**other, "name": "cat of Egypt"}
    assert record["target"] == 3
    assert record["method"] == "gradcam"
    assert record["layer"] == "relu"
    assert record["is_logit"] is False
    assert record["file"] == str(tmp_path / "cat_gradcam.png")
    wrong = run(*arguments, "--labels", photo)
    wrong.assert_one_clear_line("cat.jpg cannot be read as names of classes")


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two outputs: three classes by softmax, and one sigmoid."""
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
    found = read_explanations(run(*arguments, *methods, "--labels", tmp_path / "names.txt"))
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
        drawn = read_pixels(entry["file"]).astype(int)
        assert np.abs(drawn - heatmap.overlay().to_rgb()).max() <= 2


def test_explain_takes_outputs_and_names_of_their_classes(
    run: Run, two_heads: Path, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "kinds.txt").write_text("tabby\ntiger\nlion\n")
    (tmp_path / "cats.txt").write_text("no\nyes\n")
    arguments = ["explain", two_heads, photo, "-o", tmp_path, "--method", "saliency"]
    targets = ["--target", "kind=lion", "--target", "is_cat=no", "--target", "1=0"]
    labels = ["--labels", f"kind={tmp_path}/kinds.txt", "--labels", f"is_cat={tmp_path}/cats.txt"]
    found = read_explanations(run(*arguments, *targets, *labels, "--json"))
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
        (["--target", "1"], "the model has 2 outputs, 'is_cat', 'kind': use --target is_cat="),
        ([], "use --target is_cat=CLASS, such as --target is_cat=0"),
        (["--target", "kind"], "is the name of an output, not of a class: use --target kind=CLASS"),
        (["--target", "kind=3"], "there is no class 3: output 'kind' has 3 classes, 0 to 2"),
        (["--target", "kind=lien", *labels], "no class is called 'lien' (did you mean lion?)"),
        (["--labels", f"kind={tmp_path}/none.txt"], "there is no file"),
        (
            ["--labels", f"{tmp_path}/cats.txt", *labels],
            "each --labels must be OUTPUT=FILE if the option is repeated",
        ),
        ([*labels, *labels], "--labels must be one file, or OUTPUT=FILE"),
    ):
        run(*arguments, *wrong).assert_one_clear_line(words)


def test_explain_of_dense_outputs_requires_python_target(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    keras.Model(inputs, x).save(tmp_path / "one.keras")
    keras.Model(inputs, {"a": x, "b": 2 * x}).save(tmp_path / "two.keras")
    for model, *target in (("one",), ("two",), ("two", "--target", "a=0")):
        arguments = ["explain", tmp_path / f"{model}.keras", photo, "-o", tmp_path, *target]
        result = run(*arguments)
        result.assert_one_clear_line(
            "such a model needs a function as target, in Python: actgrid.explain(..., target="
        )
        assert "lambda" not in result.err


def test_explain_prints_why_map_is_zero_in_one_line(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    model = keras.models.load_model(model_file)
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    model.save(tmp_path / "zeros.keras")
    result = run("explain", tmp_path / "zeros.keras", photo, "-o", tmp_path, "--method", "saliency")
    assert result.code == 0
    assert result.err == (
        "actgrid: saliency: 1 of 1 maps are zero everywhere: the gradient of the score with "
        "respect to the input is zero, or an operation stops it\n"
    )


def test_explain_takes_many_images_in_batches_and_names_each_picture(
    run: Run, model_file: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "more").mkdir(parents=True)
    for turns, name in enumerate(["a.png", "a_guided.png", "b.png", "more/a.png", "more/c.png"]):
        with Image.open(photo) as picture:
            picture.rotate(90 * turns, expand=True).save(tmp_path / "in" / name)
    sizes = []

    def count_calls(model: Any, x: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(x))
        return prepare_request(model, x, *arguments, **options)

    monkeypatch.setattr("actgrid.runs.explanations.prepare_request", count_calls)
    arguments = ["explain", model_file, tmp_path / "in", "--json"]
    methods = ["--method", "gradcam", "--method", "guided_gradcam", "--style", "map"]
    batched = read_explanations(run(*arguments, *methods, "-o", tmp_path / "2", "--batch-size", 2))
    assert sizes == [2, 2, 1]
    assert [Path(record["file"]).name for record in batched] == [
        *("a_gradcam.png", "a_guided_gradcam.png"),
        *("a_guided_gradcam-2.png", "a_guided_guided_gradcam.png"),
        *("b_gradcam.png", "b_guided_gradcam.png"),
        *("a-2_gradcam.png", "a-2_guided_gradcam.png"),
        *("c_gradcam.png", "c_guided_gradcam.png"),
    ]
    assert len(list((tmp_path / "2").iterdir())) == 10
    # The results do not depend on the batch size.
    model = actgrid.load_model(model_file)
    for record in batched:
        heatmap = actgrid.explain(model, record["image"], record["method"])
        assert record["score"] == pytest.approx(float(heatmap.score[0]), rel=1e-4)  # type: ignore[index]
        expected = heatmap.overlay(alpha=1).to_rgb()
        assert np.abs(read_pixels(record["file"]).astype(int) - expected).max() <= 2


def test_explain_applies_preprocessing_only_to_model_input(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3)])
    model.add(keras.layers.GlobalAveragePooling2D())
    model.save(tmp_path / "any.keras")
    options = ["--alpha", 0, "--fit", "pad", "--size", "20x24", "--format", "TIFF"]
    arguments = ["explain", tmp_path / "any.keras", photo, "-o", tmp_path, *options, "--json"]
    plain, other = (
        read_explanations(run(*arguments, "--preprocess", name))[0] for name in ("none", "ResNet50")
    )
    assert plain["file"].endswith("cat_gradcam.tiff")
    assert plain["preprocessing"] == {"name": "none", "reason": "as given", "assumed": False}
    assert other["preprocessing"]["name"] == "ResNet50"
    # The model's input is BGR with negative values; the picture shows the photo itself.
    with Image.open(photo) as image:
        np.testing.assert_array_equal(read_pixels(other["file"]), np.asarray(image.convert("RGB")))
    batch = actgrid.load_images(photo, size=(20, 24), preprocess="ResNet50", fit="pad")
    score = actgrid.explain(model, batch, target=other["target"]).score
    assert score is not None
    assert other["score"] == pytest.approx(float(score[0]), rel=1e-4)
    assert plain["score"] != pytest.approx(other["score"])


def test_explain_draws_contours(run: Run, model_file: Path, photo: Path, tmp_path: Path) -> None:
    arguments = ["explain", model_file, photo, "-o", tmp_path, "--method", "occlusion", "--json"]
    (record,) = read_explanations(run(*arguments, "--style", "contours", "--patch", "4x2"))
    heatmap = actgrid.explain(actgrid.load_model(model_file), photo, "occlusion", patch=(4, 2))
    np.testing.assert_array_equal(read_pixels(record["file"]), heatmap.contours().to_rgb())


def test_explain_lists_the_methods(run: Run) -> None:
    result = run("explain", "--list")
    assert (result.code, result.err) == (0, "")
    assert re.search(r"^method +needs +summary +source *$", result.out, re.M)
    assert re.search(
        r"^gradcam\+\+ +gradients, layer +Weight .* https://arxiv.org/abs/1710.11063 *$",
        result.out,
        re.M,
    )
    methods = json.loads(run("explain", "--list", "--json").out)
    assert len(methods) == len(result.out.splitlines()) - 1 == len(get_methods())
    (occlusion,) = (method for method in methods if method["method"] == "occlusion")
    assert occlusion["needs"] == ["batch"]
    needs = {method["method"]: method["needs"] for method in methods}
    assert needs["saliency"] == ["gradients"]
    assert needs["scorecam"] == ["layer"]
    assert needs["gradcam"] == ["gradients", "layer"]
    assert list(needs) == list(get_methods())
    assert occlusion["options"] == {"patch": None, "stride": None, "baseline": "mean"}


def test_explain_reports_invalid_options_before_loading_tensorflow(
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
        ("--stepz", "3"): ["unknown option --stepz (did you mean --steps", "explain --help"],
        ("--steps", "9"): [
            "--steps is not an option of gradcam, scorecam, occlusion; options: --token-grid"
        ],
        ("--patch", "4", "--method", "saliency"): [
            "--patch is not an option of saliency",
            "--reduce",
        ],
        ("--steps", "ten", "--method", "integrated_gradients"): [
            "--steps must be an integer from 2 to 1024, not 'ten'"
        ],
        ("--noise", "1x2", "--method", "smoothgrad"): ["--noise must be a number", "not '1x2'"],
        ("--reduce", "mean", "--method", "saliency"): [
            "--reduce",
            "max, norm, sum, none, not 'mean'",
        ],
        ("--patch", "a", "--method", "occlusion"): [
            "--patch must be lengths such as 16x16",
            "not 'a'",
        ],
        ("--patch", "1x0", "--method", "occlusion"): ["--patch must be", "at least 1"],
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


def test_explain_recognizes_application_by_its_layers(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    network = keras.applications.MobileNet(weights=None, alpha=0.25, name="mine")
    network.save(tmp_path / "mine.keras")
    arguments = ["explain", tmp_path / "mine.keras", photo, "-o", tmp_path, "--method", "saliency"]
    result = run(*arguments, "--target", "Egyptian cat")
    assert (result.code, result.err) == (0, "")
    line, prepared = result.out.splitlines()
    assert line.startswith("cat.jpg: saliency: Egyptian cat ")
    reason = "the architecture of keras.applications.MobileNet"
    assert prepared == f"preprocessing: MobileNet ({reason})"
    (printed,) = run(*arguments, "--json").events
    assert printed["preprocessing"] == {"name": "MobileNet", "reason": reason, "assumed": False}


def test_labels_imagenet_selects_imagenet_names(run: Run, photo: Path, tmp_path: Path) -> None:
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
