"""Whether the maps show what the trained network goes by."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import actgrid
from actgrid.attribution.methods import all_methods

Array = npt.NDArray[Any]

DATA = Path(__file__).parent / "data"
# Parts are hidden in blocks that are as large as what a photo shows: holes of a finer pattern harm
# whatever is left as much as what is gone.
SIDE, BLOCK, STEPS = 224, 56, 6
QUICK: dict[str, dict[str, Any]] = {
    "scorecam": {"max_channels": 32},
    "occlusion": {"patch": 56, "stride": 28},
    "rise": {"samples": 200},
    "lime": {"samples": 200},
    "integrated_gradients": {"steps": 10},
    "smoothgrad": {"samples": 10},
}
# The sign of these changes from pixel to pixel: how much a part matters is the size.
PIXELWISE = {"gradient_x_input", "integrated_gradients"}


@pytest.fixture(scope="module")
def network() -> Any:
    return actgrid.demo.model()


@pytest.fixture(scope="module")
def photos(network: Any) -> Array:
    return actgrid.load_images([actgrid.demo.photo(), DATA / "coffee.jpg"], model=network)


@pytest.fixture(scope="module")
def explained(network: Any, photos: Array) -> Callable[[str], Array]:
    """What each method says of the photos, worked out once."""

    @cache
    def explained(method: str) -> Array:
        if method == "lime":
            pytest.importorskip("sklearn")
            pytest.importorskip("skimage")
        heatmap = actgrid.explain(network, photos, method, **QUICK.get(method, {}))
        return heatmap.resized(SIDE, SIDE)

    return explained


@pytest.mark.parametrize(
    "method", ["gradcam", "gradcam++", "cam", "layercam", "integrated_gradients", "lime", "rise"]
)
def test_the_top_decile_lies_on_the_cat(explained: Callable[[str], Array], method: str) -> None:
    # The face and what else is sharp of the cat, drawn by hand: three quarters of the photo.
    cat = np.asarray(Image.open(DATA / "cat_mask.png")) > 0
    values = explained(method)[0]
    top = values >= np.quantile(values, 0.9)
    least = 0.65 if method == "integrated_gradients" else 0.95
    assert cat[top].mean() > least


class Curves:
    """How the probability falls as the most important parts go, and rises as they come."""

    def __init__(self, network: Any, x: Array) -> None:
        self.network, self.x = network, x
        self.classes = network.predict(x, verbose=0).argmax(1)
        self.nothing = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)

    def areas(self, importance: Array) -> Array:
        """The areas under both curves, the means over the photos."""
        blocks = SIDE // BLOCK
        shape = (len(importance), blocks, BLOCK, blocks, BLOCK)
        parts = importance.reshape(shape).mean((2, 4)).reshape(len(importance), -1)
        ranks = np.argsort(np.argsort(-parts, axis=1, kind="stable"), axis=1) / blocks**2
        ranks = ranks.reshape(-1, blocks, blocks).repeat(BLOCK, 1).repeat(BLOCK, 2)[..., None]
        shown = []
        # With nothing or all of it hidden, all importance is alike.
        for share in np.linspace(0, 1, STEPS + 2)[1:-1]:
            shown.append(np.where(ranks < share, self.nothing, self.x))  # deletion
            shown.append(np.where(ranks < share, self.x, self.nothing))  # insertion
        probabilities = self.network.predict(np.concatenate(shown), batch_size=32, verbose=0)
        of_class = probabilities.reshape(STEPS, 2, len(self.x), -1)[
            :, :, np.arange(len(self.x)), self.classes
        ]
        areas: Array = of_class.mean((0, 2))
        return areas


@pytest.fixture(scope="module")
def curves(network: Any, photos: Array) -> Curves:
    return Curves(network, photos)


@pytest.fixture(scope="module")
def by_chance(curves: Curves) -> Array:
    """Both areas for random heatmaps."""
    random = np.random.default_rng(0)
    areas = [curves.areas(random.random((len(curves.x), SIDE, SIDE))) for _ in range(6)]
    mean: Array = np.mean(areas, 0)
    return mean


@pytest.mark.parametrize("method", all_methods())
def test_what_matters_is_found_better_than_by_chance(
    explained: Callable[[str], Array], curves: Curves, by_chance: Array, method: str
) -> None:
    importance = explained(method)
    deletion, insertion = curves.areas(np.abs(importance) if method in PIXELWISE else importance)
    assert deletion < by_chance[0]
    assert insertion > by_chance[1]


def test_integrated_gradients_are_complete(network: Any, photos: Array) -> None:
    found = actgrid.explain(network, photos, "integrated_gradients")
    rise = found.score - np.array(found.details["baseline_score"])
    np.testing.assert_allclose(found.values.sum((1, 2)), rise, rtol=0.01)
