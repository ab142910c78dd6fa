"""Methods are found in the files of their families, and say what they need."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import actgrid
from actgrid.attribution.method import DECLARED
from actgrid.attribution.methods import all_methods
from actgrid.errors import OptionError

FAMILY = '''
import numpy as np

from actgrid.attribution.batches import Attribution
from actgrid.attribution.method import method


@method("brightness", "Nobody 2012, https://example.org")
def brightness(batch, *, seed=0):
    """Return the mean of the channels: a method that needs no more than the image."""
    return Attribution(np.float32(batch.image).mean(-1) + seed, batch.read())
'''


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add one file to the folder of attribution methods."""
    room = importlib.import_module("actgrid.attribution")
    (tmp_path / "bright_family.py").write_text(FAMILY)
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path)])
    all_methods.cache_clear()
    yield
    DECLARED.pop("actgrid.attribution.bright_family", None)
    sys.modules.pop("actgrid.attribution.bright_family", None)
    all_methods.cache_clear()


def test_a_method_is_one_file(family: None) -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    heatmap = actgrid.explain(model, x, "brightness", seed=3)
    np.testing.assert_allclose(heatmap.values, x.mean(-1) + 3, rtol=1e-5)
    with pytest.raises(OptionError, match="brightness: the input is looked at, not a layer"):
        actgrid.explain(model, x, "brightness", layer="dense")
    # A family that needs only a function of a batch comes among those, by the year of its paper.
    assert list(all_methods())[-4:] == ["brightness", "occlusion", "rise", "lime"]
    assert (all_methods()["brightness"].needs, all_methods()["brightness"].options) == (
        (),
        {"seed": 0},
    )


def test_methods_come_in_the_order_of_their_families() -> None:
    assert "brightness" not in all_methods()
    assert {name: method.needs for name, method in all_methods().items()} == {
        "saliency": ("gradients",),
        "gradient_x_input": ("gradients",),
        "integrated_gradients": ("gradients",),
        "smoothgrad": ("gradients",),
        "guided_backprop": ("gradients",),
        "cam": ("gradients", "layer"),
        "gradcam": ("gradients", "layer"),
        "gradcam++": ("gradients", "layer"),
        "scorecam": ("layer",),
        "layercam": ("gradients", "layer"),
        "guided_gradcam": ("gradients", "layer"),
        "occlusion": (),
        "rise": (),
        "lime": (),
    }
    names = [*all_methods()]
    assert names[:5] == [
        *("saliency", "gradient_x_input", "integrated_gradients", "smoothgrad", "guided_backprop")
    ]
    assert names[5:11] == ["cam", "gradcam", "gradcam++", "scorecam", "layercam", "guided_gradcam"]
    assert names[11:] == ["occlusion", "rise", "lime"]
