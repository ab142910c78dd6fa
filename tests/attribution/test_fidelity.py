"""Fidelity of attribution maps by deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from tests.attribution.packages import skip_without_packages

import actgrid
from actgrid.attribution.methods import get_methods

# Methods that explain networks without attention.
GENERAL_METHODS = [
    name for name, method in get_methods().items() if "attention" not in method.needs
]

Array = npt.NDArray[Any]

DATA = Path(__file__).parent / "data"
# Parts are hidden in blocks of the size of the photo's objects: a finer pattern of holes also
# disturbs the pixels that remain visible.
SIDE, BLOCK, STEPS = 224, 56, 6
QUICK: dict[str, dict[str, Any]] = {
    "scorecam": {"max_channels": 32},
    "sscam": {"max_channels": 8, "samples": 4},
    "iscam": {"max_channels": 8, "steps": 4},
    "kernel_shap": {"samples": 200, "segments": 40},
    "sobol": {"samples": 8, "grid_size": 4},
    "hsic": {"samples": 200, "grid_size": 4},
    "gradient_shap": {"samples": 10},
    "expected_gradients": {"samples": 10},
    "smooth_gradcam++": {"samples": 5},
    "vargrad": {"samples": 10},
    "smoothgrad_squared": {"samples": 10},
    "occlusion": {"patch": 56, "stride": 28},
    "rise": {"samples": 200},
    "lime": {"samples": 200},
    "integrated_gradients": {"steps": 10},
    "smoothgrad": {"samples": 10},
}
# Methods whose sign changes from pixel to pixel: the importance is the absolute value.
PIXELWISE = {
    *("attnlrp", "deeplift", "expected_gradients", "gradient_shap", "gradient_x_input"),
    *("integrated_gradients", "lrp"),
}


@pytest.fixture(scope="module")
def network() -> Any:
    return actgrid.demo.model()


@pytest.fixture(scope="module")
def photos(network: Any) -> Array:
    return actgrid.load_images([actgrid.demo.photo(), DATA / "coffee.jpg"], model=network)


@pytest.fixture(scope="module")
def explain_photos(network: Any, photos: Array) -> Callable[[str], Array]:
    """Return a cached function: method -> maps of the photos (N, SIDE, SIDE)."""

    @cache
    def explain_photos(method: str) -> Array:
        skip_without_packages(method)
        heatmap: actgrid.Heatmap = actgrid.explain(network, photos, method, **QUICK.get(method, {}))
        return heatmap.resize(SIDE, SIDE)

    return explain_photos


@pytest.mark.parametrize(
    "method", ["gradcam", "gradcam++", "cam", "layercam", "integrated_gradients", "lime", "rise"]
)
def test_top_decile_lies_on_the_cat(explain_photos: Callable[[str], Array], method: str) -> None:
    # Mask of the cat's face and of its other parts in focus, drawn by hand.
    cat = np.asarray(Image.open(DATA / "cat_mask.png")) > 0
    values = explain_photos(method)[0]
    top = values >= np.quantile(values, 0.9)
    min_fraction = 0.65 if method == "integrated_gradients" else 0.95
    assert cat[top].mean() > min_fraction


class Curves:
    """Probability of the class as important parts are deleted or inserted."""

    def __init__(self, network: Any, x: Array) -> None:
        self.network, self.x = network, x
        self.classes = network.predict(x, verbose=0).argmax(1)
        self.mean_colour = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)

    def compute_areas(self, importance: Array) -> Array:
        """Return the mean areas under the deletion and insertion curves."""
        blocks = SIDE // BLOCK
        shape = (len(importance), blocks, BLOCK, blocks, BLOCK)
        parts = importance.reshape(shape).mean((2, 4)).reshape(len(importance), -1)
        ranks = np.argsort(np.argsort(-parts, axis=1, kind="stable"), axis=1) / blocks**2
        ranks = ranks.reshape(-1, blocks, blocks).repeat(BLOCK, 1).repeat(BLOCK, 2)[..., None]
        images = []
        # Without the end points, which do not depend on the importance.
        for fraction in np.linspace(0, 1, STEPS + 2)[1:-1]:
            images.append(np.where(ranks < fraction, self.mean_colour, self.x))  # deletion
            images.append(np.where(ranks < fraction, self.x, self.mean_colour))  # insertion
        probabilities = self.network.predict(np.concatenate(images), batch_size=32, verbose=0)
        class_probabilities = probabilities.reshape(STEPS, 2, len(self.x), -1)[
            :, :, np.arange(len(self.x)), self.classes
        ]
        areas: Array = class_probabilities.mean((0, 2))
        return areas


@pytest.fixture(scope="module")
def curves(network: Any, photos: Array) -> Curves:
    return Curves(network, photos)


@pytest.fixture(scope="module")
def random_areas(curves: Curves) -> Array:
    """Return the areas under both curves for random maps."""
    random = np.random.default_rng(0)
    areas = [curves.compute_areas(random.random((len(curves.x), SIDE, SIDE))) for _ in range(6)]
    mean: Array = np.mean(areas, 0)
    return mean


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_areas_are_better_than_random(
    explain_photos: Callable[[str], Array], curves: Curves, random_areas: Array, method: str
) -> None:
    importance = explain_photos(method)
    deletion, insertion = curves.compute_areas(
        np.abs(importance) if method in PIXELWISE else importance
    )
    assert deletion < random_areas[0]
    assert insertion > random_areas[1]


def test_integrated_gradients_sum_to_score_change(network: Any, photos: Array) -> None:
    heatmap = actgrid.explain(network, photos, "integrated_gradients")
    rise = heatmap.score - np.array(heatmap.details["baseline_score"])
    np.testing.assert_allclose(heatmap.values.sum((1, 2)), rise, rtol=0.01)
