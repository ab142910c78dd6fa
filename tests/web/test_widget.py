"""Tests of the messages between a notebook and the viewer."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import actgrid
from actgrid.web.viewer import Viewer


class Page:
    """The part of the notebook: sends messages to a view, and collects the answers."""

    def __init__(self, view: actgrid.web.View, monkeypatch: pytest.MonkeyPatch) -> None:
        self.view = view
        self.answers: queue.Queue[tuple[dict[str, Any], list[bytes]]] = queue.Queue()
        monkeypatch.setattr(
            type(view.widget),
            "send",
            lambda widget, content, buffers=None: self.answers.put((content, buffers or [])),
        )

    def send(self, kind: str, number: str, path: str = "/", **options: Any) -> None:
        body = options.pop("body", None)
        content = {"kind": kind, "id": number, "method": "GET", "path": path, "headers": {}}
        buffers = [] if body is None else [memoryview(body)]
        self.view._receive(self.view.widget, content | options, buffers)

    def request(self, path: str, **options: Any) -> tuple[dict[str, Any], bytes]:
        self.send("request", "1", path, **options)
        content, (body,) = self.answers.get(timeout=60)
        assert content["kind"] == "response"
        assert content["id"] == "1"
        return content, body


@pytest.fixture
def page(model: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    with actgrid.view(model, photos, labels=["a/b", "ü #?", "bird"]) as view:
        yield Page(view, monkeypatch)


def test_requests_have_the_responses_of_the_server(page: Page) -> None:
    content, body = page.request("/api/model.json")
    assert content["status"] == 200
    assert content["headers"]["content-type"] == "application/json"
    assert json.loads(body)["name"] == "small"
    image = json.loads(page.request("/api/images.json?limit=1")[1])["images"][0]
    assert image["name"] == "photo0.png"
    path = f"/api/images/{image['id']}/heatmaps/gradcam/{quote('ü #?')}.json"
    assert json.loads(page.request(path)[1])["label"] == "ü #?"
    content, body = page.request("/api/nothing.json")
    assert content["status"] == 404
    assert "no resource /api/nothing.json" in json.loads(body)["detail"]


def test_uploads_and_deletions(page: Page, photos: Path) -> None:
    file = (photos / "photo1.png").read_bytes()
    content, body = page.request("/api/images?name=new.png", method="POST", body=file)
    assert content["status"] == 201
    image = json.loads(body)
    assert image["name"] == "new.png"
    content, body = page.request(f"/api/images/{image['id']}", method="DELETE")
    assert (content["status"], body) == (204, b"")


def test_cancelled_request_is_cancelled(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    states: queue.Queue[str] = queue.Queue()

    async def wait_forever(viewer: Viewer, image: str) -> bytes:
        states.put("started")
        try:
            await asyncio.Event().wait()
        finally:
            states.put("ended")
        return b""

    monkeypatch.setattr(Viewer, "get_picture", wait_forever)
    page.send("request", "7", "/api/images/0/picture.png")
    assert states.get(timeout=60) == "started"
    page.send("cancel", "7")
    assert states.get(timeout=60) == "ended"
    page.send("cancel", "8")  # an unknown request
    assert page.request("/api/images.json")[0]["status"] == 200


def test_closed_view_tells_the_page_and_ignores_messages(page: Page) -> None:
    page.view.close()
    assert page.answers.get(timeout=60) == ({"kind": "closed"}, [])
    page.send("request", "1")
    assert page.answers.empty()


def show_in_cell(view: actgrid.web.View, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Display a view as a notebook does when a cell runs."""
    monkeypatch.setattr("actgrid.web.notebook._get_cell_id", lambda: cell)
    view._ipython_display_()


def test_view_ends_when_no_cell_shows_it(
    model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("actgrid.web.notebook._views_by_cell", {})
    with actgrid.view(model) as first, actgrid.view(model) as second:
        show_in_cell(first, "a", monkeypatch)
        show_in_cell(first, "a", monkeypatch)
        show_in_cell(first, "b", monkeypatch)
        show_in_cell(second, "a", monkeypatch)
        assert repr(first) == "<View of small>"
        show_in_cell(second, "b", monkeypatch)
        assert repr(first) == "<View of small, closed>"
        assert repr(second) == "<View of small>"
        capsys.readouterr()
        show_in_cell(first, "c", monkeypatch)
        assert capsys.readouterr().out == "<View of small, closed>\n"
        with pytest.raises(actgrid.errors.OutputError, match="the view is closed"):
            first.url  # noqa: B018


def test_widget_state_contains_no_token(page: Page) -> None:
    token = page.view.url.partition("?token=")[2]
    state = page.view.widget.get_state()
    assert token not in json.dumps(state, default=str)


def test_picture_of_the_saved_notebook(page: Page) -> None:
    html = page.view._make_picture("some-id")
    assert html.startswith('<figure id="some-id"')
    assert 'alt="The layers of small for photo0.png.' in html
    assert "token" not in html
    with actgrid.view(page.view._viewer._engine.model) as empty:
        assert empty._make_picture("other").startswith('<p id="other">The layers of small.')
    assert len(html) < 300_000
