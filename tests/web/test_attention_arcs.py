"""Tests in a browser of the page that `actgrid.rendering.attention_arcs` writes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from actgrid.rendering.attention_arcs import AttentionArcs

WORDS = ["the", "cat", "sat", "<b>"]
WEIGHTS = np.array(
    [
        [0.9, 0.0, 0.0, 0.1],
        [0.4, 0.6, 0.0, 0.0],
        [0.2, 0.8, 0.0, 0.0],
        [0.01, 0.5, 0.49, 0.0],
    ]
)


def test_pointer_and_keyboard_select_the_arcs_of_a_token(
    opened: Callable[[Path], AbstractContextManager[Any]], tmp_path: Path
) -> None:
    first = AttentionArcs(WEIGHTS, WORDS, WORDS)
    second = AttentionArcs(WEIGHTS, list("efgh"), list("abcd"), threshold=0)
    path = tmp_path / "page.html"
    path.write_text(f'<meta charset="utf-8">{first.to_html()}{second.to_html()}')
    script = """() => [...document.querySelectorAll(".actgrid-arcs")].map(block =>
        [...block.querySelectorAll("path")]
            .filter(arc => getComputedStyle(arc).display != "none")
            .map(arc => arc.dataset.query + arc.dataset.key).sort())"""

    with opened(path) as page:
        everything = page.evaluate(script)
        assert list(map(len, everything)) == [len(first), len(second)]
        page.locator(".actgrid-arcs").nth(0).locator(".actgrid-query-2").hover()
        assert page.evaluate(script) == [["20", "21"], everything[1]]
        page.locator(".actgrid-arcs").nth(1).locator(".actgrid-key-1").hover()
        assert page.evaluate(script) == [everything[0], ["11", "21", "31"]]
        page.mouse.move(1200, 800)
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate(script) == [["10"], everything[1]]
