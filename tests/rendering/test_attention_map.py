"""Tests of `actgrid.rendering.AttentionMap`."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.rendering import AttentionMap, Heatmap, TextAttribution, TokenGrid
from actgrid.rendering.colormaps import palette

RNG = np.random.default_rng(0)
WORDS = ["the", "cat", "sat", "the", "", ""]
WEIGHTS = RNG.random((3, 6, 6)).astype(np.float32)
GRID = TokenGrid(2, 3, leading=1)
GRID_WEIGHTS = RNG.random((4, 7, 7)).astype(np.float32)


def make_words(**arguments: Any) -> AttentionMap:
    return AttentionMap(WEIGHTS, queries=WORDS, keys=WORDS, **arguments)


def make_patches(**arguments: Any) -> AttentionMap:
    return AttentionMap(GRID_WEIGHTS, query_grid=GRID, key_grid=GRID, **arguments)


def test_repr_and_length_tell_the_size() -> None:
    grid = TokenGrid(14, 14, leading=1)
    attention = AttentionMap(
        np.zeros((12, 197, 197)), query_grid=grid, key_grid=grid, layer="vit/layer_0/attention"
    )
    assert (
        repr(attention)
        == "<AttentionMap 12 heads of 197 queries x 197 keys, vit/layer_0/attention>"
    )
    assert len(attention) == attention.heads == 12
    assert repr(AttentionMap(np.zeros((1, 2, 3)))) == "<AttentionMap 1 head of 2 queries x 3 keys>"


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        (TokenGrid(1, 2), ["0,0", "0,1"]),
        (TokenGrid(2, 1, leading=1), ["class", "0,0", "1,0"]),
        (TokenGrid(1, 1, leading=2), ["token 0", "token 1", "0,0"]),
        (TokenGrid(1, 1, leading=1, trailing=2), ["class", "0,0", "token 1", "token 2"]),
        (TokenGrid(1, 1, trailing=1), ["0,0", "token 0"]),
        (None, ["0", "1", "2"]),
    ],
)
def test_missing_names_are_those_of_positions(grid: TokenGrid | None, names: list[str]) -> None:
    attention = AttentionMap(np.zeros((1, len(names), 2)), query_grid=grid)
    assert attention.queries == tuple(names)
    assert attention.keys == ("0", "1")
    assert len(set(attention.queries)) == len(names)


def test_heads_are_selected_or_combined() -> None:
    attention = make_words()
    np.testing.assert_array_equal(attention.select_heads(1), WEIGHTS[1])
    np.testing.assert_array_equal(attention.select_heads(-1), WEIGHTS[2])
    position: Any = np.int64(0)
    np.testing.assert_array_equal(attention.select_heads(position), WEIGHTS[0])
    np.testing.assert_array_equal(attention.select_heads("max"), WEIGHTS.max(0))
    np.testing.assert_allclose(attention.select_heads(), WEIGHTS.mean(0), rtol=1e-6)
    assert attention.select_heads().dtype == np.float32
    for head in (3, -4, "min"):
        with pytest.raises(OptionError, match=r"head: got .*; expected .* the layer has 3 heads"):
            attention.select_heads(head)
    with pytest.raises(OptionError, match="head must be an integer"):
        attention.arcs(head=1.5)  # type: ignore[arg-type]


def test_picture_has_a_matrix_of_each_head_in_a_common_range() -> None:
    picture = make_words(cmap="gray").to_rgb()
    # Four tokens are no padding: cells of 40 pixels, in tiles with 8 pixels between them.
    levels = np.round(WEIGHTS[:, :4, :4] / WEIGHTS[:, :4, :4].max() * 255)
    np.testing.assert_array_equal(picture[:160:40, :160:40, 0], levels[0])
    np.testing.assert_array_equal(picture[:160:40, 168:328:40, 0], levels[1])
    assert (levels == 255).sum() == 1


@pytest.mark.parametrize(("queries", "keys"), [(1, 200), (200, 1), (3, 3), (200, 200)])
def test_pictures_of_every_size_have_a_note(queries: int, keys: int) -> None:
    values = np.ones((2, queries, keys))
    picture = AttentionMap(values).to_rgb()
    assert (picture[-24:] < 160).any()
    assert (picture[-2:] == 255).all()


def test_values_that_are_not_finite_are_level_zero() -> None:
    values = np.array([[[np.nan, -1.0], [0.5, np.inf]]])
    picture = AttentionMap(values, cmap="gray").to_rgb()
    assert picture[:160:80, :160:80, 0].tolist() == [[0, 0], [255, 255]]
    nothing = AttentionMap(np.full((1, 2, 2), np.nan))
    assert nothing.arcs().to_rgb().size
    np.testing.assert_array_equal(nothing.to_rgb()[0, 0], palette("viridis")[0])


def test_matrix_has_the_cells_without_padding() -> None:
    sheet = make_words().matrix(2, cmap="gray")
    assert len(sheet) == 1
    values = WEIGHTS[2, :4, :4]
    levels = np.round(values / values.max() * 255).astype(np.uint8)
    picture = sheet.pictures[0]
    # Above the note are 4 x 28 pixels; at the right of the cells is a margin of 10 pixels or more.
    is_cells = np.lib.stride_tricks.sliding_window_view(picture[..., 0], (4 * 28, 4 * 28))
    cells = levels.repeat(28, 0).repeat(28, 1)
    assert (is_cells == cells).all((2, 3)).sum() == 1


def test_padding_is_never_drawn() -> None:
    padded = np.zeros((1, 4, 4), np.float32)
    padded[0, :2, :2] = [[0.7, 0.3], [0.6, 0.4]]
    names = ["a", "b"]
    attention = AttentionMap(padded, queries=[*names, "", ""], keys=[*names, "", ""])
    padded[0, 2:] = 9
    padded[0, :, 2:] = 9
    strong = AttentionMap(padded, queries=[*names, "", ""], keys=[*names, "", ""])
    short = AttentionMap(padded[:, :2, :2], queries=names, keys=names)
    for other in (attention, strong):
        np.testing.assert_array_equal(other.to_rgb(), short.to_rgb())
        np.testing.assert_array_equal(other.matrix().to_rgb(), short.matrix().to_rgb())
        assert other.arcs().to_html() == short.arcs().to_html()
        np.testing.assert_array_equal(other.arcs().to_rgb(), short.arcs().to_rgb())
    text = strong.attend_from("b")
    assert isinstance(text, TextAttribution)
    assert [token["text"] for token in text.describe_tokens()[0]] == names


def test_padding_between_tokens_keeps_the_names_with_their_weights() -> None:
    values = np.arange(9.0).reshape(1, 3, 3)
    attention = AttentionMap(values, queries=["", "a", "b"], keys=["a", "", "b"])
    arcs = attention.arcs(threshold=0)
    assert arcs.queries == ("a", "b")
    np.testing.assert_array_equal(arcs.weights, [[3, 5], [6, 8]])


def test_arcs_have_the_words_and_the_head() -> None:
    arcs = make_words(layer="bert/0").arcs(-1, threshold=0)
    svg = ElementTree.fromstring(arcs.to_svg())
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}path"))) == 4 * 3
    assert arcs.title == "bert/0, head 2"
    np.testing.assert_array_equal(arcs.weights, WEIGHTS[2, :4, :4])
    assert make_words().arcs("max").title == "maximum of 3 heads"


def test_attention_from_a_patch_is_a_heatmap_over_the_image() -> None:
    image = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    attention = make_patches(image=image, layer="vit/0")
    heatmap = attention.attend_from((1, 2), head=3)
    assert isinstance(heatmap, Heatmap)
    np.testing.assert_array_equal(heatmap.values, GRID_WEIGHTS[3, 6, 1:].reshape(1, 2, 3))
    np.testing.assert_array_equal(heatmap.details["leading"], GRID_WEIGHTS[3, 6:, :1])
    assert heatmap.details["trailing"].shape == (1, 0)
    assert heatmap.images is not None
    np.testing.assert_array_equal(heatmap.images[0], image)
    assert (heatmap.labels, heatmap.layer) == (("attention from 1,2",), "vit/0")
    for query in (0, -7, "class"):
        other = attention.attend_from(query, "max")
        np.testing.assert_array_equal(other.values.reshape(6), GRID_WEIGHTS.max(0)[0, 1:])
    assert make_patches().attend_from("0,1").to_rgb().size


def test_attention_from_a_word_is_a_text() -> None:
    text = make_words().attend_from("cat", head=0)
    assert isinstance(text, TextAttribution)
    np.testing.assert_array_equal(text.values, WEIGHTS[0, 1:2])
    assert text.names == (tuple(WORDS),)
    np.testing.assert_array_equal(make_words().attend_from(3, 0).values, WEIGHTS[0, 3:4])


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2), st.integers(0, 2), st.data())
def test_every_patch_has_the_row_of_its_token(
    height: int, width: int, leading: int, trailing: int, data: st.DataObject
) -> None:
    grid = TokenGrid(height, width, leading, trailing)
    values = data.draw(
        arrays(np.float32, (2, grid.tokens, grid.tokens), elements=st.floats(0, 1, width=32))
    )
    attention = AttentionMap(values, query_grid=grid, key_grid=grid)
    row = data.draw(st.integers(0, height - 1))
    column = data.draw(st.integers(0, width - 1))
    heatmap = attention.attend_from((row, column), head=1)
    weights = values[1, leading + row * width + column]
    parts = (heatmap.details["leading"], heatmap.values.reshape(1, -1), heatmap.details["trailing"])
    np.testing.assert_array_equal(np.concatenate(parts, axis=1)[0], weights)
    by_name = attention.attend_from(f"{row},{column}", head=1)
    np.testing.assert_array_equal(by_name.values, heatmap.values)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("the", "'the', the name of 2 tokens; expected one of the indices 0, 3"),
        ("cta", r"'cta'; expected the name of a token \(did you mean cat"),
        ("", "''; expected the name of a token"),
        (6, "6; expected an index from 0 to 5"),
        (-1, "-1, which is padding"),
        ((0, 1), r"\(0, 1\); expected an index or a name, as there is no query_grid"),
    ],
)
def test_unknown_queries_are_rejected(query: Any, message: str) -> None:
    with pytest.raises(OptionError, match=f"query: got {message}"):
        make_words().attend_from(query)


def test_patches_outside_the_grid_are_rejected() -> None:
    with pytest.raises(OptionError, match=r"query: got \(2, 0\); expected .* grid of 2 x 3"):
        make_patches().attend_from((2, 0))
    with pytest.raises(OptionError, match=r"query: got \(1,\); expected \(row, column\)"):
        make_patches().attend_from((1,))  # type: ignore[arg-type]


def test_notebooks_show_arcs_of_short_texts() -> None:
    words = [f"w{index}" for index in range(65)]
    attention = make_words()
    assert attention._repr_html_() == attention.arcs().to_html()
    assert make_patches()._repr_html_() is None
    assert AttentionMap(WEIGHTS)._repr_html_() is None
    long = np.ones((1, 65, 65))
    assert AttentionMap(long, queries=words, keys=words)._repr_html_() is None
    padded = [*words[:64], ""]
    assert AttentionMap(long, queries=padded, keys=padded)._repr_html_()
    png, metadata = attention._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert metadata == {"alt": "AttentionMap 3 heads of 6 queries x 6 keys"}


def test_invalid_arguments_are_rejected() -> None:
    with pytest.raises(ShapeError, match=r"values: got shape \(6, 6\); expected \(heads, queries"):
        AttentionMap(WEIGHTS[0])
    with pytest.raises(DtypeError, match="complex"):
        AttentionMap(WEIGHTS + 1j)
    with pytest.raises(ShapeError, match="queries: got 2 names; expected 6"):
        AttentionMap(WEIGHTS, queries=["a", "b"])
    with pytest.raises(OptionError, match="keys: got 'abcdef'; expected a sequence of texts"):
        AttentionMap(WEIGHTS, keys="abcdef")
    with pytest.raises(OptionError, match="keys: got 6 empty names"):
        AttentionMap(WEIGHTS, keys=[""] * 6)
    with pytest.raises(ShapeError, match="key_grid: got a grid of 7 tokens; expected 6"):
        AttentionMap(WEIGHTS, key_grid=GRID)
    with pytest.raises(OptionError, match=r"query_grid: got \(2, 3\); expected a TokenGrid"):
        AttentionMap(WEIGHTS, query_grid=(2, 3))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"image: got shape \(2, 3\); expected \(height, width, 3"):
        make_patches(image=np.zeros((2, 3), np.uint8))
    with pytest.raises(DtypeError, match="image: got float64; expected uint8"):
        make_patches(image=np.zeros((2, 3, 3)))
    with pytest.raises(OptionError, match="no colormap is called 'no such'"):
        AttentionMap(WEIGHTS, cmap="no such")
