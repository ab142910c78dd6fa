from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from actgrid.web.security import CancelWhenGone, Guard

LOCAL = {"localhost", "127.0.0.1", "::1"}


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("here")(scope, receive, send)


Asked = Callable[..., httpx.Response]


@pytest.fixture
def guarded(ask: Asked) -> Asked:
    """Send a request to a guarded application."""

    def guarded(path: str, headers: Any = None, method: str = "GET", **options: Any) -> Any:
        return ask(Guard(answer, **options), path, method, headers=headers)

    return guarded


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"]
)
def test_known_hosts(guarded: Asked, host: str) -> None:
    assert guarded("/api/x", {"host": host}, hosts=LOCAL).text == "here"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "[", "user@"]
)
@pytest.mark.parametrize("path", ["/", "/api/x"])
def test_other_hosts_are_refused(guarded: Asked, host: str, path: str) -> None:
    response = guarded(path, {"host": host}, hosts=LOCAL)
    assert response.status_code == 400
    assert "--allowed-hosts" in response.json()["detail"]


@pytest.mark.parametrize("name", ["Viewer.Example", "viewer.example:8000"])
def test_names_are_compared_as_browsers_send_them(guarded: Asked, name: str) -> None:
    assert guarded("/api/x", {"host": "viewer.example:8000"}, hosts=[name]).status_code == 200


def test_what_is_no_name_allows_nothing(guarded: Asked) -> None:
    assert guarded("/api/x", {"host": ""}, hosts=["", "["]).status_code == 400


def test_any_host_where_none_are_named(guarded: Asked) -> None:
    assert guarded("/api/x", {"host": "anywhere"}).status_code == 200


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer other", "Basic key", "Bearer k\xe9y"]
)
def test_a_token_is_wanted(guarded: Asked, given: str | None) -> None:
    headers = {} if given is None else {"authorization": given.encode("latin-1")}
    response = guarded("/api/x", headers, token="key")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in response.json()["detail"]


def test_the_token_opens(guarded: Asked) -> None:
    assert guarded("/api/x", {"authorization": "bearer key"}, token="key").text == "here"
    assert guarded("/", token="key").text == "here"  # the page, which takes it from its address


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another port of this machine
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
)
def test_pages_of_elsewhere_may_not_ask(guarded: Asked, headers: dict[str, str]) -> None:
    assert guarded("/api/images", headers, "POST", hosts=LOCAL).status_code == 403
    # By a link one may come from anywhere.
    assert guarded("/", headers, hosts=LOCAL).status_code == 200


def test_the_page_itself_may_ask(guarded: Asked) -> None:
    headers = {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}
    assert guarded("/api/images", headers, "POST", hosts=LOCAL).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/x", "/missing"])
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_every_answer_forbids_what_is_not_needed(guarded: Asked, path: str, host: str) -> None:
    headers = guarded(path, {"host": host}, hosts=LOCAL).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'self'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_a_notebook_may_frame_it(guarded: Asked) -> None:
    policy = guarded("/", framed=True).headers["content-security-policy"]
    assert "frame-ancestors *" in policy


Work = Callable[[], Awaitable[None]]


def asked(work: Work, *messages: Message, gone: bool = False) -> list[Message]:
    """What is sent where `work` comes before the answer; the client may be gone by then."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        for _ in messages:
            body += (await receive())["body"]
        await work()
        await PlainTextResponse(body)(scope, receive, send)

    async def main() -> None:
        left = list(messages)

        async def receive() -> Message:
            if left:
                return left.pop(0)
            if gone:
                return {"type": "http.disconnect"}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        await CancelWhenGone(app)({"type": "http", "method": "GET"}, receive, send)

    asyncio.run(asyncio.wait_for(main(), 10))
    return sent


def test_who_stays_is_answered() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    pieces = [{"type": "http.request", "body": piece, "more_body": True} for piece in (b"a", b"b")]
    start, body = asked(work, *pieces)
    assert (start["status"], body["body"]) == (200, b"ab")


def test_work_for_who_has_gone_is_cancelled() -> None:
    cancelled = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    assert asked(work, gone=True) == []
    assert cancelled == [True]


def test_errors_pass() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asked(work)


def test_a_server_that_stops_cancels_the_work() -> None:
    ended = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def main() -> None:
        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            raise AssertionError

        request = asyncio.ensure_future(CancelWhenGone(app)({"type": "http"}, receive, send))
        await asyncio.sleep(0.01)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(main())
    assert ended == [True]
