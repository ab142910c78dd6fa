"""Tests of access control, security headers and cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from actgrid.web.security import AccessControl, CancelOnDisconnect

LOCAL = {"localhost", "127.0.0.1", "::1"}


async def respond(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("here")(scope, receive, send)


SendRequest = Callable[..., httpx.Response]


@pytest.fixture
def send(send_request: SendRequest) -> SendRequest:
    """Return a function that sends a request to an application with access control."""

    def send(path: str, headers: Any = None, method: str = "GET", **options: Any) -> Any:
        app = AccessControl(respond, **options)
        return send_request(app, path, method, headers=headers)

    return send


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"]
)
def test_allowed_hosts_are_accepted(send: SendRequest, host: str) -> None:
    assert send("/api/x", {"host": host}, hosts=LOCAL).text == "here"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "[", "user@"]
)
@pytest.mark.parametrize("path", ["/", "/api/x"])
def test_other_hosts_are_rejected(send: SendRequest, host: str, path: str) -> None:
    response = send(path, {"host": host}, hosts=LOCAL)
    assert response.status_code == 400
    assert "--allowed-hosts" in response.json()["detail"]


@pytest.mark.parametrize("name", ["Viewer.Example", "viewer.example:8000"])
def test_host_names_ignore_case_and_port(send: SendRequest, name: str) -> None:
    assert send("/api/x", {"host": "viewer.example:8000"}, hosts=[name]).status_code == 200


def test_invalid_host_names_match_no_request(send: SendRequest) -> None:
    assert send("/api/x", {"host": ""}, hosts=["", "["]).status_code == 400


def test_all_hosts_are_accepted_without_allowed_hosts(send: SendRequest) -> None:
    assert send("/api/x", {"host": "anywhere"}).status_code == 200


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer other", "Basic key", "Bearer k\xe9y"]
)
def test_missing_or_wrong_token_is_rejected(send: SendRequest, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    response = send("/api/x", headers, token="key")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in response.json()["detail"]


def test_correct_token_is_accepted(send: SendRequest) -> None:
    assert send("/api/x", {"authorization": "bearer key"}, token="key").text == "here"
    assert send("/", token="key").text == "here"  # the page needs no token


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another port of this machine
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
)
def test_cross_origin_requests_are_rejected(send: SendRequest, headers: dict[str, str]) -> None:
    assert send("/api/images", headers, "POST", hosts=LOCAL).status_code == 403
    # Links of other sites may lead to the page.
    assert send("/", headers, hosts=LOCAL).status_code == 200


def test_same_origin_requests_are_accepted(send: SendRequest) -> None:
    headers = {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}
    assert send("/api/images", headers, "POST", hosts=LOCAL).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/x", "/missing"])
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_responses_have_security_headers(send: SendRequest, path: str, host: str) -> None:
    headers = send(path, {"host": host}, hosts=LOCAL).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'self'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


Operation = Callable[[], Awaitable[None]]


def run_request(
    operation: Operation, *messages: Message, disconnects: bool = False
) -> list[Message]:
    """Return the messages that an application sends after an operation.

    If `disconnects`, the client disconnects after its messages.
    """
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        for _ in messages:
            body += (await receive())["body"]
        await operation()
        await PlainTextResponse(body)(scope, receive, send)

    async def main() -> None:
        remaining = list(messages)

        async def receive() -> Message:
            if remaining:
                return remaining.pop(0)
            if disconnects:
                return {"type": "http.disconnect"}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        await CancelOnDisconnect(app)({"type": "http", "method": "GET"}, receive, send)

    asyncio.run(asyncio.wait_for(main(), 10))
    return sent


def test_connected_client_receives_response() -> None:
    async def operation() -> None:
        await asyncio.sleep(0)

    pieces = [{"type": "http.request", "body": piece, "more_body": True} for piece in (b"a", b"b")]
    start, body = run_request(operation, *pieces)
    assert (start["status"], body["body"]) == (200, b"ab")


def test_disconnect_cancels_operation() -> None:
    cancelled = []

    async def operation() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    assert run_request(operation, disconnects=True) == []
    assert cancelled == [True]


def test_errors_are_raised() -> None:
    async def operation() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_request(operation)


def test_cancelled_request_cancels_application() -> None:
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

        request = asyncio.ensure_future(CancelOnDisconnect(app)({"type": "http"}, receive, send))
        await asyncio.sleep(0.01)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(main())
    assert ended == [True]
