"""Results of other functions in the outputs of callbacks, by `actgrid.callbacks.log`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actgrid
from actgrid.callbacks import log
from actgrid.errors import OptionError


def read_numbers(folder: Path, file: str, key: str) -> dict[str, Any]:
    """Return the numbers in a file of JSON lines by tag; all lines are of step 4."""
    lines = [json.loads(line) for line in (folder / file).read_text().splitlines()]
    assert {line["step"] for line in lines} == {4}
    return {line["tag"]: line[key] for line in lines}


def test_grids_are_logged_to_files_and_tensorboard(
    cnn: Any, x: Any, tmp_path: Path, read_images: Any
) -> None:
    grids = actgrid.render_model(cnn(), x, ["conv", "pool"])
    log(grids, 4, folder=tmp_path / "files", log_dir=tmp_path / "logs")
    images = read_images(tmp_path / "logs")
    for number, path in enumerate(("conv", "pool")):
        png = grids[path].to_png()
        assert (tmp_path / "files" / f"0{number}_{path}" / "000004.png").read_bytes() == png
        assert images[path] == {4: [png]}


def test_a_picture_is_logged_with_its_tag(x: Any, tmp_path: Path) -> None:
    grid = actgrid.render(x)
    log(grid, tag="input/pixels", folder=tmp_path)
    (file,) = tmp_path.rglob("*.png")
    assert file.relative_to(tmp_path).as_posix() == "00_input_pixels/000000.png"
    assert file.read_bytes() == grid.to_png()


def test_statistics_are_logged_as_numbers(cnn: Any, x: Any, tmp_path: Path) -> None:
    model = cnn()
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[..., 2] = 0
    model.get_layer("conv").set_weights([kernel, bias])
    extractor, stats = actgrid.Extractor(model, "conv"), actgrid.DatasetStats()
    stats.update(extractor(x), extractor.layers)
    log(stats, 4, folder=tmp_path)
    assert read_numbers(tmp_path, "scalars.jsonl", "value") == {"conv/dead_channels": 1}
    values = read_numbers(tmp_path, "histograms.jsonl", "values")
    activations = extractor(x)["conv"]
    assert sorted(values) == ["conv/mean", "conv/std", "conv/zero_fraction"]
    np.testing.assert_allclose(values["conv/mean"], activations.mean((0, 1, 2)), 1e-5)
    np.testing.assert_allclose(values["conv/std"], activations.std((0, 1, 2)), 1e-4)


def test_a_comparison_is_logged_as_numbers_and_a_picture(cnn: Any, x: Any, tmp_path: Path) -> None:
    comparison = actgrid.compare_models(cnn(), cnn(), x, ["conv", "pool"])
    log(comparison, 4, folder=tmp_path)
    numbers = read_numbers(tmp_path, "scalars.jsonl", "value")
    assert len(numbers) == 2 * 5
    for path, layer in comparison.layers.items():
        np.testing.assert_allclose(numbers[f"{path}/cka"], layer.cka)
        np.testing.assert_allclose(numbers[f"{path}/difference"], np.median(layer.difference))
    picture = tmp_path / "00_comparison" / "000004.png"
    assert picture.read_bytes() == comparison.to_png()


@pytest.mark.parametrize(
    ("result", "options", "message"),
    [
        (3, {"folder": "out"}, "result must be a picture, a dict of pictures, .*, not int"),
        ({"conv": b"png"}, {"folder": "out"}, r"result\['conv'\] must be a picture, not bytes"),
        ({}, {}, "log_dir, folder and sinks are all None"),
        ({}, {"sinks": "wandbb"}, "did you mean wandb"),
        ({}, {"step": -1, "folder": "out"}, "step must be at least 0"),
    ],
)
def test_invalid_arguments_are_rejected(
    result: Any,
    options: Any,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=message):
        log(result, **options)
    assert not list(tmp_path.iterdir())
