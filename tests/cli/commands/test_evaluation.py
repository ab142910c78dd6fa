"""Tests of the commands `actgrid compare` and `actgrid evaluate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import actgrid
from actgrid.evaluation.metrics import get_metrics

Run = Callable[..., Any]


def read_pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_compare_draws_the_ranked_table(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out" / "sheet.png"
    methods = ["--method", "saliency", "--method", "gradcam"]
    arguments = [
        "compare",
        model_file,
        photo,
        "-o",
        file,
        *methods,
        "--target",
        3,
        "--cmap",
        "magma",
    ]
    result = run(*arguments, "--metric", "insertion", "--json")
    assert (result.code, result.err) == (0, "")
    (printed,) = result.events
    model = actgrid.load_model(model_file)
    expected = actgrid.compare_methods(
        model, [photo], ["saliency", "gradcam"], 3, metrics=["insertion"], cmap="magma"
    )
    np.testing.assert_array_equal(read_pixels(file), expected.to_rgb())
    assert printed["ranking"] == expected.ranking
    assert printed["file"] == str(file)
    np.testing.assert_allclose(printed["agreement"], expected.agreement.values, atol=1e-5)
    evaluation = expected.evaluation
    assert evaluation is not None
    assert [row["attribution"] for row in printed["rows"]] == ["saliency", "gradcam"]
    np.testing.assert_allclose(
        [row["insertion"] for row in printed["rows"]], evaluation.values["insertion"][:, 0]
    )


def test_compare_several_targets_of_several_images(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second.png"
    Image.open(photo).rotate(90).save(second)
    file = tmp_path / "sheet.png"
    targets = ["--target", 1, "--target", 2]
    arguments = ["compare", model_file, photo, second, "-o", file, "--method", "saliency"]
    result = run(*arguments, *targets, "--metric", "none")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[0] == str(file)
    model = actgrid.load_model(model_file)
    expected = actgrid.compare_methods(
        model, [photo, second], ["saliency"], [[1, 2], [1, 2]], metrics=[]
    )
    np.testing.assert_array_equal(read_pixels(file), expected.to_rgb())


def test_evaluate_prints_the_mean_of_each_metric(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    file = tmp_path / "curves.png"
    options = ["--method", "occlusion", "--method", "saliency", "--steps", 5, "--target", 2]
    result = run("evaluate", model_file, photo, *options, "-o", file)
    assert (result.code, result.err) == (0, "")
    model = actgrid.load_model(model_file)
    evaluation = actgrid.evaluate(model, [photo], ["occlusion", "saliency"], target=2, steps=5)
    header, *rows = result.out.splitlines()
    assert header.split() == ["attribution", "deletion", "(lower)", "insertion", "(higher)"]
    for line, name in zip(rows, evaluation.ranking, strict=False):
        index = evaluation.names.index(name)
        values = [f"{means[index]:.4g}" for means in evaluation.means.values()]
        assert line.split() == [name, *values]
    assert rows[2] == "mean over 1 map"
    np.testing.assert_array_equal(read_pixels(file), evaluation.to_rgb())


def test_evaluate_reads_masks_and_boxes(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    box = run("evaluate", model_file, photo, "--metric", "energy", "--boxes", "1,2,5,6", "--json")
    model = actgrid.load_model(model_file)
    height, width = model.input_shape[1:3]
    mask = np.zeros((height, width), np.uint8)
    mask[1:5, 2:6] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", mask)
    for name in ("mask.png", "mask.npy"):
        arguments = ["--metric", "energy", "--masks", tmp_path / name, "--json"]
        result = run("evaluate", model_file, photo, *arguments)
        assert result.events[0]["rows"] == box.events[0]["rows"]
    assert 0 < box.events[0]["rows"][0]["energy"] < 1


def test_list_of_metrics(run: Run) -> None:
    listed = run("evaluate", "--list")
    assert (listed.code, listed.err) == (0, "")
    for name, metric in get_metrics().items():
        assert name in listed.out
        assert metric.source.split(",")[0] in listed.out
    rows = json.loads(run("evaluate", "--list", "--json").out)
    assert [row["metric"] for row in rows] == list(get_metrics())
    (road,) = (row for row in rows if row["metric"] == "road")
    assert road["options"]["fractions"] == [0.2, 0.4, 0.6, 0.8]
    assert road["direction"] == "higher"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "demo"], ["MODEL and IMAGE are required"]),
        (["evaluate", "demo", "demo", "--metric", "deletoin"], ["did you mean deletion"]),
        (["evaluate", "demo", "demo", "--metric", "energy"], ["energy needs the explained obj"]),
        (["evaluate", "demo", "demo", "--boxes", "1,2,3"], ["--boxes must be top,left,bottom"]),
        (["evaluate", "demo", "demo", "--samples", "3"], ["unknown option 'samples'"]),
        (["evaluate", "demo", "demo", "--fractions", "0.5,0.2"], ["--fractions", "increasing"]),
        (["evaluate", "demo", "demo", "-o", "x.abc"], [".abc"]),
        (["evaluate", "demo", "demo", "--method", "gradcm"], ["did you mean gradcam"]),
        (["compare", "demo", "demo", "--metric", "deletoin"], ["did you mean deletion"]),
        (["compare", "demo", "demo", "--method", "gradcm"], ["did you mean gradcam"]),
        (["compare", "demo", "demo", "-o", "x.abc"], [".abc"]),
        (["compare", "demo", "missing.png"], ["missing.png"]),
    ],
)
def test_errors_are_one_line(run: Run, arguments: list[str], words: list[str]) -> None:
    run(*arguments).assert_one_clear_line(*words)
