"""Tests of dicts of pictures and of what notebooks show of them."""

from __future__ import annotations

import base64
import html
import io
import pickle
import re

import numpy as np
from PIL import Image

import actgrid
from actgrid.rendering import Grid, PictureDict


def make_grids(count: int, side: int = 4) -> PictureDict[Grid]:
    rng = np.random.default_rng(0)
    return PictureDict(
        (f"layer/{index}", actgrid.render(rng.normal(size=(side, side, 1))))
        for index in range(count)
    )


def find_images(text: str) -> list[tuple[str, Image.Image]]:
    """Return the alternative text and the picture of each <img>."""
    found = re.findall(r'<img alt="([^"]*)".*?src="data:image/png;base64,([^"]*)">', text)
    return [
        (html.unescape(alt), Image.open(io.BytesIO(base64.b64decode(data)))) for alt, data in found
    ]


def test_pictures_are_shown_with_names_and_alternative_texts() -> None:
    grids = PictureDict({"a<b>": actgrid.render(np.ones((4, 4, 3))), **make_grids(1)})
    text = grids._repr_html_()
    (first, picture), (second, other) = find_images(text)
    assert first == "a<b>: Grid 9 x 9, 3 tiles, viridis"
    assert second == "layer/0: Grid 4 x 4, 1 tiles, viridis"
    assert "<figcaption>a&lt;b&gt;</figcaption>" in text
    np.testing.assert_array_equal(picture, grids["a<b>"].to_image())
    np.testing.assert_array_equal(other, grids["layer/0"].to_image())


def test_number_of_shown_pictures_is_limited() -> None:
    text = make_grids(53)._repr_html_()
    assert len(find_images(text)) == 50
    assert "3 more pictures are not shown, such as <code>[&#x27;layer/50&#x27;]</code>" in text
    assert "not shown" not in make_grids(50)._repr_html_()


def test_size_of_shown_pictures_is_limited() -> None:
    # Noise of 1.5 megapixels, which cannot be compressed much: the third picture is too many.
    text = make_grids(4, side=1250)._repr_html_()
    assert 1 <= len(find_images(text)) < 4
    assert "more pictures are not shown" in text
    assert len(find_images(make_grids(1, side=2600)._repr_html_())) == 1


def test_empty_dict() -> None:
    assert PictureDict[Grid]()._repr_html_() == ""


def test_it_is_a_dict() -> None:
    grids = make_grids(2)
    copy = pickle.loads(pickle.dumps(grids))
    assert type(copy) is PictureDict
    assert list(copy) == list(grids) == ["layer/0", "layer/1"]
    assert grids == dict(grids)
    assert grids | {} == grids
    assert repr(grids) == repr(dict(grids))
