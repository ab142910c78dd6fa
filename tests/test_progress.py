from __future__ import annotations

import os
import pty
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actgrid.progress import progress

BESIDE = "12345.6 images/s  load 0.2 model 0.7 draw 0.1 write 0.1"


class Terminal:
    """A terminal, and what it was told to show."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.file = os.fdopen(theirs, "w")

    def shown(self) -> list[str]:
        """Close it, and return its rows without colours."""
        self.file.close()
        shown = b""
        try:
            while piece := os.read(self._ours, 1 << 16):
                shown += piece
        except OSError:
            pass  # the end, on Linux
        os.close(self._ours)
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
        return [row for row in re.split(r"[\r\n]+", text) if row.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Terminal]:
    """Return what puts standard error on a terminal, and others of these names."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def make(*others: str, columns: int = 100) -> Terminal:
        monkeypatch.setenv("COLUMNS", str(columns))
        made = Terminal()
        for name in ("stderr", *others):
            monkeypatch.setattr(sys, name, made.file)
        return made

    return make


def test_a_bar_is_shown_on_a_terminal(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    with progress(4, "drawing", done=1) as advance:
        for _ in range(3):
            advance(BESIDE)
    rows = screen.shown()
    assert re.match(r"drawing +[━╺]+ +25% 1/4 -:--:--", rows[0])
    assert re.match(r"drawing +━+ 100% 4/4 0:00:00 12345\.6 images/s", rows[-2])


@pytest.mark.parametrize("columns", [72, 80, 200])
def test_however_narrow_a_terminal_nothing_is_cut(
    terminal: Callable[..., Terminal], columns: int
) -> None:
    screen = terminal(columns=columns)
    with progress(1_000_000, "measuring") as advance:
        advance(BESIDE)
    rows = screen.shown()
    last = max(index for index, row in enumerate(rows) if row.startswith("measuring"))
    shown = " ".join(" ".join(rows[last:]).split())
    assert max(map(len, rows)) <= columns
    assert "1/1000000 " in shown
    assert "-:--:--" in shown
    assert "…" not in shown
    for word in BESIDE.split():
        assert word in shown


def test_what_is_printed_stands_above_the_bar(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("stdout")
    with progress(2, "drawing") as advance:
        for name in ("one", "[b]two[/b]"):
            print(name, flush=True)
            advance()
    rows = [row for row in screen.shown() if not row.startswith("drawing ")]
    assert rows == ["one", "[b]two[/b]"]


def test_what_is_printed_goes_where_standard_output_goes(
    terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    screen = terminal()
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with progress(1, "drawing") as advance:
            print("one")
            advance()
    assert (tmp_path / "out").read_text() == "one\n"
    assert all(row.startswith("drawing ") for row in screen.shown())


@pytest.fixture
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    yield
    assert capfd.readouterr() == ("", "")


def test_elsewhere_nothing_is_shown(quiet: None) -> None:
    with progress(2, "drawing") as advance:
        advance(BESIDE)


def test_nothing_is_shown_unless_wanted(terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    with progress(2, "drawing", shown=False) as advance:
        advance(BESIDE)
    assert screen.shown() == []
