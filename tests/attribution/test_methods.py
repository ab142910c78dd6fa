"""The registry of attribution methods, and their declared needs."""

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
from actgrid.attribution.method import DECLARED_METHODS
from actgrid.attribution.methods import get_methods
from actgrid.errors import OptionError

MODULE = '''
import numpy as np

from actgrid.attribution.batches import BatchAttribution
from actgrid.attribution.method import method


@method("brightness", "Nobody 2012, https://example.org")
def brightness(batch, *, seed=0):
    """Return the mean of the channels; needs only the image."""
    return BatchAttribution(np.float32(batch.values).mean(-1) + seed, batch.compute_scores())
'''


@pytest.fixture
def brightness_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add a module with one method to the package of attribution methods."""
    package = importlib.import_module("actgrid.attribution")
    (tmp_path / "bright_family.py").write_text(MODULE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    get_methods.cache_clear()
    yield
    DECLARED_METHODS.pop("actgrid.attribution.bright_family", None)
    sys.modules.pop("actgrid.attribution.bright_family", None)
    get_methods.cache_clear()


def test_method_of_added_module_is_available(brightness_module: None) -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    heatmap = actgrid.explain(model, x, "brightness", seed=3)
    np.testing.assert_allclose(heatmap.values, x.mean(-1) + 3, rtol=1e-5)
    with pytest.raises(OptionError, match="brightness: layer must be None"):
        actgrid.explain(model, x, "brightness", layer="dense")
    # Modules without needs come last, ordered by the year of their first paper.
    names = list(get_methods())
    assert names[names.index("brightness") :] == [
        *("brightness", "occlusion", "rise", "lime", "kernel_shap", "sobol", "hsic")
    ]
    assert (get_methods()["brightness"].needs, get_methods()["brightness"].options) == (
        (),
        {"seed": 0},
    )


def test_methods_are_grouped_by_needs() -> None:
    assert "brightness" not in get_methods()
    assert {name: method.needs for name, method in get_methods().items()} == {
        "saliency": ("gradients",),
        "gradient_x_input": ("gradients",),
        "integrated_gradients": ("gradients",),
        "smoothgrad": ("gradients",),
        "guided_backprop": ("gradients",),
        "attnlrp": ("gradients",),
        "deeplift": ("gradients",),
        "lrp": ("gradients",),
        "gradient_shap": ("gradients",),
        "expected_gradients": ("gradients",),
        "square_grad": ("gradients",),
        "vargrad": ("gradients",),
        "smoothgrad_squared": ("gradients",),
        "cam": ("gradients", "layer"),
        "gradcam": ("gradients", "layer"),
        "gradcam++": ("gradients", "layer"),
        "layercam": ("gradients", "layer"),
        "guided_gradcam": ("gradients", "layer"),
        "hirescam": ("gradients", "layer"),
        "xgradcam": ("gradients", "layer"),
        "eigencam": ("layer",),
        "eigengradcam": ("gradients", "layer"),
        "smooth_gradcam++": ("gradients", "layer"),
        "scorecam": ("layer",),
        "sscam": ("layer",),
        "iscam": ("layer",),
        "ablationcam": ("layer", "replacement"),
        "attention_rollout": ("gradients", "attention"),
        "attention_relevance": ("gradients", "attention"),
        "occlusion": (),
        "rise": (),
        "lime": (),
        "kernel_shap": (),
        "sobol": (),
        "hsic": (),
    }
    # Methods of a module follow each other.
    assert list(get_methods()) == [
        *("saliency", "gradient_x_input", "integrated_gradients", "smoothgrad", "guided_backprop"),
        *("attnlrp", "deeplift", "lrp", "gradient_shap", "expected_gradients"),
        *("square_grad", "vargrad", "smoothgrad_squared"),
        *("cam", "gradcam", "gradcam++", "layercam", "guided_gradcam", "hirescam", "xgradcam"),
        *("eigencam", "eigengradcam", "smooth_gradcam++", "scorecam", "sscam", "iscam"),
        *("ablationcam", "attention_rollout", "attention_relevance"),
        *("occlusion", "rise", "lime", "kernel_shap", "sobol", "hsic"),
    ]
