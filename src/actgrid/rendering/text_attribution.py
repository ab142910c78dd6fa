"""Attributions of the tokens of texts, drawn as coloured text."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.option_checks import check_integer
from actgrid.rendering.attribution import Attribution
from actgrid.rendering.bars import draw_bars
from actgrid.rendering.colormaps import choose_text_colour, palette
from actgrid.rendering.sheet import Sheet, lay_out_sheet, pad_pictures

__all__ = ["TextAttribution"]

Pixels = npt.NDArray[np.uint8]

_WIDTH = 720
_FONT_SIZE = 16
_LINE_HEIGHT = 26
_PADDING = 4  # around the text of a token in pixels
_RESET = "\x1b[0m"
_WHITE = (255, 255, 255)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class TextAttribution(Attribution):  # numpydoc ignore=PR01
    """Attributions of the tokens of texts, drawn as coloured text.

    The parameters and attributes are those of `Attribution`, with the axes ``("token",)``; `names`
    are the tokens, ``""`` for padding, which is not drawn. Without `names`, the numbers of the
    tokens are drawn. For signed maps, white is zero, red is for the target and blue against it.

    A notebook shows the HTML of `to_html`. The font of pictures is the default font of Pillow,
    which has Latin letters.

    Examples
    --------
    >>> from actgrid.rendering import make_attribution
    >>> text = make_attribution(
    ...     [[0.1, -0.8, 0.9]], ("token",), names=["a", "dull", "masterpiece"], signed=True
    ... )
    >>> print(text.to_html()[:21])
    <div class="actgrid-t
    >>> text.save("text.png")
    """

    def to_html(self, clip: float = 99, cmap: str | None = None) -> str:
        """Return the texts with coloured tokens as HTML.

        Parameters
        ----------
        clip : float, default 99
            Percentile of the values that has the last colour, as in `overlay`.
        cmap : str, optional
            Name of the colormap. None: `cmap`.

        Returns
        -------
        str
            A ``div`` for each text. Each token is a ``span`` with its value in its ``title``. The
            tokens are escaped.

        Examples
        --------
        >>> from actgrid.rendering import make_attribution
        >>> text = make_attribution([[1.0, 0.0]], ("token",), names=["<b>", "plain"])
        >>> "&lt;b&gt;" in text.to_html()
        True
        """
        divisions = []
        for row in range(len(self)):
            spans = [
                f'<span style="background:rgb{colour};color:rgb{choose_text_colour(colour)};'
                f'padding:1px 3px;border-radius:2px" title="{value:.4g}">'
                f"{html.escape(token)}</span>"
                for token, value, colour in self._list_tokens(row, clip, cmap)
            ]
            caption = html.escape(self._describe_target(row))
            divisions.append(
                f'<div class="actgrid-text" style="line-height:1.9">{" ".join(spans)}'
                + (f' <small style="color:#666">{caption}</small>' if caption else "")
                + "</div>"
            )
        return "\n".join(divisions)

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_ansi(self, clip: float = 99, cmap: str | None = None) -> str:
        """Return the texts with coloured tokens for a terminal.

        Parameters
        ----------
        clip : float, default 99
            Percentile of the values that has the last colour, as in `overlay`.
        cmap : str, optional
            Name of the colormap. None: `cmap`.

        Returns
        -------
        str
            A line for each text, with ANSI escape sequences of 24-bit colours.

        Examples
        --------
        >>> from actgrid.rendering import make_attribution
        >>> text = make_attribution([[1.0, 0.0]], ("token",), names=["good", "plain"])
        >>> text.to_ansi().count("plain")
        1
        """
        lines = []
        for row in range(len(self)):
            parts = []
            for token, _, colour in self._list_tokens(row, clip, cmap):
                text_colour = ";".join(map(str, choose_text_colour(colour)))
                background = ";".join(map(str, colour))
                # Control characters in a token must not reach the terminal.
                printable = "".join(letter if letter.isprintable() else "?" for letter in token)
                parts.append(f"\x1b[38;2;{text_colour}m\x1b[48;2;{background}m{printable}{_RESET}")
            lines.append(" ".join(parts))
        return "\n".join(lines)

    def bars(self, count: int = 20) -> Sheet:
        """Draw the tokens with the largest absolute values as bars.

        Parameters
        ----------
        count : int, default 20
            Maximum number of tokens for each text.

        Returns
        -------
        Sheet
            A picture for each text.

        Raises
        ------
        OptionError
            If `count` is not a positive integer. Also a ValueError.

        Examples
        --------
        >>> from actgrid.rendering import make_attribution
        >>> text = make_attribution([[1.0, -0.5]], ("token",), names=["good", "plain"])
        >>> len(text.bars())
        1
        """
        count = check_integer("count", count, 1)
        rows = [self._list_tokens(row, 99, None) for row in range(len(self))]
        height = min(count, max(map(len, rows), default=1))
        pictures = []
        for tokens in rows:
            order = sorted(range(len(tokens)), key=lambda index: -abs(tokens[index][1]))[:count]
            hidden = [tokens[index][1] for index in range(len(tokens)) if index not in set(order)]
            note = f"{len(hidden)} more tokens sum to {sum(hidden):.4g}" if hidden else ""
            pictures.append(
                draw_bars(
                    [tokens[index][0] for index in order],
                    np.array([tokens[index][1] for index in order], np.float32),
                    np.array([tokens[index][2] for index in order], np.uint8).reshape(-1, 3),
                    note,
                    height,
                )
            )
        return lay_out_sheet(pictures, columns=1)

    def describe_tokens(self, clip: float = 99) -> list[list[dict[str, Any]]]:
        """Return the tokens of each text with their values and colours.

        Parameters
        ----------
        clip : float, default 99
            Percentile of the values that has the last colour, as in `overlay`.

        Returns
        -------
        list of list of dict
            For each token without padding ``text``, ``value``, and the colours ``background`` and
            ``color`` as ``#rrggbb``. Values that are not finite are None.

        Examples
        --------
        >>> from actgrid.rendering import make_attribution
        >>> text = make_attribution([[1.0, 0.0]], ("token",), names=["good", "plain"])
        >>> text.describe_tokens()[0][0]["text"]
        'good'
        """
        return [
            [
                {
                    "text": name,
                    "value": value if math.isfinite(value) else None,
                    "background": "#{:02x}{:02x}{:02x}".format(*colour),
                    "color": "#{:02x}{:02x}{:02x}".format(*choose_text_colour(colour)),
                }
                for name, value, colour in self._list_tokens(row, clip, None)
            ]
            for row in range(len(self))
        ]

    def _list_tokens(
        self, row: int, clip: float, cmap: str | None
    ) -> list[tuple[str, float, tuple[int, int, int]]]:
        """Return the text, value and colour of each token of a text, without padding."""
        values = self.values[row]
        levels = self[row]._compute_levels(clip)[0]
        colours = palette(cmap or self.cmap)[levels]
        names = self.names[row] if self.names is not None else ()
        tokens = []
        for index, (value, colour) in enumerate(zip(values, colours, strict=True)):
            name = names[index] if index < len(names) else "" if names else f"[{index}]"
            if name:
                red, green, blue = map(int, colour)
                tokens.append((name, float(value), (red, green, blue)))
        return tokens

    def _describe_target(self, row: int) -> str:
        label = self.labels[row] if self.labels else ""
        if not label and self.target is not None and self.target[row] >= 0:
            label = f"class {self.target[row]}"
        return label if self.score is None else f"{label} {self.score[row]:.4g}".strip()

    def _draw_input_pictures(self) -> Pixels:
        return pad_pictures(
            _draw_tokens(
                [(name, 0.0, _WHITE) for name, *_ in self._list_tokens(row, 99, self.cmap)]
            )
            for row in range(len(self))
        )

    def _draw_pictures(self, alpha: float, cmap: str, clip: float, threads: int) -> Pixels:
        return pad_pictures(
            _draw_tokens(self._list_tokens(row, clip, cmap)) for row in range(len(self))
        )


def _draw_tokens(tokens: list[tuple[str, float, tuple[int, int, int]]]) -> Pixels:
    """Draw the tokens of a text on coloured ground, in lines: (height, width, 3) uint8."""
    font: Any = ImageFont.load_default(_FONT_SIZE)
    places = []
    left, line = 0.0, 0
    for token, _, colour in tokens:
        width = min(font.getlength(token), _WIDTH - 2 * _PADDING) + 2 * _PADDING
        if left > 0 and left + width > _WIDTH:
            left, line = 0.0, line + 1
        places.append((left, line, width, token, colour))
        left += width + _PADDING
    image = Image.new("RGB", (_WIDTH, (line + 1) * _LINE_HEIGHT), _WHITE)
    draw = ImageDraw.Draw(image)
    for left, line, width, token, colour in places:
        top = line * _LINE_HEIGHT
        draw.rectangle((left, top + 2, left + width, top + _LINE_HEIGHT - 3), fill=colour)
        position = (left + _PADDING, top + _LINE_HEIGHT / 2)
        draw.text(position, token, fill=choose_text_colour(colour), font=font, anchor="lm")
    return np.asarray(image)
