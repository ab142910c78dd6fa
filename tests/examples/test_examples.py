"""Tests that each example runs in its short form and writes its pictures."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(
    path.stem for path in EXAMPLES.glob("*.py") if path.stem not in ("common", "drawings")
)
PICTURES = {
    "cats_and_dogs": ["conv2d_1.png", "conv2d_1_channel_4.png", "*_over_image.png"],
    "cifar10": ["explained.png", "00_conv1.webp", "02_conv3.webp", "logs/*/events*"],
    "five_classes": ["conv?.png", "pool?.png", "conv?_over_image.png", "explained.png"],
    "mnist": [
        *("filters_conv?.png", "seven_conv?.png", "seven_pool?.png", "digits.png", "diagram.png"),
        *("gradcam.png", "integrated_gradients.png", "lime.png"),
    ],
    "vit_mnist": [
        *("block?_attention_attention.png", "block?_attention_attention_class.png"),
        *("methods.png", "residual_stream.png", "logit_lens.png", "vit.keras"),
    ],
    "shapes": ["?_conv2d*.png", "?_max_pooling2d*.png"],
}


Run = Callable[..., str]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run a script in this process, which has imported TensorFlow."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(script: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [script, "-o", str(tmp_path / "out"), *arguments])
        runpy.run_path(str(EXAMPLES / f"{script}.py"), run_name="__main__")
        return capfd.readouterr().out

    yield run
    for module in ("common", "drawings"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_example_writes_its_pictures(script: str, run: Run, tmp_path: Path) -> None:
    output = run(script, "--quick")
    assert str(tmp_path / "out") in output
    if script != "shapes":  # the example whose data are drawings
        assert "generated drawings are used" in output
    for pattern in PICTURES[script]:
        found = list((tmp_path / "out").glob(pattern))
        assert found, pattern
        for picture in found:
            if picture.suffix in (".png", ".webp"):
                with Image.open(picture) as image:
                    assert len(np.unique(np.asarray(image.convert("RGB")))) > 2


@pytest.mark.parametrize("script", ["cats_and_dogs", "five_classes"])
def test_examples_accept_folders_of_photos(script: str, run: Run, tmp_path: Path) -> None:
    """The folders contain photos of several sizes and modes, and other files."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        (folder / "Thumbs.db").write_text("no image")
        for number, shape in enumerate([(30, 50, 3), (70, 20), (96, 96, 4), (5, 300, 3)]):
            pixels = random.integers(0, 256, shape, np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    output = run(script, "--quick", "--images", str(tmp_path / "photos"))
    assert "generated drawings" not in output
    assert list((tmp_path / "out").glob("*_over_image.png"))


def test_mnist_example_has_network_of_tutorial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    network = runpy.run_path(str(EXAMPLES / "mnist.py"))["make_network"]
    assert network().count_params() == 458_570
