"""Draw attention between the tokens of a text as arcs or lines."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.encoding import check_picture_size
from actgrid.errors import ShapeError
from actgrid.option_checks import check_number
from actgrid.rendering.colormaps import palette
from actgrid.rendering.heatmap_inputs import as_numbers
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import shorten_text

__all__ = ["AttentionArcs", "format_token"]

Colour = tuple[int, int, int]
Point = tuple[float, float]  # x and y in pixels

_SUPERSAMPLING = 3  # factor of the size in which lines are drawn before they are reduced
_FONT_SIZE, _NOTE_FONT_SIZE = 14, 12
_LINE_HEIGHT = 24  # of a line of tokens in pixels
_NOTE_HEIGHT = 22
_MARGIN = 10
_TOKEN_GAP = 12
_MIN_TOKEN_WIDTH, _MAX_TOKEN_WIDTH = 14, 140
_MIN_ARC_HEIGHT, _MAX_ARC_HEIGHT = 14, 220
_CROSS_HEIGHT = 150  # between the two lines of tokens in pixels
_MAX_LINE_WIDTH, _MIN_LINE_WIDTH = 4.0, 0.8
_MIN_OPACITY = 0.12
_MIN_ARC_POINTS = 48  # of the polygon that approximates an arc
_ARC_STEP = 8  # mean horizontal distance in pixels between the points of a long arc
# An arc to a later token is lower, so that it does not hide the arc in the opposite direction.
_LATER_ARC_HEIGHT = 0.86
_EARLIER_COLOUR: Colour = (31, 90, 170)
_LATER_COLOUR: Colour = (214, 96, 20)
_TEXT_COLOUR, _NOTE_COLOUR = (20, 20, 20), (110, 110, 110)
_LINE_NAMES = ("keys", "queries")  # from top to bottom
_LISTED_WEIGHTS = 5  # in the tooltip of a token
# XML permits no other characters, not even escaped; C1 control characters are invisible.
_FORBIDDEN = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STYLE = """\
.actgrid-arcs .actgrid-arc{pointer-events:none}
.actgrid-arcs .actgrid-token{cursor:default;outline:none}
.actgrid-arcs .actgrid-token:hover rect{fill:#dde7f5;fill-opacity:1}
.actgrid-arcs .actgrid-token:focus rect{fill:#dde7f5;fill-opacity:1;stroke:#1f5aaa}"""


class _Token(NamedTuple):
    """Record of a token with its position in the picture in pixels."""

    position: int  # among the keys or the queries
    text: str
    middle: float
    top: float
    width: float

    @property
    def left(self) -> float:
        return self.middle - self.width / 2

    @property
    def right(self) -> float:
        return self.middle + self.width / 2


class _Arc(NamedTuple):
    """Record of a connection from a query to a key."""

    query: int
    key: int
    weight: float
    fraction: float  # of the largest weight


@dataclass(frozen=True, eq=False, repr=False, init=False)
class AttentionArcs(Picture):
    """Picture of attention, with an arc from each query to the keys it attends to.

    `AttentionMap.arcs` returns such a picture. If the queries and the keys are the same tokens,
    the tokens form one line of text, with the arcs above it. Attention of a token to itself is not
    drawn. If they differ, as in attention of a decoder to an encoder, the keys form a line above
    the line of the queries, and straight lines connect them. The stronger the attention, the wider
    and the more opaque the line. A notebook shows the HTML of `to_html`.

    Parameters
    ----------
    weights : array_like
        (queries, keys) real numbers: how strongly each query attends to each key.
    queries, keys : sequence of str
        Names of the tokens.
    threshold : float, default 0.05
        Fraction of the largest weight, 0 to 1. Smaller weights are not drawn, nor are weights that
        are zero, negative or NaN. If the queries and the keys are the same tokens, the largest
        weight is that between two different tokens.
    cmap : str, optional
        Name of the colormap that colours the arcs by weight. None: arcs to earlier tokens are blue
        and arcs to later tokens are orange; lines between different texts are blue.
    title : str, default ""
        Text in the note below the tokens, such as the path of the layer.

    Attributes
    ----------
    weights
        (queries, keys) float32.
    queries, keys, threshold, cmap, title
        The arguments, the names as tuples.

    Raises
    ------
    ShapeError, OptionError
        If the weights are not a matrix, the number of names differs from the number of weights, or
        an option is invalid. Both are ValueErrors.
    DtypeError
        If the weights are not real numbers. Also a TypeError.

    Examples
    --------
    >>> from actgrid.rendering.attention_arcs import AttentionArcs
    >>> words = ["the", "cat", "sleeps"]
    >>> arcs = AttentionArcs([[1, 0, 0], [0.5, 0.5, 0], [0.1, 0.8, 0.1]], words, words)
    >>> arcs
    <AttentionArcs 3 tokens, 3 arcs>
    >>> arcs.save("arcs.png")
    """

    weights: npt.NDArray[np.float32]
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    threshold: float
    cmap: str | None
    title: str

    def __init__(
        self,
        weights: object,
        queries: Sequence[str],
        keys: Sequence[str],
        *,
        threshold: float = 0.05,
        cmap: str | None = None,
        title: str = "",
    ) -> None:
        matrix = as_numbers("weights", weights, 2, "(queries, keys)")
        if matrix.shape != (len(queries), len(keys)):
            raise ShapeError(
                f"weights: got shape {matrix.shape}; expected ({len(queries)}, {len(keys)}), as "
                "there are names of queries and keys"
            )
        if cmap is not None:
            palette(cmap)  # raises an error for an unknown name
        for name, value in {
            "weights": matrix,
            "queries": tuple(queries),
            "keys": tuple(keys),
            "threshold": check_number("threshold", threshold, 0, 1),
            "cmap": cmap,
            "title": title,
        }.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self._arcs)

    def __repr__(self) -> str:
        tokens = f"{len(self.keys)} tokens"
        if self.is_cross:
            tokens = f"{len(self.queries)} queries x {len(self.keys)} keys"
        return f"<AttentionArcs {tokens}, {len(self)} {'arc' if len(self) == 1 else 'arcs'}>"

    @property
    def is_cross(self) -> bool:
        """True if the queries and the keys are different tokens."""
        return self.queries != self.keys

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the tokens and the arcs.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8. The font is the default font of Pillow, which has Latin
            letters.

        Raises
        ------
        OptionError
            If the text is so long that the picture has more than 2**30 pixels. Also a ValueError.
        """
        width, height = self._size
        check_picture_size(height * _SUPERSAMPLING, width * _SUPERSAMPLING)
        scaled = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
        image = Image.new("RGB", scaled, (255, 255, 255))
        draw = ImageDraw.Draw(image)
        for arc in self._arcs:
            points = [(x * _SUPERSAMPLING, y * _SUPERSAMPLING) for x, y in self._trace(arc)]
            red, green, blue = self._choose_colour(arc)
            opacity = _compute_opacity(arc)
            # The arcs are sorted by weight, so that stronger arcs cover weaker arcs. Mixing the
            # colour with white replaces alpha compositing, which Pillow's lines do not support.
            mixed = tuple(round(255 + (part - 255) * opacity) for part in (red, green, blue))
            line_width = max(1, round(_compute_line_width(arc) * _SUPERSAMPLING))
            draw.line(points, fill=mixed, width=line_width, joint="curve")
        image = image.reduce(_SUPERSAMPLING)
        draw, font = ImageDraw.Draw(image), _load_font(_FONT_SIZE)
        for token in self._tokens:
            position = (token.middle, token.top + _LINE_HEIGHT / 2)
            draw.text(position, token.text, fill=_TEXT_COLOUR, font=font, anchor="mm")
        note_font = _load_font(_NOTE_FONT_SIZE)
        for (x, y), text in self._notes:
            text = shorten_text(text, note_font, math.ceil(width - x) - _MARGIN)
            draw.text((x, y), text, fill=_NOTE_COLOUR, font=note_font, anchor="lm")
        return np.asarray(image)

    def to_svg(self) -> str:
        """Return the picture as an SVG document.

        Returns
        -------
        str
            An ``svg`` element. Each arc is a ``path`` of the class ``actgrid-arc``, with the
            positions of its tokens in ``data-query`` and ``data-key``. The tokens are escaped.
            Letters that the font of a reader draws wider are compressed to the same space.

        Examples
        --------
        >>> from actgrid.rendering.attention_arcs import AttentionArcs
        >>> arcs = AttentionArcs([[0.5, 0.5], [1, 0]], ["<s>", "yes"], ["<s>", "yes"])
        >>> arcs.to_svg().count("<path")
        2
        """
        return self._build_svg(is_interactive=False)

    def to_html(self) -> str:
        """Return the picture as HTML that shows the arcs of the token under the pointer.

        If the pointer is over a token, or a token has the keyboard focus, only the arcs of the
        token are visible: those from the token to its keys. In attention between two texts, a token
        of the keys shows the lines from all queries to it. The tooltip of a token lists its largest
        weights.

        Returns
        -------
        str
            A ``div`` with an inline SVG and a ``style``; it needs no script and loads no files.
            The rules of the style do not depend on the tokens, so that a page may have several such
            elements. The tokens are escaped.

        Examples
        --------
        >>> from actgrid.rendering.attention_arcs import AttentionArcs
        >>> arcs = AttentionArcs([[0.5, 0.5], [1, 0]], ["<s>", "yes"], ["<s>", "yes"])
        >>> arcs.to_html().count('tabindex="0"')
        2
        """
        return (
            '<div class="actgrid-arcs" style="overflow-x:auto">'
            f"<style>{self._build_style()}</style>{self._build_svg(is_interactive=True)}</div>"
        )

    def _repr_html_(self) -> str:
        return self.to_html()

    @cached_property
    def _arcs(self) -> tuple[_Arc, ...]:
        """The connections to draw, from the smallest to the largest weight."""
        weights = np.nan_to_num(self.weights.astype(np.float64), nan=0.0)
        if not self.is_cross:
            np.fill_diagonal(weights, 0.0)
        largest = weights.max()
        is_arc = (weights > 0) & (weights >= self.threshold * largest)
        arcs = [
            _Arc(int(query), int(key), weight := float(weights[query, key]), weight / largest)
            for query, key in np.argwhere(is_arc)
        ]
        return tuple(sorted(arcs, key=lambda arc: arc.weight))

    @cached_property
    def _max_span(self) -> float:
        """The largest horizontal distance in pixels between two connected tokens of one line."""
        middles = [token.middle for token in _place_tokens(self.keys, 0, 0)]
        return max((abs(middles[arc.query] - middles[arc.key]) for arc in self._arcs), default=0.0)

    def _compute_arc_height(self, span: float) -> float:
        """Return the height of an arc in pixels for the horizontal distance of its tokens.

        The height grows more slowly than the distance, so that short arcs remain visible.
        """
        if span == 0:
            return 0.0
        max_height = min(_MAX_ARC_HEIGHT, max(_MIN_ARC_HEIGHT, self._max_span / 2))
        return min(span, max_height * math.pow(span / self._max_span, 0.6))

    @cached_property
    def _tokens(self) -> tuple[_Token, ...]:
        """The tokens with their positions: the keys, and then the queries if they differ."""
        if not self.is_cross:
            top = _MARGIN + self._compute_arc_height(self._max_span)
            return tuple(_place_tokens(self.keys, _MARGIN, top))
        left = _MARGIN + _TOKEN_GAP + max(_measure(name, _NOTE_FONT_SIZE) for name in _LINE_NAMES)
        lines = [
            _place_tokens(self.keys, left, _MARGIN),
            _place_tokens(self.queries, left, _MARGIN + _LINE_HEIGHT + _CROSS_HEIGHT),
        ]
        right = max(line[-1].right for line in lines)
        # The shorter line is centred.
        return tuple(
            token._replace(middle=token.middle + (right - line[-1].right) / 2)
            for line in lines
            for token in line
        )

    @cached_property
    def _notes(self) -> tuple[tuple[Point, str], ...]:
        """The start of each note at the middle of its height, and its text."""
        tops = sorted({token.top for token in self._tokens})
        notes: list[tuple[Point, str]] = []
        if self.is_cross:
            legend = "lines: from a query to its keys"
            for name, top in zip(_LINE_NAMES, tops, strict=True):
                notes.append(((_MARGIN, top + _LINE_HEIGHT / 2), name))
        elif self.cmap is None:
            legend = "blue: attention to earlier tokens, orange: to later tokens"
        else:
            legend = "arcs: from a token to its keys"
        text = "; ".join(filter(None, (format_token(self.title) if self.title else "", legend)))
        return (*notes, ((_MARGIN, tops[-1] + _LINE_HEIGHT + _NOTE_HEIGHT / 2), text))

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Width and height of the picture in pixels."""
        notes_right = max(x + _measure(text, _NOTE_FONT_SIZE) for (x, _), text in self._notes)
        right = max(notes_right, *(token.right for token in self._tokens))
        bottom = max(token.top for token in self._tokens) + _LINE_HEIGHT + _NOTE_HEIGHT
        return math.ceil(right) + _MARGIN, math.ceil(bottom) + _MARGIN // 2

    def _find_ends(self, arc: _Arc) -> tuple[Point, Point]:
        """Return the positions of the query and of the key of an arc."""
        key = self._tokens[arc.key]
        if self.is_cross:
            query = self._tokens[len(self.keys) + arc.query]
            return (query.middle, query.top), (key.middle, key.top + _LINE_HEIGHT)
        query = self._tokens[arc.query]
        return (query.middle, query.top), (key.middle, key.top)

    def _compute_radii(self, arc: _Arc) -> tuple[float, float]:
        """Return the horizontal and the vertical radius of an arc in pixels."""
        (start, _), (end, _) = self._find_ends(arc)
        span = abs(end - start)
        height = self._compute_arc_height(span)
        return span / 2, height * (_LATER_ARC_HEIGHT if end > start else 1)

    def _trace(self, arc: _Arc) -> list[Point]:
        """Return points of the line of an arc."""
        (start, bottom), end = self._find_ends(arc)
        if self.is_cross:
            return [(start, bottom), end]
        _, height = self._compute_radii(arc)
        count = max(_MIN_ARC_POINTS, int(abs(start - end[0]) / _ARC_STEP))
        angles = np.linspace(0, math.pi, count)
        middle, radius = (start + end[0]) / 2, (start - end[0]) / 2
        return [
            (float(middle + radius * cosine), float(bottom - height * sine))
            for cosine, sine in zip(np.cos(angles), np.sin(angles), strict=True)
        ]

    def _choose_colour(self, arc: _Arc) -> Colour:
        if self.cmap is None:
            is_later = not self.is_cross and arc.key > arc.query
            return _LATER_COLOUR if is_later else _EARLIER_COLOUR
        red, green, blue = map(int, palette(self.cmap)[round(arc.fraction * 255)])
        return red, green, blue

    def _build_svg(self, is_interactive: bool) -> str:
        """Return the picture as an SVG; an interactive SVG has tokens that can have the focus."""
        width, height = self._size
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="{_FONT_SIZE}">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            '<g fill="none">',
            *map(self._build_path, self._arcs),
            "</g>",
            f'<g text-anchor="middle" dominant-baseline="central" fill="rgb{_TEXT_COLOUR}">',
            *(self._build_token(position, is_interactive) for position in range(len(self._tokens))),
            "</g>",
            f'<g dominant-baseline="central" fill="rgb{_NOTE_COLOUR}" '
            f'font-size="{_NOTE_FONT_SIZE}">',
            *(
                f'<text x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'
                for (x, y), text in self._notes
            ),
            "</g></svg>",
        ]
        return "\n".join(lines)

    def _build_path(self, arc: _Arc) -> str:
        (start, top), (end, bottom) = self._find_ends(arc)
        if self.is_cross:
            line = f"L{end:.1f} {bottom:.1f}"
        else:
            radius, height = self._compute_radii(arc)
            is_clockwise = int(end > start)
            line = f"A{radius:.1f} {height:.1f} 0 0 {is_clockwise} {end:.1f} {bottom:.1f}"
        return (
            f'<path class="actgrid-arc actgrid-from-{arc.query} actgrid-to-{arc.key}" '
            f'data-query="{arc.query}" data-key="{arc.key}" data-weight="{arc.weight:.4g}" '
            f'd="M{start:.1f} {top:.1f}{line}" stroke="rgb{self._choose_colour(arc)}" '
            f'stroke-width="{_compute_line_width(arc):.2f}" '
            f'stroke-opacity="{_compute_opacity(arc):.3f}"/>'
        )

    def _build_token(self, position: int, is_interactive: bool) -> str:
        """Return the SVG group of a token, by its position in `_tokens`."""
        token = self._tokens[position]
        is_query = not self.is_cross or position >= len(self.keys)
        role = "query" if is_query else "key"
        focus = ' tabindex="0" role="img"' if is_interactive else ""
        # The rectangle makes the whole place of the token react to the pointer.
        return (
            f'<g class="actgrid-token actgrid-{role}-{token.position}"{focus}>'
            f"<title>{html.escape(self._describe_token(token.position, is_query))}</title>"
            f'<rect x="{token.left - 3:.1f}" y="{token.top + 1:.1f}" '
            f'width="{token.width + 6:.1f}" height="{_LINE_HEIGHT - 2}" rx="3" '
            'fill="#ffffff" fill-opacity="0"/>'
            f'<text x="{token.middle:.1f}" y="{token.top + _LINE_HEIGHT / 2:.1f}" '
            f'textLength="{_measure(token.text, _FONT_SIZE)}" lengthAdjust="spacingAndGlyphs">'
            f"{html.escape(token.text)}</text></g>"
        )

    def _describe_token(self, index: int, is_query: bool) -> str:
        """Return the name of a token, and a line for each of its largest weights."""
        weights = np.nan_to_num(self.weights[index] if is_query else self.weights[:, index])
        names = self.keys if is_query else self.queries
        order = np.argsort(-weights, kind="stable")[:_LISTED_WEIGHTS]
        name = (self.queries if is_query else self.keys)[index]
        lines = (f"{format_token(names[other])} {weights[other]:.3g}" for other in order)
        return "\n".join([format_token(name), *lines])

    def _build_style(self) -> str:
        """Return the CSS that hides the arcs of other tokens than the selected token.

        The token under the pointer is selected, or else the token with the focus.
        """
        roles = [("query", "from", len(self.queries))]
        if self.is_cross:
            roles.append(("key", "to", len(self.keys)))
        block = ".actgrid-arcs"
        rules = [_STYLE]
        for role, end, count in roles:
            for index in range(count):
                token, arcs = (
                    f".actgrid-{role}-{index}",
                    f".actgrid-arc:not(.actgrid-{end}-{index})",
                )
                rules.append(
                    f"{block}:has({token}:hover) {arcs},"
                    f"{block}:not(:has(.actgrid-token:hover)):has({token}:focus) {arcs}"
                    "{display:none}"
                )
        return "\n".join(rules)


def format_token(name: str) -> str:
    """Return the name of a token in one line of printable characters.

    Parameters
    ----------
    name
        The name. White space inside is reduced to single spaces, control characters become ``"?"``,
        and a name of white space alone is put in quotes.
    """
    text = " ".join(name.split()) or (repr(name) if name else "")
    return _FORBIDDEN.sub("?", text)


def _place_tokens(names: Sequence[str], left: float, top: float) -> list[_Token]:
    """Place tokens side by side in one line."""
    tokens = []
    for index, name in enumerate(names):
        text = shorten_text(format_token(name), _load_font(_FONT_SIZE), _MAX_TOKEN_WIDTH)
        width = max(_MIN_TOKEN_WIDTH, _measure(text, _FONT_SIZE))
        tokens.append(_Token(index, text, left + width / 2, top, width))
        left += width + _TOKEN_GAP
    return tokens


def _measure(text: str, font_size: int) -> int:
    """Return the width of a text in pixels.

    The font of Pillow has no East Asian characters, which are as wide as the font is high.
    """
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    width: float = _load_font(font_size).getlength(text)
    return max(math.ceil(width), wide * font_size)


def _compute_opacity(arc: _Arc) -> float:
    return max(_MIN_OPACITY, arc.fraction)


def _compute_line_width(arc: _Arc) -> float:
    """Return the width of the line of an arc in pixels."""
    return _MIN_LINE_WIDTH + (_MAX_LINE_WIDTH - _MIN_LINE_WIDTH) * arc.fraction


@lru_cache(maxsize=4)
def _load_font(size: int) -> Any:
    return ImageFont.load_default(size)
