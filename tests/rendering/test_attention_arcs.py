"""Tests of `actgrid.rendering.attention_arcs`."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.rendering.attention_arcs import AttentionArcs, format_token

SVG = "{http://www.w3.org/2000/svg}"
WORDS = ["the", "cat", "sat", "<b>"]
WEIGHTS = np.array(
    [
        [0.9, 0.0, 0.0, 0.1],
        [0.4, 0.6, 0.0, 0.0],
        [0.2, 0.8, 0.0, 0.0],
        [0.01, 0.5, 0.49, 0.0],
    ]
)


def list_paths(svg: str) -> list[tuple[int, int]]:
    """Return the query and the key of each arc of an SVG, sorted."""
    paths = ElementTree.fromstring(svg).iter(f"{SVG}path")
    return sorted(
        (int(path.get("data-query", "")), int(path.get("data-key", ""))) for path in paths
    )


def list_texts(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def extract_svg(page: str) -> str:
    match = re.search("<svg.*</svg>", page, re.DOTALL)
    assert match
    return match[0]


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.0, [(0, 3), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]),
        (0.05, [(0, 3), (1, 0), (2, 0), (2, 1), (3, 1), (3, 2)]),
        (0.5, [(1, 0), (2, 1), (3, 1), (3, 2)]),
        (1.0, [(2, 1)]),
    ],
)
def test_svg_has_an_arc_for_each_weight_above_the_threshold(
    threshold: float, expected: list[tuple[int, int]]
) -> None:
    arcs = AttentionArcs(WEIGHTS, WORDS, WORDS, threshold=threshold)
    assert list_paths(arcs.to_svg()) == expected
    assert list_paths(extract_svg(arcs.to_html())) == expected
    assert len(arcs) == len(expected)
    assert not arcs.is_cross


def test_width_and_opacity_grow_with_the_weight() -> None:
    svg = ElementTree.fromstring(AttentionArcs(WEIGHTS, WORDS, WORDS).to_svg())
    paths = list(svg.iter(f"{SVG}path"))
    weights = [float(path.get("data-weight", "")) for path in paths]
    assert weights == sorted(weights)  # the strongest arc is on top
    for name, largest in (("stroke-width", 4.0), ("stroke-opacity", 1.0)):
        values = [float(path.get(name, "")) for path in paths]
        assert values == sorted(values)
        assert values[-1] == largest
    assert [path.get("stroke") for path in paths if path.get("data-query") == "0"] == [
        "rgb(214, 96, 20)"  # to a later token
    ]


def test_arcs_lie_above_the_text_within_the_picture() -> None:
    arcs = AttentionArcs(WEIGHTS, WORDS, WORDS, threshold=0)
    picture = arcs.to_rgb()
    svg = ElementTree.fromstring(arcs.to_svg())
    assert svg.get("width") == str(picture.shape[1])
    assert svg.get("height") == str(picture.shape[0])
    top = {float(rect.get("y", "")) for rect in svg.iter(f"{SVG}rect") if rect.get("rx")}
    assert len(top) == 1
    text_top = round(top.pop())
    colourful = picture.max(-1).astype(int) - picture.min(-1) > 40
    assert colourful[:text_top].any()
    assert not colourful[text_top + 1 :].any()
    for edge in (picture[:4], picture[-4:], picture[:, :4], picture[:, -4:]):
        assert (edge == 255).all()


def test_tokens_of_two_texts_are_two_lines_with_straight_connections() -> None:
    weights = [[0.5, 0.5, 0.0], [0.0, 0.1, 0.9]]
    arcs = AttentionArcs(weights, ["un", "chat"], ["a", "small", "cat"], threshold=0)
    assert arcs.is_cross
    assert repr(arcs) == "<AttentionArcs 2 queries x 3 keys, 4 arcs>"
    svg = ElementTree.fromstring(arcs.to_svg())
    texts = {text.text: float(text.get("y", "")) for text in svg.iter(f"{SVG}text")}
    assert texts["a"] == texts["small"] == texts["cat"] == texts["keys"]
    assert texts["un"] == texts["chat"] == texts["queries"] > texts["cat"]
    lines = [path.get("d", "") for path in svg.iter(f"{SVG}path")]
    assert all(re.fullmatch(r"M[\d.]+ [\d.]+L[\d.]+ [\d.]+", line) for line in lines)
    # The same position in different texts is not the same token.
    assert (0, 0) in list_paths(arcs.to_svg())


def test_html_is_self_contained_with_tokens_that_can_have_the_focus() -> None:
    arcs = AttentionArcs(WEIGHTS, WORDS, WORDS, title="<i>layer</i>")
    page = arcs.to_html()
    assert page == arcs._repr_html_()
    assert page.count('tabindex="0"') == len(WORDS)
    assert 'tabindex="0"' not in arcs.to_svg()
    assert page.startswith("<div")
    assert page.endswith("</div>")
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<script" not in page
    assert re.findall('https?://[^"]*', page) == ["http://www.w3.org/2000/svg"]
    svg = extract_svg(page)
    assert list_texts(svg)[:4] == WORDS
    title = ElementTree.fromstring(svg).findall(f".//{SVG}title")[3].text
    assert title == "<b>\ncat 0.5\nsat 0.49\nthe 0.01\n<b> 0"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a\nb", "a b"),
        ("\n", "'\\n'"),
        ("\x1b[2J\x00", "?[2J?"),
        ("\ud800\ufffe", "??"),
        ("日本", "日本"),
        ("", ""),
    ],
)
def test_tokens_become_printable_lines(name: str, text: str) -> None:
    assert format_token(name) == text


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6), st.floats(0, 1))
def test_any_text_gives_valid_svg_with_the_expected_arcs(
    names: list[str], threshold: float
) -> None:
    count = len(names)
    weights = np.random.default_rng(count).random((count, count)).astype(np.float32)
    arcs = AttentionArcs(weights, names, names, threshold=threshold, title=names[0])
    others = weights[~np.eye(count, dtype=bool)].astype(float)
    expected = (others >= threshold * others.max(initial=0)).sum()
    assert len(list_paths(arcs.to_svg())) == len(arcs) == expected
    assert len(list_texts(extract_svg(arcs.to_html()))) == count + 1


def test_weights_that_are_not_positive_have_no_arc() -> None:
    weights = [[0.0, np.nan, 1.0], [-1.0, 0.0, 0.0], [0.0, 0.5, 0.0]]
    arcs = AttentionArcs(weights, "abc", "abc", threshold=0)
    assert list_paths(arcs.to_svg()) == [(0, 2), (2, 1)]
    nothing = AttentionArcs(np.eye(3), "abc", "abc", cmap="inferno")
    assert list_paths(nothing.to_svg()) == []
    assert nothing.to_rgb().shape[2] == 3
    assert repr(AttentionArcs([[0, 1], [0, 0]], "ab", "ab")) == "<AttentionArcs 2 tokens, 1 arc>"


def test_invalid_arguments_are_rejected() -> None:
    with pytest.raises(ShapeError, match=r"weights: got shape \(4, 4\); expected \(4, 2\)"):
        AttentionArcs(WEIGHTS, WORDS, ["a", "b"])
    with pytest.raises(ShapeError, match="weights must be"):
        AttentionArcs(WEIGHTS[0], WORDS, WORDS)
    with pytest.raises(DtypeError):
        AttentionArcs(WEIGHTS + 1j, WORDS, WORDS)
    with pytest.raises(OptionError, match="threshold must be a number"):
        AttentionArcs(WEIGHTS, WORDS, WORDS, threshold=2)
    with pytest.raises(OptionError, match="no colormap is called 'no such'"):
        AttentionArcs(WEIGHTS, WORDS, WORDS, cmap="no such")


def test_pictures_that_are_too_large_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actgrid.encoding.png._MAX_PIXELS", 1000)
    arcs = AttentionArcs(WEIGHTS, WORDS, WORDS)
    with pytest.raises(OptionError, match="too large"):
        arcs.to_rgb()
    assert arcs.to_svg()
